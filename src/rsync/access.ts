/** What a session asks of whoever knows the rules: who may have which module, and whose turn it is. */
import type { Hides } from './hidden-tree.ts'
import type { Asker } from './modules.ts'

/** What a client said to prove who it is. */
export interface Proof {
  readonly user: string
  /** Whether who said this knows the password. Takes the same time for every password of equal length. */
  provenBy(password: Uint8Array): boolean
}

/** What holds for a session with certain modules. */
export interface VisitSettings {
  /** Sessions that name the same limit count together. */
  readonly limits: readonly Limit[]
  /** Instead of the server's own. */
  readonly idleTimeoutMs: number | undefined
  readonly refuseOptions: readonly string[]
  readonly hides: readonly Hides[]
}

/** So many transfers at a time, of all sessions that name it. */
export interface Limit {
  readonly name: string
  readonly most: number
  /** How many of them may wait in line; undefined for as many as there are places in it. */
  readonly waiting?: number
  /** Whose they are, for those who are told: "of this address". */
  readonly of?: string
}

/** One client, and what the rules say of it. `modules` are the names that `Modules.ruledBy` gives. */
export interface Visitor extends Asker {
  /** What the listing shows of a module: nothing, or maybe another comment. */
  listing(module: string): { comment: string | undefined } | undefined
  /** Whether the client may come from where it does. */
  mayKnock(modules: readonly string[]): boolean
  /** Whether it has to prove who it is. */
  mustProve(modules: readonly string[]): boolean
  /** Whether it may hear that there is such a module. */
  mayHear(module: string): boolean
  /**
   * Takes the proof, if it is good for all of these. Who has failed often has to wait for the answer.
   * @throws LoginsSlowed when it would have to wait for long.
   */
  proveSlowly(modules: readonly string[], proof: Proof): Promise<boolean>
  /** Takes a proof that another process of ours has judged already. */
  prove(modules: readonly string[], proof: Proof): boolean
  settings(modules: readonly string[]): VisitSettings
  /** Those of equal standing see the same in listings. */
  readonly standing: string
  /** Whether any module at all hides names. */
  readonly hidesNames: boolean
}

/** A session's right to transfer, from when it is called up until it leaves. */
export interface Turn {
  /**
   * The client has said all that it owes: now the turn is its own, at once unless the client took so long
   * that others were called up in its place.
   */
  begin(signal: AbortSignal): Promise<void>
  /** May be called more than once. */
  leave(): void
}

/** Whose turn it is. */
export interface Turns {
  /**
   * Waits in line, if need be.
   * @param say is handed a line for the person who waits, and the place in line, now and every few seconds.
   * @throws ServerBusy when as many wait as may.
   */
  enter(
    limits: readonly Limit[],
    say: (line: string, place: number) => void,
    signal: AbortSignal,
  ): Promise<Turn>
}
