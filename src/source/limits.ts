/**
 * Every limit of the sources, in one place, with its reason. All of them can be set from outside, which
 * is how tests get by without waiting.
 */

export interface SourceLimits {
  /** DNS, TCP and TLS together. A host that is up answers within a second or two, even over a satellite. */
  connectMs: number
  /** From the request to the answer's headers. Mirrors that fetch from tape or a cold cache take this long. */
  headersMs: number
  /** Longest wait for the next byte of a body before the connection counts as broken. */
  stallMs: number
  /** A connection that brings fewer than `slowBytes` in so much waiting is given up: a modem brings 200 times as much. */
  slowMs: number
  /** Attempts that bring fewer than these, all together, count as attempts that bring nothing. */
  slowBytes: number
  /** Redirects in a row. curl's and browsers' limits are far higher; no mirror needs more than two or three. */
  redirects: number
  /** Attempts until there is a first answer: with the waits between, a restarting upstream gets 15 s. */
  attemptsToStart: number
  /** Attempts in a row that bring next to nothing once a download is under way: about a minute and a half. */
  attemptsToResume: number
  /** The wait after the first failure; each further one doubles it. */
  backoffBaseMs: number
  /** The longest wait that doubling leads to. */
  backoffCapMs: number
  /** Longest Retry-After that is worth waiting for, with a person in front of the device. */
  retryAfterMs: number
  /** A checksum file: a SHA256SUMS of some ten thousand files fits. */
  checksumBytes: number
  /** The index of a directory, or a list of builds: some ten thousand lines as web servers write them. */
  indexBytes: number
  /** Names looked at for a listing, in all directories together. A busy mirror has some thousand. */
  listNames: number
  /** Builds in a listing: as a module's file list, these sort and encode within a few milliseconds. */
  listBuilds: number
  /** For a whole listing: somebody waits for it, and a share may be slow. What was found by then counts. */
  listMs: number
  /** A contents file: OLPC's took about 150 bytes for each of 40,000 entries, a tenth of this. */
  contentsBytes: number
}

/** What the configuration of a source may say of its limits. */
export interface LimitOptions {
  /** Longest wait for an answer, and for the next byte of one. */
  stallMs?: number | undefined
  /** Attempts in a row that bring nothing new, to start and to go on. */
  attempts?: number | undefined
}

/** So many stalls long may a connection be slow. */
const SLOW_STALLS = 4

/** The limits of a source. @param more what tests set. */
export function limitsFor(
  { stallMs, attempts }: LimitOptions,
  more: Partial<SourceLimits> = {},
): Readonly<SourceLimits> {
  return {
    ...SOURCE_LIMITS,
    ...(stallMs === undefined ? {} : waitsOf(stallMs)),
    ...(attempts === undefined ? {} : { attemptsToStart: attempts, attemptsToResume: attempts }),
    ...more,
  }
}

/** What is slow is the same rate, however long it is looked at. */
function waitsOf(stallMs: number): Partial<SourceLimits> {
  const slowBytes = Math.ceil((SOURCE_LIMITS.slowBytes * stallMs) / SOURCE_LIMITS.stallMs)
  return { headersMs: stallMs, stallMs, slowMs: stallMs * SLOW_STALLS, slowBytes }
}

export const SOURCE_LIMITS: Readonly<SourceLimits> = Object.freeze({
  connectMs: 10_000,
  headersMs: 30_000,
  stallMs: 30_000,
  slowMs: 120_000,
  slowBytes: 2_000,
  redirects: 5,
  attemptsToStart: 5,
  attemptsToResume: 8,
  backoffBaseMs: 1_000,
  backoffCapMs: 30_000,
  retryAfterMs: 120_000,
  listNames: 100_000,
  listBuilds: 10_000,
  listMs: 10_000,
  checksumBytes: 1 << 20,
  indexBytes: 8 << 20,
  contentsBytes: 64 << 20,
})
