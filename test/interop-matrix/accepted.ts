/**
 * Differences from the stock daemon that are meant, each with its reason. What is not here is a failure;
 * what is here and never seen is one too, so that this list cannot outlive what it excuses.
 */
import type { Difference, Observation } from './observe.ts'
import type { Row } from './rows.ts'

interface At {
  row: Row
  protocol: number
}

export interface Accepted {
  /** Stands in the tables of docs/interop.md. */
  mark: string
  reason: string
  /** Excuses one difference. */
  covers?: (cell: At, difference: Difference) => boolean
  /**
   * What the stock daemon is asked instead, as it can't be compared with otherwise: upserv must do as it does
   * then. Undefined where the row is none of those.
   */
  insteadOf?: (cell: At) => Partial<Row> | undefined
  /** Takes out of both what is not alike, down to single columns; undefined where the row is none of those. */
  without?: (cell: At) => ((observation: Observation) => Observation) | undefined
}

/**
 * Nothing is excused by this by itself: a cell that differs is run once more against the stock daemon
 * without incremental recursion, and must be as it is then.
 */
export const NO_INCREMENTAL_RECURSION: Accepted = {
  mark: 'a',
  reason:
    'upserv sends one list and declines incremental recursion, which servers may. The client says ' +
    '"receiving file list" instead of "receiving incremental file list", and does what it does with one ' +
    'list: it is as with `rsync --daemon` under `--no-inc-recursive`.',
}

const REFUSAL =
  /refuse|read[- ]only|ERROR|cannot|no (?:such )?file|files-from|rsync error|vstring|list: |choice|unexpectedly closed|hack rsync thwarted/

export const ACCEPTED: readonly Accepted[] = [
  NO_INCREMENTAL_RECURSION,
  {
    mark: 'b',
    reason:
      'upserv tells clients after how long a silence it gives up, as rsyncd does where `timeout` is set. With ' +
      '`-vv` the client says so, in the middle of another line.',
    covers: (_cell, { aspect, text }) =>
      aspect === 'items' &&
      /^only upserv: (?:Setting --timeout=1800 to match server|done|receiving file list \.\.\. )$|^only stock: receiving file list \.\.\. done$/.test(
        text,
      ),
  },
  {
    mark: 'c',
    reason: 'Archives hold no access times: with `-U` upserv sends the time of modification.',
    without: ({ row }) =>
      asksAccessTimes(row)
        ? (seen) => ({
            ...seen,
            items: seen.items.map(withoutAccessTime).toSorted(),
            order: seen.order.map(withoutAccessTime),
          })
        : undefined,
  },
  {
    mark: 'd',
    reason: 'upserv finds more of the file in what the client has: fewer literal bytes, more matched ones.',
    covers: (_cell, { aspect, text }) => {
      const [, label, mine, theirs] =
        /^(Literal|Matched) data: ([\d,]+) bytes, stock ([\d,]+) bytes$/.exec(text) ?? []
      if (aspect !== 'stats' || label === undefined) return false
      const more = Number(mine!.replaceAll(',', '')) - Number(theirs!.replaceAll(',', ''))
      return label === 'Literal' ? more < 0 : more > 0
    },
  },
  {
    mark: 'e',
    reason:
      'Both refuse. upserv says which option and why, in words of its own, and ends with the code for it (4: not ' +
      'supported, 11: no such file) where rsyncd closes the connection (10, 12) or, of an upload, adds a line.',
    covers: ({ row }, { aspect, text }) =>
      REFUSED.some(
        (option) => row.options.includes(option) || row.args?.({ url: '', port: 0 }).includes(option),
      ) &&
      (aspect === 'exit'
        ? /^exit code (?:1|4|11|12), stock (?:1|10|12)$/.test(text)
        : (aspect === 'complaints' || aspect === 'items') && REFUSAL.test(text)),
  },
  {
    mark: 'f',
    reason:
      'Options that mean nothing to a server which only reads, and unknown ones, are ignored: only `-M` can send ' +
      'them. rsyncd refuses them. It is as with `rsync --daemon` without the option.',
    insteadOf: ({ row }) =>
      row.options.some((option) => IGNORED.includes(option))
        ? { options: row.options.filter((option) => !IGNORED.includes(option)) }
        : undefined,
  },
  {
    mark: 'g',
    reason: 'A directory that several names of `--files-from` imply is sent once; rsyncd sends it again.',
    covers: ({ row }, { aspect, text }) => {
      const counts = /^Number of files: (.*), stock (.*)$/.exec(text)
      if (!row.options.includes('--files-from=-') || aspect !== 'stats' || !counts) return false
      const [mine, theirs] = [counts[1]!, counts[2]!]
      return (
        directoriesIn(mine) < directoriesIn(theirs) && withoutDirectories(mine) === withoutDirectories(theirs)
      )
    },
  },
  {
    mark: 'h',
    reason:
      'With `-U` below protocol 29 rsyncd 3.5.0 and its own client do not understand each other: the client ends ' +
      'with 22. With upserv it is as with `rsync --daemon` without `-U`.',
    insteadOf: ({ row, protocol }) =>
      protocol < 29 && asksAccessTimes(row)
        ? { options: row.options.map(withoutAccessOption).filter(Boolean) }
        : undefined,
  },
  {
    mark: 'i',
    reason:
      'Of several paths under `-R`, rsyncd sends those without a `/./` with a slash in front: they come first, and ' +
      'below protocol 29 client and server count differently, so that the client ends with 2. upserv sends plain ' +
      'names in their order, as `rsync --daemon` does when those paths begin with `/./`.',
    insteadOf: ({ row }) => {
      const divided = row.sources.filter((source) => source.includes('/./')).length
      return row.options.includes('-R') && divided > 0 && divided < row.sources.length
        ? { sources: row.sources.map((source) => (source.includes('/./') ? source : `/.${source}`)) }
        : undefined
    },
  },
]

/** Rows that ask for what neither server does. */
const REFUSED = [
  '--copy-devices',
  '-M--copy-devices',
  '-M--checksum-choice=nonsense',
  '-M--remove-source-files',
  '-M--log-file=/tmp/written-by-nobody',
  '-M--write-devices',
  '-M--daemon',
  '--remove-source-files',
  '--remove-sent-files',
  '--cc=none',
  '--iconv=utf-8,utf-8',
  '--iconv=utf-8,latin1',
  '--iconv=.',
  '--files-from=:/root/nothing',
  '--files-from=:list',
  // Of uploads, and of a module that is not there: see rows.ts.
  'upload',
  './',
  '/nothing-of-the-kind/',
]

const IGNORED = ['-M--nonsense', '-M--config=/etc/passwd']

const ACCESS_OPTION = /^-(?!-)[A-Za-z]*U|^--atimes$/

function asksAccessTimes(row: Row): boolean {
  return row.options.some((option) => ACCESS_OPTION.test(option))
}

function withoutAccessOption(option: string): string {
  return ACCESS_OPTION.test(option) ? option.replace(/^--atimes$|U/, '') : option
}

/**
 * An itemised line without its column for the access time, or a listed one without that time. Where nothing
 * else changed the columns are blank, as they are when nothing at all has.
 */
function withoutAccessTime(line: string): string {
  return line
    .replace(/^([.<>ch][fdLDS].{6}).(..) /, '$1.$2 ')
    .replace(/^([.<>ch][fdLDS])[. ]{9} /, '$1          ')
    .replace(/^(\S{10} +\S+ \d\S+ \S+) (?:\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d| {19}) /, '$1 ')
}

function directoriesIn(counts: string): number {
  return Number(/dir: ([\d,]+)/.exec(counts)?.[1]?.replaceAll(',', '') ?? 0)
}

function withoutDirectories(counts: string): string {
  return counts.replace(/^[\d,]+/, '').replace(/dir: [\d,]+/, '')
}
