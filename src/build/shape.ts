/**
 * What a source makes of an archive's tree before it becomes a build: which part of it, without what, whose
 * files, with which times. Pure; the ingest hands in what it has read.
 *
 * What is left out had been written to packs by then (a hard link may still need it); it is dead weight there
 * from the start, and compaction sees to it.
 */
import { ArchiveError } from '../errors.ts'
import { asBuffer, type ByteString, compareBytes, showBytes, utf8Bytes } from '../lib/bytes.ts'
import { isDirectoryMode, isRegularMode } from '../lib/file-mode.ts'
import { compilePattern } from '../rsync/wildmatch.ts'
import type { BlobTable, TreeEntry } from '../store/manifest.ts'

/** Plain data: it crosses into worker threads. */
export interface TreeShape {
  /** OLPC's rule: where there is `versions/pristine`, the first directory in it is the tree; `versions` is left out otherwise. */
  pristine?: boolean | undefined
  /** Path of the directory that is the tree. */
  subtree?: string | undefined
  /** Patterns of what is left out: with a `/` at the start from the tree's root, otherwise anywhere. */
  exclude?: readonly string[] | undefined
  /** Owners by number; `*` stands for all others. */
  users?: Readonly<Record<string, number>> | undefined
  groups?: Readonly<Record<string, number>> | undefined
  /** Files have times that follow from their content: where it changes, so does the time. */
  contentMtimes?: boolean | undefined
}

export interface Tree {
  entries: readonly TreeEntry[]
  blobs: BlobTable
}

const PRISTINE = utf8Bytes('versions/pristine')
const VERSIONS = utf8Bytes('versions')

/** Times from content lie in some 17 years from here, 2001-09-09: no file seems to come from the future. */
const CONTENT_TIMES = { from: 1_000_000_000, span: 2 ** 29 }

/** Finds entries by their path. */
export function finder(entries: readonly TreeEntry[]): (path: ByteString) => number | undefined {
  const children = new Map<string, number>()
  for (const [i, { parent, name }] of entries.entries()) if (i > 0) children.set(`${parent}/${name}`, i)
  return (path) => {
    let at: number | undefined = 0
    for (const name of path.split('/')) {
      if (path === '') return 0
      at = children.get(`${at}/${name}`)
      if (at === undefined) return undefined
    }
    return at
  }
}

/** Path of the archive that becomes the root. @throws ArchiveError where there is no such directory. */
export function rootOf(
  { pristine, subtree }: TreeShape,
  entries: readonly TreeEntry[],
  find: (path: ByteString) => number | undefined,
): ByteString {
  let root = '' as ByteString
  const versions = pristine ? find(PRISTINE) : undefined
  if (versions !== undefined) {
    const names = entries
      .filter(({ parent, mode }, i) => parent === versions && i !== 0 && isDirectoryMode(mode))
      .map(({ name }) => name)
      .sort(compareBytes)
    if (names[0] === undefined) throw new ArchiveError('versions/pristine is empty: there is no tree in it')
    root = `${PRISTINE}/${names[0]}` as ByteString
  }
  if (subtree === undefined) return root
  const path = utf8Bytes(subtree.replace(/^\/+|\/+$/g, ''))
  root = (root === '' ? path : `${root}/${path}`) as ByteString
  const found = find(root)
  if (found !== undefined && isDirectoryMode(entries[found]!.mode)) return root
  throw new ArchiveError(`the archive has no directory ${showBytes(root)}, which its source wants of it`)
}

/** The tree below `root`, as the source wants it. */
export function shapeTree(tree: Tree, shape: TreeShape, root: number, hasPristine: boolean): Tree {
  const { entries, blobs } = tree
  const isLeftOut = excluder(shape, !hasPristine)
  const kept: TreeEntry[] = []
  const place = new Int32Array(entries.length).fill(-1)
  const paths = new Map<number, ByteString>()
  /** First names of hard-linked files by the entry that was first in the archive, which may be left out. */
  const firsts = new Map<number, number>()
  const numbers = new Map<number, number>()
  for (const [i, entry] of entries.entries()) {
    const parent = i === root ? 0 : i > root ? place[entry.parent]! : -1
    if (parent < 0) continue
    if (i !== root) {
      const above = paths.get(entry.parent)!
      const path = (above === '' ? entry.name : `${above}/${entry.name}`) as ByteString
      if (isLeftOut(path, entry.name)) continue
      if (isDirectoryMode(entry.mode)) paths.set(i, path)
    } else paths.set(i, '' as ByteString)
    place[i] = kept.length
    const file = entry.sameAs >= 0 ? entry.sameAs : i
    const sameAs = isDirectoryMode(entry.mode) ? -1 : (firsts.get(file) ?? -1)
    if (sameAs < 0 && !isDirectoryMode(entry.mode)) firsts.set(file, kept.length)
    if (entry.blob >= 0 && !numbers.has(entry.blob)) numbers.set(entry.blob, numbers.size)
    kept.push({
      ...entry,
      ...(i === root ? { name: '' as ByteString } : {}),
      parent,
      sameAs,
      uid: mapped(shape.users, entry.uid),
      gid: mapped(shape.groups, entry.gid),
      ...(shape.contentMtimes && isRegularMode(entry.mode)
        ? { mtime: timeOf(blobs, entry.blob), mtimeNsec: 0 }
        : {}),
      blob: entry.blob < 0 ? -1 : numbers.get(entry.blob)!,
    })
  }
  return { entries: kept, blobs: pick(blobs, [...numbers.keys()]) }
}

function excluder(
  { exclude = [], pristine }: TreeShape,
  versionsToo: boolean,
): (path: ByteString, name: ByteString) => boolean {
  const anchored = exclude.filter((pattern) => pattern.includes('/'))
  const whole = anchored.map((pattern) => compilePattern(utf8Bytes(pattern.replace(/^\/|\/$/g, ''))))
  const names = exclude
    .filter((pattern) => !pattern.includes('/'))
    .map((pattern) => compilePattern(utf8Bytes(pattern)))
  return (path, name) =>
    (pristine === true && versionsToo && path === VERSIONS) ||
    whole.some((pattern) => pattern.matches(path)) ||
    names.some((pattern) => pattern.matches(name))
}

function mapped(map: Readonly<Record<string, number>> | undefined, id: number): number {
  return map?.[id] ?? map?.['*'] ?? id
}

function timeOf({ sha256 }: BlobTable, blob: number): number {
  return CONTENT_TIMES.from + (asBuffer(sha256).readUInt32LE(blob * 32) % CONTENT_TIMES.span)
}

function pick({ sizes, sha256, md5, xxh128 }: BlobTable, blobs: readonly number[]): BlobTable {
  const column = (from: Uint8Array, width: number): Uint8Array =>
    Buffer.concat(blobs.map((blob) => from.subarray(blob * width, (blob + 1) * width)))
  return {
    count: blobs.length,
    sizes: blobs.map((blob) => sizes[blob]!),
    sha256: column(sha256, 32),
    md5: column(md5, 16),
    xxh128: column(xxh128, 16),
  }
}
