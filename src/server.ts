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
import { Catalog } from './build/catalog.ts'
import { BuildEvictor } from './build/evictor.ts'
import { Fetches } from './build/fetch.ts'
import type { Operations } from './build/operations.ts'
import { Operator } from './build/operator.ts'
import { Resolver } from './build/resolver.ts'
import { Spare } from './build/spare.ts'
import { Verifier } from './build/verifier.ts'
import type { Config } from './config/config.ts'
import { listenControl } from './daemon/control.ts'
import { Doors } from './daemon/doors.ts'
import { listenHttp } from './http/server.ts'
import type { Logger } from './lib/log.ts'
import { Throttle } from './lib/throttle.ts'
import { Derived } from './rsync/derived.ts'
import { Budget } from './store/budget.ts'
import { Store } from './store/store.ts'
import { VERSION } from './version.ts'

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
  readonly verifier: Verifier
  /** Set by `serve`: what only the server as a whole knows. */
  facts: { listening: string[]; sessions: () => number } = { listening: [], sessions: () => 0 }
  readonly #spare: Spare
  readonly #budget: Budget
  readonly #began = performance.now()

  private constructor(store: Store, config: Config, log: Logger) {
    this.store = store
    const catalog = new Catalog(store)
    const evictor = new BuildEvictor(store, catalog, (id) => log.info({ build: id }, 'build evicted'))
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
    this.resolver = new Resolver(
      store,
      catalog,
      this.fetches,
      this.verifier,
      complain('an access could not be noted'),
    )
    this.operations = new Operator({
      store,
      catalog,
      budget,
      evictor,
      fetches: this.fetches,
      spare: this.#spare,
      verifier: this.verifier,
      facts: () => ({
        version: VERSION,
        listening: this.facts.listening,
        sessions: this.facts.sessions(),
        uptimeSeconds: Math.round((performance.now() - this.#began) / 1000),
      }),
    })
  }

  /** @throws StoreLocked when another process owns the directory; StoreFormat, ConfigError. */
  static async open(config: Config, log: Logger): Promise<Upserv> {
    const onProblem = (problem: Error): void => log.error({ reason: problem.message }, 'store damaged')
    let upserv: Upserv | undefined
    const background = new Throttle({
      rate: () => (upserv && upserv.facts.sessions() > 0 ? BACKGROUND_RATE.busy : BACKGROUND_RATE.idle),
    })
    const store = await Store.open(config.dataDir, { onProblem, background })
    try {
      upserv = new Upserv(store, config, log)
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

  /** Fetches stop in a way that can be gone on from. */
  async close(): Promise<void> {
    await this.fetches.close()
    await this.verifier.close()
    await this.store.close()
  }
}

export interface RunningServer {
  readonly operations: Operations
  /** Addresses of the rsync doors. */
  readonly listening: readonly string[]
  readonly httpUrls: readonly string[]
  /** Resolves when the server has ended, by `stop` or because it was idle. */
  readonly ended: Promise<void>
  /** Lets sessions finish, for a bounded time. Safe to call twice. */
  stop(): Promise<void>
}

/** Opens the store and all doors. When it returns, clients can connect. */
export async function serve(config: Config, log: Logger): Promise<RunningServer> {
  useThreads()
  const upserv = await Upserv.open(config, log)
  const derived = new Derived()
  const now = () => performance.now()
  let busySince = now()
  const doors = new Doors(
    {
      modules: upserv.resolver,
      derived,
      motd: config.rsync.motd,
      checksumSeed: upserv.store.facts.checksumSeed,
      limits: { handshakeMs: config.rsync.handshakeTimeoutMs, idleMs: config.rsync.idleTimeoutMs },
      now,
    },
    config.rsync.maxConnections,
    log,
    () => {
      busySince = now()
    },
  )
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
      const goodbye = doors.close(config.shutdownMs)
      // Who waits for a fetch is told to come back, rather than kept for a build that won't be complete.
      await upserv.fetches.close()
      await goodbye
      await upserv.close()
      await derived.close()
      for (const close of lastClosers) close()
      log.info('stopped')
      setEnded()
    })()
    return stopping
  }

  try {
    const control = await listenControl(upserv.store.paths.socket, {
      operations: upserv.operations,
      rsync: (socket, peer) => doors.admit(socket, socket, peer),
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
    for (const address of config.rsync.listen) listening.push(await doors.listen(address))
  } catch (error) {
    await stop()
    throw error
  }
  upserv.facts = { listening, sessions: () => doors.sessions }
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
  return { operations: upserv.operations, listening, httpUrls, ended, stop }
}

/** File reads and compression of many clients share libuv's pool: as many threads as there are cores, and a few that wait for disks. */
function useThreads(): void {
  process.env.UV_THREADPOOL_SIZE ??= String(availableParallelism() + 4)
}
