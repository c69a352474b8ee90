/** A fetch that has ended, as it is remembered: what came from where, and how it went. */

/** How a fetch went. */
export interface FetchEnd {
  /** Of the build. */
  id: string
  source: string
  /** The mirror that it came from last, without secrets; '' when none was found. */
  url: string
  began: string
  ended: string
  outcome: 'done' | 'failed' | 'stopped'
  /** Of the error; '' when all went well. */
  code: string
  reason: string
  receivedBytes: number
}

export interface FetchRecord extends FetchEnd {
  /** Never given twice on one data directory. */
  number: number
}

/** Which records are meant. All that is given must hold. */
export interface FetchQuery {
  build?: string | undefined
  source?: string | undefined
  outcome?: string | undefined
  /** Those that ended at or after, and before this. ISO 8601. */
  since?: string | undefined
  until?: string | undefined
}

export interface FetchPage {
  /** The latest first. */
  records: FetchRecord[]
  /** Hand it in to get those behind; null at the end. */
  next: number | null
}
