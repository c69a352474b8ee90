/**
 * DigestCache: digests that no manifest has (MD4 for old clients, SHA-1, short xxhashes), worked out once
 * and kept over restarts. One file for each kind in cache/digests/; any of them may go at any time.
 *
 *     header   "UPSVDIG1", u32 length of a digest, u32 CRC-32 of the 12 bytes before
 *     record   first 16 bytes of the SHA-256 of the key, the digest, u32 CRC-32 of both
 *
 * Records are appended as they come and never fsynced. What a crash cuts off, or what has rotted, does not
 * match its CRC and is passed over: the digest is then worked out again. A wrong digest that got through
 * would still harm nobody: a client that compares it with its own notices, and asks again.
 *
 * A file that is full loses the older half of its records. Everything here runs in the background of some
 * session, so nothing fails because of it: what can't be read is not there, what can't be written is not
 * kept.
 */
import { hash } from 'node:crypto'
import { appendFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import { Mutex } from '../lib/mutex.ts'
import { Pacer } from '../lib/pacer.ts'
import { DIRECTORY_MODE, FILE_MODE, type StorePaths } from './paths.ts'

const MAGIC = Buffer.from('UPSVDIG1')
const HEADER_BYTES = 16
const KEY_BYTES = 16
const CRC_BYTES = 4
/** Behind the name of a file that is being written anew. */
const UNFINISHED = '.new'

/** Digests of each kind: those of some builds that share little, in 6 MB of file and 20 MB of memory. */
const MAX_RECORDS = 150_000
/** What has come is written after this time, all in one go. */
const WRITE_AFTER_MS = 1000

/** What is known of one kind. */
interface Kind {
  readonly path: string
  readonly length: number
  /**
   * By the first bytes of their keys' digests, those that came first in front. Both are strings with one
   * character for each byte, a quarter of what arrays would take.
   */
  readonly values: Map<string, string>
  /** Records that the file does not have yet. */
  fresh: Buffer[]
  /** Bytes of the file; 0 when there is none. */
  bytes: number
}

export interface DigestCacheOptions {
  /** Whether so many bytes more may be written: nothing is evicted for a cache. */
  hasRoom?: (bytes: number) => boolean
  /** Is told how many bytes all files take, whenever that changes. */
  onBytes?: (bytes: number) => void
  maxRecords?: number
  writeAfterMs?: number
}

export class DigestCache {
  readonly #directory: string
  readonly #hasRoom: (bytes: number) => boolean
  readonly #onBytes: (bytes: number) => void
  readonly #maxRecords: number
  readonly #writeAfterMs: number
  readonly #kinds = new Map<string, Kind>()
  readonly #loading = new Map<string, Promise<Kind>>()
  /** Files are written, and thrown away, one after the other. */
  readonly #turn = new Mutex()
  #timer: NodeJS.Timeout | undefined
  /** Bytes of files of kinds that nobody has asked for yet. */
  readonly #asleep = new Map<string, number>()

  constructor(paths: StorePaths, options: DigestCacheOptions = {}) {
    this.#directory = paths.digests
    this.#hasRoom = options.hasRoom ?? (() => true)
    this.#onBytes = options.onBytes ?? (() => {})
    this.#maxRecords = options.maxRecords ?? MAX_RECORDS
    this.#writeAfterMs = options.writeAfterMs ?? WRITE_AFTER_MS
  }

  /** Looks how much there is, and clears up what a crash left; for start. A file is read when the first digest of its kind is asked for. */
  async refresh(): Promise<void> {
    for (const name of await readdir(this.#directory).catch(() => [])) {
      const path = join(this.#directory, name)
      if (name.endsWith(UNFINISHED)) {
        await rm(path, { force: true }).catch(() => {})
        continue
      }
      const size = await stat(path).then(
        (stats) => stats.size,
        () => 0,
      )
      this.#asleep.set(name, size)
    }
    this.#report()
  }

  /** @param length of this kind's digests. */
  get(kind: string, length: number, key: string): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    const short = shortKey(key)
    const found = ({ values }: Kind): Uint8Array | undefined => {
      const value = values.get(short)
      return value === undefined ? undefined : Buffer.from(value, 'latin1')
    }
    const known = this.#kinds.get(kind)
    return known ? found(known) : this.#load(kind, length).then(found)
  }

  /** Keeps a digest. Whether it gets to the disk is nobody's business. */
  put(kind: string, key: string, value: Uint8Array): void {
    const known = this.#kinds.get(kind)
    if (!known) {
      void this.#load(kind, value.length).then(() => this.put(kind, key, value))
      return
    }
    const short = shortKey(key)
    if (value.length !== known.length || known.values.has(short)) return
    const kept = Buffer.from(value).toString('latin1')
    known.values.set(short, kept)
    known.fresh.push(record(short, kept))
    this.#timer ??= setTimeout(() => void this.flush(), this.#writeAfterMs).unref()
  }

  /** Writes what has not been written. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    await this.#turn.run(async () => {
      for (const kind of this.#kinds.values()) await this.#write(kind)
      this.#report()
    })
  }

  /** Throws all of it away, from disk and memory: something else needs the room. */
  async drop(): Promise<void> {
    await this.#turn.run(async () => {
      for (const kind of this.#kinds.values()) {
        kind.values.clear()
        kind.fresh = []
        kind.bytes = 0
      }
      await rm(this.#directory, { recursive: true, force: true }).catch(() => {})
      this.#asleep.clear()
      this.#report()
    })
  }

  async close(): Promise<void> {
    await this.flush()
  }

  #load(name: string, length: number): Promise<Kind> {
    let loading = this.#loading.get(name)
    if (!loading) {
      loading = this.#turn.run(async () => {
        const path = join(this.#directory, name)
        const content = await this.#read(path, length)
        const values = await readRecords(content, length)
        // Of a file that can't be used nothing is left: appending to it would be in vain.
        if (!values) await rm(path, { force: true }).catch(() => {})
        const bytes = values ? content.length : 0
        const kind: Kind = { path, length, values: values ?? new Map(), fresh: [], bytes }
        this.#asleep.delete(name)
        this.#kinds.set(name, kind)
        this.#report()
        return kind
      })
      this.#loading.set(name, loading)
    }
    return loading
  }

  /** Of a file that is full, whose digests have this length. */
  #mostBytes(length: number): number {
    return HEADER_BYTES + this.#maxRecords * recordBytes(length)
  }

  /** Nothing where there is no file, or one that is larger than we ever write. */
  async #read(path: string, length: number): Promise<Buffer> {
    const most = this.#mostBytes(length) + recordBytes(length)
    try {
      return (await stat(path)).size > most ? Buffer.alloc(0) : await readFile(path)
    } catch {
      return Buffer.alloc(0)
    }
  }

  async #write(kind: Kind): Promise<void> {
    if (kind.fresh.length === 0) return
    const fresh = Buffer.concat(kind.fresh)
    kind.fresh = []
    // A record that a crash has cut off would put all behind it out of step.
    const aligned = kind.bytes > 0 && (kind.bytes - HEADER_BYTES) % recordBytes(kind.length) === 0
    // By the file as well: it may have more records than memory, when it had no room to be written anew.
    const isFull =
      kind.values.size > this.#maxRecords || kind.bytes + fresh.length > this.#mostBytes(kind.length)
    const appends = aligned && !isFull
    if (kind.values.size > this.#maxRecords) forgetOlderHalf(kind.values)
    const content = appends ? fresh : wholeFile(kind)
    if (!this.#hasRoom(content.length)) return
    try {
      await mkdir(dirname(kind.path), { recursive: true, mode: DIRECTORY_MODE })
      if (appends) {
        await appendFile(kind.path, content, { mode: FILE_MODE })
        kind.bytes += content.length
      } else {
        await writeFile(kind.path + UNFINISHED, content, { mode: FILE_MODE })
        await rename(kind.path + UNFINISHED, kind.path)
        kind.bytes = content.length
      }
    } catch {
      // A full disk, say. Part of it may be there: the next time the file is written anew.
      kind.bytes = 0
    }
  }

  #report(): void {
    let bytes = 0
    for (const size of this.#asleep.values()) bytes += size
    for (const kind of this.#kinds.values()) bytes += kind.bytes
    this.#onBytes(bytes)
  }
}

function shortKey(key: string): string {
  return hash('sha256', key, 'buffer').toString('latin1', 0, KEY_BYTES)
}

function header(length: number): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES)
  MAGIC.copy(bytes)
  bytes.writeUInt32LE(length, MAGIC.length)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, HEADER_BYTES - CRC_BYTES)), HEADER_BYTES - CRC_BYTES)
  return bytes
}

function wholeFile({ length, values }: Kind): Buffer {
  const parts = [header(length)]
  for (const [short, value] of values) parts.push(record(short, value))
  return Buffer.concat(parts)
}

function recordBytes(length: number): number {
  return KEY_BYTES + length + CRC_BYTES
}

function record(short: string, value: string): Buffer {
  const bytes = Buffer.alloc(recordBytes(value.length))
  bytes.write(short + value, 'latin1')
  bytes.writeUInt32LE(crc32(bytes.subarray(0, -CRC_BYTES)), bytes.length - CRC_BYTES)
  return bytes
}

/** All records that are whole and right; undefined for a file that is none of ours, or of another length. */
async function readRecords(content: Buffer, length: number): Promise<Map<string, string> | undefined> {
  if (content.length < HEADER_BYTES || !content.subarray(0, HEADER_BYTES).equals(header(length)))
    return undefined
  const values = new Map<string, string>()
  const size = recordBytes(length)
  const pacer = new Pacer()
  for (let at = HEADER_BYTES; at + size <= content.length; at += size) {
    if (pacer.due) await pacer.rest()
    const body = content.subarray(at, at + size - CRC_BYTES)
    if (crc32(body) !== content.readUInt32LE(at + size - CRC_BYTES)) continue
    values.set(body.toString('latin1', 0, KEY_BYTES), body.toString('latin1', KEY_BYTES))
  }
  return values
}

function forgetOlderHalf(values: Map<string, string>): void {
  let many = Math.ceil(values.size / 2)
  for (const short of values.keys()) {
    if (many-- === 0) return
    values.delete(short)
  }
}
