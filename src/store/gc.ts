/**
 * Which blobs are needed, and getting rid of the others: mark from manifests, sweep packs.
 *
 * What is lost (blob-index.ts) is counted as well: it takes no room, and whoever brings it brings it for all.
 *
 * Marks are counts, by row of the blob index: how many builds need the blob, and which build it is when
 * there is only one. They are made once after start, one manifest at a time, and kept up to date by
 * publish and remove, so neither has to look at all builds, and nothing is swept before all of them were
 * counted. What an ingest under way relies on is settled blob by blob (known-blobs.ts).
 *
 * A pack without a needed blob is unlinked. One that is mostly dead, or that has to shrink for the budget
 * or to keep what is dead within its bound, is rewritten: its needed blobs move to a new pack, which is
 * durable before the old one goes.
 *
 * Looking at all blobs takes tens of milliseconds for a million of them, so it is done a slice at a time;
 * meanwhile others may look, and ingests may begin. Whether a blob may go is asked when it goes.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { StoreError } from '../errors.ts'
import { Pacer } from '../lib/pacer.ts'
import type { BlobIndex, BlobRow, PackNumber } from './blob-index.ts'
import { diskError } from './disk-error.ts'
import type { KnownBlobs } from './known-blobs.ts'
import { BLOB_OVERHEAD, DIGEST_BYTES, PACK_FOOTER_BYTES, PACK_HEADER_BYTES } from './pack.ts'
import type { Pace, PackInfo, Packs } from './packs.ts'

/** A pack with at least this share of dead bytes is rewritten without being asked: copying less than it frees. */
const MOSTLY_DEAD = 0.5

/** Rows looked at between two looks at the clock: some 10 µs. */
const STRIDE = 4096
/** The same for rows that are taken out: below a millisecond. */
const DELETE_STRIDE = 512

/**
 * The most that dead bytes may take before packs are rewritten, in the background, until they take less:
 * this share of all packs, but never less than the floor, about what one rewrite copies. A tenth costs
 * little room, and each byte that is copied frees at least a ninth of one.
 */
export const DEAD_BOUND: DeadBound = { share: 0.1, floor: 64 * 2 ** 20 }

export interface DeadBound {
  share: number
  floor: number
}

/** Digests looked up between two breaths of the event loop: about 5 ms. */
const BATCH = 20_000

/** A number per build, never reused while the process runs; not 0. */
export type BuildNumber = number

/** How often each blob is needed, by row. */
export class References {
  readonly #index: BlobIndex
  #counts = new Uint32Array(0)
  /** XOR of the numbers of all builds that need the blob: where the count is 1, that build. */
  #builds = new Uint32Array(0)
  /**
   * What was counted for each build, so that exactly this is undone. Never derived from the disk again: a
   * blob that was missing then may have come with another build since, a manifest may have rotted. A row
   * that is counted stays in the index, so its number means the same blob for as long.
   */
  readonly #rows = new Map<BuildNumber, RowSet>()

  constructor(index: BlobIndex) {
    this.#index = index
  }

  count(row: BlobRow): number {
    return this.#counts[row] ?? 0
  }

  /** Counts a build's blobs. Returns how many of them (of those that have bytes) are lost. */
  async add(build: BuildNumber, digests: Uint8Array, sizes: ArrayLike<number>): Promise<number> {
    let lost = 0
    const found = new Uint32Array(digests.length / DIGEST_BYTES)
    let count = 0
    await eachRow(this.#index, digests, (known, blob) => {
      const size = sizes[blob]!
      if (known < 0 && size === 0) return
      const row = known >= 0 ? known : this.#index.addLost(digests, blob * DIGEST_BYTES, size)
      if (this.#index.isLost(row)) lost++
      found[count++] = row
    })
    const rows = await RowSet.of(found.subarray(0, count), this.#index.rowCount)
    if (this.#index.rowCount > this.#counts.length) this.#grow()
    this.#rows.set(build, rows)
    for (const row of rows) {
      this.#counts[row]!++
      this.#builds[row]! ^= build
    }
    return lost
  }

  /** Whether a build's blobs were counted, however few they are. */
  has(build: BuildNumber): boolean {
    return this.#rows.has(build)
  }

  /** Undoes `add`. */
  remove(build: BuildNumber): void {
    for (const row of this.#rows.get(build) ?? []) {
      this.#counts[row]!--
      this.#builds[row]! ^= build
    }
    this.#rows.delete(build)
  }

  /** The rows that were counted for a build; none when it was not counted. */
  rowsOf(build: BuildNumber): Iterable<BlobRow> {
    return this.#rows.get(build) ?? []
  }

  /** How many of a build's blobs have no copy to be trusted. Each client asks. */
  lostOf(build: BuildNumber): number {
    const index = this.#index
    return index.lostCount === 0 ? 0 : (this.#rows.get(build)?.count((row) => index.isLost(row)) ?? 0)
  }

  /** Whether a build needs one of these rows, which ascend. Takes no longer for more blobs in a row. */
  needsAny(build: BuildNumber, rows: Uint32Array): boolean {
    return this.#rows.get(build)?.hasAny(rows) ?? false
  }

  /** For each build, what removing it alone would free of the packs. Linear in all blobs. */
  async exclusiveBytes(): Promise<Map<BuildNumber, number>> {
    const bytes = new Map<BuildNumber, number>()
    const pacer = new Pacer()
    for (let row = 0; row < this.#counts.length; row++) {
      if (row % STRIDE === 0 && pacer.due) await pacer.rest()
      if (this.#counts[row] !== 1) continue
      const build = this.#builds[row]!
      bytes.set(build, (bytes.get(build) ?? 0) + blobCost(this.#index, row))
    }
    return bytes
  }

  /** A copy of the counts to plan with, in which what ingests under way rely on is needed as well. */
  ledger(known: readonly KnownBlobs[]): Ledger {
    const rows = Math.max(this.#index.rowCount, this.#counts.length)
    const counts = copyInto(new Uint32Array(rows), this.#counts)
    for (const blobs of known) for (const row of blobs.claimed()) counts[row]!++
    return new Ledger(this.#index, counts)
  }

  #grow(): void {
    const rows = Math.max(this.#index.rowCount, Math.ceil(this.#counts.length * 1.5))
    this.#counts = copyInto(new Uint32Array(rows), this.#counts)
    this.#builds = copyInto(new Uint32Array(rows), this.#builds)
  }
}

/** Rows, and words of 32 of them, that are looked at between two looks at the clock. */
const ROW_STRIDE = 4096
const WORD_STRIDE = 1024

/**
 * A set of rows as runs of neighbours: blobs that came with one pack have rows in a row, so thousands of
 * builds can be remembered in little memory.
 */
class RowSet {
  /** First row of a run and the one behind its last, in turn. */
  readonly #runs: Uint32Array

  private constructor(runs: Uint32Array) {
    this.#runs = runs
  }

  /**
   * Of rows in any order, all below `rowCount`; what is in it twice counts once. By a bit for each row: to sort half a
   * million of them would take tens of milliseconds at a stretch.
   */
  static async of(rows: Uint32Array, rowCount: number): Promise<RowSet> {
    const pacer = new Pacer()
    const bits = new Uint32Array(Math.ceil(rowCount / 32) + 1)
    for (let i = 0; i < rows.length; i++) {
      if (i % ROW_STRIDE === 0 && pacer.due) await pacer.rest()
      const row = rows[i]!
      bits[row >>> 5]! |= 1 << (row & 31)
    }
    const runs: number[] = []
    for (let word = 0; word < bits.length; word++) {
      if (word % WORD_STRIDE === 0 && pacer.due) await pacer.rest()
      const set = bits[word]!
      const isInRun = runs.length % 2 === 1
      if (set === (isInRun ? 0xffff_ffff : 0)) continue
      for (let bit = 0; bit < 32; bit++)
        if ((runs.length & 1) !== ((set >>> bit) & 1)) runs.push(word * 32 + bit)
    }
    return new RowSet(Uint32Array.from(runs))
  }

  count(counts: (row: BlobRow) => boolean): number {
    let count = 0
    for (let run = 0; run < this.#runs.length; run += 2)
      for (let row = this.#runs[run]!; row < this.#runs[run + 1]!; row++) if (counts(row)) count++
    return count
  }

  /** Whether one of these rows, which ascend, is in it. */
  hasAny(rows: Uint32Array): boolean {
    let at = 0
    for (let i = 0; i < rows.length; ) {
      at = firstAbove(this.#runs, rows[i]!, at)
      // The row is behind the first one of a run, and before its end.
      if (at % 2 === 1) return true
      if (at === this.#runs.length) return false
      i = firstAbove(rows, this.#runs[at]! - 1, i)
    }
    return false
  }

  *[Symbol.iterator](): Generator<BlobRow> {
    for (let run = 0; run < this.#runs.length; run += 2) {
      for (let row = this.#runs[run]!; row < this.#runs[run + 1]!; row++) yield row
    }
  }
}

/** Where, from `from` on, the first of these ascending numbers is that is greater; their count when none is. */
function firstAbove(ascending: Uint32Array, value: number, from: number): number {
  let [low, high] = [from, ascending.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (ascending[middle]! > value) high = middle
    else low = middle + 1
  }
  return low
}

/** "What if": counts that can be changed without consequences. */
export class Ledger {
  readonly #index: BlobIndex
  #counts: Uint32Array

  constructor(index: BlobIndex, counts: Uint32Array) {
    this.#index = index
    this.#counts = counts
  }

  /** One more needs these blobs. Returns the bytes that nobody needed before. */
  keep(rows: Iterable<BlobRow>): number {
    let bytes = 0
    for (const row of rows) {
      // Came after the ledger was made.
      if (row >= this.#counts.length)
        this.#counts = copyInto(new Uint32Array(this.#index.rowCount), this.#counts)
      if (this.#counts[row]!++ === 0) bytes += blobCost(this.#index, row)
    }
    return bytes
  }

  /**
   * As `keep`, for those of the digests that the store has.
   * @param arriving what is in packs from this one on counts as needed already.
   */
  async keepDigests(digests: Uint8Array, arriving: PackNumber = Number.POSITIVE_INFINITY): Promise<number> {
    let bytes = 0
    await eachRow(this.#index, digests, (row) => {
      if (row < 0) return
      const kept = this.keep([row])
      if (this.#index.pack(row) < arriving) bytes += kept
    })
    return bytes
  }

  /** One less needs these blobs. Returns the bytes that nobody needs any more. */
  leave(rows: Iterable<BlobRow>): number {
    let bytes = 0
    for (const row of rows) {
      if (!this.#counts[row]) continue
      if (--this.#counts[row]! === 0) bytes += blobCost(this.#index, row)
    }
    return bytes
  }
}

/** What a ledger says of nobody's blobs: to sum up what a set of builds needs in all. */
export function emptyLedger(index: BlobIndex): Ledger {
  return new Ledger(index, new Uint32Array(index.rowCount))
}

/** What is needed, and by whom. */
export interface Needs {
  packs: Packs
  references: References
  /** What ingests under way rely on, asked anew after every wait: ingests begin at any time. */
  known: () => readonly KnownBlobs[]
}

/**
 * Bytes in packs that neither a build nor an ingest under way needs, and that a sweep could free.
 * @param below packs from this number on are needed, whatever it looks like.
 */
export async function deadBytes(needs: Needs, below: PackNumber = needs.packs.numbers): Promise<number> {
  const live = (await liveBytes(needs)).subarray(0, below)
  let dead = 0
  for (const pack of needs.packs.list()) {
    // One that came meanwhile was not looked at, and is needed.
    const needed = live[pack.number] ?? payloadOf(pack)
    if (mustStay(needs, pack)) continue
    if (needed === 0 || !pack.unreadable) dead += payloadOf(pack) - needed
  }
  return dead
}

/** What a sweep may touch and how far it goes. */
export interface SweepOrder extends Needs {
  /** Bytes that must become free: rewrites packs that are not mostly dead as well. */
  need: number
  /** Told of a pack that can't be read; the sweep leaves it alone and goes on. */
  onProblem: (problem: StoreError) => void
  /** Called before so many bytes are copied: may take its time. */
  pace: Pace
}

/**
 * Unlinks all dead packs and rewrites at most one, so that whoever waits for the store's turn waits for
 * one pack at most. Returns what it freed and whether another call would find more to do.
 */
export async function sweep(order: SweepOrder): Promise<{ freed: number; more: boolean }> {
  const { packs } = order
  const bytesBefore = packs.bytes
  const freed = () => bytesBefore - packs.bytes
  await deleteLost(order)
  const { dead, partly } = await sortPacks(order)
  const left = await deleteUnneeded(order, dead, await rowsByPack(packs.index, dead))
  for (const pack of dead) {
    // Ingests may just have come to rely on something in it: then it is no longer dead, and waits for them.
    if (left.get(pack)!.length === 0) await packs.drop(pack)
  }
  const worth = partly.filter(({ share }) => share >= MOSTLY_DEAD || freed() < order.need)
  for (const [i, { pack }] of worth.entries()) {
    const unneeded = await deleteUnneeded(order, [pack], await rowsByPack(packs.index, [pack]))
    const rows = unneeded.get(pack)!
    const leftBytes = rows.reduce((sum, row) => sum + blobCost(packs.index, row), 0)
    // Ingests came to rely on all that looked dead: the next one may be worth it.
    if (leftBytes >= payloadOf(pack)) continue
    try {
      await packs.rewrite(pack, rows, order.pace)
    } catch (error) {
      if (!pack.unreadable) throw error
      order.onProblem(diskError(error, pack.path) as StoreError)
    }
    return { freed: freed(), more: i + 1 < worth.length || freed() < order.need }
  }
  return { freed: freed(), more: false }
}

/**
 * Writes a pack anew, whatever it holds, or unlinks it when nothing in it is needed.
 * @param whole also what looks as if nobody needed it.
 */
export async function rewritePack(
  order: SweepOrder,
  pack: PackInfo,
  { whole }: { whole: boolean },
): Promise<void> {
  if (mustStay(order, pack)) return
  const held = await rowsByPack(order.packs.index, [pack])
  const rows = whole ? held.get(pack.number)! : (await deleteUnneeded(order, [pack], held)).get(pack)!
  if (rows.length === 0) await order.packs.drop(pack)
  else await order.packs.rewrite(pack, rows, order.pace)
}

/** Packs without a needed blob, and those that are partly dead, the deadest first. */
async function sortPacks(
  needs: Needs,
): Promise<{ dead: PackInfo[]; partly: { pack: PackInfo; share: number }[] }> {
  const live = await liveBytes(needs)
  const dead: PackInfo[] = []
  const partly: { pack: PackInfo; share: number }[] = []
  for (const pack of needs.packs.list()) {
    const needed = live[pack.number] ?? payloadOf(pack)
    const unneeded = payloadOf(pack) - needed
    if (mustStay(needs, pack)) continue
    if (needed === 0) dead.push(pack)
    else if (unneeded > 0 && !pack.unreadable) partly.push({ pack, share: unneeded / pack.size })
  }
  partly.sort((a, b) => b.share - a.share)
  return { dead, partly }
}

/**
 * Takes the blobs that nobody needs out of the index and returns the rows that stay, by pack. An ingest may
 * begin while this rests: what was taken out until then it does not know, for the rest it is asked as well.
 */
async function deleteUnneeded(
  { packs, references, known }: Needs,
  wanted: readonly PackInfo[],
  rows: ReadonlyMap<PackNumber, readonly BlobRow[]>,
): Promise<Map<PackInfo, BlobRow[]>> {
  const pacer = new Pacer()
  let ingests = known()
  const left = new Map<PackInfo, BlobRow[]>()
  for (const pack of wanted) {
    const keep: BlobRow[] = []
    for (const [i, row] of (rows.get(pack.number) ?? []).entries()) {
      if (i % DELETE_STRIDE === 0 && pacer.due) {
        await pacer.rest()
        ingests = known()
      }
      if (references.count(row) > 0 || !givenUp(ingests, row)) keep.push(row)
      else packs.index.delete(row)
    }
    left.set(pack, keep)
  }
  return left
}

/** Forgets what is lost and nobody needs any more. */
async function deleteLost({ packs: { index }, references, known }: Needs): Promise<void> {
  const pacer = new Pacer()
  let ingests = known()
  for (const [i, row] of index.lost().entries()) {
    if (i % DELETE_STRIDE === 0 && pacer.due) {
      await pacer.rest()
      ingests = known()
    }
    if (index.isLost(row) && references.count(row) === 0 && givenUp(ingests, row)) index.delete(row)
  }
}

/** What the disk gives nothing of may be whole: it stays until what it held has come in again, or is not needed. */
function mustStay({ packs }: Needs, pack: PackInfo): boolean {
  return pack.suspended && packs.index.lostCount > 0
}

/** What a blob takes on disk, its record included. */
function blobCost(index: BlobIndex, row: BlobRow): number {
  return index.isLost(row) ? 0 : index.length(row) + BLOB_OVERHEAD
}

function payloadOf(pack: PackInfo): number {
  return pack.size - PACK_HEADER_BYTES - PACK_FOOTER_BYTES
}

/** By pack number, what is needed of each; as of about now. */
async function liveBytes({ packs, references, known }: Needs): Promise<Float64Array> {
  const { index } = packs
  const live = new Float64Array(packs.numbers)
  const pacer = new Pacer()
  const claimed = new Uint8Array(index.rowCount)
  for (const blobs of known()) {
    for (const row of blobs.claimed()) claimed[row] = 1
    if (pacer.due) await pacer.rest()
  }
  for (let row = 0; row < index.rowCount; row++) {
    if (row % STRIDE === 0 && pacer.due) await pacer.rest()
    if (!index.isHeld(row)) continue
    if (references.count(row) === 0 && claimed[row] !== 1) continue
    // One that was adopted meanwhile is beyond the end, and ignored.
    live[index.pack(row)]! += blobCost(index, row)
  }
  return live
}

/** The rows whose blobs are in these packs; as of about now. No rows come to a pack that is there already. */
async function rowsByPack(
  index: BlobIndex,
  wanted: readonly PackInfo[],
): Promise<Map<PackNumber, BlobRow[]>> {
  const rows = new Map<PackNumber, BlobRow[]>(wanted.map(({ number }) => [number, []]))
  if (rows.size === 0) return rows
  const pacer = new Pacer()
  for (let row = 0; row < index.rowCount; row++) {
    if (row % STRIDE === 0 && pacer.due) await pacer.rest()
    rows.get(index.pack(row))?.push(row)
  }
  return rows
}

function givenUp(known: Iterable<KnownBlobs>, row: BlobRow): boolean {
  let nobodyNeedsIt = true
  for (const blobs of known) if (!blobs.giveUp(row)) nobodyNeedsIt = false
  return nobodyNeedsIt
}

/** Calls `visit` with the row of each digest (or -1), breathing now and then. */
async function eachRow(
  index: BlobIndex,
  digests: Uint8Array,
  visit: (row: BlobRow, blob: number) => void,
): Promise<void> {
  const count = digests.length / DIGEST_BYTES
  for (let blob = 0; blob < count; blob++) {
    visit(index.find(digests, blob * DIGEST_BYTES), blob)
    if (blob % BATCH === BATCH - 1) await nextTurn()
  }
}

function copyInto(to: Uint32Array<ArrayBuffer>, from: Uint32Array): Uint32Array<ArrayBuffer> {
  to.set(from)
  return to
}
