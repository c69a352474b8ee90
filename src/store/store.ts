/**
 * Store: the builds that are held, and the blobs they share. Everything that changes the data directory's
 * builds/ and packs/ goes through here, one change at a time (`#turn`).
 *
 * A build is visible if and only if builds/<id> exists; then it is complete and durable, and so is every
 * blob of it. Publishing works up to that name, removing works down from it:
 *
 * publish                                            a crash right behind this line leaves
 *   1. the ingest's packs are sealed and fsynced       a directory in incoming/, discarded at start
 *   2. packs renamed into packs/, which is fsynced     packs that no manifest needs: swept after start
 *   3. build directory written in incoming/, fsynced   the same, and a directory in incoming/
 *   4. renamed to builds/<id>                          the build, or (power cut) as after 3
 *   5. builds/ fsynced                                 the build
 *
 * remove
 *   1. builds/<id> renamed into incoming/              no build; a directory in incoming/
 *   2. builds/ fsynced                                 the same, also after a power cut: without this the
 *                                                      build could reappear when its blobs are gone
 *   3. its blobs count as needed by one build less; the sweep does the rest (gc.ts, packs.ts)
 *   4. its files unlinked                              packs that no manifest needs
 *
 * What fails from 3 on is only reported: the build has gone, and a restart removes what is left of it.
 */
import { randomInt } from 'node:crypto'
import { type Dirent, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, rm, rmdir, stat, utimes } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { StoreCorrupt, StoreError, StoreFormat } from '../errors.ts'
import { BlockPool } from '../lib/block-pool.ts'
import { Mutex } from '../lib/mutex.ts'
import { diskError, isAboutFile } from './disk-error.ts'
import { replaceFile, syncDirectory, writeSynced } from './durable.ts'
import { type BuildNumber, deadBytes, emptyLedger, type Needs, References, sweep } from './gc.ts'
import { KnownBlobs } from './known-blobs.ts'
import { lockStore, type StoreLock } from './lock.ts'
import { Manifest, readManifestBlobs, type TreeTotals } from './manifest.ts'
import { ManifestCache } from './manifest-cache.ts'
import { type BlobReader, Packs, type Step } from './packs.ts'
import {
  type BuildPaths,
  DIRECTORY_MODE,
  FILE_MODE,
  ingestBuild,
  isSafeId,
  SPOOL_SUFFIX,
  STORE_FORMAT,
  StorePaths,
} from './paths.ts'

/** At most one write per build and this long for the time of last access: eviction needs no finer order. */
const TOUCH_INTERVAL_MS = 60_000

/** upserv.json: facts of the data directory that never change. */
export interface StoreFacts {
  format: number
  created: string
  /** The seed that rsync sessions use for block sums. Kept, so that equal bases give equal sums; never 0. */
  checksumSeed: number
}

/** build.json. */
export interface BuildInfo {
  id: string
  /** Name of the source, or "import". */
  source: string
  /** Where the archive came from, as a person would name it. */
  url: string
  /** When the build became visible, ISO 8601. */
  fetched: string
  archiveBytes: number | null
  /** Hex. */
  archiveSha256: string | null
  totals: TreeTotals
  /** Bytes of packs that came with this build: what it had that no other held build had. */
  addedBytes: number
  /** All files share this mtime (seconds), nearly: `rsync -a` would skip changed files of equal size. */
  uniformMtime: number | null
}

/** What an ingest hands over: packs that are sealed and fsynced, and the sealed manifest. */
export interface SealedIngest {
  packs: readonly string[]
  manifest: Uint8Array
}

/** An ingest under way. Ends with `publish` or `discardIngest`. */
export interface Staging {
  readonly id: string
  /** Empty directory for the ingest's packs. */
  readonly directory: string
  /** What the store has already; `known.data` may be sent to a worker thread. */
  readonly known: KnownBlobs
}

export interface StoreOptions {
  now?: () => Date
  /** Called for damage that does not keep the store from working. Log it. */
  onProblem?: (problem: StoreError) => void
  /** For tests: called between any two steps that a crash may come between. */
  step?: Step
  manifestCacheBytes?: number
  /** Where what is read from packs stays in memory. */
  pool?: BlockPool
}

interface HeldBuild {
  readonly id: string
  readonly number: BuildNumber
  readonly paths: BuildPaths
  /** Of the files in its directory. */
  readonly fileBytes: number
  accessed: Date
  /** When `accessed` was last written to disk, in ms. */
  touched: number
  /** Its blobs are counted as needed, or it is `damaged`. */
  counted: boolean
  /** Why it cannot be served: its manifest was unreadable when its blobs were counted, so it has none. */
  damaged: StoreError | undefined
  info: BuildInfo | undefined
}

export class Store {
  readonly paths: StorePaths
  readonly facts: StoreFacts
  readonly packs: Packs
  readonly #lock: StoreLock
  readonly #builds = new Map<string, HeldBuild>()
  readonly #references: References
  readonly #manifests: ManifestCache
  readonly #stagings = new Set<Staging>()
  readonly #turn = new Mutex()
  readonly #now: () => Date
  readonly #onProblem: (problem: StoreError) => void
  readonly #step: Step
  #nextBuildNumber = 1
  #buildBytes = 0
  #marking: Promise<void> | undefined
  /** Changes when a build comes or goes: what was derived from the catalog is stale then. */
  #generation = 0
  #exclusive: { generation: number; bytes: Map<string, number> } | undefined
  /** The newest time of access that was given out, in ms: see `#accessTime`. */
  #lastAccess = 0
  #closed = false

  private constructor(
    paths: StorePaths,
    facts: StoreFacts,
    lock: StoreLock,
    packs: Packs,
    options: StoreOptions,
  ) {
    this.paths = paths
    this.facts = facts
    this.#lock = lock
    this.packs = packs
    this.#references = new References(packs.index)
    this.#manifests = new ManifestCache(options.manifestCacheBytes)
    this.#now = options.now ?? (() => new Date())
    this.#onProblem = options.onProblem ?? (() => {})
    this.#step = options.step ?? (() => {})
  }

  /**
   * Opens a data directory, or makes one. Reads build directories and pack indexes, no blobs and no
   * manifests. @throws StoreLocked, StoreFormat.
   */
  static async open(root: string, options: StoreOptions = {}): Promise<Store> {
    const paths = new StorePaths(root)
    const made = mkdirSync(root, { recursive: true, mode: DIRECTORY_MODE })
    const lock = lockStore(paths.lock, options.now)
    try {
      const facts = await readOrMakeFacts(paths, options.now ?? (() => new Date()))
      for (const directory of [paths.builds, paths.packs, paths.incoming, paths.cache]) {
        mkdirSync(directory, { recursive: true, mode: DIRECTORY_MODE })
      }
      // A build lasts only if the names of all directories above it do.
      await syncDirectory(root)
      if (made !== undefined) await syncAncestors(root, dirname(made))
      discardLeftovers(paths)
      const onProblem = options.onProblem ?? (() => {})
      const packs = await Packs.open(
        paths,
        options.step ?? (() => {}),
        onProblem,
        options.pool ?? new BlockPool(0),
      )
      const store = new Store(paths, facts, lock, packs, options)
      store.#scanBuilds()
      return store
    } catch (error) {
      lock.release()
      throw error
    }
  }

  /** Lets go of the data directory. Sessions must have ended; what is under way is discarded at next start. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#turn.run(async () => {
      this.packs.close()
      this.#lock.release()
    })
  }

  // -------------------------------------------------------------------------------------------------
  // Looking.

  /** Ids of all held builds, in no particular order. */
  ids(): string[] {
    return [...this.#builds.keys()]
  }

  has(id: string): boolean {
    return this.#builds.has(id)
  }

  /** @throws StoreCorrupt when the manifest on disk is not what was written. */
  async manifest(id: string): Promise<Manifest> {
    const { paths, damaged } = this.#held(id)
    if (damaged) throw damaged
    return await this.#manifests
      .get(id, () => Manifest.load(paths.manifest))
      .catch((error) => {
        throw diskError(error, paths.manifest)
      })
  }

  /** Opens a blob that has bytes, by its SHA-256. Whoever opens it closes it. */
  copyBlob(digest: Uint8Array, position: number, target: Uint8Array): Promise<void> | undefined {
    return this.packs.copyBlob(digest, position, target)
  }

  async openBlob(digest: Uint8Array): Promise<BlobReader> {
    return await this.packs.openBlob(digest)
  }

  /** Path of the file that clients read as `contents`. */
  contentsPath(id: string): string {
    return this.#held(id).paths.contents
  }

  async contents(id: string): Promise<Buffer> {
    return await readWhole(this.contentsPath(id))
  }

  async info(id: string): Promise<BuildInfo> {
    const build = this.#held(id)
    build.info ??= parseInfo(build.paths.info, (await readWhole(build.paths.info)).toString('utf8'))
    return build.info
  }

  /** Asks the disk each time, so that `touch` and `rm` work. */
  async isSticky(id: string): Promise<boolean> {
    try {
      await stat(this.#held(id).paths.sticky)
      return true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
      throw error
    }
  }

  accessed(id: string): Date {
    return this.#held(id).accessed
  }

  /** Bytes of builds/ and packs/: what eviction can bring down. */
  get bytes(): number {
    return this.#buildBytes + this.packs.bytes
  }

  /** Bytes of the files in one build's directory, without its blobs. */
  fileBytes(id: string): number {
    return this.#held(id).fileBytes
  }

  // -------------------------------------------------------------------------------------------------
  // Changing a build's marks.

  async pin(id: string): Promise<void> {
    const { paths } = this.#held(id)
    try {
      await (await open(paths.sticky, 'a', FILE_MODE)).close()
    } catch (error) {
      throw diskError(error, paths.sticky)
    }
    // A pin that a power cut undoes is a build that eviction may take.
    await syncDirectory(paths.directory)
  }

  async unpin(id: string): Promise<void> {
    const { sticky } = this.#held(id).paths
    try {
      await rm(sticky, { force: true })
    } catch (error) {
      throw diskError(error, sticky)
    }
  }

  /** The build was accessed. Written to disk at most once a minute, and not fsynced: a lost minute is nothing. */
  async touch(id: string): Promise<void> {
    const build = this.#held(id)
    const time = this.#accessTime()
    build.accessed = time
    if (Math.abs(time.getTime() - build.touched) < TOUCH_INTERVAL_MS) return
    build.touched = time.getTime()
    const { accessed } = build.paths
    try {
      await utimes(accessed, time, time).catch(async (error) => {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
        await (await open(accessed, 'a', FILE_MODE)).close()
        await utimes(accessed, time, time)
      })
    } catch (error) {
      // A build can be served from a disk that takes no writes. One that has just left needs no time.
      if (this.#builds.get(id) === build) this.#report(error, accessed)
    }
  }

  /**
   * The time for an access that happens now: never before one that happened earlier, so that the order of
   * eviction is that of the accesses, also when the clock was set back.
   */
  #accessTime(): Date {
    const now = this.#now().getTime()
    this.#lastAccess = now >= this.#lastAccess ? now : this.#lastAccess + 1
    return new Date(this.#lastAccess)
  }

  // -------------------------------------------------------------------------------------------------
  // Coming and going.

  /** Prepares a directory for an ingest, and what it needs to tell new content from known. */
  async beginIngest(id: string): Promise<Staging> {
    const directory = this.paths.newIngest(id)
    try {
      await mkdir(directory, { mode: DIRECTORY_MODE })
    } catch (error) {
      throw diskError(error, directory)
    }
    const staging: Staging = { id, directory, known: KnownBlobs.of(this.packs.index) }
    this.#stagings.add(staging)
    return staging
  }

  /** Throws an ingest away, whatever it got to. */
  async discardIngest(staging: Staging): Promise<void> {
    this.#stagings.delete(staging)
    await rm(staging.directory, { recursive: true, force: true })
  }

  /**
   * Makes a build visible. The staging is used up, also when this throws; then the build isn't visible.
   * `contents` is what clients read: upstream's own bytes, or `generateContents`.
   */
  async publish(
    staging: Staging,
    ingest: SealedIngest,
    contents: (manifest: Manifest) => Uint8Array | AsyncIterable<Uint8Array>,
    info: BuildInfo,
  ): Promise<void> {
    try {
      await this.#turn.run(() => this.#publish(staging, ingest, contents, info))
    } catch (error) {
      throw diskError(error, this.paths.build(staging.id).directory)
    } finally {
      // Whether the build is visible was decided above; what is left goes at the next start at the latest.
      await this.discardIngest(staging).catch((error) => this.#report(error, staging.directory))
    }
  }

  /** Removes a build. Its blobs go with the next `collect`, where no other build needs them. */
  async remove(id: string): Promise<void> {
    try {
      await this.#turn.run(() => this.#remove(id))
    } catch (error) {
      throw diskError(error, this.paths.build(id).directory)
    }
  }

  async #publish(
    { id, directory }: Staging,
    ingest: SealedIngest,
    contents: (manifest: Manifest) => Uint8Array | AsyncIterable<Uint8Array>,
    info: BuildInfo,
  ): Promise<void> {
    this.#assertOpen()
    if (this.#builds.has(id)) throw new StoreError(`build ${id} is held already`)
    await this.#step('publish: begin')
    // 2.
    await this.packs.adopt(ingest.packs)
    await this.#step('publish: packs adopted')
    // 3.
    const prepared = ingestBuild(directory)
    await mkdir(prepared.directory, { mode: DIRECTORY_MODE })
    let fileBytes = await writeSynced(prepared.manifest, ingest.manifest)
    await this.#step('publish: manifest written')
    // Read back: what clients will be served from is what is checked here.
    const manifest = await Manifest.load(prepared.manifest)
    fileBytes += await writeSynced(prepared.contents, contents(manifest))
    await this.#step('publish: contents written')
    fileBytes += await writeSynced(prepared.info, Buffer.from(`${JSON.stringify(info, null, 2)}\n`))
    await writeSynced(prepared.accessed, new Uint8Array(0))
    const accessed = this.#accessTime()
    await utimes(prepared.accessed, accessed, accessed)
    // The names in it must last before its own name makes it visible.
    await syncDirectory(prepared.directory)
    await this.#step('publish: build directory durable')
    const build: HeldBuild = {
      id,
      number: this.#nextBuildNumber++,
      paths: this.paths.build(id),
      fileBytes,
      accessed,
      touched: accessed.getTime(),
      counted: false,
      damaged: undefined,
      info,
    }
    const blobs = await readManifestBlobs(prepared.manifest)
    const missing = await this.#references.add(build.number, blobs.digests, blobs.sizes)
    build.counted = true
    let aside: string | undefined
    let renamed = false
    try {
      if (missing > 0) throw new StoreError(`build ${id} needs ${missing} blobs that the store does not have`)
      aside = await this.#moveAside(build.paths.directory, id)
      // 4.
      await rename(prepared.directory, build.paths.directory)
      renamed = true
      await this.#step('publish: renamed into place')
      // 5. Before anybody is told: a build that was served must not vanish in a power cut.
      await syncDirectory(this.paths.builds)
    } catch (error) {
      if (renamed) await rename(build.paths.directory, this.paths.newRemoved(id)).catch(() => {})
      if (aside !== undefined) await rename(aside, build.paths.directory).catch(() => {})
      this.#references.remove(build.number)
      throw error
    }
    this.#builds.set(id, build)
    this.#buildBytes += fileBytes
    this.#generation++
    await this.#step('publish: done')
    if (aside !== undefined) await this.#discard(aside)
  }

  /**
   * What has the build's name although we don't hold it: a directory without a manifest, or made by hand.
   * It gives way to the build. Returns where it is now, or undefined when there is nothing.
   */
  async #moveAside(path: string, id: string): Promise<string | undefined> {
    const aside = this.paths.newRemoved(id)
    try {
      await rename(path, aside)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
    this.#onProblem(new StoreCorrupt(`${path} was not a build of ours, and gives way to one`))
    return aside
  }

  async #remove(id: string): Promise<void> {
    this.#assertOpen()
    const build = this.#held(id)
    const removed = this.paths.newRemoved(id)
    await this.#step('remove: begin')
    // 1.
    try {
      await rename(build.paths.directory, removed)
    } catch (error) {
      // Somebody was quicker by hand. All the rest is as usual.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
    this.#manifests.forget(id)
    await this.#step('remove: renamed away')
    // 2.
    try {
      await syncDirectory(this.paths.builds)
    } catch (error) {
      // It could come back in a power cut, so it keeps its blobs: as if nobody had tried.
      await rename(removed, build.paths.directory).catch(() => {})
      throw error
    }
    // 3.
    this.#builds.delete(id)
    this.#references.remove(build.number)
    this.#buildBytes -= build.fileBytes
    this.#generation++
    await this.#step('remove: forgotten for good')
    // 4.
    await this.#discard(removed)
    await this.#step('remove: done')
  }

  /** Removes what is in incoming/ and nobody needs. That this fails is a problem, but nobody's who waits. */
  async #discard(directory: string): Promise<void> {
    try {
      for (const name of await readdir(directory)) {
        await rm(join(directory, name), { recursive: true, force: true })
        await this.#step('discard: one less')
      }
      await rmdir(directory)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT') return
      if (code === 'ENOTDIR') await rm(directory, { force: true })
      else this.#report(error, directory)
    }
  }

  #report(error: unknown, path: string): void {
    const problem = diskError(error, path)
    this.#onProblem(
      problem instanceof StoreError ? problem : new StoreError(`${path}: ${error}`, { cause: error }),
    )
  }

  // -------------------------------------------------------------------------------------------------
  // Which bytes are whose.

  /**
   * Resolves when the blobs of every held build are counted, which nothing below can do without. The first
   * call starts the counting: in the background, one manifest at a time, other work in between.
   */
  async marked(): Promise<void> {
    this.#marking ??= this.#markAll().catch((error) => {
      this.#marking = undefined
      throw error
    })
    await this.#marking
  }

  /** What removing each build alone would free, its own files included. */
  async exclusiveBytes(): Promise<ReadonlyMap<string, number>> {
    await this.marked()
    if (this.#exclusive?.generation !== this.#generation) {
      const byNumber = this.#references.exclusiveBytes()
      const bytes = new Map<string, number>()
      for (const build of this.#builds.values())
        bytes.set(build.id, build.fileBytes + (byNumber.get(build.number) ?? 0))
      this.#exclusive = { generation: this.#generation, bytes }
    }
    return this.#exclusive.bytes
  }

  /**
   * What a set of builds takes all together, shared blobs once, and what ingests under way rely on: what
   * stays if all others go.
   */
  async bytesOf(ids: Iterable<string>): Promise<number> {
    await this.marked()
    const ledger = emptyLedger(this.packs.index)
    let bytes = 0
    for (const { known } of this.#stagings) bytes += ledger.keep(known.claimed())
    for (const id of ids) {
      const build = this.#builds.get(id)
      if (build) bytes += build.fileBytes + ledger.keep(this.#references.rowsOf(build.number))
      // A build takes a millisecond; there may be thousands.
      await nextTurn()
    }
    return bytes
  }

  /**
   * For planning evictions: what would become free if builds left one after the other. What ingests under
   * way rely on stays.
   */
  async plan(): Promise<EvictionLedger> {
    await this.marked()
    const ledger = this.#references.ledger(this.#known())
    return {
      leave: async (id) => {
        await nextTurn()
        const build = this.#builds.get(id)
        return build ? build.fileBytes + ledger.leave(this.#references.rowsOf(build.number)) : 0
      },
      arrive: (digests) => ledger.keepDigests(digests),
    }
  }

  /** Bytes in packs that neither a held build nor an ingest under way needs: `collect` gets them back. */
  async deadBytes(): Promise<number> {
    await this.marked()
    return deadBytes(this.#needs())
  }

  /**
   * Removes blobs that nobody needs: all dead packs, and packs that are mostly dead; with `need`, goes on
   * until that many bytes are free or nothing is left to do. Returns the bytes freed.
   */
  async collect(need = 0): Promise<number> {
    await this.marked()
    let freed = 0
    for (let more = true; more && !this.#closed; ) {
      const order = { ...this.#needs(), need: need - freed, onProblem: this.#onProblem }
      const result = await this.#turn
        .run(() => sweep(order))
        .catch((error) => {
          throw diskError(error, this.paths.packs)
        })
      freed += result.freed
      more = result.more
    }
    return freed
  }

  #known(): KnownBlobs[] {
    return [...this.#stagings].map(({ known }) => known)
  }

  #needs(): Needs {
    return { packs: this.packs, references: this.#references, known: () => this.#known() }
  }

  async #markAll(): Promise<void> {
    for (;;) {
      const build = [...this.#builds.values()].find(({ counted }) => !counted)
      if (!build || this.#closed) return
      await this.#turn.run(async () => {
        // Gone while we waited for our turn.
        if (this.#builds.get(build.id) === build) await this.#mark(build)
      })
    }
  }

  /**
   * Counts a build's blobs. One whose manifest can't be read needs none, since it cannot be served, and
   * must not be from now on: its blobs may go. All other builds are counted on.
   */
  async #mark(build: HeldBuild): Promise<void> {
    const hint = 'Remove it and fetch it again.'
    try {
      const { digests, sizes } = await readManifestBlobs(build.paths.manifest)
      const missing = await this.#references.add(build.number, digests, sizes)
      if (missing > 0)
        this.#onProblem(new StoreCorrupt(`build ${build.id} lacks ${missing} of its blobs`, { hint }))
    } catch (error) {
      if (!isAboutFile(error)) throw diskError(error, build.paths.manifest)
      const { message } = diskError(error, build.paths.manifest) as StoreError
      build.damaged = new StoreCorrupt(`build ${build.id} is damaged: ${message}`, { hint, cause: error })
      this.#manifests.forget(build.id)
      this.#onProblem(build.damaged)
    }
    build.counted = true
  }

  // -------------------------------------------------------------------------------------------------

  /** Behind `close` the directory may be another process's already. */
  #assertOpen(): void {
    if (this.#closed) throw new StoreError('the store is closed')
  }

  #held(id: string): HeldBuild {
    const build = this.#builds.get(id)
    if (!build) throw new StoreError(`build ${id} is not held`)
    return build
  }

  /** Synchronous: nobody else lives on the event loop yet, and thousands of small calls are faster so. */
  #scanBuilds(): void {
    for (const entry of readdirSync(this.paths.builds, { withFileTypes: true })) {
      const id = entry.name
      if (!entry.isDirectory() || !isSafeId(id)) continue
      const paths = this.paths.build(id)
      const fileBytes = sizeOf(paths.manifest) + sizeOf(paths.contents) + sizeOf(paths.info)
      if (!existsSync(paths.manifest)) {
        this.#onProblem(
          new StoreCorrupt(`${paths.directory} has no manifest`, {
            hint: 'Not ours, or damaged: remove it.',
          }),
        )
        continue
      }
      const accessed = statSync(paths.accessed, { throwIfNoEntry: false })?.mtime ?? new Date(0)
      const number = this.#nextBuildNumber++
      this.#builds.set(id, {
        id,
        number,
        paths,
        fileBytes,
        accessed,
        touched: accessed.getTime(),
        counted: false,
        damaged: undefined,
        info: undefined,
      })
      this.#buildBytes += fileBytes
    }
    this.#orderAccesses()
  }

  /**
   * A time of access in the future was written by a clock that went wrong: it becomes now, or such a build
   * would be the last to go for years. Several keep their order.
   */
  #orderAccesses(): void {
    const now = this.#now().getTime()
    const builds = [...this.#builds.values()].sort((a, b) => a.accessed.getTime() - b.accessed.getTime())
    for (const build of builds) {
      if (build.accessed.getTime() > now) build.accessed = new Date(Math.max(now, this.#lastAccess + 1))
      this.#lastAccess = build.accessed.getTime()
    }
  }
}

/** Plays through what evictions would free, without any consequence. */
export interface EvictionLedger {
  /** The build leaves: bytes that become free, given who left before. */
  leave(id: string): Promise<number>
  /**
   * Blobs that a build which is about to be published needs: they do not become free. Returns the bytes of
   * those that no held build needs.
   */
  arrive(digests: Uint8Array): Promise<number>
}

async function readOrMakeFacts(paths: StorePaths, now: () => Date): Promise<StoreFacts> {
  let text: string
  try {
    text = readFileSync(paths.format, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return await makeFacts(paths, now)
  }
  let facts: Partial<StoreFacts>
  try {
    facts = JSON.parse(text) as Partial<StoreFacts>
  } catch (cause) {
    throw new StoreCorrupt(`${paths.format} is not JSON`, { cause })
  }
  if (facts.format !== STORE_FORMAT) {
    throw new StoreFormat(
      `${paths.root} has format ${facts.format}; this program reads format ${STORE_FORMAT}`,
      {
        hint: 'Use the version that made it, or an empty data_dir: builds are fetched again when asked for.',
      },
    )
  }
  const { checksumSeed, created } = facts
  if (typeof created !== 'string' || !Number.isInteger(checksumSeed) || checksumSeed === 0) {
    throw new StoreCorrupt(`${paths.format} lacks what it should say`)
  }
  return { format: STORE_FORMAT, created, checksumSeed: checksumSeed! }
}

async function makeFacts(paths: StorePaths, now: () => Date): Promise<StoreFacts> {
  // Somebody else's directory, or a store whose upserv.json was lost: neither is ours to write into.
  const others = readdirSync(paths.root).filter(
    (name) => name !== basename(paths.lock) && !name.startsWith('.'),
  )
  const foreign = others.filter((name) => name !== 'lost+found' && name !== `${basename(paths.format)}.new`)
  if (foreign.length > 0) {
    throw new StoreFormat(
      `${paths.root} is not empty and has no ${basename(paths.format)}: it holds ${foreign[0]}`,
      {
        hint: 'Choose an empty directory as data_dir.',
      },
    )
  }
  const facts: StoreFacts = {
    format: STORE_FORMAT,
    created: now().toISOString(),
    checksumSeed: randomInt(1, 2 ** 31 - 1),
  }
  await replaceFile(paths.format, Buffer.from(`${JSON.stringify(facts, null, 2)}\n`))
  return facts
}

/** Everything in incoming/ but spools. Unlinking is quick, also for large files. */
function discardLeftovers(paths: StorePaths): void {
  const isLeftover = (entry: Dirent) => !entry.name.endsWith(SPOOL_SUFFIX)
  for (const entry of readdirSync(paths.incoming, { withFileTypes: true }).filter(isLeftover)) {
    rmSync(join(paths.incoming, entry.name), { recursive: true, force: true })
  }
}

/** Makes the names of `path` and of the directories above it durable, up to those in `top`. */
async function syncAncestors(path: string, top: string): Promise<void> {
  for (let at = resolve(path); at !== resolve(top) && at !== dirname(at); ) {
    at = dirname(at)
    await syncDirectory(at)
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0
}

async function readWhole(path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (error) {
    throw diskError(error, path)
  }
}

function parseInfo(path: string, text: string): BuildInfo {
  try {
    return JSON.parse(text) as BuildInfo
  } catch (cause) {
    throw new StoreCorrupt(`${path} is not JSON`, { cause })
  }
}
