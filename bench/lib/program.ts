/** What the programs have in common: options, root, and an end of everything that was started. */
import { parseArgs } from 'node:util'
import { isRoot } from '../../test/support/scratch.ts'

export interface ProgramOptions {
  readonly short: boolean
  readonly write: boolean
  readonly rounds: number
  /** Rows with more clients at once are left out. */
  readonly most: number
  /** Words which select what is measured; empty for all. */
  readonly only: readonly string[]
}

export const EXIT_USAGE = 64
const EXIT_NO_PERMISSION = 77

/** As shells say it of SIGINT. */
const EXIT_INTERRUPTED = 130

const COMMON_USAGE = `
  --short     a small pair and few clients: a minute, to see that it works
  --rounds N  how often each is measured
  --most N    at most so many clients at once
  --write     write docs/benchmarks.md and its plots too
`

/** Reads the options; ends the process where it cannot go on. */
export function startProgram(usage: string, defaults: { rounds: number }): ProgramOptions {
  // Exit handlers end what was started and remove what it left; without this a signal skips them.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => process.exit(EXIT_INTERRUPTED))
  const options = readOptions(usage, defaults)
  if (isRoot) return options
  console.error('This needs root: whole systems have owners and devices, and control groups count CPU.')
  process.exit(EXIT_NO_PERMISSION)
}

function readOptions(usage: string, defaults: { rounds: number }): ProgramOptions {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        short: { type: 'boolean', default: false },
        write: { type: 'boolean', default: false },
        rounds: { type: 'string' },
        most: { type: 'string' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
    if (values.help) {
      process.stdout.write(`${usage.trimEnd()}\n${COMMON_USAGE}`)
      process.exit(0)
    }
    const rounds = Number(values.rounds ?? (values.short ? 1 : defaults.rounds))
    if (!Number.isInteger(rounds) || rounds < 1)
      throw new Error(`--rounds ${values.rounds} is no number of rounds`)
    if (values.short && values.write)
      throw new Error('--short is for trying: its figures are not for the docs')
    const most = Number(values.most ?? Number.MAX_SAFE_INTEGER)
    if (!Number.isInteger(most) || most < 1) throw new Error(`--most ${values.most} is no number of clients`)
    return { short: values.short, write: values.write, rounds, most, only: positionals }
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${usage}${COMMON_USAGE}`)
    process.exit(EXIT_USAGE)
  }
}

/**
 * Reads numbers, for programs that make their own data; ends the process where it cannot go on.
 * @param rounds how often each thing is measured unless told otherwise; undefined where that can't be told.
 */
export function startCounting(usage: string, rounds?: number): { rounds: number; numbers: number[] } {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        ...(rounds === undefined ? {} : { rounds: { type: 'string' } as const }),
        help: { type: 'boolean', short: 'h' },
      },
    })
    if (values.help) {
      process.stdout.write(usage)
      process.exit(0)
    }
    return {
      rounds: countOf((values as { rounds?: string }).rounds ?? String(rounds ?? 1)),
      numbers: positionals.map(countOf),
    }
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${usage}`)
    process.exit(EXIT_USAGE)
  }
}

/** @throws where that is no number of anything. */
export function countOf(text: string): number {
  const number = Number(text)
  if (!Number.isInteger(number) || number < 1) throw new Error(`"${text}" is no number from 1 on`)
  return number
}
