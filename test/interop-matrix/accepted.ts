/**
 * Differences from the stock daemon that are meant, each with its reason. What is not here is a failure;
 * what is here and never seen is one too, so that this list cannot outlive what it excuses.
 */
import type { Difference } from './observe.ts'
import type { Row } from './rows.ts'

export interface Accepted {
  /** Stands in the tables of docs/interop.md. */
  mark: string
  reason: string
  covers: (cell: { row: Row; protocol: number }, difference: Difference) => boolean
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
  covers: () => false,
}

const REFUSAL =
  /refuse|read[- ]only|ERROR|cannot|no (?:such )?file|files-from|rsync error|vstring|list: |choice|unexpectedly closed/

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
    covers: ({ row }, { aspect, text }) =>
      row.options.some((option) => /^-[A-Za-z]*U|^--atimes/.test(option)) &&
      aspect === 'items' &&
      (row.options.includes('--list-only') ||
        /^only (?:upserv|stock): [.<>ch][fdLDS][.+ a-zA-Z]{9} /.test(text)),
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
      'them. rsyncd refuses them.',
    covers: ({ row }) => IGNORED.some((option) => row.options.includes(option)),
  },
  {
    mark: 'g',
    reason: 'A directory that several names of `--files-from` imply is sent once; rsyncd sends it again.',
    covers: ({ row }, { aspect, text }) =>
      row.options.includes('--files-from=-') && aspect === 'stats' && text.startsWith('Number of files: '),
  },
  {
    mark: 'h',
    reason:
      'With `-U` below protocol 29 rsyncd 3.5.0 and its own client do not understand each other: the client ends ' +
      'with 22. With upserv all arrives, but access times.',
    covers: ({ row, protocol }) =>
      protocol < 29 && row.options.some((option) => /^-[A-Za-z]*U|^--atimes/.test(option)),
  },
]

/** Rows that ask for what neither server does. */
const REFUSED = [
  '--copy-devices',
  '-M--copy-devices',
  '-M--checksum-choice=nonsense',
  '-M--remove-source-files',
  '--remove-source-files',
  '--remove-sent-files',
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

const IGNORED = [
  '-M--nonsense',
  '-M--log-file=/tmp/written-by-nobody',
  '-M--write-devices',
  '-M--daemon',
  '-M--config=/etc/passwd',
]
