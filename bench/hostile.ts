/**
 * What honest clients notice of a hostile crowd: the same pulls with it and without it, by turns, against a server
 * with the defaults. Idle connections, handshakes that nobody finishes, slow readers and slow writers all at once.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { formatSize } from '../src/lib/units.ts'
import { Authority } from '../test/support/certificates.ts'
import { type Lag, lagEnvironment, takeLag } from '../test/support/lag.ts'
import { Mirror, randomTree } from '../test/support/mirror.ts'
import { run } from '../test/support/processes.ts'
import { tlsPort } from '../test/support/rsync-ssl.ts'
import { removeTree } from '../test/support/scratch.ts'
import type { Upserv } from '../test/support/upserv.ts'
import { table } from './lib/markdown.ts'
import { quantile } from './lib/numbers.ts'
import { countOf, EXIT_USAGE } from './lib/program.ts'
import { describeMachine, provenance, saveResults, writeDocs } from './lib/report.ts'

/** What must hold. */
const LEAST_RATIO = 0.8
const MOST_MEMORY = 512e6

const USAGE = `Usage: bench/hostile [--short] [--rounds N] [--write]

20 clients pull a build of 400 files again and again, with and without a hostile crowd at the same server:
2,000 idle connections, 200 half handshakes (100 of rsync, 100 of TLS), 100 slow readers, 100 slow writers, from 50
addresses.
What is told: pulls per second of both, their ratio, memory of the server, how late its event loop was.

  --short     a tenth of the crowd and few pulls: half a minute, judges nothing
  --rounds N  how often each is measured, by turns (3)
  --write     write the section of docs/benchmarks.md too

Exit 1, but for --short: honest clients keep less than ${100 * LEAST_RATIO} %, or memory goes past ${formatSize(MOST_MEMORY)}.
`

const { short, write, rounds } = readOptions()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
const CROWD = short
  ? { idle: 200, half: 10, halfTls: 10, readers: 10, writers: 10 }
  : { idle: 2000, half: 100, halfTls: 100, readers: 100, writers: 100 }
const HONEST = short ? 5 : 20
/** Pulls of each client in a round. */
const PULLS = short ? 2 : 10

interface Phase {
  readonly perSecond: number
  readonly peakRss: number
  readonly lag: Lag
}

const machine = await describeMachine()
await using mirror = new Mirror()
await mirror.publish('1', randomTree(1, 400, 50_000), { suffix: 'tar' })
const lagFile = mirror.path('lag.json')
const { cert, key } = await (await Authority.make(mirror.path('ours'))).issue({ cn: 'upserv' })
const config = mirror.path('upserv.toml')
// Beside the defaults: TLS, and builds for whoever asks for the same one again and again.
writeFileSync(
  config,
  `[rsync]\ntls_listen = "127.0.0.1:0"\n[tls]\ncert = "${cert}"\nkey = "${key}"\n[fetch]\nper_source = 0\n`,
)
const upserv = await mirror.startUpserv({
  config,
  sources: [`file://${mirror.path('www')}/{build}`],
  env: lagEnvironment(lagFile),
})
await mirror.assertServes(upserv, '1')

const alone: Phase[] = []
const crowded: Phase[] = []
let crowds: unknown
for (let round = 0; round < rounds; round++) {
  alone.push(await measure(upserv))
  const crowd = await gather(upserv)
  crowded.push(await measure(upserv))
  crowds = await crowd.dismiss()
  console.log(
    `round ${round + 1}: ${alone.at(-1)!.perSecond.toFixed(1)} pulls/s alone, ${crowded.at(-1)!.perSecond.toFixed(1)} in the crowd ${JSON.stringify(crowds)}`,
  )
}
await upserv.stop()

const of = (phases: readonly Phase[], get: (phase: Phase) => number): number => quantile(phases.map(get), 0.5)
const ratio = of(crowded, ({ perSecond }) => perSecond) / of(alone, ({ perSecond }) => perSecond)
const peak = Math.max(...crowded.map(({ peakRss }) => peakRss))
const row = (name: string, phases: readonly Phase[]): string[] => [
  name,
  of(phases, ({ perSecond }) => perSecond).toFixed(1),
  formatSize(Math.max(...phases.map(({ peakRss }) => peakRss))),
  of(phases, ({ lag }) => lag.p50).toFixed(1),
  of(phases, ({ lag }) => lag.p99).toFixed(1),
  Math.max(...phases.map(({ lag }) => lag.max)).toFixed(0),
  Math.max(...phases.map(({ lag }) => lag.busyMax)).toFixed(0),
]
const figures = table(
  ['', 'pulls/s', 'memory (RSS), most', 'loop late, median ms', 'p99 ms', 'most ms', 'of its own, most ms'],
  [row(`${HONEST} honest clients`, alone), row('the same, in the crowd', crowded)],
)
const text = `${provenance(`bench/hostile${short ? ' --short' : ''}${rounds === 3 || short ? '' : ` --rounds ${rounds}`}`, machine)} ${rounds} rounds, by turns.

${HONEST} real clients pull a build of 400 files and 20 MB, whole, ${PULLS} times each. The crowd, from 50 addresses: ${CROWD.idle} idle
connections, ${CROWD.half} handshakes that stop behind the module's name, ${CROWD.halfTls} of TLS that stop behind the server's answer, ${CROWD.readers} clients that asked for everything and read 1 kB a
second, ${CROWD.writers} that send a byte a second; whoever is hung up on comes back after a second. The server has its defaults and TLS, and
clients, crowd and server share the machine.

${figures}

The loop is late when the server has work, and when the machine has: "of its own" is what the server's thread itself
worked without a turn for anybody else, by the time that the kernel counts for it.

Honest clients keep ${(100 * ratio).toFixed(0)} % of their throughput (${100 * LEAST_RATIO} % is what must hold); the server took ${formatSize(peak)} at most
(bound: ${formatSize(MOST_MEMORY)}).
`
console.log(`\n${text}`)
saveResults('hostile', { machine, crowd: CROWD, alone, crowded, crowds, ratio })
if (write && !short) writeDocs('bench/hostile', text)
if (!short && (ratio < LEAST_RATIO || peak > MOST_MEMORY)) {
  console.error(
    `This must not be: honest clients keep ${(100 * ratio).toFixed(0)} %, memory ${formatSize(peak)}`,
  )
  process.exitCode = 1
}

function readOptions(): { short: boolean; write: boolean; rounds: number } {
  try {
    const { values } = parseArgs({
      options: {
        short: { type: 'boolean', default: false },
        rounds: { type: 'string' },
        write: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
    if (values.help) {
      process.stdout.write(USAGE)
      process.exit(0)
    }
    const { short, write } = values
    return { short, write, rounds: countOf(values.rounds ?? (short ? '1' : '3')) }
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}`)
    process.exit(EXIT_USAGE)
  }
}

/** All honest clients, each with its pulls one after the other. */
async function measure({ url, process: { child } }: Upserv): Promise<Phase> {
  let peakRss = 0
  const look = (): void => {
    const rss = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]
    peakRss = Math.max(peakRss, Number(rss) * 1024)
  }
  const timer = setInterval(look, 200)
  await takeLag(child.pid!, lagFile)
  const began = performance.now()
  await Promise.all(
    Array.from({ length: HONEST }, async () => {
      for (let pull = 0; pull < PULLS; pull++) {
        const place = mirror.place()
        const { code, stderr } = await run('rsync', ['-aH', `${url}/build-1/root/`, place], {
          timeoutMs: 600_000,
        })
        if (code !== 0) throw new Error(`an honest client failed: ${stderr}`)
        if (pull === 0) mirror.assertTree('1', place)
        removeTree(place)
      }
    }),
  )
  const seconds = (performance.now() - began) / 1000
  clearInterval(timer)
  return { perSecond: (HONEST * PULLS) / seconds, peakRss, lag: await takeLag(child.pid!, lagFile) }
}

async function gather(upserv: Upserv): Promise<{ dismiss(): Promise<unknown> }> {
  const { idle, half, halfTls, readers, writers } = CROWD
  const args = [upserv.port, tlsPort(upserv), idle, half, halfTls, readers, writers].map(String)
  const child = spawn(process.execPath, [join(import.meta.dirname, 'lib/attackers.ts'), ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  process.once('exit', () => child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout })
  const next = async (): Promise<unknown> => JSON.parse(String((await once(lines, 'line'))[0]))
  console.log(`the crowd is there: ${JSON.stringify(await next())}`)
  return {
    dismiss: async () => {
      const said = next()
      child.stdin.end()
      const result = await said
      await once(child, 'exit').catch(() => {})
      return result
    },
  }
}
