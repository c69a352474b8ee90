/**
 * Keeps a crowd polite, where `Pacer` does that for one long work: each does little, but a thousand of them may come,
 * or go, at once. As many do it now as a slice of time takes; the others follow in order, slice by slice, and everybody
 * else has a turn in between.
 *
 *     await slices.turn()
 */
import { setImmediate as nextTurn } from 'node:timers/promises'

/** As that of a pacer. */
const SLICE_MS = 8

export class Slices {
  readonly #now: () => number
  /** In the order in which they came. */
  readonly #waiting = new Set<() => void>()
  #began = 0
  #runs = false

  /** @param now milliseconds on a clock that never jumps. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** @returns undefined for "at once". */
  turn(): Promise<void> | undefined {
    if (!this.#runs) {
      this.#runs = true
      this.#began = this.#now()
      void this.#run()
      return undefined
    }
    if (this.#waiting.size === 0 && !this.#isOver) return undefined
    return new Promise((resolve) => this.#waiting.add(resolve))
  }

  get #isOver(): boolean {
    return this.#now() - this.#began > SLICE_MS
  }

  async #run(): Promise<void> {
    for (await nextTurn(); this.#waiting.size > 0; await nextTurn()) {
      this.#began = this.#now()
      for (const go of this.#waiting) {
        if (this.#isOver) break
        this.#waiting.delete(go)
        go()
        // What it does now, and what it leaves for the next tick (as TLS does), counts before we go on.
        await new Promise<void>(process.nextTick)
      }
    }
    this.#runs = false
  }
}
