/**
 * `bench/fetch`: what the first request for a build costs beside `curl | DECOMPRESSOR | tar x`, on a whole
 * system from a local nginx, in one run and by turns. Wall time and CPU of everything that works.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { formatSize } from '../src/lib/units.ts'
import { startNginx } from '../test/support/nginx.ts'
import { quoteForShell, run } from '../test/support/processes.ts'
import { UPSERV } from '../test/support/upserv.ts'
import { type Build, debianPair, HOME, madePair } from './lib/data.ts'
import { table } from './lib/markdown.ts'
import { figures, spread, spreadText } from './lib/numbers.ts'
import { startProgram } from './lib/program.ts'
import { describeMachine, provenance, saveResults, writeDocs } from './lib/report.ts'

const USAGE = `Usage: bench/fetch [--short] [--rounds N] [--write] [gz] [bz2] [xz] [zst]

Fetches a whole system, in each of these forms, with \`upserv fetch\` into an empty store and with
\`curl | DECOMPRESSOR | tar x\`, by turns. Unless it is short, it fails when the wall time is more than
1.1 times that for bz2 and xz, 1.5 times for gz and zst.
`

/** How mirrors have them, each at its program's default; and the ratio of wall times that must hold. */
const FORMS = [
  { suffix: 'gz', pack: 'gzip -n', unpack: 'gzip -dc', most: 1.5 },
  { suffix: 'bz2', pack: 'lbzip2', unpack: 'lbzip2 -dc', most: 1.1 },
  { suffix: 'xz', pack: 'xz -6 -T0', unpack: 'xz -dc -T0', most: 1.1 },
  { suffix: 'zst', pack: 'zstd -q -3 -T0', unpack: 'zstd -q -dc', most: 1.5 },
]
const STEP_MS = 60 * 60_000

interface Cost {
  /** Seconds. */
  wall: number
  /** Seconds of all processes, the web server's apart. */
  cpu: number
}

interface Row {
  form: string
  most: number
  archiveBytes: number
  peer: Cost[]
  ours: Cost[]
}

const options = startProgram(USAGE, { rounds: 5 })
const wanted = FORMS.filter(({ suffix }) => options.only.length === 0 || options.only.includes(suffix))
const machine = await describeMachine()
const build = (await (options.short ? madePair() : debianPair())).to
const home = join(HOME, 'fetch')
const www = join(home, 'www', `${basename(dirname(build.directory))}-${build.id}`)
const rows = await measure()
const text = report(rows)
console.log(`${text}\n`)
if (!options.short) saveResults('fetch', { machine, rows })
if (options.write) writeDocs('bench/fetch', text)
const slow = rows.filter((row) => ratio(row, 'wall') > row.most)
for (const row of slow) console.error(`${row.form}: ${figures(ratio(row, 'wall'))} is more than ${row.most}`)
if (!options.short && slow.length > 0) process.exitCode = 1

async function measure(): Promise<Row[]> {
  mkdirSync(www, { recursive: true })
  for (const { suffix, pack } of wanted) {
    const path = join(www, suffix)
    if (existsSync(path)) continue
    console.error(`Packing ${suffix} ...`)
    await shell(`${pack} < ${quoteForShell(build.tar)} > ${quoteForShell(`${path}.new`)}`)
    renameSync(`${path}.new`, path)
  }
  const nginx = await startNginx({ root: www, scratch: join(home, 'nginx') })
  try {
    const measured = wanted.map(({ suffix, most }): Row => {
      const archiveBytes = statSync(join(www, suffix)).size
      return { form: suffix, most, archiveBytes, peer: [], ours: [] }
    })
    // All forms in each round: a machine that others use changes as the hours pass.
    for (let round = 0; round < options.rounds; round++) {
      for (const [i, row] of measured.entries()) {
        const { suffix, unpack } = wanted[i]!
        const peer = async (): Promise<void> =>
          void row.peer.push(await timed(`curl -sf ${nginx.url}/${suffix} | ${unpack} | tar -C out -x`))
        const ours = async (): Promise<void> =>
          void row.ours.push(
            await timed(
              `${quoteForShell(UPSERV)} fetch ${suffix} --data out --config upserv.toml`,
              nginx.url,
            ),
          )
        for (const turn of round % 2 === 0 ? [peer, ours] : [ours, peer]) await turn()
        console.error(
          `${round + 1} ${suffix.padEnd(4)} ${[row.peer, row.ours].map((costs) => show(costs.at(-1)!)).join('   ')}`,
        )
      }
    }
    return measured
  } finally {
    await nginx.stop()
    rmSync(join(home, 'place'), { recursive: true, force: true })
  }
}

/** Runs a command line in a fresh place, with an empty directory `out`. The shell says what its children took. */
async function timed(command: string, upstream = ''): Promise<Cost> {
  const place = join(home, 'place')
  rmSync(place, { recursive: true, force: true })
  mkdirSync(join(place, 'out'), { recursive: true })
  writeFileSync(join(place, 'upserv.toml'), `[[source]]\nname = "nginx"\nurl = "${upstream}/{build}"\n`)
  await run('sync', [])
  const printed = await shell(
    `cd ${quoteForShell(place)}; TIMEFORMAT='%R %U %S'; { time { ${command}; } >/dev/null; } 2>&1`,
  )
  const times = printed.trim().split('\n').at(-1)!.split(' ').map(Number)
  const [wall = Number.NaN, user = Number.NaN, system = Number.NaN] = times
  assert.ok(Number.isFinite(wall + user + system), `${command}: ${printed}`)
  return { wall, cpu: user + system }
}

async function shell(script: string): Promise<string> {
  const result = await run('bash', ['-e', '-o', 'pipefail', '-c', script], { timeoutMs: STEP_MS })
  assert.equal(result.code, 0, `${script}\n${result.stdout}${result.stderr}`)
  return result.stdout
}

function show({ wall, cpu }: Cost): string {
  return `${figures(wall)} s, CPU ${figures(cpu)} s`
}

function ratio({ peer, ours }: Row, what: keyof Cost): number {
  const median = (costs: readonly Cost[]): number => spread(costs.map((cost) => cost[what])).median
  return median(ours) / median(peer)
}

function report(measured: readonly Row[]): string {
  const { entries, bytes, id } = build satisfies Build
  const seconds = (costs: readonly Cost[], what: keyof Cost): string =>
    spreadText(spread(costs.map((cost) => cost[what])))
  const lines = measured.map((row) => [
    `${row.form}, ${formatSize(row.archiveBytes)}`,
    seconds(row.peer, 'wall'),
    seconds(row.ours, 'wall'),
    `${figures(ratio(row, 'wall'))} (${row.most})`,
    seconds(row.peer, 'cpu'),
    seconds(row.ours, 'cpu'),
    figures(ratio(row, 'cpu')),
  ])
  const header = ['form', 'curl, tar: wall', 'upserv: wall', 'ratio (at most)']
  return [
    provenance(`bench/fetch --rounds ${options.rounds}`, machine),
    `Build ${id}: ${entries} entries, ${formatSize(bytes)}. Seconds: median (least-greatest).`,
    table([...header, 'curl, tar: CPU', 'upserv: CPU', 'ratio'], lines),
  ].join('\n\n')
}
