/**
 * What an operator can ask of upserv, whoever carries it out: the process itself, or the one that owns the
 * data directory, through its control socket.
 */
import type { ChangePage } from '../history/change-record.ts'
import type { FetchEnd, FetchPage, FetchQuery } from '../history/fetch-record.ts'
import type { RecordPage, RecordQuery, SessionFacts, SessionRecord } from '../history/session-record.ts'
import type { StockRelease } from '../rsync/stock-releases.ts'
import type { WarmRequest } from './warm-request.ts'

/** What is imported: an archive, or what `upserv export` has written. */
export type ImportForm = 'archive' | 'export'

/** One line of `upserv list`. */
export interface BuildSummary {
  id: string
  /** Regular files. */
  files: number
  /** All entries of the tree. */
  entries: number
  /** Logical size: the content of all files, names of one hard-linked file counted once. */
  bytes: number
  /** What removing the build would free now. */
  storedBytes: number
  sticky: boolean
  /** A session or fetch holds it at the moment. */
  inUse: boolean
  /** ISO 8601. */
  accessed: string
  fetched: string
  /** Name of the source that it came from; "import" for one brought by hand. */
  source: string
  /** Where it came from; '' when that is not known. */
  url: string
  /** Who vouched for it before it became visible: checksums, signatures. */
  vouchers: readonly string[]
  /** The same in few words. */
  checkedBy: string
  /** Channels that stand for it now. */
  channels: string[]
  /** Why it cannot be served as it is; null when, as far as is known, it can. */
  damaged: string | null
}

/** What the sources have, as far as they can tell. */
export interface AvailableBuilds {
  builds: {
    id: string
    /** Name of the source that it would come from. */
    source: string
    url: string
    /** When its archive was last changed, ISO 8601; null where the source does not tell. */
    published: string | null
  }[]
  /** Sources that may have more than this, and why. */
  gaps: { source: string; reason: string }[]
}

/** A fetch under way. */
export interface FetchStatus {
  id: string
  source: string
  /** What it is at; `phase` says the same in words. */
  step: 'waiting' | 'locating' | 'downloading' | 'checking' | 'publishing'
  phase: string
  /** ISO 8601. */
  began: string
  receivedBytes: number
  totalBytes: number | null
  unpackedBytes: number
  /** Of late; 0 when nothing comes. */
  bytesPerSecond: number
  /** Null when nobody knows. */
  secondsLeft: number | null
  /** Clients and commands that wait for it. */
  waiting: number
}

/** A client that is connected. */
export interface SessionStatus extends SessionFacts {
  /** In line, from 1; 0 for who does not wait in it. */
  place: number
  /** How far it is through its list, 0 to 1; null before its list was sent. */
  progress: number | null
}

/** What has happened since the server was started. Sessions count when they have ended. */
export interface Totals {
  /** ISO 8601. */
  since: string
  sessions: Record<SessionRecord['outcome'], number>
  bytesIn: number
  bytesOut: number
  files: number
  /** Content of all files that were sent: what devices had already, and what they had not. */
  matchedBytes: number
  literalBytes: number
  /** How answers were had: by a search, without one, from those worked out before. */
  searched: number
  prepared: number
  reused: number
  fetches: Record<FetchEnd['outcome'], number>
  fetchedBytes: number
  evicted: number
}

/** The verification under way, or the last one. */
export interface VerificationStatus {
  running: boolean
  /** The build that is verified; null for all. */
  id: string | null
  bytes: number
  totalBytes: number
  rottenBlobs: number
  /** Null while it runs, and when it failed. */
  report: VerifyReport | null
  failure: string | null
}

/** What the server is doing and has just done. */
export interface Activity {
  /** ISO 8601. */
  at: string
  status: Status
  /** Those who came last, the latest first; `status.sessions` says how many there are. */
  sessions: SessionStatus[]
  /** Those that ended last, the latest first. */
  recent: SessionRecord[]
  recentFetches: FetchEnd[]
  totals: Totals
  verification: VerificationStatus | null
}

export type TimelineSpan = 'hour' | 'day'

/** Transfers over time. */
export interface TimelineReport {
  /** When the first point begins, ISO 8601. */
  start: string
  /** What a point stands for. */
  stepSeconds: number
  points: {
    bytesOut: number
    /** Content of files that were brought up to date. */
    askedBytes: number
    /** Sessions that ended. */
    sessions: number
  }[]
}

/** Something that a person should know of a session. */
export interface Hint {
  code:
    | 'access-denied'
    | 'server-busy'
    | 'client-left'
    | 'no-such-build'
    | 'uniform-mtime'
    | 'first-sync'
    | 'renamed-files'
    | 'whole-file'
    | 'nothing-shared'
    | 'old-basis'
    | 'not-compressed'
    | 'waited-for-build'
    | 'waited-in-line'
    | 'nothing-new'
    | 'fine'
  /** In English; the values that it names are in `values`, for other languages. */
  text: string
  values: Record<string, string | number>
}

/** A session, explained. */
export interface Explanation {
  record: SessionRecord
  hints: Hint[]
}

export interface Status {
  version: string
  pid: number
  dataDir: string
  /** Addresses that clients can connect to. */
  listening: string[]
  /** Addresses of those that speak rsync over TLS. */
  tlsListening: string[]
  /** Where page, API and metrics are. */
  httpUrls: string[]
  uptimeSeconds: number
  budgetBytes: number
  usedBytes: number
  /** What the used bytes are for. */
  usage: { builds: number; cache: number; downloads: number; history: number; other: number }
  builds: number
  /** Ids of builds that are known to be damaged. */
  damaged: string[]
  /** Clients that are connected. */
  sessions: number
  /** How many of them wait in line for their turn to transfer. */
  inLine: number
  fetches: FetchStatus[]
}

/** What `upserv gc` did, or would do. */
export interface GcReport {
  dryRun: boolean
  budgetBytes: number
  usedBytes: number
  /** Blobs that no build needs any more. */
  deadBytes: number
  /** Builds that had to go, or would have to, for the budget. */
  evicted: string[]
  freedBytes: number
  /** What would go before any build does: caches and downloads that broke off. Only for a dry run. */
  spare: { what: 'cache' | 'download'; name: string; bytes: number }[]
  /** Each build, who goes first at the start. Only when an explanation was asked for. */
  builds: GcVerdict[]
}

/** Why a build stays or goes. */
export interface GcVerdict {
  id: string
  goes: boolean
  reason: string
  /** ISO 8601. */
  accessed: string
  /** What removing it alone would free now: what no other build shares. */
  freesBytes: number
}

export interface GcOptions {
  dryRun: boolean
  /** With a reason for every build. */
  explain: boolean
}

/** How a verification goes. */
export type VerifyProgress =
  | { type: 'checked'; bytes: number; totalBytes: number; rottenBlobs: number }
  /** A line of the fetch that makes a build whole. */
  | { type: 'repairing'; line: string }

export interface DamagedBuild {
  id: string
  reason: string
  /** Paths of files whose content is lost, the first few. */
  files: string[]
  /** It has been fetched again and is whole. */
  repaired: boolean
  /** Why it could not be repaired, when that was tried. */
  failure: string | null
}

export interface VerifyReport {
  /** What was read. */
  blobs: number
  bytes: number
  /** Blobs that were found to have rotted now; those found before are not counted. */
  rottenBlobs: number
  damaged: DamagedBuild[]
}

export interface WarmProgress {
  type: 'warming'
  /** The build that devices have; undefined while lists are made. */
  from: string | undefined
  /** Bytes of files that are done, and of all there are, once for each client. */
  bytes: number
  totalBytes: number
}

/** What clients of one kind will get. */
export interface WarmedClient {
  client: StockRelease
  /** 'none' where it is not compressed. */
  codec: string
  /** File data that each device is sent. */
  bytes: number
  /** How many answers there are, and how many of them had to be worked out. */
  answers: number
  newAnswers: number
  /** Those that could not be kept, as they are too large or there was no room: each device has them worked out. */
  unready: number
}

/** What was prepared for devices that have one build. */
export interface WarmedUpdate {
  from: string
  /** Files that such a device asks for, a hard-linked one once, and how large they are. */
  files: number
  bytes: number
  /** Files that could not be read, here or there: see the log. */
  unreadable: number
  clients: WarmedClient[]
  /** What the derived data grew by for this. */
  writtenBytes: number
}

export interface WarmReport {
  id: string
  quick: boolean
  /** File lists that are ready, one for each way to ask. */
  lists: number
  updates: WarmedUpdate[]
  /** What the derived data grew by in all. */
  writtenBytes: number
  /** Older derived data that had to go for it. */
  droppedBytes: number
  /**
   * What there was not enough of for all of it, as it ended before what it had made itself had to go: bytes, or the number
   * of records that are kept.
   */
  full: 'bytes' | 'records' | null
  ms: number
}

export interface Operations {
  list(): Promise<BuildSummary[]>
  status(): Promise<Status>
  activity(): Promise<Activity>
  timeline(span: TimelineSpan): Promise<TimelineReport>
  /** Sessions that have ended, the latest first. @param before only those whose id is less. */
  history(query: RecordQuery, limit: number, before?: number): Promise<RecordPage>
  /** @param which a session's id, an address, a device or a user: then its last session. @throws CommandError */
  explain(which: string): Promise<Explanation>
  /** Deletes what is remembered of sessions, for good. @returns how many. */
  forget(query: RecordQuery): Promise<number>
  /** Fetches that have ended, the latest first. @param before only those whose number is less. */
  fetchHistory(query: FetchQuery, limit: number, before?: number): Promise<FetchPage>
  /** Deletes what is remembered of fetches, for good. @returns how many. */
  forgetFetches(query: FetchQuery): Promise<number>
  /** Changes that were made or tried, the latest first. @param before only those whose id is less. */
  changes(limit: number, before?: number): Promise<ChangePage>
  available(signal: AbortSignal): Promise<AvailableBuilds>
  /** Gets a build that is not held; `say` is told how it goes. @returns false when it was held already. */
  fetch(id: string, say: (line: string) => void, signal: AbortSignal): Promise<boolean>
  /** Makes a build of a file, or of what comes through a FIFO, on this machine. `file` is an absolute path. */
  import(
    file: string,
    id: string,
    form: ImportForm,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<void>
  /** Makes builds of all that are on a stick in xs-rsync's layout and not held yet. @returns their ids. */
  importStick(directory: string, say: (line: string) => void, signal: AbortSignal): Promise<string[]>
  /** Writes a build, without what the builds `have` have, to a file or FIFO: for `import` of another server. */
  export(id: string, have: readonly string[], path: string, signal: AbortSignal): Promise<void>
  pin(id: string): Promise<void>
  unpin(id: string): Promise<void>
  remove(id: string): Promise<void>
  gc(options: GcOptions): Promise<GcReport>
  /** Reads a build again, or all of them; with `repair`, what is damaged is fetched again. */
  verify(
    id: string | undefined,
    options: { repair: boolean },
    onProgress: (progress: VerifyProgress) => void,
    signal: AbortSignal,
  ): Promise<VerifyReport>
  /** Works out what devices are going to ask, before the first of them does. */
  warm(
    request: WarmRequest,
    onProgress: (progress: WarmProgress) => void,
    signal: AbortSignal,
  ): Promise<WarmReport>
}
