/**
 * What was put and is not on disk yet, in pieces of memory that are used again: fresh memory for every record makes
 * the garbage collector run all the time.
 */

/** Of most pieces. */
const PIECE_BYTES = 512 * 1024
/** Pieces that wait for their next use. */
const MOST_FREE = 4

/** One for all segments. */
export class PieceMemory {
  readonly #free: Buffer[] = []

  take(bytes: number): Buffer {
    if (bytes > PIECE_BYTES) return Buffer.allocUnsafeSlow(bytes)
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES)
  }

  /** Nobody reads it any more. */
  give(memory: Buffer): void {
    if (memory.length === PIECE_BYTES && this.#free.length < MOST_FREE) this.#free.push(memory)
  }
}

/** Bytes to be written one after the other. */
export class Pieces {
  readonly #memory: PieceMemory
  readonly #pieces: { memory: Buffer; length: number }[] = []

  constructor(memory: PieceMemory) {
    this.#memory = memory
  }

  /** Room for so many bytes at a stretch, which count from now on. */
  room(bytes: number): Buffer {
    let last = this.#pieces.at(-1)
    if (!last || last.length + bytes > last.memory.length) {
      last = { memory: this.#memory.take(bytes), length: 0 }
      this.#pieces.push(last)
    }
    const start = last.length
    last.length += bytes
    return last.memory.subarray(start, last.length)
  }

  filled(): Buffer[] {
    return this.#pieces.map(({ memory, length }) => memory.subarray(0, length))
  }

  /** Nobody reads or fills them any more. */
  free(): void {
    for (const { memory } of this.#pieces.splice(0)) this.#memory.give(memory)
  }
}
