/**
 * Cache: derived data on disk, found by a key. Nothing in it is needed: it may be deleted at any time, a
 * record that is torn or rotten is as good as absent, and a disk that is full costs time, never an answer.
 *
 * Records are appended to segments of bounded size. When room is short the segment that was used longest
 * ago goes, whole. Where each record is stands in memory (key-table.ts); what is read stays in a pool of
 * blocks that all clients share (lib/block-pool.ts), what is longer as a whole (shared-records.ts). Records on their
 * way to the disk are read from memory.
 */
import { readdirSync, readvSync } from 'node:fs'
import { type FileHandle, mkdir, open, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import { type BlockFile, type BlockPool, nextFileId } from '../lib/block-pool.ts'
import { Pacer } from '../lib/pacer.ts'
import { QuickReads } from '../lib/quick-reads.ts'
import { KEY_BYTES, KeyTable, type Place } from './key-table.ts'
import { PieceMemory, Pieces } from './pieces.ts'
import {
  decodeRecordHeader,
  encodeRecordHeader,
  encodeSegmentHeader,
  isSegmentHeader,
  RECORD_HEADER_BYTES,
  SEGMENT_HEADER_BYTES,
} from './segment.ts'
import { SharedRecords } from './shared-records.ts'

export interface CacheOptions {
  directory: string
  /** The most bytes that the segments take. */
  limit: number
  /** The most records. MOST_RECORDS unless a test needs fewer. */
  mostRecords?: number
  /** Where what was read stays in memory. */
  pool: BlockPool
  /** Old records are looked for when this has settled: others need the disk more. */
  after?: Promise<unknown>
  /** Whether the data directory has room for so many more bytes. */
  hasRoom?: (bytes: number) => boolean
  /** Told the bytes that the segments take, whenever that changes. */
  onChange?: (bytes: number) => void
  /** Told once of each thing that goes wrong with the disk. */
  onProblem?: (problem: Error) => void
}

/** Since the cache was opened. */
export interface CacheTally {
  /** Bytes of records that were put. */
  readonly written: number
  /** Bytes of segments that had to go. */
  readonly dropped: number
  /** Number of the segment that the next record goes to, and the highest of one that is gone. */
  readonly next: number
  readonly droppedUpTo: number
  /** The same of those that went as there were too many records, which a higher limit on bytes would not have saved. */
  readonly crowdedUpTo: number
}

/**
 * Where each record is takes memory (key-table.ts): with so many 256 MiB, and the next ones would double that. What a
 * fleet asks for comes to some kilobytes a record, but a client can have millions of tiny ones made.
 */
const MOST_RECORDS = 5 * 2 ** 20
/** A segment that has grown to this size is closed. */
const SEGMENT_BYTES = 64 * 2 ** 20
/** A segment is at most this share of the whole, so that dropping one does not drop nearly everything. */
const FEWEST_SEGMENTS = 8
/** No record is larger: what is read must fit into memory, for each client. */
export const MAX_RECORD = 4 * 2 ** 20
/** Bytes that may wait to be written; beyond them records are not kept. */
const MAX_WAITING = 16 * 2 ** 20
/** Records are written when so much of them has collected, or after that time: a thread for each costs more than it. */
const FLUSH_BYTES = 512 * 1024
const FLUSH_MS = 25
/** A write that failed is not tried again before this time. */
const RETRY_MS = 60_000
/** Larger records can't be peeked at. */
const MAX_PEEKED = 68 * 1024
/** Records of this size are read past the pool where that is quick: they would only empty it of small ones. */
const LARGE = 8 * 1024
/** From this size on those who bring no memory share what they read. */
const SHARED = 64 * 1024
/** What may stay in memory of records from LARGE on that are asked for again and again. */
const MOST_STAYING = 64 * 2 ** 20
/** Headers are read from a segment in pieces of this size when it is looked through. */
const SCAN_BYTES = 256 * 1024
const DIRECTORY_MODE = 0o750
const FILE_MODE = 0o640

export class Cache {
  readonly #options: CacheOptions
  readonly #table = new KeyTable()
  /** What `peek` returned last. */
  readonly #scratch = Buffer.allocUnsafeSlow(MAX_PEEKED)
  readonly #pool: BlockPool
  readonly #shared = new SharedRecords(MOST_STAYING)
  readonly #segments = new Map<number, Segment>()
  readonly #pieces = new PieceMemory()
  readonly #segmentBytes: number
  readonly #mostRecords: number
  #limit: number
  #active: Segment | undefined
  #nextNumber = 0
  #uses = 0
  #bytes = 0
  /** Of these, in segments that are about to go: room that is as good as made. */
  #leavingBytes = 0
  #written = 0
  #dropped = 0
  #droppedUpTo = -1
  #crowdedUpTo = -1
  #waiting = 0
  #flushTimer: NodeJS.Timeout | undefined
  #restingUntil = 0
  #closed = false
  /** Everything that touches the disk beside reads, one after the other. */
  #work: Promise<void> = Promise.resolve()

  private constructor(options: CacheOptions) {
    this.#options = options
    this.#pool = options.pool
    this.#limit = options.limit
    this.#mostRecords = options.mostRecords ?? MOST_RECORDS
    this.#segmentBytes = Math.min(SEGMENT_BYTES, Math.max(MAX_RECORD, options.limit / FEWEST_SEGMENTS))
  }

  /**
   * Opens what an earlier process left. When this returns the cache can be used; it knows the old records
   * once `ready` resolves.
   */
  static open(options: CacheOptions): Cache {
    const cache = new Cache(options)
    const old = segmentNumbers(options.directory)
    cache.#nextNumber = (old.at(-1) ?? -1) + 1
    cache.#enqueue(async () => {
      await options.after?.catch(() => {})
      await cache.#load(old)
    })
    return cache
  }

  /** Resolves when all that was asked for so far is done: old records are known, new ones on disk. */
  get ready(): Promise<void> {
    this.#flushAll()
    return this.#work
  }

  /** The most bytes that the segments take from now on. */
  set limit(bytes: number) {
    this.#limit = bytes
    this.#enqueue(() => this.#shrink())
  }

  /** Bytes of all segments. */
  get bytes(): number {
    return this.#bytes
  }
  /** To be compared with a later one: what was put in between, and what had to go. */
  get tally(): CacheTally {
    return {
      written: this.#written,
      dropped: this.#dropped,
      next: this.#active?.number ?? this.#nextNumber,
      droppedUpTo: this.#droppedUpTo,
      crowdedUpTo: this.#crowdedUpTo,
    }
  }
  get records(): number {
    return this.#table.count
  }
  /** Bytes of records that stay in memory since they are asked for again and again. */
  get staying(): number {
    return this.#shared.staying
  }

  has(key: Uint8Array): boolean {
    const place = this.#table.find(key)
    return place !== undefined && this.#segments.has(place.segment)
  }

  /**
   * The record; at once when it is in memory. Undefined when there is none, or it can't be read.
   * @param take gives memory for it, and the record begins at its first byte; or none: then those who read it at the
   *   same time share it.
   */
  get(
    key: Uint8Array,
    take: (size: number) => Buffer | undefined = memoryOfItsOwn,
  ): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    const found = this.#find(key)
    if (!found) return undefined
    const { segment, place } = found
    if (place.length < LARGE) {
      const memory = take(place.length) ?? Buffer.allocUnsafe(place.length)
      return this.#read(segment, place, memory.subarray(0, place.length))
    }
    const id = idOf(segment, place)
    const held = this.#shared.find(id)
    if (held) return held
    const stays = this.#shared.ask(id, place.length)
    const memory = stays ? undefined : take(place.length)
    if (memory) return this.#read(segment, place, memory.subarray(0, place.length))
    return this.#shared.share(id, place.length, stays, (own) => this.#read(segment, place, own))
  }

  #read(
    segment: Segment,
    place: Place,
    payload: Buffer,
  ): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    const waiting = segment.waiting.get(place.offset)
    if (waiting) {
      payload.set(waiting)
      return payload
    }
    const check = (): Uint8Array | undefined => checked(payload, place)
    if (payload.length >= LARGE && segment.readNow([payload], place.offset) === payload.length) return check()
    return this.#pool.copy(segment, place.offset, payload)?.then(check, () => undefined) ?? check()
  }

  /** A small record when it can be had at once, in memory that is used for something else after the caller's turn. */
  peek(key: Uint8Array): Uint8Array | undefined {
    const found = this.#find(key)
    if (!found || found.place.length > this.#scratch.length) return undefined
    const { segment, place } = found
    const waiting = segment.waiting.get(place.offset)
    if (waiting) return waiting
    const scratch = this.#scratch.subarray(0, place.length)
    if (place.length < LARGE)
      return this.#pool.copyNow(segment, place.offset, scratch) ? checked(scratch, place) : undefined
    const id = idOf(segment, place)
    const held = this.#shared.find(id)
    if (held) return held instanceof Promise ? undefined : held
    if (segment.readNow([scratch], place.offset) !== scratch.length || !checked(scratch, place))
      return undefined
    // Who can't be answered at once asks again, by `get`.
    if (this.#shared.ask(id, place.length))
      this.#shared.share(id, place.length, true, (memory) => memory.fill(scratch))
    return scratch
  }

  #find(key: Uint8Array): { segment: Segment; place: Place } | undefined {
    const place = this.#table.find(key)
    const segment = place && this.#segments.get(place.segment)
    if (!segment) return undefined
    segment.lastUse = ++this.#uses
    return { segment, place }
  }

  /**
   * Keeps a copy of a record, in place of one of the same key; or doesn't, when there is no room or no time.
   * @returns whether it does.
   */
  put(key: Uint8Array, payload: Uint8Array): boolean {
    const size = RECORD_HEADER_BYTES + payload.length
    if (this.#closed || payload.length > MAX_RECORD || this.#waiting + size > MAX_WAITING) return false
    if (Date.now() < this.#restingUntil) return false
    const segment = this.#segmentFor(size)
    if (!segment) return false
    const crc = crc32(payload)
    const header = encodeRecordHeader({ key: key.subarray(0, KEY_BYTES), length: payload.length, crc })
    const offset = segment.append(header, payload)
    segment.records++
    this.#grow(size)
    this.#written += size
    this.#waiting += size
    this.#table.set(key, { segment: segment.number, offset, length: payload.length, crc })
    if (segment.flushDue) return true
    if (segment.collected >= FLUSH_BYTES) this.#flushAll()
    else this.#flushTimer ??= setTimeout(() => this.#flushAll(), FLUSH_MS).unref()
    return true
  }

  /** Frees at least so many bytes, if there are so many. Resolves when they are gone. */
  async drop(bytes: number): Promise<void> {
    const dropped: Segment[] = []
    for (let freed = 0; freed < bytes; ) {
      const oldest = this.#oldest()
      if (!oldest) break
      dropped.push(oldest)
      freed += oldest.size
    }
    if (dropped.length > 0) await this.#enqueue(() => this.#dropSegments(dropped))
  }

  /** Writes nothing more, and goes on to be read: another process is about to write here. */
  async pause(): Promise<void> {
    this.#closed = true
    await this.ready
  }

  /** It did not come to that. */
  resume(): void {
    this.#closed = false
  }

  async close(): Promise<void> {
    await this.pause()
    this.#shared.close()
    for (const segment of this.#segments.values()) await segment.close()
  }

  #flushAll(): void {
    clearTimeout(this.#flushTimer)
    this.#flushTimer = undefined
    for (const segment of this.#segments.values()) {
      if (segment.collected === 0 || segment.flushDue) continue
      segment.flushDue = true
      this.#enqueue(() => this.#flush(segment))
    }
  }

  /** Writes what has collected for a segment, in one go. */
  async #flush(segment: Segment): Promise<void> {
    segment.flushDue = false
    try {
      if (this.#segments.has(segment.number)) await segment.flush()
    } catch (error) {
      this.#restingUntil = Date.now() + RETRY_MS
      await this.#dropSegments([segment])
      throw error
    } finally {
      // Counted anew: more may have come meanwhile, for a segment that has just been given up.
      this.#waiting = 0
      for (const { waitingBytes } of this.#segments.values()) this.#waiting += waitingBytes
    }
  }

  /** A segment that the record fits into, with room made for it; undefined when there can't be any. */
  #segmentFor(size: number): Segment | undefined {
    if (this.#table.count >= this.#mostRecords) {
      // Only what is gone leaves room in the index.
      const crowded = this.#leavingBytes === 0 ? this.#crowded() : undefined
      if (crowded) this.#enqueue(() => this.#dropSegments([crowded]))
      return undefined
    }
    const isOver = this.#bytes - this.#leavingBytes + size > this.#limit
    if (isOver || this.#options.hasRoom?.(size - this.#leavingBytes) === false) {
      // Room is made behind the writes under way: until then the limit is passed by what waits.
      const oldest = this.#oldest((segment) => segment !== this.#active)
      if (!oldest) return undefined
      this.#enqueue(() => this.#dropSegments([oldest]))
    }
    const fits = this.#active && this.#active.size + size <= this.#segmentBytes
    if (!fits) {
      const number = this.#nextNumber++
      this.#active = new Segment(number, this.#pathOf(number), 0, this.#pieces)
      this.#segments.set(number, this.#active)
      this.#grow(SEGMENT_HEADER_BYTES)
    }
    const segment = this.#active!
    segment.lastUse = ++this.#uses
    return segment
  }

  /** Chooses the segment used longest ago to be dropped. It gets no more records. */
  #oldest(mayGo: (segment: Segment) => boolean = () => true): Segment | undefined {
    let oldest: Segment | undefined
    for (const segment of this.#segments.values()) {
      if (segment.leaving || !mayGo(segment)) continue
      if (!oldest || segment.lastUse < oldest.lastUse) oldest = segment
    }
    if (!oldest) return undefined
    oldest.leaving = true
    this.#leavingBytes += oldest.size
    if (this.#active === oldest) this.#active = undefined
    return oldest
  }

  /** The same among those with more than their share of the records: others would hardly make room for any. */
  #crowded(): Segment | undefined {
    const staying = [...this.#segments.values()].filter(({ leaving }) => !leaving)
    const all = staying.reduce((sum, { records }) => sum + records, 0)
    const crowded = this.#oldest(({ records }) => records * staying.length >= all)
    if (crowded) crowded.crowded = true
    return crowded
  }

  async #dropSegments(segments: readonly Segment[]): Promise<void> {
    for (const segment of segments) {
      if (this.#active === segment) this.#active = undefined
      if (!this.#segments.delete(segment.number)) continue
      this.#pool.forget(segment)
      this.#shared.forget(firstIdOf(segment), firstIdOf(segment) + SEGMENT_BYTES)
      if (segment.leaving) this.#leavingBytes -= segment.size
      this.#grow(-segment.size)
      this.#dropped += segment.size
      this.#droppedUpTo = Math.max(this.#droppedUpTo, segment.number)
      if (segment.crowded) this.#crowdedUpTo = Math.max(this.#crowdedUpTo, segment.number)
      const complain = (error: Error): void => this.#options.onProblem?.(error)
      await segment.close().catch(complain)
      // What can't be deleted is found again at the next start.
      await rm(segment.path, { force: true }).catch(complain)
    }
    await this.#table.dropSegments((number) => !this.#segments.has(number))
  }

  #grow(bytes: number): void {
    this.#bytes += bytes
    this.#options.onChange?.(this.#bytes)
  }

  #enqueue(task: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(task).catch((error: Error) => this.#options.onProblem?.(error))
    return this.#work
  }

  #pathOf(number: number): string {
    return join(this.#options.directory, `${String(number).padStart(8, '0')}${SUFFIX}`)
  }

  async #load(old: readonly number[]): Promise<void> {
    // One that can't be looked at or removed says nothing of the others.
    for (const number of old)
      await this.#loadSegment(number)
        .then(() => this.#shrink())
        .catch((error: Error) => this.#options.onProblem?.(error))
  }

  /** Drops the segments used longest ago until the rest is within the limits. */
  async #shrink(): Promise<void> {
    for (;;) {
      const hasTooMany = this.#table.count > this.#mostRecords
      if (!hasTooMany && this.#bytes - this.#leavingBytes <= this.#limit) break
      const oldest = hasTooMany ? this.#crowded() : this.#oldest()
      if (!oldest) break
      await this.#dropSegments([oldest])
    }
  }

  /** One that is none of ours, or can't be read, is removed. */
  async #loadSegment(number: number): Promise<void> {
    const path = this.#pathOf(number)
    const { size } = await stat(path)
    const segment = new Segment(number, path, size, this.#pieces)
    if (size > SEGMENT_BYTES || !(await isOurs(segment).catch(() => false))) {
      await segment.close()
      await rm(path, { force: true })
      return
    }
    // Used before anything that is used from now on, the older the earlier.
    segment.lastUse = number - this.#nextNumber
    this.#segments.set(number, segment)
    this.#grow(size)
    await this.#scan(segment).catch(() => this.#dropSegments([segment]))
  }

  /**
   * Enters the records of a segment that an earlier process wrote. Where there are too many, segments go at once, maybe
   * this one: to let go of them behind its end would take memory for millions of records more.
   */
  async #scan(segment: Segment): Promise<void> {
    const pacer = new Pacer()
    const buffer = Buffer.allocUnsafe(SCAN_BYTES)
    let start = 0
    let end = 0
    for (let at = SEGMENT_HEADER_BYTES; ; ) {
      if (pacer.due) await pacer.rest()
      if (at + RECORD_HEADER_BYTES > end) {
        start = at
        end = start + (await segment.read([buffer], start))
      }
      const header = decodeRecordHeader(
        buffer.subarray(at - start, Math.min(end, at + RECORD_HEADER_BYTES) - start),
      )
      if (!header || at + RECORD_HEADER_BYTES + header.length > segment.size) return
      const { key, length, crc } = header
      at += RECORD_HEADER_BYTES
      segment.records++
      while (this.#table.count >= this.#mostRecords && !this.#table.find(key) && !segment.leaving)
        await this.#dropSegments([this.#crowded()!])
      if (segment.leaving) return
      // What was put since we started is newer.
      const known = this.#table.find(key)
      if (!known || known.segment <= segment.number)
        this.#table.set(key, { segment: segment.number, offset: at, length, crc })
      at += length
    }
  }
}

/** Whether an earlier process of ours wrote it. */
async function isOurs(segment: Segment): Promise<boolean> {
  const header = Buffer.alloc(SEGMENT_HEADER_BYTES)
  await segment.read([header], 0)
  return isSegmentHeader(header)
}

/** Of the records of a segment: no segment is larger than SEGMENT_BYTES. */
const firstIdOf = ({ id }: Segment): number => id * SEGMENT_BYTES

/** Unlike that of any other record, for as long as the process lives. */
const idOf = (segment: Segment, { offset }: Place): number => firstIdOf(segment) + offset

const checked = (payload: Uint8Array, { crc }: Place): Uint8Array | undefined =>
  crc32(payload) === crc ? payload : undefined

/** What is small is not worth finding out who else reads it. */
const memoryOfItsOwn = (size: number): Buffer | undefined =>
  size < SHARED ? Buffer.allocUnsafe(size) : undefined

const SUFFIX = '.seg'
const SEGMENT_NAME = /^\d{8}\.seg$/

class Segment implements BlockFile {
  readonly id = nextFileId()
  readonly number: number
  readonly path: string
  /** With what waits to be written. */
  size: number
  lastUse = 0
  /** That were appended, also those whose key has a later one. */
  records = 0
  /** Chosen to be dropped: it grows no more. */
  leaving = false
  /** Since there are too many records. */
  crowded = false
  /** A flush is about to come. */
  flushDue = false
  /** Payloads that are not on disk yet, by offset: until they are, and then no more. */
  readonly waiting = new Map<number, Uint8Array>()
  readonly #memory: PieceMemory
  /** Headers and payloads that no flush has taken yet. */
  #pieces: Pieces
  /** Up to here it was given to the disk. */
  #given: number
  #written: number
  #handle: Promise<FileHandle> | undefined
  /** Of the handle, once it is open. */
  #fd: number | undefined
  #closed = false

  /** @param size 0 for one that does not exist yet. */
  constructor(number: number, path: string, size: number, memory: PieceMemory) {
    this.number = number
    this.path = path
    this.#memory = memory
    this.#pieces = new Pieces(memory)
    this.#given = size
    this.#written = size
    this.size = size
    if (size === 0) this.#append(encodeSegmentHeader())
  }

  get waitingBytes(): number {
    return this.size - this.#written
  }

  /** Bytes that the next flush takes. */
  get collected(): number {
    return this.size - this.#given
  }

  /** Appends a record in memory. @returns the offset of its payload. */
  append(header: Uint8Array, payload: Uint8Array): number {
    const record = this.#append(header, payload)
    const offset = this.size - payload.length
    this.waiting.set(offset, record.subarray(header.length))
    return offset
  }

  /** Brings what has collected to the disk. */
  async flush(): Promise<void> {
    const pieces = this.#pieces
    const from = this.#written
    const to = this.size
    this.#pieces = new Pieces(this.#memory)
    this.#given = to
    if (from === 0) {
      await mkdir(dirname(this.path), { recursive: true, mode: DIRECTORY_MODE })
      this.#opened(open(this.path, 'w+', FILE_MODE))
    }
    const handle = await this.#open()
    const { bytesWritten } = await handle.writev(pieces.filled(), from)
    if (bytesWritten < to - from)
      throw new Error(`${this.path}: only ${bytesWritten} of ${to - from} bytes written`)
    this.#written = to
    for (const offset of this.waiting.keys()) if (offset < to) this.waiting.delete(offset)
    pieces.free()
  }

  async read(targets: readonly Uint8Array[], position: number): Promise<number> {
    const { bytesRead } = await (await this.#open()).readv(targets, position)
    return bytesRead
  }

  readNow(targets: readonly Uint8Array[], position: number): number | undefined {
    const fd = this.#fd
    try {
      return fd === undefined ? undefined : QuickReads.ofServer.try(() => readvSync(fd, targets, position))
    } catch {
      // Who reads in a thread next hears what is wrong.
      return undefined
    }
  }

  /** For good: whoever is still reading gets no more, as nobody would close what he opened again. */
  async close(): Promise<void> {
    this.#closed = true
    const handle = this.#handle
    this.#handle = undefined
    this.#fd = undefined
    await (await handle?.catch(() => undefined))?.close()
  }

  /** Parts of one record, in a row. @returns where they are now. */
  #append(head: Uint8Array, rest: Uint8Array = new Uint8Array()): Buffer {
    const room = this.#pieces.room(head.length + rest.length)
    room.set(head)
    room.set(rest, head.length)
    this.size += room.length
    return room
  }

  #open(): Promise<FileHandle> {
    if (this.#closed) return Promise.reject(new Error(`${this.path} was dropped`))
    return this.#handle ?? this.#opened(open(this.path, 'r'))
  }

  #opened(opening: Promise<FileHandle>): Promise<FileHandle> {
    this.#handle = opening
    opening.then(
      ({ fd }) => {
        if (this.#handle === opening) this.#fd = fd
      },
      () => {},
    )
    return opening
  }
}

/** Numbers of the segments that are there, in order. */
function segmentNumbers(directory: string): number[] {
  let names: string[]
  try {
    names = readdirSync(directory)
  } catch {
    return []
  }
  return names
    .filter((name) => SEGMENT_NAME.test(name))
    .map((name) => Number.parseInt(name, 10))
    .sort((a, b) => a - b)
}
