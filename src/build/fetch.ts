/**
 * Fetch: a missing build is had from its source and becomes visible. One fetch for each build at a time,
 * however many wait for it; each of them is told how it goes, at least every two seconds.
 *
 * The long half runs in a thread (fetch-job.ts). Here: who waits, what they are told, room and publishing.
 */
import { stat } from 'node:fs/promises'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import {
  BuildDamaged,
  CommandError,
  type ErrorReport,
  NoSuchBuild,
  RelayedError,
  reportError,
  SourceError,
  StoreError,
  UpservError,
} from '../errors.ts'
import type { FetchEnd } from '../history/fetch-record.ts'
import type { Logger } from '../lib/log.ts'
import { siblingModule } from '../lib/module-path.ts'
import { nearestOf } from '../lib/nearest.ts'
import { untilAborted } from '../lib/single-flight.ts'
import { formatDuration, formatSize } from '../lib/units.ts'
import { WaitingLine } from '../lib/waiting-line.ts'
import type { FetchTicket } from '../rsync/modules.ts'
import { type AnySource, createSource } from '../source/create.ts'
import { Pace } from '../source/pace.ts'
import { IMPORT_SOURCE, type SourceConfig, type SourceEvent } from '../source/source.ts'
import type { Budget, MostRoom, Room } from '../store/budget.ts'
import type { BuildInfo } from '../store/build-info.ts'
import { generateContents } from '../store/contents.ts'
import type { Staging, Store } from '../store/store.ts'
import { compareIds, moduleOf } from './build-id.ts'
import type { Catalog, Lease } from './catalog.ts'
import type { FetchJob, FetchOutcome, FetchProgress } from './fetch-job.ts'
import type { FetchMessage, FetchOrder, FetchWorkerData } from './fetch-worker.ts'
import type { FetchStatus, ImportForm } from './operations.ts'
import { isOnStick, sourceOnStick } from './stick.ts'

/** Clients stay if a line comes more often than every half of their --timeout, which we don't know yet. */
const SAY_EVERY_MS = 1500
/** That an upstream does not have a build is believed for this long. */
const ABSENT_MS = 60_000
/** More absent ids than this are not remembered: clients choose them. */
const MAX_ABSENT = 10_000
/**
 * Fetches that work at the same time: each takes a thread, its share of the link and, when the budget is
 * full, the turn to go beyond it. Others wait in line.
 */
const MAX_WORKING = 3
/** Fetches that wait in line: more are refused, as clients choose the ids. */
const MAX_IN_LINE = 100
/** How often a download starts over when the file changes upstream, or what was kept of it is bad. */
const MAX_STARTS = 3
/** A thread that was told to stop may take so long to put its download away. */
const STOP_MS = 5000
/** The rate that people are told is that of about the last so many milliseconds. */
const RATE_WINDOW_MS = 5000

/** What a generated contents file takes for each byte of manifest, at most about: room is made before it is written. */
const CONTENTS_SHARE = 3

export interface FetchesOptions {
  store: Store
  catalog: Catalog
  budget: Budget
  sources: readonly SourceConfig[]
  log: Logger
  /** Called whenever a fetch has begun or ended. */
  onChange?: () => void
  /** Told how each fetch went. */
  onEnd?: (end: FetchEnd) => void
  /** Milliseconds on a clock that never jumps. */
  now?: () => number
}

interface LaunchOptions {
  /** The build is held, and damaged. */
  repairs?: boolean
  begin?: ForWhom['begin']
  /** What the archive has to be, in hex; where nothing is known of it, it may be any. */
  archiveSha256?: string | null | undefined
}

/** On whose behalf a build is fetched. */
export interface ForWhom {
  /** Whether it may hear of a build, should the one that it asked for not exist. */
  mayHear(id: string): boolean
  /** Called before a fetch is begun; who joins one that goes on is not asked. @throws what says why not. */
  begin(): FetchTicket
}

/** Whoever runs the server may hear of everything, and have everything. */
const FOR_THE_OPERATOR: ForWhom = { mayHear: () => true, begin: () => ({ end: () => {} }) }

export class Fetches {
  readonly #options: FetchesOptions
  #sources: readonly { config: SourceConfig; source: AnySource }[]
  readonly #running = new Map<string, Flight>()
  readonly #absent = new Map<string, { error: Error; until: number }>()
  /** Servers that have asked to be left alone, by origin, and until when. */
  readonly #rests = new Map<string, number>()
  readonly #line = new WaitingLine(MAX_WORKING)
  readonly #paces = new Map<string, SharedArrayBuffer>()
  readonly #now: () => number
  #closed = false

  /** @throws ConfigError for a source that can't be right. */
  constructor(options: FetchesOptions) {
    this.#options = options
    this.#sources = withRules(options.sources)
    this.#now = options.now ?? (() => performance.now())
  }

  /** Fetches that begin from now on go by these. @throws ConfigError as the constructor does, with nothing changed. */
  useSources(sources: readonly SourceConfig[]): void {
    this.#sources = withRules(sources)
    // What the others did not have, these may.
    this.#absent.clear()
    this.#rests.clear()
  }

  /** Whether a fetch of that build is under way. */
  isRunning(id: string): boolean {
    return this.#running.has(id)
  }

  /** Fetches under way. */
  status(): FetchStatus[] {
    return [...this.#running.values()].map((flight) => flight.status())
  }

  /**
   * Gets a build that is not held, or joins those who wait for it. Whoever stops waiting leaves the fetch
   * running: the next one who asks will be glad of it.
   * @returns a lease on the build. @throws NoSuchBuild, NotPublished and whatever else went wrong.
   */
  async get(
    id: string,
    say: (line: string) => void,
    signal: AbortSignal,
    forWhom: ForWhom = FOR_THE_OPERATOR,
  ): Promise<Lease> {
    const flight = this.#running.get(id) ?? this.#start(id, forWhom)
    return this.#wait(flight, say, signal)
  }

  /**
   * Makes a damaged build whole: gets its archive again, of which only what is missing is written. As `get`,
   * for who wants the build. @throws BuildDamaged when that can't be done.
   */
  async repair(
    id: string,
    say: (line: string) => void,
    signal: AbortSignal,
    forWhom: ForWhom = FOR_THE_OPERATOR,
  ): Promise<Lease> {
    const { store } = this.#options
    const damage = store.has(id) ? await store.damage(id) : undefined
    // It is whole by now, or the disk gives again what it did not give.
    if (!damage) return this.#options.catalog.lease(id) ?? (await this.get(id, say, signal, forWhom))
    let failure: Error
    try {
      const lease = await this.#wait(await this.#startRepair(id, forWhom), say, signal)
      if (!(await store.damage(id))) return lease
      lease.release()
      failure = new StoreError('it came in damaged again')
    } catch (error) {
      if (signal.aborted || !(error instanceof UpservError)) throw error
      failure = error
    }
    throw new BuildDamaged(`${damage.message}, and it cannot be fetched again: ${failure.message}`, {
      hint: `Run \`upserv verify ${id} --repair\`, or remove it and import it again.`,
      cause: failure,
    })
  }

  /**
   * Makes a build of what is on this machine: an archive, what another server has exported, or either of them
   * through a FIFO. @throws CommandError when the id is taken.
   */
  async import(
    file: string,
    id: string,
    form: ImportForm,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const stats = await stat(file).catch(() => undefined)
    if (!stats?.isFile() && !stats?.isFIFO()) {
      throw new CommandError(`${file} is no file that the server can read`, {
        hint: `It sees nothing below /root and /home, and another /tmp, as systemd starts it. Let the shell open the file: upserv import - --as ${id} <${file}`,
      })
    }
    const { href } = pathToFileURL(file)
    const scheme = form === 'export' ? EXPORT_SCHEME : stats.isFIFO() ? 'pipe:' : 'file:'
    await this.importFrom(importSource(href.replace(FILE_SCHEME, scheme)), id, say, signal)
  }

  /** The same by a source of its own. */
  async importFrom(
    source: SourceConfig,
    id: string,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { store } = this.#options
    const repairs = store.has(id) && (await store.damage(id)) !== undefined
    // No await between this and `#launch`: two who ask at once must not both get the id.
    if ((store.has(id) && !repairs) || this.#running.has(id)) {
      throw new CommandError(`build ${id} is held already`, {
        hint: 'Choose another id, or `upserv remove` it first.',
      })
    }
    const lease = await this.#wait(this.#launch(id, [source], { repairs }), say, signal)
    lease.release()
  }

  /**
   * Stops what is under way so that a later start can go on from there.
   * @returns the builds that a process after us should go on with. What is imported only its operator can bring again:
   *   by its id alone another build may be had.
   */
  async close(): Promise<string[]> {
    this.#closed = true
    const flights = [...this.#running.values()]
    const ids = flights.filter((flight) => flight.status().source !== IMPORT_SOURCE).map(({ id }) => id)
    await Promise.all(flights.map((flight) => flight.stop()))
    return ids
  }

  /** After `close`: fetches may begin again. */
  reopen(): void {
    this.#closed = false
  }

  #start(id: string, { mayHear, begin }: ForWhom): Flight {
    const sources = this.#sourcesOf(id)
    if (sources.length === 0) throw this.#noSuchBuild(id, mayHear)
    return this.#launch(id, sources, { begin })
  }

  /**
   * The fetch under way, or a new one that makes the build whole. An import is read again where it was, by the rules
   * that it was read by, and has to be the same archive: nobody has said that another one is to be this build.
   */
  async #startRepair(id: string, { begin }: ForWhom): Promise<Flight> {
    const info = await this.#options.store.info(id).catch(() => undefined)
    // Who asks meanwhile joins what mends it.
    const isImport = info?.source === IMPORT_SOURCE && !this.#running.has(id)
    const imported = isImport ? await sourceAgain(id, info) : undefined
    const running = this.#running.get(id)
    if (running) return running
    if (imported)
      return this.#launch(id, [imported], { repairs: true, begin, archiveSha256: info?.archiveSha256 })
    const sources = this.#sourcesOf(id)
    if (sources.length === 0) throw new SourceError('no source offers it')
    return this.#launch(id, sources, { repairs: true, begin })
  }

  /** Those that offer the build. @throws NotPublished when it is known that none of them has it. */
  #sourcesOf(id: string): SourceConfig[] {
    const known = this.#absent.get(id)
    if (known && known.until > this.#now()) throw known.error
    this.#absent.delete(id)
    return this.#sources.filter(({ source }) => source.offers(id)).map(({ config }) => config)
  }

  #launch(
    id: string,
    sources: readonly SourceConfig[],
    { repairs = false, begin = FOR_THE_OPERATOR.begin, archiveSha256 }: LaunchOptions = {},
  ): Flight {
    if (this.#closed) throw serverIsStopping()
    if (this.#line.length >= MAX_IN_LINE) {
      throw new SourceError(`${this.#line.length} fetches wait already`, { hint: 'Try again later.' })
    }
    const ticket = begin()
    const flight = new Flight(
      id,
      sources,
      {
        ...this.#options,
        paceOf: (name) => this.#paceOf(name),
        rests: () => this.#restsLeft(),
        noteRest: (origin, ms) => this.#noteRest(origin, ms),
      },
      this.#now,
      this.#line,
      repairs,
      archiveSha256 ?? undefined,
    )
    this.#running.set(id, flight)
    this.#options.onChange?.()
    void flight.done
      .then(() => undefined)
      .catch((error: Error) => {
        if ((error as UpservError).code === 'BUILD_NOT_PUBLISHED') this.#noteAbsent(id, error)
        return error
      })
      .then((error) => {
        this.#running.delete(id)
        this.#options.onChange?.()
        const end = flight.end(error)
        ticket.end({ receivedBytes: end.receivedBytes, absent: end.code === 'BUILD_NOT_PUBLISHED' })
        this.#options.onEnd?.(end)
      })
    return flight
  }

  /** What all fetches of a source share, whichever thread they run in. */
  #paceOf(source: string): SharedArrayBuffer {
    const pace = this.#paces.get(source) ?? Pace.memory()
    this.#paces.set(source, pace)
    return pace
  }

  #noteRest(origin: string, ms: number): void {
    if (this.#rests.size >= MAX_ABSENT) this.#rests.delete(this.#rests.keys().next().value!)
    this.#rests.set(origin, this.#now() + ms)
  }

  #restsLeft(): Record<string, number> {
    const now = this.#now()
    for (const [origin, until] of this.#rests) if (until <= now) this.#rests.delete(origin)
    return Object.fromEntries([...this.#rests].map(([origin, until]) => [origin, until - now]))
  }

  #noteAbsent(id: string, error: Error): void {
    if (this.#absent.size >= MAX_ABSENT) this.#absent.delete(this.#absent.keys().next().value!)
    this.#absent.set(id, { error, until: this.#now() + ABSENT_MS })
  }

  async #wait(flight: Flight, say: (line: string) => void, signal: AbortSignal): Promise<Lease> {
    const stop = flight.listen(say)
    try {
      await untilAborted(flight.done, signal)
      const lease = this.#options.catalog.lease(flight.id)
      if (!lease) throw new CommandError(`build ${flight.id} left again at once: the budget is too small`)
      return lease
    } finally {
      stop()
    }
  }

  #noSuchBuild(id: string, mayHear: (id: string) => boolean): NoSuchBuild {
    const held = this.#options.catalog.ids().filter(mayHear)
    const near = nearestOf(id, held)
    const known = (near.length > 0 ? near : held.slice(-3)).map(moduleOf)
    const names = known.length > 0 ? `; held now: ${known.join(', ')}` : ''
    return new NoSuchBuild(`no such build: ${moduleOf(id)} is not held, and no source offers it${names}`)
  }
}

/** Each with what it offers. @throws ConfigError */
function withRules(configs: readonly SourceConfig[]): { config: SourceConfig; source: AnySource }[] {
  return configs.map((config) => ({ config, source: createSource(config) }))
}

/** What fetches have in common. */
interface Shared extends FetchesOptions {
  paceOf(source: string): SharedArrayBuffer
  /** Servers that are to be left alone, and for how many more milliseconds. */
  rests(): Record<string, number>
  noteRest(origin: string, ms: number): void
}

/** One fetch under way. */
class Flight {
  readonly id: string
  /** Settles when the build is visible, or why it is not. */
  readonly done: Promise<void>
  readonly #options: Shared
  readonly #sources: readonly SourceConfig[]
  readonly #now: () => number
  readonly #listeners = new Set<(line: string) => void>()
  readonly #rate: RateMeter
  readonly #line: WaitingLine
  /** The build is held, and damaged. */
  readonly #repairs: boolean
  readonly #archiveSha256: string | undefined
  readonly #abort = new AbortController()
  #queued = false
  #worker: Worker | undefined
  #room: Room | undefined
  /** Keeps the build from going again before those who waited have leases of their own. */
  #lease: Lease | undefined
  /** Whether bytes that an earlier process had downloaded were used. */
  #resumed = false
  #step: FetchStatus['step'] = 'locating'
  /** What was relied on turned out wrong. */
  #alone = false
  #phase = 'looking for it'
  #source = ''
  /** Where its bytes come from. */
  #url = ''
  readonly #began = new Date()
  #received = 0
  #unpacked = 0
  #total: number | undefined
  /** When each source was first asked, by its name. */
  readonly #askedAt = new Map<string, number>()

  constructor(
    id: string,
    sources: readonly SourceConfig[],
    options: Shared,
    now: () => number,
    line: WaitingLine,
    repairs: boolean,
    archiveSha256: string | undefined,
  ) {
    this.#line = line
    this.#repairs = repairs
    this.#archiveSha256 = archiveSha256
    this.id = id
    this.#sources = sources
    this.#options = options
    this.#now = now
    this.#rate = new RateMeter(now)
    this.#source = sources[0]!.name
    this.done = this.#run()
    // Whoever waits hears of it, and takes a lease in the same turn; nobody has to wait.
    this.done.catch(() => {}).finally(() => setImmediate(() => this.#lease?.release()))
  }

  status(): FetchStatus {
    return {
      id: this.id,
      source: this.#source,
      step: this.#step,
      phase: this.#phase,
      began: this.#began.toISOString(),
      receivedBytes: this.#received,
      totalBytes: this.#total ?? null,
      unpackedBytes: this.#unpacked,
      bytesPerSecond: Math.round(this.#rate.perSecond()),
      secondsLeft: this.#msLeft === undefined ? null : Math.round(this.#msLeft / 1000),
      waiting: this.#listeners.size,
    }
  }

  /** How it went. @param error why it failed; undefined when it did not. */
  end(error: Error | undefined): FetchEnd {
    return {
      id: this.id,
      source: this.#source,
      url: this.#url,
      began: this.#began.toISOString(),
      ended: new Date().toISOString(),
      outcome: !error ? 'done' : this.#abort.signal.aborted ? 'stopped' : 'failed',
      code: error ? reportError(error).code : '',
      reason: error?.message ?? '',
      receivedBytes: this.#received,
    }
  }

  /** Undefined when nobody knows. */
  get #msLeft(): number | undefined {
    const rate = this.#rate.perSecond()
    if (!this.#total || rate <= 0 || this.#phase !== DOWNLOADING) return undefined
    return (Math.max(0, this.#total - this.#received) / rate) * 1000
  }

  /** Tells how it goes until the returned function is called. */
  listen(say: (line: string) => void): () => void {
    this.#listeners.add(say)
    const why = this.#repairs
      ? 'is damaged: it is being fetched again'
      : 'is not here yet: it is being fetched'
    say(`${moduleOf(this.id)} ${why}, please wait.`)
    const timer = setInterval(() => say(this.#describe()), SAY_EVERY_MS)
    return () => {
      clearInterval(timer)
      this.#listeners.delete(say)
      // Still in line, and nobody wants it any more.
      if (this.#queued && this.#listeners.size === 0)
        this.#abort.abort(new SourceError('nobody waits for it'))
    }
  }

  /** Stops soon, keeping what a later fetch can go on from. */
  async stop(): Promise<void> {
    this.#abort.abort(serverIsStopping())
    this.#worker?.postMessage({ type: 'abort' } satisfies FetchOrder)
    this.#room?.abandon()
    const timer = setTimeout(() => void this.#worker?.terminate(), STOP_MS)
    await this.done.catch(() => {})
    clearTimeout(timer)
  }

  async #run(): Promise<void> {
    const { log } = this.#options
    const began = this.#now()
    const leave = await this.#line.enter(this.#abort.signal, (ahead) => {
      this.#queued = true
      this.#step = 'waiting'
      this.#phase = `${ahead} ${ahead === 1 ? 'fetch is' : 'fetches are'} ahead of it`
    })
    this.#queued = false
    this.#step = 'locating'
    try {
      log.info({ build: this.id, sources: this.#sources.map(({ name }) => name) }, 'fetch began')
      await this.#fetch(began)
    } finally {
      leave()
    }
  }

  async #fetch(began: number): Promise<void> {
    const { log } = this.#options
    for (let start = 1; ; start++) {
      try {
        await this.#attempt()
        log.info(
          {
            build: this.id,
            source: this.#source,
            bytes: this.#received,
            ms: Math.round(this.#now() - began),
          },
          'fetch done',
        )
        return
      } catch (error) {
        if (this.#abort.signal.aborted) {
          log.info({ build: this.id, source: this.#source, bytes: this.#received }, 'fetch stopped')
          throw serverIsStopping()
        }
        const code = (error as UpservError).code
        // Parts that do not belong together may have come from what an earlier start had kept.
        // What it relied on may have been found to have rotted meanwhile.
        const again =
          code === 'SOURCE_CHANGED' || code === 'STORE_CORRUPT' || (this.#resumed && SPOILED.has(code))
        if (!again || start === MAX_STARTS) {
          log.warn({ build: this.id, source: this.#source, ...forLog(reportError(error)) }, 'fetch failed')
          throw error
        }
        this.#alone = true
        log.info({ build: this.id, reason: (error as Error).message }, 'fetch starts over')
        this.#tellAll(`${moduleOf(this.id)}: starting over: ${(error as Error).message}`)
      }
    }
  }

  async #attempt(): Promise<void> {
    const { store, budget } = this.#options
    this.#resumed = false
    this.#received = 0
    const room = budget.openRoom(this.id)
    this.#room = room
    let staging: Staging | undefined
    try {
      staging = await store.beginIngest(this.id)
      const outcome = await this.#inThread(staging, room.memory, await budget.most())
      this.#checkArchive(outcome)
      this.#step = 'publishing'
      this.#phase = 'making room for it and publishing it'
      const { ingest, contents } = outcome
      const contentsBytes = contents?.length ?? ingest.manifest.length * CONTENTS_SHARE
      const ownBytes = ingest.manifest.length + contentsBytes
      room.wrote(ingest.packBytes)
      await room.reserve(ownBytes)
      await room.settle(ingest.packBytes + ownBytes, outcome.blobs)
      room.handOver()
      await this.#publish(staging, outcome)
      staging = undefined
    } finally {
      if (staging) await store.discardIngest(staging)
      room.close()
      this.#room = undefined
    }
    await budget
      .enforce()
      .catch((error: Error) => this.#options.log.warn({ reason: error.message }, 'over the budget'))
  }

  /** @throws SourceError when it is not the archive that it has to be. */
  #checkArchive({ url, exportedTo, archiveSha256 }: FetchOutcome): void {
    const expected = this.#archiveSha256
    if (expected === undefined || archiveSha256 === expected) return
    throw new SourceError(`${exportedTo ?? url} is another file now than the one that was imported`, {
      hint: `Import what it should be under its id, or remove build ${this.id}.`,
    })
  }

  async #publish(staging: Staging, outcome: FetchOutcome): Promise<void> {
    const { store, catalog } = this.#options
    const { ingest } = outcome
    const info: BuildInfo = {
      id: this.id,
      source: outcome.source,
      url: outcome.url,
      ...importedFrom(this.#sources[0]!),
      ...(outcome.exportedTo !== undefined ? { exportedTo: outcome.exportedTo } : {}),
      fetched: new Date().toISOString(),
      archiveBytes: outcome.archiveBytes,
      archiveSha256: outcome.archiveSha256,
      vouchers: outcome.vouchers,
      totals: outcome.totals,
      addedBytes: ingest.packBytes,
      uniformMtime: ingest.uniformMtime ?? null,
    }
    const publish = (mayReplace?: () => boolean): Promise<void> =>
      store.publish(
        staging,
        ingest,
        (manifest) => outcome.contents ?? generateContents(manifest),
        info,
        mayReplace,
      )
    await (this.#repairs ? catalog.replacing(this.id, publish) : publish())
    this.#lease = catalog.lease(this.id)
    if (info.uniformMtime !== null) {
      this.#options.log.warn(
        { build: this.id, mtime: new Date(info.uniformMtime * 1000).toISOString() },
        'all files of this build share one mtime: clients that update to or from such a build should add -c, which costs the server nothing',
      )
    }
  }

  #inThread(staging: Staging, room: SharedArrayBuffer, most: MostRoom): Promise<FetchOutcome> {
    const job: FetchJob = {
      id: this.id,
      sources: this.#sources,
      spentMs: this.#sources.map(({ name }) => this.#now() - (this.#askedAt.get(name) ?? this.#now())),
      rests: this.#options.rests(),
      paces: this.#sources.map(({ name }) => this.#options.paceOf(name)),
      directory: staging.directory,
      spool: this.#options.store.paths.spool(this.id),
      known: staging.known.data,
      most,
      held: this.#mostAlike(),
      alone: this.#alone,
    }
    const worker = new Worker(siblingModule(import.meta.url, './fetch-worker'), {
      workerData: { job, room } satisfies FetchWorkerData,
      name: `fetch ${this.id}`,
    })
    this.#worker = worker
    if (this.#abort.signal.aborted) worker.postMessage({ type: 'abort' } satisfies FetchOrder)
    let settled: FetchMessage | undefined
    return new Promise<FetchOutcome>((resolve, reject) => {
      worker.on('message', (message: FetchMessage) => {
        if (message.type === 'progress') this.#note(message.progress)
        else if (message.type === 'read') void this.#readFor(worker, message)
        else settled = message
      })
      worker.once('error', (error) => reject(error))
      // Only when the thread has ended are its files closed.
      worker.once('exit', (code) => {
        this.#worker = undefined
        if (settled?.type === 'done') resolve(settled.outcome)
        else if (settled?.type === 'failed') reject(new RelayedError(settled.error))
        else reject(new Error(`the thread of the fetch ended with ${code}`))
      })
    })
  }

  /** Manifests of those held builds that are most likely to be like this one: near by name, then lately used. */
  #mostAlike(): string[] {
    const { store, catalog } = this.#options
    const ids = catalog.ids().filter((id) => id !== this.id)
    const place = ids.filter((id) => compareIds(id, this.id) < 0).length
    const alike = ids
      .map((id, i) => ({ id, kinship: kinship(this.id, id), distance: Math.abs(i + 0.5 - place) }))
      .sort((a, b) => b.kinship - a.kinship || a.distance - b.distance)
    return alike.slice(0, MAX_ALIKE).map(({ id }) => store.paths.build(id).manifest)
  }

  async #readFor(
    worker: Worker,
    { number, digest, offset, bytes }: Extract<FetchMessage, { type: 'read' }>,
  ): Promise<void> {
    const target = new Uint8Array(bytes)
    let read: Uint8Array | undefined = target
    try {
      await this.#options.store.copyBlob(digest, offset, [target])
    } catch {
      read = undefined // Rotten or gone: it has to do without.
    }
    worker.postMessage({ type: 'held', number, bytes: read } satisfies FetchOrder)
  }

  // -------------------------------------------------------------------------------------------------
  // What people are told

  #note(progress: FetchProgress): void {
    const module = moduleOf(this.id)
    switch (progress.type) {
      case 'locating':
        this.#source = progress.source
        if (!this.#askedAt.has(progress.source)) this.#askedAt.set(progress.source, this.#now())
        this.#step = 'locating'
        this.#phase = `asking ${progress.source} for it`
        break
      case 'resting':
        this.#options.noteRest(progress.origin, progress.ms)
        break
      case 'passed over': {
        const { source, error } = progress
        this.#options.log.warn({ build: this.id, source, ...forLog(error) }, 'source passed over')
        break
      }
      case 'found': {
        this.#source = progress.source
        this.#url = progress.url
        this.#total = progress.totalBytes
        this.#step = 'downloading'
        this.#phase = DOWNLOADING
        const size = progress.totalBytes === undefined ? 'of unknown size' : formatSize(progress.totalBytes)
        this.#tellAll(`${module}: found ${progress.url} (${size})`)
        break
      }
      case 'lacking':
        this.#total = progress.bytes
        this.#tellAll(`${module}: ${formatSize(progress.bytes)} of it are not here yet`)
        break
      case 'moved':
        this.#received = progress.received
        this.#unpacked = progress.unpacked
        this.#rate.add(progress.received)
        break
      case 'finishing':
        this.#step = 'checking'
        this.#phase = 'downloaded, checking it'
        break
      case 'event':
        this.#noteEvent(progress.event)
        break
    }
  }

  #noteEvent(event: SourceEvent): void {
    const level = event.type === 'said' ? 'debug' : 'info'
    this.#options.log[level]({ build: this.id, source: this.#source, ...event }, 'source event')
    const module = moduleOf(this.id)
    if (event.type === 'mirror') {
      this.#url = event.url
      this.#tellAll(`${module}: ${event.reason}; going on with ${event.url}`)
    } else if (event.type === 'said') {
      // What the parent would tell a device, it tells us.
      this.#phase = `${this.#source} says: ${event.line.replace(/^build-\S+ /, '').replace(/ ?\.\.\.$/, '')}`
    } else if (event.type === 'retry') {
      const { attempt, of, waitMs, reason } = event
      this.#tellAll(`${module}: ${reason}; trying again in ${formatDuration(waitMs)} (${attempt} of ${of})`)
    } else if (event.type === 'resumed') {
      this.#resumed = true
      this.#tellAll(`${module}: going on at ${formatSize(event.at)}`)
    }
  }

  #describe(): string {
    const module = moduleOf(this.id)
    const other = this.#room?.waitsFor
    if (other) return `${module}: waiting for room until ${moduleOf(other)} is fetched ...`
    if (this.#phase !== DOWNLOADING) return `${module}: ${this.#phase} ...`
    if (this.#received === this.#total) {
      return `${module}: downloaded, still unpacking: ${formatSize(this.#unpacked)} so far`
    }
    const parts = [
      this.#total
        ? `${Math.floor((100 * this.#received) / this.#total)} % (${formatSize(this.#received)} of ${formatSize(this.#total)})`
        : formatSize(this.#received),
    ]
    const rate = this.#rate.perSecond()
    if (rate > 0) {
      parts.push(`${formatSize(rate)}/s`)
      if (this.#msLeft !== undefined) parts.push(`${formatDuration(this.#msLeft)} left`)
    }
    return `${module}: ${this.#phase}: ${parts.join(', ')}`
  }

  #tellAll(line: string): void {
    for (const say of this.#listeners) say(line)
  }
}

/** What the log says of a failure: more than a device hears. */
function forLog({ code, message, hint, detail }: ErrorReport) {
  return { code, reason: message, hint, detail }
}

function serverIsStopping(): CommandError {
  return new CommandError('the server is stopping', {
    hint: 'Try again in a minute: a download goes on from where it was.',
  })
}

const DOWNLOADING = 'downloading and unpacking'

/** How many held builds a parent server is told of. */
const MAX_ALIKE = 16

/** How much the names of two builds have in common: versions of one thing differ at the end. */
function kinship(a: string, b: string): number {
  let common = 0
  while (common < a.length && a[common] === b[common]) common++
  return common
}

const FILE_SCHEME = 'file:'
/** Of the URL of a file that another server has exported a build to. */
const EXPORT_SCHEME = 'bundle:'

/** A path is a URL whose template has nothing to fill in. */
function importSource(url: string): SourceConfig {
  return { name: IMPORT_SOURCE, builds: '^.+$', url, checksum: undefined, contents: undefined }
}

/** Only what is on a stick has a shape of its own. */
function importedFrom({ name, tree, url }: SourceConfig): Pick<BuildInfo, 'importedFrom'> {
  if (name !== IMPORT_SOURCE) return {}
  return { importedFrom: tree ? 'stick' : url.startsWith(EXPORT_SCHEME) ? 'export' : 'file' }
}

/** What a build was imported from. @throws CommandError, SourceError when its stick is not there any more. */
async function sourceAgain(id: string, info: BuildInfo): Promise<SourceConfig> {
  const { url, importedFrom, exportedTo, archiveSha256 } = info
  if (exportedTo !== undefined) return importSource(exportedTo.replace(FILE_SCHEME, EXPORT_SCHEME))
  // Of an export older versions did not note that it was one, and of all else they did its digest. Its `url` is where the
  // other server has the build from.
  const isExport = importedFrom === 'export' || archiveSha256 === null
  if (isExport || !url.startsWith(FILE_SCHEME))
    throw new SourceError('what it was imported from cannot be read again', {
      hint: `Import it again: upserv import FILE --as ${id}`,
    })
  // By older versions, hardly anybody took an archive from a stick but as such.
  const isStick = importedFrom === undefined ? isOnStick(url) : importedFrom === 'stick'
  return isStick ? await sourceOnStick(id, url) : importSource(url)
}

/** Codes of errors that bad bytes from an earlier process could be behind. */
const SPOILED = new Set(['ARCHIVE_BAD', 'SOURCE_DIGEST_MISMATCH', 'SOURCE_SIGNATURE_BAD'])

/** Bytes per second over the last few seconds. */
class RateMeter {
  readonly #now: () => number
  readonly #samples: { at: number; bytes: number }[] = []

  constructor(now: () => number) {
    this.#now = now
  }

  add(bytes: number): void {
    const at = this.#now()
    this.#samples.push({ at, bytes })
    while (this.#samples.length > 2 && at - this.#samples[1]!.at > RATE_WINDOW_MS) this.#samples.shift()
  }

  perSecond(): number {
    const first = this.#samples[0]
    const last = this.#samples.at(-1)
    if (!first || !last || last.at <= first.at) return 0
    return Math.max(0, ((last.bytes - first.bytes) * 1000) / (this.#now() - first.at))
  }
}
