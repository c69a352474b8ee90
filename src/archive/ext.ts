/**
 * Reads the tree of an ext2, ext3 or ext4 image: everything that the archive formats keep, by what the
 * kernel's documentation says of the layout (Documentation/filesystems/ext4). Synchronous, over a function
 * that reads the image, and bounded: nothing in an image is believed before it was checked.
 *
 * Not read, and refused: images that were not unmounted (their journal holds what is missing), encrypted
 * directories, and layouts that mkfs does not make by itself. `lost+found` at the root is left out when it
 * is empty: a device has one of its own.
 */
import { ArchiveError } from '../errors.ts'
import { asBuffer, type ByteString, byteString, showBytes } from '../lib/bytes.ts'
import { PERMISSION_MASK, typeOfMode } from '../lib/file-mode.ts'
import type { ArchiveEntry, ArchiveEntryType, ArchiveSink } from './archive.ts'
import { canonicalPath, checkSymlinkTarget } from './path.ts'

/** Bytes of the image, fewer than asked for only at its end. */
export type ReadImage = (position: number, length: number) => Uint8Array

const ROOT_INODE = 2
const SUPERBLOCK_AT = 1024
/** Content goes to the sink in pieces of this, and after each the caller may pause. */
const PIECE_BYTES = 1 << 20
/** A directory of a million files takes some 40 MB. Of one that is read a piece is in memory. */
const MAX_DIRECTORY_BYTES = 256 << 20
/** Levels of an extent tree: the format has five at most. */
const MAX_DEPTH = 5
const MAX_SYMLINK_BYTES = 4096

const FEATURE = {
  filetype: 0x2,
  recover: 0x4,
  extents: 0x40,
  bits64: 0x80,
  flexBg: 0x200,
  eaInode: 0x400,
  checksumSeed: 0x2000,
  largeDirectory: 0x4000,
  inlineData: 0x8000,
  casefold: 0x20000,
}
/** Of the features that a reader must know. */
const KNOWN_FEATURES =
  FEATURE.filetype |
  FEATURE.extents |
  FEATURE.bits64 |
  FEATURE.flexBg |
  FEATURE.checksumSeed |
  FEATURE.largeDirectory |
  FEATURE.inlineData |
  FEATURE.casefold

const EXTENTS_FLAG = 0x80000
const INLINE_FLAG = 0x10000000
const ENCRYPT_FLAG = 0x800
const XATTR_MAGIC = 0xea020000
const XATTR_PREFIXES = [
  '',
  'user.',
  'system.posix_acl_access',
  'system.posix_acl_default',
  'trusted.',
  '',
  'security.',
  'system.',
  '',
]

interface Inode {
  number: number
  type: ArchiveEntryType
  mode: number
  uid: number
  gid: number
  size: number
  mtime: number
  mtimeNsec: number
  links: number
  flags: number
  /** i_block: extents, pointers, a short symlink's target, device numbers or small content. */
  block: Buffer
  raw: Buffer
  xattrs: Map<ByteString, Uint8Array>
}

/** What a directory says. */
interface Name {
  name: ByteString
  inode: number
}

/** A run of blocks: `physical` 0 for a hole. */
interface Run {
  logical: number
  physical: number
  count: number
}

/** Yields whenever the caller may pause. */
export function* readExt(read: ReadImage, sink: ArchiveSink): Generator<void, void> {
  const image = new Image(read)
  const seen = new Map<number, ByteString>()
  const visited = new Set<number>()
  const todo: { inode: number; path: ByteString }[] = []
  // Each is told as soon as it is found: then a sink that takes so many entries and no more bounds `todo` as well.
  const enter = (directory: Inode, path: ByteString): void => {
    if (visited.has(directory.number)) throw damaged(`the directory ${showBytes(path)} is in two places`)
    visited.add(directory.number)
    sink.entry(entryOf(directory, path))
    todo.push({ inode: directory.number, path })
  }
  const root = image.inode(ROOT_INODE)
  if (root.type !== 'directory') throw damaged('its root is no directory')
  enter(root, '' as ByteString)
  while (todo.length > 0) {
    const { inode: number, path } = todo.pop()!
    for (const named of image.names(image.inode(number))) {
      if (!named) {
        yield
        continue
      }
      const { name, inode } = named
      const child = canonicalPath((path === '' ? name : `${path}/${name}`) as ByteString)
      const found = image.inode(inode)
      if (found.type === 'directory') {
        // There may be as many of them as a directory holds names, and each may be long.
        if (child !== 'lost+found' || !(yield* isEmpty(image.names(found)))) enter(found, child)
        continue
      }
      const first = found.links > 1 ? seen.get(inode) : undefined
      if (first !== undefined) {
        sink.entry({
          ...entryOf(found, child),
          type: 'hardlink',
          linkTarget: first,
          size: 0,
          major: 0,
          minor: 0,
          xattrs: undefined,
        })
        continue
      }
      if (found.links > 1) seen.set(inode, child)
      const linkTarget =
        found.type === 'symlink' ? checkSymlinkTarget(image.target(found), child) : ('' as ByteString)
      sink.entry({ ...entryOf(found, child), linkTarget })
      if (found.type === 'file')
        for (const piece of image.content(found)) {
          if (piece) sink.data(piece)
          yield
        }
    }
    yield
  }
}

/** Whether there is no name. Yields whenever the caller may pause, and at its end. */
function* isEmpty(names: Iterable<Name | undefined>): Generator<void, boolean> {
  for (const named of names) {
    if (named) return false
    yield
  }
  yield
  return true
}

function entryOf(inode: Inode, path: ByteString): ArchiveEntry {
  const isDevice = inode.type === 'char-device' || inode.type === 'block-device'
  const { major, minor } = isDevice ? deviceOf(inode.block) : { major: 0, minor: 0 }
  return {
    path,
    type: inode.type,
    mode: inode.mode,
    uid: inode.uid,
    gid: inode.gid,
    userName: undefined,
    groupName: undefined,
    size: inode.type === 'file' ? inode.size : 0,
    mtime: inode.mtime,
    mtimeNsec: inode.mtimeNsec,
    linkTarget: '' as ByteString,
    major,
    minor,
    xattrs: attributesOf(inode),
  }
}

/** Small content lies in an attribute that nobody sees. */
function attributesOf({ xattrs }: Inode): ReadonlyMap<ByteString, Uint8Array> | undefined {
  const seen = [...xattrs].filter(([name]) => name !== INLINE_REST)
  return seen.length > 0 ? new Map(seen) : undefined
}

/** The first word is the old form, of 8 bits each; the second the new one. */
function deviceOf(block: Buffer): { major: number; minor: number } {
  const old = block.readUInt32LE(0)
  if (old !== 0) return { major: (old >>> 8) & 0xff, minor: old & 0xff }
  const device = block.readUInt32LE(4)
  return { major: (device >>> 8) & 0xfff, minor: (device & 0xff) | ((device >>> 12) & 0xfff00) }
}

class Image {
  readonly #read: ReadImage
  readonly #blockBytes: number
  readonly #inodeBytes: number
  readonly #inodes: number
  readonly #inodesPerGroup: number
  readonly #features: number
  readonly #descriptorBytes: number
  readonly #descriptorsAt: number
  readonly #blocks: number

  constructor(read: ReadImage) {
    this.#read = read
    const superblock = this.#bytes(SUPERBLOCK_AT, 1024)
    if (superblock.readUInt16LE(56) !== 0xef53) throw damaged('its superblock is not one')
    const log = superblock.readUInt32LE(24)
    this.#inodesPerGroup = superblock.readUInt32LE(40)
    const revision = superblock.readUInt32LE(76)
    this.#inodes = superblock.readUInt32LE(0)
    this.#inodeBytes = revision === 0 ? 128 : superblock.readUInt16LE(88)
    this.#features = revision === 0 ? 0 : superblock.readUInt32LE(96)
    if (log > 6 || this.#inodesPerGroup === 0 || this.#inodeBytes < 128 || this.#inodeBytes > 1024 << log) {
      throw damaged('its superblock says what cannot be')
    }
    this.#blockBytes = 1024 << log
    if (this.#features & FEATURE.recover) {
      throw new ArchiveError('the ext image was not unmounted: its journal holds what is missing', {
        hint: 'Run e2fsck on it before it is published.',
      })
    }
    const unknown = this.#features & ~KNOWN_FEATURES
    if (unknown !== 0)
      throw new ArchiveError(`the ext image uses features that are not read (0x${unknown.toString(16)})`)
    const is64 = (this.#features & FEATURE.bits64) !== 0
    this.#descriptorBytes = is64 ? superblock.readUInt16LE(254) : 32
    if (this.#descriptorBytes < (is64 ? 64 : 32) || this.#descriptorBytes > 1024)
      throw damaged('its superblock says what cannot be')
    this.#descriptorsAt = (superblock.readUInt32LE(20) + 1) * this.#blockBytes
    this.#blocks = superblock.readUInt32LE(4) + (is64 ? superblock.readUInt32LE(336) * 2 ** 32 : 0)
    // Also where nothing but free space is missing: what was cut there may have been cut elsewhere.
    this.#bytes(this.#blocks * this.#blockBytes - 1, 1)
  }

  inode(number: number): Inode {
    if (number < 1 || number > this.#inodes) throw damaged(`there is no inode ${number}`)
    const group = Math.floor((number - 1) / this.#inodesPerGroup)
    const descriptor = this.#bytes(this.#descriptorsAt + group * this.#descriptorBytes, this.#descriptorBytes)
    const high = this.#descriptorBytes >= 64 ? descriptor.readUInt32LE(40) * 2 ** 32 : 0
    const table = (descriptor.readUInt32LE(8) + high) * this.#blockBytes
    const raw = this.#bytes(
      table + ((number - 1) % this.#inodesPerGroup) * this.#inodeBytes,
      this.#inodeBytes,
    )
    const mode = raw.readUInt16LE(0)
    const type = typeOfMode(mode)
    if (!type) throw damaged(`inode ${number} has no type`)
    const flags = raw.readUInt32LE(32)
    if (flags & ENCRYPT_FLAG) throw new ArchiveError('the ext image holds encrypted files')
    const extra = this.#inodeBytes > 128 ? raw.readUInt16LE(128) : 0
    const nsec = extra >= 12 ? raw.readUInt32LE(136) : 0
    return {
      number,
      type,
      mode: mode & PERMISSION_MASK,
      uid: raw.readUInt16LE(2) + raw.readUInt16LE(120) * 65_536,
      gid: raw.readUInt16LE(24) + raw.readUInt16LE(122) * 65_536,
      size:
        raw.readUInt32LE(4) + (type === 'file' || type === 'directory' ? raw.readUInt32LE(108) * 2 ** 32 : 0),
      // Two more bits of seconds, for times from 2038 on.
      mtime: raw.readInt32LE(16) + (nsec & 3) * 2 ** 32,
      mtimeNsec: Math.min(nsec >>> 2, 999_999_999),
      links: raw.readUInt16LE(26),
      flags,
      block: raw.subarray(40, 100),
      raw,
      xattrs: this.#xattrs(raw, extra),
    }
  }

  /** What is in a directory, without itself and its parent, as it is read; undefined whenever the caller may pause. */
  *names(directory: Inode): Generator<Name | undefined, void> {
    if (directory.size > MAX_DIRECTORY_BYTES) throw damaged(`a directory of ${directory.size} bytes`)
    const inline = (directory.flags & INLINE_FLAG) !== 0
    // Pieces are whole blocks, whose size they are a multiple of.
    for (const bytes of inline ? this.#inlineParts(directory) : this.#whole(directory)) {
      yield* this.#entries(bytes, inline ? bytes.length : this.#blockBytes)
      if (!inline) yield undefined
    }
  }

  target(link: Inode): ByteString {
    if (link.size > MAX_SYMLINK_BYTES) throw damaged(`a symlink of ${link.size} bytes`)
    const isFast = link.size < 60 && (link.flags & (EXTENTS_FLAG | INLINE_FLAG)) === 0
    return byteString(isFast ? link.block.subarray(0, link.size) : Buffer.concat([...this.#whole(link)]))
  }

  /** The bytes of a file, piece by piece. */
  *content(file: Inode): Generator<Uint8Array, void> {
    yield* this.#whole(file)
  }

  *#whole(inode: Inode): Generator<Buffer, void> {
    if (inode.flags & INLINE_FLAG) {
      const bytes = Buffer.concat(this.#inlineParts(inode)).subarray(0, inode.size)
      if (bytes.length < inode.size) throw damaged(`inode ${inode.number} is cut short`)
      if (bytes.length > 0) yield bytes
      return
    }
    let at = 0
    for (const { logical, physical, count } of this.#runs(inode)) {
      const start = logical * this.#blockBytes
      if (start < at) throw damaged(`inode ${inode.number} has overlapping pieces`)
      // Set aside behind the end. Nothing that is read can show order there.
      if (start >= inode.size) break
      yield* zeros(start - at)
      at = start
      const end = Math.min(start + count * this.#blockBytes, inode.size)
      while (at < end) {
        const length = Math.min(PIECE_BYTES, end - at)
        yield physical === 0
          ? Buffer.alloc(length)
          : this.#bytes(physical * this.#blockBytes + at - start, length)
        at += length
      }
    }
    yield* zeros(inode.size - at)
  }

  /** Where content lies that is so little that it needs no blocks: in the inode, and in an attribute of it. */
  #inlineParts(inode: Inode): Buffer[] {
    const rest = inode.xattrs.get(INLINE_REST)
    const parts = [inode.block, ...(rest ? [asBuffer(rest)] : [])]
    // A directory's begins with the inode of its parent.
    return inode.type === 'directory' ? [inode.block.subarray(4), ...parts.slice(1)] : parts
  }

  *#entries(bytes: Buffer, blockBytes: number): Generator<Name, void> {
    for (let block = 0; block < bytes.length; block += blockBytes) {
      const end = Math.min(block + blockBytes, bytes.length)
      for (let at = block; at + 8 <= end; ) {
        const inode = bytes.readUInt32LE(at)
        // 64 KiB does not fit into 16 bits: all ones or nothing stand for it.
        const stored = bytes.readUInt16LE(at + 4)
        const length = blockBytes === 65_536 && (stored === 0xffff || stored === 0) ? 65_536 : stored
        const nameBytes = this.#features & FEATURE.filetype ? bytes[at + 6]! : bytes.readUInt16LE(at + 6)
        if (length < 8 || at + length > end || 8 + nameBytes > length) throw damaged('a directory is not one')
        // Inode 0: a name that was removed, or the checksum of the block.
        const name = byteString(bytes, at + 8, at + 8 + nameBytes)
        if (inode !== 0 && name !== '' && name !== '.' && name !== '..') yield { name, inode }
        at += length
      }
    }
  }

  *#runs(inode: Inode): Generator<Run, void> {
    const blocks = Math.ceil(inode.size / this.#blockBytes)
    if (inode.flags & EXTENTS_FLAG) yield* this.#extents(inode.block, MAX_DEPTH)
    else yield* this.#pointers(inode.block, blocks)
  }

  /** Every node leads to blocks: whoever reads on until the file ends has an end, wherever nodes point. */
  *#extents(node: Buffer, depthLeft: number, isRoot = true): Generator<Run, void> {
    const count = node.readUInt16LE(2)
    const depth = node.readUInt16LE(6)
    if (node.readUInt16LE(0) !== 0xf30a || 12 + count * 12 > node.length || depth > depthLeft)
      throw damaged('an extent tree is not one')
    if (count === 0 && !isRoot) throw damaged('an extent tree has an empty node')
    for (let at = 12; at < 12 + count * 12; at += 12) {
      if (depth > 0) {
        const block = node.readUInt32LE(at + 4) + node.readUInt16LE(at + 8) * 2 ** 32
        yield* this.#extents(this.#block(block), depth - 1, false)
        continue
      }
      const length = node.readUInt16LE(at + 4)
      if (length === 0) throw damaged('an extent has no blocks')
      // Above 2^15: set aside and never written, which reads as zeros.
      const unwritten = length > 32_768
      const physical = node.readUInt16LE(at + 6) * 2 ** 32 + node.readUInt32LE(at + 8)
      yield {
        logical: node.readUInt32LE(at),
        physical: unwritten ? 0 : physical,
        count: unwritten ? length - 32_768 : length,
      }
    }
  }

  /** Twelve blocks, and then one each of pointers to blocks, of pointers to those, and once more. */
  *#pointers(block: Buffer, blocks: number): Generator<Run, void> {
    let logical = 0
    for (let i = 0; i < 12 && logical < blocks; i++) {
      yield { logical: logical++, physical: block.readUInt32LE(i * 4), count: 1 }
    }
    for (const level of [1, 2, 3]) {
      if (logical >= blocks) return
      logical = yield* this.#indirect(block.readUInt32LE((11 + level) * 4), level, logical, blocks)
    }
  }

  *#indirect(pointer: number, level: number, logical: number, blocks: number): Generator<Run, number> {
    const perBlock = this.#blockBytes / 4
    // Nothing there: a hole as long as all that it could point at.
    if (pointer === 0) return logical + perBlock ** level
    const table = this.#block(pointer)
    let at = logical
    for (let i = 0; i < perBlock && at < blocks; i++) {
      const next = table.readUInt32LE(i * 4)
      if (level > 1) at = yield* this.#indirect(next, level - 1, at, blocks)
      else yield { logical: at++, physical: next, count: 1 }
    }
    return at
  }

  #xattrs(raw: Buffer, extra: number): Map<ByteString, Uint8Array> {
    const xattrs = new Map<ByteString, Uint8Array>()
    const start = 128 + extra
    if (raw.length >= start + 8 && raw.readUInt32LE(start) === XATTR_MAGIC) {
      readXattrs(raw.subarray(start + 4), raw.subarray(start + 4), xattrs)
    }
    const block = raw.readUInt32LE(104) + raw.readUInt16LE(118) * 2 ** 32
    if (block !== 0) {
      const bytes = this.#block(block)
      if (bytes.readUInt32LE(0) !== XATTR_MAGIC) throw damaged('a block of attributes is not one')
      readXattrs(bytes.subarray(32), bytes, xattrs)
    }
    return xattrs
  }

  #block(number: number): Buffer {
    return this.#bytes(number * this.#blockBytes, this.#blockBytes)
  }

  #bytes(position: number, length: number): Buffer {
    if (this.#blocks !== undefined && position + length > this.#blocks * this.#blockBytes)
      throw damaged('it points behind its end')
    const bytes = asBuffer(this.#read(position, length))
    if (bytes.length < length) throw new ArchiveError('the ext image ends early (truncated download?)')
    return bytes
  }
}

const INLINE_REST = byteString(Buffer.from('system.data'))

/** Attributes one behind the other; where their values are counts from `values`. */
function readXattrs(entries: Buffer, values: Buffer, xattrs: Map<ByteString, Uint8Array>): void {
  for (let at = 0; at + 16 <= entries.length && entries.readUInt32LE(at) !== 0; ) {
    const nameBytes = entries[at]!
    const prefix = XATTR_PREFIXES[entries[at + 1]!]
    const offset = entries.readUInt16LE(at + 2)
    const size = entries.readUInt32LE(at + 8)
    if (entries.readUInt32LE(at + 4) !== 0)
      throw new ArchiveError('the ext image keeps attributes in inodes of their own, which is not read')
    if (prefix === undefined || at + 16 + nameBytes > entries.length || offset + size > values.length)
      throw damaged('attributes are not what they should be')
    const name = `${prefix}${byteString(entries, at + 16, at + 16 + nameBytes)}` as ByteString
    const value = Uint8Array.from(values.subarray(offset, offset + size))
    xattrs.set(name, name.startsWith('system.posix_acl_') ? decodeAcl(value) : value)
    at += (16 + nameBytes + 3) & ~3
  }
}

/** ext keeps ACLs shorter than the kernel hands them out: without the ids of entries that have none. */
function decodeAcl(stored: Uint8Array): Uint8Array {
  const bytes = asBuffer(stored)
  const parts: Buffer[] = [Buffer.from([2, 0, 0, 0])]
  for (let at = 4; at + 4 <= bytes.length; ) {
    const tag = bytes.readUInt16LE(at)
    const named = tag === 0x02 || tag === 0x08
    if (named && at + 8 > bytes.length) throw damaged('an ACL is cut short')
    const entry = Buffer.alloc(8, 0xff)
    bytes.copy(entry, 0, at, at + 4)
    if (named) bytes.copy(entry, 4, at + 4, at + 8)
    parts.push(entry)
    at += named ? 8 : 4
  }
  return Buffer.concat(parts)
}

function* zeros(count: number): Generator<Buffer, void> {
  for (let left = count; left > 0; left -= PIECE_BYTES) yield Buffer.alloc(Math.min(PIECE_BYTES, left))
}

function damaged(what: string): ArchiveError {
  return new ArchiveError(`the ext image is damaged: ${what}`)
}
