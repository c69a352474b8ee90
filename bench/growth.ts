/**
 * `bench/growth`: what becomes of CPU and memory as builds, fleets and the number of builds grow. Each
 * sweep varies one and leaves the others; a fitted power says how it grows: 0 not at all, 1 in proportion.
 */
import { formatDuration } from '../src/lib/units.ts'
import { measureRun } from './lib/compare.ts'
import { type Build, madeBuild, type Pair } from './lib/data.ts'
import { table } from './lib/markdown.ts'
import { figures, fitPower, spread } from './lib/numbers.ts'
import { linePlot } from './lib/plot.ts'
import { startProgram } from './lib/program.ts'
import { describeMachine, loadResults, provenance, saveResults, writeDocs } from './lib/report.ts'
import {
  fillData,
  importBuild,
  SERVER_NAMES,
  type Server,
  type ServerKind,
  startOurs,
  startStock,
} from './lib/servers.ts'

const USAGE = `Usage: bench/growth [--short] [--rounds N] [--write] [entries] [clients] [builds]

Measures polls and updates with builds of 1,000 to 500,000 entries, with 1 to 200 clients, and
with 1 to 200 builds held: all, or those that are named beside what the last run has of the
others. Results are in tmp/bench/growth.json. Builds are generated and kept under
tmp/bench/data: some GB.
`

const SWEEPS = ['entries', 'clients', 'builds'] as const
type Sweep = (typeof SWEEPS)[number]

/** One measurement: what grew, and what it cost. */
interface Point {
  readonly sweep: Sweep
  readonly server: ServerKind
  readonly what: 'poll' | 'update' | 'start'
  readonly x: number
  /** Server CPU seconds: for each client, or of a start. */
  readonly cpu: number
  /** Most PSS while they ran, or when it had started; bytes. */
  readonly pss: number
}

const options = startProgram(USAGE, { rounds: 3 })
const wanted = SWEEPS.filter((sweep) => options.only.length === 0 || options.only.includes(sweep))
const COUNTS: Record<Sweep, readonly number[]> = options.short
  ? { entries: [500, 1_000, 2_000], clients: [1, 5, 10], builds: [1, 5] }
  : {
      entries: [1_000, 10_000, 100_000, 500_000],
      clients: [1, 2, 5, 10, 20, 50, 100, 200],
      builds: [1, 10, 50, 100, 200],
    }

/** Of the sweeps that vary something else. */
const ENTRIES = options.short ? 1_000 : 10_000

/** Small files: it is the number of entries that grows here. */
const FILE_BYTES = 1_000

/** Sampling must catch a poll of a small build, too. */
const SAMPLE_MS = 50

const machine = await describeMachine()
const name = options.short ? 'growth-short' : 'growth'
/** Of what is not measured now, what was measured before. */
const points = (loadResults<{ points: Point[] }>(name)?.points ?? []).filter(
  ({ sweep }) => !wanted.includes(sweep),
)
const started = performance.now()
if (wanted.includes('entries')) await growEntries()
if (wanted.includes('clients')) await growClients()
if (wanted.includes('builds')) await growBuilds()
const text = describe()
console.log(text)
if (options.write) writeDocs('bench/growth', text, plots())
console.error(`\nThis took ${formatDuration(performance.now() - started)}.`)

// ---------------------------------------------------------------------------------------------------

async function growEntries(): Promise<void> {
  for (const entries of COUNTS.entries) {
    const pair = await pairOf(entries)
    const data = await fillData('upserv-growth', [pair.from, pair.to])
    for (const kind of ['rsyncd', 'upserv'] as const) {
      await using server = kind === 'rsyncd' ? await startStock([pair.to]) : await startOurs(data)
      for (const what of ['poll', 'update'] as const) await measure('entries', server, pair, what, entries, 1)
    }
  }
}

async function growClients(): Promise<void> {
  const pair = await pairOf(ENTRIES)
  const data = await fillData('upserv-growth', [pair.from, pair.to])
  for (const kind of ['rsyncd', 'upserv'] as const) {
    await using server = kind === 'rsyncd' ? await startStock([pair.to]) : await startOurs(data)
    for (const clients of COUNTS.clients)
      for (const what of ['poll', 'update'] as const)
        await measure('clients', server, pair, what, clients, clients)
  }
}

/** Only of upserv: for the daemon, a build more is a line in its configuration. */
async function growBuilds(): Promise<void> {
  const pair = await pairOf(ENTRIES)
  const data = await fillData('upserv-growth', [])
  let held = 0
  for (const builds of COUNTS.builds) {
    for (; held < builds; held++) await importBuild(data, (await generation(ENTRIES, held)).tar, `g${held}`)
    for (let round = 0; round < options.rounds; round++) {
      await using server = await startOurs(data)
      await server.meter.settle()
      const { pss } = await server.meter.memory()
      add({
        sweep: 'builds',
        server: 'upserv',
        what: 'start',
        x: builds,
        cpu: server.meter.sinceStart(),
        pss,
      })
      if (round === 0 && builds > 1) await measure('builds', server, pair, 'update', builds, 1)
    }
  }
}

async function measure(
  sweep: Sweep,
  server: Server,
  pair: Pair,
  what: 'poll' | 'update',
  x: number,
  clients: number,
): Promise<void> {
  const run = { pair, method: what, options: [], clients }
  await measureRun(server, { ...run, clients: 1 }) // what is worked out once is not what grows
  const rounds = clients >= 50 ? 1 : options.rounds
  const cpus: number[] = []
  const stop = server.meter.watch(SAMPLE_MS)
  for (let round = 0; round < rounds; round++) cpus.push((await measureRun(server, run)).cpu.total / clients)
  const { pss } = await stop()
  add({ sweep, server: server.kind, what, x, cpu: spread(cpus).median, pss })
}

function add(point: Point): void {
  points.push(point)
  const { sweep, x, server, what, cpu, pss } = point
  console.error(`${x} ${sweep}, ${server}, ${what}: ${figures(cpu)} s, ${figures(pss / 1e6)} MB`)
  saveResults(name, { machine, points })
}

async function pairOf(entries: number): Promise<Pair> {
  const [from, to] = [await generation(entries, 0), await generation(entries, 1)]
  return { name: `made-${entries}`, description: 'generated', from, to }
}

function generation(entries: number, number: number): Promise<Build> {
  return madeBuild({ entries, generation: number, fileBytes: FILE_BYTES, largeEvery: 0 })
}

// ---------------------------------------------------------------------------------------------------

interface Curve {
  readonly sweep: Sweep
  readonly server: ServerKind
  readonly what: Point['what']
  readonly points: readonly Point[]
}

function curves(): Curve[] {
  const inOrder = points.toSorted((a, b) => SWEEPS.indexOf(a.sweep) - SWEEPS.indexOf(b.sweep))
  const groups = Map.groupBy(inOrder, ({ sweep, server, what }) => `${sweep} ${server} ${what}`)
  return [...groups.values()].map((group) => {
    const { sweep, server, what } = group[0]!
    const byX = [...Map.groupBy(group, ({ x }) => x).values()]
    const medians = byX.map((same) => ({
      ...same[0]!,
      cpu: spread(same.map(({ cpu }) => cpu)).median,
      pss: Math.max(...same.map(({ pss }) => pss)),
    }))
    return { sweep, server, what, points: medians }
  })
}

function describe(): string {
  const rows = curves().map(({ sweep, server, what, points }) => {
    const fit = (value: (point: Point) => number): string => {
      const power = fitPower(points.map((point) => [point.x, value(point)]))
      return power ? `${power.exponent.toFixed(2)} (${power.r2.toFixed(2)})` : ''
    }
    const list = (value: (point: Point) => number): string => points.map((p) => figures(value(p))).join(', ')
    return [
      ...[sweep, SERVER_NAMES[server], what, points.map(({ x }) => x).join(', ')],
      ...[list(({ cpu }) => cpu), fit(({ cpu }) => cpu)],
      ...[list(({ pss }) => pss / 1e6), fit(({ pss }) => pss)],
    ]
  })
  const header = [
    'what grows',
    'server',
    'what is done',
    'how many',
    'CPU, s',
    'grows as',
    'memory, MB',
    'grows as',
  ]
  return [
    provenance(
      ['bench/growth', ...process.argv.slice(2).filter((word) => word !== '--write')].join(' '),
      machine,
    ),
    'Server CPU for each client (or of a start), most PSS; "grows as" is the exponent of a fitted power, with how much of the spread it explains: 0 is flat, 1 is in proportion. A cost that has a fixed part grows more slowly than it will later.',
    table(header, rows),
  ].join('\n\n')
}

function plots(): Record<string, string> {
  const drawn = [
    { name: 'cpu', yLabel: 'CPU seconds', value: ({ cpu }: Point) => cpu },
    { name: 'memory', yLabel: 'MB (PSS)', value: ({ pss }: Point) => pss / 1e6 },
  ]
  const measured = SWEEPS.filter((sweep) => points.some((point) => point.sweep === sweep))
  const all = measured.flatMap((sweep) =>
    drawn.map(({ name, yLabel, value }) => {
      const series = curves()
        .filter((curve) => curve.sweep === sweep)
        .map(({ server, what, points }) => ({
          name: `${what}, ${SERVER_NAMES[server]}`,
          dashed: server === 'rsyncd',
          points: points.map((point) => [point.x, value(point)] as const),
        }))
      const plot = {
        title: `${yLabel} as ${sweep} grow`,
        xLabel: sweep,
        yLabel,
        logX: true,
        logY: true,
        series,
      }
      return [`growth-${sweep}-${name}`, linePlot(plot)] as const
    }),
  )
  return Object.fromEntries(all)
}
