/** Carries out what an operator asks for, in the process that owns the data directory. */
import { CommandError } from '../errors.ts'
import type { Budget } from '../store/budget.ts'
import type { Store } from '../store/store.ts'
import type { Available } from './available.ts'
import { checkBuildId } from './build-id.ts'
import type { Catalog } from './catalog.ts'
import { planEviction } from './eviction.ts'
import type { BuildEvictor } from './evictor.ts'
import type { Fetches } from './fetch.ts'
import type { AvailableBuilds, BuildSummary, GcReport, Operations, Status } from './operations.ts'

export interface OperatorParts {
  store: Store
  catalog: Catalog
  budget: Budget
  evictor: BuildEvictor
  fetches: Fetches
  available: Available
  /** What only the server as a whole knows. */
  facts: () => Pick<Status, 'version' | 'listening' | 'uptimeSeconds' | 'sessions' | 'inLine'>
}

export class Operator implements Operations {
  readonly #parts: OperatorParts

  constructor(parts: OperatorParts) {
    this.#parts = parts
  }

  async list(): Promise<BuildSummary[]> {
    const { store, catalog } = this.#parts
    const freed = await store.exclusiveBytes()
    const summaries: BuildSummary[] = []
    for (const id of catalog.ids()) {
      // Held while we look, so that it does not leave in between; who left already is left out.
      const wasLeased = catalog.isLeased(id)
      const lease = catalog.lease(id)
      if (!lease) continue
      try {
        const info = await store.info(id)
        summaries.push({
          id,
          files: info.totals.files,
          entries: info.totals.entries,
          bytes: info.totals.bytes,
          storedBytes: freed.get(id) ?? 0,
          sticky: await store.isSticky(id),
          inUse: wasLeased,
          accessed: store.accessed(id).toISOString(),
          fetched: info.fetched,
          source: info.source,
        })
      } finally {
        lease.release()
      }
    }
    return summaries
  }

  async status(): Promise<Status> {
    const { store, budget, fetches, facts } = this.#parts
    return {
      ...facts(),
      pid: process.pid,
      dataDir: store.paths.root,
      budgetBytes: budget.limit,
      usedBytes: budget.used,
      builds: store.ids().length,
      fetches: fetches.status(),
    }
  }

  async available(signal: AbortSignal): Promise<AvailableBuilds> {
    return await this.#parts.available.list(signal)
  }

  async fetch(id: string, say: (line: string) => void, signal: AbortSignal): Promise<boolean> {
    const { store, catalog, fetches } = this.#parts
    checkBuildId(id)
    await catalog.left(id)
    if (store.has(id)) return false
    const lease = await fetches.get(id, say, signal)
    lease.release()
    return true
  }

  async import(file: string, id: string, say: (line: string) => void, signal: AbortSignal): Promise<void> {
    await this.#parts.fetches.import(file, checkBuildId(id), say, signal)
  }

  async pin(id: string): Promise<void> {
    await this.#holding(id, () => this.#parts.store.pin(id))
  }

  async unpin(id: string): Promise<void> {
    await this.#holding(id, () => this.#parts.store.unpin(id))
  }

  async remove(id: string): Promise<void> {
    const { store, catalog } = this.#parts
    catalog.assertHeld(id)
    if (await store.isSticky(id)) {
      throw new CommandError(`build ${id} is sticky`, { hint: `First: upserv unpin ${id}` })
    }
    await catalog.remove(id)
    await store.collect()
  }

  /** Under a lease, so that the build does not leave in between. @throws CommandError when it is not held. */
  async #holding(id: string, work: () => Promise<void>): Promise<void> {
    const { catalog } = this.#parts
    await catalog.left(id)
    catalog.assertHeld(id)
    const lease = catalog.lease(id)
    try {
      await work()
    } finally {
      lease?.release()
    }
  }

  async gc({ dryRun }: { dryRun: boolean }): Promise<GcReport> {
    const { store, budget, evictor } = this.#parts
    const before = budget.used
    const deadBytes = await store.deadBytes()
    const excess = Math.max(0, before - deadBytes - budget.limit)
    const held = store.ids()
    if (dryRun) {
      const candidates = await evictor.candidates()
      const plan = await planEviction(candidates, excess, await store.plan())
      const possible = plan.type === 'possible'
      return {
        dryRun,
        budgetBytes: budget.limit,
        usedBytes: before,
        deadBytes,
        evicted: possible ? plan.evict : [],
        // What is not enough is not evicted either.
        freedBytes: deadBytes + (possible ? plan.frees : 0),
      }
    }
    // All that is dead, not just what is mostly dead: somebody asked for it by name.
    await store.collect(deadBytes)
    await budget.enforce()
    return {
      dryRun,
      budgetBytes: budget.limit,
      usedBytes: budget.used,
      deadBytes: await store.deadBytes(),
      evicted: held.filter((id) => !store.has(id)),
      freedBytes: Math.max(0, before - budget.used),
    }
  }
}
