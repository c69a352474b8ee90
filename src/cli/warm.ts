/** `upserv warm`: a bar on a terminal, a line now and then otherwise; what was prepared, and its price, on stdout. */
import type { WarmedUpdate, WarmReport } from '../build/operations.ts'
import { type WarmFlags, warmRequest } from '../build/warm-request.ts'
import type { Config } from '../config/config.ts'
import { CommandError } from '../errors.ts'
import { showJson } from '../lib/bytes.ts'
import { formatDuration, formatSize } from '../lib/units.ts'
import { withProgress } from './bring.ts'
import { Meter } from './meter.ts'
import { withOperations } from './operations.ts'
import { formatTable, print } from './text.ts'

export async function warmCommand(
  config: Config,
  id: string,
  flags: WarmFlags & { json?: boolean },
): Promise<void> {
  const request = warmRequest(id, flags)
  const report = await withProgress((say, signal) => {
    const meter = new Meter('warming', say, { withRate: false })
    return withOperations(
      config,
      (operations) =>
        operations.warm(
          request,
          ({ from, bytes, totalBytes }) =>
            meter.note(bytes, totalBytes, [from === undefined ? 'file lists' : `${from} to ${id}`]),
          signal,
        ),
      { long: true },
    )
  }, 'What was prepared so far is kept.')
  print(flags.json ? showJson(report) : formatWarmReport(report))
  if (report.full) throw notEnough(report.full, config.cache)
  const unreadable = report.updates.reduce((sum, update) => sum + update.unreadable, 0)
  if (unreadable > 0) {
    throw new CommandError(`${unreadable === 1 ? '1 file' : `${unreadable} files`} could not be read`, {
      hint: 'See which, and have it made whole: upserv verify --repair',
    })
  }
}

export function notEnough(full: 'bytes' | 'records', cache: number): CommandError {
  if (full === 'bytes')
    return new CommandError(`what is derived may take ${formatSize(cache)}, which is not enough`, {
      hint: 'Raise `cache` or `budget`, or name fewer --clients or ways to --compress.',
    })
  return new CommandError('of what is derived some 5 million records are kept, which are not enough', {
    hint: 'More room would not help. Name fewer builds with --from, fewer --clients or ways to --compress.',
  })
}

function formatWarmReport(report: WarmReport): string {
  const { id, updates, lists, writtenBytes, droppedBytes, quick, ms } = report
  const lines = updates.flatMap((update) => [...formatUpdate(id, update), ''])
  const gone = droppedBytes > 0 ? `; ${formatSize(droppedBytes)} of older derived data had to go` : ''
  lines.push(
    `${lists} file lists are ready. In all ${formatSize(writtenBytes)} were written in ${formatDuration(ms)}${gone}.`,
  )
  if (quick) lines.push('A server goes on in the background, and compresses it as well as can be.')
  return lines.join('\n')
}

function formatUpdate(id: string, { from, files, bytes, clients, writtenBytes }: WarmedUpdate): string[] {
  const rows = clients.map(({ client, codec, bytes: sent, answers, newAnswers, unready }) => [
    `  rsync ${client}`,
    codec === 'none' ? 'not compressed' : codec,
    formatSize(sent),
    `${answers} answers, ${newAnswers} of them new${unready > 0 ? `, ${unready} could not be kept` : ''}`,
  ])
  const wanted = `${files} files of ${formatSize(bytes)}`
  return [
    `From ${from} to ${id} a device asks for ${wanted}, and is sent (${formatSize(writtenBytes)} were written):`,
    ...(rows.length > 0 ? [formatTable(rows)] : []),
  ]
}
