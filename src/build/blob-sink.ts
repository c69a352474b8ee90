/**
 * Content in, blobs out: an ingest's files are hashed, told new from known, and written to packs.
 * Synchronous, for a worker thread.
 */
import { createHash, type Hash, hash } from 'node:crypto'
import { join } from 'node:path'
import { createXXHash128, type IHasher } from 'hash-wasm'
import { type ByteString, byteString } from '../lib/bytes.ts'
import type { DiskNow } from '../lib/disk.ts'
import { BLOB_OVERHEAD, PackWriter } from '../store/pack.ts'
import { newPackName } from '../store/paths.ts'

/** What we ask of whoever keeps the budget. All calls return at once or block this thread. */
export interface IngestRoom {
  /** Before anything of a file is written. @throws NoRoom when that can't fit. */
  claim(bytes: number): void
  /** The content was known: its claim is not used. */
  giveBack(bytes: number): void
  /** The disk is full: true when there is room now and writing should be tried again. */
  diskFull(): boolean
}

/** Which content the store has. `claim` also keeps it there for us. */
export interface KnownContent {
  claim(digest: Uint8Array): boolean
}

/** Files up to this size are gathered in memory and hashed at once, which is several times faster per file. */
const SMALL_FILE = 256 * 1024

/** What content of so many bytes takes on disk if it is new; an empty one is in no pack. */
export function roomFor(size: number): number {
  return size === 0 ? 0 : size + BLOB_OVERHEAD
}

/** Content in, blob numbers out: hashes, tells new from known, writes packs. */
export class BlobSink {
  readonly #disk: DiskNow
  readonly #directory: string
  readonly #known: KnownContent
  readonly #room: IngestRoom
  readonly #xxh128: IHasher
  readonly #numbers = new Map<ByteString, number>()
  readonly #sizes: number[] = []
  #sha256s = Buffer.alloc(32 * 1024)
  #md5s = Buffer.alloc(16 * 1024)
  #xxh128s = Buffer.alloc(16 * 1024)
  readonly #sealed: { path: string; size: number }[] = []
  #pack: PackWriter | undefined
  #size = 0
  /** Small files are gathered here; larger ones have hashes that run along. */
  readonly #small = Buffer.allocUnsafe(SMALL_FILE)
  #gathered = 0
  #running: { sha256: Hash; md5: Hash; pack: PackWriter } | undefined
  reusedBytes = 0

  private constructor(
    directory: string,
    known: KnownContent,
    room: IngestRoom,
    xxh128: IHasher,
    disk: DiskNow,
  ) {
    this.#disk = disk
    this.#directory = directory
    this.#known = known
    this.#room = room
    this.#xxh128 = xxh128
  }

  /** `directory` is empty and ours; the packs are written there. */
  static async create(
    directory: string,
    known: KnownContent,
    room: IngestRoom,
    disk: DiskNow,
  ): Promise<BlobSink> {
    return new BlobSink(directory, known, room, await createXXHash128(), disk)
  }

  begin(size: number): void {
    this.#size = size
    this.#gathered = 0
    if (size <= SMALL_FILE) return
    this.#running = { sha256: createHash('sha256'), md5: createHash('md5'), pack: this.#packFor(size) }
    this.#running.pack.begin()
    this.#xxh128.init()
  }

  append(chunk: Uint8Array): void {
    if (this.#running) {
      this.#running.sha256.update(chunk)
      this.#running.md5.update(chunk)
      this.#xxh128.update(chunk)
      this.#running.pack.append(chunk)
    } else {
      this.#small.set(chunk, this.#gathered)
      this.#gathered += chunk.length
    }
  }

  /** The content is complete. Returns its blob number. */
  end(): number {
    return this.#running ? this.#endLarge() : this.#endSmall()
  }

  /** Digests of all distinct contents so far, by number. */
  table() {
    return {
      count: this.#sizes.length,
      sizes: this.#sizes,
      sha256: this.#sha256s,
      md5: this.#md5s,
      xxh128: this.#xxh128s,
    }
  }

  seal(): { packs: string[]; packBytes: number } {
    this.#sealPack()
    return {
      packs: this.#sealed.map(({ path }) => path),
      packBytes: this.#sealed.reduce((sum, { size }) => sum + size, 0),
    }
  }

  close(): void {
    this.#pack?.close()
    this.#pack = undefined
  }

  #endSmall(): number {
    const content = this.#small.subarray(0, this.#gathered)
    const sha256 = hash('sha256', content, 'buffer')
    const seen = this.#numbers.get(byteString(sha256))
    if (seen !== undefined) {
      this.#noteReuse()
      return seen
    }
    if (content.length > 0) {
      if (this.#known.claim(sha256)) {
        this.#noteReuse()
      } else {
        const pack = this.#packFor(content.length)
        pack.begin()
        pack.append(content)
        pack.keep(sha256)
      }
    }
    return this.#number(
      sha256,
      hash('md5', content, 'buffer'),
      this.#xxh128.init().update(content).digest('binary'),
    )
  }

  #endLarge(): number {
    const { sha256: running, md5, pack } = this.#running!
    this.#running = undefined
    const sha256 = running.digest()
    const xxh128 = this.#xxh128.digest('binary')
    const seen = this.#numbers.get(byteString(sha256))
    if (seen !== undefined || this.#known.claim(sha256)) {
      pack.drop()
      this.#noteReuse()
    } else {
      pack.keep(sha256)
    }
    return seen ?? this.#number(sha256, md5.digest(), xxh128)
  }

  /** The content at hand takes no room. */
  #noteReuse(): void {
    this.reusedBytes += this.#size
    this.#room.giveBack(roomFor(this.#size))
  }

  #number(sha256: Uint8Array, md5: Uint8Array, canonicalXxh128: Uint8Array): number {
    const number = this.#sizes.push(this.#size) - 1
    if ((number + 1) * 32 > this.#sha256s.length) {
      this.#sha256s = Buffer.concat([this.#sha256s], this.#sha256s.length * 2)
      this.#md5s = Buffer.concat([this.#md5s], this.#md5s.length * 2)
      this.#xxh128s = Buffer.concat([this.#xxh128s], this.#xxh128s.length * 2)
    }
    this.#sha256s.set(sha256, number * 32)
    this.#md5s.set(md5, number * 16)
    // Canonical form is big-endian, high half first; rsync's is little-endian, low half first: the reverse.
    for (let i = 0; i < 16; i++) this.#xxh128s[number * 16 + i] = canonicalXxh128[15 - i]!
    this.#numbers.set(byteString(sha256), number)
    return number
  }

  #packFor(size: number): PackWriter {
    if (this.#pack && !this.#pack.takes(size)) this.#sealPack()
    this.#pack ??= new PackWriter(
      join(this.#directory, newPackName()),
      () => this.#room.diskFull(),
      this.#disk,
    )
    return this.#pack
  }

  #sealPack(): void {
    const pack = this.#pack
    if (!pack) return
    this.#pack = undefined
    if (pack.count === 0) {
      pack.close()
      this.#disk.unlink(pack.path)
    } else {
      this.#sealed.push({ path: pack.path, size: pack.seal().size })
    }
  }
}
