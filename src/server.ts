/**
 * START HERE: makes each object once, wires them, starts and stops them in order.
 *
 *     device -> doors -> session -> resolver -> store                    the build is held
 *                                   resolver -> fetches -> store         it isn't: one fetch, all wait
 *
 * `Upserv` is the program without its doors: commands use it as it is when no server runs. `serve` opens
 * the doors on top of it.
 */
import { availableParallelism } from 'node:os'
import { Policy } from './access/policy.ts'
import { Available } from './build/available.ts'
import { Catalog } from './build/catalog.ts'
import { Channels } from './build/channels.ts'
import { BuildEvictor } from './build/evictor.ts'
import { Fetches } from './build/fetch.ts'
import type { Operations } from './build/operations.ts'
import { Operator } from './build/operator.ts'
import { Resolver } from './build/resolver.ts'
import { Spare } from './build/spare.ts'
import { Verifier } from './build/verifier.ts'
import { Cache } from './cache/cache.ts'
import type { Config } from './config/config.ts'
import { restartKeys } from './config/reload.ts'
import { listenControl } from './daemon/control.ts'
import { Doors } from './daemon/doors.ts'
import { TurnsInLine } from './daemon/turns.ts'
import type { UpservError } from './errors.ts'
import { listenHttp } from './http/server.ts'
import { BlockPool } from './lib/block-pool.ts'
import type { Logger } from './lib/log.ts'
import { Throttle } from './lib/throttle.ts'
import { Answers } from './rsync/answers.ts'
import { Derived } from './rsync/derived.ts'
import { Lists } from './rsync/lists.ts'
import { Refiner } from './rsync/refiner.ts'
import { Budget } from './store/budget.ts'
import { Store } from './store/store.ts'
import { VERSION } from './version.ts'

/** What was read from packs and derived data, in memory that all clients share. */
const POOL_MEMORY = 24 * 2 ** 20
/** How often an idle server looks whether it may end, as a share of the time it waits. */
const IDLE_CHECKS = 4

/**
 * What verification and compaction may read and write a second: while sessions run, a fraction of what the
 * slowest disk that one would use for this gives; otherwise about all of it.
 */
const BACKGROUND_RATE = { busy: 16 * 2 ** 20, idle: 128 * 2 ** 20 }

/** The owner of a data directory, without doors. */
export class Upserv {
  readonly store: Store
  readonly operations: Operations
  readonly resolver: Resolver
  readonly fetches: Fetches
  readonly channels: Channels
  /** Set by `serve`: what only the server as a whole knows. */
  facts: { listening: string[]; sessions: () => number; inLine: () => number } = {
    listening: [],
    sessions: () => 0,
    inLine: () => 0,
  }
  readonly verifier: Verifier
  readonly #spare: Spare
  readonly #pool: BlockPool
  #cache: Cache | undefined
  readonly #budget: Budget
  readonly #available: Available
  #config: Config
  readonly #began = performance.now()

  private constructor(store: Store, pool: BlockPool, channels: Channels, config: Config, log: Logger) {
    this.store = store
    this.#pool = pool
    this.channels = channels
    this.#config = config
    const catalog = new Catalog(store)
    const evictor = new BuildEvictor(
      store,
      catalog,
      (id) => log.info({ build: id }, 'build evicted'),
      (id) => (this.#config.evictChannels ? undefined : whyChannelsKeep(channels, id)),
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
    this.fetches = new Fetches({
      store,
      catalog,
      budget,
      sources: config.sources,
      log,
      onChange: () => void this.#spare.refresh().catch(complain('counting what is spare failed')),
    })
    this.verifier = new Verifier({ store, catalog, fetches: this.fetches, log })
    const available = new Available(config.sources)
    this.#available = available
    this.resolver = new Resolver({
      store,
      catalog,
      fetches: this.fetches,
      channels,
      available,
      verifier: this.verifier,
      onProblem: complain('an access could not be noted'),
    })
    this.operations = new Operator({
      store,
      catalog,
      budget,
      evictor,
      fetches: this.fetches,
      available,
      spare: this.#spare,
      verifier: this.verifier,
      facts: () => ({
        version: VERSION,
        listening: this.facts.listening,
        sessions: this.facts.sessions(),
        inLine: this.facts.inLine(),
        uptimeSeconds: Math.round((performance.now() - this.#began) / 1000),
      }),
    })
  }

  /** @throws StoreLocked when another process owns the directory; StoreFormat, ConfigError. */
  static async open(config: Config, log: Logger): Promise<Upserv> {
    const onProblem = (problem: Error): void => log.error({ reason: problem.message }, 'store damaged')
    const pool = new BlockPool(POOL_MEMORY)
    let upserv: Upserv | undefined
    const background = new Throttle({
      rate: () => (upserv && upserv.facts.sessions() > 0 ? BACKGROUND_RATE.busy : BACKGROUND_RATE.idle),
    })
    const store = await Store.open(config.dataDir, { onProblem, background, pool })
    try {
      const channels = await Channels.open(config.channels, store.disk, store.paths.channels, onProblem)
      upserv = new Upserv(store, pool, channels, config, log)
      await upserv.#spare.refresh()
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

  /** Opens what was derived from builds, for a server: what only looks leaves it alone. */
  async openCache(config: Config, log: Logger): Promise<Cache> {
    const budget = this.#budget
    this.#cache = Cache.open({
      directory: this.store.paths.cache,
      limit: config.cache,
      pool: this.#pool,
      hasRoom: (bytes) => budget.used + budget.reserved + bytes <= budget.limit,
      onChange: (bytes) => budget.charge('cache', bytes),
      onProblem: (error) => log.warn({ reason: error.message }, 'derived data could not be kept'),
    })
    await this.#spare.attach(this.#cache)
    return this.#cache
  }

  /**
   * Goes by another configuration from now on; `settle` does what follows from that.
   * @throws ConfigError for sources that can't be right, with nothing changed.
   */
  change(config: Config): void {
    this.#available.useSources(config.sources)
    this.fetches.useSources(config.sources)
    this.#config = config
    this.channels.use(config.channels)
    if (this.#cache) this.#cache.limit = config.cache
    this.#budget.limit = config.budget
  }

  /** What channels mean now is kept, and what the budget no longer allows goes. */
  async settle(): Promise<void> {
    await this.channels.keep()
    await this.#budget.enforce()
  }

  /** Fetches stop in a way that can be gone on from. */
  async close(): Promise<void> {
    await this.fetches.close()
    await this.#cache?.close()
    await this.verifier.close()
    await this.store.close()
  }
}

export interface RunningServer {
  readonly operations: Operations
  /** Addresses of the rsync doors. */
  readonly listening: readonly string[]
  readonly httpUrls: readonly string[]
  /** How long `stop` lets sessions go on. */
  readonly shutdownMs: number
  /** Resolves when the server has ended, by `stop` or because it was idle. */
  readonly ended: Promise<void>
  /**
   * Reads the configuration again and goes by it; sessions and fetches under way end as they began.
   * @returns keys whose new values need a restart. @throws ConfigError, with nothing changed.
   */
  reload(): Promise<readonly string[]>
  /** Lets sessions finish, for a bounded time. Safe to call twice. */
  stop(): Promise<void>
}

export interface ServeOptions {
  /** Descriptors that listen already, in place of the addresses in `rsync.listen`. */
  handed?: readonly number[]
  /** Reads the configuration again. Without it there is only the one that it began with. */
  load?: () => Config
}

/** Opens the store and all doors. When it returns, clients can connect. */
export async function serve(
  config: Config,
  log: Logger,
  { handed = [], load = () => config }: ServeOptions = {},
): Promise<RunningServer> {
  useThreads()
  const upserv = await Upserv.open(config, log)
  // Before any device hears of them. On a full disk they are served all the same, and count as new next time.
  await upserv.channels.keep().catch((error: Error) => {
    log.warn({ reason: error.message }, 'channels.json could not be written')
  })
  const cache = await upserv.openCache(config, log)
  const derived = new Derived({
    kept: cache,
    checksumSeed: upserv.store.facts.checksumSeed,
  })
  const refiner = new Refiner((problem) => log.warn({ reason: problem.message }, 'compressing again failed'))
  const answers = new Answers({ derived, kept: cache, onQuick: (job) => refiner.add(job) })
  refiner.serve(answers)
  const now = () => performance.now()
  let busySince = now()
  const makePolicy = ({ access }: Config) =>
    new Policy(access, (problem) => log.error({ reason: problem }, 'secrets not used'))
  let policy = makePolicy(config)
  const turns = new TurnsInLine({ ...turnsOf(config), now })
  const doors = new Doors(
    {
      modules: upserv.resolver,
      visitor: (address) => policy.visitor(address),
      turns,
      derived,
      answers,
      lists: new Lists(derived, cache),
      ...mannersOf(config),
      checksumSeed: upserv.store.facts.checksumSeed,
      now,
    },
    doorLimitsOf(config),
    log,
    () => {
      busySince = now()
    },
  )
  /** As of the last reload. */
  let current = config
  let commands = 0
  let stopping: Promise<void> | undefined
  const closers: (() => void)[] = []
  /** For connections that nobody uses: they would keep the process from ending. */
  const lastClosers: (() => void)[] = []
  const httpUrls: string[] = []
  const listening: string[] = []
  const { promise: ended, resolve: setEnded } = Promise.withResolvers<void>()

  const stop = (): Promise<void> => {
    stopping ??= (async () => {
      log.info({ sessions: doors.sessions }, 'stopping')
      for (const close of closers) close()
      const goodbye = doors.close(current.shutdownMs)
      // Who waits for a fetch is told to come back, rather than kept for a build that won't be complete.
      await upserv.fetches.close()
      await goodbye
      await refiner.close()
      await derived.close()
      await upserv.close()
      for (const close of lastClosers) close()
      log.info('stopped')
      setEnded()
    })()
    return stopping
  }

  const readAgain = async (): Promise<readonly string[]> => {
    const next = load()
    const nextPolicy = makePolicy(next)
    upserv.change(next)
    policy = nextPolicy
    turns.change(turnsOf(next))
    doors.change(mannersOf(next), doorLimitsOf(next))
    const left = restartKeys(current, next)
    current = next
    log.info({ sources: next.sources.map(({ name }) => name) }, 'configuration read again')
    if (left.length > 0) log.warn({ keys: left }, 'what these keys say holds after a restart')
    await upserv.settle().catch((error: Error) => {
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
    const control = await listenControl(upserv.store.paths.socket, {
      operations: upserv.operations,
      rsync: (socket, peer) => doors.admit(socket, socket, peer),
      reload,
      onRequest: (running) => {
        commands++
        running
          .catch(() => {})
          .finally(() => {
            commands--
            busySince = now()
          })
      },
    })
    closers.push(() => control.close())
    lastClosers.push(() => control.hangUp())
    for (const address of config.http.listen) {
      const { server, url } = await listenHttp(address, () => stopping === undefined)
      closers.push(() => void server.close())
      lastClosers.push(() => server.closeAllConnections())
      httpUrls.push(url)
    }
    for (const fd of handed) listening.push(await doors.listenOn(fd))
    for (const address of handed.length > 0 ? [] : config.rsync.listen) {
      listening.push(await doors.listen(address))
    }
  } catch (error) {
    await stop()
    throw error
  }
  upserv.facts = { listening, sessions: () => doors.sessions, inLine: () => turns.waiting }
  // Nobody waits for this; it ends with the store when we are stopped.
  void upserv.tidy().catch((error: Error) => {
    if (!stopping) log.warn({ reason: error.message }, 'cleaning up failed')
  })

  if (config.exitWhenIdleMs > 0) {
    const timer = setInterval(() => {
      const busy = doors.sessions > 0 || commands > 0 || upserv.fetches.status().length > 0
      if (busy) busySince = now()
      else if (now() - busySince > config.exitWhenIdleMs) void stop()
    }, config.exitWhenIdleMs / IDLE_CHECKS)
    closers.push(() => clearInterval(timer))
  }
  return {
    operations: upserv.operations,
    listening,
    httpUrls,
    get shutdownMs() {
      return current.shutdownMs
    },
    ended,
    reload,
    stop,
  }
}

// What each part takes of a configuration, at the start and whenever it is read again.

function turnsOf({ rsync }: Config) {
  return { most: rsync.maxConnections, places: rsync.waitingLine }
}

function mannersOf({ rsync }: Config) {
  const limits = { handshakeMs: rsync.handshakeTimeoutMs, idleMs: rsync.idleTimeoutMs }
  return { motd: rsync.motd, charset: rsync.charset, limits }
}

function doorLimitsOf({ rsync }: Config) {
  return {
    handshakes: rsync.maxHandshakes,
    perSource: rsync.maxPerSource,
    inside: rsync.maxConnections + rsync.waitingLine,
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
