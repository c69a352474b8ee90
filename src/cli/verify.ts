/** `upserv verify`: a bar on a terminal, a line now and then otherwise; what was found on stdout. */
import type { VerifyProgress, VerifyReport } from '../build/operations.ts'
import type { Config } from '../config/config.ts'
import { CommandError } from '../errors.ts'
import { showJson, showText } from '../lib/bytes.ts'
import { formatSize } from '../lib/units.ts'
import { withProgress } from './bring.ts'
import { Meter } from './meter.ts'
import { withOperations } from './operations.ts'

/** Paths that are shown of each build; --json has a few more. */
const MAX_SHOWN = 5

export async function verifyCommand(
  config: Config,
  id: string | undefined,
  { repair = false, json = false }: { repair?: boolean; json?: boolean },
): Promise<void> {
  const report = await withProgress((say, signal) => {
    const meter = new Meter('verifying', say, { withRate: true })
    const onProgress = (progress: VerifyProgress): void => {
      if (progress.type === 'repairing') say(progress.line)
      else meter.note(progress.bytes, progress.totalBytes, rottenIn(progress))
    }
    return withOperations(config, (operations) => operations.verify(id, { repair }, onProgress, signal), {
      long: true,
    })
  }, 'What was found so far is remembered.')
  process.stdout.write(`${json ? showJson(report) : formatReport(report)}\n`)
  const left = report.damaged.filter(({ repaired }) => !repaired)
  if (left.length > 0) {
    throw new CommandError(`${left.length === 1 ? '1 build is' : `${left.length} builds are`} damaged`, {
      hint: repair ? 'The lines above say why.' : 'To have it fetched again now: upserv verify --repair',
    })
  }
}

function rottenIn({ rottenBlobs }: Extract<VerifyProgress, { type: 'checked' }>): string[] {
  return rottenBlobs > 0 ? [`${rottenBlobs} rotten`] : []
}

export function formatReport({ blobs, bytes, rottenBlobs, damaged }: VerifyReport): string {
  const rotten = rottenBlobs === 0 ? 'all are what they were' : `${rottenBlobs} have rotted`
  const lines = [`${blobs} blobs of ${formatSize(bytes)} were read: ${rotten}.`]
  for (const { reason, files, repaired, failure } of damaged) {
    const outcome = repaired ? 'it has been fetched again and is whole' : failure
    lines.push(showText(outcome ? `${reason}: ${outcome}` : reason))
    for (const path of files.slice(0, MAX_SHOWN)) lines.push(`  ${showText(path)}`)
    if (files.length > MAX_SHOWN) lines.push('  ...')
  }
  return lines.join('\n')
}
