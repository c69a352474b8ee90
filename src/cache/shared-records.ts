/**
 * Large records in memory, by where they are read from, for as long as anybody uses them: a fleet that is told the
 * same at about the same time holds it once. Who uses a record holds its memory, whatever view of it that is.
 */
type Reading = Promise<Uint8Array | undefined>

export class SharedRecords {
  /** What is gone leaves an entry, until it is read again: there are no more of them than large records in a segment. */
  readonly #held = new Map<number, WeakRef<ArrayBufferLike>>()
  readonly #reading = new Map<number, Reading>()

  /**
   * The record at `offset`: as somebody has it, or else as `read` fills it in.
   * @param read undefined: there is none that could be used.
   */
  get(
    offset: number,
    length: number,
    read: (memory: Buffer) => Uint8Array | undefined | Reading,
  ): Uint8Array | undefined | Reading {
    const memory = this.#held.get(offset)?.deref()
    if (memory) return new Uint8Array(memory, 0, length)
    const coming = this.#reading.get(offset)
    if (coming) return coming
    const result = read(Buffer.allocUnsafeSlow(length))
    if (!(result instanceof Promise)) return this.#hold(offset, result)
    const reading = result
      .then((record) => this.#hold(offset, record))
      .finally(() => this.#reading.delete(offset))
    this.#reading.set(offset, reading)
    return reading
  }

  #hold(offset: number, record: Uint8Array | undefined): Uint8Array | undefined {
    if (record) this.#held.set(offset, new WeakRef(record.buffer))
    return record
  }
}
