/**
 * Pulls bytes from a source as a decoder asks for them, and holds no more than it needs.
 *
 * `pull` gives the next piece, or undefined at the end of the stream. Nothing is pulled ahead of need, so
 * whoever feeds the source decides how much may wait in memory.
 */
import { ConnectionLost } from '../errors.ts'
import { ByteWriter } from './byte-writer.ts'
import { asBuffer } from './bytes.ts'

/** What a decoder found: the value, and how many bytes of its input it took. */
export interface Decoded<T> {
  value: T
  size: number
}

const EMPTY = Buffer.alloc(0)

export class ByteReader {
  readonly #pull: () => Promise<Uint8Array | undefined>
  #pending: Buffer = EMPTY
  /** All bytes ever handed out. */
  #consumed = 0

  constructor(pull: () => Promise<Uint8Array | undefined>) {
    this.#pull = pull
  }

  get consumed(): number {
    return this.#consumed
  }

  /** Bytes that can be had without waiting. */
  get available(): number {
    return this.#pending.length
  }

  /**
   * Runs a decoder on what is there, fetching more for as long as it returns undefined.
   * @throws ConnectionLost when the stream ends first.
   */
  async decode<T>(decoder: (bytes: Uint8Array) => Decoded<T> | undefined): Promise<T> {
    for (;;) {
      const got = decoder(this.#pending)
      if (got) {
        this.skip(got.size)
        return got.value
      }
      await this.#more()
    }
  }

  /** The decoder's value if what is there is enough for it, else undefined: never waits. */
  tryDecode<T>(decoder: (bytes: Uint8Array) => Decoded<T> | undefined): T | undefined {
    const got = decoder(this.#pending)
    if (!got) return undefined
    this.skip(got.size)
    return got.value
  }

  /**
   * The next `size` bytes, which are there, without a copy and without taking them. They don't change, but hold
   * the piece that they came in: who keeps them copies them.
   */
  peek(size: number): Buffer {
    return this.#pending.subarray(0, size)
  }

  /** Takes `size` bytes, which are there. */
  skip(size: number): void {
    this.#consumed += size
    this.#pending = size === this.#pending.length ? EMPTY : this.#pending.subarray(size)
  }

  /** Exactly `size` bytes, in memory of their own. The caller has bounded `size`. */
  async bytes(size: number): Promise<Buffer> {
    const out = Buffer.allocUnsafe(size)
    let filled = 0
    while (filled < size) {
      if (this.#pending.length === 0) await this.#more()
      const part = this.#pending.subarray(0, size - filled)
      part.copy(out, filled)
      filled += part.length
      this.skip(part.length)
    }
    return out
  }

  /**
   * The bytes up to a terminator, which is taken and not returned; undefined when there are more of them than
   * `limit`. Looks at each byte once, where `decode` begins anew with each piece: long text may come in tiny ones.
   */
  async until(terminator: number, limit: number): Promise<Buffer | undefined> {
    const out = new ByteWriter(0)
    for (;;) {
      const at = this.#pending.indexOf(terminator)
      const part = at < 0 ? this.#pending : this.#pending.subarray(0, at)
      if (out.length + part.length > limit) return undefined
      out.bytes(part)
      this.skip(at < 0 ? part.length : at + 1)
      if (at >= 0) return out.view()
      await this.#more()
    }
  }

  /** Passes over `size` bytes without keeping them. */
  async discard(size: number): Promise<void> {
    let left = size
    while (left > 0) {
      if (this.#pending.length === 0) await this.#more()
      const part = Math.min(left, this.#pending.length)
      this.skip(part)
      left -= part
    }
  }

  /** Some bytes, at least one and at most `limit`; undefined at the end of the stream. */
  async some(limit = Number.POSITIVE_INFINITY): Promise<Buffer | undefined> {
    if (this.#pending.length === 0 && !(await this.#fill())) return undefined
    const out = this.#pending.length <= limit ? this.#pending : this.#pending.subarray(0, limit)
    this.skip(out.length)
    return out
  }

  /** True when the stream has ended and nothing is left. Waits until one or the other is known. */
  async ended(): Promise<boolean> {
    return this.#pending.length === 0 && !(await this.#fill())
  }

  async #more(): Promise<void> {
    if (!(await this.#fill())) throw new ConnectionLost('the peer closed the connection in mid-sentence')
  }

  async #fill(): Promise<boolean> {
    for (;;) {
      const piece = await this.#pull()
      if (!piece) return false
      if (piece.length === 0) continue
      const buffer = asBuffer(piece)
      this.#pending = this.#pending.length === 0 ? buffer : Buffer.concat([this.#pending, buffer])
      return true
    }
  }
}
