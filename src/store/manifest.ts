/**
 * Manifest: the sealed description of one build's tree. Immutable, columnar, shared by all sessions.
 *
 *     16 bytes   magic 'upserv-tree\0', version u32
 *      8 bytes   header length u32, reserved u32 (0)
 *     ...        header: JSON, padded with spaces to a multiple of 8; lists the columns
 *     ...        columns, each at a multiple of 8 behind the header; little-endian
 *     32 bytes   seal: SHA-256 of everything above
 *
 * Columns and not records, so that loading is one read, one digest and a typed-array view per column:
 * 40,000 entries cost milliseconds and no objects. A column that is all zero is left out (heaps of bytes
 * are not); columns that this version doesn't know are ignored. docs/store-format.md lists them all.
 *
 * Order of entries: 0 is the root. The children of a directory are contiguous. The root is followed by
 * the block of its children; then comes, for each child directory in order, its own block and everything
 * below it. Within a block: first what is no directory, by the bytes of the name, then directories, by the
 * bytes of name + '/'. That is rsync's order since protocol 29, so storage order can be sent as it is.
 *
 * A file without content has a blob too (of length 0, which no pack holds), so that every regular file
 * has digests and there is no special case.
 */
import { constants } from 'node:buffer'
import { createHash, hash } from 'node:crypto'
import { endianness } from 'node:os'
import { z } from 'zod'
import { StoreCorrupt, StoreError, StoreFormat } from '../errors.ts'
import { asBuffer, type ByteString, byteString, compareBytes } from '../lib/bytes.ts'
import { type Disk, realDisk } from '../lib/disk.ts'
import {
  BLOCK_DEVICE,
  CHAR_DEVICE,
  DIRECTORY,
  isDirectoryMode,
  REGULAR,
  SYMLINK,
  TYPE_MASK,
} from '../lib/file-mode.ts'
import { pacedUpdate } from '../lib/pacer.ts'
import { DIGEST_BYTES } from './pack.ts'

const MAGIC = 'upserv-tree\0'
const VERSION = 1
const PREFIX_BYTES = 24
const SEAL_BYTES = 32
const MD5_BYTES = 16
const XXH128_BYTES = 16

export interface Xattr {
  /** Full name, "user.foo". */
  readonly name: ByteString
  readonly value: Uint8Array
}

export interface TreeTotals {
  /** All entries, the root included. */
  entries: number
  files: number
  directories: number
  symlinks: number
  devices: number
  /** Fifos and sockets. */
  specials: number
  /** Content of all regular files; names of one hard-linked file count once. */
  bytes: number
  /** Content of the distinct blobs. */
  blobBytes: number
}

// ---------------------------------------------------------------------------------------------------
// Columns.

type ColumnType = 'u8' | 'u16' | 'u32' | 'i32' | 'f64'
type ColumnArray = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array

/** Every column that this version writes. `*Start` columns have one element more than there are things. */
const COLUMNS = {
  nameStart: 'u32',
  names: 'u8',
  parent: 'u32',
  firstChild: 'u32',
  childCount: 'u32',
  mode: 'u16',
  uid: 'u32',
  gid: 'u32',
  size: 'f64',
  mtime: 'f64',
  mtimeNsec: 'u32',
  major: 'u32',
  minor: 'u32',
  linkStart: 'u32',
  links: 'u8',
  linkGroup: 'u32',
  blob: 'i32',
  xattrSet: 'u32',
  xattrSetStart: 'u32',
  xattrNameStart: 'u32',
  xattrNames: 'u8',
  xattrValueStart: 'u32',
  xattrValues: 'u8',
  blobSize: 'f64',
  blobSha256: 'u8',
  blobMd5: 'u8',
  blobXxh128: 'u8',
} as const satisfies Record<string, ColumnType>

type ColumnName = keyof typeof COLUMNS
interface Arrays {
  u8: Uint8Array
  u16: Uint16Array
  u32: Uint32Array
  i32: Int32Array
  f64: Float64Array
}
type Columns = { [Name in ColumnName]: Arrays[(typeof COLUMNS)[Name]] }

const ARRAYS = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, i32: Int32Array, f64: Float64Array }

const COUNT = z.int().nonnegative()
/** Names as JSON strings of one character per byte. */
const OWNER_NAMES = z.array(z.tuple([COUNT, z.string().regex(/^[\x00-\xff]*$/)]))

const HEADER = z.object({
  entries: COUNT,
  blobs: COUNT,
  xattrSets: COUNT,
  xattrs: COUNT,
  totals: z.object({
    entries: COUNT,
    files: COUNT,
    directories: COUNT,
    symlinks: COUNT,
    devices: COUNT,
    specials: COUNT,
    bytes: COUNT,
    blobBytes: COUNT,
  }) satisfies z.ZodType<TreeTotals>,
  userNames: OWNER_NAMES,
  groupNames: OWNER_NAMES,
  /** `offset` counts from the first byte behind the header; `length` is in bytes. */
  columns: z.array(z.object({ name: z.string(), type: z.string(), offset: COUNT, length: COUNT })),
})
type Header = z.infer<typeof HEADER>

/** How many elements a column must have; undefined for heaps, whose length the Start column tells. */
function elementsOf(name: ColumnName, { entries, blobs, xattrSets, xattrs }: Header): number | undefined {
  switch (name) {
    case 'names':
    case 'links':
    case 'xattrNames':
    case 'xattrValues':
      return undefined
    case 'nameStart':
    case 'linkStart':
      return entries + 1
    case 'xattrSetStart':
      return xattrSets + 1
    case 'xattrNameStart':
    case 'xattrValueStart':
      return xattrs + 1
    case 'blobSize':
      return blobs
    case 'blobSha256':
      return blobs * DIGEST_BYTES
    case 'blobMd5':
      return blobs * MD5_BYTES
    case 'blobXxh128':
      return blobs * XXH128_BYTES
    default:
      return entries
  }
}

// ---------------------------------------------------------------------------------------------------
// Reading.

export class Manifest {
  /** Number of entries, the root included. */
  readonly count: number
  readonly blobCount: number
  readonly totals: Readonly<TreeTotals>
  readonly userNames: ReadonlyMap<number, ByteString>
  readonly groupNames: ReadonlyMap<number, ByteString>
  /** The seal in hex: names this tree for ever. */
  readonly seal: string
  /** Memory that this manifest takes, roughly: what a cache should count. */
  readonly byteLength: number
  readonly #columns: Columns
  readonly #names: ByteString
  readonly #xattrSets: (readonly Xattr[])[] = []

  private constructor(header: Header, columns: Columns, seal: Uint8Array, byteLength: number) {
    this.count = header.entries
    this.blobCount = header.blobs
    this.totals = header.totals
    this.userNames = new Map(header.userNames as [number, ByteString][])
    this.groupNames = new Map(header.groupNames as [number, ByteString][])
    this.seal = asBuffer(seal).toString('hex')
    this.#columns = columns
    // One string for all names: cutting a piece out of it is cheaper than decoding bytes each time.
    this.#names = byteString(columns.names)
    this.byteLength = byteLength + columns.names.length
  }

  /** Checks the seal and opens the columns. @throws StoreCorrupt, or StoreFormat for another version. */
  static decode(bytes: Uint8Array): Manifest {
    checkFraming(bytes)
    return Manifest.#open(bytes, createHash('sha256').update(sealed(bytes)).digest())
  }

  /** As `decode`, for a file; the digest is computed a slice at a time. */
  static async load(path: string, disk: Disk = realDisk): Promise<Manifest> {
    const bytes = await disk.readFile(path)
    try {
      checkFraming(bytes)
      const sha256 = createHash('sha256')
      await pacedUpdate(sha256, sealed(bytes))
      return Manifest.#open(bytes, sha256.digest())
    } catch (error) {
      throw about(path, error)
    }
  }

  static #open(bytes: Uint8Array, digest: Uint8Array): Manifest {
    const seal = bytes.slice(bytes.length - SEAL_BYTES)
    if (!asBuffer(seal).equals(digest)) throw new StoreCorrupt('manifest does not match its seal')
    const { header, dataStart } = decodeHeader(bytes, bytes.length)
    const columns = openColumns(aligned(bytes), header, dataStart)
    return new Manifest(header, columns, seal, bytes.length)
  }

  /** One path component; the root's is ''. */
  name(i: number): ByteString {
    const starts = this.#columns.nameStart
    return this.#names.substring(starts[i]!, starts[i + 1]!) as ByteString
  }
  /** The root is its own parent. */
  parent(i: number): number {
    return this.#columns.parent[i]!
  }
  firstChild(i: number): number {
    return this.#columns.firstChild[i]!
  }
  childCount(i: number): number {
    return this.#columns.childCount[i]!
  }
  /** Type and permissions, the 16 bits of Unix. */
  mode(i: number): number {
    return this.#columns.mode[i]!
  }
  isDirectory(i: number): boolean {
    return isDirectoryMode(this.mode(i))
  }
  uid(i: number): number {
    return this.#columns.uid[i]!
  }
  gid(i: number): number {
    return this.#columns.gid[i]!
  }
  /** Bytes of a regular file; of a symlink those of its target; else 0. */
  size(i: number): number {
    return this.#columns.size[i]!
  }
  /** Whole seconds since 1970, may be negative. */
  mtime(i: number): number {
    return this.#columns.mtime[i]!
  }
  /** Nanoseconds above `mtime`. */
  mtimeNsec(i: number): number {
    return this.#columns.mtimeNsec[i]!
  }
  major(i: number): number {
    return this.#columns.major[i]!
  }
  minor(i: number): number {
    return this.#columns.minor[i]!
  }
  /** '' for all but symlinks. */
  linkTarget(i: number): ByteString {
    const starts = this.#columns.linkStart
    return byteString(this.#columns.links, starts[i]!, starts[i + 1]!)
  }
  /** 0, or a number from 1 that all names of one hard-linked file share, at least two. */
  linkGroup(i: number): number {
    return this.#columns.linkGroup[i]!
  }
  /** By bytes of the name. */
  xattrs(i: number): readonly Xattr[] {
    const set = this.#columns.xattrSet[i]!
    if (set === 0) return NO_XATTRS
    this.#xattrSets[set] ??= this.#decodeXattrs(set - 1)
    return this.#xattrSets[set]
  }
  /** Number of a regular file's blob; -1 for everything else. */
  blob(i: number): number {
    return this.#columns.blob[i]!
  }

  blobSize(b: number): number {
    return this.#columns.blobSize[b]!
  }
  /** SHA-256, the blob's name. A view: do not change it. */
  blobDigest(b: number): Uint8Array {
    return this.#columns.blobSha256.subarray(b * DIGEST_BYTES, (b + 1) * DIGEST_BYTES)
  }
  blobMd5(b: number): Uint8Array {
    return this.#columns.blobMd5.subarray(b * MD5_BYTES, (b + 1) * MD5_BYTES)
  }
  /** In rsync's layout: the low 64 bits little-endian, then the high ones. */
  blobXxh128(b: number): Uint8Array {
    return this.#columns.blobXxh128.subarray(b * XXH128_BYTES, (b + 1) * XXH128_BYTES)
  }

  /** The entry of that name in a directory, or -1. */
  child(directory: number, name: ByteString): number {
    const first = this.firstChild(directory)
    const end = first + this.childCount(directory)
    let firstDirectory = first
    for (let high = end; firstDirectory < high; ) {
      const middle = (firstDirectory + high) >>> 1
      if (this.isDirectory(middle)) high = middle
      else firstDirectory = middle + 1
    }
    const file = this.#search(first, firstDirectory, name, '')
    return file >= 0 ? file : this.#search(firstDirectory, end, name, '/')
  }

  /** Path below the root, without a leading '/'; the root's is ''. */
  path(i: number): ByteString {
    let path: string = this.name(i)
    for (let at = this.parent(i); at !== 0; at = this.parent(at)) path = `${this.name(at)}/${path}`
    return path as ByteString
  }

  #search(first: number, end: number, name: ByteString, suffix: '' | '/'): number {
    const key = (name + suffix) as ByteString
    let low = first
    let high = end
    while (low < high) {
      const middle = (low + high) >>> 1
      const order = compareBytes((this.name(middle) + suffix) as ByteString, key)
      if (order === 0) return middle
      if (order < 0) low = middle + 1
      else high = middle
    }
    return -1
  }

  #decodeXattrs(set: number): Xattr[] {
    const { xattrSetStart, xattrNameStart, xattrNames, xattrValueStart, xattrValues } = this.#columns
    const xattrs: Xattr[] = []
    for (let i = xattrSetStart[set]!; i < xattrSetStart[set + 1]!; i++) {
      xattrs.push({
        name: byteString(xattrNames, xattrNameStart[i]!, xattrNameStart[i + 1]!),
        value: xattrValues.subarray(xattrValueStart[i]!, xattrValueStart[i + 1]!),
      })
    }
    return xattrs
  }
}

const NO_XATTRS: readonly Xattr[] = []

/**
 * Only the blobs that a build needs: their digests (32 bytes each) and sizes, without reading the rest of
 * its manifest. For marking, where thousands of builds pass by. The seal is not checked: a rotten digest
 * can cost this build a blob, and this build alone, which is lost with such a manifest anyway.
 */
export async function readManifestBlobs(
  path: string,
  disk: Disk = realDisk,
): Promise<{ digests: Uint8Array; sizes: Float64Array }> {
  const handle = await disk.open(path, 'r')
  const read = async (position: number, length: number) => {
    const bytes = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      const { bytesRead } = await handle.read(bytes, done, length - done, position + done)
      if (bytesRead === 0) throw new StoreCorrupt('manifest is cut short')
      done += bytesRead
    }
    return bytes
  }
  try {
    const { size } = await handle.stat()
    // One read gets the header of nearly every build.
    const start = await read(0, Math.min(size, 32 * 1024))
    const needed = checkPrefix(start, size)
    const head = needed <= start.length ? start : await read(0, needed)
    const { header, dataStart } = decodeHeader(head, size)
    const column = async (name: ColumnName) => {
      const found = header.columns.find((column) => column.name === name)
      if (!found) return new Uint8Array(elementBytes(name, header))
      checkColumn(name, found, header, size - SEAL_BYTES - dataStart)
      return await read(dataStart + found.offset, found.length)
    }
    const digests = await column('blobSha256')
    return { digests, sizes: new Float64Array((await column('blobSize')).buffer) }
  } catch (error) {
    throw about(path, error)
  } finally {
    await handle.close()
  }
}

/** The seal of a manifest, in hex, without reading the rest. Whether it is right is not looked at. */
export async function readSeal(path: string, disk: Disk = realDisk): Promise<string> {
  const file = await disk.open(path, 'r')
  try {
    const { size } = await file.stat()
    const seal = Buffer.alloc(SEAL_BYTES)
    const { bytesRead } = await file.read(seal, 0, SEAL_BYTES, Math.max(0, size - SEAL_BYTES))
    if (bytesRead !== SEAL_BYTES) throw new StoreCorrupt(`${path} is cut short`)
    return seal.toString('hex')
  } finally {
    await file.close()
  }
}

/** Checks magic, version and the header's length; returns where the columns begin. */
function checkPrefix(bytes: Uint8Array, fileSize: number): number {
  if (endianness() !== 'LE') throw new StoreError('manifests are only read on little-endian machines')
  const buffer = asBuffer(bytes)
  if (buffer.length < PREFIX_BYTES || buffer.toString('latin1', 0, 12) !== MAGIC) {
    throw new StoreCorrupt('manifest does not begin as one does')
  }
  const version = buffer.readUInt32LE(12)
  if (version !== VERSION)
    throw new StoreFormat(`manifest has version ${version}; this program reads ${VERSION}`)
  const dataStart = PREFIX_BYTES + buffer.readUInt32LE(16)
  if (dataStart % 8 !== 0 || dataStart > fileSize - SEAL_BYTES)
    throw new StoreCorrupt('manifest is cut short')
  return dataStart
}

/** Before its digest is computed: is this a manifest of ours at all, and does the version fit? */
function checkFraming(bytes: Uint8Array): void {
  checkPrefix(bytes, bytes.length)
}

function sealed(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.subarray(0, bytes.length - SEAL_BYTES) as Uint8Array<ArrayBuffer>
}

/** Nothing of a header is believed before its shape was checked, and its counts against the file's size. */
function decodeHeader(bytes: Uint8Array, fileSize: number): { header: Header; dataStart: number } {
  const dataStart = PREFIX_BYTES + asBuffer(bytes).readUInt32LE(16)
  try {
    const header = HEADER.parse(JSON.parse(asBuffer(bytes).toString('utf8', PREFIX_BYTES, dataStart)))
    // Each of these columns is in the file if there is more than one of its things: it is not all zero.
    const smallest = {
      entries: (header.entries + 1) * 4,
      blobs: header.blobs * DIGEST_BYTES,
      xattrSets: (header.xattrSets + 1) * 4,
      xattrs: (header.xattrs + 1) * 4,
    }
    for (const [things, needed] of Object.entries(smallest)) {
      if (needed > fileSize) throw new Error(`${fileSize} bytes cannot hold so many ${things}`)
    }
    return { header, dataStart }
  } catch (cause) {
    const why = cause instanceof z.ZodError ? z.prettifyError(cause) : (cause as Error).message
    throw new StoreCorrupt(`manifest has a bad header: ${why}`, { cause })
  }
}

function elementBytes(name: ColumnName, header: Header): number {
  return (elementsOf(name, header) ?? 0) * ARRAYS[COLUMNS[name]].BYTES_PER_ELEMENT
}

function checkColumn(
  name: ColumnName,
  column: Header['columns'][number],
  header: Header,
  dataBytes: number,
): void {
  const { type, offset, length } = column
  const expected = elementsOf(name, header) === undefined ? length : elementBytes(name, header)
  const inside =
    Number.isSafeInteger(offset) && offset >= 0 && offset % 8 === 0 && length <= dataBytes - offset
  if (type !== COLUMNS[name] || length !== expected || !inside) {
    throw new StoreCorrupt(`manifest has a bad column "${name}": ${length} bytes of ${type} at ${offset}`)
  }
}

function openColumns(bytes: Uint8Array, header: Header, dataStart: number): Columns {
  const found = new Map(header.columns.map((column) => [column.name, column]))
  const columns: Record<string, ColumnArray> = {}
  for (const name of Object.keys(COLUMNS) as ColumnName[]) {
    const column = found.get(name)
    const ArrayType = ARRAYS[COLUMNS[name]]
    if (column) {
      checkColumn(name, column, header, bytes.length - SEAL_BYTES - dataStart)
      const elements = column.length / ArrayType.BYTES_PER_ELEMENT
      columns[name] = new ArrayType(
        bytes.buffer as ArrayBuffer,
        bytes.byteOffset + dataStart + column.offset,
        elements,
      )
    } else {
      columns[name] = new ArrayType(elementsOf(name, header) ?? 0)
    }
  }
  const opened = columns as unknown as Columns
  checkXattrStarts(opened)
  return opened
}

/**
 * Who shares attributes shares a set of them, so that a table that says less than it should costs little. Where pieces
 * overlapped, a small file of somebody who lies would stand for more attributes than there is memory.
 */
function checkXattrStarts(columns: Columns): void {
  const { xattrSetStart, xattrNameStart, xattrValueStart, xattrNames, xattrValues } = columns
  const most = {
    xattrSetStart: Math.max(0, xattrNameStart.length - 1),
    xattrNameStart: xattrNames.length,
    xattrValueStart: xattrValues.length,
  }
  for (const [name, starts] of Object.entries({ xattrSetStart, xattrNameStart, xattrValueStart })) {
    for (let i = 0; i < starts.length; i++) {
      const next = i + 1 < starts.length ? starts[i + 1]! : most[name as keyof typeof most]
      if (starts[i]! > next)
        throw new StoreCorrupt(`manifest has a bad column "${name}": ${starts[i]} comes before ${next}`)
    }
  }
}

/** Typed arrays need their offset in memory to be a multiple of 8. */
function aligned(bytes: Uint8Array): Uint8Array {
  return bytes.byteOffset % 8 === 0 ? bytes : Uint8Array.from(bytes)
}

/** Errors of the file system stay as they are. All others say that the file is not what we wrote. */
function about(path: string, error: unknown): unknown {
  if (error instanceof StoreError)
    return new (error.constructor as typeof StoreError)(`${path}: ${error.message}`, { cause: error })
  if (error instanceof Error && 'syscall' in error) return error
  return new StoreCorrupt(`${path}: ${(error as Error).message}`, { cause: error })
}

// ---------------------------------------------------------------------------------------------------
// Writing.

/** One entry of a tree that is to be sealed, in any order that has parents before their children. */
export interface TreeEntry {
  /** Index of the directory that holds it. The root is entry 0 and holds itself. */
  parent: number
  name: ByteString
  mode: number
  uid: number
  gid: number
  size: number
  mtime: number
  mtimeNsec: number
  major: number
  minor: number
  linkTarget: ByteString
  /** Index of the entry whose further hard-linked name this is; -1 for first names. */
  sameAs: number
  /** By bytes of the name. Entries with equal attributes best share one array. */
  xattrs: readonly Xattr[]
  /** Number in the blob table, or -1. */
  blob: number
}

/** The distinct contents of a tree, by blob number: 32, 16 and 16 bytes each. */
export interface BlobTable {
  count: number
  sizes: ArrayLike<number>
  sha256: Uint8Array
  md5: Uint8Array
  xxh128: Uint8Array
}

export interface TreeInput {
  entries: readonly TreeEntry[]
  blobs: BlobTable
  userNames: ReadonlyMap<number, ByteString>
  groupNames: ReadonlyMap<number, ByteString>
}

/** Seals a tree. Takes a second or two for 500,000 entries: worker threads only. */
export function encodeManifest(tree: TreeInput): Uint8Array<ArrayBuffer> {
  const { entries, blobs } = tree
  const { order, firstChild, childCount } = transmissionOrder(entries)
  const count = entries.length
  const place = new Uint32Array(count)
  for (let i = 0; i < count; i++) place[order[i]!] = i

  const names = new Heap(count)
  const links = new Heap(count)
  const xattrs = new XattrTable()
  const groups = linkGroups(entries, order)
  const columns: Columns = {
    nameStart: names.starts,
    names: NO_BYTES,
    parent: new Uint32Array(count),
    firstChild: new Uint32Array(count),
    childCount: new Uint32Array(count),
    mode: new Uint16Array(count),
    uid: new Uint32Array(count),
    gid: new Uint32Array(count),
    size: new Float64Array(count),
    mtime: new Float64Array(count),
    mtimeNsec: new Uint32Array(count),
    major: new Uint32Array(count),
    minor: new Uint32Array(count),
    linkStart: links.starts,
    links: NO_BYTES,
    linkGroup: groups,
    blob: new Int32Array(count),
    xattrSet: new Uint32Array(count),
    xattrSetStart: NO_NUMBERS,
    xattrNameStart: NO_NUMBERS,
    xattrNames: NO_BYTES,
    xattrValueStart: NO_NUMBERS,
    xattrValues: NO_BYTES,
    blobSize: Float64Array.from({ length: blobs.count }, (_, b) => blobs.sizes[b]!),
    blobSha256: blobs.sha256.subarray(0, blobs.count * DIGEST_BYTES),
    blobMd5: blobs.md5.subarray(0, blobs.count * MD5_BYTES),
    blobXxh128: blobs.xxh128.subarray(0, blobs.count * XXH128_BYTES),
  }
  for (let i = 0; i < count; i++) {
    const from = order[i]!
    const entry = entries[from]!
    names.push(entry.name)
    links.push(entry.linkTarget)
    columns.parent[i] = place[entry.parent]!
    columns.firstChild[i] = firstChild[from]!
    columns.childCount[i] = childCount[from]!
    columns.mode[i] = entry.mode
    columns.uid[i] = entry.uid
    columns.gid[i] = entry.gid
    columns.size[i] = entry.size
    columns.mtime[i] = entry.mtime
    columns.mtimeNsec[i] = entry.mtimeNsec
    columns.major[i] = entry.major
    columns.minor[i] = entry.minor
    columns.blob[i] = entry.blob
    columns.xattrSet[i] = xattrs.add(entry.xattrs)
  }
  columns.names = names.bytes()
  columns.links = links.bytes()
  Object.assign(columns, xattrs.columns())
  return assemble(columns, {
    entries: count,
    blobs: blobs.count,
    xattrSets: xattrs.sets,
    xattrs: xattrs.count,
    totals: totalsOf(entries, blobs),
    userNames: [...tree.userNames],
    groupNames: [...tree.groupNames],
    columns: [],
  })
}

/** Where each entry goes: `order[i]` is the entry that comes i-th; `firstChild` is by entry, in new places. */
function transmissionOrder(entries: readonly TreeEntry[]) {
  const count = entries.length
  const childCount = new Uint32Array(count)
  for (let i = 1; i < count; i++) childCount[entries[i]!.parent]!++
  // All children grouped by parent: `children` from `start[p]` on.
  const start = new Uint32Array(count + 1)
  for (let i = 0; i < count; i++) start[i + 1] = start[i]! + childCount[i]!
  const children = new Uint32Array(Math.max(0, count - 1))
  const filled = start.slice()
  for (let i = 1; i < count; i++) children[filled[entries[i]!.parent]!++] = i

  const order = new Uint32Array(count)
  const firstChild = new Uint32Array(count)
  let next = count > 0 ? 1 : 0
  const stack = count > 0 ? [0] : []
  while (stack.length > 0) {
    const directory = stack.pop()!
    const files: number[] = []
    const directories: { key: ByteString; entry: number }[] = []
    for (let at = start[directory]!; at < start[directory + 1]!; at++) {
      const entry = children[at]!
      const { mode, name } = entries[entry]!
      if (isDirectoryMode(mode)) directories.push({ key: `${name}/` as ByteString, entry })
      else files.push(entry)
    }
    files.sort((a, b) => compareBytes(entries[a]!.name, entries[b]!.name))
    directories.sort((a, b) => compareBytes(a.key, b.key))
    firstChild[directory] = next
    for (const entry of files) order[next++] = entry
    for (const { entry } of directories) order[next++] = entry
    for (let i = directories.length - 1; i >= 0; i--) stack.push(directories[i]!.entry)
  }
  return { order, firstChild, childCount }
}

/** By new place: 0, or the number of the group of hard-linked names, in the order of their first names. */
function linkGroups(entries: readonly TreeEntry[], order: Uint32Array): Uint32Array {
  const linked = new Set<number>()
  for (const { sameAs } of entries) if (sameAs >= 0) linked.add(sameAs)
  const groups = new Uint32Array(order.length)
  if (linked.size === 0) return groups
  const numbers = new Map<number, number>()
  for (let i = 0; i < order.length; i++) {
    const entry = order[i]!
    const sameAs = entries[entry]!.sameAs
    const first = sameAs >= 0 ? sameAs : entry
    if (!linked.has(first)) continue
    if (!numbers.has(first)) numbers.set(first, numbers.size + 1)
    groups[i] = numbers.get(first)!
  }
  return groups
}

function totalsOf(entries: readonly TreeEntry[], blobs: BlobTable): TreeTotals {
  const totals: TreeTotals = {
    entries: entries.length,
    files: 0,
    directories: 0,
    symlinks: 0,
    devices: 0,
    specials: 0,
    bytes: 0,
    blobBytes: 0,
  }
  for (const { mode, size, sameAs } of entries) {
    const type = mode & TYPE_MASK
    if (type === DIRECTORY) totals.directories++
    else if (type === SYMLINK) totals.symlinks++
    else if (type === CHAR_DEVICE || type === BLOCK_DEVICE) totals.devices++
    else if (type !== REGULAR) totals.specials++
    else {
      totals.files++
      if (sameAs < 0) totals.bytes += size
    }
  }
  for (let b = 0; b < blobs.count; b++) totals.blobBytes += blobs.sizes[b]!
  return totals
}

/** Names are read back as one string, so that they take no more than one can. It is far below 2^32. */
const MAX_HEAP_BYTES = constants.MAX_STRING_LENGTH

/** Byte strings one behind the other, and where each begins. */
class Heap {
  readonly starts: Uint32Array
  readonly #parts: (ByteString | Uint8Array)[] = []
  #length = 0

  constructor(count: number) {
    this.starts = new Uint32Array(count + 1)
  }

  push(bytes: ByteString | Uint8Array): void {
    this.#parts.push(bytes)
    this.#length += bytes.length
    if (this.#length > MAX_HEAP_BYTES)
      throw new StoreError(`names or attributes of the tree take more than ${MAX_HEAP_BYTES} bytes`)
    this.starts[this.#parts.length] = this.#length
  }

  bytes(): Uint8Array {
    const bytes = Buffer.alloc(this.#length)
    for (const [i, part] of this.#parts.entries()) {
      if (typeof part === 'string') bytes.write(part, this.starts[i]!, 'latin1')
      else bytes.set(part, this.starts[i]!)
    }
    return bytes
  }
}

/** Tells sets of attributes apart by their content. */
export class XattrKeys {
  /** Readers hand out one value with many entries: it is hashed once. */
  readonly #values = new WeakMap<Uint8Array, string>()

  /** The same for equal sets, whose attributes are in the order of `Xattr`s in a TreeEntry. */
  of(xattrs: readonly Xattr[]): string {
    return xattrs.map(({ name, value }) => `${name}\0${this.#digest(value)}`).join('\0')
  }

  #digest(value: Uint8Array): string {
    let digest = this.#values.get(value)
    if (digest === undefined) {
      digest = hash('sha256', value, 'base64')
      this.#values.set(value, digest)
    }
    return digest
  }
}

/** Numbers the distinct sets of attributes from 1; 0 is the empty set. */
class XattrTable {
  readonly #bySet = new Map<readonly Xattr[], number>()
  readonly #byContent = new Map<string, number>()
  readonly #keys = new XattrKeys()
  readonly #setStarts = [0]
  readonly #pairs: Xattr[] = []

  get sets(): number {
    return this.#setStarts.length - 1
  }
  get count(): number {
    return this.#pairs.length
  }

  add(xattrs: readonly Xattr[]): number {
    if (xattrs.length === 0) return 0
    const known = this.#bySet.get(xattrs)
    if (known !== undefined) return known
    const key = this.#keys.of(xattrs)
    let set = this.#byContent.get(key)
    if (set === undefined) {
      for (const xattr of xattrs) this.#pairs.push(xattr)
      this.#setStarts.push(this.#pairs.length)
      set = this.sets
      this.#byContent.set(key, set)
    }
    this.#bySet.set(xattrs, set)
    return set
  }

  columns(): Partial<Columns> {
    const names = new Heap(this.#pairs.length)
    const values = new Heap(this.#pairs.length)
    for (const { name, value } of this.#pairs) {
      names.push(name)
      values.push(value)
    }
    return {
      xattrSetStart: Uint32Array.from(this.#setStarts),
      xattrNameStart: names.starts,
      xattrNames: names.bytes(),
      xattrValueStart: values.starts,
      xattrValues: values.bytes(),
    }
  }
}

function assemble(columns: Columns, header: Header): Uint8Array<ArrayBuffer> {
  const kept: { array: ColumnArray; offset: number }[] = []
  let dataLength = 0
  for (const name of Object.keys(COLUMNS) as ColumnName[]) {
    const array = columns[name]
    const isHeap = elementsOf(name, header) === undefined
    if (array.length === 0 || (!isHeap && isAllZero(array))) continue
    kept.push({ array, offset: dataLength })
    header.columns.push({ name, type: COLUMNS[name], offset: dataLength, length: array.byteLength })
    dataLength = roundUp8(dataLength + array.byteLength)
  }
  const json = Buffer.from(JSON.stringify(header), 'utf8')
  const dataStart = roundUp8(PREFIX_BYTES + json.length)
  const out = new Uint8Array(dataStart + dataLength + SEAL_BYTES)
  const buffer = asBuffer(out)
  buffer.write(MAGIC, 0, 'latin1')
  buffer.writeUInt32LE(VERSION, 12)
  buffer.writeUInt32LE(dataStart - PREFIX_BYTES, 16)
  buffer.fill(' ', PREFIX_BYTES, dataStart)
  buffer.set(json, PREFIX_BYTES)
  for (const { array, offset } of kept) {
    buffer.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), dataStart + offset)
  }
  buffer.set(createHash('sha256').update(sealed(out)).digest(), out.length - SEAL_BYTES)
  return out
}

function isAllZero(array: ColumnArray): boolean {
  for (let i = 0; i < array.length; i++) if (array[i] !== 0) return false
  return true
}

function roundUp8(length: number): number {
  return Math.ceil(length / 8) * 8
}

const NO_BYTES = new Uint8Array(0)
const NO_NUMBERS = new Uint32Array(0)
