/** `bench/run`: upserv beside the stock daemon. bench/README.md says how to read what it prints. */
import { formatDuration, formatSize } from '../src/lib/units.ts'
import { Contest, judge, measureRow } from './lib/compare.ts'
import { type Held, holdConnections } from './lib/connections.ts'
import { debianPair, madePair } from './lib/data.ts'
import { loadOurs, loadStock } from './lib/load.ts'
import { figures, ratioText } from './lib/numbers.ts'
import { startProgram } from './lib/program.ts'
import { describeMachine, saveResults, writeDocs } from './lib/report.ts'
import { ROWS } from './lib/rows.ts'
import { describeRun, plotRun, type RunResults } from './lib/run-report.ts'
import { canWarm, type ServerKind } from './lib/servers.ts'

const USAGE = `Usage: bench/run [--short] [--rounds N] [--most N] [--write] [ROW...]

Measures upserv beside the stock rsync --daemon: the same builds, clients and machine, in
turn. Prints server CPU, bytes on the link and memory, each with what upserv must achieve,
and ends with 1 when it doesn't. ROWs by name (${ROWS.map(({ id }) => id).join(' ')}
memory load); all of them take some hours on two cores.
Results are in tmp/bench/run.json as soon as each row is done.
`

/** Many clients at once are half their own repetition: what the machine does besides, they all meet alike. */
const roundsFor = (clients: number, rounds: number): number =>
  clients >= 10 ? Math.ceil(rounds / 2) : rounds

const options = startProgram(USAGE, { rounds: 5 })
const known = ['memory', 'load', ...ROWS.map(({ id }) => id)]
const unknown = options.only.filter((name) => !known.includes(name))
if (unknown.length > 0) refuse(`no such row: ${unknown.join(', ')}`)
if (options.write && options.only.length > 0)
  refuse("--write is for a whole run: it replaces the page's tables")
const isWanted = (name: string): boolean => options.only.length === 0 || options.only.includes(name)

const started = performance.now()
const pair = options.short ? await madePair() : await debianPair()
const results: RunResults = {
  command: ['bench/run', ...process.argv.slice(2).filter((word) => word !== '--write')].join(' '),
  machine: await describeMachine(),
  pair,
  rounds: options.rounds,
  isJudged: !options.short,
  ...{ rows: [], connections: {}, load: {} },
}
await measureRows()
if (isWanted('load')) await measureLoad()
const { missed, text } = describeRun(results)
console.log(text)
console.error(`\nThis took ${formatDuration(performance.now() - started)}.`)
if (options.write) writeDocs('bench/run', text, plotRun(results))
if (options.short) console.error('A short run shows that it works; it judges nothing.')
else if (missed.length > 0) {
  console.error(`Not achieved: ${missed.join('; ')}`)
  process.exitCode = 1
}

// ---------------------------------------------------------------------------------------------------

function refuse(why: string): never {
  process.stderr.write(`${why}\n${USAGE}`)
  process.exit(64)
}

async function measureRows(): Promise<void> {
  await using contest = await Contest.start(pair)
  for (const row of ROWS.filter(({ id }) => isWanted(id))) {
    if (row.server === 'warmed' && !(await canWarm())) continue
    const counts = row.clients.filter((count) => count <= options.most)
    for (const clients of options.short ? counts.slice(0, 1) : counts) {
      process.stderr.write(`${row.title}, ${clients} at once ... `)
      const result = await measureRow(contest, row, clients, roundsFor(clients, options.rounds))
      const { cpuRatio, bytesRatio } = judge(result)
      process.stderr.write(`CPU ${ratioText(cpuRatio)}, bytes ${figures(bytesRatio)}\n`)
      results.rows.push(result)
      saveResults(name(), results)
    }
  }
  if (!isWanted('memory')) return
  await contest.restartOurs('keep')
  const count = options.short ? 50 : 500
  for (const idleness of ['idle', 'stalled'] as const) {
    const held: Partial<Record<ServerKind, Held>> = {}
    for (const kind of ['rsyncd', 'upserv'] as const) {
      process.stderr.write(`${count} ${idleness} connections, ${kind} ... `)
      const one = await holdConnections(contest.server(kind), pair.to, count, idleness)
      process.stderr.write(`${formatSize(one.pss)}\n`)
      held[kind] = one
    }
    results.connections[idleness] = held as Record<ServerKind, Held>
  }
  saveResults(name(), results)
}

async function measureLoad(): Promise<void> {
  for (const flags of options.short ? [[]] : [[], ['-z']]) {
    const load = { pair, options: flags, clients: options.short ? 5 : 50 }
    process.stderr.write(`${load.clients} updates ${flags.join(' ')} while a build comes in ... `)
    const both = { rsyncd: await loadStock(load), upserv: await loadOurs(load) }
    process.stderr.write(`event loop late by ${figures(both.upserv.lag!.p99)} ms (p99)\n`)
    results.load[['update', ...flags].join(' ')] = both
    saveResults(name(), results)
  }
}

/** A run of a few rows must not overwrite the results of a whole one. */
function name(): string {
  return options.short ? 'run-short' : options.only.length > 0 ? `run-${options.only.join('-')}` : 'run'
}
