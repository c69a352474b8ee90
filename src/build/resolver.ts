/** From the name of a module to its tree: what is held is leased, what is missing or damaged fetched first. */
import { NoSuchBuild, StoreError } from '../errors.ts'
import { type ByteString, showBytes } from '../lib/bytes.ts'
import { formatSize } from '../lib/units.ts'
import type { MayHave, ModuleLine, Modules, OpenModule } from '../rsync/modules.ts'
import type { Store } from '../store/store.ts'
import { idOfModule, moduleOf } from './build-id.ts'
import { BuildTree } from './build-tree.ts'
import type { Catalog, Lease } from './catalog.ts'
import type { Fetches } from './fetch.ts'
import type { Verifier } from './verifier.ts'

export class Resolver implements Modules {
  readonly #store: Store
  readonly #catalog: Catalog
  readonly #fetches: Fetches
  readonly #verifier: Verifier
  readonly #onProblem: (problem: Error) => void

  constructor(
    store: Store,
    catalog: Catalog,
    fetches: Fetches,
    verifier: Verifier,
    onProblem: (problem: Error) => void,
  ) {
    this.#verifier = verifier
    this.#onProblem = onProblem
    this.#store = store
    this.#catalog = catalog
    this.#fetches = fetches
  }

  /** What is held now, and nothing else: scripts in the field read it so. A listing is no access. */
  async list(mayHave: MayHave): Promise<readonly ModuleLine[]> {
    const lines: ModuleLine[] = []
    for (const id of this.#catalog.ids().filter((id) => mayHave(moduleOf(id)))) {
      const info = await this.#store.info(id).catch(() => undefined)
      // Evicted a moment ago, or its build.json can't be read: a listing does not fail for one build.
      if (!info) continue
      const { totals, fetched, source } = info
      const comment = `${formatSize(totals.bytes)}, ${totals.files} files, fetched ${fetched.slice(0, 10)} from ${source}`
      lines.push({ name: moduleOf(id), comment })
    }
    return lines
  }

  ruledBy(name: string): readonly string[] {
    return [name]
  }

  async open(
    name: string,
    _mayHave: MayHave,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<OpenModule> {
    const id = idOfModule(name)
    if (id === undefined) {
      throw new NoSuchBuild(`Unknown module '${showBytes(name as ByteString, 100)}'`, {
        hint: 'Modules are named build-<id>, such as build-802.',
      })
    }
    await this.#catalog.left(id)
    const lease = await this.#leaseWhole(id, say, signal)
    try {
      const manifest = await this.#store.manifest(id)
      const info = await this.#store.info(id)
      const path = this.#store.contentsPath(id)
      const size = await this.#store.contentsSize(id)
      const mtime = Math.floor(Date.parse(info.fetched) / 1000)
      // A build that can't be marked as accessed can still be served.
      await this.#store.touch(id).catch((error: Error) => this.#onProblem(error))
      return {
        tree: new BuildTree(manifest, this.#store, { path, size, mtime }, (digest) =>
          this.#verifier.suspect(id, digest),
        ),
        release: () => lease.release(),
      }
    } catch (error) {
      lease.release()
      throw error
    }
  }

  /** A lease on a build of which, as far as we know, nothing is missing. */
  async #leaseWhole(id: string, say: (line: string) => void, signal: AbortSignal): Promise<Lease> {
    const lease = this.#catalog.lease(id) ?? (await this.#fetches.get(id, say, signal))
    let whole = false
    try {
      whole = !(await this.#store.damage(id)) && (await this.#isReadable(id))
    } finally {
      if (!whole) lease.release()
    }
    return whole ? lease : await this.#fetches.repair(id, say, signal)
  }

  /** False when the build's own files have rotted; it is marked as damaged then. */
  async #isReadable(id: string): Promise<boolean> {
    try {
      await this.#store.manifest(id)
      await this.#store.info(id)
      return true
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      await this.#store.checkFiles(id)
      if (await this.#store.damage(id)) return false
      throw error
    }
  }
}
