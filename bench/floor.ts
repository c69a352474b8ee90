/**
 * `bench/floor`: what it costs to write the same bytes to the same sockets and do nothing else. Between
 * that and upserv is what there is left to gain.
 */
import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import { formatSize } from '../src/lib/units.ts'
import { run, ServerProcess } from '../test/support/processes.ts'
import { madePair } from './lib/data.ts'
import { table } from './lib/markdown.ts'
import { Meter } from './lib/meter.ts'
import { figures, type Spread, spread, spreadText } from './lib/numbers.ts'
import { startProgram } from './lib/program.ts'
import { describeMachine, loadResults, provenance, saveResults, writeDocs } from './lib/report.ts'
import type { RunResults } from './lib/run-report.ts'

const USAGE = `Usage: bench/floor [--short] [--rounds N] [--write]

Sends as many bytes as each row of the last bench/run took, from a program that does nothing
else, and says how far upserv was from it. With --short: of the last bench/run --short.
`

/** So many at once where the row was measured so; more would measure the clients. */
const MOST_CLIENTS = 10

const CLIENT_MS = 10 * 60_000

const program = (name: string): string => fileURLToPath(new URL(`./lib/${name}`, import.meta.url))

const options = startProgram(USAGE, { rounds: 5 })
const name = options.short ? 'run-short' : 'run'
const last = loadResults<RunResults>(name)
if (!last) {
  console.error(`There are no results of bench/${name.replace('-', ' --')} in tmp/bench: run that first.`)
  process.exit(69)
}
const file = options.short ? (await madePair()).to.tar : last.pair.to.tar
const machine = await describeMachine()

interface FloorRow {
  readonly title: string
  readonly clients: number
  readonly bytes: number
  readonly upserv: number
  /** The same chunk again and again, and read from a file that is in the page cache. */
  readonly memory: Spread
  readonly file: Spread
}

const rows: FloorRow[] = []
for (const { row, clients, servers } of last.rows) {
  if (row.server || clients > MOST_CLIENTS) continue
  const { toDevice, toServer } = servers.upserv.linkBytes
  const upserv = spread(servers.upserv.cpu).median
  process.stderr.write(`${row.title}, ${clients} at once, ${formatSize(toDevice)} ... `)
  const memory = await floor(toDevice, toServer, clients)
  const fromFile = await floor(toDevice, toServer, clients, file)
  rows.push({ title: row.title, clients, bytes: toDevice, upserv, memory, file: fromFile })
  process.stderr.write(`${figures(memory.median)} s, from a file ${figures(fromFile.median)} s\n`)
}
saveResults(options.short ? 'floor-short' : 'floor', { machine, rows })
const header = [
  'what',
  'clients',
  'to each, MB',
  'only written, s',
  'read and written, s',
  'upserv, s',
  'upserv / read and written',
]
const text = [
  provenance('bench/floor', machine),
  'Server CPU seconds for each client: of a Node program that writes as many bytes and nothing else, of one that also reads them from a file, and of upserv.',
  table(
    header,
    rows.map((row) => [
      ...[
        row.title,
        String(row.clients),
        figures(row.bytes / 1e6),
        spreadText(row.memory),
        spreadText(row.file),
      ],
      ...[figures(row.upserv), figures(row.upserv / row.file.median)],
    ]),
  ),
].join('\n\n')
console.log(text)
if (options.write) writeDocs('bench/floor', text)

async function floor(toDevice: number, toServer: number, clients: number, source?: string): Promise<Spread> {
  const args = [program('floor-server.ts'), String(toDevice), ...(source ? [source] : [])]
  const server = new ServerProcess(process.execPath, args)
  const [, port] = await server.waitForOutput('stdout', /^listening (\d+)$/m)
  await using meter = new Meter(server.child.pid!)
  try {
    const values: number[] = []
    for (let round = -1; round < options.rounds; round++) {
      const { cpu } = await meter.during(async () => {
        const client = [program('floor-client.ts'), port!, String(toServer)]
        const runs = Array.from({ length: clients }, () =>
          run(process.execPath, client, { timeoutMs: CLIENT_MS }),
        )
        for (const { code, stderr } of await Promise.all(runs)) assert.equal(code, 0, stderr)
      })
      if (round >= 0) values.push(cpu.total / clients) // the first only warmed it up
    }
    return spread(values)
  } finally {
    await server.stop()
  }
}
