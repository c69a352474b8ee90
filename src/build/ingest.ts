/**
 * Ingest: turns an archive's members into sealed packs and a sealed manifest. One pass, nothing unpacked.
 *
 * Synchronous, for a worker thread: a reader calls `entry` and `data`, and `finish` seals. Content that
 * the store or this archive had already is not written again; whether it is known shows only when its
 * digest does, so larger files are written while they stream and taken back if they are.
 *
 * Rules of the tree; what breaks one is an ArchiveError that names the entry:
 * - A path is described once. A parent that the archive never describes is implied: a directory, 0755,
 *   0:0, as old as the newest entry directly in it. A parent may be described after what lies below it.
 *   The root is no exception.
 * - What has something below it is a directory; a symlink to one is not.
 * - A hard link names an earlier entry that is no directory. It shares attributes and content with it.
 * - Paths are at most 4095 bytes and names 255, as Linux has it, and there are limits to how many entries
 *   there are, how deep they lie and how much memory it takes to describe them.
 *
 * Names of owners are those of the archive; for ids that it has no name for, those in the tree's own
 * etc/passwd and etc/group. The first name of an id wins.
 */
import type { ArchiveEntry, ArchiveSink } from '../archive/archive.ts'
import { MAX_COMPONENT_BYTES, MAX_PATH_BYTES } from '../archive/path.ts'
import { ArchiveError } from '../errors.ts'
import { type ByteString, byteString, compareBytes, showBytes } from '../lib/bytes.ts'
import { type DiskNow, realDisk } from '../lib/disk.ts'
import { DIRECTORY, type FileType, isDirectoryMode, modeOfType, PERMISSION_MASK } from '../lib/file-mode.ts'
import { formatSize } from '../lib/units.ts'
import { encodeManifest, type TreeEntry, type Xattr, XattrKeys } from '../store/manifest.ts'
import type { SealedIngest } from '../store/store.ts'
import { BlobSink, type IngestRoom, type KnownContent, roomFor } from './blob-sink.ts'
import { layerDirectory, mergeLayers } from './layers.ts'
import { finder, rootOf, shapeTree, type Tree, type TreeShape } from './shape.ts'
import { DEFAULT_TREE_LIMITS, type TreeLimits, uniformMtime } from './tree-rules.ts'

export interface IngestResult extends SealedIngest {
  manifest: Uint8Array<ArrayBuffer>
  /** Bytes of all packs. */
  packBytes: number
  /** Content that was not written because it was known, from the store or from earlier in the archive. */
  reusedBytes: number
  entries: number
  /** Nearly all files share this mtime (seconds): a reproducible image. `rsync -a` would skip changed files of equal size. */
  uniformMtime: number | undefined
}

/** A user or group name beyond this is none: Linux has 32, directory services have been seen to use more. */
const MAX_OWNER_NAME_BYTES = 255

/** More names of users, or of groups, than this are not kept; the rest of the ids stay numbers. */
const MAX_OWNER_NAMES = 65_536

/** A passwd file larger than this is none. */
const MAX_ACCOUNT_FILE = 2 ** 20
/** Where it may lie, as a part of the archive may become the tree; and how many of them are kept. */
const ACCOUNT_FILE = /(?:^|\/)etc\/(?:passwd|group)$/
const MAX_ACCOUNT_FILES = 32

const ROOT = '' as ByteString
const NO_XATTRS: readonly Xattr[] = []

export class Ingest implements ArchiveSink {
  readonly #blobs: BlobSink
  readonly #room: IngestRoom
  readonly #limits: TreeLimits
  readonly #shape: TreeShape
  readonly #entries: TreeEntry[] = []
  readonly #byPath = new Map<ByteString, number>()
  readonly #xattrs = new XattrSets()
  #metadataBytes = 0
  /** Directories that something lies in but that were not described (yet). */
  readonly #implied = new Set<number>()
  readonly #userNames = new Map<number, ByteString>()
  readonly #groupNames = new Map<number, ByteString>()
  readonly #accountFiles = new Map<ByteString, Uint8Array>()
  /** The file whose content comes now: its entry, and how many bytes are still to come. */
  #current: { entry: number; path: ByteString; account: Uint8Array[] | undefined } | undefined
  #toCome = 0
  /** How many layers have begun; 0: there are none. */
  #layers = 0

  private constructor(blobs: BlobSink, room: IngestRoom, limits: TreeLimits, shape: TreeShape) {
    this.#shape = shape
    this.#blobs = blobs
    this.#room = room
    this.#limits = limits
    this.#addEntry(impliedDirectory(ROOT, 0), ROOT)
    this.#implied.add(0)
  }

  /** `directory` is empty and ours; the packs are written there. */
  static async create(
    directory: string,
    known: KnownContent,
    room: IngestRoom,
    limits = DEFAULT_TREE_LIMITS,
    disk: DiskNow = realDisk.now,
    shape: TreeShape = {},
  ): Promise<Ingest> {
    return new Ingest(await BlobSink.create(directory, known, room, disk), room, limits, shape)
  }

  entry(found: ArchiveEntry): void {
    if (this.#current) throw new Error('an entry began before the content of the last one was complete')
    const entry = this.#layers === 0 ? found : this.#inLayer(found)
    this.#noteOwner(entry)
    if (entry.type === 'hardlink') {
      this.#addHardLink(entry)
      return
    }
    const index = this.#place(entry)
    if (entry.type !== 'file') return
    this.#room.claim(roomFor(entry.size))
    const isAccountFile = ACCOUNT_FILE.test(entry.path) && this.#accountFiles.size < MAX_ACCOUNT_FILES
    this.#current = {
      entry: index,
      path: entry.path,
      account: isAccountFile && entry.size <= MAX_ACCOUNT_FILE ? [] : undefined,
    }
    this.#toCome = entry.size
    this.#blobs.begin(entry.size)
    if (entry.size === 0) this.#endFile()
  }

  data(chunk: Uint8Array): void {
    if (!this.#current || chunk.length > this.#toCome)
      throw new Error('more content than the entry announced')
    this.#current.account?.push(Uint8Array.from(chunk))
    this.#blobs.append(chunk)
    this.#toCome -= chunk.length
    if (this.#toCome === 0) this.#endFile()
  }

  /** Seals everything. When this returns the packs are durable. */
  finish(): IngestResult {
    if (this.#current) throw new ArchiveError(`the archive ends within ${showBytes(this.#current.path)}`)
    this.#dateImplied()
    const merged = this.#merged()
    const find = finder(merged)
    const root = rootOf(this.#shape, merged, find)
    this.#addAccountNames(root)
    const { packs, packBytes } = this.#blobs.seal()
    const { entries, blobs } = this.#shaped(merged, root, find)
    return {
      packs,
      packBytes,
      reusedBytes: this.#blobs.reusedBytes,
      entries: entries.length,
      uniformMtime: uniformMtime(entries),
      manifest: encodeManifest({
        entries,
        blobs,
        userNames: this.#userNames,
        groupNames: this.#groupNames,
      }),
    }
  }

  /** The entry where its layer lies. A hard link may name what only a lower layer has. */
  #inLayer(entry: ArchiveEntry): ArchiveEntry {
    const within = (layer: number, path: ByteString): ByteString =>
      (path === '' ? layerDirectory(layer) : `${layerDirectory(layer)}/${path}`) as ByteString
    const path = within(this.#layers - 1, entry.path)
    if (entry.type !== 'hardlink') return { ...entry, path }
    let layer = this.#layers - 1
    while (layer > 0 && !this.#byPath.has(within(layer, entry.linkTarget))) layer--
    return { ...entry, path, linkTarget: within(layer, entry.linkTarget) }
  }

  /** Begins the next layer of an image: what is read from here on lies on what was read before. */
  nextLayer(): void {
    this.#layers++
  }

  /** The entries, of all layers together. */
  #merged(): readonly TreeEntry[] {
    if (this.#layers === 0) return this.#entries
    const merged = mergeLayers(this.#entries, this.#layers, (entry) => this.#implied.has(entry))
    return merged.map(({ entry, parent, name }) => ({
      ...this.#entries[entry]!,
      parent,
      name,
      sameAs: this.#firstOf(entry),
    }))
  }

  /** Names of one file are told by the entry that came first, wherever that went. */
  #firstOf(entry: number): number {
    const { sameAs, mode } = this.#entries[entry]!
    return isDirectoryMode(mode) ? -1 : sameAs >= 0 ? sameAs : entry
  }

  #shaped(
    entries: readonly TreeEntry[],
    root: ByteString,
    find: (path: ByteString) => number | undefined,
  ): Tree {
    const tree = { entries, blobs: this.#blobs.table() }
    const isPlain = Object.values(this.#shape).every((value) => value === undefined || value === false)
    if (isPlain && this.#layers === 0) return tree
    const hasPristine = find('versions/pristine' as ByteString) !== undefined
    return shapeTree(tree, this.#shape, find(root)!, hasPristine)
  }

  /** Lets go of open files after an error. Whoever gave us the directory removes it. */
  abort(): void {
    this.#blobs.close()
  }

  #endFile(): void {
    const { entry, path, account } = this.#current!
    this.#current = undefined
    this.#entries[entry]!.blob = this.#blobs.end()
    if (account) this.#accountFiles.set(path, Buffer.concat(account))
  }

  // -------------------------------------------------------------------------------------------------
  // The tree.

  /** Enters an entry, or completes the directory that was implied before. Returns its index. */
  #place(entry: ArchiveEntry): number {
    const { path } = entry
    const known = this.#byPath.get(path)
    if (known !== undefined) {
      if (!this.#implied.delete(known)) throw refused(path, 'is in the archive twice')
      if (entry.type !== 'directory')
        throw refused(path, `is a ${entry.type}, but other entries lie below it`)
      const { parent } = this.#entries[known]!
      this.#entries[known] = { ...this.#describe(entry), parent, name: nameOf(path) }
      return known
    }
    const parent = this.#parentOf(path)
    return this.#addEntry({ ...this.#describe(entry), parent, name: nameOf(path) }, path)
  }

  #describe(entry: ArchiveEntry): Omit<TreeEntry, 'parent' | 'name'> {
    const { xattrs, newBytes } = this.#xattrs.intern(entry.xattrs)
    if (newBytes > 0) this.#countMetadata(newBytes, entry.path)
    return { ...describe(entry), xattrs }
  }

  /** A small archive can describe very much: what it makes us remember is bounded. */
  #countMetadata(bytes: number, path: ByteString): void {
    this.#metadataBytes += bytes
    const { maxMetadataBytes } = this.#limits
    if (this.#metadataBytes > maxMetadataBytes) {
      throw refused(
        path,
        `takes paths, links, attributes and owners beyond the ${formatSize(maxMetadataBytes)} that we take`,
      )
    }
  }

  #addHardLink({ path, linkTarget }: ArchiveEntry): void {
    if (path === linkTarget) throw refused(path, 'is a hard link to itself')
    const target = this.#byPath.get(linkTarget)
    if (target === undefined) {
      throw refused(path, `is a hard link to ${showBytes(linkTarget)}, which is not in the archive before it`)
    }
    const first = this.#entries[target]!
    if (isDirectoryMode(first.mode))
      throw refused(path, `is a hard link to the directory ${showBytes(linkTarget)}`)
    if (this.#byPath.has(path)) throw refused(path, 'is in the archive twice')
    const sameAs = first.sameAs >= 0 ? first.sameAs : target
    this.#addEntry({ ...first, parent: this.#parentOf(path), name: nameOf(path), sameAs }, path)
  }

  /** The directory that `path` lies in, implied with all above it where the archive has not described it. */
  #parentOf(path: ByteString): number {
    const cut = path.lastIndexOf('/')
    const parentPath = (cut < 0 ? '' : path.slice(0, cut)) as ByteString
    const known = this.#byPath.get(parentPath)
    if (known !== undefined) {
      if (!isDirectoryMode(this.#entries[known]!.mode)) {
        throw refused(path, `lies below ${showBytes(parentPath)}, which is not a directory`)
      }
      return known
    }
    // Recursion ends at the root, and is no deeper than a path of 4095 bytes can be.
    if (path.length > MAX_PATH_BYTES) throw refused(path, `has a path of ${path.length} bytes`)
    const parent = this.#parentOf(parentPath)
    const index = this.#addEntry(impliedDirectory(nameOf(parentPath), parent), parentPath)
    this.#implied.add(index)
    return index
  }

  #addEntry(entry: TreeEntry, path: ByteString): number {
    const { maxEntries, maxDepth } = this.#limits
    if (path.length > MAX_PATH_BYTES) throw refused(path, `has a path of ${path.length} bytes`)
    if (entry.name.length > MAX_COMPONENT_BYTES)
      throw refused(path, `has a name of ${entry.name.length} bytes`)
    if (depthOf(path) > maxDepth) throw refused(path, `lies more than ${maxDepth} directories deep`)
    if (this.#entries.length >= maxEntries)
      throw refused(path, `is one entry more than the ${maxEntries} we take`)
    this.#countMetadata(path.length + entry.linkTarget.length, path)
    this.#byPath.set(path, this.#entries.length)
    return this.#entries.push(entry) - 1
  }

  /** Children come behind their parents, so going backwards every directory's children are dated before it. */
  #dateImplied(): void {
    if (this.#implied.size === 0) return
    const newer = (a: TreeEntry, b: TreeEntry) => a.mtime - b.mtime || a.mtimeNsec - b.mtimeNsec
    const dated = new Set<number>()
    for (let i = this.#entries.length - 1; i > 0; i--) {
      const entry = this.#entries[i]!
      if (!this.#implied.has(entry.parent)) continue
      const parent = this.#entries[entry.parent]!
      if (dated.has(entry.parent) && newer(entry, parent) <= 0) continue
      dated.add(entry.parent)
      parent.mtime = entry.mtime
      parent.mtimeNsec = entry.mtimeNsec
    }
  }

  // -------------------------------------------------------------------------------------------------
  // Owners' names.

  #noteOwner({ uid, gid, userName, groupName, path }: ArchiveEntry): void {
    this.#nameOwner(this.#userNames, uid, userName, path)
    this.#nameOwner(this.#groupNames, gid, groupName, path)
  }

  #nameOwner(
    names: Map<number, ByteString>,
    id: number,
    name: ByteString | undefined,
    path: ByteString,
  ): void {
    if (!name || name.length > MAX_OWNER_NAME_BYTES || names.has(id) || names.size >= MAX_OWNER_NAMES) return
    this.#countMetadata(name.length, path)
    names.set(id, name)
  }

  /** Of the uppermost layer that has it. */
  #accountFile(path: ByteString): Uint8Array | undefined {
    if (this.#layers === 0) return this.#accountFiles.get(path)
    for (let layer = this.#layers - 1; layer >= 0; layer--) {
      const found = this.#accountFiles.get(`${layerDirectory(layer)}/${path}` as ByteString)
      if (found) return found
    }
    return undefined
  }

  #addAccountNames(root: ByteString): void {
    const below = root === '' ? '' : `${root}/`
    const [passwd, group] = [`${below}etc/passwd`, `${below}etc/group`] as ByteString[]
    const users = parseAccounts(this.#accountFile(passwd!))
    const groups = parseAccounts(this.#accountFile(group!))
    for (const { uid, gid } of this.#entries) {
      this.#nameOwner(this.#userNames, uid, users.get(uid), passwd!)
      this.#nameOwner(this.#groupNames, gid, groups.get(gid), group!)
    }
  }
}

/** Extended attributes, each distinct set once: a global header of an archive repeats them with every entry. */
class XattrSets {
  readonly #keys = new XattrKeys()
  readonly #byMap = new WeakMap<ReadonlyMap<ByteString, Uint8Array>, readonly Xattr[]>()
  readonly #byContent = new Map<string, readonly Xattr[]>()

  /** The set for an entry, and how many bytes of memory it takes that equal ones have not taken before. */
  intern(map: ArchiveEntry['xattrs']): { xattrs: readonly Xattr[]; newBytes: number } {
    if (!map || map.size === 0) return { xattrs: NO_XATTRS, newBytes: 0 }
    const known = this.#byMap.get(map)
    if (known) return { xattrs: known, newBytes: 0 }
    const lent = [...map]
      .map(([name, value]) => ({ name, value }))
      .sort((a, b) => compareBytes(a.name, b.name))
    const key = this.#keys.of(lent)
    const equal = this.#byContent.get(key)
    // Copied, as a value may be a small piece of something large.
    const xattrs = equal ?? lent.map(({ name, value }) => ({ name, value: Uint8Array.from(value) }))
    this.#byMap.set(map, xattrs)
    if (equal) return { xattrs, newBytes: 0 }
    this.#byContent.set(key, xattrs)
    const newBytes = xattrs.reduce((sum, { name, value }) => sum + name.length + value.length, key.length)
    return { xattrs, newBytes }
  }
}

/** Everything about an entry but its place in the tree and its extended attributes. */
function describe(entry: ArchiveEntry): Omit<TreeEntry, 'parent' | 'name' | 'xattrs'> {
  const { type, uid, gid, mtime, mtimeNsec, linkTarget } = entry
  const isDevice = type === 'char-device' || type === 'block-device'
  return {
    mode: modeOfType(type as FileType) | (entry.mode & PERMISSION_MASK),
    uid,
    gid,
    size: type === 'file' ? entry.size : type === 'symlink' ? linkTarget.length : 0,
    mtime,
    mtimeNsec,
    major: isDevice ? entry.major : 0,
    minor: isDevice ? entry.minor : 0,
    linkTarget: type === 'symlink' ? linkTarget : ROOT,
    sameAs: -1,
    blob: -1,
  }
}

function impliedDirectory(name: ByteString, parent: number): TreeEntry {
  return {
    parent,
    name,
    mode: DIRECTORY | 0o755,
    uid: 0,
    gid: 0,
    size: 0,
    mtime: 0,
    mtimeNsec: 0,
    major: 0,
    minor: 0,
    linkTarget: ROOT,
    sameAs: -1,
    xattrs: NO_XATTRS,
    blob: -1,
  }
}

/** Lines of passwd(5) or group(5): name, password, id. The first name of an id wins. */
function parseAccounts(content: Uint8Array | undefined): Map<number, ByteString> {
  const names = new Map<number, ByteString>()
  if (!content) return names
  for (const line of byteString(content).split('\n')) {
    const [name, , id] = line.split(':')
    if (name && id && /^\d{1,10}$/.test(id) && !names.has(Number(id)))
      names.set(Number(id), name as ByteString)
  }
  return names
}

function nameOf(path: ByteString): ByteString {
  return path.slice(path.lastIndexOf('/') + 1) as ByteString
}

function depthOf(path: ByteString): number {
  if (path === '') return 0
  let depth = 1
  for (let at = path.indexOf('/'); at >= 0; at = path.indexOf('/', at + 1)) depth++
  return depth
}

function refused(path: ByteString, why: string): ArchiveError {
  return new ArchiveError(`entry ${path === '' ? '(the root)' : showBytes(path)} ${why}`, {
    hint: 'The archive is broken or was made to do harm; nothing of it was kept.',
  })
}
