/** A program's CPU time and memory, its children included, as GNU time reports them. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type RunOptions, type RunResult, run } from '../../test/support/processes.ts'

export interface Timed extends RunResult {
  /** User and system, seconds. */
  readonly cpu: number
  /** Bytes; of the process that took the most. */
  readonly maxRss: number
}

/** Not the shell's own word. Debian's package is called `time`, too. */
const TIME = '/usr/bin/time'

export async function timed(program: string, args: readonly string[], options: RunOptions): Promise<Timed> {
  const scratch = mkdtempSync(join(tmpdir(), 'upserv-timed-'))
  try {
    const report = join(scratch, 'report')
    const result = await run(TIME, ['-f', '%U %S %M', '-o', report, program, ...args], options)
    return { ...result, ...parseReport(readFileSync(report, 'utf8')) }
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

/** The last line; one before it says that the program did not end well. */
export function parseReport(text: string): { cpu: number; maxRss: number } {
  const [user, system, kibibytes] = text.trim().split('\n').at(-1)!.split(' ').map(Number)
  return { cpu: user! + system!, maxRss: kibibytes! * 1024 }
}
