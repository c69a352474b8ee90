/**
 * Records of some size in memory, each once for all who use it at the same time: a fleet that is told the same at
 * about the same time holds it once. Who uses a record holds its memory, whatever view of it that is. What is asked
 * for again and again stays for a while when nobody uses it, so that the next client costs neither a read nor a check.
 *
 * There is no order of use in what stays: clients go through the same records one after the other, and where these
 * are more than fit, the one used longest ago is always the next. Rather some of them stay, until nobody asks.
 */
type Reading = Promise<Uint8Array | undefined>

interface Entry {
  /** As long as somebody uses it. */
  readonly memory: WeakRef<ArrayBufferLike>
  /** The same when it stays. */
  staying: ArrayBufferLike | undefined
  lastUse: number
}

/** What stays is given up when nobody has asked for it in this time, and what was asked for once is forgotten. */
const STAY_MS = 60_000

export class SharedRecords {
  readonly #most: number
  readonly #now: () => number
  readonly #held = new Map<number, Entry>()
  readonly #reading = new Map<number, Reading>()
  /** When records were last asked for that are not held. */
  readonly #asked = new Map<number, number>()
  #staying = 0
  #timer: NodeJS.Timeout | undefined

  /** @param most bytes that stay. */
  constructor(most: number, now: () => number = () => performance.now()) {
    this.#most = most
    this.#now = now
  }

  /** Bytes that stay. */
  get staying(): number {
    return this.#staying
  }

  /** A record as somebody has it, or reads it; undefined when nobody does. */
  find(id: number): Uint8Array | Reading | undefined {
    const entry = this.#held.get(id)
    const memory = entry?.staying ?? entry?.memory.deref()
    if (!memory) return this.#reading.get(id)
    entry!.lastUse = this.#now()
    return new Uint8Array(memory)
  }

  /**
   * Notes that somebody asks for a record that nobody has.
   * @returns whether it should stay: it was asked for before, and there is room.
   */
  ask(id: number, length: number): boolean {
    if (this.#staying + length > this.#most) return false
    const before = this.#asked.get(id)
    this.#asked.set(id, this.#now())
    this.#sweepLater()
    return before !== undefined
  }

  /**
   * Reads a record that nobody has.
   * @param stays what `ask` said.
   * @param read fills memory of just its size; undefined: there is none that could be used.
   */
  share(
    id: number,
    length: number,
    stays: boolean,
    read: (memory: Buffer) => Uint8Array | undefined | Reading,
  ): Uint8Array | undefined | Reading {
    const result = read(Buffer.allocUnsafeSlow(length))
    if (!(result instanceof Promise)) return this.#hold(id, result, stays)
    const isWanted = (): boolean => this.#reading.get(id) === reading
    const reading: Reading = result
      .then((record) => (isWanted() ? this.#hold(id, record, stays) : record))
      .finally(() => isWanted() && this.#reading.delete(id))
    this.#reading.set(id, reading)
    return reading
  }

  /** The records from that id up to the other one are gone: nobody will ask for them, and others need the room. */
  forget(first: number, behind: number): void {
    for (const [id, { staying }] of this.#held) {
      if (id < first || id >= behind) continue
      if (staying) this.#staying -= staying.byteLength
      this.#held.delete(id)
    }
    for (const notes of [this.#asked, this.#reading])
      for (const id of notes.keys()) if (id >= first && id < behind) notes.delete(id)
  }

  close(): void {
    clearInterval(this.#timer)
  }

  #hold(id: number, record: Uint8Array | undefined, stays: boolean): Uint8Array | undefined {
    if (!record) return undefined
    const staying = stays && this.#staying + record.length <= this.#most ? record.buffer : undefined
    if (staying) {
      this.#staying += record.length
      this.#asked.delete(id)
    }
    this.#sweepLater()
    this.#held.set(id, { memory: new WeakRef(record.buffer), staying, lastUse: this.#now() })
    return record
  }

  #sweepLater(): void {
    this.#timer ??= setInterval(() => this.#sweep(), STAY_MS / 4).unref()
  }

  #sweep(): void {
    const since = this.#now() - STAY_MS
    for (const [id, at] of this.#asked) if (at < since) this.#asked.delete(id)
    for (const [id, entry] of this.#held) {
      if (entry.lastUse >= since) continue
      if (entry.staying) this.#staying -= entry.staying.byteLength
      entry.staying = undefined
      if (!entry.memory.deref()) this.#held.delete(id)
    }
    if (this.#held.size + this.#asked.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
