/** `bench/profile`: where upserv spends its time once it has worked out what can be kept. */
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { runClients } from './lib/clients.ts'
import { debianPair, HOME, madePair } from './lib/data.ts'
import { table } from './lib/markdown.ts'
import { figures } from './lib/numbers.ts'
import { type CpuProfile, selfTimes } from './lib/profile.ts'
import { startProgram } from './lib/program.ts'
import { describeMachine, provenance, saveResults, writeDocs } from './lib/report.ts'
import { ROWS } from './lib/rows.ts'
import { fillData, startOurs } from './lib/servers.ts'

const USAGE = `Usage: bench/profile [--short] [--rounds N] [--write] [ROW...]

Runs N clients of a row, one after the other, against an upserv with V8's profiler, after two that
warm it up, and prints the functions that took the most time themselves, over all threads.
ROWs as for bench/run; update, update-z and poll when none is named. The profiles are kept in
tmp/bench/profile/ROW, for a browser's or an editor's profile view.
`

/** What is left is spread thinly. */
const SHOWN = 15

/** Finer than the default of 1 ms: a poll is short. */
const INTERVAL_US = 500

/** The profiler itself keeps every thread awake for a few percent of a core. */
const QUIET_SHARE = 0.15

const options = startProgram(USAGE, { rounds: 5 })
const names = options.only.length > 0 ? options.only : ['update', 'update-z', 'poll']
const rows = ROWS.filter(({ id }) => names.includes(id))
if (rows.length < names.length) {
  const unknown = names.filter((name) => !rows.some(({ id }) => id === name))
  process.stderr.write(`no such row: ${unknown.join(', ')}\n${USAGE}`)
  process.exit(64)
}
const pair = options.short ? await madePair() : await debianPair()
const machine = await describeMachine()
const data = await fillData('upserv-profile', [pair.from, pair.to])
const parts = [
  provenance(
    ['bench/profile', ...process.argv.slice(2).filter((word) => word !== '--write')].join(' '),
    machine,
  ),
  'The functions that took the most time themselves, over all of upserv\'s threads that run JavaScript. What system calls take is in "(program)"; libuv\'s pool (file reads, compression) is not in it: `bench/run` counts it.',
]
const results: Record<string, unknown> = { machine }
for (const row of rows) {
  process.stderr.write(`${row.title} ... `)
  const place = join(HOME, 'profile', row.id)
  rmSync(place, { recursive: true, force: true })
  mkdirSync(place, { recursive: true })
  const flags = ['--cpu-prof', `--cpu-prof-dir=${place}`, `--cpu-prof-interval=${INTERVAL_US}`]
  let [from, to] = [0, 0]
  {
    await using server = await startOurs(data, { NODE_OPTIONS: flags.join(' ') })
    const client = { pair, method: row.method, options: row.options, port: server.port, clients: 1 }
    for (let warmUp = 0; warmUp < 2; warmUp++) await runClients(client)
    await server.meter.settle(QUIET_SHARE)
    from = monotonicMicroseconds()
    for (let round = 0; round < options.rounds; round++) await runClients(client)
    await server.meter.settle(QUIET_SHARE)
    to = monotonicMicroseconds()
  }
  const profiles = readdirSync(place).map(
    (file) => JSON.parse(readFileSync(join(place, file), 'utf8')) as CpuProfile,
  )
  const times = selfTimes(profiles, from, to)
  const total = times.reduce((sum, { seconds }) => sum + seconds, 0)
  process.stderr.write(`${figures(total / options.rounds)} s for each client\n`)
  results[row.id] = { rounds: options.rounds, total, times: times.slice(0, 100) }
  parts.push(
    `### ${row.title}`,
    `${figures(total / options.rounds)} s for each client, as the profiler counts them.`,
    table(
      ['function', 'ms for each client', 'part'],
      times
        .slice(0, SHOWN)
        .map(({ where, seconds }) => [
          `\`${where}\``,
          figures((1000 * seconds) / options.rounds),
          `${((100 * seconds) / total).toFixed(0)} %`,
        ]),
    ),
  )
}
saveResults(options.short ? 'profile-short' : 'profile', results)
const text = parts.join('\n\n')
console.log(text)
if (options.write) writeDocs('bench/profile', text)

/** The clock that V8's profiles tell. */
function monotonicMicroseconds(): number {
  return Number(process.hrtime.bigint() / 1000n)
}
