/**
 * TarReader: bytes in, members out to an ArchiveSink. Synchronous, holds no file data, copies none.
 *
 * Reads v7, ustar, pax and GNU archives with long names, sparse files, extended attributes and device
 * nodes. A member's facts come from, in this order: its pax header, GNU long-name members, the global pax
 * headers so far, its own header block.
 *
 * An archive is complete only when its end-of-archive marker was seen: a download that breaks off exactly
 * between two members looks like a whole archive otherwise. The marker is two zero blocks. One zero block
 * and then the end of the stream will do too, as it does for GNU tar ("a lone zero block"): no member's
 * header is all zeros, so the writer had finished. Behind the marker only zeros may follow, and not
 * without end: a second archive joined on would go missing silently otherwise.
 *
 * Sizes of members without content (directories, links, devices) are ignored and no data is expected,
 * as POSIX says and libarchive and Python's tarfile do. For hard links the standards disagree: ustar says
 * that the size counts for nothing (old tars repeat the file's size here, with no data), pax that data
 * may follow. As libarchive does, we expect data only in archives that are certainly pax, which means that
 * a pax header came before; it is the linked file's own content again, so it is skipped.
 *
 * Numbers from the archive are checked before use, whatever follows has a named limit, and whatever is
 * wrong is an ArchiveError. Once `feed`, `write` or `end` has thrown, the reader is done for.
 */
import { ArchiveError } from '../errors.ts'
import { type ByteString, byteString, showBytes } from '../lib/bytes.ts'
import type { ArchiveEntry, ArchiveEntryType, ArchiveSink } from './archive.ts'
import { canonicalPath, checkSymlinkTarget } from './path.ts'
import {
  BLOCK_BYTES,
  checksumMatches,
  decodeTarHeader,
  isAllZero,
  isZeroBlock,
  type TarHeader,
} from './tar-header.ts'
import { decodePax, type PaxFields } from './tar-pax.ts'
import {
  checkRunCount,
  checkSparseMap,
  decodeGnuSparseExtension,
  decodeGnuSparseHeader,
  SparseMapReader,
} from './tar-sparse.ts'

/** One pax header: every xattr that `tar-pax.ts` takes, in base64 too, and a map of many thousand runs. */
export const MAX_PAX_BYTES = 4 * 1024 * 1024
/** A GNU long name or link name as stored. Beyond any path that passes, so that the path can be shown. */
export const MAX_LONG_NAME_BYTES = 64 * 1024
/** All header blocks and headers' data in front of one member: a stream of headers alone must end too. */
export const MAX_METADATA_BYTES = 16 * 1024 * 1024
/** Data of hard links, which is read and thrown away, over the whole archive. */
export const MAX_SKIPPED_BYTES = 1024 ** 3
/** Zeros behind the end marker. Writers fill up their last record, which is 10 KiB, seldom 1 MiB. */
export const MAX_TRAILER_BYTES = 16 * 1024 * 1024
/** Zeros of a hole that go to the sink before `feed` gives its caller a chance to pause. */
export const HOLE_BURST_BYTES = 4 * 1024 * 1024

/**
 * What the next bytes are.
 *
 *     header --> collect --> header                       (pax and long-name members)
 *     header --> [sparse-extension | sparse-map] --> (data | hole)* --> skip --> header
 *     header --> end-marker --> trailer                   (one zero block, then another)
 */
type State =
  | 'header' // a header block, or the first zero block
  | 'end-marker' // one zero block was seen: another, or nothing
  | 'sparse-extension' // more of an old GNU sparse map
  | 'sparse-map' // a map in front of the data, pax sparse 1.0
  | 'collect' // the data of a pax header or long name
  | 'data' // content of the current file
  | 'hole' // no bytes at all: zeros for the sink
  | 'skip' // padding up to a block, or data nobody wants
  | 'trailer' // behind the end marker

/** What a member that describes the next one holds. */
type Collecting = 'pax' | 'global-pax' | 'long-name' | 'long-link'

const COLLECTED_TYPES = new Map<string, Collecting>([
  ['x', 'pax'],
  ['g', 'global-pax'],
  ['L', 'long-name'],
  ['K', 'long-link'],
])

/** GNU's: a name for the whole archive, with no member and no data behind it. */
const VOLUME_LABEL = 'V'

export class TarReader {
  readonly #sink: ArchiveSink
  #state: State = 'header'
  /** Bytes of the archive taken so far, for messages. */
  #position = 0
  /** Bytes to come in `collect`, `data`, `hole` and `skip`. */
  #remaining = 0
  /** Bytes from the end of a member's data to the next block. */
  #padding = 0

  /** A block that came in pieces, and how much of it is there. */
  readonly #block = new Uint8Array(BLOCK_BYTES)
  #blockFill = 0

  /** The member that is being read, and for messages also the one that was announced last. */
  #entry: ArchiveEntry | undefined
  #entries = 0
  #collecting: Collecting = 'pax'
  #collected: Uint8Array = NOTHING
  /** The header of what is collected, for messages. */
  #collectedName: ByteString = NO_NAME
  #metadataBytes = 0
  #skippedBytes = 0
  #trailerBytes = 0

  /** Set once any pax header was seen: the archive is certainly pax. */
  #isPax = false
  #globalPax: PaxFields = {}
  #pax: PaxFields | undefined
  #longName: ByteString | undefined
  #longLink: ByteString | undefined

  /** For a sparse file: the runs of data, which of them is next, and how far the sink has got. */
  #runs: number[] | undefined
  #nextRun = 0
  #filled = 0
  /** Bytes of the sparse file's member (its map included, where that is in the data) not given to a run. */
  #stored = 0
  #map: SparseMapReader | undefined

  constructor(sink: ArchiveSink) {
    this.#sink = sink
  }

  /** Both blocks of the end-of-archive marker were seen. */
  get ended(): boolean {
    return this.#state === 'trailer'
  }

  /** Takes the next bytes of the archive, and calls the sink for all that is in them. */
  write(chunk: Uint8Array): void {
    for (const _ of this.feed(chunk)) {
      // nothing to wait for
    }
  }

  /**
   * The same, in steps: yields after each `HOLE_BURST_BYTES` of a sparse file's zeros, since a few bytes
   * of an archive may stand for gigabytes of them. The chunk must stay as it is until the end.
   */
  *feed(chunk: Uint8Array): Generator<void, void> {
    let at = 0
    for (;;) {
      at = this.#take(chunk, at)
      if (this.#state !== 'hole') return
      yield
    }
  }

  /** No more bytes come. Throws unless the archive was complete. */
  end(): void {
    const truncated = (where: string) =>
      new ArchiveError(`the archive ends ${where}`, { hint: 'It was cut short: fetch it again.' })

    if (this.#state === 'trailer' || this.#state === 'end-marker') {
      if (this.#blockFill > 0) throw truncated('in the middle of its end-of-archive marker')
      if (this.#entries === 0) throw new ArchiveError('the archive is empty: it has no entries')
      return
    }
    if (this.#position === 0) throw new ArchiveError('the archive is empty: it has no bytes')
    if (this.#state === 'collect') {
      throw truncated(`in the middle of the extended header "${showBytes(this.#collectedName)}"`)
    }
    if (this.#state !== 'header') throw truncated(`in the middle of ${this.#entryName()}`)
    if (this.#blockFill > 0)
      throw truncated(`in the middle of the header block at byte ${this.#blockStart()}`)
    throw truncated('without an end-of-archive marker')
  }

  /** Works through the chunk from `at`, to its end or the end of a burst of zeros; returns how far it got. */
  #take(chunk: Uint8Array, at: number): number {
    for (;;) {
      if (this.#state === 'hole') {
        if (this.#emitHole()) return at
        continue
      }
      const here = chunk.length - at
      if (here === 0) return at
      let taken: number
      switch (this.#state) {
        case 'data':
          taken = Math.min(here, this.#remaining)
          this.#sink.data(at === 0 && taken === here ? chunk : chunk.subarray(at, at + taken))
          this.#position += taken
          this.#remaining -= taken
          if (this.#remaining === 0) this.#dataDone()
          break
        case 'skip':
          taken = Math.min(here, this.#remaining)
          this.#position += taken
          this.#remaining -= taken
          if (this.#remaining === 0) this.#state = 'header'
          break
        case 'collect':
          taken = Math.min(here, this.#remaining)
          this.#collected.set(chunk.subarray(at, at + taken), this.#collected.length - this.#remaining)
          this.#position += taken
          this.#remaining -= taken
          if (this.#remaining === 0) this.#collectDone()
          break
        case 'trailer':
          taken = here
          this.#position += taken
          this.#checkTrailer(chunk, at)
          break
        default:
          taken = this.#takeBlock(chunk, at)
      }
      at += taken
    }
  }

  // -------------------------------------------------------------------------------------------------
  // Blocks.

  /** Hands a whole block on: where it lies, if it lies in one piece. */
  #takeBlock(chunk: Uint8Array, at: number): number {
    const taken = Math.min(BLOCK_BYTES - this.#blockFill, chunk.length - at)
    this.#position += taken
    if (taken === BLOCK_BYTES) {
      this.#onBlock(chunk.subarray(at, at + BLOCK_BYTES))
      return taken
    }
    this.#block.set(chunk.subarray(at, at + taken), this.#blockFill)
    this.#blockFill += taken
    if (this.#blockFill === BLOCK_BYTES) {
      this.#blockFill = 0
      this.#onBlock(this.#block)
    }
    return taken
  }

  /** Where the block that is being put together, or was just handed on, starts in the archive. */
  #blockStart(): number {
    return this.#position - (this.#blockFill || BLOCK_BYTES)
  }

  #onBlock(block: Uint8Array): void {
    if (this.#state === 'header') this.#onHeader(block)
    else if (this.#state === 'end-marker') this.#onEndMarker(block)
    else if (this.#state === 'sparse-extension') this.#onSparseExtension(block)
    else this.#onSparseMap(block)
  }

  #onHeader(block: Uint8Array): void {
    if (!checksumMatches(block)) {
      if (!isZeroBlock(block)) {
        const after = this.#entries > 0 ? `, behind ${this.#entryName()}` : ''
        throw new ArchiveError(`the tar header at byte ${this.#blockStart()}${after} has a wrong checksum`, {
          hint: 'The archive is damaged: fetch it again.',
        })
      }
      if (this.#pax || this.#longName !== undefined || this.#longLink !== undefined) {
        throw new ArchiveError('the archive ends behind an extended header that describes no entry')
      }
      this.#state = 'end-marker'
      return
    }
    const header = decodeTarHeader(block)
    this.#countMetadata(BLOCK_BYTES, header)
    const collecting = COLLECTED_TYPES.get(header.type)
    if (collecting) this.#collect(collecting, header)
    else if (header.type !== VOLUME_LABEL) this.#onMember(header, block)
  }

  #onEndMarker(block: Uint8Array): void {
    if (!isZeroBlock(block)) {
      const at = this.#blockStart() - BLOCK_BYTES
      throw new ArchiveError(`a lone zero block stands in the archive at byte ${at}`, {
        hint: 'The archive is damaged, or is two archives joined, which is not supported.',
      })
    }
    this.#state = 'trailer'
  }

  #onSparseExtension(block: Uint8Array): void {
    const { path } = this.#entry!
    const { runs, extended } = decodeGnuSparseExtension(block, path)
    this.#runs!.push(...runs)
    checkRunCount(this.#runs!.length / 2, path)
    if (!extended) this.#startSparse()
  }

  #onSparseMap(block: Uint8Array): void {
    this.#stored -= BLOCK_BYTES
    if (this.#stored < 0) {
      throw new ArchiveError(`the sparse map of ${this.#entryName()} is longer than its data`)
    }
    if (!this.#map!.push(block)) return
    this.#runs = this.#map!.runs
    this.#map = undefined
    this.#startSparse()
  }

  // -------------------------------------------------------------------------------------------------
  // Members that describe the next one.

  #collect(what: Collecting, header: TarHeader): void {
    const limit = what === 'pax' || what === 'global-pax' ? MAX_PAX_BYTES : MAX_LONG_NAME_BYTES
    if (header.size > limit) {
      throw new ArchiveError(
        `the extended header "${showBytes(header.name)}" has ${header.size} bytes, more than ${limit}`,
      )
    }
    this.#countMetadata(header.size, header)
    this.#collecting = what
    this.#collectedName = header.name
    this.#collected = new Uint8Array(header.size)
    this.#padding = paddingOf(header.size)
    this.#remaining = header.size
    if (header.size > 0) this.#state = 'collect'
    else this.#collectDone()
  }

  #collectDone(): void {
    const data = this.#collected
    this.#collected = NOTHING
    const name = this.#collectedName
    switch (this.#collecting) {
      case 'pax':
        this.#isPax = true
        this.#pax = decodePax(data, this.#pax ?? this.#globalPax, name)
        break
      case 'global-pax':
        this.#isPax = true
        this.#globalPax = decodePax(data, this.#globalPax, name)
        if (this.#globalPax.sparse) {
          throw new ArchiveError(`the pax header "${showBytes(name)}" has a sparse map for all members`)
        }
        break
      case 'long-name':
        this.#longName = withoutTrailingNuls(data)
        break
      case 'long-link':
        this.#longLink = withoutTrailingNuls(data)
        break
    }
    this.#toNextBlock()
  }

  #countMetadata(bytes: number, header: TarHeader): void {
    this.#metadataBytes += bytes
    if (this.#metadataBytes > MAX_METADATA_BYTES) {
      throw new ArchiveError(
        `more than ${MAX_METADATA_BYTES} bytes of headers without an entry, up to "${showBytes(header.name)}"`,
      )
    }
  }

  // -------------------------------------------------------------------------------------------------
  // Members.

  #onMember(header: TarHeader, block: Uint8Array): void {
    const pax = this.#pax ?? this.#globalPax
    const isOldSparse = header.type === 'S' && header.format === 'gnu'
    const sparse = pax.sparse
    // The long name beats a global path, but not one that was written for this member.
    const ownPath = this.#pax?.path ?? this.#longName ?? pax.path ?? header.name
    const ownLink = this.#pax?.linkPath ?? this.#longLink ?? pax.linkPath ?? header.linkName
    const rawPath = sparse?.name ?? ownPath
    const size = pax.size ?? header.size
    const path = canonicalPath(rawPath)
    const type = memberType(header, rawPath, size, path)
    if (path === '' && type !== 'directory') {
      throw new ArchiveError(`the root of the archive is a ${type}, not a directory`)
    }
    const isDevice = type === 'char-device' || type === 'block-device'
    const entry: ArchiveEntry = {
      path,
      type,
      mode: header.mode,
      uid: pax.uid ?? header.uid,
      gid: pax.gid ?? header.gid,
      userName: (pax.userName ?? header.userName) || undefined,
      groupName: (pax.groupName ?? header.groupName) || undefined,
      size: type === 'file' ? size : 0,
      mtime: pax.mtime?.seconds ?? header.mtime,
      mtimeNsec: pax.mtime?.nanoseconds ?? 0,
      linkTarget: linkTarget(type, ownLink, path),
      major: isDevice ? (pax.major ?? header.major) : 0,
      minor: isDevice ? (pax.minor ?? header.minor) : 0,
      xattrs: pax.xattrs?.size ? pax.xattrs : undefined,
    }
    this.#entry = entry
    this.#pax = undefined
    this.#longName = undefined
    this.#longLink = undefined

    if (type !== 'file') {
      this.#announce()
      if (type === 'hardlink' && this.#isPax && header.format === 'ustar') this.#skipContent(size)
      return
    }
    this.#padding = paddingOf(size)
    if (isOldSparse) {
      const { runs, extended, realSize } = decodeGnuSparseHeader(block, path)
      entry.size = realSize
      this.#stored = size
      this.#runs = runs
      if (extended) this.#state = 'sparse-extension'
      else this.#startSparse()
    } else if (sparse) {
      if (sparse.realSize === undefined) {
        throw new ArchiveError(`the sparse file ${this.#entryName()} does not say its real size`)
      }
      entry.size = sparse.realSize
      this.#stored = size
      if (sparse.mapInData) {
        this.#map = new SparseMapReader(path)
        this.#state = 'sparse-map'
      } else {
        this.#runs = sparse.runs
        this.#startSparse()
      }
    } else {
      this.#announce()
      this.#remaining = size
      if (size > 0) this.#state = 'data'
    }
  }

  #announce(): void {
    this.#entries++
    this.#metadataBytes = 0
    this.#sink.entry(this.#entry!)
  }

  #skipContent(bytes: number): void {
    if (bytes === 0) return
    this.#skippedBytes += bytes
    if (this.#skippedBytes > MAX_SKIPPED_BYTES) {
      throw new ArchiveError(
        `the hard links up to ${this.#entryName()} repeat more than ${MAX_SKIPPED_BYTES} bytes of content`,
      )
    }
    this.#remaining = bytes + paddingOf(bytes)
    this.#state = 'skip'
  }

  /** The map is known: the sink hears of the real size before the first zero of a hole. */
  #startSparse(): void {
    const { path, size } = this.#entry!
    checkRunCount(this.#runs!.length / 2, path)
    checkSparseMap(this.#runs!, size, this.#stored, path)
    this.#nextRun = 0
    this.#filled = 0
    this.#announce()
    this.#dataDone()
  }

  /** A run of data or a hole is complete, or a sparse file starts: on to what follows. */
  #dataDone(): void {
    const runs = this.#runs
    if (runs) {
      for (; this.#nextRun < runs.length; this.#nextRun += 2) {
        const offset = runs[this.#nextRun]!
        const length = runs[this.#nextRun + 1]!
        if (offset > this.#filled) {
          this.#give('hole', offset - this.#filled)
          return
        }
        if (length > 0) {
          this.#nextRun += 2
          this.#give('data', length)
          return
        }
      }
      const rest = this.#entry!.size - this.#filled
      if (rest > 0) {
        this.#give('hole', rest)
        return
      }
      this.#runs = undefined
    }
    this.#toNextBlock()
  }

  #give(state: 'data' | 'hole', bytes: number): void {
    this.#state = state
    this.#remaining = bytes
    this.#filled += bytes
  }

  /** Gives the sink zeros; true when the hole goes on after this burst. */
  #emitHole(): boolean {
    for (let burst = 0; burst < HOLE_BURST_BYTES; ) {
      const bytes = Math.min(ZEROS.length, this.#remaining)
      this.#sink.data(bytes === ZEROS.length ? ZEROS : ZEROS.subarray(0, bytes))
      burst += bytes
      this.#remaining -= bytes
      if (this.#remaining === 0) {
        this.#dataDone()
        return false
      }
    }
    return true
  }

  #toNextBlock(): void {
    this.#remaining = this.#padding
    this.#state = this.#padding > 0 ? 'skip' : 'header'
  }

  // -------------------------------------------------------------------------------------------------

  #checkTrailer(chunk: Uint8Array, from: number): void {
    this.#trailerBytes += chunk.length - from
    if (!isAllZero(chunk, from, chunk.length)) {
      throw new ArchiveError('data follows behind the end of the archive', {
        hint: 'Archives that were joined (cat A.tar B.tar) are not supported: make one archive of them.',
      })
    }
    if (this.#trailerBytes > MAX_TRAILER_BYTES) {
      throw new ArchiveError(`more than ${MAX_TRAILER_BYTES} bytes of zeros follow the end of the archive`)
    }
  }

  #entryName(): string {
    return `"${showBytes(this.#entry?.path || ('.' as ByteString))}"`
  }
}

function memberType(
  header: TarHeader,
  rawPath: ByteString,
  size: number,
  path: ByteString,
): ArchiveEntryType {
  switch (header.type) {
    case '0':
    case '7': // contiguous: a file like any other on systems of today
      if (!rawPath.endsWith('/')) return 'file'
      // v7 had no type for directories, only the slash. With content, readers disagree on what this is.
      if (size === 0) return 'directory'
      throw new ArchiveError(
        `"${showBytes(path)}" is named like a directory but has ${size} bytes of content`,
      )
    case '1':
      return 'hardlink'
    case '2':
      return 'symlink'
    case '3':
      return 'char-device'
    case '4':
      return 'block-device'
    case '5':
      return 'directory'
    case '6':
      return 'fifo'
    case 'S':
      if (header.format === 'gnu') return 'file' // star's type S is another format
      break
    case 'M':
      throw new ArchiveError(`"${showBytes(path)}" is continued from another volume`, {
        hint: 'Archives of several volumes are not supported: make one archive of them.',
      })
  }
  throw new ArchiveError(
    `"${showBytes(path)}" has the unknown type "${showBytes(header.type as ByteString)}"`,
  )
}

function linkTarget(type: ArchiveEntryType, raw: ByteString, path: ByteString): ByteString {
  if (type === 'symlink') return checkSymlinkTarget(raw, path)
  if (type !== 'hardlink') return NO_NAME
  const target = canonicalPath(raw, path)
  if (target === '') throw new ArchiveError(`the hard link "${showBytes(path)}" points at the archive's root`)
  return target
}

/** GNU tar counts the closing NUL of a long name as part of it. */
function withoutTrailingNuls(data: Uint8Array): ByteString {
  let end = data.length
  while (end > 0 && data[end - 1] === 0) end--
  return byteString(data, 0, end)
}

function paddingOf(size: number): number {
  const over = size % BLOCK_BYTES
  return over === 0 ? 0 : BLOCK_BYTES - over
}

const NOTHING = new Uint8Array(0)
const NO_NAME = '' as ByteString
/** What holes are made of; as large as a chunk from a decompressor. */
const ZEROS = new Uint8Array(256 * 1024)
