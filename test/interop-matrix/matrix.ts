/**
 * Runs cells of the matrix: a row of options at one protocol, with a real client, against upserv and then
 * against the stock daemon with the same builds, from the same basis, at the same path.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { ByteString } from '../../src/lib/bytes.ts'
import { aclsOf, attributesOf } from '../support/attributes.ts'
import { type RunResult, run } from '../support/processes.ts'
import { RSYNC, rsync, rsyncSucceeds } from '../support/rsync.ts'
import { removeTree } from '../support/scratch.ts'
import { startServer, type TestServer } from '../support/servers.ts'
import { type Snapshot, snapshot } from '../support/snapshot.ts'
import { ACCEPTED, type Accepted, NO_INCREMENTAL_RECURSION } from './accepted.ts'
import { decorate, matrixBuilds } from './builds.ts'
import { compare, type Difference, type Observation, observe } from './observe.ts'
import { nameOf, type Row } from './rows.ts'

export interface Column {
  label: string
  protocol: number
  /** What the client is told beside the row's options. */
  options: readonly string[]
}

/** From 30 on the stock daemon sends its list in pieces; the last column is what it does without them. */
const ONE_LIST = ['--no-inc-recursive']
export const COLUMNS: readonly Column[] = [
  ...[27, 28, 29, 30, 31, 32].map((protocol) => ({ label: String(protocol), protocol, options: [] })),
  { label: '32, one list', protocol: 32, options: ONE_LIST },
]

export interface Cell {
  row: Row
  column: Column
}

export interface CellResult extends Cell {
  /** How the client ended against the stock daemon. */
  exit: string
  /** What is different and nobody has excused. */
  failures: readonly Difference[]
  accepted: readonly Accepted[]
}

/** How many of the cells are run. */
export type Extent = 'short' | 'usual' | 'all'

/** Of rows, the short form runs one in so many. */
const SHORT_SHARE = 5

/**
 * All of the cells; or each row at protocol 32 and at another one in turn; or a share of rows, each at one
 * protocol in turn.
 */
export function cellsOf(rows: readonly Row[], columns: readonly Column[], extent: Extent): Cell[] {
  const newest = columns.findLast(({ options }) => options !== ONE_LIST)
  const others = columns.filter((column) => column !== newest)
  return rows.flatMap((row, at) =>
    columns
      .filter((column) => {
        if (extent === 'all') return true
        if (extent === 'usual') return column === newest || column === others[at % others.length]
        return at % SHORT_SHARE === 0 && column === columns[(at / SHORT_SHARE) % columns.length]
      })
      .map((column) => ({ row, column })),
  )
}

/** Incremental recursion came with 30, and a client may decline it. */
function sendsOneList({ row, column }: Cell): boolean {
  return column.protocol < 30 || column.options === ONE_LIST || row.options.includes('--no-i-r')
}

/** Files in a client's working directory that are not part of what it made of the build. */
const OWN_FILES = /^\.$|^(?:batch|log)(?:\.sh)?$/

/** A cell takes a fifth of a second. One that hangs is a result like others: it must not end the run. */
const CELL_MS = 20_000
const HUNG: RunResult = {
  command: '',
  code: null,
  signal: 'SIGKILL',
  stdout: '',
  stderr: 'did not end\n',
  milliseconds: CELL_MS,
}

/** Options whose effect a snapshot does not show. */
const ATTRIBUTE_OPTIONS = /^-(?!-)[A-Za-z]*[AX]|^--(?:fake-super|acls|xattrs)/

export class Matrix implements AsyncDisposable {
  readonly #ours: TestServer
  readonly #stock: { url: string }

  private constructor(ours: TestServer, stock: { url: string }) {
    this.#ours = ours
    this.#stock = stock
  }

  /** Makes the builds and starts both servers. Needs root: builds have owners, devices and capabilities. */
  static async start(): Promise<Matrix> {
    const ours = await startServer(matrixBuilds(), 'upserv', { xattrs: true, decorate, chroot: true })
    try {
      // Whoever asks first is told of the fetch.
      await rsyncSucceeds(['-q', `${ours.url}/build-2/`])
      // The module itself and its contents file are upserv's own: the stock daemon shall have the same.
      const stockModule = dirname(ours.treeOf('2'))
      // Times of the same second pass for equal, whatever their nanoseconds.
      utimesSync(stockModule, 0, 0)
      await rsyncSucceeds(['-dpt', `${ours.url}/build-2/`, `${stockModule}/`])
      return new Matrix(ours, await ours.stock())
    } catch (error) {
      await ours.stop()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ours.stop()
  }

  /** Runs cells, `jobs` at a time, and hands each result on as it comes. */
  async run(
    cells: readonly Cell[],
    { jobs, program = RSYNC }: { jobs: number; program?: string },
    done: (result: CellResult) => void,
  ): Promise<void> {
    const waiting = [...cells]
    const worker = async (): Promise<void> => {
      const place = this.#ours.place('cell')
      for (let cell = waiting.shift(); cell; cell = waiting.shift())
        done(await this.#cell(cell, place, program))
    }
    await Promise.all(Array.from({ length: jobs }, worker))
  }

  async #cell({ row, column }: Cell, place: string, program: string): Promise<CellResult> {
    const at = { row, protocol: column.protocol }
    const accepted = new Set<Accepted>()
    const ours = await this.#observe({ row, column }, place, program, this.#ours.url)
    let stock = await this.#observe({ row, column }, place, program, this.#stock.url)
    const { exit } = stock

    let asked = row
    for (const one of ACCEPTED) {
      const change = one.insteadOf?.(at)
      if (!change) continue
      accepted.add(one)
      asked = { ...asked, ...change }
      stock = await this.#observe({ row: asked, column }, place, program, this.#stock.url)
    }

    const options = { comparesOrder: sendsOneList({ row, column }) }
    let found = compare(ours, stock, options)
    // Nothing below excuses another exit code.
    const exits = found.filter(({ aspect }) => aspect === 'exit')
    const beside = (differences: readonly Difference[]): Difference[] => [
      ...exits,
      ...differences.filter(({ aspect }) => aspect !== 'exit'),
    ]
    if (found.length > 0 && !sendsOneList({ row, column })) {
      // Would the stock daemon do as upserv does if it sent one list too?
      const before = found.length
      const oneList = { row: asked, column: { ...column, options: ONE_LIST } }
      stock = await this.#observe(oneList, place, program, this.#stock.url)
      found = beside(compare(ours, stock, options))
      if (found.length < before) accepted.add(NO_INCREMENTAL_RECURSION)
    }
    for (const one of ACCEPTED) {
      const without = one.without?.(at)
      if (!without || found.length === 0) continue
      accepted.add(one)
      found = beside(compare(without(ours), without(stock), options))
    }
    const failures = found.filter((difference) => {
      const excuse = ACCEPTED.find(({ covers }) => covers?.(at, difference))
      if (excuse) accepted.add(excuse)
      return !excuse
    })
    return { row, column, exit, failures, accepted: [...accepted] }
  }

  async #observe({ row, column }: Cell, place: string, program: string, url: string): Promise<Observation> {
    await this.#prepare(row, place)
    const client = async (args: readonly string[]): Promise<RunResult> => {
      const input = row.input === undefined ? {} : { input: Buffer.from(row.input, 'latin1') }
      const running = rsync(args, {
        program,
        protocol: column.protocol,
        cwd: place,
        timeoutMs: CELL_MS,
        ...input,
      })
      return running.catch(() => HUNG)
    }
    const began = Date.now() / 1_000
    const places = row.args
      ? row.args({ url, port: Number(new URL(url).port) })
      : [...row.sources.map((source) => `${url}/build-2${source}`), 'dest/']
    const said = row.quiet ? [] : ['-ii', '--stats']
    const runs = [await client([...column.options, ...said, ...row.options, ...places])]
    if (row.second) runs.push(await client(row.second))
    const ended = Date.now() / 1_000
    const asksAttributes = row.options.some((option) => ATTRIBUTE_OPTIONS.test(option))
    return observe({
      runs,
      tree: withoutOwnFiles(snapshot(place)),
      attributes: asksAttributes ? `${attributesOf(place)}\n\n${aclsOf(place)}` : '',
      began,
      ended,
    })
  }

  async #prepare(row: Row, place: string): Promise<void> {
    removeTree(place)
    mkdirSync(place)
    const copy = async (id: string, name: string): Promise<void> => {
      const { code, stderr } = await run('cp', ['-a', '--', this.#ours.treeOf(id), join(place, name)])
      if (code !== 0) throw new Error(`cp failed: ${stderr}`)
    }
    if (row.basis !== 'nothing') await copy(row.basis, 'dest')
    if (row.old) await copy(row.old, 'old')
    for (const [name, text] of Object.entries(row.files)) writeFileSync(join(place, name), text, 'latin1')
  }
}

function withoutOwnFiles(tree: Snapshot): Snapshot {
  return new Map<ByteString, Snapshot extends ReadonlyMap<ByteString, infer Entry> ? Entry : never>(
    [...tree].filter(([path]) => !OWN_FILES.test(path)),
  )
}

/** The first line of what a client says of itself. */
export function versionOf(program: string): string {
  return /version (\S+)/.exec(execFileSync(program, ['--version'], { encoding: 'utf8' }))?.[1] ?? 'unknown'
}

/** `ROW at protocol N: what is different`, as it is told on a terminal. */
export function explain({ row, column, failures }: CellResult): string {
  const lines = failures.slice(0, SHOWN_DIFFERENCES).map(({ aspect, text }) => `    ${aspect}: ${text}`)
  const more = failures.length - lines.length
  return [
    `${nameOf(row)}  [${row.group}; ${column.label}]`,
    ...lines,
    ...(more > 0 ? [`    ... and ${more} more`] : []),
  ].join('\n')
}

const SHOWN_DIFFERENCES = 8
