/** Carries out what an operator asks for, in the process that owns the data directory. */
import { CommandError, StoreError } from '../errors.ts'
import { formatSize } from '../lib/units.ts'
import type { Budget } from '../store/budget.ts'
import type { Store } from '../store/store.ts'
import type { Available } from './available.ts'
import { checkBuildId } from './build-id.ts'
import type { Catalog } from './catalog.ts'
import { type Candidate, type EvictionPlan, goesBefore, planEviction } from './eviction.ts'
import type { BuildEvictor } from './evictor.ts'
import type { Fetches } from './fetch.ts'
import type {
  AvailableBuilds,
  BuildSummary,
  GcOptions,
  GcReport,
  GcVerdict,
  Operations,
  Status,
  VerifyProgress,
  VerifyReport,
  WarmProgress,
  WarmReport,
} from './operations.ts'
import type { Spare } from './spare.ts'
import type { Verifier } from './verifier.ts'
import type { WarmRequest } from './warm-request.ts'
import type { Warmer } from './warmer.ts'

export interface OperatorParts {
  store: Store
  catalog: Catalog
  budget: Budget
  evictor: BuildEvictor
  fetches: Fetches
  available: Available
  spare: Spare
  verifier: Verifier
  /** Undefined for who only looks, and keeps no derived data. */
  warmer: () => Warmer | undefined
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
        const damage = await store.damage(id)
        // One build whose build.json has rotted must not keep the others from being listed.
        const info = await store.info(id).catch((error) => {
          if (error instanceof StoreError) return undefined
          throw error
        })
        summaries.push({
          id,
          files: info?.totals.files ?? 0,
          entries: info?.totals.entries ?? 0,
          bytes: info?.totals.bytes ?? 0,
          storedBytes: freed.get(id) ?? 0,
          sticky: await store.isSticky(id),
          inUse: wasLeased,
          accessed: store.accessed(id).toISOString(),
          fetched: info?.fetched ?? '',
          source: info?.source ?? '',
          damaged: damage?.message ?? (info ? null : `build ${id} is damaged: its build.json cannot be read`),
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
      damaged: store.knownDamaged(),
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
    if (store.has(id) && !(await store.damage(id))) return false
    const lease = await fetches.repair(id, say, signal)
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

  async gc({ dryRun, explain }: GcOptions): Promise<GcReport> {
    const { store, budget, evictor, spare } = this.#parts
    const before = budget.used
    const deadBytes = await store.deadBytes()
    const held = store.ids()
    // What is derived and what broke off gives way first, then builds.
    const tooMuch = Math.max(0, before - deadBytes - budget.limit)
    const spareItems = await spare.plan(tooMuch)
    const spareBytes = spareItems.reduce((sum, { bytes }) => sum + bytes, 0)
    const excess = Math.max(0, tooMuch - spareBytes)
    const candidates = dryRun || explain ? await evictor.candidates() : []
    const plan = await planEviction(candidates, dryRun || explain ? excess : 0, await store.plan())
    const builds = explain ? await this.#explain(candidates, plan, excess) : []
    if (dryRun) {
      const possible = plan.type === 'possible'
      return {
        dryRun,
        budgetBytes: budget.limit,
        usedBytes: before,
        deadBytes,
        spare: spareItems,
        evicted: possible ? plan.evict : [],
        // What is not enough is not evicted either.
        freedBytes: deadBytes + spareBytes + (possible ? plan.frees : 0),
        builds,
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
      spare: [],
      evicted: held.filter((id) => !store.has(id)),
      freedBytes: Math.max(0, before - budget.used),
      builds,
    }
  }

  async verify(
    id: string | undefined,
    options: { repair: boolean },
    onProgress: (progress: VerifyProgress) => void,
    signal: AbortSignal,
  ): Promise<VerifyReport> {
    return await this.#parts.verifier.verify(id, options, onProgress, signal)
  }

  async warm(
    request: WarmRequest,
    onProgress: (progress: WarmProgress) => void,
    signal: AbortSignal,
  ): Promise<WarmReport> {
    const warmer = this.#parts.warmer()
    if (!warmer) throw new Error('only a server keeps derived data')
    return await warmer.warm(request, onProgress, signal)
  }

  /** Why each build stays or goes, who goes first at the start. */
  async #explain(candidates: readonly Candidate[], plan: EvictionPlan, excess: number): Promise<GcVerdict[]> {
    const { store } = this.#parts
    const frees = await store.exclusiveBytes()
    const reasonOf = (candidate: Candidate): string => {
      const { id, sticky, leased, protectedBy } = candidate
      if (sticky) return 'it is sticky'
      if (leased) return 'it is in use'
      if (protectedBy !== undefined) return protectedBy
      if (plan.type === 'impossible')
        return `all that may go would free ${formatSize(plan.couldFree)}, and ${formatSize(excess)} are needed`
      if (plan.evict.includes(id)) return `accessed longest ago, and ${formatSize(excess)} have to be freed`
      return excess === 0 ? 'nothing has to go' : 'others were accessed longer ago, and are enough'
    }
    return [...candidates]
      .sort(goesBefore)
      .filter(({ id }) => store.has(id))
      .map((candidate) => ({
        id: candidate.id,
        goes: plan.type === 'possible' && plan.evict.includes(candidate.id),
        reason: reasonOf(candidate),
        accessed: store.accessed(candidate.id).toISOString(),
        freesBytes: frees.get(candidate.id) ?? 0,
      }))
  }
}
