/** A session that has ended, as it is remembered: who asked for what, how it went, and what explains it. */

/** A file that was sent, and how much of it the client did not have. */
export interface CostlyFile {
  name: string
  /** What the client had of it. */
  had: 'nothing' | 'no-sums' | 'too-many-blocks' | 'blocks'
  matchedBytes: number
  literalBytes: number
}

export interface SessionRecord {
  /** Never given twice on one data directory. */
  id: number
  /** ISO 8601. */
  began: string
  ended: string
  /** '' where nobody knows it. */
  address: string
  port: number
  /** Who the client said it was; '' where it was not asked. */
  user: string
  module: string
  /** Id of the build that the module was, or stood for; '' for modules of another kind. */
  build: string
  paths: string
  options: string
  protocol: number
  codec: string
  digest: string
  outcome: 'done' | 'listed' | 'refused' | 'peer-error' | 'lost' | 'failed'
  /** Of the error; '' when all went well. */
  code: string
  reason: string
  /** State that it ended in. */
  state: string
  ms: number
  waitedMs: { build: number; line: number }
  /** Milliseconds in each state that it came through. */
  stateMs: Record<string, number>
  bytesIn: number
  bytesOut: number
  /** Entries of the list, and all of its files together. */
  entries: number
  listedBytes: number
  /** Files that were sent; of these, files of which the client had nothing. */
  files: number
  newFiles: number
  newBytes: number
  matchedBytes: number
  literalBytes: number
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
