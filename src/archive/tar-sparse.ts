/**
 * Where the data of a sparse member belongs: GNU tar's three ways to write a map of runs. Pure codecs.
 *
 * A map is a flat list "offset, length, offset, length, ..." in rising order. What lies between the runs,
 * and behind the last one up to the real size, is holes. Sparse maps of pax records are in `tar-pax.ts`.
 */
import { ArchiveError } from '../errors.ts'
import { type ByteString, showBytes } from '../lib/bytes.ts'
import { BLOCK_BYTES, decodeNumber } from './tar-header.ts'

/** A 16 GB disk image of which every other 16 KiB is a hole has half of this. Bounds memory to 16 MB. */
export const MAX_SPARSE_RUNS = 1_000_000

/** What a type S header, or one of the extension blocks behind it, says about the map. */
export interface GnuSparseBlock {
  runs: number[]
  /** Another extension block follows. */
  extended: boolean
}

/** The part of an old GNU (type S) header block that has the first runs and the file's real size. */
export function decodeGnuSparseHeader(
  block: Uint8Array,
  name: ByteString,
): GnuSparseBlock & { realSize: number } {
  const realSize = decodeNumber(block, 483, 12)
  if (realSize === undefined || realSize < 0) throw badMap(name, 'the real size is not a number')
  return { runs: gnuRuns(block, 386, 4, name), extended: block[482] !== 0, realSize }
}

/** An extension block: 21 more runs. */
export function decodeGnuSparseExtension(block: Uint8Array, name: ByteString): GnuSparseBlock {
  return { runs: gnuRuns(block, 0, 21, name), extended: block[504] !== 0 }
}

/** Throws unless the runs rise, stay inside the real size and need exactly the bytes that are stored. */
export function checkSparseMap(runs: readonly number[], realSize: number, stored: number, name: ByteString) {
  let end = 0
  let bytes = 0
  for (let i = 0; i < runs.length; i += 2) {
    const offset = runs[i]!
    const length = runs[i + 1]!
    if (offset < end) throw badMap(name, `a run at ${offset} overlaps the one before it`)
    end = offset + length
    if (end > realSize) throw badMap(name, `a run ends at ${end}, behind the file's end at ${realSize}`)
    bytes += length
  }
  if (bytes !== stored) throw badMap(name, `it describes ${bytes} bytes of data, ${stored} are stored`)
}

/** Throws when a map grows beyond `MAX_SPARSE_RUNS`. */
export function checkRunCount(count: number, name: ByteString): void {
  if (count > MAX_SPARSE_RUNS) throw badMap(name, `it has more than ${MAX_SPARSE_RUNS} runs`)
}

/**
 * The map of pax sparse version 1.0, which stands in front of the member's data: decimal numbers, each
 * with a line feed behind it (how many runs, then offset and length of each), filled up to a block.
 */
export class SparseMapReader {
  readonly runs: number[] = []
  readonly #name: ByteString
  /** How many runs there are, once that is known. */
  #count: number | undefined
  #number = 0
  #digits = 0

  constructor(name: ByteString) {
    this.#name = name
  }

  /** Takes the next block; true when the map is complete and data follows. */
  push(block: Uint8Array): boolean {
    for (let i = 0; i < BLOCK_BYTES; i++) {
      const byte = block[i]!
      if (byte >= 0x30 && byte <= 0x39) {
        this.#number = this.#number * 10 + byte - 0x30
        if (++this.#digits > 16 || !Number.isSafeInteger(this.#number)) {
          throw badMap(this.#name, 'a number is beyond 2^53')
        }
      } else if (byte === 0x0a && this.#digits > 0) {
        if (this.#count === undefined) {
          this.#count = this.#number
          checkRunCount(this.#count, this.#name)
        } else {
          this.runs.push(this.#number)
        }
        this.#number = 0
        this.#digits = 0
        if (this.runs.length === this.#count * 2) return true
      } else {
        throw badMap(this.#name, 'something that is not a number stands in it')
      }
    }
    return false
  }
}

function gnuRuns(block: Uint8Array, at: number, slots: number, name: ByteString): number[] {
  const runs: number[] = []
  for (let slot = at; slot < at + slots * 24; slot += 24) {
    if (block[slot + 12] === 0) break // an unused slot ends the list, as GNU tar reads it
    const offset = decodeNumber(block, slot, 12)
    const length = decodeNumber(block, slot + 12, 12)
    if (offset === undefined || offset < 0 || length === undefined || length < 0) {
      throw badMap(name, 'a run is not two numbers')
    }
    runs.push(offset, length)
  }
  return runs
}

function badMap(name: ByteString, why: string): ArchiveError {
  return new ArchiveError(`the sparse map of "${showBytes(name)}" is wrong: ${why}`)
}
