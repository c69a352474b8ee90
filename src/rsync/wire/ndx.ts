/**
 * [ndx] File indices. Below protocol 30 a plain i32; from 30 on a delta code whose state each direction
 * keeps for itself, for the whole session.
 */
import { PeerError } from '../../errors.ts'
import type { Decoded } from '../../lib/byte-reader.ts'
import type { ByteWriter } from '../../lib/byte-writer.ts'
import { decodeI32 } from './ints.ts'

/** The mark between phases, and the goodbye. */
export const NDX_DONE = -1
/** Announces the client's deletion statistics (protocol 31 and later). */
export const NDX_DEL_STATS = -3

export class NdxEncoder {
  readonly #protocol: number
  #positive = -1
  #negative = 1

  constructor(protocol: number) {
    this.#protocol = protocol
  }

  encode(out: ByteWriter, ndx: number): void {
    if (this.#protocol < 30) {
      out.i32(ndx)
      return
    }
    if (ndx === NDX_DONE) {
      out.u8(0)
      return
    }
    let value: number
    let diff: number
    if (ndx >= 0) {
      value = ndx
      diff = value - this.#positive
      this.#positive = value
    } else {
      out.u8(0xff)
      value = -ndx
      diff = value - this.#negative
      this.#negative = value
    }
    if (diff >= 1 && diff <= 253) {
      out.u8(diff)
    } else if (diff >= 0 && diff <= 32767) {
      out.u8(0xfe)
      out.u8(diff >> 8)
      out.u8(diff & 0xff)
    } else {
      out.u8(0xfe)
      out.u8(0x80 | (value >>> 24))
      out.u8(value & 0xff)
      out.u8((value >>> 8) & 0xff)
      out.u8((value >>> 16) & 0xff)
    }
  }
}

export class NdxDecoder {
  readonly #protocol: number
  #positive = -1
  #negative = 1

  constructor(protocol: number) {
    this.#protocol = protocol
  }

  /** Changes its state only when it returns a value. */
  decode(bytes: Uint8Array): Decoded<number> | undefined {
    const found = this.peek(bytes)
    if (found) this.accept(found.value)
    return found
  }

  /** What `decode` would return: for who may yet need more bytes before an index counts as read. */
  peek(bytes: Uint8Array): Decoded<number> | undefined {
    if (this.#protocol < 30) return decodeI32(bytes)
    if (bytes.length < 1) return undefined
    if (bytes[0] === 0) return { value: NDX_DONE, size: 1 }
    const negative = bytes[0] === 0xff
    const start = negative ? 1 : 0
    if (bytes.length < start + 1) return undefined
    const previous = negative ? this.#negative : this.#positive
    const first = bytes[start]!
    let value: number
    let size: number
    if (first !== 0xfe) {
      value = previous + first
      size = start + 1
    } else {
      if (bytes.length < start + 3) return undefined
      const second = bytes[start + 1]!
      if (second & 0x80) {
        if (bytes.length < start + 5) return undefined
        value =
          ((second & 0x7f) << 24) | bytes[start + 2]! | (bytes[start + 3]! << 8) | (bytes[start + 4]! << 16)
        size = start + 5
      } else {
        value = previous + ((second << 8) | bytes[start + 2]!)
        size = start + 3
      }
    }
    if (value > 0x7fffffff) throw new PeerError('ndx', `${value} is beyond 31 bits`)
    return { value: negative ? -value : value, size }
  }

  /** The index that `peek` returned counts as read. */
  accept(ndx: number): void {
    if (this.#protocol < 30 || ndx === NDX_DONE) return
    if (ndx < 0) this.#negative = -ndx
    else this.#positive = ndx
  }
}
