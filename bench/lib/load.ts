/**
 * A school in the morning: many devices update at once while the server takes a new build in. How late the
 * event loop is, how long others wait for the first byte of a poll, how much memory it takes. The devices have
 * processors of their own in a school; here they leave them to the server.
 */
import { join } from 'node:path'
import { type Lag, lagEnvironment, takeLag } from '../../test/support/lag.ts'
import { type ClientsRun, runClients } from './clients.ts'
import { HOME, type Pair } from './data.ts'
import { startLink } from './link.ts'
import { quantile } from './numbers.ts'
import { fillData, importBuild, type Server, startOurs, startStock } from './servers.ts'

export interface LoadResult {
  readonly clients: number
  readonly perSecond: number
  readonly peakPss: number
  /** Milliseconds from connecting until the file list of a poll begins, under this load. */
  readonly firstByteMs: { readonly median: number; readonly p99: number; readonly polls: number }
  /** Only of upserv. */
  readonly lag?: Lag
  /** What the new build took to come in meanwhile. Only of upserv: the daemon has nothing of the kind. */
  readonly ingestMs?: number
}

export interface LoadOptions {
  readonly pair: Pair
  readonly clients: number
  readonly options: readonly string[]
}

/** The daemon under the same clients, with no build to take in. */
export async function loadStock(load: LoadOptions): Promise<LoadResult> {
  await using server = await startStock([load.pair.to])
  return await under(server, load, async () => {})
}

/** upserv, which holds the new build alone, and meanwhile ingests the old one. */
export async function loadOurs(load: LoadOptions): Promise<LoadResult> {
  const { pair, options } = load
  const file = join(HOME, 'run', 'lag.json')
  const data = await fillData('upserv-load', [pair.to])
  await using server = await startOurs(data, lagEnvironment(file))
  await runClients({ port: server.port, pair, method: 'update', options, clients: 1 })
  await server.meter.settle()
  await takeLag(server.pid, file)
  let ingestMs = 0
  const result = await under(server, load, async () => {
    const started = performance.now()
    await importBuild(data, pair.from.tar, pair.from.id)
    ingestMs = performance.now() - started
  })
  return { ...result, ingestMs, lag: await takeLag(server.pid, file) }
}

async function under(server: Server, load: LoadOptions, meanwhile: () => Promise<void>): Promise<LoadResult> {
  const { pair, clients } = load
  const stop = server.meter.watch()
  const firstBytes: number[] = []
  let isOver = false
  const poll = async (): Promise<void> => {
    await using link = await startLink(server.port)
    while (!isOver) {
      await runClients({ port: link.port, pair, method: 'poll', options: [], clients: 1 })
      if (link.times.list !== undefined) firstBytes.push(link.times.list)
    }
  }
  const work = async (): Promise<ClientsRun> => {
    try {
      const updates = runClients({ port: server.port, method: 'update', yielding: true, ...load })
      return (await Promise.all([updates, meanwhile()]))[0]
    } finally {
      isOver = true
    }
  }
  const [run] = await Promise.all([work(), poll()])
  const peak = await stop()
  return {
    clients,
    perSecond: run.perSecond,
    peakPss: peak.pss,
    firstByteMs: {
      median: quantile(firstBytes, 0.5),
      p99: quantile(firstBytes, 0.99),
      polls: firstBytes.length,
    },
  }
}
