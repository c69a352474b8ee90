/**
 * The head of a list of block sums, which a client sends with each request for data and which we echo.
 * docs/rsync-protocol.md, section 8.2.
 */
import { PeerError } from '../../errors.ts'
import type { Decoded } from '../../lib/byte-reader.ts'
import type { ByteWriter } from '../../lib/byte-writer.ts'
import type { Pacer } from '../../lib/pacer.ts'
import { i32At } from './ints.ts'

export interface SumHead {
  /** Number of blocks that the client's basis was cut into. */
  count: number
  /** Bytes in each block. */
  blockLength: number
  /** Bytes of strong sum that come with each block. */
  strongLength: number
  /** Bytes of the last block when it is shorter than the others, else 0. */
  remainder: number
}

/** The longest block a client may use: 2^17 from protocol 30 on, 2^29 before. */
const MAX_BLOCK = 1 << 17
const OLD_MAX_BLOCK = 1 << 29
/** No digest of the protocol is longer (SHA-1). Clients before 3.5.0 announce 16 for 8-byte digests, too. */
const MAX_STRONG_LENGTH = 20

/**
 * The most bytes of block sums taken into memory for one file. A client with more (a basis of several 100 GB,
 * or tiny blocks forced by -B) gets that file whole, which is always right.
 */
export const MAX_SUM_BYTES = 16 * 1024 * 1024

/** [sum-head] 16 bytes. @throws PeerError for numbers that contradict each other. */
export function decodeSumHead(bytes: Uint8Array, protocol: number): Decoded<SumHead> | undefined {
  if (bytes.length < 16) return undefined
  const head = {
    count: i32At(bytes, 0),
    blockLength: i32At(bytes, 4),
    strongLength: i32At(bytes, 8),
    remainder: i32At(bytes, 12),
  }
  const { count, blockLength, strongLength, remainder } = head
  if (count < 0) throw new PeerError('sum-head', `${count} blocks`)
  if (blockLength < 0 || blockLength > (protocol < 30 ? OLD_MAX_BLOCK : MAX_BLOCK)) {
    throw new PeerError('sum-head', `block length ${blockLength}`)
  }
  if (count > 0 && blockLength === 0) throw new PeerError('sum-head', `${count} blocks of length 0`)
  if (strongLength < 0 || strongLength > MAX_STRONG_LENGTH) {
    throw new PeerError('sum-head', `${strongLength} bytes of strong sum`)
  }
  if (remainder < 0 || remainder > blockLength) throw new PeerError('sum-head', `remainder ${remainder}`)
  // Else a basis of less than no bytes, and with --append a read from before the file.
  if (count * blockLength > Number.MAX_SAFE_INTEGER) {
    throw new PeerError('sum-head', `${count} blocks of length ${blockLength}`)
  }
  if (count === 0 && remainder > 0) throw new PeerError('sum-head', `no blocks, and a remainder ${remainder}`)
  return { value: head, size: 16 }
}

/** [sum-head] */
export function encodeSumHead(out: ByteWriter, head: SumHead): void {
  out.i32(head.count)
  out.i32(head.blockLength)
  out.i32(head.strongLength)
  out.i32(head.remainder)
}

/** Bytes of the basis that the head describes. */
export function basisLength(head: SumHead): number {
  const short = head.remainder === 0 ? 0 : head.blockLength - head.remainder
  return head.count * head.blockLength - short
}

/** Bytes of all sums behind the head. */
export function sumBytes({ count, strongLength }: SumHead): number {
  return count * (4 + strongLength)
}

/** The sums of a client's blocks as they came: for each block its weak sum, i32, and its strong one. */
export interface RawSums {
  head: SumHead
  bytes: Uint8Array
}

/** The sums as a client sends them when it cuts its strong ones to so many bytes. */
export async function cutSums(
  { head, bytes }: RawSums,
  strongLength: number,
  pacer: Pacer,
): Promise<RawSums> {
  const [from, to] = [4 + head.strongLength, 4 + strongLength]
  const cut = Buffer.allocUnsafe(head.count * to)
  for (let k = 0; k < head.count; k++) {
    if (pacer.due) await pacer.rest()
    for (let i = 0; i < to; i++) cut[k * to + i] = bytes[k * from + i]!
  }
  return { head: { ...head, strongLength }, bytes: cut }
}

/** Bytes that the block takes of the basis, by its number. */
export function blockLengthOf(head: SumHead, block: number): number {
  return block === head.count - 1 && head.remainder > 0 ? head.remainder : head.blockLength
}
