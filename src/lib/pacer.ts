/**
 * Keeps long work on the event loop polite: after a slice of time, others get their turn.
 *
 *     for (const entry of entries) {
 *       if (pacer.due) await pacer.rest()
 *       ...
 *     }
 */
import type { Hash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'

/** Long enough that resting costs nothing, short enough that nobody notices. */
const SLICE_MS = 8

export class Pacer {
  readonly #signal: AbortSignal | undefined
  #restedAt = performance.now()

  /** @param signal `rest` throws its reason once it is aborted. */
  constructor(signal?: AbortSignal) {
    this.#signal = signal
  }

  /** Whether the slice is used up. Cheap enough to ask for every entry. */
  get due(): boolean {
    return performance.now() - this.#restedAt > SLICE_MS
  }

  async rest(): Promise<void> {
    await nextTurn()
    this.#signal?.throwIfAborted()
    this.#restedAt = performance.now()
  }
}

/** What is hashed at a stretch: below a millisecond's work, on slow machines some. */
const HASHED_BYTES = 256 * 1024

/**
 * Takes bytes into a digest, a slice at a time. They stay as they are meanwhile. (A thread would need a copy of them, which
 * takes as long as hashing does where the processor has instructions for that, and all of it at a stretch.)
 */
export async function pacedUpdate(hash: Hash, bytes: Uint8Array, pacer = new Pacer()): Promise<void> {
  for (let at = 0; at < bytes.length; at += HASHED_BYTES) {
    if (pacer.due) await pacer.rest()
    hash.update(bytes.subarray(at, at + HASHED_BYTES))
  }
}

/** What is sorted at a stretch: about a millisecond's work. */
const RUN = 2048

/**
 * Sorts numbers by a comparison, stably, a slice at a time: runs are sorted, then merged two by two.
 * @returns the sorted array, which is `items` or another of its size.
 */
export async function pacedSort(
  items: Uint32Array,
  compare: (a: number, b: number) => number,
  pacer: Pacer,
): Promise<Uint32Array> {
  for (let start = 0; start < items.length; start += RUN) {
    items.subarray(start, start + RUN).sort(compare)
    if (pacer.due) await pacer.rest()
  }
  let from: Uint32Array = items
  let to: Uint32Array = new Uint32Array(items.length)
  for (let width = RUN; width < items.length; width *= 2) {
    for (let start = 0; start < items.length; start += 2 * width) {
      const middle = Math.min(start + width, items.length)
      const end = Math.min(start + 2 * width, items.length)
      let left = start
      let right = middle
      for (let at = start; at < end; at++) {
        const takeLeft = left < middle && (right >= end || compare(from[left]!, from[right]!) <= 0)
        to[at] = takeLeft ? from[left++]! : from[right++]!
        if ((at & (RUN - 1)) === 0 && pacer.due) await pacer.rest()
      }
    }
    ;[from, to] = [to, from]
  }
  return from
}
