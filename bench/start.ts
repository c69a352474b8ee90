/**
 * What a client waits for when the server has just been started: makes a data directory of many builds and
 * starts the real server on it, after a clean stop, after kill -9, and after kill -9 with a budget that
 * makes half of the builds go. Run as
 *
 *     bench/start [--rounds N] [BUILDS] [ENTRIES] [NEW]      default: 5 rounds, 100 40000 5000
 *
 * Counted from the moment that the process is made: until a connection is accepted; until a client that
 * connects then has its greeting, the listing of modules, and `contents` of a build in the middle, by stock
 * rsync; until the first client that asks for that build's whole list has it. "Work" is the processor time of the
 * server until then, all its threads, which says what an idle machine would need at least.
 * UPSERV_BENCH_DIR says where the directory is made. Results stand in docs/benchmarks-store.md.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { bytesOnDisk } from '../test/support/mirror.ts'
import { freePort, ServerProcess } from '../test/support/processes.ts'
import { rsyncSucceeds } from '../test/support/rsync.ts'
import { UPSERV } from '../test/support/upserv.ts'
import { fillStore } from './lib/many-builds.ts'
import { parseProcStat } from './lib/meter.ts'
import { spread, spreadText } from './lib/numbers.ts'
import { startCounting } from './lib/program.ts'

const TRY_AGAIN_MS = 2
/** What a crash has left of an ingest. */
const LEFTOVER_BYTES = 100 * 2 ** 20
/** While builds are evicted a client asks so often. */
const ASK_EVERY_MS = 20

const USAGE = `Usage: bench/start [--rounds N] [BUILDS] [ENTRIES] [NEW]

Makes a data directory of BUILDS builds (100) with ENTRIES entries each (40000), NEW of them (5000) with content
of their own, and measures what a client waits for when a server has just been started on it, N times (5): after
a clean stop, after kill -9, and with a budget that makes half of the builds go.
`
const { rounds, numbers } = startCounting(USAGE, 5)
const [builds = 100, entries = 40_000, fresh = 5000] = numbers
const asked = String(builds - 1)

/** In the order in which they are measured; in ms. */
type Figures = Record<string, number>

async function main(): Promise<void> {
  const root = mkdtempSync(join(process.env.UPSERV_BENCH_DIR ?? tmpdir(), 'upserv-start-'))
  try {
    const [cpu] = cpus()
    console.log(
      `${new Date().toISOString().slice(0, 10)}, node ${process.version}, ${cpus().length} x ${cpu?.model}, load ${loadavg()[0]?.toFixed(1)}`,
    )
    console.log(`${builds} builds of ${entries} entries, ${fresh} new blobs each; median (least to greatest)`)
    const data = join(root, 'data')
    await fillStore(data, { builds, entries, fresh })
    await measure('the first start of this version', data, 1, async () => {})
    await measure('the second', data, 1, async () => {})
    await measure('after a clean stop', data, rounds, async () => {})
    await measure('after kill -9 in an ingest', data, rounds, async () => {
      const leftover = join(data, 'incoming', 'x-12345678.ingest')
      mkdirSync(leftover)
      writeFileSync(join(leftover, 'some.pack'), Buffer.alloc(LEFTOVER_BYTES))
    })
    const half = Math.round(bytesOnDisk(data) / 2)
    const copy = join(root, 'copy')
    await measure(
      'after kill -9, the budget half of what is there',
      copy,
      rounds,
      async () => {
        rmSync(copy, { recursive: true, force: true })
        execFileSync('cp', ['-al', data, copy])
        // Not the other one's: whoever locked that would have locked this.
        rmSync(join(copy, 'upserv.lock'))
      },
      half,
    )
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
}

async function measure(
  what: string,
  data: string,
  times: number,
  prepare: () => Promise<void>,
  budget?: number,
): Promise<void> {
  const all: Figures[] = []
  for (let round = 0; round < times; round++) {
    await prepare()
    all.push(await start(data, budget, what.includes('kill')))
  }
  console.log(`\n${what}:`)
  for (const name of Object.keys(all[0]!)) {
    console.log(`  ${name.padEnd(52)} ${spreadText(spread(all.map((figures) => figures[name]!)))} ms`)
  }
}

async function start(data: string, budget: number | undefined, kill: boolean): Promise<Figures> {
  const port = await freePort()
  const url = `rsync://127.0.0.1:${port}`
  const began = performance.now()
  const args = ['--data', data, '--rsync', `127.0.0.1:${port}`, '--http', 'off']
  const server = new ServerProcess(UPSERV, [
    'serve',
    ...args,
    ...(budget === undefined ? [] : ['--budget', String(budget)]),
  ])
  const since = (): number => performance.now() - began
  const worked = (): number => {
    const { user, system } = parseProcStat(readFileSync(`/proc/${server.child.pid}/stat`, 'utf8'))
    return (user + system) * 1000
  }
  try {
    const listing = await list(port, since)
    const work = worked()
    await rsyncSucceeds([`${url}/build-${asked}/contents`, '--list-only'])
    const polled = since()
    await rsyncSucceeds(['-r', `${url}/build-${asked}/`], { timeoutMs: 120_000 })
    const figures: Figures = {
      'a connection is accepted': listing.accepted,
      'the greeting is there': listing.greeted,
      'the listing is there': listing.listed,
      '  work until then': work,
      'stock rsync has polled a build': polled,
      'stock rsync has the whole list of that build': since(),
      '  work until then ': worked(),
    }
    if (budget !== undefined) Object.assign(figures, await askWhileItEvicts(port, data, budget, since))
    return figures
  } finally {
    await server.stop(kill ? 'SIGKILL' : 'SIGTERM')
  }
}

/** What somebody waits who comes again and again, until the directory is within its budget. */
async function askWhileItEvicts(
  port: number,
  data: string,
  budget: number,
  since: () => number,
): Promise<Figures> {
  let longest = 0
  while (bytesOnDisk(data) > budget) {
    const asked = performance.now()
    const { listed } = await list(port, () => performance.now() - asked)
    longest = Math.max(longest, listed)
    await sleep(ASK_EVERY_MS)
  }
  return { 'everything is within the budget': since(), 'the longest that a listing took until then': longest }
}

/** Connects as soon as that is possible and asks for the modules. */
async function list(
  port: number,
  since: () => number,
): Promise<{ accepted: number; greeted: number; listed: number }> {
  for (;;) {
    const socket = connect({ port, host: '127.0.0.1' })
    const times = { accepted: 0, greeted: 0, listed: 0 }
    socket.once('connect', () => {
      times.accepted = since()
      socket.write('@RSYNCD: 31.0 md5\n#list\n')
    })
    socket.once('data', () => {
      times.greeted = since()
    })
    let seen = ''
    socket.setEncoding('latin1').on('data', (text: string) => {
      seen += text
    })
    await new Promise((settle) => {
      socket.once('error', settle)
      socket.once('end', settle)
    })
    socket.destroy()
    if (seen.endsWith('@RSYNCD: EXIT\n') && seen.includes(`build-${asked}`))
      return { ...times, listed: since() }
    if (times.accepted > 0) throw new Error(`the server said: ${seen}`)
    await sleep(TRY_AGAIN_MS)
  }
}

await main()
