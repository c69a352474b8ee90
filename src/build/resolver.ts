/** From the name of a module to its tree: what is held is leased, what is missing fetched first. */
import { stat } from 'node:fs/promises'
import { NoSuchBuild } from '../errors.ts'
import { type ByteString, showBytes } from '../lib/bytes.ts'
import { formatSize } from '../lib/units.ts'
import type { MayHave, ModuleLine, Modules, OpenModule } from '../rsync/modules.ts'
import type { Store } from '../store/store.ts'
import { idOfModule, moduleOf } from './build-id.ts'
import { BuildTree } from './build-tree.ts'
import type { Catalog } from './catalog.ts'
import type { Fetches } from './fetch.ts'

export class Resolver implements Modules {
  readonly #store: Store
  readonly #catalog: Catalog
  readonly #fetches: Fetches
  readonly #onProblem: (problem: Error) => void

  constructor(store: Store, catalog: Catalog, fetches: Fetches, onProblem: (problem: Error) => void) {
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
    const lease = this.#catalog.lease(id) ?? (await this.#fetches.get(id, say, signal))
    try {
      const manifest = await this.#store.manifest(id)
      const info = await this.#store.info(id)
      const path = this.#store.contentsPath(id)
      const { size } = await stat(path)
      const mtime = Math.floor(Date.parse(info.fetched) / 1000)
      // A build that can't be marked as accessed can still be served.
      await this.#store.touch(id).catch((error: Error) => this.#onProblem(error))
      return {
        tree: new BuildTree(manifest, this.#store, { path, size, mtime }),
        release: () => lease.release(),
      }
    } catch (error) {
      lease.release()
      throw error
    }
  }
}
