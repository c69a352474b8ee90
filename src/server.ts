/**
 * START HERE: makes each object once, wires them, starts and stops them in order.
 *
 *     device -> doors -> session -> resolver -> store                    the build is held
 *                                   resolver -> fetches -> store         it isn't: one fetch, all wait
 *
 * `Upserv` is the program without its doors: commands use it as it is when no server runs. `serve` puts the
 * doors in front of it, and opens them first: a client that comes while the store is being opened is greeted,
 * and waits for its module.
 */
import { closeSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { Attempts } from './access/attempts.ts'
import { FetchAllowance } from './access/fetch-allowance.ts'
import { HostRules } from './access/hosts.ts'
import { Policy } from './access/policy.ts'
import { Activity } from './build/activity.ts'
import { audited, BY_COMMAND } from './build/audited.ts'
import { Available, supplierOf } from './build/available.ts'
import { Catalog } from './build/catalog.ts'
import { Channels } from './build/channels.ts'
import { BuildEvictor } from './build/evictor.ts'
import { Fetches } from './build/fetch.ts'
import { laterOperations } from './build/later-operations.ts'
import { MovingModules } from './build/moving-modules.ts'
import { OpeningModules } from './build/opening-modules.ts'
import type { Operations, SessionStatus, Status } from './build/operations.ts'
import { Operator } from './build/operator.ts'
import { Parent } from './build/parent.ts'
import { Resolver } from './build/resolver.ts'
import { Spare } from './build/spare.ts'
import { Verifier } from './build/verifier.ts'
import { Warmer } from './build/warmer.ts'
import { Cache } from './cache/cache.ts'
import type { Config, Listen } from './config/config.ts'
import { restartKeys } from './config/reload.ts'
import {
  type ControlDoor,
  connectControl,
  type HandoverReport,
  listenControl,
  requestRsync,
} from './daemon/control.ts'
import { Doors } from './daemon/doors.ts'
import { StreamDuplex } from './daemon/duplex.ts'
import {
  type DoorKind,
  type Doorways,
  doorwaysOf,
  type InheritedSocket,
  type Legacy,
  openDoors,
  type Predecessor,
  Successor,
} from './daemon/handover.ts'
import type { HandedSocket } from './daemon/systemd.ts'
import { TurnsInLine } from './daemon/turns.ts'
import { Doorsteps, type DoorstepsConfig } from './doorstep/doorsteps.ts'
import {
  CommandError,
  ConfigError,
  type RelayedConnection,
  reportError,
  type UpservError,
  type Visit,
} from './errors.ts'
import type { ChangeRecord } from './history/change-record.ts'
import { History } from './history/history.ts'
import { MovingRecorder, type Recorder } from './history/recorder.ts'
import type { SessionRecord } from './history/session-record.ts'
import { parentDoor } from './http/parent.ts'
import type { Http } from './http/server.ts'
import { makeTokenFile } from './http/token.ts'
import { Bandwidth } from './lib/bandwidth.ts'
import { BlockPool } from './lib/block-pool.ts'
import { realDisk } from './lib/disk.ts'
import type { Finding } from './lib/finding.ts'
import type { Logger } from './lib/log.ts'
import { networkOf, type Prefixes, sourceOf, USUAL_PREFIXES, whereOf } from './lib/peer.ts'
import { Throttle } from './lib/throttle.ts'
import { Answers } from './rsync/answers.ts'
import { Derived } from './rsync/derived.ts'
import { Lists } from './rsync/lists.ts'
import { Refiner } from './rsync/refiner.ts'
import type { Kitchen } from './rsync/warm.ts'
import { Budget } from './store/budget.ts'
import { type Claim, claimStore } from './store/claim.ts'
import { diskUsage } from './store/disk-usage.ts'
import { Store } from './store/store.ts'
import { VERSION } from './version.ts'

/** From then on the log warns of a certificate: whoever renews them does it earlier. */
const EXPIRES_SOON_MS = 14 * 86_400_000
/** What was read from packs and derived data, in memory that all clients share. */
const POOL_MEMORY = 24 * 2 ** 20
/** How often it is noted what live sessions have sent. */
const SAMPLE_EVERY_MS = 5000
/** Clients are not let in before it is known which number the first one gets, but no longer than this. */
const HISTORY_MS = 2000
/** A process that has handed over tells so many of its sessions to its successor, this often. */
const MAX_TOLD = 100
const TELL_EVERY_MS = 1000
/** How often an idle server looks whether it may end, as a share of the time it waits. */
const IDLE_CHECKS = 4

/** Wrong tokens that cost nothing: nobody guesses one of them, and a program may have an old one. */
const TOKEN_GUESSES = { name: 30, source: 30, network: 100 }

/**
 * What verification and compaction may read and write a second: while sessions run, a fraction of what the
 * slowest disk that one would use for this gives; otherwise about all of it.
 */
const BACKGROUND_RATE = { busy: 16 * 2 ** 20, idle: 128 * 2 ** 20 }

/** The owner of a data directory, without doors. */
export class Upserv {
  readonly store: Store
  /** As commands ask for them: what they change is remembered. */
  readonly operations: Operations
  /** For who remembers by itself who asked. */
  readonly operator: Operations
  readonly resolver: Resolver
  readonly fetches: Fetches
  readonly #history: History
  readonly #recorder: MovingRecorder
  readonly #channels: Channels
  /** Set by `serve`: what only the server as a whole knows. */
  facts: {
    listening: string[]
    tlsListening: string[]
    httpUrls: string[]
    sessions: () => number
    inLine: () => number
  } = {
    listening: [],
    tlsListening: [],
    httpUrls: [],
    sessions: () => 0,
    inLine: () => 0,
  }
  readonly verifier: Verifier
  #warmer: Warmer | undefined
  readonly #catalog: Catalog
  /** What we are for servers that have us as their source. */
  readonly parent: Parent
  readonly #spare: Spare
  readonly #budget: Budget
  readonly #available: Available
  #config: Config
  readonly #began = performance.now()

  private constructor(store: Store, ground: Ground, config: Config, log: Logger) {
    const { channels, available, activity, history, recorder } = ground
    this.store = store
    this.#history = history
    this.#recorder = recorder
    this.#channels = channels
    this.#available = available
    this.#config = config
    const catalog = new Catalog(store)
    this.#catalog = catalog
    const evictor = new BuildEvictor(
      store,
      catalog,
      (id) => {
        log.info({ build: id }, 'build evicted')
        activity.buildEvicted()
      },
      (id) => {
        if (this.fetches.isRunning(id)) return 'it is being fetched again'
        return this.#config.evictChannels ? undefined : whyChannelsKeep(channels, id)
      },
    )
    const complain = (what: string) => (error: Error) => log.warn({ reason: error.message }, what)
    this.#spare = new Spare(
      store.disk,
      store.paths,
      (id) => this.fetches.isRunning(id),
      (what, bytes) => budget.charge(what, bytes),
    )
    const budget = new Budget({
      limit: config.budget,
      path: config.dataDir,
      stored: () => store.bytes + store.overheadBytes,
      evictor,
      dropSpare: (bytes) => this.#spare.drop(bytes),
    })
    this.#budget = budget
    history.onSize = (bytes) => budget.charge('history', bytes)
    this.fetches = new Fetches({
      store,
      catalog,
      budget,
      sources: config.sources,
      log,
      onChange: () => void this.#spare.refresh().catch(complain('counting what is spare failed')),
      onEnd: (end) => recorder.fetch(end),
    })
    this.verifier = new Verifier({ store, catalog, fetches: this.fetches, log })
    this.resolver = new Resolver({
      store,
      catalog,
      fetches: this.fetches,
      channels,
      available,
      verifier: this.verifier,
      onProblem: complain('an access could not be noted'),
    })
    this.parent = new Parent({ store, catalog, resolver: this.resolver, available, verifier: this.verifier })
    this.operator = new Operator({
      store,
      catalog,
      budget,
      evictor,
      fetches: this.fetches,
      available,
      spare: this.#spare,
      verifier: this.verifier,
      warmer: () => this.#warmer,
      channels,
      activity,
      history,
      facts: () => ({
        version: VERSION,
        listening: this.facts.listening,
        tlsListening: this.facts.tlsListening,
        httpUrls: this.facts.httpUrls,
        sessions: this.facts.sessions(),
        inLine: this.facts.inLine(),
        uptimeSeconds: Math.round((performance.now() - this.#began) / 1000),
      }),
    })
    this.operations = audited(this.operator, BY_COMMAND, rememberWith(recorder, log))
  }

  /** @throws StoreLocked when another process owns the directory; StoreFormat, ConfigError. */
  static async open(config: Config, log: Logger, laid?: Ground): Promise<Upserv> {
    const ground = laid ?? (await layGround(config, log))
    const { claim, pool } = ground
    let upserv: Upserv | undefined
    const background = new Throttle({
      rate: () => (upserv && upserv.facts.sessions() > 0 ? BACKGROUND_RATE.busy : BACKGROUND_RATE.idle),
    })
    const store = await Store.open(claim, { onProblem: reportDamage(log), background, pool })
    try {
      upserv = new Upserv(store, ground, config, log)
      await upserv.#spare.refresh()
      // What it is before its own thread has looked at it, or when that never does.
      upserv.#budget.charge('history', await diskUsage(store.disk, store.paths.history))
      return upserv
    } catch (error) {
      await store.close()
      throw error
    }
  }

  /**
   * Frees what a crash left behind, and what a budget that was lowered no longer allows. For a server: a
   * command that only looks must not change anything.
   */
  async tidy(): Promise<void> {
    await this.store.leftoversGone()
    await this.store.collect(0, { background: true })
    await this.#budget.enforce()
    await this.store.compact()
  }

  /**
   * From now on derived data is the cache's, which a server has: what only looks leaves it alone.
   * @param kitchen where it is worked out.
   */
  async attach(cache: Cache, kitchen: Kitchen): Promise<void> {
    await this.#spare.attach(cache)
    this.#warmer = new Warmer({
      store: this.store,
      catalog: this.#catalog,
      hold: (id) => this.resolver.hold(id),
      kitchen,
      cache,
      isBusy: () => this.facts.sessions() > 0,
    })
  }

  /** While there is still somewhere to work things out. */
  async stopWarming(): Promise<void> {
    await this.#warmer?.close()
  }

  /** The derived data takes so much. */
  chargeCache(bytes: number): void {
    this.#budget.charge('cache', bytes)
  }

  hasRoom(bytes: number): boolean {
    const { used, reserved, limit } = this.#budget
    return used + reserved + bytes <= limit
  }

  /**
   * Goes by another configuration from now on; `settle` does what follows from that.
   * @throws ConfigError for sources that can't be right, with nothing changed.
   */
  change(config: Config): void {
    this.#available.useSources(config.sources)
    this.fetches.useSources(config.sources)
    this.#config = config
    this.#channels.use(config.channels)
    this.#budget.limit = config.budget
  }

  /** What channels mean now is kept, and what the budget no longer allows goes. */
  async settle(): Promise<void> {
    await this.#channels.keep()
    await this.#budget.enforce()
  }

  /**
   * Writes nothing to the data directory any more, so that another process may; whoever reads goes on. When it throws,
   * all goes on as before.
   */
  async pause(): Promise<Paused> {
    using undo = new DisposableStack()
    undo.defer(() => this.fetches.reopen())
    // How they ended is remembered as well.
    const fetching = await this.fetches.close()
    undo.defer(() => this.verifier.reopen())
    await this.verifier.close()
    const decide = this.#recorder.hold()
    undo.defer(() => {
      this.#history.reopen()
      decide()
    })
    await this.#history.close()
    const goOn = await this.store.pause()
    undo.defer(goOn)
    undo.defer(() => this.resolver.letGo())
    this.resolver.holdAll()
    const held = this.#catalog.leased()
    undo.defer(await this.store.keepOpen(held))
    const paused = undo.move()
    return {
      held,
      fetching,
      takeBack: () => paused.dispose(),
      giveAway: (heir) => {
        decide(heir)
        const onFree = (id: string): void => heir.freed(id)
        this.#catalog.onFree = onFree
        // Those that were let go while nobody heard of it.
        for (const id of held) if (!this.#catalog.isLeased(id)) onFree(id)
        this.store.abandon()
        goOn()
      },
    }
  }

  /** Holds on to builds that sessions of the process before us have, until it lets go of them or ends, and remembers for it. */
  inherit({ held }: Legacy, predecessor: Predecessor): void {
    const leases = new Map(held.map((id) => [id, this.#catalog.lease(id)]))
    predecessor.listen((id) => leases.get(id)?.release(), this.#recorder)
    void predecessor.gone.then(() => {
      for (const lease of leases.values()) lease?.release()
    })
  }

  /**
   * Goes on with what the process before us was fetching: builds that were not held, and damaged ones. Those that
   * became whole while it stopped stay as they are.
   */
  fetchOn(ids: readonly string[]): void {
    for (const id of ids) {
      // What goes wrong is in the log.
      void this.fetches
        .repair(id, () => {}, new AbortController().signal)
        .then((lease) => lease.release())
        .catch(() => {})
    }
  }

  /** Fetches stop in a way that can be gone on from. */
  async close(): Promise<void> {
    await this.fetches.close()
    await this.verifier.close()
    await this.#history.close()
    await this.store.close()
  }
}

/** An owner that may give its data directory away, or take it back. */
interface Paused extends Pick<Legacy, 'held' | 'fetching'> {
  /** As if nothing had been. */
  takeBack(): void
  /** For good. @param heir is told of each build that nobody here holds on to any more, and of all that is to be remembered. */
  giveAway(heir: Recorder & { freed(id: string): void }): void
}

/** What a start begins with, and what takes no time: all that it can be refused for is among it. */
interface Ground {
  claim: Claim
  channels: Channels
  available: Available
  activity: Activity
  history: History
  /** What is to be remembered goes through this. */
  recorder: MovingRecorder
  pool: BlockPool
}

/** @throws ConfigError, StoreLocked, StoreFormat. */
async function layGround(config: Config, log: Logger, inherited?: number): Promise<Ground> {
  const available = new Available(config.sources)
  const claim = await claimStore(config.dataDir, { inherited })
  try {
    const channels = await Channels.open(config.channels, realDisk, claim.paths.channels, reportDamage(log))
    const history = new History({
      directory: claim.paths.history,
      keepMs: config.historyMs,
      onProblem: (problem) => log.warn({ reason: problem.message }, 'the history is not complete'),
    })
    const activity = new Activity()
    const recorder = new MovingRecorder(recorderOf(activity, history))
    return { claim, channels, available, activity, history, recorder, pool: new BlockPool(POOL_MEMORY) }
  } catch (error) {
    claim.lock.release()
    throw error
  }
}

function reportDamage(log: Logger): (problem: Error) => void {
  return (problem) => log.error({ reason: problem.message }, 'store damaged')
}

export interface RunningServer {
  /** There once the store is open. */
  readonly operations: Promise<Operations>
  /** Addresses of the rsync doors. */
  readonly listening: readonly string[]
  /** Addresses of those that speak rsync over TLS. */
  readonly tlsListening: readonly string[]
  readonly httpUrls: readonly string[]
  /** How long `stop` lets sessions go on. */
  readonly shutdownMs: number
  /** Resolves when the server has ended, by `stop` or because it was idle; rejects when the store can't be opened. */
  readonly ended: Promise<void>
  /**
   * Reads the configuration again and goes by it; sessions and fetches under way end as they began.
   * @returns keys whose new values need a restart. @throws ConfigError, with nothing changed.
   */
  reload(): Promise<readonly string[]>
  /** Resolves with the process that has taken over, once there is one. */
  readonly handedOver: Promise<number>
  /** Lets sessions finish, for a bounded time. Safe to call twice. */
  stop(): Promise<void>
}

export interface ServeOptions {
  /** Sockets that listen already, in place of the addresses in `rsync.listen` or `rsync.tls_listen`. */
  handed?: readonly HandedSocket[]
  /** Reads the configuration again. Without it there is only the one that it began with. */
  load?: () => Config
  /** The process that hands over to us: its sockets and its data directory become ours. */
  predecessor?: Predecessor | undefined
  /** The environment for a process that we hand over to. */
  environment?: () => NodeJS.ProcessEnv
  /** Looks at all that has to be right, as `upserv doctor` does. Needed where there is an API to ask for it. */
  examine?: (status: () => Promise<Status>) => Promise<readonly Finding[]>
}

/** Opens all doors, then the store. When it returns, clients can connect. */
export async function serve(
  config: Config,
  log: Logger,
  {
    handed = [],
    load = () => config,
    predecessor,
    environment = () => process.env,
    examine = async () => {
      throw new CommandError('this process does not look at itself', { hint: 'upserv doctor' })
    },
  }: ServeOptions = {},
): Promise<RunningServer> {
  useThreads()
  const legacy = await predecessor?.ready(VERSION)
  const doorsteps = new Doorsteps(doorstepsOf(config), {
    onProblem: (problem) => log.error({ reason: problem }, 'certificate not used'),
    onCertificate: (file, { certificate }) => {
      const { subject, subjectAltName: names, validToDate: expires } = certificate
      const level = expires.getTime() - Date.now() < EXPIRES_SOON_MS ? 'warn' : 'info'
      log[level]({ file, subject, names, expires }, 'certificate')
    },
  })
  const ground = await layGround(config, log, predecessor?.lock)
  const { claim, channels, available, activity, history, recorder, pool } = ground
  // Before any device hears of them. On a full disk they are served all the same, and count as new next time.
  await channels.keep().catch((error: Error) => {
    log.warn({ reason: error.message }, 'channels.json could not be written')
  })
  const now = () => performance.now()
  const began = now()
  let upserv: Upserv | undefined
  const opening = Upserv.open(config, log, ground)
  const cache = Cache.open({
    directory: claim.paths.cache,
    limit: config.cache,
    pool,
    after: opening,
    hasRoom: (bytes) => upserv?.hasRoom(bytes) ?? false,
    onChange: (bytes) => upserv?.chargeCache(bytes),
    onProblem: (error) => log.warn({ reason: error.message }, 'derived data could not be kept'),
  })
  const { checksumSeed } = claim.facts
  const derived = new Derived({ kept: cache, checksumSeed })
  const refiner = new Refiner(
    (problem) => log.warn({ reason: problem.message }, 'compressing again failed'),
    () => doors.sessions > 0,
  )
  const answers = new Answers({ derived, kept: cache, onQuick: (job) => refiner.add(job) })
  refiner.serve(answers)
  const lists = new Lists(derived, cache)
  const attached = opening.then(async (open) => {
    upserv = open
    // Once, before what it takes is counted: a server that ends by kill -9 would never get to it.
    flushCompileCache()
    const best: Kitchen['best'] = {
      squeeze: (codec) => refiner.best(codec),
      frame: () => refiner.bestFrame(),
    }
    await open.attach(cache, { derived, answers, lists, best, checksumSeed })
    return open
  })
  /**
   * Resolves when the data directory is ours for good. Until we serve, the process before us may take it back, and
   * counts on finding it as it left it: whoever could change anything waits for this.
   */
  const { promise: ours, resolve: setOurs, reject: setNotOurs } = Promise.withResolvers<void>()
  if (!predecessor) setOurs()
  const opened = Promise.all([attached, ours]).then(([open]) => open)
  // Whoever waits for it hears when it fails, and so does who waits for our end.
  const operations = quietly(opened.then((open) => open.operations))
  const operator = quietly(opened.then((open) => open.operator))
  const remember = rememberWith(recorder, log)
  const modules = new MovingModules(
    new OpeningModules(channels, quietly(opened.then(({ resolver }) => resolver))),
  )
  let busySince = now()
  const bandwidth = new Bandwidth(config.limits.rates)
  const [fetchAllowance, attempts] = [new FetchAllowance(config.fetchLimits), new Attempts()]
  const guesses = new Attempts({ free: TOKEN_GUESSES })
  const makePolicy = ({ access, sources }: Config) =>
    new Policy(access, (problem) => log.error({ reason: problem }, 'secrets not used'), {
      supplies: supplierOf(sources),
      fetches: fetchAllowance,
      attempts,
    })
  let policy = makePolicy(config)
  /** The process that has taken our place. */
  let successor: Successor | undefined
  const { promise: handedOver, resolve: setHandedOver } = Promise.withResolvers<number>()
  const turns = new TurnsInLine({ ...turnsOf(config), now })
  const doors = new Doors(
    {
      modules,
      visitor: (client) => policy.visitor(client),
      turns,
      derived,
      answers,
      lists,
      ...mannersOf(config),
      checksumSeed,
      now,
    },
    doorLimitsOf(config),
    log,
    {
      first: Math.max(legacy?.firstSession ?? 0, (await lastSession(history)) + 1),
      bandwidth,
      onChange: () => {
        busySince = now()
      },
      onEnd: (record) => recorder.session(record),
    },
  )
  const othersClients = (): readonly SessionStatus[] => predecessor?.live ?? []
  activity.clients = {
    live: (most, before = Number.POSITIVE_INFINITY) =>
      [...doors.live(most, before), ...othersClients().filter(({ id }) => id < before)].slice(0, most),
    isLive: (id) => doors.isLive(id) || othersClients().some((session) => session.id === id),
    sent: () => doors.sent(),
  }
  const sampling = setInterval(() => activity.sample(), SAMPLE_EVERY_MS)
  /** As of the last reload. */
  let current = config
  /** Commands, and requests of child servers. */
  let commands = 0
  const onRequest = (running: Promise<unknown>): void => {
    commands++
    running
      .catch(() => {})
      .finally(() => {
        commands--
        busySince = now()
      })
  }
  const stopChildren = new AbortController()
  const children = parentDoor({
    parent: quietly(opened.then(({ parent }) => parent)),
    visitor: (client) => policy.visitor(client),
    source: (client) => sourceOf(client, prefixesOf(current)),
    pace: (client) => bandwidth.join(whereOf(client, prefixesOf(current))),
    signal: stopChildren.signal,
    onRequest,
    log: (fields, message) => log.info(fields, message),
  })
  /** From the process before us. */
  let hasTakenOver = false
  /** All doors are open, and what is behind them is ours. */
  let isServing = false
  let stopping: Promise<void> | undefined
  const closers: (() => void)[] = [() => clearInterval(sampling)]
  /** For connections that nobody uses: they would keep the process from ending. */
  const lastClosers: (() => void)[] = []
  /** Of what the process before us opened for a kind of client: what we take, and what we open besides. */
  const doorways = (kind: InheritedSocket['kind'], named: readonly Listen[]): Doorways => {
    const inherited = predecessor?.sockets.filter((socket) => socket.kind === kind) ?? []
    return doorwaysOf(inherited, named)
  }
  /** Sockets of the process before us that the configuration does not name any more. */
  const unwanted: InheritedSocket[] = []
  const kinds: DoorKind[] = []
  const httpUrls: string[] = []
  const listening: string[] = []
  const tlsListening: string[] = []
  const { promise: ended, resolve: setEnded } = Promise.withResolvers<void>()
  quietly(ended)

  const stop = (): Promise<void> => {
    stopping ??= (async () => {
      await handing?.catch(() => {})
      // Before we serve it goes on without us.
      const before = hasTakenOver ? predecessor : undefined
      before?.stop()
      for (const close of closers) close()
      stopChildren.abort(new CommandError('the server is stopping'))
      const goodbye = doors.close(current.shutdownMs)
      // Once it is so: who reads this may count on it that nobody is let in any more.
      log.info({ sessions: doors.sessions }, 'stopping')
      // A store can't be closed before it is open.
      const open = await opening.catch(() => undefined)
      // Who waits for a fetch is told to come back, rather than kept for a build that won't be complete.
      await open?.fetches.close()
      await open?.stopWarming()
      await goodbye
      await refiner.close()
      await derived.close()
      await cache.close()
      await history.close()
      await open?.close()
      for (const close of lastClosers) close()
      // While it lasts, systemd must not take the service for ended.
      if (before) await Promise.race([before.gone, sleep(current.shutdownMs, undefined, { ref: false })])
      log.info('stopped')
      setEnded(opened.then(() => {}))
    })()
    return stopping
  }

  let control: ControlDoor | undefined
  let http: Http | undefined
  const openControl = async (): Promise<ControlDoor> =>
    await listenControl(claim.paths.socket, {
      operations,
      rsync: (socket, peer, visit) => doors.admit(socket, socket, peer, { visit }),
      reload: async () => {
        const about = { ...BY_COMMAND, what: 'reload', target: '' }
        try {
          const left = await reload()
          remember({ ...about, result: 'done', code: '', reason: '' })
          return left
        } catch (error) {
          const { code, message } = reportError(error)
          remember({ ...about, result: 'failed', code, reason: message })
          throw error
        }
      },
      handOver: async (prepare) => {
        try {
          // Of one that succeeds the new process tells: by then the history is its own.
          return await handOver(prepare)
        } catch (error) {
          const { code, message } = reportError(error)
          const about = { ...BY_COMMAND, what: 'handOver', target: prepare ? 'prepare' : '' }
          remember({ ...about, result: 'failed', code, reason: message })
          throw error
        }
      },
      onRequest,
    })
  /** To the process that has taken our place. */
  const relay = async ({ peer, ...visit }: Visit): Promise<RelayedConnection> => {
    const socket = await connectControl(claim.paths.socket)
    if (!socket) throw new CommandError('the server is being replaced', { hint: 'Ask again in a minute.' })
    requestRsync(socket, peer, visit)
    return new StreamDuplex(socket, socket)
  }
  const socketsThatListen = (): InheritedSocket[] => {
    const all = [
      ...doors.listening.map(({ tls, ...socket }) => ({
        kind: tls ? ('rsync-tls' as const) : ('rsync' as const),
        ...socket,
      })),
      ...(http?.listening ?? []).map(({ tls, ...socket }) => ({
        kind: tls ? ('https' as const) : ('http' as const),
        ...socket,
      })),
    ]
    return all.map(({ fd, ...socket }) => {
      if (fd !== undefined) return { ...socket, fd }
      throw new CommandError('this runtime does not tell which descriptors listen', {
        hint: 'Restart the server instead.',
      })
    })
  }
  const giveAway = async (): Promise<HandoverReport> => {
    const open = await opened
    await reloading.catch(() => {})
    log.info({ sessions: doors.sessions }, 'handing over')
    const next = await Successor.start({
      sockets: socketsThatListen(),
      lock: claim.lock.fd,
      environment: environment(),
      onStop: () => void stop(),
    })
    const decide = modules.hold()
    let paused: Paused | undefined
    try {
      control?.close()
      await cache.pause()
      paused = await open.pause()
      const { held, fetching } = paused
      const { pid } = process
      await next.takeOver({ firstSession: doors.next, held, fetching, pid, version: VERSION })
    } catch (error) {
      await next.end()
      paused?.takeBack()
      cache.resume()
      decide()
      control = await openControl()
      throw error
    }
    successor = next
    paused.giveAway(next)
    decide(relay)
    for (const close of closers) close()
    stopChildren.abort(new CommandError('the server hands over to another process: ask again'))
    const sessions = doors.sessions
    log.info({ pid: next.pid, version: next.version, sessions }, 'handed over')
    setHandedOver(next.pid)
    void finish(next)
    return { pid: next.pid, version: next.version, sessions }
  }
  /** Ends when the last of our clients has; what they do the successor tells people. */
  const finish = async (next: Successor): Promise<void> => {
    const telling = setInterval(() => next.live(doors.live(MAX_TOLD)), TELL_EVERY_MS)
    const patience = current.handoverMs
    await Promise.all([
      doors.leave(patience),
      http && Promise.race([http.finished(), sleep(patience, undefined, { ref: false })]),
    ])
    clearInterval(telling)
    await stop()
    next.close()
  }
  let handing: Promise<HandoverReport> | undefined
  const handOver = async (prepare: boolean): Promise<HandoverReport> => {
    if (stopping) throw new CommandError('the server is stopping')
    if (successor) throw new CommandError(`process ${successor.pid} has taken over already`)
    await Promise.all([derived.settle(), available.settle()])
    if (prepare) return { pid: process.pid, version: VERSION, sessions: doors.sessions }
    handing ??= giveAway()
      .catch((error: Error) => {
        log.error({ reason: error.message }, 'not handed over: we go on')
        throw error
      })
      .finally(() => {
        handing = undefined
      })
    return handing
  }

  const readAgain = async (): Promise<readonly string[]> => {
    const next = load()
    const nextPolicy = makePolicy(next)
    const changeDoorsteps = doorsteps.prepare(doorstepsOf(next))
    // What is still being opened goes by the configuration before.
    const open = await opened
    open.change(next)
    cache.limit = next.cache
    policy = nextPolicy
    changeDoorsteps()
    bandwidth.change(next.limits.rates)
    fetchAllowance.change(next.fetchLimits)
    turns.change(turnsOf(next))
    doors.change(mannersOf(next), doorLimitsOf(next))
    const left = restartKeys(config, next)
    current = next
    log.info({ sources: next.sources.map(({ name }) => name) }, 'configuration read again')
    if (left.length > 0) log.warn({ keys: left }, 'what these keys say holds after a restart')
    await open.settle().catch((error: Error) => {
      log.warn({ reason: error.message }, 'the new configuration holds, but the disk did not follow')
    })
    return left
  }
  /** One after the other: each begins with what the one before it left. */
  let reloading: Promise<unknown> = Promise.resolve()
  const reload = (): Promise<readonly string[]> => {
    const reloaded = reloading.then(readAgain)
    reloading = reloaded.catch((error: Error) => {
      const { code } = error as Partial<UpservError>
      log.error({ code, reason: error.message }, 'configuration not used: the old one holds')
    })
    return reloaded
  }

  try {
    if (predecessor) {
      // There is no way back for it once we serve: what can fail comes before.
      const open = await attached
      open.inherit(legacy!, predecessor)
    }
    control = await openControl()
    closers.push(() => control?.close())
    lastClosers.push(() => control?.hangUp())
    if (config.http.listen.length + config.http.tlsListen.length > 0) {
      if (config.http.tokenFile === undefined) makeTokenFile(claim.paths.token)
      // With all that it brings along it is a third of the program: not where nobody wants it, as under xinetd.
      const { Http: Site } = await import('./http/server.ts')
      const site = await Site.create({
        operations: laterOperations(operator),
        reload: () => reload(),
        examine: () => examine(async () => (await operator).status()),
        onChangeBy: remember,
        bandwidth,
        limits: () => ({ perSource: current.limits.httpPerSource, prefixes: prefixesOf(current) }),
        judgeGuess: (client, isGood) => {
          const [source, network] = [sourceOf, networkOf].map((of) => of(client, prefixesOf(current)))
          return guesses.judge({ source: source!, network: network! }, 'token', isGood)
        },
        activity,
        modules,
        visitor: (client) => policy.visitor(client),
        tokenFile: config.http.tokenFile ?? claim.paths.token,
        children,
        names: config.http.names,
        idleMs: () => current.rsync.idleTimeoutMs,
        log,
        isServing: () => isServing,
        isStopping: () => stopping !== undefined,
        onChange: () => {
          busySince = now()
        },
      })
      http = site
      closers.push(() => site.close())
      lastClosers.push(() => site.hangUp())
      const ways = [
        { kind: 'http', doorstep: doorsteps.http, addresses: config.http.listen },
        { kind: 'https', doorstep: doorsteps.https, addresses: config.http.tlsListen },
      ] as const
      for (const { kind, doorstep, addresses } of ways) {
        const { close, ...others } = doorways(kind, addresses)
        kinds.push({
          doorways: others,
          open: async (address) => httpUrls.push(await site.listen(address, doorstep)),
          take: async ({ fd, address }) => httpUrls.push(await site.listenOn(fd, doorstep, address)),
        })
        unwanted.push(...close)
      }
    } else {
      for (const kind of ['http', 'https'] as const) unwanted.push(...doorways(kind, []).close)
    }
    const ofSystemd = [
      ...handed.filter(({ tls }) => tls),
      ...doorways('rsync-tls', []).take, // which it handed to the process before us
    ]
    if (ofSystemd.length > 0 && !doorsteps.rsyncTls.speaksTls) {
      throw new ConfigError('systemd hands over a socket for TLS, and there is no certificate to show', {
        hint: 'Set tls.cert and tls.key; or: systemctl disable --now upserv-tls.socket, systemctl restart upserv',
      })
    }
    const ways = [
      { tls: false, doorstep: doorsteps.rsync, addresses: config.rsync.listen, into: listening },
      { tls: true, doorstep: doorsteps.rsyncTls, addresses: config.rsync.tlsListen, into: tlsListening },
    ]
    for (const { tls, doorstep, addresses, into } of ways) {
      const kind = tls ? 'rsync-tls' : 'rsync'
      const given = handed.filter((socket) => socket.tls === tls).map(({ fd }) => ({ kind, fd }) as const)
      const { take, open, close } = doorways(kind, given.length > 0 ? [] : addresses)
      kinds.push({
        doorways: { open, take: [...given, ...take] },
        open: async (address) => into.push(await doors.listen(address, doorstep)),
        take: async ({ fd, address }) => into.push(await doors.listenOn(fd, doorstep, address)),
      })
      unwanted.push(...close)
    }
    await openDoors(kinds, predecessor?.sockets ?? [])
    for (const { kind, fd, address } of unwanted) {
      closeSync(fd)
      log.warn({ kind, address }, 'not listening there any more: the configuration does not name it')
    }
    if (predecessor) {
      hasTakenOver = true
      predecessor.serving()
      setOurs()
      const { pid, version, fetching } = legacy!
      ;(await opened).fetchOn(fetching)
      const target = `pid=${process.pid} version=${VERSION} before=${pid} ${version}`
      remember({ ...BY_COMMAND, what: 'handOver', target, result: 'done', code: '', reason: '' })
    }
  } catch (error) {
    const hint = 'Ask again: the process before it goes on.'
    setNotOurs(new CommandError('the new process could not take over', { hint }))
    await stop()
    throw error
  }
  void opened.then(
    async (open) => {
      const sessions = (): number => doors.sessions + othersClients().length
      open.facts = {
        ...{ listening, tlsListening, httpUrls },
        ...{ sessions, inLine: () => turns.waiting },
      }
      isServing = true
      log.info({ builds: open.store.ids().length, ms: Math.round(now() - began) }, 'store open')
      // Nobody waits for this; it ends with the store when we are stopped.
      await open.tidy().catch((error: Error) => {
        if (!stopping) log.warn({ reason: error.message }, 'cleaning up failed')
      })
      // What the start has left behind would stay for as long as little goes on. It takes a moment (28 ms), in which
      // nobody should be waiting.
      if (!stopping && sessions() === 0)
        globalThis.gc?.({ execution: 'sync', flavor: 'last-resort', type: 'major' })
    },
    () => void stop(),
  )

  if (config.exitWhenIdleMs > 0) {
    const timer = setInterval(() => {
      const busy = !upserv || doors.sessions > 0 || commands > 0 || upserv.fetches.status().length > 0
      if (busy) busySince = now()
      else if (now() - busySince > config.exitWhenIdleMs) void stop()
    }, config.exitWhenIdleMs / IDLE_CHECKS)
    closers.push(() => clearInterval(timer))
  }
  return {
    operations,
    listening,
    tlsListening,
    httpUrls,
    get shutdownMs() {
      return current.shutdownMs
    },
    ended,
    reload,
    handedOver,
    stop,
  }
}

/** For a promise that is not always waited for: that it fails is no fault of ours then. */
function quietly<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}

/** The number of the last session that is remembered. @returns the time, which is later than any, when nobody knows. */
async function lastSession(history: History): Promise<number> {
  const byTheClock = Math.floor(Date.now() / 1000)
  const patience = new Promise<number>((resolve) => setTimeout(resolve, HISTORY_MS, byTheClock).unref())
  return await Promise.race([history.lastId().catch(() => byTheClock), patience])
}

/** What is told to whoever watches, and kept for a while. */
function recorderOf(activity: Activity, history: History): Recorder {
  return {
    session: (record) => {
      const remember = isWorthRemembering(record)
      activity.sessionEnded(record, remember)
      if (remember) history.add(record)
    },
    fetch: (end) => {
      activity.fetchEnded(end)
      history.addFetch(end)
    },
    change: (change) => history.note(change),
  }
}

/** Listings, scans of ports and polls of channels come by the thousand and say nothing of any device's builds. */
function isWorthRemembering({ module }: SessionRecord): boolean {
  return module !== '' && module !== 'channels' && module !== 'available'
}

// What each part takes of a configuration, at the start and whenever it is read again.

function turnsOf({ rsync }: Config) {
  return { most: rsync.maxConnections, places: rsync.waitingLine }
}

function mannersOf({ rsync }: Config) {
  const limits = { handshakeMs: rsync.handshakeTimeoutMs, idleMs: rsync.idleTimeoutMs }
  return { motd: rsync.motd, charset: rsync.charset, authDigestMin: rsync.authDigestMin, limits }
}

function doorstepsOf({ rsync, http, tls, proxyProtocolFrom }: Config): DoorstepsConfig {
  const proxies = new HostRules({ allow: proxyProtocolFrom, deny: [] })
  return {
    rsyncFiles: tls.files,
    httpFiles: http.tlsFiles ?? tls.files,
    clientCerts: { rsync: rsync.clientCerts, http: http.clientCerts },
    devices: tls.devices,
    isProxy: (address) => proxyProtocolFrom.length > 0 && proxies.admits(address),
  }
}

function doorLimitsOf({ rsync, limits, access }: Config) {
  return {
    perNetwork: limits.perNetwork,
    handshakesPerSource: limits.handshakesPerSource,
    handshakesPerNetwork: limits.handshakesPerNetwork,
    prefixes: access.limits?.prefixes ?? USUAL_PREFIXES,
    handshakes: rsync.maxHandshakes,
    perSource: rsync.maxPerSource,
    inside: rsync.maxConnections + rsync.waitingLine,
  }
}

function prefixesOf({ access }: Config): Prefixes {
  return access.limits?.prefixes ?? USUAL_PREFIXES
}

/** Who changed what, from where, and what came of it: in the log, and for a while in the history. */
function rememberWith(recorder: Recorder, log: Logger): (change: Omit<ChangeRecord, 'id' | 'at'>) => void {
  return (change) => {
    log.info({ audit: change }, 'change')
    recorder.change({ at: new Date().toISOString(), ...change })
  }
}

/** A build that a channel names is what devices are about to ask for. */
function whyChannelsKeep(channels: Channels, id: string): string | undefined {
  const channel = channels.all().find((one) => one.id === id)
  return channel && `channel "${channel.name}" names it`
}

/** File reads and compression of many clients share libuv's pool: as many threads as there are cores, and a few that wait for disks. */
function useThreads(): void {
  process.env.UV_THREADPOOL_SIZE ??= String(availableParallelism() + 4)
}
