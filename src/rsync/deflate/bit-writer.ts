/** Bits, packed into bytes from the lowest on. */
export class BitWriter {
  readonly #bytes: Uint8Array
  /** Bytes that are whole. */
  #size = 0
  /** What there is of the next one: fewer than 8 bits. */
  #pending = 0
  #count = 0

  /** @param most bytes that are ever written. */
  constructor(most: number) {
    this.#bytes = new Uint8Array(most)
  }

  /** How many were written. */
  get bits(): number {
    return this.#size * 8 + this.#count
  }

  /** @param count 16 at most. */
  put(bits: number, count: number): void {
    this.#pending |= bits << this.#count
    this.#count += count
    while (this.#count >= 8) {
      this.#bytes[this.#size++] = this.#pending
      this.#pending >>>= 8
      this.#count -= 8
    }
  }

  /** Fills a byte that has begun with zeros. */
  align(): void {
    if (this.#count > 0) this.put(0, 8 - this.#count)
  }

  /** Whole bytes, behind whole bytes. */
  bytes(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#size)
    this.#size += bytes.length
  }

  /** The bytes that are whole. */
  take(): Uint8Array {
    return this.#bytes.slice(0, this.#size)
  }
}
