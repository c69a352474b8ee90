/**
 * The numbers of the wire, each under its label in docs/rsync-protocol.md, section 4: pure, little-endian.
 *
 * A decoder returns undefined for "come back with more bytes" and throws PeerError for "this can never be
 * right"; it takes only its own bytes.
 */
import { PeerError } from '../../errors.ts'
import type { Decoded } from '../../lib/byte-reader.ts'
import type { ByteWriter } from '../../lib/byte-writer.ts'
import { type ByteString, byteString } from '../../lib/bytes.ts'

/** [u8] */
export function decodeU8(bytes: Uint8Array): Decoded<number> | undefined {
  return bytes.length < 1 ? undefined : { value: bytes[0]!, size: 1 }
}

/** [u16] */
export function decodeU16(bytes: Uint8Array): Decoded<number> | undefined {
  return bytes.length < 2 ? undefined : { value: bytes[0]! | (bytes[1]! << 8), size: 2 }
}

/** [i32] */
export function decodeI32(bytes: Uint8Array): Decoded<number> | undefined {
  return bytes.length < 4 ? undefined : { value: i32At(bytes, 0), size: 4 }
}

/** A signed 32-bit number at `offset`, which the caller knows to be inside. */
export function i32At(bytes: Uint8Array, offset: number): number {
  return bytes[offset]! | (bytes[offset + 1]! << 8) | (bytes[offset + 2]! << 16) | (bytes[offset + 3]! << 24)
}

/** [longint] 4 bytes; or -1 and then 8 bytes, when 31 bits are too few. Protocol 29 and older. */
export function encodeLongint(out: ByteWriter, value: number): void {
  if (value >= 0 && value <= 0x7fffffff) {
    out.i32(value)
    return
  }
  out.i32(-1)
  const low = ((value % TWO_32) + TWO_32) % TWO_32
  out.i32(low)
  out.i32(Math.floor(value / TWO_32))
}

/** [longint] */
export function decodeLongint(bytes: Uint8Array): Decoded<number> | undefined {
  if (bytes.length < 4) return undefined
  const short = i32At(bytes, 0)
  if (short !== -1) return { value: short, size: 4 }
  if (bytes.length < 12) return undefined
  const value = i32At(bytes, 8) * TWO_32 + (i32At(bytes, 4) >>> 0)
  if (!Number.isSafeInteger(value)) throw new PeerError('longint', `${value} is beyond 2^53`)
  return { value, size: 12 }
}

/**
 * [varint] A 32-bit number in 1 to 5 bytes: the leading one-bits of the first byte say how many more
 * follow; those hold the low bits, the rest of the first byte the top ones.
 */
export function encodeVarint(out: ByteWriter, value: number): void {
  const bits = value >>> 0
  let count = bits > 0xffffff ? 4 : bits > 0xffff ? 3 : bits > 0xff ? 2 : 1
  const top = (bits >>> (8 * (count - 1))) & 0xff
  const bit = 1 << (8 - count)
  if (top >= bit) {
    // The top byte leaves no room for the length: the first byte says the length alone.
    out.u8((0x100 - bit) & 0xff)
  } else {
    count--
    out.u8(count === 0 ? top : top | ((0x100 - 2 * bit) & 0xff))
  }
  for (let i = 0; i < count; i++) out.u8((bits >>> (8 * i)) & 0xff)
}

/** [varint] Negative numbers come in 5 bytes. */
export function decodeVarint(bytes: Uint8Array): Decoded<number> | undefined {
  if (bytes.length < 1) return undefined
  const first = bytes[0]!
  const extra = EXTRA_BYTES[first >> 2]!
  if (extra > 4)
    throw new PeerError('varint', `first byte 0x${first.toString(16)} announces more than 32 bits`)
  if (bytes.length < 1 + extra) return undefined
  let value = extra === 4 ? 0 : (first & (0xff >> extra)) << (8 * extra)
  for (let i = 0; i < extra; i++) value |= bytes[1 + i]! << (8 * i)
  return { value: value | 0, size: 1 + extra }
}

/**
 * [varlong] A 64-bit number: first byte, then min - 1 low bytes, then as many more as the first byte
 * announces. `value` is a whole number within +-2^53.
 */
export function encodeVarlong(out: ByteWriter, value: number, min: number): void {
  const low = ((value % TWO_32) + TWO_32) % TWO_32
  const high = Math.floor(value / TWO_32)
  const byteAt = (i: number): number => (i < 4 ? (low >>> (8 * i)) & 0xff : (high >> (8 * (i - 4))) & 0xff)
  let count = 8
  while (count > min && byteAt(count - 1) === 0) count--
  const bit = 1 << (7 - count + min)
  const top = byteAt(count - 1)
  if (top >= bit) {
    out.u8((0x100 - bit) & 0xff)
  } else {
    count--
    out.u8(count >= min ? top | ((0x100 - 2 * bit) & 0xff) : top)
  }
  for (let i = 0; i < count; i++) out.u8(byteAt(i))
}

/** [varlong] */
export function decodeVarlong(bytes: Uint8Array, min: number): Decoded<number> | undefined {
  if (bytes.length < 1) return undefined
  const first = bytes[0]!
  const extra = EXTRA_BYTES[first >> 2]!
  if (min + extra > 9)
    throw new PeerError('varlong', `first byte 0x${first.toString(16)} announces too many bytes`)
  if (bytes.length < min + extra) return undefined
  const number = new Uint8Array(9)
  number.set(bytes.subarray(1, min + extra))
  if (min + extra <= 8) number[min + extra - 1] = first & (0xff >> extra)
  const value = i32At(number, 4) * TWO_32 + (i32At(number, 0) >>> 0)
  if (!Number.isSafeInteger(value)) throw new PeerError('varlong', `${value} is beyond 2^53`)
  return { value, size: min + extra }
}

/** [vstring] One or two bytes of length, then the bytes. At most 0x7fff bytes. */
export function encodeVstring(out: ByteWriter, value: ByteString): void {
  if (value.length > 0x7fff) throw new RangeError(`vstring of ${value.length} bytes`)
  if (value.length > 0x7f) out.u8(0x80 | (value.length >> 8))
  out.u8(value.length & 0xff)
  out.string(value)
}

/** [vstring] `limit` is the most bytes that make sense here. */
export function decodeVstring(bytes: Uint8Array, limit: number): Decoded<ByteString> | undefined {
  if (bytes.length < 1) return undefined
  const first = bytes[0]!
  const header = first & 0x80 ? 2 : 1
  if (bytes.length < header) return undefined
  const length = header === 2 ? ((first & 0x7f) << 8) | bytes[1]! : first
  if (length > limit)
    throw new PeerError('vstring', `${length} bytes announced, at most ${limit} make sense here`)
  if (bytes.length < header + length) return undefined
  return { value: byteString(bytes, header, header + length), size: header + length }
}

const TWO_32 = 2 ** 32

/** How many bytes follow the first one, by its upper six bits. */
const EXTRA_BYTES = Uint8Array.from({ length: 64 }, (_, i) =>
  i < 32 ? 0 : i < 48 ? 1 : i < 56 ? 2 : i < 60 ? 3 : i < 62 ? 4 : i === 62 ? 5 : 6,
)
