/** A session that has ended, as it is remembered: who asked for what, how it went, and what explains it. */

/** A file that was sent, and how much of it the client did not have. */
export interface CostlyFile {
  name: string
  /** What the client had of it. */
  had: 'nothing' | 'no-sums' | 'too-many-blocks' | 'blocks'
  matchedBytes: number
  literalBytes: number
}

/** What a session is about, whether it goes on or has ended. */
export interface SessionFacts {
  /** Never given twice on one data directory. */
  id: number
  /** ISO 8601. */
  began: string
  /** '' where nobody knows it. */
  address: string
  port: number
  /** The name that its certificate proves; '' without one. */
  device: string
  /** Whether it came by TLS. */
  tls: boolean
  /** Who the client said it was; '' where it was not asked. */
  user: string
  module: string
  /** Id of the build that the module is, or stands for; '' for modules of another kind. */
  build: string
  paths: string
  options: string
  protocol: number
  /** That it is in, or ended in. */
  state: string
  bytesIn: number
  bytesOut: number
  /** Entries of the list, and all of its files together. */
  entries: number
  listedBytes: number
  /** Files that were sent, and their content: what the client had already, and what it had not. */
  files: number
  matchedBytes: number
  literalBytes: number
}

export interface SessionRecord extends SessionFacts {
  ended: string
  codec: string
  digest: string
  outcome: 'done' | 'listed' | 'refused' | 'peer-error' | 'lost' | 'failed'
  /** Of the error; '' when all went well. */
  code: string
  reason: string
  ms: number
  waitedMs: { build: number; line: number }
  /** Milliseconds in each state that it came through. */
  stateMs: Record<string, number>
  /** Of the files that were sent, those of which the client had nothing, and their content. */
  newFiles: number
  newBytes: number
  /** Answers worked out by a search, without one, and taken from those worked out before. */
  searched: number
  prepared: number
  reused: number
  costliest: CostlyFile[]
}

/** Which records are meant. All that is given must hold. */
export interface RecordQuery {
  build?: string | undefined
  address?: string | undefined
  device?: string | undefined
  user?: string | undefined
  outcome?: string | undefined
  /** Those that ended at or after, and before this. ISO 8601. */
  since?: string | undefined
  until?: string | undefined
}

export interface RecordPage {
  /** The latest first. */
  records: SessionRecord[]
  /** Hand it in to get those behind; null at the end. */
  next: number | null
}
