/**
 * Warmer: has what devices will ask for worked out before the first of them does (`upserv warm`), so that a
 * release is published hot. What it makes is derived data like any other: kept in the cache, counted in the
 * budget, and the first to go.
 *
 * Devices come first: while there are any, every piece of work is followed by a rest as long as itself.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { CommandError } from '../errors.ts'
import { ascii } from '../lib/bytes.ts'
import { isPossible, type StockVisit, visitOf } from '../rsync/stock-clients.ts'
import type { StockRelease } from '../rsync/stock-releases.ts'
import {
  framedQuestions,
  isFramed,
  type Kitchen,
  planUpdate,
  type Update,
  warmAnswers,
  warmList,
} from '../rsync/warm.ts'
import type { Store } from '../store/store.ts'
import { checkBuildId, moduleOf } from './build-id.ts'
import type { HeldTree } from './builds-tree.ts'
import type { Catalog } from './catalog.ts'
import type { WarmedClient, WarmedUpdate, WarmProgress, WarmReport } from './operations.ts'
import type { WarmRequest } from './warm-request.ts'

/** How often it is told how far it is. */
const TELL_EVERY_MS = 100
/** What devices sync: a module's directory of that name. */
const ROOT = 'root'
/** Options beside -a that the README has, and those that people leave out of them. */
const LETTERS = ['', 'H', 'HAX']

/** What the warmer asks of the cache. */
export interface WarmCache {
  /** Resolves when old records are known and new ones on disk. */
  readonly ready: Promise<void>
  readonly tally: {
    readonly written: number
    readonly dropped: number
    readonly next: number
    readonly droppedUpTo: number
    readonly crowdedUpTo: number
  }
}

export interface WarmerParts {
  store: Store
  catalog: Catalog
  hold: (id: string) => Promise<HeldTree>
  kitchen: Kitchen
  cache: WarmCache
  /** Devices are here. */
  isBusy: () => boolean
  now?: () => number
}

export class Warmer {
  readonly #parts: WarmerParts
  readonly #now: () => number
  readonly #abort = new AbortController()
  readonly #running = new Set<Promise<unknown>>()

  constructor(parts: WarmerParts) {
    this.#parts = parts
    this.#now = parts.now ?? (() => performance.now())
  }

  /** @throws CommandError when a build is not held, or not whole; the signal's reason. */
  async warm(
    request: WarmRequest,
    onProgress: (progress: WarmProgress) => void,
    signal: AbortSignal,
  ): Promise<WarmReport> {
    const stop = AbortSignal.any([signal, this.#abort.signal])
    const running = this.#warmHeld(request, onProgress, stop)
    this.#running.add(running)
    try {
      return await running
    } catch (error) {
      // A thread that was stopped says so in its own words.
      stop.throwIfAborted()
      throw error
    } finally {
      this.#running.delete(running)
    }
  }

  /** Stops what is under way. */
  async close(): Promise<void> {
    this.#abort.abort(new CommandError('the server is stopping'))
    await Promise.allSettled(this.#running)
  }

  async #warmHeld(
    request: WarmRequest,
    onProgress: (progress: WarmProgress) => void,
    signal: AbortSignal,
  ): Promise<WarmReport> {
    const from = [...new Set(request.from)]
    if (from.includes(request.id))
      throw new CommandError(`a device that has build ${request.id} asks for nothing of it`, {
        hint: 'Name the builds that devices have now: --from ID,ID',
      })
    for (const id of [request.id, ...from]) await this.#assertWhole(id)
    const held = new Map<string, HeldTree>()
    try {
      for (const id of [request.id, ...from]) held.set(id, await this.#parts.hold(id))
      const warming = new Warming(this.#parts, { ...request, from }, held, onProgress, this.#now, signal)
      return await warming.run()
    } finally {
      for (const build of held.values()) build.release()
    }
  }

  async #assertWhole(id: string): Promise<void> {
    const { store, catalog } = this.#parts
    checkBuildId(id)
    await catalog.left(id)
    if (!store.has(id))
      throw new CommandError(`build ${id} is not held`, { hint: `Have it fetched first: upserv fetch ${id}` })
    const damage = await store.damage(id)
    if (damage)
      throw new CommandError(damage.message, {
        hint: `Have it made whole first: upserv verify ${id} --repair`,
      })
  }
}

/** What there is not enough of when what was made since the beginning has to go for what is made now. */
export function whatIsFull(begun: WarmCache['tally'], now: WarmCache['tally']): WarmReport['full'] {
  if (now.crowdedUpTo >= begun.next) return 'records'
  return now.droppedUpTo >= begun.next ? 'bytes' : null
}

/** One run of `upserv warm`. */
class Warming {
  readonly #parts: WarmerParts
  readonly #request: WarmRequest
  readonly #held: ReadonlyMap<string, HeldTree>
  readonly #onProgress: (progress: WarmProgress) => void
  readonly #now: () => number
  readonly #signal: AbortSignal
  readonly #full = new AbortController()
  readonly #begun: WarmCache['tally']
  #done = 0
  #total = 0
  #toldAt = Number.NEGATIVE_INFINITY

  constructor(
    parts: WarmerParts,
    request: WarmRequest,
    held: ReadonlyMap<string, HeldTree>,
    onProgress: (progress: WarmProgress) => void,
    now: () => number,
    signal: AbortSignal,
  ) {
    this.#parts = parts
    this.#request = request
    this.#held = held
    this.#onProgress = onProgress
    this.#now = now
    this.#signal = AbortSignal.any([signal, this.#full.signal])
    this.#begun = parts.cache.tally
  }

  async run(): Promise<WarmReport> {
    const { cache } = this.#parts
    const { id, quick } = this.#request
    const began = this.#now()
    await cache.ready
    const report = { id, quick, lists: 0, updates: [] as WarmedUpdate[] }
    try {
      const updates = await this.#plan()
      report.lists = await this.#lists()
      for (const [from, update] of updates) {
        const warmed = noneYet(from, update)
        report.updates.push(warmed)
        await this.#update(warmed, update)
      }
    } catch (error) {
      if (!this.#full.signal.aborted) throw error
    }
    await cache.ready
    const { written, dropped } = cache.tally
    return {
      ...report,
      writtenBytes: written - this.#begun.written,
      droppedBytes: dropped - this.#begun.dropped,
      full: whatIsFull(this.#begun, cache.tally),
      ms: Math.round(this.#now() - began),
    }
  }

  async #plan(): Promise<Map<string, Update>> {
    const { id, from, clients } = this.#request
    const to = this.#held.get(id)!.tree
    const updates = new Map<string, Update>()
    for (const old of from) {
      const update = await planUpdate(this.#held.get(old)!.tree, to, ascii(ROOT), this.#signal)
      for (const release of clients) {
        const visits = await this.#visits(release)
        if (visits.length === 0) continue
        const frames = visits.filter(isFramed).map(() => framedQuestions(update))
        for (const { node } of [update.questions, ...frames].flat()) this.#total += to.size(node)
      }
      updates.set(old, update)
    }
    return updates
  }

  /** A list for each way in which clients are usually called. @returns how many. */
  async #lists(): Promise<number> {
    const { id, clients, checksum } = this.#request
    const { tree } = this.#held.get(id)!
    let lists = 0
    for (const release of clients) {
      for (const letters of checksum ? LETTERS.flatMap((some) => [some, `${some}c`]) : LETTERS) {
        for (const numericIds of [true, false]) {
          this.#tell(undefined)
          const began = this.#now()
          const visit = await this.#visit(release, letters, numericIds, 'none')
          if (!visit) continue
          await warmList(this.#parts.kitchen, tree, ascii(moduleOf(id)), visit, this.#signal)
          lists++
          await this.#pause(this.#now() - began)
        }
      }
    }
    return lists
  }

  async #update(warmed: WarmedUpdate, update: Update): Promise<void> {
    const { cache, kitchen } = this.#parts
    const { clients, quick } = this.#request
    const { written } = cache.tally
    const unreadable = new Set<number>()
    for (const release of clients) {
      const visits = await this.#visits(release)
      if (visits.length === 0) continue
      const counts = new Map<StockVisit, WarmedClient>()
      for (const visit of visits) {
        const codec = visit.agreement.codec ?? 'none'
        counts.set(visit, { client: release, codec, bytes: 0, answers: 0, newAnswers: 0, unready: 0 })
      }
      warmed.clients.push(...counts.values())
      const pause = (workedMs: number): Promise<void> => this.#pause(workedMs)
      await warmAnswers(
        kitchen,
        {
          update,
          visits,
          quick,
          pause,
          onDone: ({ node, times }, prepared) => {
            this.#done += update.to.size(node)
            this.#tell(warmed.from)
            warmed.writtenBytes = cache.tally.written - written
            if (!prepared) unreadable.add(node)
            warmed.unreadable = unreadable.size
            for (const [visit, { bytes, ready, isNew }] of prepared ?? []) {
              const count = counts.get(visit)!
              count.bytes += bytes * (isFramed(visit) ? Math.min(times, 1) : times)
              count.answers++
              if (isNew) count.newAnswers++
              if (!ready) count.unready++
            }
          },
        },
        this.#signal,
      )
    }
  }

  /** What clients of a release come to by each compression that it knows: one for each codec; none if it knows none. */
  async #visits(release: StockRelease): Promise<StockVisit[]> {
    const visits = new Map<string | undefined, StockVisit>()
    for (const compress of this.#request.compress) {
      const visit = await this.#visit(release, 'H', true, compress)
      if (visit) visits.set(visit.agreement.codec, visit)
    }
    return [...visits.values()]
  }

  /** Undefined when clients of this release can't be called like that. */
  async #visit(
    release: StockRelease,
    letters: string,
    numericIds: boolean,
    compress: WarmRequest['compress'][number],
  ): Promise<StockVisit | undefined> {
    const { id } = this.#request
    const options = { letters, numericIds, compress: compress === 'none' ? undefined : compress }
    if (!isPossible(release, options)) return undefined
    return visitOf(release, options, ascii(`${moduleOf(id)}/${ROOT}/`), this.#parts.kitchen.checksumSeed)
  }

  async #pause(workedMs: number): Promise<void> {
    if (whatIsFull(this.#begun, this.#parts.cache.tally)) this.#full.abort()
    if (this.#parts.isBusy()) await sleep(workedMs, undefined, { signal: this.#signal })
    this.#signal.throwIfAborted()
  }

  #tell(from: string | undefined): void {
    if (this.#now() - this.#toldAt < TELL_EVERY_MS) return
    this.#toldAt = this.#now()
    this.#onProgress({ type: 'warming', from, bytes: this.#done, totalBytes: this.#total })
  }
}

function noneYet(from: string, { to, questions }: Update): WarmedUpdate {
  let files = 0
  let bytes = 0
  for (const { node, times } of questions) {
    files += times
    bytes += times * to.size(node)
  }
  return { from, files, bytes, unreadable: 0, clients: [], writtenBytes: 0 }
}
