/**
 * The contest: the same clients against the stock daemon and against upserv, in turn, so that whatever
 * else the machine does meets both alike. What counts is server CPU for each client; clients and servers
 * share the machine, so that times on the clock say less.
 */
import { type ClientsRun, runClients } from './clients.ts'
import type { Pair } from './data.ts'
import { startLink } from './link.ts'
import type { Cpu, Peak } from './meter.ts'
import { spread } from './numbers.ts'
import { isFirstOfFleet, type Row } from './rows.ts'
import {
  command,
  fillData,
  forgetCaches,
  type Server,
  type ServerKind,
  startOurs,
  startStock,
} from './servers.ts'

/** One server at one row: a value for each round, and what is the same in all of them. */
export interface Measured {
  /** Server CPU seconds for each client. */
  readonly cpu: number[]
  /** How much of it came when the clients had gone: what is put off and done once for a fleet. */
  readonly laterCpu: number[]
  /** The kernel's estimate of how much of that was in the kernel. */
  readonly systemCpu: number[]
  readonly perSecond: number[]
  /** Most memory of all the server's processes at one time; of runs with 10 clients or more. */
  readonly pss: number[]
  readonly processes: number[]
  /** Of one client, at the server's socket. */
  readonly linkBytes: { readonly toServer: number; readonly toDevice: number }
  /** Of one client, as its rsync says. */
  readonly literalBytes: number
  readonly place: ClientsRun['place']
}

export interface RowResult {
  readonly row: Row
  readonly clients: number
  readonly servers: Readonly<Record<ServerKind, Measured>>
  /** What `upserv warm` took, in rows that are measured after it. */
  readonly warmCpu?: number[]
}

/** Reading memory takes time from one client, and says little there. */
const WATCH_FROM_CLIENTS = 10

/** The two servers with the same builds. upserv can be started anew, the daemon keeps nothing anyway. */
export class Contest implements AsyncDisposable {
  readonly pair: Pair
  readonly #data: string
  readonly #stock: Server
  #ours: Server

  static async start(pair: Pair): Promise<Contest> {
    const data = await fillData('upserv', [pair.from, pair.to])
    const stock = await startStock([pair.from, pair.to])
    return new Contest(pair, data, stock, await startOurs(data))
  }

  private constructor(pair: Pair, data: string, stock: Server, ours: Server) {
    this.pair = pair
    this.#data = data
    this.#stock = stock
    this.#ours = ours
  }

  server(kind: ServerKind): Server {
    return kind === 'rsyncd' ? this.#stock : this.#ours
  }

  /** 'forget': as if no client had ever come; 'keep': as after an upgrade of upserv. */
  async restartOurs(caches: 'forget' | 'keep'): Promise<void> {
    await this.#ours[Symbol.asyncDispose]()
    if (caches === 'forget') forgetCaches(this.#data)
    this.#ours = await startOurs(this.#data)
  }

  /** Has upserv prepare the update before its first client. @returns what that took, in CPU seconds. */
  async warm(): Promise<number> {
    const { from, to } = this.pair
    const work = (): Promise<void> => command(this.#data, ['warm', to.id, '--from', from.id], WARM_MS)
    return (await this.#ours.meter.during(work)).cpu.total
  }

  /**
   * Has upserv serve clients that go from the new build to the old one: it has been at work then, and knows nothing
   * of the way that is measured. What such an answer is kept by holds the digest of the file that is sent.
   */
  async serveTheWayBack(options: readonly string[]): Promise<void> {
    const back = { from: this.pair.to, to: this.pair.from }
    for (let client = 0; client < CLIENTS_BEFORE; client++) {
      await runClients({
        ...{ pair: { ...this.pair, ...back }, method: 'update', options, clients: 1 },
        port: this.#ours.port,
      })
    }
    await this.#ours.meter.settle()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ours[Symbol.asyncDispose]()
    await this.#stock[Symbol.asyncDispose]()
  }
}

const WARM_MS = 60 * 60_000
/** As many as make V8 compile what is used, some with nothing kept and some with all. */
const CLIENTS_BEFORE = 3
const CLIENTS_BEFORE_STEADY = 8

/** Measures one row with so many clients at once. */
export async function measureRow(
  contest: Contest,
  row: Row,
  clients: number,
  rounds: number,
): Promise<RowResult> {
  const { pair } = contest
  const client = { pair, method: row.method, options: row.options }
  const warmCpu: number[] = []
  const servers = { rsyncd: emptyMeasured(), upserv: emptyMeasured() }
  // Twice: the first makes what is kept and is checked, the second counts the bytes of every later one.
  await runClients({ ...client, port: contest.server('upserv').port, clients: 1, check: true })
  // What it does better when nobody waits may take minutes. A server of a fleet has just served thousands: V8 has
  // compiled what they take, which it forgets when it rests.
  await contest.server('upserv').meter.settle()
  for (let more = 0; row.server === undefined && more < CLIENTS_BEFORE_STEADY; more++)
    await runClients({ ...client, port: contest.server('upserv').port, clients: 1 })
  await contest.server('upserv').meter.settle()
  for (const kind of ['rsyncd', 'upserv'] as const) {
    if (kind === 'upserv' && isFirstOfFleet(row)) await prepareOurs(contest, row, warmCpu)
    await using link = await startLink(contest.server(kind).port)
    const { stats } = await runClients({ ...client, port: link.port, clients: 1 })
    servers[kind] = { ...servers[kind], linkBytes: { ...link.bytes }, literalBytes: stats.literal }
  }
  for (let round = 0; round < rounds; round++) {
    // Who begins changes, so that neither always finds the caches of the processor as the other left them.
    const order = round % 2 === 0 ? (['rsyncd', 'upserv'] as const) : (['upserv', 'rsyncd'] as const)
    for (const kind of order) {
      if (kind === 'upserv') await prepareOurs(contest, row, warmCpu)
      const { run, cpu, later, peak } = await measureRun(contest.server(kind), { ...client, clients })
      const measured = servers[kind]
      // What is put off is a client's cost too, but for the first of a fleet: that is paid once for all of them.
      measured.cpu.push((cpu.total - (isFirstOfFleet(row) ? later.total : 0)) / clients)
      measured.laterCpu.push(later.total)
      measured.systemCpu.push(cpu.system / clients)
      measured.perSecond.push(run.perSecond)
      if (peak) {
        measured.pss.push(peak.pss)
        measured.processes.push(peak.processes)
      }
      servers[kind] = { ...measured, place: run.place }
    }
  }
  return { row, clients, servers, ...(row.server === 'warmed' ? { warmCpu } : {}) }
}

async function prepareOurs(contest: Contest, row: Row, warmCpu: number[]): Promise<void> {
  if (row.server === undefined) return
  await contest.restartOurs(row.server === 'restarted' ? 'keep' : 'forget')
  if (row.server === 'warmed') warmCpu.push(await contest.warm())
  if (row.server === 'at-work') await contest.serveTheWayBack(row.options)
}

/** One run of clients: what it cost, until the server is quiet again, and the most memory meanwhile. */
export async function measureRun(
  { port, meter }: Server,
  options: { pair: Pair; method: Row['method']; options: readonly string[]; clients: number },
): Promise<{ run: ClientsRun; cpu: Cpu; later: Cpu; peak: Peak | undefined }> {
  const stop = options.clients >= WATCH_FROM_CLIENTS ? meter.watch() : undefined
  const { result, cpu, later } = await meter.during(() => runClients({ ...options, port }))
  return { run: result, cpu, later, peak: await stop?.() }
}

function emptyMeasured(): Measured {
  const values = { cpu: [], laterCpu: [], systemCpu: [], perSecond: [], pss: [], processes: [] }
  return { ...values, linkBytes: { toServer: 0, toDevice: 0 }, literalBytes: 0, place: 'memory' }
}

// ---------------------------------------------------------------------------------------------------
// Judging.

export interface Verdict {
  readonly cpuRatio: number
  readonly bytesRatio: number
  /** Undefined where nothing is required. */
  readonly cpuIsMet: boolean | undefined
  readonly bytesAreMet: boolean | undefined
}

/** upserv beside the daemon: medians, each as a part of the daemon's. */
export function judge({ row, servers: { rsyncd, upserv } }: RowResult): Verdict {
  const cpuRatio = spread(upserv.cpu).median / spread(rsyncd.cpu).median
  const bytesRatio = linkTotal(upserv) / linkTotal(rsyncd)
  return {
    cpuRatio,
    bytesRatio,
    cpuIsMet: row.cpu === undefined ? undefined : cpuRatio <= row.cpu,
    bytesAreMet: row.bytes === undefined ? undefined : bytesRatio <= row.bytes,
  }
}

export function linkTotal({ linkBytes }: Measured): number {
  return linkBytes.toServer + linkBytes.toDevice
}
