/**
 * Reads at once, without a thread, what the system has in its memory: then a read is a copy, and a thread for it
 * costs several times as much. There is no asking whether it is there, so it is tried; after a read that had
 * to wait for a disk, those who ask are sent to the threads for a while.
 */

/** Longer than copying takes, shorter than anybody notices. */
const QUICK_MS = 2
/** A thread that was not given a processor waits as long as one for a disk; but nobody for so long so often. */
const SLOW_MS = 50
const SLOW_IN_A_ROW = 3
/** One slow read in this time is hardly noticed, either, unless it is very slow. */
const REST_MS = 2000
/** A disk that is slow again as soon as it is tried has more to do than it can: it is left alone for longer and longer. */
const LONGEST_REST_MS = 60_000
/** How old what is known of reads from disks may be, when it is asked whether one was. */
const KNOWN_MS = 50

export class QuickReads {
  /** For whatever a server reads: that lies on one disk, and where one file makes us wait the next one would, too. */
  static readonly ofServer = new QuickReads()

  #restMs = REST_MS
  #restingUntil = Number.NEGATIVE_INFINITY
  #slowReads = 0
  #blocksRead = 0
  #knownAt = Number.NEGATIVE_INFINITY
  readonly #now: () => number
  readonly #diskReads: () => number

  /** @param diskReads how often the process has waited for a disk so far. */
  constructor(now = () => performance.now(), diskReads = () => process.resourceUsage().fsRead) {
    this.#now = now
    this.#diskReads = diskReads
  }

  /** Runs `read`, unless it is likely to take long: then undefined. */
  try<T>(read: () => T): T | undefined {
    const began = this.#now()
    if (began < this.#restingUntil) return undefined
    // Whatever else reads from a disk, the program itself at first, is not taken for this read.
    if (began - this.#knownAt > KNOWN_MS) {
      this.#blocksRead = this.#diskReads()
      this.#knownAt = began
    }
    const result = read()
    const took = this.#now() - began
    if (took > QUICK_MS) this.#judge(took)
    else this.#slowReads = 0
    return result
  }

  /** It was slow: because of the disk, or only of others who use the processor? */
  #judge(tookMs: number): void {
    const fromDisk = this.#diskReads() !== this.#blocksRead
    this.#slowReads = tookMs > SLOW_MS ? this.#slowReads + 1 : 0
    this.#knownAt = Number.NEGATIVE_INFINITY
    if (!fromDisk && this.#slowReads < SLOW_IN_A_ROW) return
    this.#slowReads = 0
    const now = this.#now()
    const isAgain = now - this.#restingUntil < REST_MS
    this.#restMs = isAgain ? Math.min(2 * this.#restMs, LONGEST_REST_MS) : REST_MS
    this.#restingUntil = now + this.#restMs
  }
}
