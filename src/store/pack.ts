/**
 * A pack: many blobs in one file, one after the other, with an index behind them.
 *
 *     16 bytes   magic 'upserv-pack\0', version u32
 *     ...        blobs as they are, in the order of the index
 *     56 bytes   per blob: SHA-256 [32], offset u64, stored length u64, encoding u32, reserved u32 (0)
 *     64 bytes   index offset u64, count u64, SHA-256 of the index [32], magic 'upserv-index\0\0\0\0'
 *
 * All numbers are little-endian. One file, so that index and data cannot disagree; the index last, so that
 * a pack is written in one pass. A pack is sealed when its footer is written and fsynced, before it gets
 * its name in packs/; it never changes afterwards. Nothing of an index is believed before its digest, its
 * bounds and the file's size were checked.
 */
import { createHash } from 'node:crypto'
import { StoreCorrupt, StoreError, StoreFormat } from '../errors.ts'
import { asBuffer } from '../lib/bytes.ts'
import { type Disk, type DiskFile, type DiskNow, realDisk } from '../lib/disk.ts'
import { QuickReads } from '../lib/quick-reads.ts'
import { diskError, isDiskFull } from './disk-error.ts'
import { FILE_MODE } from './paths.ts'

export const DIGEST_BYTES = 32
export const PACK_HEADER_BYTES = 16
export const PACK_RECORD_BYTES = 56
export const PACK_FOOTER_BYTES = 64
const PACK_VERSION = 1
const PACK_MAGIC = 'upserv-pack\0'
const INDEX_MAGIC = 'upserv-index\0\0\0\0'

/** The only encoding of version 1: the blob's own bytes. Numbers from 1 are for compressed forms. */
export const ENCODING_RAW = 0

/**
 * A pack ends before the blob that would take it past this size, so that rewriting one takes little room
 * and little time. A larger blob has a pack of its own.
 */
export const PACK_LIMIT = 128 * 2 ** 20

/** A pack also ends at this many blobs: its index stays below 4 MB, and so does what it takes to read one. */
export const PACK_MAX_BLOBS = 65_536

/** How much the writer gathers before it writes: few system calls, little memory. */
const WRITE_BUFFER = 2 ** 20

/** How often in a row a writer asks for room without being able to write a byte afterwards. */
const MAX_ASKS_IN_VAIN = 2

/** What a blob costs on disk beyond its own bytes. */
export const BLOB_OVERHEAD = PACK_RECORD_BYTES

/** One blob in a pack. */
export interface PackRecord {
  /** SHA-256 of the blob. */
  digest: Uint8Array
  offset: number
  length: number
}

// ---------------------------------------------------------------------------------------------------
// The format: pure functions.

export function encodePackHeader(): Buffer {
  const header = Buffer.alloc(PACK_HEADER_BYTES)
  header.write(PACK_MAGIC, 0, 'latin1')
  header.writeUInt32LE(PACK_VERSION, 12)
  return header
}

/** Index and footer of a pack whose blobs end at `indexOffset`. */
export function encodePackIndex(records: readonly PackRecord[], indexOffset: number): Buffer {
  const size = records.length * PACK_RECORD_BYTES
  const bytes = Buffer.alloc(size + PACK_FOOTER_BYTES)
  let at = 0
  for (const { digest, offset, length } of records) {
    bytes.set(digest, at)
    bytes.writeBigUInt64LE(BigInt(offset), at + 32)
    bytes.writeBigUInt64LE(BigInt(length), at + 40)
    bytes.writeUInt32LE(ENCODING_RAW, at + 48)
    at += PACK_RECORD_BYTES
  }
  bytes.writeBigUInt64LE(BigInt(indexOffset), at)
  bytes.writeBigUInt64LE(BigInt(records.length), at + 8)
  bytes.set(sha256(bytes.subarray(0, size)), at + 16)
  bytes.write(INDEX_MAGIC, at + 48, 'latin1')
  return bytes
}

export interface PackFooter {
  indexOffset: number
  count: number
  indexDigest: Uint8Array
}

/** Checks the last 64 bytes of a pack of `fileSize` bytes. */
export function decodePackFooter(footer: Uint8Array, fileSize: number): PackFooter {
  const bytes = asBuffer(footer)
  if (bytes.length !== PACK_FOOTER_BYTES) throw new StoreCorrupt(`is too short (${fileSize} bytes)`)
  if (bytes.toString('latin1', 48) !== INDEX_MAGIC) throw new StoreCorrupt('does not end as a pack does')
  const indexOffset = Number(bytes.readBigUInt64LE(0))
  const count = Number(bytes.readBigUInt64LE(8))
  // Holds for one pair of numbers only, and keeps both far below 2^53.
  if (
    indexOffset < PACK_HEADER_BYTES ||
    indexOffset + count * PACK_RECORD_BYTES + PACK_FOOTER_BYTES !== fileSize
  ) {
    throw new StoreCorrupt(`of ${fileSize} bytes cannot hold ${count} blobs with an index at ${indexOffset}`)
  }
  return { indexOffset, count, indexDigest: bytes.subarray(16, 48) }
}

export function checkPackHeader(header: Uint8Array): void {
  const bytes = asBuffer(header)
  if (bytes.length < PACK_HEADER_BYTES || bytes.toString('latin1', 0, 12) !== PACK_MAGIC) {
    throw new StoreCorrupt('does not begin as a pack does')
  }
  const version = bytes.readUInt32LE(12)
  if (version !== PACK_VERSION)
    throw new StoreFormat(`has version ${version}; this program reads ${PACK_VERSION}`)
}

/** A checked index. Views into its bytes, no object per blob. */
export class PackIndex {
  readonly count: number
  /** Length of the whole file. */
  readonly fileSize: number
  /** The records as they are in the file; a digest is at the start of each. */
  readonly records: Buffer

  /** @throws StoreCorrupt unless digest, order and bounds of all records are right. */
  constructor(records: Uint8Array, footer: PackFooter, fileSize: number) {
    this.records = asBuffer(records)
    this.count = footer.count
    this.fileSize = fileSize
    if (
      this.records.length !== footer.count * PACK_RECORD_BYTES ||
      !sha256(this.records).equals(footer.indexDigest)
    ) {
      throw new StoreCorrupt('has an index that does not match its digest')
    }
    let end = PACK_HEADER_BYTES
    for (let i = 0; i < this.count; i++) {
      const offset = this.offset(i)
      const length = this.length(i)
      if (offset < end || length > footer.indexOffset - offset) {
        throw new StoreCorrupt(`says that blob ${i} has ${length} bytes at ${offset}`)
      }
      const encoding = this.records.readUInt32LE(i * PACK_RECORD_BYTES + 48)
      if (encoding !== ENCODING_RAW)
        throw new StoreFormat(`holds a blob of encoding ${encoding}, which we do not read`)
      end = offset + length
    }
  }

  digest(i: number): Uint8Array {
    return this.records.subarray(i * PACK_RECORD_BYTES, i * PACK_RECORD_BYTES + DIGEST_BYTES)
  }
  offset(i: number): number {
    return readU64(this.records, i * PACK_RECORD_BYTES + 32)
  }
  length(i: number): number {
    return readU64(this.records, i * PACK_RECORD_BYTES + 40)
  }
}

// ---------------------------------------------------------------------------------------------------
// Files.

/** Reads and checks the index of a pack, and nothing of its blobs. */
export async function readPackIndex(path: string, disk: Disk = realDisk): Promise<PackIndex> {
  const handle = await disk.open(path, 'r')
  try {
    const { size } = await handle.stat()
    checkPackHeader(await readExactly(handle, 0, Math.min(PACK_HEADER_BYTES, size)))
    const footerAt = Math.max(PACK_HEADER_BYTES, size - PACK_FOOTER_BYTES)
    const footer = decodePackFooter(await readExactly(handle, footerAt, size - footerAt), size)
    const records = await readExactly(handle, footer.indexOffset, footer.count * PACK_RECORD_BYTES)
    return new PackIndex(records, footer, size)
  } catch (error) {
    if (error instanceof StoreError)
      throw new (error.constructor as typeof StoreError)(`${path} ${error.message}`)
    throw error
  } finally {
    await handle.close()
  }
}

/**
 * Writes one pack. Synchronous: for worker threads only.
 *
 * `begin`, any number of `append`, then `keep(digest)`; or `drop()`, which forgets what was appended since
 * `begin`, because it turned out to be a blob that is known already.
 */
export class PackWriter {
  readonly path: string
  readonly #disk: DiskNow
  readonly #fd: number
  readonly #records: PackRecord[] = []
  readonly #buffer = Buffer.allocUnsafe(WRITE_BUFFER)
  readonly #whenFull: () => boolean
  #buffered = 0
  /** File offset of the buffer's first byte. */
  #flushed = 0
  #blobStart = PACK_HEADER_BYTES
  #open = true

  /** `whenFull` is called when the disk is full: it makes room and returns true, or the error goes on. */
  constructor(path: string, whenFull: () => boolean = () => false, disk: DiskNow = realDisk.now) {
    this.path = path
    this.#whenFull = whenFull
    this.#disk = disk
    this.#fd = this.#try(() => disk.open(path, 'wx', FILE_MODE))
    this.append(encodePackHeader())
    this.#blobStart = this.size
  }

  /** Bytes in the pack so far. */
  get size(): number {
    return this.#flushed + this.#buffered
  }
  get count(): number {
    return this.#records.length
  }

  /** False when a blob of so many bytes belongs into the next pack. */
  takes(bytes: number): boolean {
    return this.count === 0 || (this.count < PACK_MAX_BLOBS && this.size + bytes <= PACK_LIMIT)
  }

  begin(): void {
    this.#blobStart = this.size
  }

  append(chunk: Uint8Array): void {
    if (chunk.length > WRITE_BUFFER - this.#buffered) this.#flush()
    if (chunk.length >= WRITE_BUFFER) {
      this.#write(chunk)
    } else {
      this.#buffer.set(chunk, this.#buffered)
      this.#buffered += chunk.length
    }
  }

  keep(digest: Uint8Array): void {
    this.#records.push({
      digest: Uint8Array.from(digest),
      offset: this.#blobStart,
      length: this.size - this.#blobStart,
    })
    this.#blobStart = this.size
  }

  drop(): void {
    if (this.#blobStart >= this.#flushed) {
      this.#buffered = this.#blobStart - this.#flushed
    } else {
      this.#flushed = this.#blobStart
      this.#buffered = 0
    }
  }

  /** Writes index and footer and makes the file's content durable. The pack has no name in packs/ yet. */
  seal(): { size: number; count: number } {
    try {
      this.drop()
      const indexOffset = this.size
      this.append(encodePackIndex(this.#records, indexOffset))
      this.#flush()
      // A dropped blob may have left bytes beyond the footer.
      this.#try(() => this.#disk.truncate(this.#fd, this.#flushed))
      // Durable before the rename into packs/ makes it visible: see durable.ts, step 2.
      this.#try(() => this.#disk.sync(this.#fd, 'blobs of an ingest'))
    } finally {
      this.#try(() => this.close())
    }
    return { size: this.#flushed, count: this.#records.length }
  }

  /** Lets go of the file, as it is. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#disk.close(this.#fd)
  }

  #flush(): void {
    const bytes = this.#buffer.subarray(0, this.#buffered)
    this.#buffered = 0
    this.#write(bytes)
  }

  #write(bytes: Uint8Array): void {
    writeWhole(this.#disk, this.#fd, this.path, bytes, this.#flushed, this.#whenFull)
    this.#flushed += bytes.length
  }

  #try<T>(action: () => T): T {
    try {
      return action()
    } catch (error) {
      throw diskError(error, this.path)
    }
  }
}

/**
 * Writes all of these bytes, for who writes what an ingest makes.
 * @param whenFull makes room on a full disk; false when there is none. @throws NoRoom, StoreError.
 */
export function writeWhole(
  disk: DiskNow,
  fd: number,
  path: string,
  bytes: Uint8Array,
  position: number,
  whenFull: () => boolean,
): void {
  let asked = 0
  for (let done = 0; done < bytes.length; ) {
    try {
      done += disk.write(fd, bytes, done, bytes.length - done, position + done)
      asked = 0
    } catch (error) {
      // Room that was made and does not help must not cost one build after the other.
      const askAgain = isDiskFull(error) && asked++ < MAX_ASKS_IN_VAIN
      if (!askAgain || !whenFull()) throw diskError(error, path)
    }
  }
}

/**
 * A pack that is read from, shared by all who do. Opened when the first one needs it; kept open while
 * anybody holds it, so that readers finish undisturbed when the pack is unlinked meanwhile.
 */
export class PackFile {
  readonly path: string
  readonly #disk: Disk
  #handle: DiskFile | undefined
  #opening: Promise<DiskFile> | undefined
  #holds = 0
  #retired = false

  constructor(path: string, disk: Disk = realDisk) {
    this.path = path
    this.#disk = disk
  }

  get isOpen(): boolean {
    return this.#opening !== undefined
  }
  /** Valid between `acquire` and `release`. */
  get fd(): number {
    return this.#handle!.fd
  }

  /** Holds the file open until `release`. Throws ENOENT when the pack has gone before it was opened. */
  async acquire(): Promise<void> {
    // Held first, opened then: otherwise it could be closed between the opening and us.
    this.#holds++
    this.#opening ??= this.#disk.open(this.path, 'r')
    const opening = this.#opening
    try {
      this.#handle = await opening
    } catch (error) {
      // Not that of somebody who has tried again meanwhile.
      if (this.#opening === opening) this.#opening = undefined
      this.#holds--
      throw error
    }
  }

  release(): void {
    this.#holds--
    if (this.#retired) this.rest()
  }

  /** Closes the file unless somebody holds it; the next `acquire` opens it again. */
  rest(): void {
    if (this.#holds > 0 || !this.#handle) return
    const handle = this.#handle
    this.#handle = undefined
    this.#opening = undefined
    // Nothing was written through it, so nothing can fail to arrive.
    handle.close().catch(() => {})
  }

  /** The pack is about to be unlinked: close as soon as the last holder has let go. */
  retire(): void {
    this.#retired = true
    this.rest()
  }

  /** Fills as much of `targets`, one after the other, as there is from `offset` on. @returns how many bytes. */
  async readSome(targets: readonly Uint8Array[], offset: number): Promise<number> {
    return (await this.#handle!.readv(targets, offset)).bytesRead
  }

  /** As `readSome`, at once; undefined when the file is not open, or that would take long. */
  readSomeNow(targets: readonly Uint8Array[], offset: number): number | undefined {
    const handle = this.#handle
    return handle && QuickReads.ofServer.try(() => handle.readvNow(targets, offset))
  }

  /** Fills all of `targets`, one after the other, from `offset` of the pack on. */
  async read(targets: readonly Uint8Array[], offset: number): Promise<void> {
    let missing = targets.reduce((sum, { length }) => sum + length, 0)
    const end = offset + missing
    let left = targets
    while (missing > 0) {
      const { bytesRead } = await this.#handle!.readv(left, end - missing)
      if (bytesRead === 0) throw new StoreCorrupt(`${this.path} ends before byte ${end}`)
      missing -= bytesRead
      if (missing > 0) left = without(left, bytesRead)
    }
  }
}

/** What of `targets` is still to be filled when `done` bytes are there. */
function without(targets: readonly Uint8Array[], done: number): Uint8Array[] {
  const left: Uint8Array[] = []
  for (const target of targets) {
    if (done < target.length) left.push(target.subarray(done))
    done = Math.max(0, done - target.length)
  }
  return left
}

async function readExactly(handle: DiskFile, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length)
  let done = 0
  while (done < length) {
    const { bytesRead } = await handle.read(bytes, done, length - done, offset + done)
    if (bytesRead === 0) throw new StoreCorrupt(`ends at byte ${offset + done}`)
    done += bytesRead
  }
  return bytes
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest()
}

/** Beyond 2^53 it is inexact, but still too large for every bound that it is checked against. */
function readU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32
}
