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
 *
 * Damage: a build lacks what it needs when blobs of it are lost (blob-index.ts) or its own files are not
 * what was written. It stays visible, is not served as it is, and is made whole by another ingest of it:
 * where only blobs are lost and the tree is the same, by adopting their packs (1 and 2 above); otherwise
 * the new directory takes the place of the old one, by two renames between 3 and 5. A crash between them
 * leaves no build, which is what it was worth, and it is fetched when it is asked for.
 */
import { createHash, type Hash } from 'node:crypto'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { StoreCorrupt, StoreError } from '../errors.ts'
import { BlockPool } from '../lib/block-pool.ts'
import { asBuffer } from '../lib/bytes.ts'
import { type Disk, type DiskNow, realDisk } from '../lib/disk.ts'
import { Mutex } from '../lib/mutex.ts'
import { Pacer, pacedUpdate } from '../lib/pacer.ts'
import { type Throttle, UNBOUND } from '../lib/throttle.ts'
import { type AccessMark, decodeAccess, encodeAccess, isTouched, placeTouched } from './access.ts'
import type { PackNumber } from './blob-index.ts'
import { type BuildInfo, decodeInfo, encodeInfo } from './build-info.ts'
import { type Claim, claimStore } from './claim.ts'
import { askTwice, codeOf, diskError, isAboutFile, isUnreadable } from './disk-error.ts'
import { BLOCK_BYTES, diskUsage } from './disk-usage.ts'
import { removeTree, replaceFile, syncDirectory, touchFile, writeSynced } from './durable.ts'
import type { StoreFacts } from './facts.ts'
import {
  type BuildNumber,
  DEAD_BOUND,
  type DeadBound,
  deadBytes,
  emptyLedger,
  type Needs,
  References,
  rewritePack,
  sweep,
} from './gc.ts'
import { KnownBlobs } from './known-blobs.ts'
import type { StoreLock } from './lock.ts'
import { Manifest, readManifestBlobs, readSeal } from './manifest.ts'
import { ManifestCache } from './manifest-cache.ts'
import { DIGEST_BYTES } from './pack.ts'
import { type BlobReader, type Pace, type PackInfo, Packs, type Step } from './packs.ts'
import {
  type BuildPaths,
  buildPathsIn,
  DIRECTORY_MODE,
  FILE_MODE,
  ingestBuild,
  isSafeId,
  SPOOL_SUFFIX,
  type StorePaths,
} from './paths.ts'
import { checkBlobs } from './verify.ts'

/** At most one write per build and this long for the time of last access: eviction needs no finer order. */
const TOUCH_INTERVAL_MS = 60_000

/**
 * What a build takes beyond its manifest, contents and build.json: what these lack to whole blocks, its
 * directory, and its marks (`accessed`, `damaged`).
 */
export const BUILD_OVERHEAD = 6 * BLOCK_BYTES

/** What is read of a file `damaged`, which may have been made by hand. */
const MAX_REASON = 500

const REPAIR_HINT = 'Run `upserv verify --repair`, or ask for the build: it is fetched again.'

/** Directories, upserv.json, upserv.lock and the like, whatever is held. */
const FIXED_BYTES = 16 * BLOCK_BYTES

/** Why a build cannot be served as it is. */
export interface Damage {
  /** As in "build 802 is damaged: 3 files are lost". */
  message: string
  /** Distinct contents that it needs and that the store does not have any more. */
  lostBlobs: number
  /** Its manifest, contents or build.json is not what was written. */
  files: boolean
}

/** What looking at everything again has found. */
export interface Verified {
  blobs: number
  bytes: number
  /** Blobs that were found to have rotted now; those found before are not counted. */
  rotten: number
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
  /** Bounds what is read and copied while nobody waits for it. */
  background?: Throttle
  /** How much may be dead before packs are rewritten; undefined for as much as DEAD_BOUND says. */
  deadBound?: DeadBound
  /** For tests: what stands in for the disk. */
  disk?: Disk
}

interface HeldBuild {
  readonly id: string
  readonly number: BuildNumber
  readonly paths: BuildPaths
  /** Of its manifest, contents and build.json. */
  readonly fileBytes: number
  access: AccessMark
  /** What is written in its file `accessed`, about a minute behind; undefined while that is being written. */
  written: AccessMark | undefined
  /** When that was tried last, in ms since 1970. */
  triedAt: number
  /** Its blobs are counted as needed, or it is `damaged`. */
  counted: boolean
  /** While they are being counted. */
  counting: Promise<void> | undefined
  /** Why it cannot be served, whatever blobs there are: a file of its own is not what was written. */
  damaged: StoreError | undefined
  /** It is `damaged` only as long as the disk gives nothing of that file. */
  unreadable: boolean
  info: BuildInfo | undefined
}

export class Store {
  readonly paths: StorePaths
  readonly facts: StoreFacts
  readonly packs: Packs
  /** What all of this rests on; for who reads a file of a build by itself. */
  readonly disk: Disk
  readonly #lock: StoreLock
  readonly #builds = new Map<string, HeldBuild>()
  readonly #references: References
  readonly #manifests: ManifestCache
  readonly #stagings = new Set<Staging>()
  /** Packs from this number on are those of a publish under way: nobody needs them yet, and somebody will. */
  #arriving: PackNumber | undefined
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
  /**
   * Builds that are not held, though the disk failed before that was certain: a power cut may bring back
   * the name of one, so its blobs are needed until `#settle` has seen to that. With each, whether its
   * directory has been moved away: what has its name then is another one.
   */
  readonly #withdrawn = new Map<HeldBuild, { moved: boolean }>()
  /** The number of the latest access. */
  #lastSequence = 0
  readonly #background: Throttle
  readonly #deadBound: DeadBound
  #compacting: Promise<void> | undefined
  #compactAgain = false
  /** What an earlier process left in incoming/, and has not been removed yet. */
  #leftoverBytes = 0
  #leftovers: Promise<void> = Promise.resolve()
  #paused = false
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
    this.disk = options.disk ?? realDisk
    this.#lock = lock
    this.packs = packs
    this.#references = new References(packs.index)
    this.#manifests = new ManifestCache(options.manifestCacheBytes)
    this.#now = options.now ?? (() => new Date())
    this.#onProblem = options.onProblem ?? (() => {})
    this.#step = options.step ?? (() => {})
    this.#background = options.background ?? UNBOUND
    this.#deadBound = options.deadBound ?? DEAD_BOUND
  }

  /**
   * Opens a data directory, or makes one; or one that was claimed before. Reads build directories and pack
   * indexes, no blobs and no manifests. When it throws, a claim is given up. @throws StoreLocked, StoreFormat.
   */
  static async open(where: string | Claim, options: StoreOptions = {}): Promise<Store> {
    const { now, disk = realDisk } = options
    const { paths, facts, lock } =
      typeof where === 'string' ? await claimStore(where, { disk, ...(now && { now }) }) : where
    try {
      // A build lasts only if the names of all directories above it do.
      await syncDirectory(disk, paths.root, 'names of builds/ and packs/')
      // What a killed process renamed and did not sync: we are about to count on it, and to sweep what it
      // does not need.
      await syncDirectory(disk, paths.builds, 'names of builds, at start')
      await syncDirectory(disk, paths.packs, 'names of packs, at start')
      const leftovers = (await disk.readdir(paths.incoming)).filter((name) => !name.endsWith(SPOOL_SUFFIX))
      const onProblem = options.onProblem ?? (() => {})
      const packs = await Packs.open(
        paths,
        options.step ?? (() => {}),
        onProblem,
        options.pool ?? new BlockPool(0),
        disk,
      )
      const store = new Store(paths, facts, lock, packs, options)
      await store.#scanBuilds()
      // Whoever waits for the start need not wait for this: nobody else uses these names.
      store.#leftovers = store.#discardLeftovers(leftovers)
      return store
    } catch (error) {
      lock.release()
      throw diskError(error, paths.root)
    }
  }

  /** Lets go of the data directory. Sessions must have ended; what is under way is discarded at next start. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#leftovers
    await this.#marking?.catch(() => {})
    await this.#turn.run(async () => {
      this.packs.close()
      this.#lock.release()
    })
  }

  // -------------------------------------------------------------------------------------------------
  // Handing over. Who goes on reading may do so after that, also from packs that the next owner unlinks.

  /**
   * Waits for the change under way; until the returned function is called there is no other, and who wants one
   * waits. Ingests must have ended.
   */
  async pause(): Promise<() => void> {
    const { promise: over, resolve: end } = Promise.withResolvers<void>()
    this.#paused = true
    await this.#leftovers
    await new Promise<void>((resolve) => {
      void this.#turn.run(async () => {
        resolve()
        await over
      })
    })
    return () => {
      this.#paused = false
      end()
    }
  }

  /**
   * Opens every pack that these builds need and keeps it open, until the returned function is called: what is
   * unlinked then can still be read. @throws StoreError when one can't be opened.
   */
  async keepOpen(ids: Iterable<string>): Promise<() => void> {
    const held: PackInfo[] = []
    const letGo = (): void => {
      for (const pack of held.splice(0)) pack.file.release()
    }
    const { index } = this.packs
    const needed = new Set<PackInfo>()
    const pacer = new Pacer()
    for (const id of ids) {
      // Of one that can't be read whoever has it in memory gets what there is.
      const blobs = await readManifestBlobs(this.#held(id).paths.manifest, this.disk).catch(() => undefined)
      const digests = blobs?.digests ?? new Uint8Array(0)
      for (let at = 0; at < digests.length; at += DIGEST_BYTES) {
        if (pacer.due) await pacer.rest()
        const row = index.find(digests.subarray(at, at + DIGEST_BYTES))
        const pack = row < 0 || index.isLost(row) ? undefined : this.packs.get(index.pack(row))
        if (pack) needed.add(pack)
      }
    }
    try {
      for (const pack of needed) {
        await this.packs.hold(pack)
        held.push(pack)
      }
    } catch (error) {
      letGo()
      throw diskError(error, this.paths.packs)
    }
    return letGo
  }

  /** The data directory is another process's from now on: what would change it fails. */
  abandon(): void {
    this.#closed = true
    this.#lock.release()
  }

  // -------------------------------------------------------------------------------------------------
  // Looking.

  /** How many changes wait for the one that is under way. */
  get turnsWaiting(): number {
    return this.#turn.waiting
  }

  /** Resolves when what an earlier process left behind in incoming/ is gone. */
  async leftoversGone(): Promise<void> {
    await this.#leftovers
  }

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
      .get(id, () => Manifest.load(paths.manifest, this.disk))
      .catch((error) => {
        throw diskError(error, paths.manifest)
      })
  }

  /** The manifest as it lies on the disk. */
  async manifestBytes(id: string): Promise<Buffer> {
    return await this.#readWhole(this.#held(id).paths.manifest)
  }

  /** The seal alone: the manifest's last bytes. */
  async manifestSeal(id: string): Promise<string> {
    const path = this.#held(id).paths.manifest
    try {
      return await readSeal(path, this.disk)
    } catch (error) {
      throw diskError(error, path)
    }
  }

  /** Opens a blob that has bytes, by its SHA-256. Whoever opens it closes it. */
  copyBlob(digest: Uint8Array, position: number, targets: readonly Uint8Array[]): Promise<void> | undefined {
    return this.packs.copyBlob(digest, position, targets)
  }

  async openBlob(digest: Uint8Array): Promise<BlobReader> {
    return await this.packs.openBlob(digest)
  }

  /** Path of the file that clients read as `contents`. */
  contentsPath(id: string): string {
    return this.#held(id).paths.contents
  }

  async contentsSize(id: string): Promise<number> {
    const path = this.contentsPath(id)
    try {
      return (await this.disk.stat(path)).size
    } catch (error) {
      throw diskError(error, path)
    }
  }

  async contents(id: string): Promise<Buffer> {
    return await this.#readWhole(this.contentsPath(id))
  }

  async info(id: string): Promise<BuildInfo> {
    const build = this.#held(id)
    build.info ??= decodeInfo(build.paths.info, await this.#readWhole(build.paths.info))
    return build.info
  }

  /** Asks the disk each time, so that `touch` and `rm` work. */
  async isSticky(id: string): Promise<boolean> {
    return await this.#isThere(this.#held(id).paths.sticky)
  }

  /** When the build was accessed last, by the clock as it was then. For people: clocks jump. */
  accessed(id: string): Date {
    return new Date(Math.min(this.#held(id).access.time, this.#now().getTime()))
  }

  /**
   * A number that is the greater the later the build was accessed last. Asks the disk each time, so that
   * `touch accessed` works.
   */
  async accessOrder(id: string): Promise<number> {
    const build = this.#held(id)
    const { written } = build
    const stats = await this.disk.stat(build.paths.accessed).catch(() => undefined)
    // Another mark by now, or one that is being written, has another time: nobody touched the file.
    const settled = written !== undefined && written === build.written
    if (stats && settled && isTouched(written, stats.mtimeMs)) this.#placeTouched(build, stats.mtimeMs)
    return build.access.sequence
  }

  /** Bytes of builds/ and packs/: what eviction can bring down. */
  get bytes(): number {
    return this.#buildBytes + this.packs.bytes
  }

  /** What the data directory takes beside `bytes`, at most: all but what fetches and caches write. */
  get overheadBytes(): number {
    const files = this.#builds.size * BUILD_OVERHEAD + this.packs.count * BLOCK_BYTES
    return FIXED_BYTES + files + this.#leftoverBytes
  }

  /** Bytes of the files in one build's directory, without its blobs. */
  fileBytes(id: string): number {
    return this.#held(id).fileBytes
  }

  // -------------------------------------------------------------------------------------------------
  // Changing a build's marks.

  async pin(id: string): Promise<void> {
    const { paths } = this.#held(id)
    await touchFile(this.disk, paths.sticky)
    // A pin that a power cut undoes is a build that eviction may take.
    await syncDirectory(this.disk, paths.directory, 'name of sticky')
  }

  async unpin(id: string): Promise<void> {
    const { sticky } = this.#held(id).paths
    try {
      await removeTree(this.disk, sticky)
    } catch (error) {
      throw diskError(error, sticky)
    }
  }

  /** The build was accessed. Written to disk at most once a minute, and not fsynced: a lost minute is nothing. */
  async touch(id: string): Promise<void> {
    const build = this.#held(id)
    build.access = this.#newAccess()
    if (this.#paused || this.#closed) return
    const { access, written } = build
    // By the time, not the number, which counts accesses of all builds. A clock that jumps only writes it early.
    if (Math.abs(access.time - build.triedAt) < TOUCH_INTERVAL_MS) return
    build.triedAt = access.time
    build.written = undefined
    try {
      await this.#writeAccess(build.paths.accessed, access)
      build.written = access
    } catch (error) {
      build.written = written
      // A build can be served from a disk that takes no writes. One that has just left needs no time.
      if (this.#builds.get(id) === build) this.#report(error, build.paths.accessed)
    }
  }

  #newAccess(): AccessMark {
    return { sequence: ++this.#lastSequence, time: this.#now().getTime() }
  }

  /** A crash in between leaves a mark with another mtime, or none: see access.ts. */
  async #writeAccess(path: string, mark: AccessMark): Promise<void> {
    const file = await this.disk.open(path, 'w', FILE_MODE)
    try {
      await file.writeFile(encodeAccess(mark))
    } finally {
      await file.close()
    }
    const time = new Date(mark.time)
    await this.disk.utimes(path, time, time)
  }

  #placeTouched(build: HeldBuild, mtime: number): void {
    const others = [...this.#builds.values()].filter((other) => other !== build).map(({ access }) => access)
    const time = Math.round(mtime)
    build.access = { sequence: placeTouched(time, others, this.#now().getTime()), time }
    build.written = build.access
    build.triedAt = time
    this.#lastSequence = Math.max(this.#lastSequence, Math.ceil(build.access.sequence))
  }

  // -------------------------------------------------------------------------------------------------
  // Coming and going.

  /** Prepares a directory for an ingest, and what it needs to tell new content from known. */
  async beginIngest(id: string): Promise<Staging> {
    const directory = this.paths.newIngest(id)
    try {
      this.#lock.assertOurs()
      await this.disk.mkdir(directory, DIRECTORY_MODE)
    } catch (error) {
      throw diskError(error, directory)
    }
    const staging: Staging = { id, directory, known: KnownBlobs.of(this.packs.index) }
    this.#stagings.add(staging)
    return staging
  }

  /**
   * Throws an ingest away, whatever it got to. Never fails: what is left goes at the next start at the
   * latest, and whoever waits should hear why the ingest failed instead.
   */
  async discardIngest(staging: Staging): Promise<void> {
    this.#stagings.delete(staging)
    await removeTree(this.disk, staging.directory).catch((error) => this.#report(error, staging.directory))
  }

  /**
   * Makes a build visible. The staging is used up, also when this throws; then the build isn't visible.
   * `contents` is what clients read: upstream's own bytes, or `generateContents`.
   * @param mayReplace for a build that may be held already. When it is whole by now it stays, and nothing
   *   happens; when it is damaged and cannot be made whole as it is, this is asked whether it may give way.
   *   From a yes on, nobody may begin to use it until `publish` returns.
   */
  async publish(
    staging: Staging,
    ingest: SealedIngest,
    contents: (manifest: Manifest) => Uint8Array | AsyncIterable<Uint8Array>,
    info: BuildInfo,
    mayReplace?: () => boolean,
  ): Promise<void> {
    try {
      await this.#turn.run(() =>
        this.#publish(staging, ingest, contents, info, mayReplace).finally(() => {
          this.#arriving = undefined
        }),
      )
    } catch (error) {
      throw diskError(error, this.paths.build(staging.id).directory)
    } finally {
      // Whether the build is visible was decided above.
      await this.discardIngest(staging)
      void this.compact()
    }
  }

  /** Removes a build. Its blobs go with the next `collect`, where no other build needs them. */
  async remove(id: string): Promise<void> {
    try {
      await this.#turn.run(() => this.#remove(id))
    } catch (error) {
      throw diskError(error, this.paths.build(id).directory)
    }
    void this.compact()
  }

  async #publish(
    { id, directory }: Staging,
    ingest: SealedIngest,
    contents: (manifest: Manifest) => Uint8Array | AsyncIterable<Uint8Array>,
    info: BuildInfo,
    mayReplace: (() => boolean) | undefined,
  ): Promise<void> {
    this.#assertOpen()
    await this.#settle()
    this.#arriving = this.packs.numbers
    const old = this.#builds.get(id)
    if (old) await this.#count(old)
    if (old && !mayReplace) throw new StoreError(`build ${id} is held already`)
    // Whole again by what another build has brought, which gives no reason to replace it.
    if (old && this.#isWhole(old)) return
    await this.#step('publish: begin')
    // 2.
    await this.packs.adopt(ingest.packs)
    await this.#step('publish: packs adopted')
    if (old && (await this.#isWholeWith(old, ingest.manifest))) return
    // 3.
    const prepared = ingestBuild(directory)
    await this.disk.mkdir(prepared.directory, DIRECTORY_MODE)
    let fileBytes = await writeSynced(this.disk, prepared.manifest, ingest.manifest, 'manifest')
    await this.#step('publish: manifest written')
    // Read back: what clients will be served from is what is checked here.
    const manifest = await Manifest.load(prepared.manifest, this.disk)
    const sha256 = createHash('sha256')
    const text = contents(manifest)
    const digested = digesting(text instanceof Uint8Array ? [text] : text, sha256)
    fileBytes += await writeSynced(this.disk, prepared.contents, digested, 'contents')
    await this.#step('publish: contents written')
    const fullInfo: BuildInfo = { ...info, contentsSha256: sha256.digest('hex') }
    fileBytes += await writeSynced(this.disk, prepared.info, encodeInfo(fullInfo), 'build.json')
    const access = this.#newAccess()
    await this.#writeAccess(prepared.accessed, access)
    const sticky = old !== undefined && (await this.isSticky(id))
    if (sticky) await touchFile(this.disk, prepared.sticky)
    // The names in it must last before its own name makes it visible.
    await syncDirectory(this.disk, prepared.directory, 'names in a build')
    await this.#step('publish: build directory durable')
    const build: HeldBuild = {
      id,
      number: this.#nextBuildNumber++,
      paths: this.paths.build(id),
      fileBytes,
      access,
      written: access,
      triedAt: access.time,
      counted: false,
      counting: undefined,
      damaged: undefined,
      unreadable: false,
      info: fullInfo,
    }
    const blobs = await readManifestBlobs(prepared.manifest, this.disk)
    const lost = await this.#references.add(build.number, blobs.digests, blobs.sizes)
    build.counted = true
    let aside: string | undefined
    let named = false
    try {
      if (lost > 0) throw new StoreCorrupt(`build ${id} needs ${lost} blobs that the store does not have`)
      if (old && !mayReplace!()) {
        throw new StoreError(
          `build ${id} is damaged and in use, and upstream's archive is another tree now`,
          {
            hint: 'Try again when its clients are done.',
          },
        )
      }
      aside = await this.#moveAside(build.paths.directory, id)
      if (old && aside !== undefined) await this.#carryMark(sticky, buildPathsIn(aside), prepared)
      // 4.
      named = true
      await this.disk.rename(prepared.directory, build.paths.directory)
      await this.#step('publish: renamed into place')
      // 5. Before anybody is told: a build that was served must not vanish in a power cut.
      await syncDirectory(this.disk, this.paths.builds, 'name of a new build')
    } catch (error) {
      // It may have its name all the same, or again after a power cut.
      if (named) await this.#withdraw(build)
      else this.#references.remove(build.number)
      if (aside !== undefined) await this.#putForward(aside, build)
      throw error
    }
    if (old) {
      this.#manifests.forget(id)
      this.#references.remove(old.number)
      this.#buildBytes -= old.fileBytes
    }
    this.#builds.set(id, build)
    this.#buildBytes += build.fileBytes
    this.#generation++
    await this.#step('publish: done')
    if (aside !== undefined) await this.#discard(aside)
  }

  /**
   * What has the build's name gives way to it: a damaged build, a directory without a manifest, or one made
   * by hand. Returns where it is now, or undefined when there is nothing.
   */
  async #moveAside(path: string, id: string): Promise<string | undefined> {
    const aside = this.paths.newRemoved(id)
    try {
      await this.disk.rename(path, aside)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
    if (!this.#builds.has(id))
      this.#onProblem(new StoreCorrupt(`${path} was not a build of ours, and gives way to one`))
    return aside
  }

  /** What was pinned or unpinned since it was looked at last, as `touch` and `rm` may at any time, stays so. */
  async #carryMark(wasSticky: boolean, from: BuildPaths, to: BuildPaths): Promise<void> {
    const isSticky = await this.#isThere(from.sticky)
    if (isSticky === wasSticky) return
    if (isSticky) await touchFile(this.disk, to.sticky)
    else await removeTree(this.disk, to.sticky)
    await syncDirectory(this.disk, to.directory, 'name of sticky, at the last moment')
  }

  /** Undoes `#moveAside`, as far as the disk lets us, for a build that could not take the place. */
  async #putForward(aside: string, failed: HeldBuild): Promise<void> {
    try {
      // Fails as long as the new directory is there, since that is not empty.
      await this.disk.rename(aside, failed.paths.directory)
    } catch {
      return
    }
    const state = this.#withdrawn.get(failed)
    if (state) state.moved = true
  }

  async #remove(id: string): Promise<void> {
    this.#assertOpen()
    const build = this.#held(id)
    // One that can't be removed for good keeps its blobs, and for that they must be known.
    await this.#count(build)
    const removed = this.paths.newRemoved(id)
    await this.#step('remove: begin')
    let moved = false
    try {
      // 1. Somebody may have been quicker by hand. All the rest is as usual.
      await this.#renameIfThere(build.paths.directory, removed)
      moved = true
      this.#manifests.forget(id)
      await this.#step('remove: renamed away')
      // 2.
      await syncDirectory(this.disk, this.paths.builds, 'name of a build that left')
    } catch (error) {
      if (!(await this.#putBack(build, removed, moved))) {
        this.#forget(build)
        this.#withdrawn.set(build, { moved: true })
      }
      throw error
    }
    // 3.
    this.#forget(build)
    this.#references.remove(build.number)
    await this.#step('remove: forgotten for good')
    // 4.
    await this.#discard(removed)
    await this.#step('remove: done')
  }

  #forget(build: HeldBuild): void {
    this.#builds.delete(build.id)
    this.#buildBytes -= build.fileBytes
    this.#generation++
  }

  /**
   * After a removal that failed: as if nobody had tried. False when the disk does not let us.
   * @param moved whether we know that its directory was moved to `removed`.
   */
  async #putBack(build: HeldBuild, removed: string, moved: boolean): Promise<boolean> {
    try {
      await this.#renameIfThere(removed, build.paths.directory)
    } catch {
      if (moved) return false
    }
    await syncDirectory(this.disk, this.paths.builds, 'name of a build that stays').catch(() => {})
    try {
      return (await this.disk.stat(build.paths.directory)).isDirectory()
    } catch (error) {
      // A disk that says nothing has most likely done nothing.
      return codeOf(error) !== 'ENOENT'
    }
  }

  /** Takes back a build that could not be published, now or as soon as the disk lets us. */
  async #withdraw(build: HeldBuild): Promise<void> {
    this.#withdrawn.set(build, { moved: false })
    await this.#settle().catch(() => {})
  }

  /** Sees to it that no withdrawn build has its name, not even after a power cut; then its blobs may go. */
  async #settle(): Promise<void> {
    for (const [build, state] of this.#withdrawn) {
      const removed = this.paths.newRemoved(build.id)
      if (!state.moved) await this.#renameIfThere(build.paths.directory, removed)
      state.moved = true
      await syncDirectory(this.disk, this.paths.builds, 'name of a build that was withdrawn')
      this.#withdrawn.delete(build)
      this.#references.remove(build.number)
      await this.#discard(removed)
    }
  }

  async #renameIfThere(from: string, to: string): Promise<void> {
    await this.disk.rename(from, to).catch((error) => {
      if (codeOf(error) !== 'ENOENT') throw error
    })
  }

  /** Removes what is in incoming/ and nobody needs. That this fails is a problem, but nobody's who waits. */
  async #discard(directory: string): Promise<void> {
    try {
      await removeTree(this.disk, directory)
    } catch (error) {
      this.#report(error, directory)
    }
  }

  async #isThere(path: string): Promise<boolean> {
    try {
      await this.disk.stat(path)
      return true
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return false
      throw diskError(error, path)
    }
  }

  async #readWhole(path: string): Promise<Buffer> {
    try {
      return await this.disk.readFile(path)
    } catch (error) {
      throw diskError(error, path)
    }
  }

  #report(error: unknown, path: string): void {
    const problem = diskError(error, path)
    this.#onProblem(
      problem instanceof StoreError ? problem : new StoreError(`${path}: ${error}`, { cause: error }),
    )
  }

  // -------------------------------------------------------------------------------------------------
  // Damage.

  /** Why the build can't be served as it is; undefined when, as far as we know, it can. */
  async damage(id: string): Promise<Damage | undefined> {
    const build = this.#held(id)
    await this.#count(build)
    if (build.unreadable) await this.#checkFiles(build)
    if (build.damaged) return { message: build.damaged.message, lostBlobs: 0, files: true }
    const lostBlobs = this.#references.lostOf(build.number)
    if (lostBlobs === 0) return undefined
    const what = lostBlobs === 1 ? '1 file is lost' : `${lostBlobs} files are lost`
    return { message: `build ${id} is damaged: ${what}`, lostBlobs, files: false }
  }

  /** Builds of which we know by now that they are damaged. Looks at no blob of any: pages ask each second. */
  knownDamaged(): string[] {
    const lost = this.packs.index.lost()
    return [...this.#builds.values()]
      .filter((build) => build.damaged || this.#references.needsAny(build.number, lost))
      .map(({ id }) => id)
  }

  /** Whether this is a blob of which there is no copy that can be trusted. */
  isLost(digest: Uint8Array): boolean {
    const row = this.packs.index.find(digest)
    return row >= 0 && this.packs.index.isLost(row)
  }

  /**
   * Reads everything again: the files of these builds and all blobs that they need, or those of all builds,
   * and the indexes of packs. What is found to be damaged is marked as such, durably. At the rate of the
   * background. @throws the signal's reason.
   */
  async verify(
    ids: readonly string[] | undefined,
    onProgress: (done: Verified, totalBytes: number) => void,
    signal: AbortSignal,
  ): Promise<Verified> {
    await this.marked()
    this.#lock.assertOurs()
    await this.#turn.run(() => this.packs.resume())
    this.#generation++
    const builds = [...this.#builds.values()].filter(({ id }) => !ids || ids.includes(id))
    const rows = await this.#rowsOf(ids ? builds : undefined)
    const done: Verified = { blobs: 0, bytes: 0, rotten: 0 }
    let total = 0
    for (const row of rows) total += this.packs.index.length(row)
    const pace: Pace = (bytes) => this.#background.spend(bytes, signal)
    for (const build of builds) {
      signal.throwIfAborted()
      await pace(build.fileBytes)
      await this.#checkFiles(build)
    }
    if (!ids) await this.#checkPackIndexes(pace, signal)
    await checkBlobs(this.packs, rows, {
      pace,
      signal,
      onChecked: (bytes, blobs) => {
        done.blobs += blobs
        done.bytes += bytes
        onProgress({ ...done }, total)
      },
      onRotten: async (digests, why) => {
        done.rotten += digests.length
        await this.#distrust(digests, why)
      },
      onUnreadable: async (pack, digests, error) => {
        done.rotten += digests.length
        await this.#suspend(pack, digests, error)
      },
    })
    return done
  }

  /** Reads one blob again. False when it had rotted; from now on it is lost then. */
  async checkBlob(digest: Uint8Array, signal: AbortSignal): Promise<boolean> {
    const row = this.packs.index.find(digest)
    if (row < 0 || this.packs.index.isLost(row)) return true
    let good = true
    await checkBlobs(this.packs, Uint32Array.of(row), {
      pace: (bytes) => this.#background.spend(bytes, signal),
      signal,
      onRotten: async (digests, why) => {
        good = false
        await this.#distrust(digests, why)
      },
      onUnreadable: async (pack, digests, error) => {
        good = false
        await this.#suspend(pack, digests, error)
      },
    })
    return good
  }

  /** Reads a build's own files again, and marks it as damaged when they are not what was written. */
  async checkFiles(id: string): Promise<void> {
    await this.#checkFiles(this.#held(id))
  }

  async #distrust(digests: readonly Uint8Array[], why: string): Promise<void> {
    await this.#turn.run(async () => {
      if (this.#closed) return
      this.#giveUp(digests, why)
      await this.packs.distrust(digests).catch((error) => this.#report(error, this.paths.untrusted))
    })
    void this.compact()
  }

  async #suspend(pack: PackInfo, digests: readonly Uint8Array[], error: unknown): Promise<void> {
    await this.#turn.run(async () => {
      this.#giveUp(digests, (diskError(error, pack.path) as Error).message)
      this.packs.suspend(pack, digests)
    })
  }

  /** @throws StoreError when it is the whole directory that is not there. */
  #giveUp(digests: readonly Uint8Array[], why: string): void {
    this.#lock.assertOurs()
    // An ingest that has not come to rely on them yet writes them anew; one that has fails when it is published.
    for (const digest of digests) {
      const row = this.packs.index.find(digest)
      if (row >= 0) for (const known of this.#known()) known.giveUp(row)
    }
    const some = asBuffer(digests[0]!).toString('hex')
    const more = digests.length > 1 ? ` and ${digests.length - 1} more` : ''
    this.#onProblem(new StoreCorrupt(`blob ${some}${more}: ${why}`, { hint: REPAIR_HINT }))
    this.#generation++
  }

  /** In turn with removals and replacements: a build on its way out is not damaged because its files have gone. */
  async #checkFiles(build: HeldBuild): Promise<void> {
    await this.#turn.run(async () => {
      const isOurs = this.#builds.get(build.id) === build
      if (isOurs && (!build.damaged || build.unreadable)) await this.#readFiles(build)
    })
  }

  async #readFiles(build: HeldBuild): Promise<void> {
    const { paths } = build
    try {
      await askTwice(() => Manifest.load(paths.manifest, this.disk))
      const info = decodeInfo(paths.info, await askTwice(() => this.disk.readFile(paths.info)))
      const contents = await askTwice(() => this.disk.readFile(paths.contents))
      const sha256 = createHash('sha256')
      await pacedUpdate(sha256, contents)
      if (info.contentsSha256 !== undefined && sha256.digest('hex') !== info.contentsSha256)
        throw new StoreCorrupt(`${paths.contents} is not what was written`)
    } catch (error) {
      const about = diskError(error, paths.directory)
      if (!isAboutFile(error)) return
      // Not those of a directory that is not there as a whole.
      this.#lock.assertOurs()
      const { message } = about as StoreError
      build.unreadable = isUnreadable(error)
      this.#setDamaged(build, message, error)
      // It may be whole, and be read another time.
      if (build.unreadable) return
      const reason = Buffer.from(`${message}\n`)
      await replaceFile(this.disk, paths.damaged, reason, 'damaged').catch((failure) =>
        this.#report(failure, paths.damaged),
      )
      return
    }
    if (build.unreadable) await this.#forgive(build)
  }

  /** The disk gives a build's files again, of which it had given nothing. */
  async #forgive(build: HeldBuild): Promise<void> {
    build.damaged = undefined
    build.unreadable = false
    this.#generation++
    if (this.#references.has(build.number)) return
    // The disk had failed before its blobs were counted. Where it fails again, that is done before the next sweep.
    build.counted = false
    await this.#count(build)
  }

  /** A pack whose index has rotted could not be used after the next start: while we still know it, it is written anew. */
  async #checkPackIndexes(pace: Pace, signal: AbortSignal): Promise<void> {
    for (const pack of [...this.packs.list()]) {
      signal.throwIfAborted()
      try {
        await this.packs.checkIndex(pack)
      } catch (error) {
        if (!isAboutFile(error) || this.packs.get(pack.number) !== pack) continue
        this.#report(error, pack.path)
        await this.#turn
          .run(async () => {
            await this.#markAll()
            const order = { ...this.#needs(), need: 0, onProblem: this.#onProblem, pace }
            // What a build needs whose manifest cannot be read just now is not told from what nobody does.
            await rewritePack(order, pack, { whole: this.#needsUnknown() })
          })
          // What can't be copied is found when its blobs are read, a moment later.
          .catch((failure) => this.#report(failure, pack.path))
      }
    }
  }

  /** The rows of the blobs that these builds need, or any build. */
  async #rowsOf(builds: readonly HeldBuild[] | undefined): Promise<Uint32Array> {
    const { index } = this.packs
    const wanted = new Uint8Array(index.rowCount)
    for (const { number } of builds ?? this.#builds.values()) {
      for (const row of this.#references.rowsOf(number)) wanted[row] = 1
      await nextTurn()
    }
    const rows = new Uint32Array(wanted.length)
    let count = 0
    for (let row = 0; row < wanted.length; row++) if (wanted[row] && index.isHeld(row)) rows[count++] = row
    return rows.slice(0, count)
  }

  #setDamaged(build: HeldBuild, reason: string, cause?: unknown): void {
    build.damaged = new StoreCorrupt(`build ${build.id} is damaged: ${reason}`, { hint: REPAIR_HINT, cause })
    this.#manifests.forget(build.id)
    this.#onProblem(build.damaged)
  }

  #isWhole(build: HeldBuild): boolean {
    return build.counted && !build.damaged && this.#references.lostOf(build.number) === 0
  }

  /** Whether a damaged build is whole again, as it is, now that the packs of an ingest of the same tree are ours. */
  async #isWholeWith(build: HeldBuild, manifest: Uint8Array): Promise<boolean> {
    if (build.damaged) return false
    if (!(await this.#readWhole(build.paths.manifest)).equals(manifest)) return false
    const lost = this.#references.lostOf(build.number)
    if (lost > 0) throw new StoreCorrupt(`build ${build.id} still lacks ${lost} of its blobs`)
    this.#generation++
    return true
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
      const generation = this.#generation
      const byNumber = await this.#references.exclusiveBytes()
      const bytes = new Map<string, number>()
      for (const build of this.#builds.values())
        bytes.set(build.id, build.fileBytes + (byNumber.get(build.number) ?? 0))
      this.#exclusive = { generation, bytes }
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
      arrive: (digests) => ledger.keepDigests(digests, this.#arriving),
    }
  }

  /** Bytes in packs that neither a held build nor an ingest under way needs: `collect` gets them back. */
  async deadBytes(): Promise<number> {
    await this.marked()
    return await deadBytes(this.#needs(), this.#arriving)
  }

  /**
   * Removes blobs that nobody needs: all dead packs, and packs that are mostly dead; with `need`, goes on
   * until that many bytes are free or nothing is left to do. Nobody waits for what is done in the
   * `background`, so it takes its time. Where no room is needed, it waits until it is known what every build
   * needs. Returns the bytes freed.
   */
  async collect(need = 0, { background = false } = {}): Promise<number> {
    await this.marked()
    const pace: Pace = background ? (bytes) => this.#takeTime(bytes) : async () => {}
    let freed = 0
    for (let more = true; more && !this.#closed; ) {
      const order = { ...this.#needs(), need: need - freed, onProblem: this.#onProblem, pace }
      const result = await this.#turn
        .run(async () => {
          this.#lock.assertOurs()
          await this.#markAll()
          const canWait = background || need === 0
          if (this.#closed || (canWait && this.#needsUnknown())) return { freed: 0, more: false }
          // What can't be settled yet keeps its blobs.
          await this.#settle().catch(() => {})
          return await sweep(order)
        })
        .catch((error) => {
          throw diskError(error, this.paths.packs)
        })
      freed += result.freed
      more = result.more
    }
    return freed
  }

  /**
   * Sees to it that dead bytes stay within their bound: whatever made some dead starts it, and nobody waits
   * for it, but who does hears when they are.
   */
  compact(): Promise<void> {
    this.#compactAgain = true
    this.#compacting ??= this.#compactAll()
      // What stays dead is tried again when the next build leaves.
      .catch((error) => this.#report(error, this.paths.packs))
      .finally(() => {
        this.#compacting = undefined
      })
    return this.#compacting
  }

  async #compactAll(): Promise<void> {
    while (this.#compactAgain && !this.#closed) {
      this.#compactAgain = false
      const { share, floor } = this.#deadBound
      const bound = Math.max(floor, share * this.packs.bytes)
      if (this.packs.bytes <= bound) return
      const excess = (await this.deadBytes()) - bound
      if (excess > 0) await this.collect(excess, { background: true })
    }
  }

  /** Waits for as long as the background may take for so many bytes; not while others wait for our turn. */
  async #takeTime(bytes: number): Promise<void> {
    if (!this.#closed && this.#turn.waiting === 0) await this.#background.spend(bytes)
  }

  #known(): KnownBlobs[] {
    return [...this.#stagings].map(({ known }) => known)
  }

  #needs(): Needs {
    return { packs: this.packs, references: this.#references, known: () => this.#known() }
  }

  /** Whether the disk gives nothing of some manifest just now: what that build needs looks as if nobody did. */
  #needsUnknown(): boolean {
    for (const { unreadable, number } of this.#builds.values())
      if (unreadable && !this.#references.has(number)) return true
    return false
  }

  async #markAll(): Promise<void> {
    for (;;) {
      const build = [...this.#builds.values()].find(({ counted }) => !counted)
      if (!build || this.#closed) return
      await this.#count(build)
    }
  }

  /**
   * Has a build's blobs counted, once for all who ask meanwhile. Not in turn, since clients wait for this, and
   * shall not wait for changes under way: nothing is swept before all builds are counted, and who takes a
   * build away has it counted first.
   */
  async #count(build: HeldBuild): Promise<void> {
    if (build.counted) return
    build.counting ??= this.#mark(build).finally(() => {
      build.counting = undefined
    })
    await build.counting
  }

  /**
   * Counts a build's blobs. One whose manifest can't be read needs none, since it cannot be served, and
   * must not be from now on: its blobs may go, but where the disk gives nothing of it only when their room is
   * needed. All other builds are counted on.
   */
  async #mark(build: HeldBuild): Promise<void> {
    try {
      const { digests, sizes } = await askTwice(() => readManifestBlobs(build.paths.manifest, this.disk))
      const lost = await this.#references.add(build.number, digests, sizes)
      if (lost > 0)
        this.#onProblem(
          new StoreCorrupt(`build ${build.id} lacks ${lost} of its blobs`, { hint: REPAIR_HINT }),
        )
    } catch (error) {
      if (!isAboutFile(error)) throw diskError(error, build.paths.manifest)
      this.#lock.assertOurs()
      build.unreadable = isUnreadable(error)
      const { message } = diskError(error, build.paths.manifest) as StoreError
      this.#setDamaged(build, message, error)
    }
    build.counted = true
  }

  // -------------------------------------------------------------------------------------------------

  /** Behind `close` the directory may be another process's already. */
  #assertOpen(): void {
    if (this.#closed) throw new StoreError('the store is closed')
    this.#lock.assertOurs()
  }

  #held(id: string): HeldBuild {
    const build = this.#builds.get(id)
    if (!build) throw new StoreError(`build ${id} is not held`)
    return build
  }

  /** By synchronous calls, as thousands of small ones are faster so; between two builds others have their turn. */
  async #scanBuilds(): Promise<void> {
    const { now } = this.disk
    const pacer = new Pacer()
    const touched: { build: HeldBuild; mtime: number }[] = []
    for (const entry of now.readdir(this.paths.builds)) {
      if (pacer.due) await pacer.rest()
      const id = entry.name
      if (!entry.isDirectory() || !isSafeId(id)) continue
      const paths = this.paths.build(id)
      const sizes = [paths.manifest, paths.contents, paths.info].map((path) => now.stat(path)?.size ?? 0)
      const fileBytes = sizes.reduce((sum, size) => sum + size, 0)
      if (!now.stat(paths.manifest)) {
        this.#onProblem(
          new StoreCorrupt(`${paths.directory} has no manifest`, {
            hint: 'Not ours, or damaged: remove it.',
          }),
        )
        continue
      }
      const access = readAccess(now, paths.accessed)
      const build: HeldBuild = {
        id,
        number: this.#nextBuildNumber++,
        paths,
        fileBytes,
        access: access.mark,
        written: access.mark,
        triedAt: access.mark.time,
        counted: false,
        counting: undefined,
        damaged: undefined,
        unreadable: false,
        info: undefined,
      }
      if (now.stat(paths.damaged)) this.#setDamaged(build, readReason(now, paths.damaged))
      this.#builds.set(id, build)
      this.#buildBytes += fileBytes
      if (access.touched) touched.push({ build, mtime: access.mtime })
      else this.#lastSequence = Math.max(this.#lastSequence, access.mark.sequence)
    }
    // Those that somebody touched find their places among the others, the earliest first.
    for (const { build, mtime } of touched.sort((a, b) => a.mtime - b.mtime)) this.#placeTouched(build, mtime)
  }

  /** Removes what a crash left in incoming/; what cannot be removed still counts. */
  async #discardLeftovers(names: readonly string[]): Promise<void> {
    for (const name of names) {
      if (this.#closed) return
      const path = join(this.paths.incoming, name)
      try {
        const bytes = await diskUsage(this.disk, path)
        this.#leftoverBytes += bytes
        await removeTree(this.disk, path)
        this.#leftoverBytes -= bytes
      } catch (error) {
        this.#report(error, path)
      }
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

/** The content, its digest taken as it passes. */
async function* digesting(
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  hash: Hash,
): AsyncGenerator<Uint8Array> {
  const pacer = new Pacer()
  for await (const chunk of chunks) {
    await pacedUpdate(hash, chunk, pacer)
    yield chunk
  }
}

/** The mark of a build's last access, and whether somebody touched it since; a build without one is the first to go. */
function readAccess(disk: DiskNow, path: string): { mark: AccessMark; touched: boolean; mtime: number } {
  const mtime = disk.stat(path)?.mtimeMs
  if (mtime === undefined) return { mark: { sequence: 0, time: 0 }, touched: false, mtime: 0 }
  let mark: AccessMark | undefined
  try {
    mark = decodeAccess(disk.readFile(path))
  } catch {
    // Its time is good enough.
  }
  if (mark && !isTouched(mark, mtime)) return { mark, touched: false, mtime }
  return { mark: { sequence: 0, time: mtime }, touched: true, mtime }
}

/** Why a build was marked as damaged: for people. */
function readReason(disk: DiskNow, path: string): string {
  try {
    return disk.readFile(path).toString('utf8').slice(0, MAX_REASON).trim()
  } catch (error) {
    return (error as Error).message
  }
}
