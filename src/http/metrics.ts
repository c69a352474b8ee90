/**
 * /metrics, as Prometheus reads them. Counters are those of Activity, taken over when somebody asks, so that
 * nothing has to be counted twice; what the process itself does is prom-client's.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Activity } from '../build/activity.ts'
import type { Operations } from '../build/operations.ts'
import { CODES } from '../errors.ts'
import type { SessionRecord } from '../history/session-record.ts'
import { SingleFlight } from '../lib/single-flight.ts'
import type { BuildsView } from './builds-view.ts'
import type { View } from './view.ts'

/** What a fetch may fail with, and what ends a session. */
const FETCH_CODES = [...CODES.upstream, ...CODES.operator, ...CODES.disk, ...CODES.ours]
const SESSION_CODES = [...CODES.peer, ...FETCH_CODES]
const SECONDS = [0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 900, 3600]

export interface MetricsParts {
  operations: Operations
  activity: Activity
  builds: BuildsView
  /** Pages that are open. */
  watchers: () => number
}

export interface MetricsText {
  type: string
  text: string
}

/** @returns what makes the text of /metrics, in which builds are counted that who asks may hear of. */
export function createMetrics({
  operations,
  activity,
  builds: held,
  watchers,
}: MetricsParts): (view: View) => Promise<MetricsText> {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const registers = [registry]
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> =>
    new Counter({ name: `upserv_${name}`, help, labelNames, registers })
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[] = []): Gauge<L> =>
    new Gauge({ name: `upserv_${name}`, help, labelNames, registers })

  const info = gauge('build_info', 'Always 1; the version of the program.', ['version'])
  const sessionsNow = gauge('sessions_connected', 'Clients that are connected.')
  const inLine = gauge('sessions_in_line', 'Clients that wait in line for their turn to transfer.')
  const sessions = counter('sessions_total', 'Sessions that have ended, by how.', ['outcome'])
  const failures = counter(
    'session_failures_total',
    'Sessions that did not end well, by the code of the error.',
    ['code'],
  )
  const sessionBytes = counter('session_bytes_total', 'Bytes on the wire of sessions that have ended.', [
    'direction',
  ])
  const content = counter(
    'content_bytes_total',
    'Content of files that were sent: matched is what clients had already, literal what they had not.',
    ['kind'],
  )
  const files = counter('files_sent_total', 'Files that were sent.')
  const answers = counter(
    'answers_total',
    'How answers were had: searched and prepared were worked out, reused had been before.',
    ['how'],
  )
  const fetches = counter('fetches_total', 'Fetches that have ended, by how.', ['outcome'])
  const fetchFailures = counter('fetch_failures_total', 'Fetches that failed, by the code of the error.', [
    'code',
  ])
  const fetchedBytes = counter(
    'fetched_bytes_total',
    'Bytes that were downloaded by fetches that have ended.',
  )
  const fetchesNow = gauge('fetches_running', 'Fetches under way, those in line included.')
  const evictions = counter('evictions_total', 'Builds that had to go for the budget.')
  const budget = gauge('budget_bytes', 'The most that the data directory may take.')
  const used = gauge('used_bytes', 'What the data directory takes, by what for.', ['what'])
  const builds = gauge('builds_held', 'Builds that are held.')
  const damaged = gauge('builds_damaged', 'Builds that are known to be damaged.')
  const pages = gauge('watchers', 'Open streams of events: pages that are being looked at.')
  const durations = new Histogram({
    name: 'upserv_session_duration_seconds',
    help: 'How long sessions that transferred took, what they waited included.',
    buckets: SECONDS,
    registers,
  })
  const waits = new Histogram({
    name: 'upserv_session_wait_seconds',
    help: 'How long sessions that transferred waited, and for what.',
    labelNames: ['what'],
    buckets: SECONDS,
    registers,
  })

  activity.events.on('session', (record: SessionRecord) => {
    if (record.code !== '') failures.inc({ code: record.code })
    if (record.outcome !== 'done') return
    durations.observe(record.ms / 1000)
    waits.observe({ what: 'build' }, record.waitedMs.build / 1000)
    waits.observe({ what: 'line' }, record.waitedMs.line / 1000)
  })
  activity.events.on('fetch', ({ code }) => {
    if (code !== '') fetchFailures.inc({ code })
  })
  // From the start: a series that begins with 1 has not increased, so nobody would be told of the first.
  for (const code of FETCH_CODES) fetchFailures.inc({ code }, 0)
  for (const code of SESSION_CODES) failures.inc({ code }, 0)

  /** A counter is what Activity says it is: it never goes back, as Activity never does. */
  const set = <L extends string>(
    to: Counter<L>,
    value: number,
    labels: Partial<Record<L, string>> = {},
  ): void => {
    to.remove(labels)
    to.inc(labels, value)
  }
  const textFor = async (view: View): Promise<MetricsText> => {
    const status = view.status(await operations.status(), await held.get())
    const { totals } = activity
    info.set({ version: status.version }, 1)
    sessionsNow.set(status.sessions)
    inLine.set(status.inLine)
    for (const [outcome, value] of Object.entries(totals.sessions)) set(sessions, value, { outcome })
    set(sessionBytes, totals.bytesIn, { direction: 'in' })
    set(sessionBytes, totals.bytesOut, { direction: 'out' })
    set(content, totals.matchedBytes, { kind: 'matched' })
    set(content, totals.literalBytes, { kind: 'literal' })
    set(files, totals.files)
    for (const how of ['searched', 'prepared', 'reused'] as const) set(answers, totals[how], { how })
    for (const [outcome, value] of Object.entries(totals.fetches)) set(fetches, value, { outcome })
    set(fetchedBytes, totals.fetchedBytes)
    fetchesNow.set(status.fetches.length)
    set(evictions, totals.evicted)
    budget.set(status.budgetBytes)
    for (const [what, bytes] of Object.entries(status.usage)) used.set({ what }, bytes)
    builds.set(status.builds)
    damaged.set(status.damaged.length)
    pages.set(watchers())
    return { type: registry.contentType, text: await registry.metrics() }
  }
  // Those who ask at the same time, and may see the same, get the same text: it takes a millisecond.
  const texts = new SingleFlight<string, MetricsText>()
  return (view) => texts.run(view.standing, () => textFor(view))
}
