/** `upserv fetch` and `import`: progress on stderr, one line that changes when a person looks on. */
import { resolve } from 'node:path'
import type { Config } from '../config/config.ts'
import { Interrupted } from '../errors.ts'
import { withOperations } from './operations.ts'
import { formatBar } from './text.ts'

const BAR_WIDTH = 20

export async function fetchCommand(config: Config, id: string): Promise<void> {
  const fetched = await withProgress((say, signal) =>
    withOperations(config, (operations) => operations.fetch(id, say, signal), { long: true }),
  )
  process.stdout.write(fetched ? `build ${id} is fetched\n` : `build ${id} is held already\n`)
}

export async function importCommand(config: Config, file: string, id: string): Promise<void> {
  await withProgress((say, signal) =>
    withOperations(config, (operations) => operations.import(resolve(file), id, say, signal), {
      long: true,
    }),
  )
  process.stdout.write(`build ${id} is imported\n`)
}

/** @param onStop what who stops it with ^C should know. */
export async function withProgress<T>(
  work: (say: (line: string) => void, signal: AbortSignal) => Promise<T>,
  onStop = 'What was downloaded is kept. A running server goes on fetching.',
): Promise<T> {
  const abort = new AbortController()
  const onSignal = (): void => abort.abort(new Interrupted('stopped', { hint: onStop }))
  process.once('SIGINT', onSignal)
  process.once('SIGTERM', onSignal)
  const { isTTY, columns } = process.stderr
  const say = (line: string): void => {
    // On a terminal each line takes the place of the one before, behind a bar where it tells how far it is.
    const percent = isTTY ? /(?:^|: )(\d{1,3}) %/.exec(line)?.[1] : undefined
    const bar = percent === undefined ? '' : `${formatBar(Number(percent) / 100, BAR_WIDTH)} `
    process.stderr.write(isTTY ? `\r\x1b[K${(bar + line).slice(0, (columns || 80) - 1)}` : `${line}\n`)
  }
  try {
    return await work(say, abort.signal)
  } finally {
    if (isTTY) process.stderr.write('\r\x1b[K')
    process.off('SIGINT', onSignal)
    process.off('SIGTERM', onSignal)
  }
}
