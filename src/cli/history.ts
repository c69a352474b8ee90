/** `upserv history` and `why`: which device got which build, and why a session went as it did. */
import type { Explanation } from '../build/operations.ts'
import type { Config } from '../config/config.ts'
import { UsageError } from '../errors.ts'
import type { ChangeRecord } from '../history/change-record.ts'
import type { FetchQuery, FetchRecord } from '../history/fetch-record.ts'
import type { CostlyFile, RecordQuery, SessionRecord } from '../history/session-record.ts'
import { showJson, showText } from '../lib/bytes.ts'
import { formatDuration, formatSize } from '../lib/units.ts'
import { withOperations } from './operations.ts'
import { formatTable, paint, print, shortTime } from './text.ts'

export interface HistoryFlags {
  build?: string
  address?: string
  device?: string
  user?: string
  outcome?: string
  fetches?: boolean
  source?: string
  since?: string
  until?: string
  limit?: string
  forget?: boolean
  yes?: boolean
  audit?: boolean
  json?: boolean
}

const DEFAULT_LIMIT = 30
const MAX_LIMIT = 1000

export async function historyCommand(config: Config, flags: HistoryFlags): Promise<void> {
  if (flags.audit) return auditCommand(config, flags)
  const { build, address, device, user, outcome, source } = flags
  const during = { since: flagTime('--since', flags.since), until: flagTime('--until', flags.until) }
  if (flags.forget && !flags.yes) {
    throw new UsageError('--forget deletes for good', {
      hint: 'Say --yes as well, if that is what you want.',
    })
  }
  if (flags.fetches) {
    const strange = Object.entries({ address, device, user }).find(([, value]) => value !== undefined)
    if (strange)
      throw new UsageError(`--${strange[0]} is of sessions, and --fetches shows what came from sources`)
    return fetchHistory(config, flags, { build, source, outcome, ...during })
  }
  if (source !== undefined) {
    throw new UsageError('--source is of fetches', { hint: 'Say --fetches as well.' })
  }
  const query: RecordQuery = { build, address, device, user, outcome, ...during }
  if (flags.forget) {
    const deleted = await withOperations(config, (operations) => operations.forget(query))
    print(flags.json ? showJson({ deleted }) : `${deleted} sessions are forgotten.`)
    return
  }
  const limit = flagLimit(flags.limit)
  const { records } = await withOperations(config, (operations) => operations.history(query, limit))
  print(flags.json ? showJson(records) : formatHistory(records))
}

async function fetchHistory(config: Config, flags: HistoryFlags, query: FetchQuery): Promise<void> {
  if (flags.forget) {
    const deleted = await withOperations(config, (operations) => operations.forgetFetches(query))
    print(flags.json ? showJson({ deleted }) : `${deleted} fetches are forgotten.`)
    return
  }
  const limit = flagLimit(flags.limit)
  const { records } = await withOperations(config, (operations) => operations.fetchHistory(query, limit))
  print(flags.json ? showJson(records) : formatFetches(records))
}

async function auditCommand(config: Config, flags: HistoryFlags): Promise<void> {
  const said = [
    'build',
    'address',
    'device',
    'user',
    'outcome',
    'fetches',
    'source',
    'since',
    'until',
    'forget',
  ]
  const others = said.filter((flag) => flags[flag as keyof HistoryFlags])
  if (others.length > 0) throw new UsageError(`--audit shows changes, of which --${others[0]} says nothing`)
  const limit = flagLimit(flags.limit)
  const { changes } = await withOperations(config, (operations) => operations.changes(limit))
  print(flags.json ? showJson(changes) : formatChanges(changes))
}

export function formatChanges(changes: readonly ChangeRecord[]): string {
  if (changes.length === 0) return 'No changes are remembered.'
  const rows = changes.map(({ id, at, who, from, what, target, result, reason }) => {
    return [
      String(id),
      shortTime(at),
      `${who}, ${from}`,
      what,
      target,
      reason === '' ? result : `${result}: ${reason}`,
    ]
  })
  return formatTable([['CHANGE', 'AT', 'BY', 'WHAT', 'OF', 'RESULT'], ...rows])
}

export async function whyCommand(config: Config, which: string, { json }: { json?: boolean }): Promise<void> {
  const explanation = await withOperations(config, (operations) => operations.explain(which))
  print(json ? showJson(explanation) : formatExplanation(explanation))
}

export function formatHistory(records: readonly SessionRecord[]): string {
  if (records.length === 0) return 'No sessions are remembered.'
  const rows = records.map((record) => [
    String(record.id),
    shortTime(record.ended),
    deviceOf(record),
    record.module,
    record.outcome,
    record.outcome === 'done' ? formatSize(record.bytesOut) : record.reason,
  ])
  return formatTable([['SESSION', 'ENDED', 'DEVICE', 'MODULE', 'OUTCOME', 'SENT'], ...rows])
}

export function formatFetches(records: readonly FetchRecord[]): string {
  if (records.length === 0) return 'No fetches are remembered.'
  const rows = records.map(({ id, source, url, began, ended, outcome, receivedBytes, reason }) => [
    shortTime(ended),
    id,
    source,
    outcome,
    formatSize(receivedBytes),
    formatDuration(Date.parse(ended) - Date.parse(began)),
    outcome === 'done' ? url : reason,
  ])
  return formatTable([['ENDED', 'BUILD', 'SOURCE', 'OUTCOME', 'RECEIVED', 'TOOK', 'FROM'], ...rows])
}

export function deviceOf({
  device,
  user,
  address,
}: {
  device: string
  user: string
  address: string
}): string {
  const place = address === '' ? 'unknown' : address
  const from = user === '' ? place : `${user}@${place}`
  return device === '' ? from : `${device} (${from})`
}

/** What a client had of a file, in words. */
const HAD: Record<CostlyFile['had'], string> = {
  nothing: 'it had nothing of it',
  'no-sums': 'it told nothing of its own file',
  'too-many-blocks': 'its own file has too many blocks',
  blocks: 'differences',
}

export function formatExplanation({ record, hints }: Explanation): string {
  const { matchedBytes, literalBytes, bytesIn, bytesOut, waitedMs } = record
  const content = matchedBytes + literalBytes
  const share = content > 0 ? `, ${Math.round((100 * matchedBytes) / content)} % were there already` : ''
  const build =
    record.build !== '' && record.module !== `build-${record.build}` ? ` (build ${record.build})` : ''
  const facts: [string, string][] = [
    ['asked for', `${record.module}${build}  ${record.paths}`.trimEnd()],
    ['options', record.options],
    [
      'agreed on',
      [...(record.tls ? ['TLS'] : []), `protocol ${record.protocol}`, record.codec, record.digest]
        .filter(Boolean)
        .join(', '),
    ],
    ['list', `${record.entries} entries, ${formatSize(record.listedBytes)} together`],
    ['sent', `${record.files} files, ${record.newFiles} of them new to the device`],
    ['content', `${formatSize(matchedBytes)} matched, ${formatSize(literalBytes)} literal${share}`],
    ['answers', `${record.reused} reused, ${record.searched} searched, ${record.prepared} prepared`],
    ['wire', `${formatSize(bytesIn)} in, ${formatSize(bytesOut)} out`],
    ['waited', `${formatDuration(waitedMs.build)} for the build, ${formatDuration(waitedMs.line)} in line`],
    ['time', formatStates(record.stateMs)],
  ]
  const lines = [
    `session ${record.id}: ${showText(deviceOf(record))}, ${shortTime(record.began)}, ${formatDuration(record.ms)}, ${paintOutcome(record.outcome)}`,
    ...(record.reason === '' ? [] : [`  ${showText(record.reason)} (${record.code})`]),
    ...facts
      .filter(([, text]) => text !== '')
      .map(([name, text]) => `  ${name.padEnd(10)} ${showText(text)}`),
  ]
  if (record.costliest.length > 0) {
    lines.push('  most literal data went for')
    for (const { name, had, literalBytes: bytes } of record.costliest)
      lines.push(`    ${formatSize(bytes).padStart(8)}  ${name} (${HAD[had]})`)
  }
  return [...lines, ...hints.map(({ text }) => `${paint('cyan', '->')} ${text}`)].join('\n')
}

/** The states that took any time, the longest first. */
function formatStates(stateMs: Record<string, number>): string {
  return Object.entries(stateMs)
    .filter(([, ms]) => ms >= 1)
    .sort(([, a], [, b]) => b - a)
    .map(([state, ms]) => `${state} ${ms < 1000 ? `${ms} ms` : formatDuration(ms)}`)
    .join(', ')
}

export function paintOutcome(outcome: string): string {
  return paint(
    outcome === 'done' || outcome === 'listed' ? 'green' : outcome === 'failed' ? 'red' : 'yellow',
    outcome,
  )
}

function flagLimit(text: string | undefined): number {
  if (text === undefined) return DEFAULT_LIMIT
  const limit = Number(text)
  if (Number.isInteger(limit) && limit >= 1 && limit <= MAX_LIMIT) return limit
  throw new UsageError(`--limit: "${text}" is no number from 1 to ${MAX_LIMIT}`)
}

/** A date, or a date and a time, of ISO 8601. What JavaScript takes besides is not what was meant: "7" is a day in 2001. */
const ISO_TIME = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?(?:Z|[+-]\d\d:?\d\d)?)?$/

/** "2026-11-29", "2026-11-29T10:00:00Z", "7d", "12h", "30min" as ISO 8601. */
function flagTime(flag: string, text: string | undefined): string | undefined {
  if (text === undefined) return undefined
  const ago = /^(\d{1,5})(min|h|d)$/.exec(text)
  if (ago) {
    const unit = { min: 60_000, h: 3_600_000, d: 86_400_000 }[ago[2] as 'min' | 'h' | 'd']
    return new Date(Date.now() - Number(ago[1]) * unit).toISOString()
  }
  const time = new Date(ISO_TIME.test(text) ? text : Number.NaN)
  if (Number.isNaN(time.getTime()))
    throw new UsageError(`${flag}: "${text}" is no time, such as 2026-11-29 or 7d (seven days ago)`)
  return time.toISOString()
}
