/**
 * One entry of the file list, delta-coded against the one before it, and the end of the list.
 * docs/rsync-protocol.md, sections 6.2 to 6.8.
 *
 * The encoder is the sending half only: a server never reads a list.
 */

import type { ByteWriter } from '../../lib/byte-writer.ts'
import type { ByteString } from '../../lib/bytes.ts'
import {
  BLOCK_DEVICE,
  CHAR_DEVICE,
  DIRECTORY,
  FIFO,
  REGULAR,
  SOCKET,
  SYMLINK,
  TYPE_MASK,
} from '../../lib/file-mode.ts'
import { encodeLongint, encodeVarint, encodeVarlong } from './ints.ts'

/** [flist-flags] Section 6.2. Bits that mean two things are told apart by protocol or type of entry. */
export const FLAG = {
  topDir: 0x0001,
  sameMode: 0x0002,
  extended: 0x0004,
  sameRdev27: 0x0004,
  sameUid: 0x0008,
  sameGid: 0x0010,
  sameName: 0x0020,
  longName: 0x0040,
  sameTime: 0x0080,
  sameRdevMajor: 0x0100,
  noContentDir: 0x0100,
  hardLinked: 0x0200,
  sameDev: 0x0400,
  rdevMinor8: 0x0800,
  hardLinkFirst: 0x1000,
  modNsec: 0x2000,
  sameAtime: 0x4000,
  crtimeIsMtime: 0x20000,
} as const

/** What was negotiated, as far as it shapes an entry. */
export interface FlistFormat {
  protocol: number
  /** Compat bit 0x80: flags travel as varints, and the end carries io_error. */
  varintFlags: boolean
  /** A non-zero io_error may be told in the end marker (compat bit 0x08, and always from 31 on). */
  safeEnd: boolean
  owner: boolean
  group: boolean
  links: boolean
  devices: boolean
  specials: boolean
  hardLinks: boolean
  atimes: boolean
  crtimes: boolean
  /** Bytes of a -c digest; 0 without -c. */
  checksumLength: number
}

/** One entry. The encoder reads only those fields which the format asks for. */
export interface FlistEntry {
  name: ByteString
  /** Type and permissions: the 16 bits of Unix. 0 for an argument that is to be deleted. */
  mode: number
  size: number
  /** Whole seconds since 1970, may be negative; and the nanoseconds above them. */
  mtime: number
  mtimeNsec: number
  uid: number
  gid: number
  major: number
  minor: number
  linkTarget: ByteString
  /** FLAG.topDir and FLAG.noContentDir, for directories. */
  directoryFlags: number
  /**
   * 0, or a number that all names of one hard-linked file share. At protocol 27, where every regular file
   * carries one, a file with a single name needs a number of its own.
   */
  linkGroup: number
  /** Position of the group's first member in transmission order; -1 when this is the first. */
  linkFirst: number
  /** The -c digest, for regular files. */
  checksum: Uint8Array | undefined
}

export class FlistEncoder {
  readonly #format: FlistFormat
  #name = '' as ByteString
  #mode = 0
  #mtime = 0
  #uid = 0
  #gid = 0
  #major = 0
  #rdev27 = 0
  #atime = 0
  #linkDevSent = false
  #first = true

  constructor(format: FlistFormat) {
    this.#format = format
  }

  /** Appends one entry, but for its ACLs and extended attributes, which follow directly behind. */
  entry(out: ByteWriter, entry: FlistEntry): void {
    const { protocol } = this.#format
    const type = entry.mode & TYPE_MASK
    const isDir = type === DIRECTORY
    const isDevice = type === CHAR_DEVICE || type === BLOCK_DEVICE
    const isSpecial = type === FIFO || type === SOCKET
    const rdevSent =
      (isDevice && this.#format.devices) || (isSpecial && this.#format.specials && protocol < 31)
    const major = isDevice ? entry.major : 0
    const minor = isDevice ? entry.minor : 0
    const linked = this.#format.hardLinks && !isDir && entry.linkGroup !== 0
    /** From protocol 30 on a further name of a linked file is told by the first one's index alone. */
    const abbreviated = linked && protocol >= 30 && entry.linkFirst >= 0
    const withNsec = protocol >= 31 && entry.mtimeNsec !== 0

    let flags = isDir ? entry.directoryFlags : 0
    // Before 30 a directory without its contents has no flag of its own: it just isn't one to delete in.
    if (protocol < 30 && flags & FLAG.noContentDir) flags = 0
    if (entry.mode === this.#mode) flags |= FLAG.sameMode
    if (!this.#format.owner || (!this.#first && entry.uid === this.#uid)) flags |= FLAG.sameUid
    if (!this.#format.group || (!this.#first && entry.gid === this.#gid)) flags |= FLAG.sameGid
    if (entry.mtime === this.#mtime) flags |= FLAG.sameTime
    if (withNsec) flags |= FLAG.modNsec
    // At protocol 27 the flags are one byte, which has no room for this one.
    if (this.#format.atimes && !isDir && protocol >= 28 && entry.mtime === this.#atime)
      flags |= FLAG.sameAtime
    if (this.#format.crtimes && this.#format.varintFlags) flags |= FLAG.crtimeIsMtime

    const rdev27 = protocol === 27 ? makedev(major, minor) : 0
    if (rdevSent) {
      if (protocol === 27) {
        if (isSpecial || rdev27 === this.#rdev27) flags |= FLAG.sameRdev27
      } else {
        if (isSpecial || major === this.#major) flags |= FLAG.sameRdevMajor
        if (protocol < 30 && minor <= 0xff) flags |= FLAG.rdevMinor8
      }
    }
    if (linked && protocol >= 28) {
      flags |= FLAG.hardLinked
      if (protocol >= 30) {
        if (!abbreviated) flags |= FLAG.hardLinkFirst
      } else if (this.#linkDevSent) {
        flags |= FLAG.sameDev
      }
    }

    const shared = sharedPrefix(this.#name, entry.name)
    const suffix = entry.name.length - shared
    if (shared > 0) flags |= FLAG.sameName
    if (suffix > 255) flags |= FLAG.longName

    flags = this.#flags(out, flags, isDir)
    if (shared > 0) out.u8(shared)
    if (flags & FLAG.longName) this.#int(out, suffix)
    else out.u8(suffix)
    out.string(entry.name, shared)

    if (abbreviated) {
      encodeVarint(out, entry.linkFirst)
    } else {
      this.#size(out, entry.size)
      if (!(flags & FLAG.sameTime)) this.#seconds(out, entry.mtime)
      if (withNsec) encodeVarint(out, entry.mtimeNsec)
      if (this.#format.crtimes && !(flags & FLAG.crtimeIsMtime)) encodeVarlong(out, entry.mtime, 4)
      if (!(flags & FLAG.sameMode)) out.i32(entry.mode)
      if (this.#format.atimes && !isDir && !(flags & FLAG.sameAtime)) encodeVarlong(out, entry.mtime, 4)
      if (!(flags & FLAG.sameUid)) this.#int(out, entry.uid)
      if (!(flags & FLAG.sameGid)) this.#int(out, entry.gid)
      if (rdevSent) {
        if (protocol === 27) {
          if (!(flags & FLAG.sameRdev27)) out.i32(rdev27)
        } else {
          if (!(flags & FLAG.sameRdevMajor)) this.#int(out, major)
          if (flags & FLAG.rdevMinor8) out.u8(minor)
          else this.#int(out, minor)
        }
      }
      if (type === SYMLINK && this.#format.links) {
        this.#int(out, entry.linkTarget.length)
        out.string(entry.linkTarget)
      }
      if (protocol < 30 && this.#format.hardLinks && (protocol === 27 ? type === REGULAR : linked)) {
        // Device and inode numbers, of which only equality counts.
        if (protocol === 27 || !(flags & FLAG.sameDev)) encodeLongint(out, LINK_DEVICE)
        encodeLongint(out, entry.linkGroup)
        this.#linkDevSent = true
      }
      if (this.#format.checksumLength > 0 && (type === REGULAR || protocol === 27)) {
        out.bytes(
          type === REGULAR && entry.checksum
            ? entry.checksum
            : NO_CHECKSUM.subarray(0, this.#format.checksumLength),
        )
      }
    }

    // An abbreviated link takes over its first member's values, so the state moves on all the same.
    this.#first = false
    this.#name = entry.name
    this.#mode = entry.mode
    this.#mtime = entry.mtime
    if (this.#format.owner) this.#uid = entry.uid
    if (this.#format.group) this.#gid = entry.gid
    if (this.#format.atimes && !isDir) this.#atime = entry.mtime
    if (isDevice && rdevSent) {
      // ... but for this: of a device whose numbers were not sent, a receiver may not note the major one.
      this.#major = abbreviated ? UNKNOWN : major
      this.#rdev27 = rdev27
    } else if (!isDevice && !isSpecial) {
      this.#rdev27 = 0
    }
  }

  /** The end marker, with the errors met while the list was made. */
  end(out: ByteWriter, ioError: number): void {
    if (this.#format.varintFlags) {
      encodeVarint(out, 0)
      encodeVarint(out, ioError)
    } else if (ioError !== 0 && this.#format.protocol >= 30 && this.#format.safeEnd) {
      out.u16(FLAG.extended | FLAG.hardLinkFirst)
      encodeVarint(out, ioError)
    } else {
      out.u8(0)
    }
  }

  /** Writes the flags and returns them with the filler bits that keep them from being 0. */
  #flags(out: ByteWriter, wanted: number, isDir: boolean): number {
    let flags = wanted
    if (this.#format.varintFlags) {
      encodeVarint(out, flags === 0 ? FLAG.extended : flags)
    } else if (this.#format.protocol >= 28) {
      if (flags === 0 && !isDir) flags = FLAG.topDir
      if (flags === 0 || flags > 0xff) out.u16(flags | FLAG.extended)
      else out.u8(flags)
    } else {
      // One byte, never 0: that would end the list. For a directory the filler is a long name length.
      if (flags === 0) flags = isDir ? FLAG.longName : FLAG.topDir
      out.u8(flags)
    }
    return flags
  }

  #int(out: ByteWriter, value: number): void {
    if (this.#format.protocol < 30) out.i32(value)
    else encodeVarint(out, value)
  }

  #size(out: ByteWriter, size: number): void {
    if (this.#format.protocol < 30) encodeLongint(out, size)
    else encodeVarlong(out, size, 3)
  }

  #seconds(out: ByteWriter, seconds: number): void {
    if (this.#format.protocol < 30) out.i32(seconds)
    else encodeVarlong(out, seconds, 4)
  }
}

/** Names of owners (or groups), by id. Section 6.8. */
export function encodeIdList(
  out: ByteWriter,
  names: ReadonlyMap<number, ByteString>,
  format: { protocol: number; id0Names: boolean },
): void {
  const int = (value: number) => (format.protocol < 30 ? out.i32(value) : encodeVarint(out, value))
  const put = (name: ByteString) => {
    out.u8(name.length)
    out.string(name)
  }
  for (const [id, name] of names) {
    if (id === 0 || name.length === 0 || name.length > 255) continue
    int(id)
    put(name)
  }
  int(0)
  if (format.id0Names) {
    const root = names.get(0) ?? ('' as ByteString)
    put(root.length > 255 ? ('' as ByteString) : root)
  }
}

/** How many bytes two names share at their start: at most 255, since one byte says it. */
function sharedPrefix(a: ByteString, b: ByteString): number {
  const most = Math.min(a.length, b.length, 255)
  let n = 0
  while (n < most && a.charCodeAt(n) === b.charCodeAt(n)) n++
  return n
}

/** Linux's own packing of a device number into 32 bits, as protocol 27 sends it raw. */
function makedev(major: number, minor: number): number {
  return (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)
}

/** Equal to no major number. */
const UNKNOWN = -1
/** One made-up device number for all hard links: a build is one file system. */
const LINK_DEVICE = 1
const NO_CHECKSUM = new Uint8Array(64)
