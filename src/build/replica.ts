/**
 * A build that another server has: its manifest is taken as it is, if it is one that we would have made, and
 * of its blobs those come that the store lacks. Synchronous where it matters, for a worker thread.
 *
 * What comes from elsewhere is not believed. The manifest's entries have to meet the rules of an ingest, and
 * put together again they must give the same bytes: so everything in it that follows from its entries is as
 * we would have it (order, counts, totals). Every blob that comes is hashed, with all its digests compared.
 * Digests of blobs that we have already are found by SHA-256; that their other digests are right is the
 * parent's word, as a file's content is.
 */

import { MAX_COMPONENT_BYTES, MAX_PATH_BYTES } from '../archive/path.ts'
import { ArchiveError, UpstreamChanged } from '../errors.ts'
import { asBuffer, type ByteString, byteString, showBytes } from '../lib/bytes.ts'
import type { Disk } from '../lib/disk.ts'
import {
  isDeviceMode,
  isDirectoryMode,
  isRegularMode,
  isSymlinkMode,
  PERMISSION_MASK,
  TYPE_MASK,
  typeOfMode,
} from '../lib/file-mode.ts'
import { type BlobTable, encodeManifest, type Manifest, type TreeEntry } from '../store/manifest.ts'
import { DIGEST_BYTES } from '../store/pack.ts'
import { BlobSink, type IngestRoom, type KnownContent, roomFor } from './blob-sink.ts'
import type { IngestResult } from './ingest.ts'
import { DEFAULT_TREE_LIMITS, type TreeLimits, uniformMtime } from './tree-rules.ts'

/** Times that a file system can have, far beyond those that one will. */
const MAX_SECONDS = 2 ** 40
const NSEC = 1_000_000_000

/**
 * The entries of a manifest that is as we would have made it.
 * @param bytes what `manifest` was decoded from. @throws ArchiveError
 */
export function checkManifest(
  manifest: Manifest,
  bytes: Uint8Array,
  limits: TreeLimits = DEFAULT_TREE_LIMITS,
): TreeEntry[] {
  if (manifest.count < 1 || manifest.count > limits.maxEntries) throw bad(`has ${manifest.count} entries`)
  const blobs = tableOf(manifest)
  checkBlobTable(blobs)
  const entries: TreeEntry[] = []
  const lengths = new Uint32Array(manifest.count)
  const depths = new Uint32Array(manifest.count)
  const linked = new Map<number, number>()
  const used = new Uint8Array(blobs.count)
  let names = new Set<ByteString>()
  let directory = -1
  for (let i = 0; i < manifest.count; i++) {
    const entry = entryOf(manifest, i, linked)
    const { name, parent } = entry
    if (i > 0) {
      const above = entries[parent]
      if (parent >= i || !above || !isDirectoryMode(above.mode)) throw bad(`has entry ${i} in no directory`)
      if (parent !== directory) names = new Set()
      directory = parent
      if (names.has(name)) throw bad(`has ${showBytes(name)} twice in one directory`)
      names.add(name)
      lengths[i] = lengths[parent]! + name.length + 1
      depths[i] = depths[parent]! + 1
      if (!isName(name) || lengths[i]! > MAX_PATH_BYTES + 1)
        throw bad(`has an entry that cannot be named ${showBytes(name)}`)
      if (depths[i]! > limits.maxDepth) throw bad(`is more than ${limits.maxDepth} directories deep`)
    } else if (name !== '' || parent !== 0 || !isDirectoryMode(entry.mode)) {
      throw bad('has a root that is none')
    }
    checkEntry(entry, i, blobs, entries)
    if (entry.blob >= 0) used[entry.blob] = 1
    entries.push(entry)
  }
  if (used.includes(0)) throw bad('names content that no file has')
  const { userNames, groupNames } = manifest
  const again = encodeManifest({ entries, blobs, userNames, groupNames })
  if (!asBuffer(again).equals(bytes)) throw bad('is not put together as it should be')
  return entries
}

function entryOf(manifest: Manifest, i: number, linked: Map<number, number>): TreeEntry {
  const group = manifest.linkGroup(i)
  const first = group > 0 ? linked.get(group) : undefined
  if (group > 0 && first === undefined) linked.set(group, i)
  return {
    parent: manifest.parent(i),
    name: manifest.name(i),
    mode: manifest.mode(i),
    uid: manifest.uid(i),
    gid: manifest.gid(i),
    size: manifest.size(i),
    mtime: manifest.mtime(i),
    mtimeNsec: manifest.mtimeNsec(i),
    major: manifest.major(i),
    minor: manifest.minor(i),
    linkTarget: manifest.linkTarget(i),
    sameAs: first ?? -1,
    xattrs: manifest.xattrs(i),
    blob: manifest.blob(i),
  }
}

function checkEntry(entry: TreeEntry, i: number, blobs: BlobTable, before: readonly TreeEntry[]): void {
  const { mode, size, blob, mtime, mtimeNsec, linkTarget, sameAs } = entry
  const expected = isRegularMode(mode) ? blobs.sizes[blob] : isSymlinkMode(mode) ? linkTarget.length : 0
  const first = sameAs < 0 ? entry : before[sameAs]!
  const right =
    typeOfMode(mode) !== undefined &&
    (mode & ~(TYPE_MASK | PERMISSION_MASK)) === 0 &&
    size === expected &&
    isRegularMode(mode) === blob >= 0 &&
    isSymlinkMode(mode) === linkTarget.length > 0 &&
    linkTarget.length <= MAX_PATH_BYTES &&
    !linkTarget.includes('\0') &&
    (isDeviceMode(mode) || (entry.major === 0 && entry.minor === 0)) &&
    Number.isInteger(mtime) &&
    Math.abs(mtime) <= MAX_SECONDS &&
    mtimeNsec < NSEC &&
    // Names of one file say the same of it.
    (sameAs < 0 || (!isDirectoryMode(mode) && LINKED.every((key) => entry[key] === first[key])))
  if (!right) throw bad(`says of entry ${i}, ${showBytes(entry.name)}, what cannot be`)
}

const LINKED = [
  'mode',
  'uid',
  'gid',
  'size',
  'mtime',
  'mtimeNsec',
  'major',
  'minor',
  'linkTarget',
  'blob',
] as const

function isName(name: ByteString): boolean {
  return (
    name.length > 0 &&
    name.length <= MAX_COMPONENT_BYTES &&
    name !== '.' &&
    name !== '..' &&
    !/[/\0]/.test(name)
  )
}

function checkBlobTable({ count, sizes, sha256 }: BlobTable): void {
  const seen = new Set<ByteString>()
  for (let b = 0; b < count; b++) {
    if (!Number.isSafeInteger(sizes[b]) || sizes[b]! < 0) throw bad('has a file of no size that there is')
    seen.add(byteString(sha256, b * DIGEST_BYTES, (b + 1) * DIGEST_BYTES))
  }
  if (seen.size !== count) throw bad('has one content twice')
}

function tableOf(manifest: Manifest): BlobTable {
  const count = manifest.blobCount
  const table = {
    count,
    sizes: new Float64Array(count),
    sha256: new Uint8Array(count * DIGEST_BYTES),
    md5: new Uint8Array(count * 16),
    xxh128: new Uint8Array(count * 16),
  }
  for (let b = 0; b < count; b++) {
    table.sizes[b] = manifest.blobSize(b)
    table.sha256.set(manifest.blobDigest(b), b * DIGEST_BYTES)
    table.md5.set(manifest.blobMd5(b), b * 16)
    table.xxh128.set(manifest.blobXxh128(b), b * 16)
  }
  return table
}

/** Numbers of the blobs that the store lacks. What it has is kept for us from now on. */
export function lackingBlobs(manifest: Manifest, known: KnownContent): number[] {
  const lacking: number[] = []
  for (let b = 0; b < manifest.blobCount; b++) {
    // Content of no bytes is in no pack.
    if (manifest.blobSize(b) > 0 && !known.claim(manifest.blobDigest(b))) lacking.push(b)
  }
  return lacking
}

/**
 * For blobs to come, an earlier version of each: what the base has at the same path, where the store has it.
 * @returns by number in `manifest`, the number in `base`.
 */
export function earlierVersions(
  manifest: Manifest,
  lacking: readonly number[],
  base: Manifest,
  known: KnownContent,
): Map<number, number> {
  const wanted = new Set(lacking)
  const earlier = new Map<number, number>()
  /** The entry of the base at the same path, for each directory. */
  const places = new Int32Array(manifest.count).fill(-1)
  places[0] = 0
  for (let i = 1; i < manifest.count; i++) {
    const above = places[manifest.parent(i)]!
    if (above < 0) continue
    const blob = manifest.blob(i)
    const isWanted = blob >= 0 && wanted.has(blob) && !earlier.has(blob)
    if (!isWanted && !manifest.isDirectory(i)) continue
    const there = base.child(above, manifest.name(i))
    if (there < 0) continue
    if (manifest.isDirectory(i)) places[i] = base.isDirectory(there) ? there : -1
    else if (base.blob(there) >= 0) {
      const candidate = base.blob(there)
      if (base.blobSize(candidate) > 0 && known.claim(base.blobDigest(candidate)))
        earlier.set(blob, candidate)
    }
  }
  return earlier
}

/** Writes the blobs that come, and hands the build over. */
export class Replica {
  readonly #manifest: Manifest
  readonly #lacking: readonly number[]
  readonly #sink: BlobSink
  readonly #room: IngestRoom
  #index = 0
  #toCome = 0

  private constructor(manifest: Manifest, lacking: readonly number[], sink: BlobSink, room: IngestRoom) {
    this.#manifest = manifest
    this.#lacking = lacking
    this.#sink = sink
    this.#room = room
    this.#begin()
  }

  /** `directory` is empty and ours; the packs are written there. */
  static async create(
    directory: string,
    manifest: Manifest,
    lacking: readonly number[],
    room: IngestRoom,
    disk: Disk,
  ): Promise<Replica> {
    // What is known was found before: none of what comes is.
    const nothing = { claim: () => false }
    return new Replica(manifest, lacking, await BlobSink.create(directory, nothing, room, disk.now), room)
  }

  /** The next bytes of the blobs, which come one behind the other. @throws UpstreamChanged, NoRoom */
  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#index === this.#lacking.length) throw new UpstreamChanged('more came than was asked for')
      const part = bytes.subarray(at, at + this.#toCome)
      this.#sink.append(part)
      at += part.length
      this.#toCome -= part.length
      if (this.#toCome === 0) this.#end()
    }
  }

  /** Seals everything. When this returns the packs are durable. */
  finish(bytes: Uint8Array, entries: readonly TreeEntry[]): IngestResult {
    if (this.#index < this.#lacking.length) throw new UpstreamChanged('less came than was asked for')
    const { packs, packBytes } = this.#sink.seal()
    const { totals } = this.#manifest
    return {
      packs,
      packBytes,
      reusedBytes: totals.blobBytes - this.#sink.table().sizes.reduce((sum, size) => sum + size, 0),
      entries: entries.length,
      uniformMtime: uniformMtime(entries),
      manifest: Uint8Array.from(bytes),
    }
  }

  /** Lets go of open files after an error. */
  abort(): void {
    this.#sink.close()
  }

  #begin(): void {
    const blob = this.#lacking[this.#index]
    if (blob === undefined) return
    this.#toCome = this.#manifest.blobSize(blob)
    this.#room.claim(roomFor(this.#toCome))
    this.#sink.begin(this.#toCome)
  }

  #end(): void {
    const blob = this.#lacking[this.#index]!
    const number = this.#sink.end()
    const { sha256, md5, xxh128 } = this.#sink.table()
    const fits = (column: Uint8Array, expected: Uint8Array): boolean =>
      asBuffer(expected).equals(column.subarray(number * expected.length, (number + 1) * expected.length))
    const right =
      fits(sha256, this.#manifest.blobDigest(blob)) &&
      fits(md5, this.#manifest.blobMd5(blob)) &&
      fits(xxh128, this.#manifest.blobXxh128(blob))
    if (!right) {
      const digest = asBuffer(this.#manifest.blobDigest(blob)).toString('hex')
      throw new UpstreamChanged(`what came as content ${digest} is not that`, {
        hint: 'The parent server, or what lies between, is at fault: run `upserv verify` there.',
      })
    }
    this.#index++
    this.#begin()
  }
}

function bad(what: string): ArchiveError {
  return new ArchiveError(`the manifest ${what}`, {
    hint: 'The parent server is of another version, or was made to do harm; nothing of it was kept.',
  })
}
