/**
 * Where results go: tmp/bench/NAME.json always; with --write also docs/benchmarks.md, in the part that
 * belongs to the program, and its plots beside it in docs/benchmarks/.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { formatSize } from '../../src/lib/units.ts'
import { run } from '../../test/support/processes.ts'
import { RSYNC } from '../../test/support/rsync.ts'
import { HOME } from './data.ts'
import { replacePart } from './markdown.ts'

export interface Machine {
  /** One line, for people. */
  readonly text: string
  readonly date: string
  /** Load of the last minute when the run began: above 0.5, others were at work. */
  readonly load: number
}

const DOCS = resolve(import.meta.dirname, '../../docs')
const PAGE = join(DOCS, 'benchmarks.md')

/** Figures of a machine that does other things are noisy. */
const BUSY_LOAD = 0.5

export async function describeMachine(): Promise<Machine> {
  const load = loadavg()[0]!
  if (load > BUSY_LOAD)
    console.error(`The load is ${load.toFixed(1)}: others are at work here, so figures will be noisy.`)
  const rsync = /version (\S+)/.exec((await run(RSYNC, ['--version'])).stdout)?.[1]
  const system = /^PRETTY_NAME="(.*)"$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  const processors = `${cpus().length} × ${cpus()[0]?.model.trim()}`
  const programs = `Node ${process.versions.node}, rsync ${rsync}`
  return {
    text: `${processors}, ${formatSize(totalmem())}, ${system}, Linux ${release().split('-')[0]}; ${programs}`,
    date: new Date().toISOString().slice(0, 10),
    load,
  }
}

export function saveResults(name: string, results: unknown): void {
  mkdirSync(HOME, { recursive: true })
  writeFileSync(join(HOME, `${name}.json`), `${JSON.stringify(results, null, 2)}\n`)
}

/** Undefined when there is no such run yet. */
export function loadResults<T>(name: string): T | undefined {
  try {
    return JSON.parse(readFileSync(join(HOME, `${name}.json`), 'utf8')) as T
  } catch {
    return undefined
  }
}

/** Plots by file name without suffix. */
export function writeDocs(name: string, body: string, plots: Readonly<Record<string, string>> = {}): void {
  mkdirSync(join(DOCS, 'benchmarks'), { recursive: true })
  for (const [plot, svg] of Object.entries(plots)) writeFileSync(join(DOCS, 'benchmarks', `${plot}.svg`), svg)
  const pictures = Object.keys(plots).map((plot) => `![${plot.replaceAll('-', ' ')}](benchmarks/${plot}.svg)`)
  writeFileSync(PAGE, replacePart(readFileSync(PAGE, 'utf8'), name, [body, ...pictures].join('\n\n')))
  console.error(`Wrote the part of ${name} in docs/benchmarks.md`)
}

/** How the figures came about: stands above every table. */
export function provenance(command: string, machine: Machine): string {
  const busy = machine.load > BUSY_LOAD ? ` The machine was not quiet (load ${machine.load.toFixed(1)}).` : ''
  return `\`${command}\`, ${machine.date}, on ${machine.text}.${busy}`
}
