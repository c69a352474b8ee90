/**
 * `upserv warm`: the real client of a device finds everything prepared. What is worked out is put into the
 * cache, so a cache that has not grown by a byte says that nothing was.
 */
import assert from 'node:assert/strict'
import { readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { WarmedClient, WarmReport } from '../../src/build/operations.ts'
import { startDisguise } from '../support/disguise.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { run } from '../support/processes.ts'
import { parseStats, rsyncSucceeds } from '../support/rsync.ts'
import { assertSameTree, carriedBy, type Snapshot, snapshot } from '../support/snapshot.ts'
import {
  firstBuild,
  randomBytes,
  repetitiveText,
  SILENTLY_CHANGED,
  SpecWriter,
  secondBuild,
} from '../support/tree.ts'
import { upserv } from '../support/upserv.ts'

/** As devices run it: release, protocol, and what an older one says of itself. */
const CLIENTS = [
  { release: '3.2', protocol: 32, info: undefined },
  { release: '3.2', protocol: 31, info: undefined },
  { release: '3.1', protocol: 31, info: '.iLsfxC' },
  { release: '3.0', protocol: 30, info: '.iLsf' },
  { release: '2.6', protocol: 29, info: undefined },
]

/** Every kind of entry and of change; text and noise that are cut into pieces when they are compressed. */
async function twoBuilds(mirror: Mirror): Promise<void> {
  const first = new SpecWriter(firstBuild())
  const second = new SpecWriter(secondBuild(first.spec))
  // Before protocol 30 these times don't fit, so such a client asks for the files again and again.
  for (const name of [...first.spec.keys()].filter((path) => /^times\/.*(?:1970|2106)/.test(path)))
    for (const tree of [first, second]) tree.remove(name)
  second.file('data/large-and-new', Buffer.concat([repetitiveText(30_000), randomBytes(90, 300_000)]))
  // A name more of a file that is there, changed: what a client asks for depends on -H.
  second.hardlink('data/another-name', 'data/text')
  second.hardlink('aaa-first-name', 'data/random')
  for (const [id, spec] of [['1', first.spec] as const, ['2', second.spec] as const]) {
    await mirror.publish(id, spec)
    await importBuild(mirror, id)
  }
}

async function importBuild(mirror: Mirror, id: string): Promise<void> {
  const { code, stderr } = await upserv(['import', mirror.archive(id), '--as', id, '--data', mirror.data])
  assert.equal(code, 0, stderr)
}

async function warm(mirror: Mirror): Promise<WarmReport> {
  const flags = ['--clients', '3.2,3.1,3.0,2.6', '--json']
  const args = ['warm', '2', '--from', '1', ...flags, '--data', mirror.data]
  const { code, stdout, stderr, command } = await upserv(args)
  assert.equal(code, 0, `${command}\n${stderr}`)
  return JSON.parse(stdout)
}

/** Bytes of all derived data; of a server that has ended, all that it ever kept. */
function derivedBytes(mirror: Mirror): number {
  const cache = join(mirror.data, 'cache')
  return readdirSync(cache)
    .filter((name) => name.endsWith('.seg'))
    .reduce((sum, name) => sum + statSync(join(cache, name)).size, 0)
}

/** A device that has build 1. */
async function device(mirror: Mirror): Promise<string> {
  const place = mirror.place()
  const tree = readdirSync(mirror.path('trees')).find((name) => name.startsWith('1-'))!
  const { code, stderr } = await run('cp', ['-a', mirror.path('trees', tree), place])
  assert.equal(code, 0, stderr)
  return place
}

/** Without the file that -a takes for unchanged. */
function visible(tree: Snapshot): Snapshot {
  return new Map([...tree].filter(([path]) => path !== SILENTLY_CHANGED))
}

test('what a device asks for is ready, for clients of all times, compressed or not', async () => {
  await using mirror = new Mirror()
  await twoBuilds(mirror)
  const report = await warm(mirror)
  const prepared = derivedBytes(mirror)
  const [update] = report.updates
  assert.equal(update?.from, '1')
  assert.equal(update.unreadable, 0)
  assert.deepEqual(
    update.clients.map(({ client, codec, unready }) => [client, codec, unready]),
    [
      ['3.2', 'none', 0],
      ['3.2', 'zstd', 0],
      ...['3.1', '3.0', '2.6'].flatMap((release) => [
        [release, 'none', 0],
        [release, 'zlib', 0],
      ]),
    ],
  )
  assert.equal(report.lists, 6 + 6 + 6 + 4)

  const server = await mirror.startUpserv()
  // It takes a moment until a server knows what was kept: this waits for it.
  const again = await warm(mirror)
  assert.equal(again.writtenBytes, 0, 'what is ready is not made again')
  assert.deepEqual(
    again.updates[0]!.clients,
    update.clients.map((client) => ({ ...client, newAnswers: 0 })),
  )
  for (const { release, protocol, info } of CLIENTS) {
    await using relay = await startDisguise(server.port, info)
    const url = `rsync://127.0.0.1:${relay.port}/build-2/root/`
    for (const z of [[], ['-z']]) {
      const place = await device(mirror)
      const args = ['-aH', '--delete', '--stats', ...z, url, place]
      const stats = parseStats((await rsyncSucceeds(args, { protocol })).stdout)
      assertSameTree(visible(mirror.snapshotOf('2')), visible(snapshot(place)), carriedBy(protocol))
      const foretold: WarmedClient = update.clients.find(
        ({ client, codec }) => client === release && (codec === 'none') === (z.length === 0),
      )!
      assert.equal(stats.transferred, update.files, `rsync ${release} asks for other files`)
      assert.equal(stats.transferredSize, update.bytes)
      // Beside that it gets the list, and with each file its number, a sum head and a digest.
      const around = stats.received - stats.listSize - foretold.bytes
      assert.ok(around > 0 && around < 64 * update.files + 4096, `${around} bytes beside those foretold`)
    }
    const place = await device(mirror)
    for (const letters of protocol < 30 ? ['-a', '-aH'] : ['-a', '-aH', '-aHAX']) {
      for (const ids of [[], ['--numeric-ids']]) {
        await rsyncSucceeds([letters, '--delete', ...ids, url, place], { protocol })
      }
    }
    assert.equal(derivedBytes(mirror), prepared, `rsync ${release}, protocol ${protocol}: not all was ready`)
  }
  // What is worked out for a client is on disk at the latest when the server has ended.
  await server.stop()
  assert.equal(derivedBytes(mirror), prepared, 'not all was ready')
})

test('a server that runs warms itself, for those with -c and other codecs as well, and says how far it is', async () => {
  await using mirror = new Mirror()
  await twoBuilds(mirror)
  const server = await mirror.startUpserv()
  const flags = ['--from', '1', '--clients', '3.4.1', '--compress', 'lz4,zlibx', '--checksum', '--quick']
  const { code, stdout, stderr } = await server.cli(['warm', '2', ...flags])
  assert.equal(code, 0, stderr)
  assert.match(stderr, /^warming: \d+ % \(.*\), (?:file lists|1 to 2)$/m)
  assert.match(stdout, /^From 1 to 2 a device asks for \d+ files of [\d.]+ MB, and is sent /)
  assert.match(stdout, /^ {2}rsync 3\.2 {2}zlibx +[\d.]+ [kM]B +\d+ answers, \d+ of them new$/m)
  await server.stop()
  const prepared = derivedBytes(mirror)

  const restarted = await mirror.startUpserv()
  assert.match((await restarted.cli(['warm', '2', ...flags])).stdout, / 0 of them new$/m)
  const place = await device(mirror)
  const url = `${restarted.url}/build-2/root/`
  await rsyncSucceeds(['-aHc', '--delete', '-z', '--compress-choice=lz4', url, place])
  assertSameTree(mirror.snapshotOf('2'), snapshot(place))
  await rsyncSucceeds(['-aHAXc', '--delete', '--numeric-ids', url, place])
  await restarted.stop()
  assert.equal(derivedBytes(mirror), prepared, 'not all was ready')
})

test('a release that knows none of the compressions asks for nothing', async () => {
  await using mirror = new Mirror()
  for (const id of ['1', '2']) {
    await mirror.publish(id, randomTree(Number(id), 1, 1000))
    await importBuild(mirror, id)
  }
  const rows = async (clients: string): Promise<string[]> => {
    const flags = ['--clients', clients, '--compress', 'zstd', '--quick', '--json', '--data', mirror.data]
    const { code, stdout, stderr } = await upserv(['warm', '2', '--from', '1', ...flags])
    assert.equal(code, 0, stderr)
    const { updates }: WarmReport = JSON.parse(stdout)
    return updates[0]!.clients.map(({ client, codec }) => `${client} ${codec}`)
  }
  assert.deepEqual(await rows('3.1.3,3.4.1'), ['3.2 zstd'])
  assert.deepEqual(await rows('3.1.3'), [])
})

test('what cannot be warmed is refused, with what to do', async () => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 1, 1000))
  await importBuild(mirror, '1')
  const refused = async (args: string[], exit: number, says: RegExp): Promise<void> => {
    const { code, stderr, command } = await upserv(['warm', ...args, '--data', mirror.data])
    assert.equal(code, exit, `${command}\n${stderr}`)
    assert.match(stderr, says)
  }
  await refused(['2', '--from', '1'], 1, /build 2 is not held\n.*upserv fetch 2$/m)
  await refused(['1', '--from', '0'], 1, /build 0 is not held\n.*upserv fetch 0$/m)
  await refused(['1', '--from', '1'], 1, /a device that has build 1 asks for nothing of it/)
  await refused(['../1', '--from', '1'], 1, /"\.\.\/1" is no build id/)
  await refused(['1', '--from', ' , '], 64, /--from: names no build/)
  await refused(['1', '--from', '0', '--clients', '2.5'], 64, /--clients: "2\.5" is no version of rsync/)
  await refused(['1', '--from', '0', '--compress', 'xz'], 64, /--compress: "xz" is not one of none, auto/)
  await refused(['1'], 64, /required option '--from <id,...>'/)
})

test('a build that has rotted is not warmed', async () => {
  await using mirror = new Mirror()
  for (const id of ['1', '2']) {
    await mirror.publish(id, randomTree(Number(id), 1, 1000))
    await importBuild(mirror, id)
  }
  for (const name of readdirSync(join(mirror.data, 'packs')))
    truncateSync(join(mirror.data, 'packs', name), 500)
  await upserv(['verify', '--data', mirror.data])
  const { code, stderr } = await upserv(['warm', '2', '--from', '1', '--data', mirror.data])
  assert.equal(code, 1)
  assert.match(stderr, /build 2 is damaged.*\n.*upserv verify 2 --repair/)
})

test('warming ends before what it has made has to go for what it makes', async () => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 1, 1000))
  await mirror.publish('2', randomTree(2, 12, 2_000_000))
  for (const id of ['1', '2']) await importBuild(mirror, id)
  const config = mirror.path('upserv.toml')
  writeFileSync(config, 'cache = "8MB"\n')
  const args = ['warm', '2', '--from', '1', '--clients', '3.2', '--quick', '--config', config]
  const { code, stdout, stderr } = await upserv([...args, '--data', mirror.data])
  assert.equal(code, 1, stderr)
  assert.match(stdout, /^ {2}rsync 3\.2 +zstd /m)
  assert.match(stderr, /what is derived may take 8 MB, which is not enough\n +Raise `cache`/)
  assert.ok(derivedBytes(mirror) <= 8e6)
})
