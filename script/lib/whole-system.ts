/**
 * `script/whole-system`: a whole Debian root as build 1, the same with security updates and two packages
 * more as build 2; published by nginx, fetched on demand by upserv, synced by a stock rsync, compared
 * entry by entry with what tar unpacks; and what the upgrade cost on the wire.
 *
 * The builds are kept under tmp/whole-system and made again only when that is deleted.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { formatDuration, formatSize } from '../../src/lib/units.ts'
import { startNginx } from '../../test/support/nginx.ts'
import { run } from '../../test/support/processes.ts'
import { parseStats, type RsyncStats, rsyncSucceeds } from '../../test/support/rsync.ts'
import { isRoot } from '../../test/support/scratch.ts'
import { assertSameTree, type Snapshot, snapshot } from '../../test/support/snapshot.ts'
import { startUpserv } from '../../test/support/upserv.ts'
import { debianSuites, type Suite } from './debian-suites.ts'

const USAGE = `Usage: script/whole-system [--short] [--builds-only]

Makes two consecutive builds of a whole Debian system with mmdebstrap, publishes them with
nginx, lets upserv fetch them for a stock rsync, upgrades a directory from one to the other
and compares every entry. Needs root, Debian or a relative, mmdebstrap, nginx, rsync, zstd.
State is under tmp/whole-system.

  --short        a minimal system instead of one of more than 20,000 entries
  --builds-only  only make the builds
`

/** What a small server or laptop has: a kernel with its modules, interpreters, a compiler's library. */
const LONG = {
  variant: 'important',
  packages: [
    ...['linux-image-cloud-amd64', 'systemd-sysv', 'dbus', 'udev', 'sudo', 'openssh-client', 'iputils-ping'],
    ...['python3', 'perl', 'git', 'vim', 'man-db', 'locales', 'tzdata', 'ca-certificates', 'openssl', 'curl'],
  ],
  added: ['jq', 'tmux'],
  leastEntries: 20_000,
}

/** What starts with apt: made in under a minute. */
const SHORT = {
  variant: 'minbase',
  packages: ['openssl', 'tzdata', 'iputils-ping', 'sudo'],
  added: ['jq'],
  leastEntries: 5_000,
}

/** mmdebstrap downloads and configures a few hundred packages. */
const MAKE_MS = 30 * 60_000
const SYNC_MS = 15 * 60_000

const { values: options } = parseArgs({
  options: {
    short: { type: 'boolean', default: false },
    'builds-only': { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})
if (options.help) {
  process.stdout.write(USAGE)
  process.exit(0)
}

const shape = options.short ? SHORT : LONG
const home = resolve('tmp/whole-system', options.short ? 'short' : 'long')
const upstream = join(home, 'upstream')

if (options.short)
  console.log('Short form: a minimal system. Without --short it is one of more than 20,000 entries.')
if (!isRoot) {
  console.error('script/whole-system needs root: a whole system has owners, devices and capabilities.')
  process.exit(77)
}
await makeBuilds()
if (!options['builds-only']) await upgrade()

// ---------------------------------------------------------------------------------------------------
// The builds.

/** 1.tar.zst from the release as it came out, 2.tar.gz with security updates and more packages. */
async function makeBuilds(): Promise<void> {
  mkdirSync(upstream, { recursive: true })
  const suites = await debianSuites()
  await makeBuild(
    '1.tar',
    suites.slice(0, 1),
    shape.packages,
    ['zstd', '-q', '-3', '-T0', '--rm', '-f'],
    'zst',
  )
  await makeBuild('2.tar', suites, [...shape.packages, ...shape.added], ['gzip', '-n', '-f'], 'gz')
}

async function makeBuild(
  name: string,
  suites: readonly Suite[],
  packages: readonly string[],
  compressor: readonly string[],
  suffix: string,
): Promise<void> {
  const archive = join(upstream, `${name}.${suffix}`)
  if (existsSync(archive)) return console.log(`Using ${archive}, ${formatSize(statSync(archive).size)}`)
  console.log(`Making ${archive} with mmdebstrap (${suites.map((suite) => suite.name).join(', ')}) ...`)
  const started = performance.now()
  const made = join(home, name)
  const result = await run(
    'mmdebstrap',
    [
      ...['--mode=root', `--variant=${shape.variant}`, `--include=${packages.join(',')}`, '--format=tar'],
      // A build machine's clock may be ahead of what an archive says about itself.
      ...['--aptopt=Acquire::Check-Valid-Until "false"', '--aptopt=Acquire::Check-Date "false"'],
      '--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"',
      `--customize-hook=echo "${name}" > "$1/etc/whole-system-build"`,
      ...[suites[0]!.name, made, '-'],
    ],
    { input: suites.map(({ uri, name }) => `deb ${uri} ${name} main\n`).join(''), timeoutMs: MAKE_MS },
  )
  assert.equal(result.code, 0, `mmdebstrap failed:\n${result.stderr.slice(-4_000)}`)
  const [program, ...args] = compressor as [string, ...string[]]
  const packed = await run(program, [...args, made], { timeoutMs: MAKE_MS })
  assert.equal(packed.code, 0, packed.stderr)
  const digest = await run('sha256sum', [`${made}.${suffix}`])
  writeFileSync(`${archive}.sha256`, digest.stdout.replace(`${home}/`, ''))
  renameSync(`${made}.${suffix}`, archive)
  console.log(
    `Made ${archive}: ${formatSize(statSync(archive).size)} in ${formatDuration(performance.now() - started)}`,
  )
}

// ---------------------------------------------------------------------------------------------------
// The upgrade.

async function upgrade(): Promise<void> {
  const [device, data, scratch] = ['device', 'data', 'nginx'].map((name) => join(home, name)) as [
    string,
    string,
    string,
  ]
  for (const stale of [device, data, scratch]) rmSync(stale, { recursive: true, force: true })
  const nginx = await startNginx({ root: upstream, scratch })
  const sources = ['tar.zst', 'tar.gz'].map((suffix) => `${nginx.url}/{build}.${suffix}`)
  const upserv = await startUpserv({ data, sources })
  const link = await startLink(upserv.port)
  try {
    const url = (build: 1 | 2): string => `rsync://127.0.0.1:${link.port}/build-${build}/root/`
    const first = await sync(['-aHX', '--numeric-ids', url(1), `${device}/`], link)
    report('First sync of build 1', first, fullSize(1))
    const tree1 = await unpacked(1)
    assert.ok(tree1.size >= shape.leastEntries, `build 1 has only ${tree1.size} entries`)
    assertSameTree(tree1, snapshot(device))
    console.log(`  exactly the ${tree1.size} entries of the archive`)

    const poll = await sync(['-aHX', '--numeric-ids', url(1), `${device}/`], link)
    assert.equal(poll.stats.literal, 0)
    report('A poll that finds nothing', poll, fullSize(1))

    const second = await sync(['-aHXz', '--numeric-ids', '--delete', url(2), `${device}/`], link)
    report('Upgrade to build 2, compressed', second, fullSize(2))
    const tree2 = await unpacked(2)
    assertSameTree(tree2, snapshot(device))
    console.log(`  exactly the ${tree2.size} entries of the archive`)

    const third = await sync(['-aHX', '--numeric-ids', '--delete', url(1), `${device}/`], link)
    report('Back to build 1, not compressed', third, fullSize(1))
    assertSameTree(tree1, snapshot(device), { hardLinks: 'ignored' })
  } finally {
    link.server.close()
    await upserv.stop()
    await nginx.stop()
    for (const large of [device, data]) rmSync(large, { recursive: true, force: true })
  }
}

interface Synced {
  stats: RsyncStats
  toServer: number
  toDevice: number
  milliseconds: number
}

async function sync(args: readonly string[], link: Link): Promise<Synced> {
  const before = { ...link.bytes }
  const { stdout, milliseconds } = await rsyncSucceeds(['--stats', ...args], { timeoutMs: SYNC_MS })
  const { toServer, toDevice } = link.bytes
  return {
    stats: parseStats(stdout),
    toServer: toServer - before.toServer,
    toDevice: toDevice - before.toDevice,
    milliseconds,
  }
}

function report(title: string, { stats, toServer, toDevice, milliseconds }: Synced, full: number): void {
  const crossed = toServer + toDevice
  const percent = ((100 * crossed) / full).toFixed(1)
  console.log(
    `${title}: ${formatDuration(milliseconds)}; ${formatSize(crossed)} crossed the link ` +
      `(${formatSize(toDevice)} down, ${formatSize(toServer)} up; rsync counted ${formatSize(stats.received)} and ` +
      `${formatSize(stats.sent)}), ${percent} % of a full download (${formatSize(full)})`,
  )
}

/** What a device without rsync would download. */
function fullSize(build: 1 | 2): number {
  return statSync(archiveOf(build)).size
}

function archiveOf(build: 1 | 2): string {
  return join(upstream, build === 1 ? '1.tar.zst' : '2.tar.gz')
}

/** The archive as tar unpacks it. */
async function unpacked(build: 1 | 2): Promise<Snapshot> {
  const place = join(home, `unpacked-${build}`)
  rmSync(place, { recursive: true, force: true })
  mkdirSync(place)
  const args = ['-xpf', archiveOf(build), '-C', place, '--numeric-owner', '--xattrs', '--xattrs-include=*']
  const { code, stderr } = await run('tar', args, { timeoutMs: MAKE_MS })
  assert.equal(code, 0, stderr)
  const tree = snapshot(place)
  rmSync(place, { recursive: true })
  return tree
}

/** A relay between device and server that counts what passes: the link that an upgrade is to spare. */
interface Link {
  port: number
  server: Server
  bytes: { toServer: number; toDevice: number }
}

async function startLink(to: number): Promise<Link> {
  const bytes = { toServer: 0, toDevice: 0 }
  const server = createServer({ allowHalfOpen: true }, (device) => {
    const upserv = connect({ port: to, host: '127.0.0.1', allowHalfOpen: true })
    device.on('data', (chunk) => {
      bytes.toServer += chunk.length
    })
    upserv.on('data', (chunk) => {
      bytes.toDevice += chunk.length
    })
    device.pipe(upserv).pipe(device)
    device.on('error', () => upserv.destroy())
    upserv.on('error', () => device.destroy())
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return { port: (server.address() as AddressInfo).port, server, bytes }
}
