/** `upserv verify`: a bar on a terminal, a line now and then otherwise; what was found on stdout. */
import type { VerifyProgress, VerifyReport } from '../build/operations.ts'
import type { Config } from '../config/config.ts'
import { CommandError } from '../errors.ts'
import { formatDuration, formatSize } from '../lib/units.ts'
import { withProgress } from './bring.ts'
import { withOperations } from './operations.ts'
import { formatBar } from './text.ts'

/** For who reads a log: often enough to see that it goes on. */
const LINE_EVERY_MS = 5000
/** On a terminal. */
const BAR_EVERY_MS = 100
const BAR_WIDTH = 30
/** Paths that are shown of each build; --json has a few more. */
const MAX_SHOWN = 5

export async function verifyCommand(
  config: Config,
  id: string | undefined,
  { repair = false, json = false }: { repair?: boolean; json?: boolean },
): Promise<void> {
  const report = await withProgress((say, signal) => {
    const meter = new VerifyMeter(
      say,
      process.stderr.isTTY ? BAR_EVERY_MS : LINE_EVERY_MS,
      process.stderr.isTTY,
    )
    return withOperations(
      config,
      (operations) => operations.verify(id, { repair }, (progress) => meter.note(progress), signal),
      { long: true },
    )
  }, 'What was found so far is remembered.')
  process.stdout.write(`${json ? JSON.stringify(report, null, 2) : formatReport(report)}\n`)
  const left = report.damaged.filter(({ repaired }) => !repaired)
  if (left.length > 0) {
    throw new CommandError(`${left.length === 1 ? '1 build is' : `${left.length} builds are`} damaged`, {
      hint: repair ? 'The lines above say why.' : 'To have it fetched again now: upserv verify --repair',
    })
  }
}

/** Turns progress into lines, not too many of them. */
export class VerifyMeter {
  readonly #say: (line: string) => void
  readonly #everyMs: number
  readonly #withBar: boolean
  readonly #now: () => number
  readonly #began: number
  #saidAt = Number.NEGATIVE_INFINITY

  constructor(say: (line: string) => void, everyMs: number, withBar: boolean, now = () => performance.now()) {
    this.#say = say
    this.#everyMs = everyMs
    this.#withBar = withBar
    this.#now = now
    this.#began = now()
  }

  note(progress: VerifyProgress): void {
    if (progress.type === 'repairing') {
      this.#say(progress.line)
      return
    }
    const { bytes, totalBytes } = progress
    const isLast = bytes >= totalBytes
    if (!isLast && this.#now() - this.#saidAt < this.#everyMs) return
    this.#saidAt = this.#now()
    this.#say(this.#describe(progress))
  }

  #describe({ bytes, totalBytes, rottenBlobs }: Extract<VerifyProgress, { type: 'checked' }>): string {
    const share = totalBytes === 0 ? 1 : bytes / totalBytes
    const bar = this.#withBar ? `${formatBar(share, BAR_WIDTH)} ` : 'verifying: '
    const parts = [`${Math.floor(share * 100)} % (${formatSize(bytes)} of ${formatSize(totalBytes)})`]
    const ms = this.#now() - this.#began
    if (ms > 1000 && bytes > 0 && bytes < totalBytes) {
      parts.push(`${formatSize((bytes * 1000) / ms)}/s`)
      parts.push(`${formatDuration(((totalBytes - bytes) * ms) / bytes)} left`)
    }
    if (rottenBlobs > 0) parts.push(`${rottenBlobs} rotten`)
    return bar + parts.join(', ')
  }
}

export function formatReport({ blobs, bytes, rottenBlobs, damaged }: VerifyReport): string {
  const rotten = rottenBlobs === 0 ? 'all are what they were' : `${rottenBlobs} have rotted`
  const lines = [`${blobs} blobs of ${formatSize(bytes)} were read: ${rotten}.`]
  for (const { reason, files, repaired, failure } of damaged) {
    const outcome = repaired ? 'it has been fetched again and is whole' : failure
    lines.push(outcome ? `${reason}: ${outcome}` : reason)
    for (const path of files.slice(0, MAX_SHOWN)) lines.push(`  ${path}`)
    if (files.length > MAX_SHOWN) lines.push('  ...')
  }
  return lines.join('\n')
}
