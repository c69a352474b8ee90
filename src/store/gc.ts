/**
 * Which blobs are needed, and getting rid of the others: mark from manifests, sweep packs.
 *
 * Marks are counts, by row of the blob index: how many builds need the blob, and which build it is when
 * there is only one. They are made once after start, one manifest at a time, and kept up to date by
 * publish and remove, so neither has to look at all builds, and nothing is swept before all of them were
 * counted. What an ingest under way relies on is settled blob by blob (known-blobs.ts).
 *
 * A pack without a needed blob is unlinked. One that is mostly dead, or that has to shrink for the budget,
 * is rewritten: its needed blobs move to a new pack, which is durable before the old one goes.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { BlobIndex, BlobRow, PackNumber } from './blob-index.ts'
import type { KnownBlobs } from './known-blobs.ts'
import { BLOB_OVERHEAD, DIGEST_BYTES, PACK_FOOTER_BYTES, PACK_HEADER_BYTES } from './pack.ts'
import type { PackInfo, Packs } from './packs.ts'

/** A pack with at least this share of dead bytes is rewritten without being asked: copying less than it frees. */
const MOSTLY_DEAD = 0.5

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

  constructor(index: BlobIndex) {
    this.#index = index
  }

  count(row: BlobRow): number {
    return this.#counts[row] ?? 0
  }

  /** Counts a build's blobs. Returns how many of them (of those that have bytes) the store lacks. */
  async add(build: BuildNumber, digests: Uint8Array, sizes: ArrayLike<number>): Promise<number> {
    let missing = 0
    await eachRow(this.#index, digests, (row, blob) => {
      if (row < 0) {
        if (sizes[blob] !== 0) missing++
        return
      }
      if (row >= this.#counts.length) this.#grow()
      this.#counts[row]!++
      this.#builds[row]! ^= build
    })
    return missing
  }

  async remove(build: BuildNumber, digests: Uint8Array): Promise<void> {
    await eachRow(this.#index, digests, (row) => {
      if (row < 0 || this.count(row) === 0) return
      this.#counts[row]!--
      this.#builds[row]! ^= build
    })
  }

  /** For each build, what removing it alone would free of the packs. Linear in all blobs, milliseconds. */
  exclusiveBytes(): Map<BuildNumber, number> {
    const bytes = new Map<BuildNumber, number>()
    for (let row = 0; row < this.#counts.length; row++) {
      if (this.#counts[row] !== 1) continue
      const build = this.#builds[row]!
      bytes.set(build, (bytes.get(build) ?? 0) + blobCost(this.#index, row))
    }
    return bytes
  }

  /** A copy of the counts to plan with. */
  ledger(): Ledger {
    return new Ledger(this.#index, this.#counts.slice())
  }

  #grow(): void {
    const rows = Math.max(this.#index.rowCount, Math.ceil(this.#counts.length * 1.5))
    this.#counts = copyInto(new Uint32Array(rows), this.#counts)
    this.#builds = copyInto(new Uint32Array(rows), this.#builds)
  }
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
  async keep(digests: Uint8Array): Promise<number> {
    let bytes = 0
    await eachRow(this.#index, digests, (row) => {
      if (row < 0) return
      if (row >= this.#counts.length)
        this.#counts = copyInto(new Uint32Array(this.#index.rowCount), this.#counts)
      if (this.#counts[row]!++ === 0) bytes += blobCost(this.#index, row)
    })
    return bytes
  }

  /** One less needs these blobs. Returns the bytes that nobody needs any more. */
  async leave(digests: Uint8Array): Promise<number> {
    let bytes = 0
    await eachRow(this.#index, digests, (row) => {
      if (row < 0 || !this.#counts[row]) return
      if (--this.#counts[row]! === 0) bytes += blobCost(this.#index, row)
    })
    return bytes
  }
}

/** What a ledger says of nobody's blobs: to sum up what a set of builds needs in all. */
export function emptyLedger(index: BlobIndex): Ledger {
  return new Ledger(index, new Uint32Array(index.rowCount))
}

/** Bytes in packs that no build needs. */
export function deadBytes(packs: Packs, references: References): number {
  let live = 0
  for (const bytes of liveBytes(packs.index, references).values()) live += bytes
  let payload = 0
  for (const pack of packs.list()) payload += payloadOf(pack)
  return payload - live
}

/** What a sweep may touch and how far it goes. */
export interface SweepOrder {
  packs: Packs
  references: References
  /** What ingests under way rely on. */
  known: Iterable<KnownBlobs>
  /** Bytes that must become free: rewrites packs that are not mostly dead as well. */
  need: number
}

/**
 * Unlinks all dead packs and rewrites at most one, so that whoever waits for the store's turn waits for
 * one pack at most. Returns what it freed and whether another call would find more to do.
 */
export async function sweep(order: SweepOrder): Promise<{ freed: number; more: boolean }> {
  const { packs, references, known } = order
  const bytesBefore = packs.bytes
  const live = liveBytes(packs.index, references)
  const dead: PackInfo[] = []
  const partly: { pack: PackInfo; dead: number; share: number }[] = []
  for (const pack of packs.list()) {
    const needed = live.get(pack.number) ?? 0
    const unneeded = payloadOf(pack) - needed
    if (needed === 0) dead.push(pack)
    else if (unneeded > 0 && !pack.unreadable)
      partly.push({ pack, dead: unneeded, share: unneeded / pack.size })
  }
  partly.sort((a, b) => b.share - a.share)
  const willFree = dead.reduce((sum, pack) => sum + pack.size, 0)
  const worth = partly.filter(({ share }) => share >= MOSTLY_DEAD || willFree < order.need)
  const rewritten = worth[0]

  const rows = rowsByPack(
    packs.index,
    new Set([...dead, ...(rewritten ? [rewritten.pack] : [])].map((p) => p.number)),
  )
  // From here to the index's last change there is no await: an ingest that begins sees all of it or nothing.
  const kept = new Map<PackInfo, BlobRow[]>()
  for (const pack of rewritten ? [...dead, rewritten.pack] : dead) {
    const keep: BlobRow[] = []
    for (const row of rows.get(pack.number) ?? []) {
      if (references.count(row) > 0 || !givenUp(known, packs.index.digest(row))) keep.push(row)
      else packs.index.delete(row)
    }
    kept.set(pack, keep)
  }
  for (const pack of dead) {
    // Ingests rely on what is left in it, if anything: then it is no longer dead, and waits for them.
    if (kept.get(pack)!.length === 0) await packs.drop(pack)
  }
  let shrunk = false
  if (rewritten) {
    const left = kept.get(rewritten.pack)!
    const leftBytes = left.reduce((sum, row) => sum + blobCost(packs.index, row), 0)
    // Not when ingests turned out to rely on all that looked dead.
    shrunk = leftBytes < payloadOf(rewritten.pack)
    if (shrunk) await packs.rewrite(rewritten.pack, left)
  }
  const freed = bytesBefore - packs.bytes
  return { freed, more: shrunk && (worth.length > 1 || freed < order.need) }
}

/** What a blob takes on disk, its record included. */
function blobCost(index: BlobIndex, row: BlobRow): number {
  return index.length(row) + BLOB_OVERHEAD
}

function payloadOf(pack: PackInfo): number {
  return pack.size - PACK_HEADER_BYTES - PACK_FOOTER_BYTES
}

function liveBytes(index: BlobIndex, references: References): Map<PackNumber, number> {
  const live = new Map<PackNumber, number>()
  for (let row = 0; row < index.rowCount; row++) {
    if (references.count(row) === 0) continue
    const pack = index.pack(row)
    live.set(pack, (live.get(pack) ?? 0) + blobCost(index, row))
  }
  return live
}

function rowsByPack(index: BlobIndex, wanted: ReadonlySet<PackNumber>): Map<PackNumber, BlobRow[]> {
  const rows = new Map<PackNumber, BlobRow[]>()
  if (wanted.size === 0) return rows
  for (let row = 0; row < index.rowCount; row++) {
    if (!index.isUsed(row)) continue
    const pack = index.pack(row)
    if (!wanted.has(pack)) continue
    const list = rows.get(pack)
    if (list) list.push(row)
    else rows.set(pack, [row])
  }
  return rows
}

function givenUp(known: Iterable<KnownBlobs>, digest: Uint8Array): boolean {
  let nobodyNeedsIt = true
  for (const blobs of known) if (!blobs.giveUp(digest)) nobodyNeedsIt = false
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
