/**
 * The flag bytes of compressed token streams. docs/rsync-protocol.md, section 8.6.
 */
import type { ByteWriter } from '../../lib/byte-writer.ts'

/** The most compressed bytes that one chunk holds: 14 bits say how many. */
export const MAX_CHUNK = 16383

const END = 0x00
const TOKEN_LONG = 0x20
const TOKEN_RUN_LONG = 0x21
const DATA = 0x40
const TOKEN = 0x80
const TOKEN_RUN = 0xc0
/** Blocks near the last one are told by their distance, in 6 bits. */
const MAX_DISTANCE = 63
/** Further blocks that one run may hold. */
const MAX_RUN = 0xffff

/** Bytes that `writeChunks` writes. */
export function chunksSize(parts: readonly Uint8Array[]): number {
  let size = 0
  for (const { length } of parts) size += length + 2 * Math.ceil(length / MAX_CHUNK)
  return size
}

/** Compressed parts, each of which begins a chunk of its own. */
export function writeChunks(out: Uint8Array, parts: readonly Uint8Array[]): void {
  let to = 0
  for (const part of parts) {
    for (let at = 0; at < part.length; at += MAX_CHUNK) {
      const piece = part.subarray(at, at + MAX_CHUNK)
      out[to++] = DATA | (piece.length >> 8)
      out[to++] = piece.length & 0xff
      out.set(piece, to)
      to += piece.length
    }
  }
}

/** Compressed bytes, cut into chunks. */
export function encodeChunks(out: ByteWriter, data: Uint8Array): void {
  const parts = [data]
  writeChunks(out.space(chunksSize(parts)), parts)
}

/** Collects consecutive blocks into runs. One for each file. */
export class BlockRuns {
  /** Number of the last block that was written. */
  #last = 0
  #first = -1
  #count = 0

  /** Takes a block; writes the run before it when it does not belong to that. */
  add(out: ByteWriter, block: number): void {
    if (this.#count > 0 && block === this.#first + this.#count && this.#count <= MAX_RUN) {
      this.#count++
      return
    }
    this.flush(out)
    this.#first = block
    this.#count = 1
  }

  /** Writes what has collected: literal data or the end follows. */
  flush(out: ByteWriter): void {
    if (this.#count === 0) return
    const distance = this.#first - this.#last
    const further = this.#count - 1
    if (distance >= 0 && distance <= MAX_DISTANCE) {
      out.u8((further > 0 ? TOKEN_RUN : TOKEN) | distance)
    } else {
      out.u8(further > 0 ? TOKEN_RUN_LONG : TOKEN_LONG)
      out.i32(this.#first)
    }
    if (further > 0) out.u16(further)
    this.#last = this.#first + further
    this.#count = 0
  }

  end(out: ByteWriter): void {
    this.flush(out)
    out.u8(END)
  }
}
