/**
 * Verify: reads blobs again and tells which are not what their digests say, or cannot be read.
 *
 * In the order in which they lie on disk, neighbours in one read. Blobs come, go and move meanwhile: what
 * has gone needs no check, what has moved is looked for again at its new place.
 */
import { createHash, hash } from 'node:crypto'
import { Pacer, pacedSort } from '../lib/pacer.ts'
import type { BlobRow } from './blob-index.ts'
import { codeOf, diskError, isAboutFile } from './disk-error.ts'
import type { Pace, PackInfo, Packs } from './packs.ts'

/** What is read at once, and hashed without a rest: some milliseconds. */
const SPAN_BYTES = 2 ** 20
/** A blob that moves again and again, each time before we get to it, is left for another time. */
const MAX_ROUNDS = 10

export interface CheckOptions {
  /** Called before so many bytes are read. */
  pace: Pace
  signal?: AbortSignal | undefined
  /** So many bytes were checked. */
  onChecked?: (bytes: number, blobs: number) => void
  /** These blobs, by digest, are not what they should be, or their pack can't be read. */
  onBad: (digests: readonly Uint8Array[], why: string) => Promise<void>
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
    await packs.hold(pack)
  } catch (error) {
    if (packs.get(pack.number) !== pack) return false
    if (!isAboutFile(error)) throw diskError(error, pack.path)
    // Nothing of it can be read, also when somebody deleted it by hand.
    const why = codeOf(error) === 'ENOENT' ? `${pack.path} is gone` : String((error as Error).message)
    options.onChecked?.(sizeOf(places), places.length)
    await options.onBad(
      places.map(({ digest }) => digest),
      why,
    )
    return true
  }
  try {
    for (const span of spansOf(places)) {
      const bad = await badOf(pack, span, options)
      options.onChecked?.(sizeOf(span), span.length)
      if (bad.length > 0) await options.onBad(bad, `it has rotted in ${pack.path}`)
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

async function badOf(pack: PackInfo, span: readonly Place[], options: CheckOptions): Promise<Buffer[]> {
  const bytes = await readOrNothing(pack, span[0]!.offset, Math.min(sizeOf(span), SPAN_BYTES), options)
  if (span.length === 1) return (await isGood(pack, span[0]!, bytes, options)) ? [] : [span[0]!.digest]
  if (bytes) {
    const start = span[0]!.offset
    const isBad = ({ digest, offset, length }: Place) =>
      !hash('sha256', bytes.subarray(offset - start, offset - start + length), 'buffer').equals(digest)
    return span.filter(isBad).map(({ digest }) => digest)
  }
  // One of them cannot be read: which?
  const bad: Buffer[] = []
  for (const place of span) bad.push(...(await badOf(pack, [place], options)))
  return bad
}

/** `start`: the first bytes of the blob, all of a small one; undefined when they can't be read. */
async function isGood(
  pack: PackInfo,
  { digest, offset, length }: Place,
  start: Buffer | undefined,
  options: CheckOptions,
): Promise<boolean> {
  if (!start) return false
  const sha256 = createHash('sha256').update(start)
  for (let at = start.length; at < length; at += SPAN_BYTES) {
    const piece = await readOrNothing(pack, offset + at, Math.min(SPAN_BYTES, length - at), options)
    if (!piece) return false
    sha256.update(piece)
  }
  return sha256.digest().equals(digest)
}

/** Undefined when the disk can't read this, or the file is too short. */
async function readOrNothing(
  pack: PackInfo,
  offset: number,
  length: number,
  { pace, signal }: CheckOptions,
): Promise<Buffer | undefined> {
  signal?.throwIfAborted()
  await pace(length)
  const bytes = Buffer.allocUnsafe(length)
  try {
    await pack.file.read([bytes], offset)
    return bytes
  } catch (error) {
    if (!isAboutFile(error)) throw diskError(error, pack.path)
    return undefined
  }
}

function sizeOf(places: readonly Place[]): number {
  return places.reduce((sum, { length }) => sum + length, 0)
}
