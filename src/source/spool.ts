/**
 * Spool: the part of an archive that has been downloaded, on disk, so that a later process can go on.
 *
 *     <dir>/download        the bytes, from the first on
 *     <dir>/download.json   which version of which file they are of, and how many are surely on the disk
 *
 * The note is written before the first byte and replaced by rename. After a crash of the process the
 * kernel still has every byte that was written, so all of them count. After a crash of the machine the
 * file may have its length but not its bytes: then only those count that had been synced when the note
 * was last replaced. The two are told apart by the kernel's boot id. Before a note vouches for bytes, they
 * are synced, and so is the file's name: the old file of that name, of another version, may come back
 * otherwise. Then the note itself is. A torn or missing note means that there is nothing; so a crash at
 * any line costs bytes downloaded again, never wrong ones.
 *
 * One process uses a spool at a time: its owner holds the lock of the data directory.
 */
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { type Disk, type DiskFile, realDisk, type SyncReason } from '../lib/disk.ts'
import { type FileVersion, isSameVersion } from './http-headers.ts'

/** How often what was appended is synced. Each sync costs a pause of the disk, each gap a download again. */
const SYNC_BYTES = 32 << 20
const READ_BYTES = 256 << 10

/** Nobody else has anything to do with half a download. */
const DIRECTORY_MODE = 0o700
const FILE_MODE = 0o600

const noteSchema = z.object({
  url: z.string(),
  etag: z.string().optional(),
  lastModified: z.string().optional(),
  size: z.int().nonnegative(),
  /** Bytes that survive a crash of the machine. */
  synced: z.int().nonnegative(),
  /** The boot during which the note was written; '' where the system has no such thing. */
  boot: z.string(),
})
type Note = z.infer<typeof noteSchema>

/** A version whose size is known, of the file at a URL. */
export interface SpoolKey {
  url: string
  version: FileVersion & { size: number }
}

export class Spool {
  readonly #dir: string
  readonly #name: string
  readonly #disk: Disk
  #file: DiskFile | undefined
  #note: Note | undefined
  #bytes = 0
  /** The names of the file and of its directory are durable. */
  #named = false
  /** The sync under way, if any. */
  #syncing: Promise<void> | undefined

  /** @param name of its files: several may lie in one directory. */
  constructor(dir: string, disk: Disk = realDisk, name = 'download') {
    this.#dir = dir
    this.#name = name
    this.#disk = disk
  }

  /** Bytes held on disk, once it is open. */
  get bytes(): number {
    return this.#bytes
  }

  /** What an earlier download of this URL left behind; undefined when there is nothing to go on from. */
  async held(url: string): Promise<{ version: SpoolKey['version']; bytes: number } | undefined> {
    const note = await this.#readNote()
    if (note?.url !== url) return undefined
    const bytes = await this.#usableBytes(note)
    return bytes > 0 ? { version: versionOfNote(note), bytes } : undefined
  }

  /**
   * Opens the spool for this version, and returns how many of its first bytes are held. What belongs to
   * anything else is dropped. `append` goes on from there.
   */
  async open(key: SpoolKey): Promise<number> {
    await this.#closeFile()
    const held = await this.held(key.url)
    const keep = held && isSameVersion(held.version, key.version) ? held.bytes : 0
    if (keep === 0) await this.discard()
    this.#named = false
    await this.#makeDirectory()
    // Bytes behind the usable ones may be anything; they go before the note vouches for what is held.
    this.#file = await this.#disk.open(this.#path(), keep > 0 ? 'r+' : 'w+', FILE_MODE)
    await this.#file.truncate(keep)
    if (keep > 0) await this.#file.sync('bytes of an earlier download')
    this.#bytes = keep
    this.#note = {
      url: key.url,
      etag: key.version.etag,
      lastModified: key.version.lastModified,
      size: key.version.size,
      synced: keep,
      boot: await bootId(this.#disk),
    }
    await this.#writeNote(this.#note)
    return keep
  }

  /** Writes the next bytes. Rejects with the disk's error: the download itself need not fail for that. */
  async append(chunk: Uint8Array): Promise<void> {
    const file = this.#opened()
    for (let done = 0; done < chunk.length; ) {
      const { bytesWritten } = await file.write(chunk, done, chunk.length - done, this.#bytes)
      done += bytesWritten
      this.#bytes += bytesWritten
    }
    if (this.#bytes - this.#note!.synced >= SYNC_BYTES) {
      // Runs beside the download. A disk that cannot sync shows again at the next append, or at close.
      this.#syncing ??= this.#sync()
        .catch(() => undefined)
        .finally(() => {
          this.#syncing = undefined
        })
    }
  }

  /** The bytes that were held when this was called, in order. */
  async *prefix(): AsyncGenerator<Uint8Array, void, undefined> {
    const file = this.#opened()
    const end = this.#bytes
    for (let at = 0; at < end; ) {
      const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, end - at))
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at)
      if (bytesRead === 0) throw new Error(`${this.#path()} ends at byte ${at} instead of ${end}`)
      at += bytesRead
      yield buffer.subarray(0, bytesRead)
    }
  }

  /** Removes all of it: the build was installed or refused, or the file changed upstream. May be opened again. */
  async discard(): Promise<void> {
    await this.#closeFile()
    this.#bytes = 0
    // The note goes for good before other bytes can have the name of those that it vouches for.
    if (await this.#remove('.json')) await this.#syncNames(this.#dir, 'name of a note that left')
    for (const suffix of ['.json.new', '']) await this.#remove(suffix)
  }

  /** Removes its files at once, for who needs their room now; it takes no more then. */
  dropNow(): void {
    for (const suffix of ['.json', '']) {
      try {
        this.#disk.now.unlink(this.#path(suffix))
      } catch {
        // There is none.
      }
    }
  }

  /** Lets go of it and keeps what is there for a later process, synced if the disk can. */
  async close(): Promise<void> {
    if (!this.#file) return
    await this.#syncing
    await this.#sync().catch(() => undefined) // What is not synced only counts for less.
    await this.#closeFile()
  }

  async #sync(): Promise<void> {
    const synced = this.#bytes
    await this.#opened().sync('bytes of a download')
    if (!this.#named) {
      await this.#syncNames(dirname(this.#dir), 'name of a spool')
      await this.#syncNames(this.#dir, 'name of a download')
      this.#named = true
    }
    this.#note!.synced = synced
    await this.#writeNote(this.#note!)
    await this.#syncNames(this.#dir, 'name of the note')
  }

  async #syncNames(path: string, why: SyncReason): Promise<void> {
    const directory = await this.#disk.open(path, 'r')
    try {
      await directory.sync(why)
    } finally {
      await directory.close()
    }
  }

  async #closeFile(): Promise<void> {
    await this.#syncing
    const file = this.#file
    this.#file = undefined
    await file?.close()
  }

  async #usableBytes(note: Note): Promise<number> {
    const stats = await this.#disk.stat(this.#path()).catch(() => undefined)
    if (!stats) return 0
    const sure = note.boot === (await bootId(this.#disk)) ? stats.size : Math.min(stats.size, note.synced)
    return sure <= note.size ? sure : 0
  }

  async #readNote(): Promise<Note | undefined> {
    try {
      return noteSchema.parse(JSON.parse((await this.#disk.readFile(this.#path('.json'))).toString('utf8')))
    } catch {
      return undefined // Missing, torn, or of a version to come: nothing to go on from.
    }
  }

  async #writeNote(note: Note): Promise<void> {
    const file = await this.#disk.open(this.#path('.json.new'), 'w', FILE_MODE)
    try {
      await file.writeFile(Buffer.from(JSON.stringify(note)))
      if (note.synced > 0) await file.sync('note of a download')
    } finally {
      await file.close()
    }
    await this.#disk.rename(this.#path('.json.new'), this.#path('.json'))
  }

  /** False when there was no such file. */
  async #remove(suffix: string): Promise<boolean> {
    try {
      await this.#disk.unlink(this.#path(suffix))
      return true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      return false
    }
  }

  async #makeDirectory(): Promise<void> {
    try {
      await this.#disk.mkdir(this.#dir, DIRECTORY_MODE)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
  }

  #path(suffix = ''): string {
    return join(this.#dir, this.#name + suffix)
  }

  #opened(): DiskFile {
    if (!this.#file) throw new Error('the spool is not open')
    return this.#file
  }
}

function versionOfNote(note: Note): SpoolKey['version'] {
  return { etag: note.etag, lastModified: note.lastModified, size: note.size }
}

async function bootId(disk: Disk): Promise<string> {
  try {
    return (await disk.readFile('/proc/sys/kernel/random/boot_id')).toString('latin1').trim()
  } catch {
    return '' // Not Linux: every boot looks the same, as if the machine never crashed.
  }
}
