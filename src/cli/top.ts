/** `upserv top`: who is connected and what is being fetched, live on a terminal, once otherwise. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Activity, FetchStatus, SessionStatus } from '../build/operations.ts'
import type { Config } from '../config/config.ts'
import { showJson, showText } from '../lib/bytes.ts'
import { formatDuration, formatSize } from '../lib/units.ts'
import { deviceOf, paintOutcome } from './history.ts'
import { withOperations } from './operations.ts'
import { formatBar, paint, print } from './text.ts'

const EVERY_MS = 1000
const BAR_WIDTH = 20
const MAX_RECENT = 8

/** The other screen of a terminal, so that what was there before comes back; without a cursor. */
const ENTER = '\x1b[?1049h\x1b[?25l'
const LEAVE = '\x1b[?25h\x1b[?1049l'
const HOME = '\x1b[H'
const CLEAR_LINE = '\x1b[K'
const CLEAR_BELOW = '\x1b[J'

export async function topCommand(
  config: Config,
  { json, once }: { json?: boolean; once?: boolean },
): Promise<void> {
  const look = (): Promise<Activity> => withOperations(config, (operations) => operations.activity())
  if (json) {
    print(showJson(await look()))
    return
  }
  if (once || !process.stdout.isTTY) {
    print(formatTop(await look(), Number.POSITIVE_INFINITY, 100))
    return
  }
  const stop = new AbortController()
  const leave = (): void => stop.abort()
  process.once('SIGINT', leave)
  process.once('SIGTERM', leave)
  process.once('SIGHUP', leave)
  process.stdin.setRawMode?.(true)
  process.stdin.on('data', (keys: Buffer) => {
    if (/[q\x03\x1b]/.test(keys.toString('latin1'))) leave()
  })
  process.stdout.write(ENTER)
  try {
    while (!stop.signal.aborted) {
      // A terminal that does not know its size says 0.
      const { rows, columns } = process.stdout
      const text = formatTop(await look(), rows || 24, columns || 80)
      process.stdout.write(`${HOME}${text.replaceAll('\n', `${CLEAR_LINE}\n`)}${CLEAR_LINE}${CLEAR_BELOW}`)
      await sleep(EVERY_MS, undefined, { signal: stop.signal }).catch(() => {})
    }
  } finally {
    process.stdout.write(LEAVE)
    process.stdin.setRawMode?.(false)
    process.stdin.pause()
  }
}

/** No more lines than there are rows, none longer than there are columns. */
export function formatTop(activity: Activity, rows: number, columns: number): string {
  const { status, totals, sessions, recent } = activity
  const asked = totals.matchedBytes + totals.literalBytes
  const saved = asked > 0 ? `, ${Math.max(0, Math.round(100 * (1 - totals.bytesOut / asked)))} % saved` : ''
  const lines = [
    `upserv ${status.version}, up ${formatDuration(status.uptimeSeconds * 1000)}`,
    `${status.builds} builds, ${formatSize(status.usedBytes)} of ${formatSize(status.budgetBytes)}; ${formatSize(totals.bytesOut)} sent for ${formatSize(asked)} of files${saved}`,
    '',
    heading(`CLIENTS  ${status.sessions}, of them ${status.inLine} in line`),
    ...sessions.map((session) => showText(formatSession(session))),
    '',
    heading(`FETCHES  ${status.fetches.length}`),
    ...status.fetches.map((fetch) => showText(formatFetch(fetch))),
    '',
    heading('LAST'),
    ...recent
      .filter(({ module }) => module !== '')
      .slice(0, MAX_RECENT)
      .map((record) => {
        const what = record.outcome === 'done' ? formatSize(record.bytesOut) : record.reason
        return { text: showText(`${deviceOf(record)}  ${record.module}  ${what}`), outcome: record.outcome }
      })
      .map(({ text, outcome }) => `${paintOutcome(outcome)}  ${cut(text, columns - outcome.length - 2)}`),
  ]
  return lines
    .slice(0, rows - 1)
    .map((line) => (line.includes('\x1b') ? line : cut(line, columns)))
    .join('\n')
}

function heading(text: string): string {
  return paint('bold', text)
}

function formatSession(session: SessionStatus): string {
  const { state, place, progress, bytesOut, module } = session
  const doing =
    place > 0
      ? `number ${place} in line`
      : state === 'transfer'
        ? `${formatBar(progress ?? 0, BAR_WIDTH)} ${String(Math.round((progress ?? 0) * 100)).padStart(3)} %`
        : state
  return `${deviceOf(session).padEnd(24)}  ${module.padEnd(20)}  ${doing.padEnd(BAR_WIDTH + 8)}  ${formatSize(bytesOut)}`
}

function formatFetch({
  id,
  source,
  step,
  receivedBytes,
  totalBytes,
  bytesPerSecond,
  secondsLeft,
  waiting,
}: FetchStatus): string {
  const share = totalBytes ? receivedBytes / totalBytes : undefined
  const doing =
    step === 'downloading' && share !== undefined
      ? `${formatBar(share, BAR_WIDTH)} ${String(Math.floor(share * 100)).padStart(3)} %`
      : step
  const rate = bytesPerSecond > 0 ? `${formatSize(bytesPerSecond)}/s` : ''
  const left = secondsLeft === null ? '' : `${formatDuration(secondsLeft * 1000)} left`
  return `${`${id} from ${source}`.padEnd(46)}  ${doing.padEnd(BAR_WIDTH + 8)}  ${[rate, left, `${waiting} waiting`].filter(Boolean).join(', ')}`
}

function cut(text: string, columns: number): string {
  return text.length <= columns ? text : `${text.slice(0, Math.max(0, columns - 1))}…`
}
