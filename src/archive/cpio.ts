/**
 * CpioReader: bytes in, members out to an ArchiveSink, as TarReader has it. Reads the forms that are in use:
 * newc, with or without checksums (070701, 070702), and the portable one of POSIX (070707).
 *
 * Names of one file have the same inode number. Where it came with none but one of them has content (newc:
 * the last), the others wait until that comes; where all have it, it is taken once. An archive is complete
 * only when its TRAILER!!! was seen; behind it only zeros may follow.
 *
 * (libarchive's bsdtar, asked to make a tar of a newc, leaves files with several names empty.)
 */
import { ArchiveError } from '../errors.ts'
import { asBuffer, type ByteString, byteString, showBytes } from '../lib/bytes.ts'
import { PERMISSION_MASK, REGULAR, TYPE_MASK, typeOfMode } from '../lib/file-mode.ts'
import type { ArchiveEntry, ArchiveSink } from './archive.ts'
import { canonicalPath, checkSymlinkTarget, MAX_LINK_TARGET_BYTES } from './path.ts'

const TRAILER = 'TRAILER!!!'
/** A name as it is stored: beyond any that passes, so that it can be shown. */
const MAX_NAME_BYTES = 64 * 1024
/** Names that wait for their file's content, all together. */
const MAX_WAITING = 1_000_000

interface Header {
  ino: string
  mode: number
  uid: number
  gid: number
  links: number
  mtime: number
  size: number
  major: number
  minor: number
  nameBytes: number
  /** Of the content, for 070702. */
  sum: number | undefined
  /** Header, name and content each end at a multiple of this. */
  align: number
  bytes: number
}

type State = 'header' | 'name' | 'name-padding' | 'content' | 'content-padding' | 'trailer'

export class CpioReader {
  readonly #sink: ArchiveSink
  #state: State = 'header'
  #pending: Buffer = Buffer.alloc(0)
  #header: Header | undefined
  #path = '' as ByteString
  /** Content of the member that comes now: for the sink, gathered, or passed over. */
  #use: 'sink' | 'gather' | 'skip' = 'skip'
  #left = 0
  #gathered: Uint8Array[] = []
  #sum = 0
  /** Where a file with several names went, by its inode. */
  readonly #emitted = new Map<string, ByteString>()
  readonly #waiting = new Map<string, ArchiveEntry[]>()
  #waitingCount = 0

  constructor(sink: ArchiveSink) {
    this.#sink = sink
  }

  /** Takes the next bytes. */
  write(chunk: Uint8Array): void {
    let bytes = this.#pending.length > 0 ? Buffer.concat([this.#pending, chunk]) : asBuffer(chunk)
    for (;;) {
      const used = this.#step(bytes)
      if (used < 0) break
      bytes = bytes.subarray(used)
    }
    this.#pending = Buffer.from(bytes)
  }

  /** The stream has ended. @throws ArchiveError when the archive has not. */
  end(): void {
    if (this.#state !== 'trailer') throw new ArchiveError('the cpio archive ends early (truncated download?)')
  }

  /** Does one step; how many bytes it took, or -1 when it needs more. */
  #step(bytes: Buffer): number {
    const header = this.#header
    switch (this.#state) {
      case 'header': {
        const found = decodeHeader(bytes)
        if (!found) return -1
        this.#header = found
        this.#state = 'name'
        return found.bytes
      }
      case 'name': {
        const { nameBytes } = header!
        if (bytes.length < nameBytes) return -1
        this.#named(byteString(bytes, 0, nameBytes - 1))
        return nameBytes
      }
      case 'name-padding': {
        const padding = pad(header!.bytes + header!.nameBytes, header!.align)
        if (bytes.length < padding) return -1
        this.#begin()
        return padding
      }
      case 'content': {
        if (this.#left === 0) {
          this.#complete()
          return 0
        }
        if (bytes.length === 0) return -1
        const part = bytes.subarray(0, this.#left)
        this.#take(part)
        return part.length
      }
      case 'content-padding': {
        const padding = pad(header!.size, header!.align)
        if (bytes.length < padding) return -1
        this.#state = 'header'
        return padding
      }
      case 'trailer': {
        if (bytes.some((byte) => byte !== 0))
          throw new ArchiveError('something follows the end of the cpio archive')
        return bytes.length > 0 ? bytes.length : -1
      }
    }
  }

  #named(raw: ByteString): void {
    if (raw === TRAILER) {
      this.#state = 'trailer'
      this.#flush()
      return
    }
    this.#path = canonicalPath(raw)
    this.#state = 'name-padding'
  }

  #begin(): void {
    const header = this.#header!
    const entry = entryOf(header, this.#path)
    this.#state = 'content'
    this.#left = header.size
    this.#sum = 0
    this.#gathered = []
    this.#use = 'skip'
    if (entry.type === 'symlink') {
      if (header.size > MAX_LINK_TARGET_BYTES)
        throw new ArchiveError(`the symlink "${showBytes(this.#path)}" has a target of ${header.size} bytes`)
      this.#use = 'gather'
      return
    }
    if (entry.type === 'directory' || header.links < 2) {
      this.#sink.entry(entry)
      if (entry.type === 'file') this.#use = 'sink'
      return
    }
    const first = this.#emitted.get(header.ino)
    if (first !== undefined) {
      this.#sink.entry(linkTo(first, entry))
    } else if (entry.type === 'file' && header.size === 0) {
      if (++this.#waitingCount > MAX_WAITING)
        throw new ArchiveError('the cpio archive has too many names of files that it does not hold')
      const others = this.#waiting.get(header.ino)
      if (others) others.push(entry)
      else this.#waiting.set(header.ino, [entry])
    } else {
      this.#emit(header.ino, entry)
      if (entry.type === 'file') this.#use = 'sink'
    }
  }

  /** A file with several names, of which some may wait for it: they follow once its content is complete. */
  #emit(ino: string, entry: ArchiveEntry): void {
    this.#emitted.set(ino, entry.path)
    this.#sink.entry(entry)
  }

  #take(part: Uint8Array): void {
    this.#left -= part.length
    if (this.#header!.sum !== undefined) for (const byte of part) this.#sum = (this.#sum + byte) >>> 0
    if (this.#use === 'sink') this.#sink.data(part)
    else if (this.#use === 'gather') this.#gathered.push(Uint8Array.from(part))
  }

  #complete(): void {
    const header = this.#header!
    const isFile = (header.mode & TYPE_MASK) === REGULAR
    // Of other members GNU cpio writes none.
    if (isFile && header.sum !== undefined && header.size > 0 && header.sum !== this.#sum) {
      throw new ArchiveError(`the content of "${showBytes(this.#path)}" is damaged: its checksum is another`)
    }
    if (this.#use === 'gather') {
      const linkTarget = checkSymlinkTarget(byteString(Buffer.concat(this.#gathered)), this.#path)
      const first = header.links > 1 ? this.#emitted.get(header.ino) : undefined
      const entry = { ...entryOf(header, this.#path), linkTarget }
      if (first !== undefined) this.#sink.entry(linkTo(first, entry))
      else if (header.links > 1) this.#emit(header.ino, entry)
      else this.#sink.entry(entry)
    }
    if (this.#use === 'sink') this.#linkWaiting(header.ino, header.links)
    this.#state = 'content-padding'
  }

  #linkWaiting(ino: string, links: number): void {
    const waiting = links > 1 ? this.#waiting.get(ino) : undefined
    if (!waiting) return
    this.#waiting.delete(ino)
    this.#waitingCount -= waiting.length
    for (const entry of waiting) this.#sink.entry(linkTo(this.#emitted.get(ino)!, entry))
  }

  /** Files with several names and no content: they are empty. */
  #flush(): void {
    for (const [ino, [first, ...others]] of this.#waiting) {
      this.#emit(ino, first!)
      for (const entry of others) this.#sink.entry(linkTo(first!.path, entry))
    }
    this.#waiting.clear()
  }
}

/** Undefined when there are not enough bytes yet. */
function decodeHeader(bytes: Buffer): Header | undefined {
  if (bytes.length < 6) return undefined
  const magic = bytes.toString('latin1', 0, 6)
  if (magic === '070701' || magic === '070702') return decodeNewc(bytes, magic === '070702')
  if (magic === '070707') return decodeOdc(bytes)
  throw new ArchiveError(
    `the cpio archive is damaged, or of a form that is not read: a member begins with "${showBytes(byteString(bytes, 0, 6))}"`,
    {
      hint: 'Read are newc (cpio -H newc, -H crc) and the portable form (-H odc).',
    },
  )
}

function decodeNewc(bytes: Buffer, hasSum: boolean): Header | undefined {
  if (bytes.length < 110) return undefined
  const field = (i: number): number => digits(bytes.toString('latin1', 6 + i * 8, 14 + i * 8), 16)
  const header = {
    ino: `${field(7)}:${field(8)}:${field(0)}`,
    mode: field(1),
    uid: field(2),
    gid: field(3),
    links: field(4),
    mtime: field(5),
    size: field(6),
    major: field(9),
    minor: field(10),
    nameBytes: field(11),
    sum: hasSum ? field(12) : undefined,
    align: 4,
    bytes: 110,
  }
  return checked(header)
}

function decodeOdc(bytes: Buffer): Header | undefined {
  if (bytes.length < 76) return undefined
  const field = (at: number, length = 6): number => digits(bytes.toString('latin1', at, at + length), 8)
  const device = field(42)
  const header = {
    ino: `${field(6)}:${field(12)}`,
    mode: field(18),
    uid: field(24),
    gid: field(30),
    links: field(36),
    mtime: field(48, 11),
    size: field(65, 11),
    major: device >>> 8,
    minor: device & 0xff,
    nameBytes: field(59),
    sum: undefined,
    align: 1,
    bytes: 76,
  }
  return checked(header)
}

function checked(header: Header): Header {
  if (header.nameBytes < 1 || header.nameBytes > MAX_NAME_BYTES) {
    throw new ArchiveError(`the cpio archive is damaged: a name of ${header.nameBytes} bytes`)
  }
  return header
}

function digits(text: string, base: 8 | 16): number {
  const isNumber = base === 16 ? /^[0-9a-f]+$/i.test(text) : /^[0-7]+$/.test(text)
  if (!isNumber) throw new ArchiveError('the cpio archive is damaged: a number in a header is none')
  return Number.parseInt(text, base)
}

function entryOf(header: Header, path: ByteString): ArchiveEntry {
  const type = typeOfMode(header.mode)
  if (!type) throw new ArchiveError(`"${showBytes(path)}" has no type that there is`)
  const isDevice = type === 'char-device' || type === 'block-device'
  return {
    path,
    type,
    mode: header.mode & PERMISSION_MASK,
    uid: header.uid,
    gid: header.gid,
    userName: undefined,
    groupName: undefined,
    size: type === 'file' ? header.size : 0,
    mtime: header.mtime,
    mtimeNsec: 0,
    linkTarget: '' as ByteString,
    major: isDevice ? header.major : 0,
    minor: isDevice ? header.minor : 0,
    xattrs: undefined,
  }
}

function linkTo(first: ByteString, entry: ArchiveEntry): ArchiveEntry {
  return { ...entry, type: 'hardlink', linkTarget: first, size: 0, major: 0, minor: 0 }
}

function pad(bytes: number, align: number): number {
  return (align - (bytes % align)) % align
}
