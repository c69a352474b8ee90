/** Carries out what an operator asks for, in the process that owns the data directory. */

import { isIP } from 'node:net'
import { CommandError, SessionUnknown, StoreError } from '../errors.ts'
import type { ChangePage } from '../history/change-record.ts'
import type { FetchEnd, FetchPage, FetchQuery } from '../history/fetch-record.ts'
import type { History } from '../history/history.ts'
import type { RecordPage, RecordQuery, SessionRecord } from '../history/session-record.ts'
import { normalizeAddress } from '../lib/peer.ts'
import { pourCompressed } from '../lib/pour.ts'
import { formatSize } from '../lib/units.ts'
import type { Budget } from '../store/budget.ts'
import { checkedBy } from '../store/build-info.ts'
import type { Store } from '../store/store.ts'
import { type Activity as ActivityLog, MAX_SHOWN } from './activity.ts'
import type { Available } from './available.ts'
import { checkBuildId, compareIds } from './build-id.ts'
import { bundleBody, bundleStart } from './bundle.ts'
import type { Catalog, Lease } from './catalog.ts'
import type { Channels } from './channels.ts'
import { type Candidate, type EvictionPlan, goesBefore, planEviction } from './eviction.ts'
import type { BuildEvictor } from './evictor.ts'
import { hintsFor } from './explain.ts'
import type { Fetches } from './fetch.ts'
import type {
  Activity,
  AvailableBuilds,
  BuildSummary,
  Explanation,
  GcOptions,
  GcReport,
  GcVerdict,
  ImportForm,
  Operations,
  Status,
  TimelineReport,
  TimelineSpan,
  VerificationStatus,
  VerifyProgress,
  VerifyReport,
  WarmProgress,
  WarmReport,
} from './operations.ts'
import type { Spare } from './spare.ts'
import { buildsOnStick, checkStick } from './stick.ts'
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
  channels: Channels
  activity: ActivityLog
  history: History
  /** What only the server as a whole knows. */
  facts: () => Pick<
    Status,
    'version' | 'listening' | 'tlsListening' | 'httpUrls' | 'uptimeSeconds' | 'sessions' | 'inLine'
  >
}

/** Sessions of a device that are looked at to find which build it came from. */
const LOOK_BACK = 20

export class Operator implements Operations {
  readonly #parts: OperatorParts

  constructor(parts: OperatorParts) {
    this.#parts = parts
  }

  async list(): Promise<BuildSummary[]> {
    const { store, catalog, channels } = this.#parts
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
          url: info?.url ?? '',
          vouchers: info?.vouchers ?? [],
          checkedBy: checkedBy(info ?? {}),
          channels: channels.all().flatMap((channel) => (channel.id === id ? [channel.name] : [])),
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
      usage: this.#usage(),
      builds: store.ids().length,
      damaged: store.knownDamaged(),
      fetches: fetches.status(),
    }
  }

  #usage(): Status['usage'] {
    const { used, charges } = this.#parts.budget
    const charge = (what: string): number => charges.get(what) ?? 0
    const cache = charge('cache')
    const downloads = charge('spools')
    const history = charge('history')
    const other = charge('files beside')
    return { builds: used - cache - downloads - history - other, cache, downloads, history, other }
  }

  async activity(): Promise<Activity> {
    const { activity } = this.#parts
    return {
      at: new Date().toISOString(),
      status: await this.status(),
      sessions: activity.clients.live(MAX_SHOWN),
      recent: [...activity.recent],
      recentFetches: [...activity.recentFetches],
      totals: structuredClone(activity.totals),
      verification: structuredClone(activity.verification),
    }
  }

  async timeline(span: TimelineSpan): Promise<TimelineReport> {
    return this.#parts.activity.timeline(span)
  }

  async history(query: RecordQuery, limit: number, before?: number): Promise<RecordPage> {
    return await this.#parts.history.find(query, limit, before)
  }

  async changes(limit: number, before?: number): Promise<ChangePage> {
    return await this.#parts.history.changes(limit, before)
  }

  async forget(query: RecordQuery): Promise<number> {
    const { history, activity } = this.#parts
    // What is in memory goes as well: who wants to be forgotten is not shown as the last one who was here.
    for (const record of activity.recent.filter((one) => matches(one, query)))
      activity.recent.splice(activity.recent.indexOf(record), 1)
    return await history.forget(query)
  }

  async fetchHistory(query: FetchQuery, limit: number, before?: number): Promise<FetchPage> {
    return await this.#parts.history.findFetches(query, limit, before)
  }

  async forgetFetches(query: FetchQuery): Promise<number> {
    const { history, activity } = this.#parts
    for (const end of activity.recentFetches.filter((one) => fetchMatches(one, query)))
      activity.recentFetches.splice(activity.recentFetches.indexOf(end), 1)
    return await history.forgetFetches(query)
  }

  async explain(which: string): Promise<Explanation> {
    const { store, catalog } = this.#parts
    const record = await this.#findSession(which)
    const info = store.has(record.build) ? await store.info(record.build).catch(() => undefined) : undefined
    const previousBuild = await this.#previousBuild(record)
    const between =
      previousBuild === null
        ? []
        : catalog.ids().filter((id) => compareIds(id, previousBuild) > 0 && compareIds(id, record.build) <= 0)
    const circumstances = {
      uniformMtime: info?.uniformMtime ?? null,
      previousBuild,
      buildsBetween: between.length,
    }
    return { record, hints: hintsFor(record, circumstances) }
  }

  /** The session of that number, or the last one of an address, a device or a user. */
  async #findSession(which: string): Promise<SessionRecord> {
    const { activity, history } = this.#parts
    if (/^\d{1,15}$/.test(which)) {
      const id = Number(which)
      if (activity.clients.isLive(id))
        throw new CommandError(`session ${id} is still under way`, { hint: 'Look at it with `upserv top`.' })
      const recent = activity.recent.find((record) => record.id === id)
      const found = recent ?? (await history.find({}, 1, id + 1)).records.find((record) => record.id === id)
      if (found) return found
      throw new SessionUnknown(`nothing is known of a session ${id}`, {
        hint: 'See `upserv history`; sessions are remembered for `history.days`.',
      })
    }
    const queries = isIP(which)
      ? [{ address: normalizeAddress(which) ?? which }]
      : [{ device: which }, { user: which }]
    for (const query of queries) {
      const recent = activity.recent.find((record) => record.module !== '' && matches(record, query))
      const found = recent ?? (await history.find(query, 1)).records[0]
      if (found) return found
    }
    throw new SessionUnknown(`nothing is known of a session of ${which}`, {
      hint: 'Name a session by its number, or a device by its address, its name or its user: see `upserv history`.',
    })
  }

  /** Which build the same device last got something of, before this session. */
  async #previousBuild({ id, address, device, user, build }: SessionRecord): Promise<string | null> {
    if ((address === '' && device === '') || build === '') return null
    // A device goes where it likes, and keeps its name.
    const who = device === '' ? { address, ...(user === '' ? {} : { user }) } : { device }
    const query = { ...who, outcome: 'done' }
    const { records } = await this.#parts.history.find(query, LOOK_BACK, id)
    return records.find((record) => record.build !== '' && record.files > 0)?.build ?? null
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

  async import(
    file: string,
    id: string,
    form: ImportForm,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#parts.fetches.import(file, checkBuildId(id), form, say, signal)
  }

  async importStick(directory: string, say: (line: string) => void, signal: AbortSignal): Promise<string[]> {
    const { store, fetches } = this.#parts
    const builds = await buildsOnStick(directory)
    const absent = builds.filter(({ id }) => !store.has(id))
    say(`${builds.length} builds are on the stick, ${absent.length} of them are not held`)
    if (absent.length === 0) return []
    await checkStick(directory, absent, say, signal)
    for (const { id, source } of absent) await fetches.importFrom(source, id, say, signal)
    return absent.map(({ id }) => id)
  }

  async export(id: string, have: readonly string[], path: string, signal: AbortSignal): Promise<void> {
    const { store, catalog, verifier } = this.#parts
    const leases: Lease[] = []
    try {
      for (const one of [id, ...have]) {
        catalog.assertHeld(one)
        const lease = catalog.lease(one)
        if (lease) leases.push(lease)
      }
      const damage = await store.damage(id)
      if (damage) throw new CommandError(damage.message, { hint: `First: upserv verify ${id} --repair` })
      const start = await bundleStart(store, id, have)
      const suspect = (digest: Uint8Array): void => verifier.suspect(id, digest)
      await pourCompressed(path, start, bundleBody(store, id, have, { signal, suspect }), signal)
    } finally {
      for (const lease of leases) lease.release()
    }
  }

  async pin(id: string): Promise<void> {
    await this.#holding(id, () => this.#parts.store.pin(id))
    this.#parts.activity.events.emit('builds')
  }

  async unpin(id: string): Promise<void> {
    await this.#holding(id, () => this.#parts.store.unpin(id))
    this.#parts.activity.events.emit('builds')
  }

  async remove(id: string): Promise<void> {
    const { store, catalog } = this.#parts
    catalog.assertHeld(id)
    if (await store.isSticky(id)) {
      throw new CommandError(`build ${id} is sticky`, { hint: `First: upserv unpin ${id}` })
    }
    await catalog.remove(id)
    await store.collect()
    this.#parts.activity.events.emit('builds')
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
    const { verifier, activity } = this.#parts
    const now: VerificationStatus = {
      ...{ running: true, id: id ?? null, bytes: 0, totalBytes: 0, rottenBlobs: 0 },
      ...{ report: null, failure: null },
    }
    // Of several at a time the one that began last is shown.
    activity.verification = now
    try {
      now.report = await verifier.verify(
        id,
        options,
        (progress) => {
          if (progress.type === 'checked') {
            now.bytes = progress.bytes
            now.totalBytes = progress.totalBytes
            now.rottenBlobs = progress.rottenBlobs
          }
          onProgress(progress)
        },
        signal,
      )
      return now.report
    } catch (error) {
      now.failure = (error as Error).message
      throw error
    } finally {
      now.running = false
      activity.events.emit('builds')
    }
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

function fetchMatches(end: FetchEnd, { build, source, outcome, since, until }: FetchQuery): boolean {
  return (
    (build === undefined || end.id === build) &&
    (source === undefined || end.source === source) &&
    (outcome === undefined || end.outcome === outcome) &&
    (since === undefined || end.ended >= since) &&
    (until === undefined || end.ended < until)
  )
}

function matches(record: SessionRecord, query: RecordQuery): boolean {
  return (
    (query.build === undefined || record.build === query.build) &&
    (query.address === undefined || record.address === query.address) &&
    (query.device === undefined || record.device === query.device) &&
    (query.user === undefined || record.user === query.user) &&
    (query.outcome === undefined || record.outcome === query.outcome) &&
    (query.since === undefined || record.ended >= query.since) &&
    (query.until === undefined || record.ended < query.until)
  )
}
