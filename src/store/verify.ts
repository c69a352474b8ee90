/**
 * Verify: reads blobs again and tells which are not what their digests say, and which the disk gives nothing
 * of. The latter may be whole: what takes a disk away for a while must not cost a blob.
 *
 * In the order in which they lie on disk, neighbours in one read. Blobs come, go and move meanwhile: what
 * has gone needs no check, what has moved is looked for again at its new place.
 */
import { createHash, hash } from 'node:crypto'
import { Pacer, pacedSort } from '../lib/pacer.ts'
import type { BlobRow } from './blob-index.ts'
import { askTwice, diskError, isAboutFile, isUnreadable } from './disk-error.ts'
import type { Pace, PackInfo, Packs } from './packs.ts'

/** What is read at once. */
const SPAN_BYTES = 2 ** 20
/** Blobs hashed between two looks at the clock. */
const STRIDE = 64
/** A blob that moves again and again, each time before we get to it, is left for another time. */
const MAX_ROUNDS = 10

export interface CheckOptions {
  /** Called before so many bytes are read. */
  pace: Pace
  signal?: AbortSignal | undefined
  /** So many bytes were checked. */
  onChecked?: (bytes: number, blobs: number) => void
  /** These blobs, by digest, are not what they should be, or gone. */
  onRotten: (digests: readonly Uint8Array[], why: string) => Promise<void>
  /** The disk gives nothing of these blobs. */
  onUnreadable: (pack: PackInfo, digests: readonly Uint8Array[], error: unknown) => Promise<void>
}

/** Where a blob was when we looked. The digest is our own copy. */
interface Place {
  row: BlobRow
  digest: Buffer
  offset: number
  length: number
}

/** @throws StoreError when nothing can be read, as for want of descriptors; the signal's reason. */
export async function checkBlobs(packs: Packs, wanted: Uint32Array, options: CheckOptions): Promise<void> {
  let rows = wanted
  for (let round = 0; rows.length > 0 && round < MAX_ROUNDS; round++)
    rows = await checkOnce(packs, rows, options)
}

/** Returns the rows that have moved before they were checked. */
async function checkOnce(packs: Packs, wanted: Uint32Array, options: CheckOptions): Promise<Uint32Array> {
  const { index } = packs
  const inOrder = (a: BlobRow, b: BlobRow) =>
    index.pack(a) - index.pack(b) || index.offset(a) - index.offset(b)
  const rows = await pacedSort(wanted, inOrder, new Pacer(options.signal))
  const moved: BlobRow[] = []
  for (let at = 0; at < rows.length; ) {
    const number = index.pack(rows[at]!)
    const first = at
    while (at < rows.length && index.pack(rows[at]!) === number) at++
    const pack = packs.get(number)
    // Gone, or lost since.
    if (!pack) continue
    const places = Array.from(rows.subarray(first, at), (row) => ({
      row,
      digest: Buffer.from(index.digest(row)),
      offset: index.offset(row),
      length: index.length(row),
    }))
    if (await checkPack(packs, pack, places, options)) continue
    for (const { row, digest } of places) if (index.find(digest) === row) moved.push(row)
  }
  return Uint32Array.from(moved)
}

/** False when the pack went before it could be opened. */
async function checkPack(
  packs: Packs,
  pack: PackInfo,
  places: readonly Place[],
  options: CheckOptions,
): Promise<boolean> {
  try {
    await askTwice(() => packs.hold(pack))
  } catch (error) {
    if (packs.get(pack.number) !== pack) return false
    if (!isAboutFile(error)) throw diskError(error, pack.path)
    options.onChecked?.(sizeOf(places), places.length)
    const digests = places.map(({ digest }) => digest)
    if (isUnreadable(error)) await options.onUnreadable(pack, digests, error)
    // Somebody deleted it by hand.
    else await options.onRotten(digests, `${pack.path} is gone`)
    return true
  }
  try {
    for (const span of spansOf(places)) {
      const { rotten, unreadable, error } = await badOf(pack, span, options)
      options.onChecked?.(sizeOf(span), span.length)
      if (rotten.length > 0) await options.onRotten(rotten, `it has rotted in ${pack.path}`)
      if (unreadable.length > 0) await options.onUnreadable(pack, unreadable, error)
    }
  } finally {
    pack.file.release()
  }
  return true
}

/** Neighbours that fit into one read; a larger blob alone. */
function* spansOf(places: readonly Place[]): Generator<readonly Place[]> {
  let span: Place[] = []
  let end = 0
  for (const place of places) {
    const full = span.length > 0 && place.offset + place.length - span[0]!.offset > SPAN_BYTES
    if (full || (span.length > 0 && place.offset !== end)) {
      yield span
      span = []
    }
    span.push(place)
    end = place.offset + place.length
  }
  if (span.length > 0) yield span
}

interface Bad {
  rotten: Buffer[]
  unreadable: Buffer[]
  /** Why: the latest reason. */
  error: unknown
}

async function badOf(pack: PackInfo, span: readonly Place[], options: CheckOptions): Promise<Bad> {
  const bad: Bad = { rotten: [], unreadable: [], error: undefined }
  if (span.length > 1) {
    const start = span[0]!.offset
    const { bytes } = await tryToRead(pack, start, sizeOf(span), options)
    if (bytes) {
      const pacer = new Pacer(options.signal)
      for (const [i, { digest, offset, length }] of span.entries()) {
        if (i % STRIDE === 0 && pacer.due) await pacer.rest()
        const blob = bytes.subarray(offset - start, offset - start + length)
        if (!hash('sha256', blob, 'buffer').equals(digest)) bad.rotten.push(digest)
      }
      return bad
    }
  }
  // One at a time: where several cannot be read at once, one may be to blame.
  for (const place of span) {
    const { good, error } = await check(pack, place, options)
    if (good) continue
    bad.error = error
    if (isUnreadable(error)) bad.unreadable.push(place.digest)
    else bad.rotten.push(place.digest)
  }
  return bad
}

/** `error`: what kept it from being read to its end. */
async function check(
  pack: PackInfo,
  { digest, offset, length }: Place,
  options: CheckOptions,
): Promise<{ good: boolean; error?: unknown }> {
  const sha256 = createHash('sha256')
  for (let at = 0; at < length; at += SPAN_BYTES) {
    const { bytes, error } = await tryToRead(pack, offset + at, Math.min(SPAN_BYTES, length - at), options)
    if (!bytes) return { good: false, error }
    sha256.update(bytes)
  }
  return { good: sha256.digest().equals(digest) }
}

/** No bytes when the disk gives none, also when asked again, or the file is too short. */
async function tryToRead(
  pack: PackInfo,
  offset: number,
  length: number,
  { pace, signal }: CheckOptions,
): Promise<{ bytes?: Buffer; error?: unknown }> {
  signal?.throwIfAborted()
  await pace(length)
  const bytes = Buffer.allocUnsafe(length)
  try {
    await askTwice(() => pack.file.read([bytes], offset))
    return { bytes }
  } catch (error) {
    if (!isAboutFile(error)) throw diskError(error, pack.path)
    return { error }
  }
}

function sizeOf(places: readonly Place[]): number {
  return places.reduce((sum, { length }) => sum + length, 0)
}
