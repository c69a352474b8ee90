/**
 * What an archive says of its size when its compression is taken off, before it is: zstd and lzma at their start,
 * gzip and xz at their end, bzip2 nowhere. Pure.
 *
 * It is a lower bound, never an estimate: members, streams or frames that lie before or behind are not
 * counted, and gzip knows its size only modulo 2^32.
 */
import { crc32 } from 'node:zlib'
import { asBuffer } from '../lib/bytes.ts'
import { type Compression, detectCompression } from './compression.ts'

/** How much of the end is looked at: the index of an xz file of some ten thousand blocks. */
export const TAIL_BYTES = 64 << 10

const XZ_FOOTER_BYTES = 12
const MAX_VARINT_BYTES = 9

/** Whether such an archive says at its end what it does not say at its start. `head` as `detectCompression` has it. */
export function saysAtItsEnd(head: Uint8Array): boolean {
  const compression = compressionOf(head)
  return compression === 'gzip' || compression === 'xz'
}

/**
 * At least so many bytes come of it; 0 where it does not say.
 * @param head its first bytes, as `detectCompression` has them.
 * @param tail its last bytes; undefined when nobody has them.
 * @param size of the archive as it is.
 */
export function leastUnpackedBytes(head: Uint8Array, tail: Uint8Array | undefined, size = 0): number {
  switch (compressionOf(head)) {
    case 'none':
      return size
    case 'zstd':
      return zstdContentSize(asBuffer(head))
    case 'lzma':
      return lzmaSize(asBuffer(head))
    case 'gzip':
      return tail && tail.length >= 4 ? asBuffer(tail).readUInt32LE(tail.length - 4) : 0
    case 'xz':
      return tail ? xzIndexSize(asBuffer(tail)) : 0
    default:
      return 0
  }
}

function compressionOf(head: Uint8Array): Compression | undefined {
  try {
    return detectCompression(head)
  } catch {
    return undefined // Whoever reads the archive says what it is.
  }
}

/** Of the first frame (RFC 8878, section 3.1.1.1). */
function zstdContentSize(head: Buffer): number {
  if (head.length < 18 || head.readUInt32LE(0) !== 0xfd2fb528) return 0
  const descriptor = head[4]!
  const isSingle = (descriptor & 0x20) !== 0
  const at = 5 + (isSingle ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!
  switch (descriptor >> 6) {
    case 0:
      return isSingle ? head[at]! : 0
    case 1:
      return head.readUInt16LE(at) + 256
    case 2:
      return head.readUInt32LE(at)
    default:
      return safe(head.readBigUInt64LE(at))
  }
}

/** All ones: not known. */
function lzmaSize(head: Buffer): number {
  const size = head.readBigUInt64LE(5)
  return size === 2n ** 64n - 1n ? 0 : safe(size)
}

/** Of the last stream: the sizes in its index, which its footer points at (the .xz file format, sections 2.1.2 and 4). */
function xzIndexSize(tail: Buffer): number {
  const footer = tail.length - XZ_FOOTER_BYTES
  if (footer < 0 || tail.toString('latin1', footer + 10) !== 'YZ') return 0
  const start = footer - (tail.readUInt32LE(footer + 4) + 1) * 4
  if (start < 0 || tail[start] !== 0) return 0
  const index = tail.subarray(start, footer - 4)
  if (crc32(index) !== tail.readUInt32LE(footer - 4)) return 0
  let at = 1
  const next = (): number => {
    let value = 0
    for (let i = 0; i < MAX_VARINT_BYTES; i++) {
      const byte = index[at++] ?? 0
      value += (byte & 0x7f) * 2 ** (7 * i)
      if (byte < 0x80) break
    }
    return value
  }
  let bytes = 0
  for (let left = next(); left > 0; left--) {
    next() // What the block takes here.
    bytes += next()
    if (at > index.length || !Number.isSafeInteger(bytes)) return 0
  }
  return bytes
}

/** A size beyond 2^53 is none. */
function safe(size: bigint): number {
  return size <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(size) : 0
}
