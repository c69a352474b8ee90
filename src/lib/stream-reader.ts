/** Takes lines and counted bytes from a stream of chunks, one after the other. Holds what it was asked for, and a chunk. */

export class StreamReader {
  readonly #chunks: AsyncIterator<Uint8Array>
  #pending: Buffer = Buffer.alloc(0)

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]()
  }

  /** The next line, without its end; undefined when the stream ends first, or the line is longer than `most`. */
  async line(most: number): Promise<string | undefined> {
    for (;;) {
      const end = this.#pending.indexOf(10)
      if (end >= 0 && end <= most) return this.#take(end + 1).toString('utf8', 0, end)
      if (end > most || this.#pending.length > most || !(await this.#more())) return undefined
    }
  }

  /** So many bytes; undefined when the stream ends first. The caller has bounded the number. */
  async bytes(count: number): Promise<Buffer | undefined> {
    if (this.#pending.length >= count) return this.#take(count)
    const parts: Uint8Array[] = [this.#pending]
    let have = this.#pending.length
    while (have < count) {
      const next = await this.#chunks.next()
      if (next.done) return undefined
      parts.push(next.value)
      have += next.value.length
    }
    this.#pending = Buffer.concat(parts, have)
    return this.#take(count)
  }

  /** All that is left. */
  async *rest(): AsyncGenerator<Uint8Array, void, undefined> {
    if (this.#pending.length > 0) yield this.#pending
    for (;;) {
      const next = await this.#chunks.next()
      if (next.done) return
      yield next.value
    }
  }

  /** Lets go of the stream. */
  async close(): Promise<void> {
    await this.#chunks.return?.()
  }

  #take(count: number): Buffer {
    const taken = this.#pending.subarray(0, count)
    this.#pending = this.#pending.subarray(count)
    return taken
  }

  async #more(): Promise<boolean> {
    const next = await this.#chunks.next()
    if (next.done) return false
    this.#pending = Buffer.concat([this.#pending, next.value])
    return true
  }
}
