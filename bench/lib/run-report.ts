/** What `bench/run` found, as the page shows it: tables, verdicts, plots. */
import { formatSize } from '../../src/lib/units.ts'
import { commandLine } from './clients.ts'
import { judge, linkTotal, type RowResult } from './compare.ts'
import type { Held, Idleness } from './connections.ts'
import type { Pair } from './data.ts'
import type { LoadResult } from './load.ts'
import { table } from './markdown.ts'
import { figures, ratioText, spread, spreadText } from './numbers.ts'
import { barPlot, linePlot, type Series } from './plot.ts'
import { type Machine, provenance } from './report.ts'
import { isFirstOfFleet, MOST_PSS_50_CLIENTS, MOST_PSS_500_CONNECTIONS } from './rows.ts'
import { SERVER_NAMES, type ServerKind } from './servers.ts'

export interface RunResults {
  readonly command: string
  readonly machine: Machine
  readonly pair: Pair
  readonly rounds: number
  /** A short run shows the figures and says nothing of what is required. */
  readonly isJudged: boolean
  readonly rows: RowResult[]
  readonly connections: Partial<Record<Idleness, Record<ServerKind, Held>>>
  readonly load: Record<string, Record<ServerKind, LoadResult>>
}

/** Everything as Markdown, and what was required and not achieved. */
export function describeRun(results: RunResults): { text: string; missed: string[] } {
  const { pair, rows } = results
  const missed: string[] = []
  const verdict = (what: string, isMet: boolean | undefined): string => {
    if (!results.isJudged || isMet === undefined) return ''
    if (!isMet) missed.push(what)
    return isMet ? 'yes' : '**no**'
  }
  const parts = [
    provenance(results.command, results.machine),
    `${pair.description}. ${pair.from.entries} and ${pair.to.entries} entries, ${formatSize(pair.from.bytes)} and ${formatSize(pair.to.bytes)}.`,
  ]
  if (rows.length > 0)
    parts.push(
      '### Server CPU for each client',
      `Seconds, user and system, of all the server's processes and threads: median (least-greatest) of ${results.rounds} rounds, fewer with many clients.`,
      cpuTable(rows, verdict),
      laterText(rows),
      '### Bytes on the link',
      "MB for each client at the server's socket, both directions.",
      bytesTable(rows, verdict),
      '### Completions and memory',
      'Clients and server share the processors. Memory: the most PSS seen at one time, over all processes of the server.',
      memoryTable(rows, verdict),
    )
  const held = connectionsTable(results, verdict)
  if (held !== '') parts.push('### Connections that do nothing', held)
  if (Object.keys(results.load).length > 0)
    parts.push(
      '### Under load',
      'All at once: the updates (their clients get what nobody else takes of the processors, as devices have their own), polls one after the other, and (upserv) a build that is ingested. The loop is late when the server has work, and when the machine has; "of its own" is what its thread worked without a turn for anybody else.',
      loadTable(results),
    )
  if (rows.length > 0) parts.push('### Commands', commands(rows))
  return { text: parts.filter(Boolean).join('\n\n'), missed }
}

type Judge = (what: string, isMet: boolean | undefined) => string

function rowName({ row, clients }: RowResult): string {
  return `${row.title}, ${clients}`
}

function cpuTable(results: readonly RowResult[], verdict: Judge): string {
  const header = ['what', 'clients', ...Object.values(SERVER_NAMES), 'ratio', 'required', 'achieved']
  return table(
    header,
    results.map((result) => {
      const { row, clients, servers } = result
      const { cpuRatio, cpuIsMet } = judge(result)
      return [
        ...[row.title, String(clients)],
        ...(['rsyncd', 'upserv'] as const).map((kind) => spreadText(spread(servers[kind].cpu))),
        ratioText(cpuRatio),
        row.cpu === undefined ? '' : ratioText(row.cpu),
        verdict(`CPU of ${rowName(result)}`, cpuIsMet),
      ]
    }),
  )
}

/** What the first client of a fleet causes behind its back. */
function laterText(results: readonly RowResult[]): string {
  const said = results
    .filter(({ row }) => isFirstOfFleet(row))
    .map(({ row, servers }) => `${row.title}: ${spreadText(spread(servers.upserv.laterCpu))}`)
  return said.length === 0
    ? ''
    : `Not in it, as it is paid once for a fleet and while no client is served: compressing again what went out. ${said.join('; ')} seconds.`
}

function bytesTable(results: readonly RowResult[], verdict: Judge): string {
  const perRow = results.filter(({ row, clients }) => clients === row.clients[0])
  const header = ['what', ...Object.values(SERVER_NAMES), 'ratio', 'required', 'achieved']
  return table(
    header,
    perRow.map((result) => {
      const { row, servers } = result
      const { bytesRatio, bytesAreMet } = judge(result)
      return [
        row.title,
        ...(['rsyncd', 'upserv'] as const).map((kind) => figures(linkTotal(servers[kind]) / 1e6)),
        bytesRatio.toFixed(3),
        row.bytes === undefined ? '' : figures(row.bytes),
        verdict(`bytes of ${row.title}`, bytesAreMet),
      ]
    }),
  )
}

function memoryTable(results: readonly RowResult[], verdict: Judge): string {
  const header = [
    'what',
    'clients',
    'done/s, daemon',
    'done/s, upserv',
    'MB, daemon',
    'MB, upserv',
    'achieved',
  ]
  return table(
    header,
    results
      .filter(({ servers }) => servers.upserv.pss.length > 0)
      .map((result) => {
        const { row, clients, servers } = result
        const [stock, ours] = [servers.rsyncd, servers.upserv].map(({ pss }) => Math.max(...pss)) as [
          number,
          number,
        ]
        const isMet = clients < 50 ? undefined : ours <= stock && ours <= MOST_PSS_50_CLIENTS
        return [
          ...[row.title, String(clients)],
          ...(['rsyncd', 'upserv'] as const).map((kind) => spreadText(spread(servers[kind].perSecond))),
          ...[stock, ours].map((bytes) => figures(bytes / 1e6)),
          verdict(`memory of ${rowName(result)}`, isMet),
        ]
      }),
  )
}

function connectionsTable(results: RunResults, verdict: Judge): string {
  const rows = Object.entries(results.connections).map(([idleness, { rsyncd, upserv }]) => [
    `${upserv.count} ${idleness}`,
    ...[rsyncd, upserv].map(
      ({ pssBefore, pss }) => `${figures(pss / 1e6)} (${figures(pssBefore / 1e6)} before)`,
    ),
    verdict(`memory of ${upserv.count} ${idleness} connections`, upserv.pss <= MOST_PSS_500_CONNECTIONS),
  ])
  if (rows.length === 0) return ''
  return table(['connections', 'MB, daemon', 'MB, upserv', 'at most 400 MB'], rows)
}

function loadTable(results: RunResults): string {
  const names = [
    'updates',
    'server',
    'done/s',
    'first byte of a poll, ms (p99)',
    'event loop late, ms p99 (most)',
    'of its own, ms p99 (most)',
  ]
  const rows = Object.entries(results.load).flatMap(([what, both]) =>
    (['rsyncd', 'upserv'] as const).map((kind) => {
      const { clients, perSecond, firstByteMs, lag, peakPss, ingestMs } = both[kind]
      return [
        `${clients} × ${what}`,
        SERVER_NAMES[kind],
        figures(perSecond),
        `${figures(firstByteMs.median)} (${figures(firstByteMs.p99)})`,
        lag ? `${figures(lag.p99)} (${figures(lag.max)})` : '',
        lag ? `${figures(lag.busyP99)} (${figures(lag.busyMax)})` : '',
        figures(peakPss / 1e6),
        ingestMs === undefined ? '' : figures(ingestMs / 1000),
      ]
    }),
  )
  return table([...names, 'MB', 'ingest, s'], rows)
}

function commands(rows: readonly RowResult[]): string {
  const seen = new Map(rows.map(({ row }) => [row.title, commandLine(row.method, row.options)]))
  return [...seen].map(([title, command]) => `- ${title}: \`${command}\``).join('\n')
}

// ---------------------------------------------------------------------------------------------------

/** By file name. */
export function plotRun({ rows }: RunResults): Record<string, string> {
  const drawn = ['update', 'update-z', 'poll']
  const series = (value: (result: RowResult, kind: ServerKind) => number): Series[] =>
    drawn.flatMap((id) =>
      (['rsyncd', 'upserv'] as const).map((kind) => ({
        name: `${id}, ${SERVER_NAMES[kind]}`,
        dashed: kind === 'rsyncd',
        points: rows
          .filter(({ row }) => row.id === id)
          .map((result) => [result.clients, value(result, kind)] as const),
      })),
    )
  const byMethod = rows.filter(({ row, clients }) => clients === row.clients[0] && !row.server)
  return {
    'cpu-per-client': linePlot({
      title: 'Server CPU for each client',
      xLabel: 'clients at once',
      yLabel: 'seconds',
      ...{ logX: true, logY: true },
      series: series(({ servers }, kind) => spread(servers[kind].cpu).median),
    }),
    'bytes-per-method': barPlot({
      title: 'Bytes on the link for each client, first syncs left out',
      yLabel: 'MB',
      names: Object.values(SERVER_NAMES),
      groups: byMethod
        .filter(({ row }) => row.method !== 'first')
        .map(({ row, servers }) => ({
          label: row.id,
          values: [linkTotal(servers.rsyncd) / 1e6, linkTotal(servers.upserv) / 1e6],
        })),
    }),
    'memory-and-clients': linePlot({
      title: 'Memory of the server',
      xLabel: 'clients at once',
      yLabel: 'MB (PSS)',
      series: series(({ servers }, kind) => Math.max(0, ...servers[kind].pss) / 1e6).map((one) => ({
        ...one,
        points: one.points.filter(([, megabytes]) => megabytes > 0),
      })),
    }),
  }
}
