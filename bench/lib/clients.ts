/**
 * Stock rsync clients, any number at once, as devices run them; what they got is checked.
 *
 * A true update in place would take a fresh copy of the old build for each client. Instead they share it:
 * `--compare-dest` makes them send the old build's block sums and write only what differs, which is the
 * same work for the server and the same bytes on the link. A poll runs against the new build itself,
 * mounted read-only, so that a wrong server makes it fail instead of spoiling the data.
 *
 * Two shortcuts that mislead: `--only-write-batch` makes a client negotiate other digests and codecs than a
 * device does, and `--dry-run` makes a server send no data.
 */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { type RunResult, run } from '../../test/support/processes.ts'
import { parseStats, RSYNC, type RsyncStats } from '../../test/support/rsync.ts'
import { type Build, HOME, type Pair } from './data.ts'
import { IdleGroup } from './idle-group.ts'

/** What a device does: update from the old build, poll when it has the new one, or get it from nothing. */
export type Method = 'update' | 'poll' | 'first'

export interface ClientsRun {
  readonly clients: number
  readonly wallMs: number
  readonly perSecond: number
  /** One client's, as rsync counts them: all clients get the same. */
  readonly stats: RsyncStats
  /** Where the clients wrote. */
  readonly place: 'memory' | 'disk'
}

export interface ClientsOptions {
  readonly port: number
  readonly pair: Pair
  readonly method: Method
  readonly options: readonly string[]
  readonly clients: number
  /** Compare what arrived with the build. Not where time or CPU is measured. */
  readonly check?: boolean
  /** They take the processors only while nobody else does: the server has them as if clients ran elsewhere. */
  readonly yielding?: boolean
}

/** As a device would, beside the options of each row. */
export const COMMON_OPTIONS = ['-a', '-H', '--numeric-ids', '--delete'] as const

/** Fifty clients with zlib keep the stock daemon busy for many minutes. */
const CLIENT_MS = 60 * 60_000

/** Directories and tables of a client's copy take memory too. */
const COPY_OVERHEAD_BYTES = 25e6

/** What the machine needs beside clients' copies: page cache of the builds, servers, clients. */
const SPARE_BYTES = 5e9

/** Mounts $1 at $2, read-only and for this process alone, and becomes the rest. */
const READ_ONLY_RUN = 'mount --bind "$1" "$2" && mount -o remount,ro,bind "$2" && shift 2 && exec "$@"'

export async function runClients(options: ClientsOptions): Promise<ClientsRun> {
  const { clients, pair, method } = options
  const { parent, place } = chooseParent(clients * copyBytes(pair, method))
  mkdirSync(parent, { recursive: true })
  const scratch = mkdtempSync(join(parent, 'upserv-bench-'))
  const remove = (): void => rmSync(scratch, { recursive: true, force: true })
  process.once('exit', remove)
  using group = options.yielding ? new IdleGroup() : undefined
  try {
    const started = performance.now()
    const results = await Promise.all(
      Array.from({ length: clients }, (_, index) => oneClient(options, join(scratch, String(index)), group)),
    )
    const wallMs = performance.now() - started
    for (const { code, command, stdout, stderr } of results)
      assert.equal(code, 0, `${command}\n${stdout.slice(-1_000)}${stderr.slice(-2_000)}`)
    if (options.check) await checkResult(options, join(scratch, '0'))
    const stats = parseStats(results[0]!.stdout)
    return { clients, wallMs, perSecond: (clients * 1000) / wallMs, stats, place }
  } finally {
    process.off('exit', remove)
    remove()
  }
}

/** As one would type it, for the docs. */
export function commandLine(method: Method, options: readonly string[]): string {
  const basis = method === 'update' ? ['--compare-dest=OLD'] : []
  return ['rsync', ...COMMON_OPTIONS, ...options, ...basis, 'rsync://SERVER/build-NEW/root/', 'DEST/'].join(
    ' ',
  )
}

function oneClient(
  { port, pair, method, options }: ClientsOptions,
  place: string,
  group: IdleGroup | undefined,
): Promise<RunResult> {
  mkdirSync(place)
  const basis = method === 'update' ? [`--compare-dest=${pair.from.tree}`] : []
  const url = `rsync://127.0.0.1:${port}/build-${pair.to.id}/root/`
  const args = [...COMMON_OPTIONS, '--stats', ...options, ...basis, url, `${place}/`]
  const env = { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' }
  const limits = { env, timeoutMs: CLIENT_MS }
  const client = group?.wrap([RSYNC, ...args]) ?? [RSYNC, ...args]
  if (method !== 'poll') return run(client[0]!, client.slice(1), limits)
  const mounted = ['-c', READ_ONLY_RUN, 'sh', pair.to.tree, place, ...client]
  return run('unshare', ['--mount', 'sh', ...mounted], limits)
}

/** What arrived, laid over the old build, must be the new one: stock rsync finds nothing left to do. */
async function checkResult({ pair, method }: ClientsOptions, place: string): Promise<void> {
  if (method === 'poll') return // its mount was read-only: it had nothing to change
  const basis = method === 'update' ? [`--compare-dest=${pair.from.tree}`] : []
  const args = ['-aHni', '--numeric-ids', '--delete', ...basis, `${pair.to.tree}/`, `${place}/`]
  const { code, stdout, stderr } = await run(RSYNC, args, { timeoutMs: CLIENT_MS })
  assert.equal(code, 0, stderr)
  assert.equal(stdout, '', `a client's copy is not build ${pair.to.id}`)
}

/** About what one client writes. An update of the Debian pair writes 23 % of the build. */
function copyBytes({ to }: { to: Build }, method: Method): number {
  if (method === 'poll') return 0
  return COPY_OVERHEAD_BYTES + (method === 'first' ? to.bytes * 1.1 : to.bytes * 0.25)
}

/** Memory where the copies fit, so that no disk limits the clients. */
function chooseParent(bytes: number): { parent: string; place: 'memory' | 'disk' } {
  const available = Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024
  const { bavail, bsize } = statfsSync('/dev/shm')
  const fits = bytes < bavail * bsize && bytes < available - SPARE_BYTES
  return fits ? { parent: '/dev/shm', place: 'memory' } : { parent: join(HOME, 'run'), place: 'disk' }
}
