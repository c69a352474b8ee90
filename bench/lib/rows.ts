/**
 * What is measured: which client, how many at once, and what upserv must achieve beside the stock daemon.
 * The requirements are the project's; a run of the whole Debian pair judges by them.
 */
import type { Method } from './clients.ts'

export interface Row {
  readonly id: string
  /** In tables. */
  readonly title: string
  readonly method: Method
  /** Beside `COMMON_OPTIONS`. */
  readonly options: readonly string[]
  /** How many clients at once; a short run takes the first only. */
  readonly clients: readonly number[]
  /** upserv's server CPU for each client, at most this part of the daemon's. */
  readonly cpu?: number
  /** Bytes on the link, at most this part of the daemon's. */
  readonly bytes?: number
  /**
   * What upserv has worked out before, if it isn't what the clients before made it: nothing of this update, but the
   * way back for other clients ('at-work'); nothing at all since it was started ('fresh'); what was on disk when
   * it was started ('restarted'); what `upserv warm` prepares.
   */
  readonly server?: 'at-work' | 'fresh' | 'restarted' | 'warmed'
}

/** Whether each client of the row is the first of its fleet. */
export function isFirstOfFleet({ server }: Row): boolean {
  return server === 'at-work' || server === 'fresh'
}

/** Digests and tokens may differ by a few bytes that are nobody's fault. */
const NO_MORE_BYTES = 1.001

/** Compressed once for all, so compressed better. */
const FEWER_BYTES = 0.88

const ZLIB = ['-z', '--compress-choice=zlib']
const PLAIN = { method: 'update', cpu: 1 / 4, bytes: NO_MORE_BYTES } as const
const ZSTD = { method: 'update', cpu: 1 / 12, bytes: FEWER_BYTES } as const
const OLD_ZLIB = { method: 'update', cpu: 1 / 80, bytes: FEWER_BYTES } as const
const POLL = { method: 'poll', cpu: 1 / 15, bytes: NO_MORE_BYTES } as const

export const ROWS: readonly Row[] = [
  { id: 'update', title: 'update', options: [], clients: [1, 10, 50], ...PLAIN },
  { id: 'update-29', title: 'update, protocol 29', options: ['--protocol=29'], clients: [1, 10], ...PLAIN },
  { id: 'update-z', title: 'update -z (zstd)', options: ['-z'], clients: [1, 10, 50], ...ZSTD },
  { id: 'update-zlib', title: 'update -z (zlib)', options: ZLIB, clients: [1, 10, 50], ...OLD_ZLIB },
  {
    id: 'update-zlibx',
    title: 'update -z (zlibx)',
    options: ['-z', '--compress-choice=zlibx'],
    clients: [1],
    ...OLD_ZLIB,
  },
  {
    id: 'update-z-29',
    title: 'update -z, protocol 29 (zlib)',
    options: ['-z', '--protocol=29'],
    clients: [1],
    ...OLD_ZLIB,
  },
  { id: 'poll', title: 'poll, nothing new', options: [], clients: [1, 10, 50], ...POLL },
  {
    id: 'poll-29',
    title: 'poll, protocol 29',
    options: ['--protocol=29'],
    clients: [1, 50],
    ...POLL,
  },
  { id: 'poll-c', title: 'poll -c', options: ['-c'], clients: [1, 10, 50], ...POLL, cpu: 1 / 50 },
  { id: 'update-c', title: 'update -c', options: ['-c'], clients: [1, 10], ...PLAIN },
  {
    id: 'first',
    title: 'first sync',
    method: 'first',
    options: [],
    clients: [1],
    cpu: 1,
    bytes: NO_MORE_BYTES,
  },
  {
    id: 'first-z',
    title: 'first sync -z',
    method: 'first',
    options: ['-z'],
    clients: [1],
    cpu: 1 / 10,
    bytes: FEWER_BYTES,
  },
  {
    id: 'new-update',
    title: "update, the fleet's first client",
    method: 'update',
    options: [],
    clients: [1],
    cpu: 2,
    server: 'at-work',
  },
  {
    id: 'new-update-z',
    title: "update -z, the fleet's first client",
    method: 'update',
    options: ['-z'],
    clients: [1],
    cpu: 2,
    server: 'at-work',
  },
  {
    id: 'fresh-update',
    title: 'update, the first client of a server that has just started',
    method: 'update',
    options: [],
    clients: [1],
    server: 'fresh',
  },
  {
    id: 'fresh-update-z',
    title: 'update -z, the first client of a server that has just started',
    method: 'update',
    options: ['-z'],
    clients: [1],
    server: 'fresh',
  },
  {
    id: 'restarted-update',
    title: 'update, the first client after a restart',
    method: 'update',
    options: [],
    clients: [1],
    server: 'restarted',
  },
  {
    id: 'warmed-update-z',
    title: 'update -z, the first client after upserv warm',
    method: 'update',
    options: ['-z'],
    clients: [1],
    server: 'warmed',
  },
]

/** Memory, at most: bytes. With 50 clients also no more than the daemon's. */
export const MOST_PSS_50_CLIENTS = 300e6
export const MOST_PSS_500_CONNECTIONS = 400e6
