/**
 * Options that change what goes over the wire but not what arrives: digests, codecs, seeds, limits. Each
 * runs a first sync and the step to the next build, and both must be exact.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { run } from '../support/processes.ts'
import { PROTOCOLS, RSYNC, rsyncSucceeds } from '../support/rsync.ts'
import { startServer, type TestServer } from '../support/servers.ts'
import { assertSameTree, carriedBy, snapshot } from '../support/snapshot.ts'
import { firstBuild, secondBuild } from '../support/tree.ts'

const LONG = process.env.UPSERV_LONG !== undefined

interface OptionCase {
  options: readonly string[]
  /** The oldest protocol at which the client takes it. */
  since?: number
  /** The client must have been built with this digest or codec. */
  needs?: string
  /** With `none` for a digest there is no -c, so all files are sent again. */
  withoutChecksum?: boolean
}

// biome-ignore format: a table
const CASES: readonly OptionCase[] = [
  { options: ['--checksum-choice=md5'], since: 30, needs: 'md5' },
  { options: ['--checksum-choice=md4'], since: 30, needs: 'md4' },
  { options: ['--checksum-choice=sha1'], since: 30, needs: 'sha1' },
  { options: ['--checksum-choice=xxh64'], since: 30, needs: 'xxh64' },
  { options: ['--checksum-choice=xxh3'], since: 30, needs: 'xxh3' },
  { options: ['--checksum-choice=xxh128'], since: 30, needs: 'xxh128' },
  { options: ['--checksum-choice=md5,sha1'], since: 30, needs: 'sha1' },
  { options: ['--checksum-choice=xxh64,md5'], since: 30, needs: 'xxh64' },
  { options: ['--checksum-choice=none,md5'], since: 30 },
  { options: ['--checksum-choice=none'], since: 30, withoutChecksum: true },
  { options: ['--checksum-choice=auto'], since: 29 },
  { options: ['--checksum-choice=auto,md5'], since: 30 },
  { options: ['--checksum-seed=1'] },
  { options: ['--checksum-seed=123456789'] },
  { options: ['-z', '--compress-choice=zlib'], since: 30, needs: 'zlib' },
  { options: ['-z', '--compress-choice=zlibx'], since: 30, needs: 'zlibx' },
  { options: ['-z', '--compress-choice=lz4'], since: 30, needs: 'lz4' },
  { options: ['--compress-choice=lz4', '--compress-level=0'], since: 30, needs: 'lz4' },
  { options: ['-z', '--compress-choice=zstd'], since: 30, needs: 'zstd' },
  { options: ['-z', '--compress-choice=zstd', '--compress-level=19'], since: 30, needs: 'zstd' },
  { options: ['--compress-choice=zstd', '--compress-level=0'], since: 30, needs: 'zstd' },
  { options: ['--compress-choice=zstd', '--compress-level=-131072'], since: 30, needs: 'zstd' },
  { options: ['-z', '--compress-level=999999999'] },
  { options: ['--compress-level=0'] },
  { options: ['--compress-choice=zlibx', '--compress-level=0'], since: 30 },
  { options: ['-z', '--compress-choice=none'], since: 30 },
  { options: ['--old-compress'] },
  { options: ['--new-compress'], since: 30 },
  { options: ['-z', '--compress-level=1'] },
  { options: ['-z', '--skip-compress=gz/random'] },
  { options: ['--old-compress', '--skip-compress=gz/txt/bin/[a-z]'] },
  { options: ['-z', '--compress-choice=lz4', '--skip-compress='], since: 30, needs: 'lz4' },
  { options: ['-zz'] },
  { options: ['-z', '--compress-threads=64'] },
  { options: ['--timeout=20'] },
  { options: ['--bwlimit=40000'] },
  { options: ['--contimeout=10'] },
  { options: ['--sockopts=TCP_NODELAY'] },
  { options: ['--no-inc-recursive'] },
  { options: ['--secluded-args'], since: 30 },
  { options: ['--old-args'] },
  { options: ['--sparse'] },
  { options: ['--delay-updates'] },
  { options: ['--whole-file', '--sparse'] },
  { options: ['--numeric-ids'] },
  { options: ['-vv'] },
  { options: ['-vvv', '--info=all4', '--debug=all1'], since: 31 },
  { options: ['--progress'] },
  { options: ['-X', '-A'], since: 30 },
  { options: ['-U'], since: 30 },
  { options: ['--open-noatime'] },
  { options: ['-UU'], since: 30 },
  { options: ['-x'] },
  { options: ['-xx'] },
  { options: ['--modify-window=1'] },
  { options: ['--stop-after=10'] },
  { options: ['--max-alloc=1G'] },
  { options: ['-q'] },
  { options: ['--8-bit-output'] },
]

let server: TestServer
let capabilities: string
before(async () => {
  const first = firstBuild()
  server = await startServer({ 1: first, 2: secondBuild(first) })
  capabilities = (await run(RSYNC, ['--version'])).stdout
})
after(() => server?.stop())

/** The oldest and the newest, and of those between every other one by turns; all with UPSERV_LONG. */
function isTried(protocol: number, since: number, place: number): boolean {
  const possible = PROTOCOLS.filter((one) => one >= since)
  return LONG || protocol === possible[0] || protocol === possible.at(-1) || (protocol + place) % 2 === 0
}

for (const protocol of PROTOCOLS) {
  describe(`protocol ${protocol}`, { concurrency: 3 }, () => {
    for (const [place, { options, since = 0, needs, withoutChecksum }] of CASES.entries()) {
      if (protocol >= since && !isTried(protocol, since, place)) continue
      const skip = protocol < since ? `not below ${since}` : false
      test(`protocol ${protocol}: ${options.join(' ')}`, { skip }, async (context) => {
        if (needs && !new RegExp(`\\b${needs}\\b`).test(capabilities))
          return context.skip(`client has no ${needs}`)
        const device = server.place('options')
        const root = (id: string): string => `${server.url}/build-${id}/root/`
        const first = await rsyncSucceeds(['-aH', ...options, root('1'), device], { protocol })
        assertSameTree(server.snapshotOf('1'), snapshot(device), carriedBy(protocol))
        await rsyncSucceeds([withoutChecksum ? '-aHI' : '-aHc', '--delete', ...options, root('2'), device], {
          protocol,
        })
        assertSameTree(server.snapshotOf('2'), snapshot(device), carriedBy(protocol))
        if (options.includes('-q')) assert.equal(first.stdout, '')
      })
    }
  })
}
