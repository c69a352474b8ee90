/**
 * Spools: downloads that broke off, kept on disk so that a later fetch of the same build can go on.
 *
 * They count in the budget, give way before any build does, and go when nobody has come back for them. A
 * fetch under way accounts for its own spool (fetch-job.ts), so only idle ones are counted here.
 */
import { basename, join } from 'node:path'
import { type Disk, realDisk } from '../lib/disk.ts'
import { Mutex } from '../lib/mutex.ts'
import { removeTree } from '../store/durable.ts'
import { SPOOL_SUFFIX, type StorePaths } from '../store/paths.ts'

/** Upstreams replace their files and devices move on: what is older is hardly ever of use. */
const MAX_AGE_MS = 14 * 24 * 3600 * 1000

export interface IdleSpool {
  id: string
  path: string
  bytes: number
  /** When it last grew, in ms since 1970. */
  changed: number
}

export class Spools {
  readonly #paths: StorePaths
  readonly #isActive: (id: string) => boolean
  readonly #onChange: (bytes: number) => void
  readonly #disk: Disk
  readonly #turn = new Mutex()

  /**
   * @param isActive whether a fetch of that build is under way.
   * @param onChange is told how many bytes all idle spools take.
   */
  constructor(
    paths: StorePaths,
    isActive: (id: string) => boolean,
    onChange: (bytes: number) => void,
    disk: Disk = realDisk,
  ) {
    this.#disk = disk
    this.#paths = paths
    this.#isActive = isActive
    this.#onChange = onChange
  }

  /** Counts anew; for start, and whenever a fetch begins or ends. Those that are too old go. */
  refresh(now = Date.now()): Promise<void> {
    return this.#turn.run(() => this.#refresh(now))
  }

  /** Removes idle spools, those first that nobody has come back for the longest time, until so many bytes are free. */
  drop(bytes: number): Promise<void> {
    return this.#turn.run(async () => {
      let freed = 0
      for (const spool of await this.idle()) {
        if (freed >= bytes) break
        if (await this.#remove(spool)) freed += spool.bytes
      }
      await this.#refresh(Date.now())
    })
  }

  async #refresh(now: number): Promise<void> {
    let bytes = 0
    for (const spool of await this.idle()) {
      const tooOld = now - spool.changed > MAX_AGE_MS
      if (!tooOld || !(await this.#remove(spool))) bytes += spool.bytes
    }
    this.#onChange(bytes)
  }

  /** False for one whose fetch has begun meanwhile. */
  async #remove({ id, path }: IdleSpool): Promise<boolean> {
    if (this.#isActive(id)) return false
    await removeTree(this.#disk, path)
    return true
  }

  /** Those that nobody has come back for the longest time come first. */
  async idle(): Promise<IdleSpool[]> {
    const found: IdleSpool[] = []
    for (const name of await this.#disk.readdir(this.#paths.incoming)) {
      const id = basename(name, SPOOL_SUFFIX)
      if (!name.endsWith(SPOOL_SUFFIX) || this.#isActive(id)) continue
      const path = join(this.#paths.incoming, name)
      let bytes = 0
      let changed = 0
      for (const file of await this.#disk.readdir(path).catch(() => [])) {
        const stats = await this.#disk.stat(join(path, file)).catch(() => undefined)
        bytes += stats?.size ?? 0
        changed = Math.max(changed, stats?.mtimeMs ?? 0)
      }
      found.push({ id, path, bytes, changed })
    }
    return found.sort((a, b) => a.changed - b.changed)
  }
}
