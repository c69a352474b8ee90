/** A growing buffer that codecs append to. Little-endian, like everything rsync puts on the wire. */
import type { ByteString } from './bytes.ts'

export class ByteWriter {
  #buffer: Buffer
  #length = 0
  readonly #allocate: (size: number) => Buffer

  /** @param allocate gives memory for at least so many bytes, when there is no room left. */
  constructor(capacity = 256, allocate: (size: number) => Buffer = (size) => Buffer.allocUnsafe(size)) {
    this.#buffer = Buffer.allocUnsafe(capacity)
    this.#allocate = allocate
  }

  /** Bytes written since the last `take` or `clear`. */
  get length(): number {
    return this.#length
  }

  u8(value: number): void {
    this.#reserve(1)
    this.#buffer[this.#length++] = value
  }

  u16(value: number): void {
    this.#reserve(2)
    this.#length = this.#buffer.writeUInt16LE(value & 0xffff, this.#length)
  }

  /** 32 bits, of a number from -2^31 to 2^32 - 1. */
  i32(value: number): void {
    this.#reserve(4)
    this.#length = this.#buffer.writeInt32LE(value | 0, this.#length)
  }

  bytes(data: Uint8Array): void {
    this.#reserve(data.length)
    this.#buffer.set(data, this.#length)
    this.#length += data.length
  }

  /** The characters of a byte string from `start` on, one byte each. */
  string(text: ByteString, start = 0): void {
    const length = text.length - start
    this.#reserve(length)
    if (length < 24) {
      // A short name is written faster by hand than by a call into C++.
      for (let i = start; i < text.length; i++) this.#buffer[this.#length++] = text.charCodeAt(i)
    } else {
      this.#length += this.#buffer.write(start ? text.slice(start) : text, this.#length, 'latin1')
    }
  }

  /**
   * The next `size` bytes, for someone else to fill; they count as written at once. Only until the next
   * call of any other method.
   */
  space(size: number): Buffer {
    this.#reserve(size)
    const start = this.#length
    this.#length += size
    return this.#buffer.subarray(start, this.#length)
  }

  /** What was written, without a copy, and the memory that it is in; the writer starts again empty, in other memory. */
  detach(capacity: number): { bytes: Buffer; memory: Buffer } {
    const memory = this.#buffer
    const bytes = memory.subarray(0, this.#length)
    this.#buffer = Buffer.allocUnsafe(capacity)
    this.#length = 0
    return { bytes, memory }
  }

  /** A copy of what was written; the writer starts again empty. */
  take(): Buffer {
    const out = Buffer.from(this.#buffer.subarray(0, this.#length))
    this.#length = 0
    return out
  }

  /** What was written, only until the next call of any method. */
  view(): Buffer {
    return this.#buffer.subarray(0, this.#length)
  }

  clear(): void {
    this.#length = 0
  }

  #reserve(more: number): void {
    const needed = this.#length + more
    if (needed <= this.#buffer.length) return
    const grown = this.#allocate(Math.max(needed, this.#buffer.length * 2))
    this.#buffer.copy(grown, 0, 0, this.#length)
    this.#buffer = grown
  }
}
