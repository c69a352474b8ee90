/**
 * What one cell came to, in a form that is equal for two servers when a client could not tell them apart:
 * exit code, resulting tree, what was itemised, statistics, complaints.
 *
 * What may differ between any two runs is taken out here and nowhere else, each with its reason; what
 * differs between these two servers on purpose is in accepted.ts.
 */
import type { RunResult } from '../support/processes.ts'
import { differences, type Snapshot, type SnapshotEntry } from '../support/snapshot.ts'

export interface Observation {
  exit: string
  tree: Snapshot
  /** Extended attributes and ACLs, where the row asks for them. */
  attributes: string
  /** What was itemised, listed or told, sorted. */
  items: readonly string[]
  /** Files in the order in which they were transferred. */
  order: readonly string[]
  /** Lines of `--stats`, by label. */
  stats: ReadonlyMap<string, string>
  /** Complaints, sorted. */
  complaints: readonly string[]
}

export const ASPECTS = ['exit', 'tree', 'attributes', 'items', 'order', 'stats', 'complaints'] as const
export type Aspect = (typeof ASPECTS)[number]

export interface Difference {
  aspect: Aspect
  /** One line for a person, without line ends. */
  text: string
}

/** Lines of `--stats` that are not compared. All others are, those that a later client adds included. */
const UNCOMPARED_STATS = new Map([
  ['File list size', 'the same list may be encoded in more or fewer bytes, in one piece or in many'],
  ['File list generation time', 'a time'],
  ['File list transfer time', 'a time'],
  ['Total bytes sent', 'depends on the encoding of the list'],
  ['Total bytes received', 'depends on the encoding of the list'],
  ['total size is', 'the speedup depends on the bytes'],
  ['sent', 'bytes and a rate'],
])

/** Everything that ran in a cell, one after the other. */
export interface CellRun {
  runs: readonly RunResult[]
  tree: Snapshot
  attributes: string
  /** When the first run began and the last one ended, in seconds since 1970. */
  began: number
  ended: number
}

export function observe({ runs, tree, attributes, began, ended }: CellRun): Observation {
  const stats = new Map<string, string>()
  const items: string[] = []
  for (const line of runs.flatMap(({ stdout }) => linesOf(stdout))) {
    const stat = statOf(line)
    if (!stat) items.push(withoutWhatVaries(line))
    else if (!UNCOMPARED_STATS.has(stat.label)) stats.set(stat.label, stat.value)
  }
  // With --stderr=all they are there.
  for (const line of runs.flatMap(({ stderr }) => linesOf(stderr))) {
    const stat = statOf(line)
    if (stat && !UNCOMPARED_STATS.has(stat.label)) stats.set(stat.label, stat.value)
  }
  return {
    exit: runs.map(({ code, signal }) => String(code ?? signal)).join(' '),
    tree: withoutNow(tree, began, ended),
    attributes,
    items: items.sort(),
    order: runs.flatMap(({ stdout }) => linesOf(stdout).filter((line) => line.startsWith('>f'))),
    stats,
    complaints: runs
      .flatMap(({ stderr }) => linesOf(stderr))
      .filter((line) => !statOf(line) && !isOfTheConnection(line))
      .map((line) => shapeOf(withoutWhatVaries(line)))
      .sort(),
  }
}

function linesOf(text: string): string[] {
  // Progress is drawn over itself: each stage is a line.
  return text.split(/[\r\n]+/).filter((line) => line !== '')
}

function statOf(line: string): { label: string; value: string } | undefined {
  const known = [...UNCOMPARED_STATS.keys()].find(
    (label) => line.startsWith(`${label} `) || line.startsWith(`${label}:`),
  )
  if (known) return { label: known, value: line }
  const match = /^((?:Number of|Total|Literal|Matched) [a-z ]+|(?:Number of|Total) [a-z ]+): (.*)$/.exec(line)
  return match ? { label: match[1]!, value: match[2]! } : undefined
}

/**
 * Whoever closes first while bytes are on the way makes the other see a reset; the client says so or not as
 * it happens, whatever the server, and so with the signal that one of its processes ends another by. Its
 * exit code is compared all the same.
 */
function isOfTheConnection(line: string): boolean {
  return /^rsync: .*(?:read error: |safe_read failed |write error: |Broken pipe)|^rsync error: .*SIGUSR1/.test(
    line,
  )
}

/**
 * A complaint without its wording: which path, and what is the matter with it. Servers of one protocol but
 * of different versions say `link_stat "/x" (in module) failed` and `[sender] link_stat "x" failed`.
 */
function shapeOf(line: string): string {
  return line
    .replace(/^rsync: /, '')
    .replace('[...] ', '')
    .replace(/"(?:build-2)?(\/[^"]*)" \(in build-2\)/, '"$1"')
    .replace(/"build-2(\/[^"]*)"/, '"$1"')
    .replace(/^(symlink has no referent: "[^"]*") failed: .*/, '$1')
    .replace(/^change_dir /, 'link_stat ')
    .replace('Not a directory (20)', 'No such file or directory (2)')
}

function withoutWhatVaries(line: string): string {
  return (
    line
      .replaceAll(/127\.0\.0\.1:\d+/g, 'SERVER')
      // Where in the client's source, and which of its processes noticed first.
      .replace(/ at [\w./-]+\.c\(\d+\) \[\w+=[\w.]+\]/, '')
      .replace(/\[(?:generator|receiver|Receiver|sender|client|server)\]/, '[...]')
      // The client offers incremental recursion or does not; that is a column's business.
      .replace(/^(sending daemon args: .*e\.)i/, '$1')
      // Names of temporary files end at random.
      .replaceAll(/\.[A-Za-z0-9]{6}"/g, '.XXXXXX"')
      // In a listing: what a directory takes is up to its file system; upserv's take nothing.
      .replace(/^(d[rwxsStT-]{9})(\s+)[\d.,]+[KMG]? /, '$1$2SIZE ')
      .replace(/^(d[rwxsStT-]{9})\s+/, '$1 ')
      // Progress: rate and time.
      .replace(/\s+[\d.]+[kMG]?B\/s\s+\d+:\d\d:\d\d/, ' RATE')
      .replace(/ \(xfr#\d+, (?:to|ir)-chk=\d+\/\d+\)/, '')
      .replace(/ to 127\.0\.0\.1 port \d+/, ' to SERVER')
      .replace(/\b(?:20\d\d\/\d\d\/\d\d[- ]\d\d:\d\d:\d\d) \[\d+\]/, 'TIME [PID]')
  )
}

/** What the client made during the cell and gave no other time has the time of that moment. */
function withoutNow(tree: Snapshot, began: number, ended: number): Snapshot {
  // The kernel stamps with the time of its last tick.
  const isNow = ({ mtime }: SnapshotEntry): boolean =>
    mtime >= Math.floor(began - 1) && mtime <= Math.ceil(ended)
  return new Map(
    [...tree].map(([path, entry]) => [
      path,
      isNow(entry) ? { ...entry, mtime: Number.POSITIVE_INFINITY, mtimeNsec: 0 } : entry,
    ]),
  )
}

// ---------------------------------------------------------------------------------------------------
// Comparing.

export interface ComparisonOptions {
  /**
   * Both send the files of a list in its order. With incremental recursion there are many lists, which
   * upserv declines; then only what was transferred is compared, not when.
   */
  comparesOrder: boolean
}

/** How `ours` is different; empty when a client can't tell. */
export function compare(
  ours: Observation,
  stock: Observation,
  { comparesOrder }: ComparisonOptions,
): Difference[] {
  const found: Difference[] = []
  const add = (aspect: Aspect, text: string): void => {
    found.push({ aspect, text: text.replaceAll('\n', '\\n') })
  }
  if (ours.exit !== stock.exit) add('exit', `exit code ${ours.exit}, stock ${stock.exit}`)
  for (const line of differences(stock.tree, ours.tree)) add('tree', line)
  for (const line of linesApart(ours.attributes.split('\n\n'), stock.attributes.split('\n\n')))
    add('attributes', line)
  const items = linesApart(ours.items, stock.items)
  for (const line of items) add('items', line)
  if (comparesOrder && items.length === 0 && ours.order.join('\n') !== stock.order.join('\n')) {
    const at = ours.order.findIndex((line, index) => line !== stock.order[index])
    add('order', `transfers ${ours.order[at]} where stock transfers ${stock.order[at]}`)
  }
  for (const label of new Set([...ours.stats.keys(), ...stock.stats.keys()])) {
    const [mine, theirs] = [ours.stats.get(label), stock.stats.get(label)]
    if (mine !== theirs) add('stats', `${label}: ${mine}, stock ${theirs}`)
  }
  for (const line of linesApart(ours.complaints, stock.complaints)) add('complaints', line)
  return found
}

/** Lines that only one of them has, as often as it has them more often. */
function linesApart(ours: readonly string[], stock: readonly string[]): string[] {
  const count = new Map<string, number>()
  for (const line of ours) count.set(line, (count.get(line) ?? 0) + 1)
  for (const line of stock) count.set(line, (count.get(line) ?? 0) - 1)
  const apart: string[] = []
  for (const [line, more] of count) {
    for (let n = 0; n < Math.abs(more); n++) apart.push(`${more > 0 ? 'only upserv' : 'only stock'}: ${line}`)
  }
  return apart
}
