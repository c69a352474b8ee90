/**
 * Spare: what lies in the data directory and can be had again without a build having to go. It counts in
 * the budget and gives way before any build does: first what was derived from builds (cache/), then
 * downloads that broke off (spools.ts). Files beside them, such as a log, count as well, but stay.
 */
import { join } from 'node:path'
import type { Disk } from '../lib/disk.ts'
import { Mutex } from '../lib/mutex.ts'
import type { Budget } from '../store/budget.ts'
import { codeOf } from '../store/disk-error.ts'
import { diskUsage } from '../store/disk-usage.ts'
import { removeTree } from '../store/durable.ts'
import type { StorePaths } from '../store/paths.ts'
import { Spools } from './spools.ts'

/** Something that would go, with what that frees. */
export interface SpareItem {
  what: 'cache' | 'download'
  /** Of a download, the build; else a name in cache/. */
  name: string
  bytes: number
}

/** The cache of a server that runs. */
export interface LiveCache {
  readonly bytes: number
  /** Frees at least so many bytes, if there are so many. */
  drop(bytes: number): Promise<void>
}

export class Spare {
  readonly #disk: Disk
  readonly #paths: StorePaths
  readonly #charge: Budget['charge']
  readonly #spools: Spools
  readonly #turn = new Mutex()
  #live: LiveCache | undefined

  /**
   * @param isFetching whether a fetch of that build is under way: its download is not spare.
   * @param charge is told what each kind takes.
   */
  constructor(disk: Disk, paths: StorePaths, isFetching: (id: string) => boolean, charge: Budget['charge']) {
    this.#disk = disk
    this.#paths = paths
    this.#charge = charge
    this.#spools = new Spools(paths, isFetching, (bytes) => charge('spools', bytes), disk)
  }

  /** From now on the files of the cache are its own to drop. */
  async attach(cache: LiveCache): Promise<void> {
    this.#live = cache
    await this.#turn.run(() => this.#measure())
  }

  /** Counts anew; for start, and whenever a fetch begins or ends. */
  async refresh(): Promise<void> {
    await this.#spools.refresh()
    await this.#turn.run(() => this.#measure())
  }

  /** Removes so much, if there is so much. */
  async drop(bytes: number): Promise<void> {
    let freed = 0
    await this.#turn.run(async () => {
      if (this.#live) {
        const before = this.#live.bytes
        await this.#live.drop(bytes)
        freed += before - this.#live.bytes
      }
      for (const { path, bytes: size } of await this.#cached()) {
        if (freed >= bytes) break
        // The rest is the server's own, which has just dropped what it could.
        if (this.#live && path !== this.#paths.code) continue
        await removeTree(this.#disk, path)
        freed += size
      }
      await this.#measure()
    })
    if (freed < bytes) await this.#spools.drop(bytes - freed)
  }

  /** What `drop` would remove. */
  async plan(bytes: number): Promise<SpareItem[]> {
    const cached = (await this.#cached()).map(({ name, bytes }) => ({ what: 'cache' as const, name, bytes }))
    const idle = (await this.#spools.idle()).map(({ id, bytes }) => ({
      what: 'download' as const,
      name: id,
      bytes,
    }))
    const going: SpareItem[] = []
    let freed = 0
    for (const item of [...cached, ...idle]) {
      if (freed >= bytes) break
      going.push(item)
      freed += item.bytes
    }
    return going
  }

  /** What is in cache/, the longest unchanged first. */
  async #cached(): Promise<{ name: string; path: string; bytes: number; changed: number }[]> {
    const found: { name: string; path: string; bytes: number; changed: number }[] = []
    // The directory may be deleted at any time, and comes back only when there is something to keep.
    const names = await this.#disk.readdir(this.#paths.cache).catch((error) => {
      if (codeOf(error) === 'ENOENT') return []
      throw error
    })
    for (const name of names) {
      const path = join(this.#paths.cache, name)
      const stats = await this.#disk.stat(path).catch(() => undefined)
      if (stats) found.push({ name, path, bytes: await diskUsage(this.#disk, path), changed: stats.mtimeMs })
    }
    return found.sort((a, b) => a.changed - b.changed)
  }

  async #measure(): Promise<void> {
    if (this.#live) this.#charge('cache', this.#live.bytes)
    else
      this.#charge(
        'cache',
        (await this.#cached()).reduce((sum, { bytes }) => sum + bytes, 0),
      )
    // Who has no cache of a server has counted it above.
    this.#charge('code', this.#live ? await diskUsage(this.#disk, this.#paths.code) : 0)
    let beside = 0
    for (const name of await this.#disk.readdir(this.#paths.root)) {
      const path = join(this.#paths.root, name)
      try {
        if (!(await this.#disk.stat(path)).isDirectory()) beside += await diskUsage(this.#disk, path)
      } catch (error) {
        if (codeOf(error) !== 'ENOENT') throw error
      }
    }
    this.#charge('files beside', beside)
  }
}
