/** A change that somebody made or tried to make: who, from where, what, and what came of it. */
export interface ChangeRecord {
  /** Never given twice on one data directory. */
  id: number
  /** ISO 8601. */
  at: string
  /** "token", "session N" (of a browser), "command" (whoever may use the control socket), or NOBODY. */
  who: string
  /** Address and port; "this machine" for commands. */
  from: string
  /** By its name in the API: "pinBuild", "login", "reload". */
  what: string
  /** What it was about, as in "id=802". */
  target: string
  result: 'done' | 'refused' | 'failed'
  /** Of the error; '' when all went well. */
  code: string
  reason: string
}

/** Who has shown neither the token nor a session: a stranger, who may try as often as he likes. */
export const NOBODY = 'nobody'

export interface ChangePage {
  /** The latest first. */
  changes: ChangeRecord[]
  /** Hand it in to get those behind; null at the end. */
  next: number | null
}
