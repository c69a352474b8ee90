/**
 * All packs of the store: which there are, where each blob is, reading, adopting, rewriting, dropping.
 *
 * Rules: a pack gets its name in packs/ only when it is sealed and fsynced. A blob's row leaves the index
 * before its bytes leave the disk, and a rewritten pack is durable before the old one is unlinked. A crash
 * between any two lines here leaves at worst a pack that nothing refers to, which the sweep removes.
 * A copy that was found to have rotted is never used again, also after a restart (untrusted.ts).
 */
import { basename, join } from 'node:path'
import { StoreCorrupt, type StoreError } from '../errors.ts'
import { eachAtOnce } from '../lib/at-once.ts'
import { type BlockFile, type BlockPool, nextFileId } from '../lib/block-pool.ts'
import { asBuffer } from '../lib/bytes.ts'
import { type Disk, realDisk } from '../lib/disk.ts'
import { Pacer } from '../lib/pacer.ts'
import { BlobIndex, type BlobRow, type PackNumber } from './blob-index.ts'
import { codeOf, diskError, isAboutFile } from './disk-error.ts'
import { removeTree, syncDirectory } from './durable.ts'
import {
  encodePackHeader,
  encodePackIndex,
  PACK_RECORD_BYTES,
  PackFile,
  type PackIndex,
  type PackRecord,
  readPackIndex,
} from './pack.ts'
import { DIRECTORY_MODE, FILE_MODE, newPackName, PACK_SUFFIX, type StorePaths } from './paths.ts'
import { Untrusted } from './untrusted.ts'

/** Packs that stay open although nobody reads from them: far below the usual limit of 1024 descriptors. */
const MAX_IDLE_PACKS = 128

/**
 * Blobs of this size are read past the pool: they would only empty it of small ones, and a copy out of the system's
 * memory costs no more than one out of the pool.
 */
const LARGE = 64 * 1024

/** Blobs entered into the index between two looks at the clock: below a millisecond. */
const STRIDE = 1024

/** Packs whose indexes are read at the same time at start. */
const OPENING_AT_ONCE = 8

/** What rewriting reads at once. */
const COPY_BYTES = 2 ** 20

/** Called between two steps that a crash may come between; tests stop the world there. */
export type Step = (name: string) => void | Promise<void>

/** Called before so many bytes are read or copied: work that nobody waits for takes its time. */
export type Pace = (bytes: number) => Promise<void>

export interface PackInfo {
  readonly number: PackNumber
  readonly path: string
  readonly size: number
  readonly file: PackFile
  /** The same, for readers of short stretches. */
  readonly blocks: BlockFile
  /** Could not be read when it was to be rewritten or verified: not tried again until the next start or verification. */
  unreadable: boolean
  /** Blobs of it are lost only since it could not be read: it stays as long as anybody lacks anything. */
  suspended: boolean
}

export class Packs {
  readonly index: BlobIndex
  readonly #paths: StorePaths
  readonly #disk: Disk
  readonly #step: Step
  readonly #packs = new Map<PackNumber, PackInfo>()
  readonly #pool: BlockPool
  /** Those that are or were open, the longest unused first. */
  readonly #opened = new Set<PackInfo>()
  readonly #untrusted: Untrusted
  /** Packs that could not be read at start. */
  #unknown: { path: string; size: number; corrupt: boolean }[] = []
  #nextNumber = 0
  #bytes = 0

  private constructor(
    paths: StorePaths,
    index: BlobIndex,
    step: Step,
    pool: BlockPool,
    disk: Disk,
    untrusted: Untrusted,
  ) {
    this.#pool = pool
    this.#paths = paths
    this.#untrusted = untrusted
    this.#disk = disk
    this.index = index
    this.#step = step
  }

  /**
   * Reads the index of every pack. One that cannot be read, for whatever reason, is handed to `onProblem`
   * and left alone, its blobs unknown: builds that need them are damaged, all others are served.
   */
  static async open(
    paths: StorePaths,
    step: Step,
    onProblem: (problem: StoreError) => void,
    pool: BlockPool,
    disk: Disk = realDisk,
  ): Promise<Packs> {
    const names = (await disk.readdir(paths.packs)).filter((name) => name.endsWith(PACK_SUFFIX)).sort()
    const found: { path: string; index: PackIndex }[] = []
    const unknown: { path: string; size: number; corrupt: boolean }[] = []
    await eachAtOnce(names, OPENING_AT_ONCE, async (name) => {
      const path = paths.pack(name)
      try {
        found.push({ path, index: await readPackIndex(path, disk) })
      } catch (error) {
        if (!isAboutFile(error)) throw diskError(error, path)
        // It takes its room, whatever it holds.
        const size = await disk.stat(path).then(
          (stats) => stats.size,
          () => 0,
        )
        unknown.push({ path, size, corrupt: error instanceof StoreCorrupt })
        onProblem(diskError(error, path) as StoreError)
      }
    })
    const blobs = found.reduce((sum, { index }) => sum + index.count, 0)
    const untrusted = await Untrusted.load(disk, paths.untrusted)
    const packs = new Packs(paths, new BlobIndex(blobs), step, pool, disk, untrusted)
    packs.#unknown = unknown
    const pacer = new Pacer()
    for (const { path, index } of found)
      await packs.#enter(packs.#register(path, index.fileSize), index, pacer)
    return packs
  }

  /** Bytes of all pack files. */
  get bytes(): number {
    return this.#bytes + this.unknownBytes
  }
  /** Bytes of packs that could not be read at start: no eviction frees them. */
  get unknownBytes(): number {
    return this.#unknown.reduce((sum, { size }) => sum + size, 0)
  }
  get count(): number {
    return this.#packs.size
  }
  /** All pack numbers so far are below this. */
  get numbers(): number {
    return this.#nextNumber
  }
  /** Undefined for one that has gone, and for a blob that is lost. */
  get(number: PackNumber): PackInfo | undefined {
    return this.#packs.get(number)
  }
  list(): Iterable<PackInfo> {
    return this.#packs.values()
  }

  /** Takes over sealed, fsynced packs from an ingest. When this returns their blobs are durable and known. */
  async adopt(sealedPacks: readonly string[]): Promise<void> {
    const adopted: { pack: PackInfo; index: PackIndex }[] = []
    for (const sealed of sealedPacks) {
      const path = this.#paths.pack(newPackName())
      const index = await readPackIndex(sealed, this.#disk)
      await this.#nameThere(sealed, path)
      // From here on it is counted. As long as none of its blobs are known, the sweep takes it for dead,
      // which is right if we get no further.
      adopted.push({ pack: this.#register(path, index.fileSize), index })
      await this.#step('adopt: pack renamed into place')
    }
    // The names must last before a manifest that needs them does.
    if (adopted.length > 0) await syncDirectory(this.#disk, this.#paths.packs, 'names of adopted packs')
    for (const { pack, index } of adopted) await this.#enter(pack, index)
  }

  /** Opens a blob for reading. @throws StoreCorrupt when the store does not have it. */
  async openBlob(digest: Uint8Array): Promise<BlobReader> {
    for (;;) {
      const row = this.index.find(digest)
      if (row < 0 || this.index.isLost(row)) {
        throw new StoreCorrupt(`blob ${asBuffer(digest).toString('hex')} is missing from the store`, {
          hint: 'A pack was lost or has rotted: run `upserv verify --repair`.',
        })
      }
      const offset = this.index.offset(row)
      const size = this.index.length(row)
      const pack = this.#packs.get(this.index.pack(row))!
      try {
        await this.hold(pack)
      } catch (error) {
        // Compaction moved the blob while we opened the old pack: look again.
        if ((error as NodeJS.ErrnoException).code === 'ENOENT' && this.#packs.get(pack.number) !== pack)
          continue
        throw diskError(error, pack.path)
      }
      return new BlobReader(pack.file, offset, size)
    }
  }

  /**
   * Copies a stretch of a blob into `target`, at once when it is in memory.
   * @throws StoreError
   */
  copyBlob(digest: Uint8Array, position: number, targets: readonly Uint8Array[]): Promise<void> | undefined {
    const row = this.index.find(digest)
    const pack = row < 0 ? undefined : this.#packs.get(this.index.pack(row))
    // Compaction may move the blob meanwhile, or the pack end too early: the long way knows, and says.
    const otherwise = (): Promise<void> => this.#copyOpened(digest, position, targets)
    if (!pack || this.index.isLost(row)) return otherwise()
    // What lies beyond is another blob.
    if (position < 0 || endOf(targets, position) > this.index.length(row)) return otherwise()
    const offset = this.index.offset(row) + position
    if (this.index.length(row) >= LARGE) return readNow(pack.file, offset, targets) ? undefined : otherwise()
    return this.#copyShared(pack.blocks, offset, targets)?.catch(otherwise)
  }

  #copyShared(blocks: BlockFile, offset: number, targets: readonly Uint8Array[]): Promise<void> | undefined {
    let at = offset
    for (const [i, target] of targets.entries()) {
      const copying = this.#pool.copy(blocks, at, target)
      at += target.length
      if (copying) return copying.then(() => this.#copyShared(blocks, at, targets.slice(i + 1)))
    }
    return undefined
  }

  async #copyOpened(digest: Uint8Array, position: number, targets: readonly Uint8Array[]): Promise<void> {
    using blob = await this.openBlob(digest)
    await blob.read(targets, position)
  }

  /** Opens a pack's file until `pack.file.release()`, and closes others that nobody uses. Throws as `acquire`. */
  async hold(pack: PackInfo): Promise<void> {
    await pack.file.acquire()
    this.#noteUse(pack)
  }

  /**
   * Removes the packs that were found to be corrupt at start: for when no build lacks anything. One that is
   * of another version, or that the disk could not read, may be whole and stays. Returns the bytes freed.
   */
  async dropUnknown(): Promise<number> {
    const before = this.unknownBytes
    for (const unknown of this.#unknown.filter(({ corrupt }) => corrupt)) {
      try {
        await this.#disk.unlink(unknown.path)
      } catch (error) {
        if (codeOf(error) !== 'ENOENT') throw diskError(error, unknown.path)
      }
      this.#unknown = this.#unknown.filter((other) => other !== unknown)
    }
    return before - this.unknownBytes
  }

  /**
   * The copies of these blobs are not what their digests say: from now on they are lost, until others come
   * in. Durable when this returns; when it throws, only until the next start.
   */
  async distrust(digests: Iterable<Uint8Array>): Promise<void> {
    const copies: { pack: string; digest: string }[] = []
    for (const digest of digests) {
      const row = this.index.find(digest)
      const pack = row >= 0 ? this.#packs.get(this.index.pack(row)) : undefined
      if (!pack) continue
      this.index.lose(row)
      copies.push({ pack: basename(pack.path), digest: asBuffer(digest).toString('hex') })
    }
    if (copies.length > 0) await this.#untrusted.add(copies)
  }

  /**
   * The disk gives nothing of these blobs: they are lost until they come in again, or until it does. Nothing
   * of that is written down, and the pack stays.
   */
  suspend(pack: PackInfo, digests: Iterable<Uint8Array>): void {
    pack.unreadable = true
    pack.suspended = true
    for (const digest of digests) {
      const row = this.index.find(digest)
      if (row >= 0 && this.index.pack(row) === pack.number) this.index.lose(row)
    }
  }

  /** Counts on blobs again that the disk gave nothing of, as far as it gives the indexes of their packs. */
  async resume(): Promise<void> {
    for (const pack of this.#packs.values()) {
      if (!pack.suspended) continue
      const index = await readPackIndex(pack.path, this.#disk).catch((error) => {
        if (!isAboutFile(error)) throw diskError(error, pack.path)
        return undefined
      })
      if (!index) continue
      await this.#enter(pack, index)
      pack.unreadable = false
      pack.suspended = false
    }
  }

  /** Reads a pack's index again. @throws StoreCorrupt when the next start could not use the pack. */
  async checkIndex(pack: PackInfo): Promise<void> {
    await readPackIndex(pack.path, this.#disk)
  }

  /** Removes a pack whose rows have left the index. */
  async drop(pack: PackInfo): Promise<void> {
    this.#forget(pack)
    try {
      await this.#disk.unlink(pack.path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
        this.#keep(pack)
        throw diskError(error, pack.path)
      }
    }
    this.#untrusted.forget(basename(pack.path))
    await this.#step('drop: pack unlinked')
  }

  /**
   * Copies the blobs of `rows` into a new pack and drops the old one. `rows` are all rows of the pack that
   * are still in the index. Readers of the old pack finish undisturbed.
   */
  async rewrite(pack: PackInfo, rows: readonly BlobRow[], pace: Pace): Promise<void> {
    const scratch = this.#paths.newCompaction()
    await this.#disk.mkdir(scratch, DIRECTORY_MODE)
    try {
      const sealed = join(scratch, newPackName())
      const inOrder = [...rows].sort((a, b) => this.index.offset(a) - this.index.offset(b))
      const records = await this.#copyBlobs(pack, inOrder, sealed, pace)
      const { size } = await this.#disk.stat(sealed)
      await this.#step('rewrite: new pack sealed')
      const path = this.#paths.pack(newPackName())
      await this.#nameThere(sealed, path)
      // Counted from here on, and dead as long as no row points to it: see `adopt`.
      const moved = this.#register(path, size)
      await this.#step('rewrite: new pack renamed into place')
      // The new name must last before the old one goes: until then both packs hold the blobs.
      await syncDirectory(this.#disk, this.#paths.packs, 'name of a rewritten pack')
      for (const [i, row] of inOrder.entries()) this.index.move(row, moved.number, records[i]!.offset)
      await this.#step('rewrite: before the old pack is unlinked')
      await this.drop(pack)
    } finally {
      await removeTree(this.#disk, scratch).catch(() => {})
    }
  }

  /** Closes what is open and not in use. */
  close(): void {
    for (const pack of this.#packs.values()) pack.file.retire()
  }

  async #copyBlobs(pack: PackInfo, rows: readonly BlobRow[], to: string, pace: Pace): Promise<PackRecord[]> {
    const out = await this.#disk.open(to, 'wx', FILE_MODE)
    try {
      await this.hold(pack)
      try {
        const header = encodePackHeader()
        await out.writeFile(header)
        const buffer = Buffer.allocUnsafe(COPY_BYTES)
        const records: PackRecord[] = []
        let written = header.length
        // Neighbours stay neighbours, so a run of live blobs is copied in large pieces.
        for (let i = 0; i < rows.length; ) {
          const start = this.index.offset(rows[i]!)
          let end = start
          for (; i < rows.length && this.index.offset(rows[i]!) === end; i++) {
            const length = this.index.length(rows[i]!)
            records.push({
              digest: this.index.digest(rows[i]!).slice(),
              offset: written + end - start,
              length,
            })
            end += length
          }
          for (let at = start; at < end; at += COPY_BYTES) {
            const chunk = buffer.subarray(0, Math.min(COPY_BYTES, end - at))
            await pace(chunk.length)
            try {
              await pack.file.read([chunk], at)
            } catch (error) {
              pack.unreadable = isAboutFile(error)
              throw error
            }
            await out.writeFile(chunk)
          }
          written += end - start
        }
        await out.writeFile(encodePackIndex(records, written))
        // Durable before it gets its name, like every pack.
        await out.sync('blobs of a rewritten pack')
        return records
      } finally {
        pack.file.release()
      }
    } finally {
      await out.close()
    }
  }

  async #enter({ number, path }: PackInfo, blobs: PackIndex, pacer = new Pacer()): Promise<void> {
    const untrusted = this.#untrusted.in(basename(path))
    for (let i = 0; i < blobs.count; i++) {
      if (i % STRIDE === 0 && pacer.due) await pacer.rest()
      if (untrusted.size > 0 && untrusted.has(asBuffer(blobs.digest(i)).toString('hex'))) continue
      this.index.add(blobs.records, i * PACK_RECORD_BYTES, number, blobs.offset(i), blobs.length(i))
    }
  }

  /** Gives a sealed pack its name in packs/. When that fails it has none, as far as the disk lets us. */
  async #nameThere(sealed: string, path: string): Promise<void> {
    try {
      await this.#disk.rename(sealed, path)
    } catch (error) {
      await this.#disk.unlink(path).catch(() => {})
      throw error
    }
  }

  #register(path: string, size: number): PackInfo {
    const file = new PackFile(path, this.#disk)
    const pack: PackInfo = {
      number: this.#nextNumber++,
      path,
      size,
      file,
      blocks: blocksOf(file, () => this.hold(pack)),
      unreadable: false,
      suspended: false,
    }
    this.#keep(pack)
    return pack
  }

  #keep(pack: PackInfo): void {
    this.#packs.set(pack.number, pack)
    this.#bytes += pack.size
  }

  #forget(pack: PackInfo): void {
    this.#packs.delete(pack.number)
    this.#opened.delete(pack)
    this.#pool.forget(pack.blocks)
    this.#bytes -= pack.size
    pack.file.retire()
  }

  #noteUse(pack: PackInfo): void {
    this.#opened.delete(pack)
    this.#opened.add(pack)
    if (this.#opened.size <= MAX_IDLE_PACKS) return
    for (const candidate of this.#opened) {
      candidate.file.rest()
      if (candidate.file.isOpen) continue
      this.#opened.delete(candidate)
      if (this.#opened.size <= MAX_IDLE_PACKS) return
    }
  }
}

/** Fills all of `targets` at once, if that is quick. */
function readNow(file: PackFile, offset: number, targets: readonly Uint8Array[]): boolean {
  const missing = targets.reduce((sum, { length }) => sum + length, 0)
  try {
    return file.readSomeNow(targets, offset) === missing
  } catch {
    return false
  }
}

/** A pack as a file of the pool: open while it is read from. */
function blocksOf(file: PackFile, hold: () => Promise<void>): BlockFile {
  return {
    id: nextFileId(),
    read: async (targets, position) => {
      await hold()
      try {
        return await file.readSome(targets, position)
      } finally {
        file.release()
      }
    },
    readNow: (targets, position) => file.readSomeNow(targets, position),
  }
}

/** Where a read from `position` on ends that fills all of `targets`. */
function endOf(targets: readonly Uint8Array[], position: number): number {
  return targets.reduce((sum, { length }) => sum + length, position)
}

/** The bytes of one blob, as they were when it was opened, wherever they move. Whoever opens it closes it. */
export class BlobReader {
  readonly size: number
  readonly #file: PackFile
  readonly #offset: number
  #open = true

  constructor(file: PackFile, offset: number, size: number) {
    this.#file = file
    this.#offset = offset
    this.size = size
  }

  /** Where the bytes rest, for a thread that reads by itself while this reader is open. */
  get place(): { fd: number; offset: number } {
    return { fd: this.#file.fd, offset: this.#offset }
  }

  /** Fills all of `targets`, one after the other, from `position` of the blob on; nothing beyond `size`. */
  async read(targets: readonly Uint8Array[], position: number): Promise<void> {
    const end = endOf(targets, position)
    if (position < 0 || end > this.size) {
      throw new RangeError(`bytes ${position} to ${end} of a blob of ${this.size}`)
    }
    try {
      await this.#file.read(targets, this.#offset + position)
    } catch (error) {
      throw diskError(error, this.#file.path)
    }
  }

  close(): void {
    if (this.#open) this.#file.release()
    this.#open = false
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
