/**
 * Where each blob is: digest -> (pack, offset, length), for all packs, in memory.
 *
 * A table of rows in typed arrays (52 bytes a blob) and an open-addressing hash table over it (8 bytes a
 * slot): a million blobs take about 70 MB, and no JavaScript object each. The row number of a blob never
 * changes while the blob is known, also when compaction moves it to another pack, so columns of other
 * files (gc.ts) can be addressed by row.
 *
 * A digest has one row. A second copy of a blob, in another pack, is not entered: it is dead weight of
 * that pack. A row may be *lost*: some build needs the blob, but no copy of it can be trusted, since its
 * pack is gone or its bytes have rotted. The next copy that comes in makes the row whole again, for all
 * who count on it.
 *
 * Slots are found by the digest's first 32 bits: SHA-256 is its own hash function. Home slots are in the
 * order of those bits (linear probing), so doubling the table reads and writes memory in order. Deleting
 * shifts the followers back, so there are no tombstones.
 *
 * What a lookup needs is in shared memory, so that threads look while we change it (`IndexView`). They may
 * miss a blob that comes, goes or moves to another slot just then, or see one that has gone: a digest is
 * compared whole, so what they find is that blob, and known-blobs.ts settles whether it may be relied on.
 */
import { DIGEST_BYTES } from './pack.ts'

/** Pack number of a row that is free. */
const FREE = 0xffffffff
/** Pack number of a row without a copy that could be trusted. */
const LOST = 0xfffffffe
const EMPTY = -1
const SMALLEST_SLOTS = 1024

/** Number of the pack in which a row is; given out by whoever opens packs. */
export type PackNumber = number
export type BlobRow = number

export class BlobIndex {
  /** Per slot: first 32 bits of the digest, and row or EMPTY. At most 3/4 of the slots are taken. */
  #prefixes: Uint32Array
  #rows: Int32Array
  #bits: number
  #digests: Uint8Array
  #packs: Uint32Array
  #offsets: Float64Array
  /** Of a free row: the next free row, or -1. */
  #lengths: Float64Array
  #firstFree = -1
  #rowCount = 0
  #size = 0
  #lostCount = 0

  /** `expected`: how many blobs will be added soon, so that the table need not grow step by step. */
  constructor(expected = 0) {
    let slots = SMALLEST_SLOTS
    while (slots * 0.75 < expected) slots *= 2
    const rows = Math.max(expected, 256)
    this.#prefixes = new Uint32Array(sharedBytes(slots * 4))
    this.#rows = new Int32Array(sharedBytes(slots * 4)).fill(EMPTY)
    this.#bits = Math.log2(slots)
    this.#digests = new Uint8Array(sharedBytes(rows * DIGEST_BYTES))
    this.#packs = new Uint32Array(sharedBytes(rows * 4))
    this.#offsets = new Float64Array(rows)
    this.#lengths = new Float64Array(rows)
  }

  /** How many blobs are known, lost ones included. */
  get size(): number {
    return this.#size
  }
  /** How many of them are lost. */
  get lostCount(): number {
    return this.#lostCount
  }
  /** All row numbers are below this; some may be free. */
  get rowCount(): number {
    return this.#rowCount
  }

  /** The row of a digest, or -1. The digest is in `bytes` from `at` on: no view object per lookup. */
  find(bytes: Uint8Array, at = 0): BlobRow {
    return findRow(this.#prefixes, this.#rows, this.#digests, bytes, at)
  }

  /**
   * Enters a blob whose digest is in `bytes` from `at` on. Returns its row, which may be one that was lost;
   * or -1 when a copy is known already (then nothing changes).
   */
  add(bytes: Uint8Array, at: number, pack: PackNumber, offset: number, length: number): BlobRow {
    if ((this.#size + 1) * 4 > this.#rows.length * 3) this.#doubleSlots()
    const mask = this.#rows.length - 1
    const prefix = prefixOf(bytes, at)
    let slot = this.#home(prefix)
    for (; this.#rows[slot]! !== EMPTY; slot = (slot + 1) & mask) {
      if (this.#prefixes[slot] !== prefix) continue
      const known = this.#rows[slot]!
      if (!equals(this.#digests, known * DIGEST_BYTES, bytes, at)) continue
      if (!this.isLost(known) || pack === LOST) return -1
      this.#lostCount--
      this.#packs[known] = pack
      this.#offsets[known] = offset
      this.#lengths[known] = length
      return known
    }
    const row = this.#newRow()
    for (let i = 0; i < DIGEST_BYTES; i++) this.#digests[row * DIGEST_BYTES + i] = bytes[at + i]!
    this.#packs[row] = pack
    this.#offsets[row] = offset
    this.#lengths[row] = length
    this.#prefixes[slot] = prefix
    this.#rows[slot] = row
    this.#size++
    if (pack === LOST) this.#lostCount++
    return row
  }

  /** Enters a blob that is needed and that the store does not have. Returns its row, whole or lost. */
  addLost(bytes: Uint8Array, at: number, length: number): BlobRow {
    const row = this.add(bytes, at, LOST, 0, length)
    return row >= 0 ? row : this.find(bytes, at)
  }

  /** The only copy of a blob is not to be trusted. */
  lose(row: BlobRow): void {
    if (!this.isHeld(row)) return
    this.#packs[row] = LOST
    this.#lostCount++
  }

  /** The blob is now found in another pack. */
  move(row: BlobRow, pack: PackNumber, offset: number): void {
    this.#packs[row] = pack
    this.#offsets[row] = offset
  }

  /** Forgets a blob; its row may be given to another one. */
  delete(row: BlobRow): void {
    const mask = this.#rows.length - 1
    let hole = this.#home(prefixOf(this.#digests, row * DIGEST_BYTES))
    while (this.#rows[hole] !== row) hole = (hole + 1) & mask
    // Whoever was pushed past the hole moves into it, unless that would put it before its home.
    for (let slot = (hole + 1) & mask; this.#rows[slot]! !== EMPTY; slot = (slot + 1) & mask) {
      const home = this.#home(this.#prefixes[slot]!)
      if (((slot - home) & mask) >= ((slot - hole) & mask)) {
        this.#prefixes[hole] = this.#prefixes[slot]!
        this.#rows[hole] = this.#rows[slot]!
        hole = slot
      }
    }
    this.#rows[hole] = EMPTY
    if (this.isLost(row)) this.#lostCount--
    this.#packs[row] = FREE
    this.#lengths[row] = this.#firstFree
    this.#firstFree = row
    this.#size--
  }

  /** There is a copy. False for free rows. */
  isHeld(row: BlobRow): boolean {
    return this.#packs[row]! < LOST
  }
  isLost(row: BlobRow): boolean {
    return this.#packs[row] === LOST
  }
  /** All rows that are lost, in order. Linear in all blobs when there is one. */
  lost(): Uint32Array {
    const rows = new Uint32Array(this.#lostCount)
    let count = 0
    for (let row = 0; count < rows.length; row++) if (this.isLost(row)) rows[count++] = row
    return rows
  }
  digest(row: BlobRow): Uint8Array {
    return this.#digests.subarray(row * DIGEST_BYTES, (row + 1) * DIGEST_BYTES)
  }
  pack(row: BlobRow): PackNumber {
    return this.#packs[row]!
  }
  offset(row: BlobRow): number {
    return this.#offsets[row]!
  }
  length(row: BlobRow): number {
    return this.#lengths[row]!
  }

  /** What a lookup by digest needs, for threads. When the table grows, what they have is as of then. */
  view(): IndexView {
    return { prefixes: this.#prefixes, rows: this.#rows, digests: this.#digests, packs: this.#packs }
  }

  #home(prefix: number): number {
    return prefix >>> (32 - this.#bits)
  }

  #newRow(): number {
    const row = this.#firstFree
    if (row >= 0) {
      this.#firstFree = this.#lengths[row]!
      return row
    }
    if (this.#rowCount === this.#packs.length) this.#growRows()
    return this.#rowCount++
  }

  #growRows(): void {
    const rows = Math.ceil(this.#packs.length * 1.5)
    this.#digests = grown(this.#digests, new Uint8Array(sharedBytes(rows * DIGEST_BYTES)))
    this.#packs = grown(this.#packs, new Uint32Array(sharedBytes(rows * 4)))
    this.#offsets = grown(this.#offsets, new Float64Array(rows))
    this.#lengths = grown(this.#lengths, new Float64Array(rows))
  }

  #doubleSlots(): void {
    const prefixes = this.#prefixes
    const rows = this.#rows
    const mask = rows.length * 2 - 1
    this.#prefixes = new Uint32Array(sharedBytes(rows.length * 8))
    this.#rows = new Int32Array(sharedBytes(rows.length * 8)).fill(EMPTY)
    this.#bits++
    for (let old = 0; old < rows.length; old++) {
      const row = rows[old]!
      if (row === EMPTY) continue
      const prefix = prefixes[old]!
      let slot = this.#home(prefix)
      while (this.#rows[slot]! !== EMPTY) slot = (slot + 1) & mask
      this.#prefixes[slot] = prefix
      this.#rows[slot] = row
    }
  }
}

/** The parts of a BlobIndex that a lookup needs: its own memory, shared, while it goes on changing. */
export interface IndexView {
  prefixes: Uint32Array
  rows: Int32Array
  digests: Uint8Array
  packs: Uint32Array
}

/** The row of a digest, or -1. */
export function findInView({ prefixes, rows, digests }: IndexView, digest: Uint8Array): BlobRow {
  return findRow(prefixes, rows, digests, digest, 0)
}

export function hasCopyInView({ packs }: IndexView, row: BlobRow): boolean {
  return packs[row]! < LOST
}

/** The row of the digest in `bytes` from `at` on, or -1. Each slot is read once: it may change meanwhile. */
function findRow(
  prefixes: Uint32Array,
  rows: Int32Array,
  digests: Uint8Array,
  bytes: Uint8Array,
  at: number,
): BlobRow {
  const mask = rows.length - 1
  const prefix = prefixOf(bytes, at)
  // The number of slots is a power of two: clz32 of the mask is 32 minus its bits.
  for (let slot = prefix >>> Math.clz32(mask); ; slot = (slot + 1) & mask) {
    const row = rows[slot]!
    if (row === EMPTY) return -1
    if (prefixes[slot] === prefix && equals(digests, row * DIGEST_BYTES, bytes, at)) return row
  }
}

function prefixOf(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
}

/** The same digest, in `a` from `atA` and in `b` from `atB`. */
function equals(a: Uint8Array, atA: number, b: Uint8Array, atB: number): boolean {
  for (let i = 0; i < DIGEST_BYTES; i++) if (a[atA + i] !== b[atB + i]) return false
  return true
}

function grown<T extends Uint8Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from as never)
  return to
}

function sharedBytes(length: number): SharedArrayBuffer {
  return new SharedArrayBuffer(length)
}
