/**
 * Reads at once, without a thread, what the system has in its memory: then a read is a copy, and a thread for it
 * costs several times as much. There is no asking whether it is there, so it is tried; after a read that had
 * to wait for a disk, those who ask are sent to the threads for a while.
 */

/** Longer than copying takes, shorter than anybody notices. */
const QUICK_MS = 2
/** A thread that was not given a processor waits as long as one for a disk; but nobody for so long. */
const SLOW_MS = 50
/** One slow read in this time is hardly noticed, either. */
const REST_MS = 2000

export class QuickReads {
  #restingUntil = 0
  #blocksRead = 0
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
    const result = read()
    const took = this.#now() - began
    if (took > QUICK_MS) this.#judge(took)
    return result
  }

  /** It was slow: because of the disk, or only of others who use the processor? */
  #judge(tookMs: number): void {
    const blocks = this.#diskReads()
    const fromDisk = blocks !== this.#blocksRead
    this.#blocksRead = blocks
    if (fromDisk || tookMs > SLOW_MS) this.#restingUntil = this.#now() + REST_MS
  }
}
