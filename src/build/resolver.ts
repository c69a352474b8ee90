/**
 * From the name of a module to its tree: what is held is leased, what is missing or damaged fetched first.
 *
 *     build-<id>        a build: `root/`, its tree, and `contents`
 *     channel-<name>    the same of the build that the channel stands for now
 *     channels          a file for each channel, which holds the id of its build
 *     builds            a directory for each held build
 *     available         a file for each build that the sources could supply
 */
import { NoSuchBuild, StoreError } from '../errors.ts'
import { eachAtOnce } from '../lib/at-once.ts'
import { ascii, type ByteString, showBytes } from '../lib/bytes.ts'
import { nearestOf } from '../lib/nearest.ts'
import { formatSize } from '../lib/units.ts'
import type { Asker, MayHave, ModuleLine, Modules, OpenModule } from '../rsync/modules.ts'
import type { Tree } from '../rsync/tree.ts'
import { type BuildInfo, checkedBy } from '../store/build-info.ts'
import type { Store } from '../store/store.ts'
import type { Available } from './available.ts'
import { channelOfModule, idOfModule, moduleOf, moduleOfChannel } from './build-id.ts'
import { BuildTree } from './build-tree.ts'
import { BuildsTree, type HeldTree, type ShownBuild } from './builds-tree.ts'
import type { Catalog, Lease } from './catalog.ts'
import type { Channel, Channels } from './channels.ts'
import type { Fetches } from './fetch.ts'
import type { Verifier } from './verifier.ts'
import { VirtualTree } from './virtual-tree.ts'

const CHANNELS = 'channels'
const BUILDS = 'builds'
const AVAILABLE = 'available'

/** Files that a listing has open at a time: few beside the usual limit of 1024. */
const INFOS_AT_ONCE = 32

export interface ResolverParts {
  store: Store
  catalog: Catalog
  fetches: Fetches
  channels: Channels
  available: Available
  verifier: Verifier
  /** Told of what does not keep a module from being served. */
  onProblem: (problem: Error) => void
}

export class Resolver implements Modules {
  readonly #parts: ResolverParts
  /** Sessions with the module `builds`, which may look into any build at any time. */
  #wide = 0
  /** What they hold from `holdAll` on. */
  #all: Lease[] = []

  constructor(parts: ResolverParts) {
    this.#parts = parts
  }

  /**
   * What is held now, and nothing that would have to be fetched: scripts in the field read it so. Then
   * channels, and the modules that tell of builds. A listing is no access.
   */
  async list(mayHave: MayHave): Promise<readonly ModuleLine[]> {
    const { catalog, channels, available } = this.#parts
    const lines: ModuleLine[] = []
    const ids = catalog.ids().filter((id) => mayHave(moduleOf(id)))
    const infos = await this.#infosOf(ids)
    for (const id of ids) {
      const info = infos.get(id)
      if (!info) continue
      const { totals, fetched, source } = info
      const checks = checkedBy(info)
      const checked = checks === '' ? '' : `, checked by ${checks}`
      const comment = `${formatSize(totals.bytes)}, ${totals.files} files, fetched ${fetched.slice(0, 10)} from ${source}${checked}`
      lines.push({ name: moduleOf(id), comment })
    }
    for (const { name, id } of this.#channelsFor(mayHave)) {
      lines.push({ name: moduleOfChannel(name), comment: `build ${id}` })
    }
    const telling = [
      channels.all().length > 0 && { name: CHANNELS, comment: 'which build each channel stands for' },
      { name: BUILDS, comment: 'the builds that are held, each in a directory' },
      available.hasSources && { name: AVAILABLE, comment: 'which builds could be fetched' },
    ]
    for (const line of telling) if (line && mayHave(line.name)) lines.push(line)
    return lines
  }

  ruledBy(name: string): readonly string[] {
    return this.#parts.channels.ruledBy(name)
  }

  async open(
    name: string,
    asker: Asker,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<OpenModule> {
    const mayHave: MayHave = (module) => asker.mayHave(module)
    const id = idOfModule(name)
    if (id !== undefined) return this.#openBuild(id, asker, say, signal)
    const channel = channelOfModule(name)
    if (channel !== undefined) return this.#openChannel(channel, asker, say, signal)
    switch (name) {
      case CHANNELS:
        return virtual(this.#channelFiles(mayHave))
      case BUILDS:
        return this.#openBuilds(mayHave)
      case AVAILABLE:
        return virtual(await this.#availableFiles(asker, say, signal))
      default:
        throw new NoSuchBuild(`Unknown module '${showBytes(name as ByteString, 100)}'`, {
          hint: 'Modules are named build-<id>, such as build-802.',
        })
    }
  }

  // -------------------------------------------------------------------------------------------------
  // One build

  /** @param ruledBy the modules that were asked for, where it was not the build's own alone. */
  async #openBuild(
    id: string,
    asker: Asker,
    say: (line: string) => void,
    signal: AbortSignal,
    ruledBy: readonly string[] = [moduleOf(id)],
  ): Promise<OpenModule> {
    const lease = await this.lease(id, asker, say, signal, ruledBy)
    try {
      return { tree: await this.#treeOf(id), release: () => lease.release() }
    } catch (error) {
      lease.release()
      throw error
    }
  }

  /** Gets a build ready for who wants its content, as `open` does. */
  async lease(
    id: string,
    asker: Asker,
    say: (line: string) => void,
    signal: AbortSignal,
    ruledBy: readonly string[] = [moduleOf(id)],
  ): Promise<Lease> {
    await this.#parts.catalog.left(id)
    const lease = await this.#leaseWhole(id, { asker, ruledBy }, say, signal)
    await this.#noteAccess(id)
    return lease
  }

  /** A lease on a build of which, as far as we know, nothing is missing. */
  async #leaseWhole(
    id: string,
    { asker, ruledBy }: { asker: Asker; ruledBy: readonly string[] },
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<Lease> {
    const { store, catalog, fetches } = this.#parts
    const forWhom = {
      mayHear: (other: string) => asker.mayHave(moduleOf(other)),
      begin: () => asker.beginFetch(ruledBy),
    }
    const lease = catalog.lease(id) ?? (await fetches.get(id, say, signal, forWhom))
    let whole = false
    try {
      whole = !(await store.damage(id)) && (await this.#isReadable(id))
    } finally {
      if (!whole) lease.release()
    }
    return whole ? lease : await fetches.repair(id, say, signal, forWhom)
  }

  /** False when the build's own files have rotted; it is marked as damaged then. */
  async #isReadable(id: string): Promise<boolean> {
    const { store } = this.#parts
    try {
      await store.manifest(id)
      await store.info(id)
      return true
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      await store.checkFiles(id)
      if (await store.damage(id)) return false
      throw error
    }
  }

  async #openChannel(
    name: string,
    asker: Asker,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<OpenModule> {
    const channel = this.#parts.channels.get(name)
    if (channel) return this.#openBuild(channel.id, asker, say, signal, this.ruledBy(moduleOfChannel(name)))
    const names = this.#channelsFor((module) => asker.mayHave(module)).map((other) => other.name)
    const near = nearestOf(name, names)
    const known = (near.length > 0 ? near : names).map(moduleOfChannel)
    throw new NoSuchBuild(
      `no such channel: ${moduleOfChannel(name)}${known.length > 0 ? `; there is ${known.join(', ')}` : ''}`,
    )
  }

  /** A build that the caller holds a lease on. */
  async #treeOf(id: string): Promise<Tree> {
    const { store, verifier } = this.#parts
    const manifest = await store.manifest(id)
    const mtime = arrivalOf(await store.info(id))
    const path = store.contentsPath(id)
    const size = await store.contentsSize(id)
    return new BuildTree(manifest, store, { path, size, mtime }, (digest) => verifier.suspect(id, digest))
  }

  /** A build that can't be marked as accessed can still be served. */
  async #noteAccess(id: string): Promise<void> {
    const { store, onProblem } = this.#parts
    await store.touch(id).catch((error: Error) => onProblem(error))
  }

  /**
   * Without those that were evicted a moment ago, or whose build.json can't be read: a listing does not fail
   * for one build. After a start each takes turns of an event loop that others use as well, so many go at once.
   */
  async #infosOf(ids: readonly string[]): Promise<ReadonlyMap<string, BuildInfo>> {
    const { store } = this.#parts
    const infos = new Map<string, BuildInfo>()
    await eachAtOnce(ids, INFOS_AT_ONCE, async (id) => {
      const info = store.has(id) ? await store.info(id).catch(() => undefined) : undefined
      if (info) infos.set(id, info)
    })
    return infos
  }

  // -------------------------------------------------------------------------------------------------
  // Modules that tell of builds

  /** Channels whose module the client may have. */
  #channelsFor(mayHave: MayHave): Channel[] {
    return this.#parts.channels.all().filter(({ name }) => this.ruledBy(moduleOfChannel(name)).every(mayHave))
  }

  #channelFiles(mayHave: MayHave): VirtualTree {
    if (this.#parts.channels.all().length === 0) throw new NoSuchBuild('no channels are configured')
    const files = this.#channelsFor(mayHave).map(({ name, id, since }) => ({
      name: ascii(name),
      content: Buffer.from(`${id}\n`),
      mtime: since,
    }))
    return new VirtualTree(files, latest(files))
  }

  /** Looking into a build's directory leases the build; only who gets content from it has accessed it. */
  async #openBuilds(mayHave: MayHave): Promise<OpenModule> {
    const { store, catalog } = this.#parts
    const builds: ShownBuild[] = []
    const ids = catalog.ids().filter((id) => mayHave(moduleOf(id)))
    const infos = await this.#infosOf(ids)
    for (const id of ids) {
      const info = infos.get(id)
      // One that can't be read is shown, as whoever mirrors us would delete it otherwise; looking into it fails.
      if (store.has(id)) builds.push({ id, mtime: info ? arrivalOf(info) : 0 })
    }
    const tree = new BuildsTree({ builds, open: (id) => this.hold(id) })
    this.#wide++
    const release = (): void => {
      tree.release()
      if (--this.#wide === 0) this.letGo()
    }
    return { tree, moduleAt: moduleOf, release }
  }

  /** From now on every build is held that a session may still look into, until there is no such session any more. */
  holdAll(): void {
    const { catalog } = this.#parts
    if (this.#wide > 0) this.#all.push(...catalog.ids().flatMap((id) => catalog.lease(id) ?? []))
  }

  /** Undoes `holdAll`. */
  letGo(): void {
    for (const lease of this.#all.splice(0)) lease.release()
  }

  /** The tree of a build that is held, until it is released. @throws StoreError when it has just left. */
  async hold(id: string): Promise<HeldTree> {
    const { catalog } = this.#parts
    const lease = catalog.lease(id)
    if (!lease) throw new StoreError(`build ${id} has just been evicted`)
    try {
      const tree = await this.#treeOf(id)
      return { tree, onAccess: () => void this.#noteAccess(id), release: () => lease.release() }
    } catch (error) {
      lease.release()
      throw error
    }
  }

  async #availableFiles(
    asker: Asker,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<VirtualTree> {
    const { available } = this.#parts
    if (!available.hasSources) throw new NoSuchBuild('no source is configured: only held builds can be had')
    const { builds, gaps: all } = await available.list(signal)
    const gaps = all.filter(({ source }) => asker.mayHearOf(source))
    if (gaps.length > 0) {
      // In one line: of several at once a client gets the first.
      say(`there may be more: ${gaps.map(({ source, reason }) => `${source} ${reason}`).join('; ')}`)
    }
    const files = builds
      .filter(({ id }) => asker.mayHave(moduleOf(id)))
      .map(({ id, source, published }) => ({
        name: ascii(id),
        content: Buffer.from(`from ${source}\n`),
        mtime: Math.floor((published === null ? available.firstSeen(id) : Date.parse(published)) / 1000),
      }))
    return new VirtualTree(files, latest(files))
  }
}

function virtual(tree: VirtualTree): OpenModule {
  return { tree, release: () => {} }
}

/** When a build came in, in seconds since 1970. */
function arrivalOf({ fetched }: BuildInfo): number {
  return Math.floor(Date.parse(fetched) / 1000)
}

function latest(files: readonly { mtime: number }[]): number {
  return files.reduce((time, { mtime }) => Math.max(time, mtime), 0)
}
