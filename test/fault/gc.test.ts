/** What the data directory takes, all of it, and what would go: `gc --dry-run --explain` says before it happens. */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import type { GcReport, Status } from '../../src/build/operations.ts'
import { buildsOnDisk, diskUsage, Mirror, randomTree } from '../support/mirror.ts'
import { upserv as runUpserv } from '../support/upserv.ts'

const CONCURRENCY = 2
const MB = 1e6

/** Builds 1 to 4 of 1 MB each, fetched in this order; 2 has what 1 has and a little more. Then 1 is used again. */
async function fullMirror(): Promise<Mirror> {
  const mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 5, MB / 5))
  await mirror.publish('2', randomTree(1, 6, MB / 5))
  await mirror.publish('3', randomTree(3, 5, MB / 5))
  await mirror.publish('4', randomTree(4, 5, MB / 5))
  await mirror.startNginx()
  const upserv = await mirror.startUpserv()
  for (const id of ['1', '2', '3', '4']) assert.equal((await upserv.cli(['fetch', id])).code, 0)
  // What a cache and a download that broke off leave there.
  writeFileSync(join(mirror.data, 'cache/derived'), Buffer.alloc(300_000, 1))
  mkdirSync(join(mirror.data, 'incoming/9.spool'))
  writeFileSync(join(mirror.data, 'incoming/9.spool/data'), Buffer.alloc(200_000, 1))
  await upserv.stop()
  return mirror
}

function cli(mirror: Mirror, budget: number, ...args: string[]) {
  const config = mirror.path('upserv.toml')
  writeFileSync(config, `budget = ${budget}\n`)
  return runUpserv([...args, '--data', mirror.data, '--config', config])
}

async function gc(mirror: Mirror, budget: number, ...args: string[]): Promise<GcReport> {
  const result = await cli(mirror, budget, 'gc', '--json', ...args)
  assert.equal(result.code, 0, result.stderr)
  return JSON.parse(result.stdout)
}

describe('gc', { concurrency: CONCURRENCY }, () => {
  test('everything in the directory counts, as du counts it', async () => {
    await using mirror = await fullMirror()
    const status = JSON.parse((await cli(mirror, 100 * MB, 'status', '--json')).stdout) as Status
    const used = status.usedBytes
    const du = diskUsage(mirror.data)
    assert.ok(used >= du, `${used} bytes are counted, du finds ${du}`)
    assert.ok(used - du < 0.05 * du + 150_000, `${used} bytes are counted, du finds only ${du}`)
  })

  test('dry run and real run agree: caches, downloads, then builds by access', async () => {
    await using mirror = await fullMirror()
    assert.equal((await cli(mirror, 100 * MB, 'pin', '3')).code, 0)
    const all = await gc(mirror, 100 * MB, '--dry-run', '--explain')
    assert.deepEqual(all.spare, [])
    assert.deepEqual(all.evicted, [])
    assert.deepEqual(
      all.builds.map(({ id, goes, reason }) => [id, goes, reason]),
      [
        ['1', false, 'nothing has to go'],
        ['2', false, 'nothing has to go'],
        ['3', false, 'it is sticky'],
        ['4', false, 'nothing has to go'],
      ],
    )
    // 1 shares all it has with 2, of which a fifth is its own.
    const frees = new Map(all.builds.map(({ id, freesBytes }) => [id, freesBytes]))
    assert.ok(frees.get('1')! < 50_000, `${frees.get('1')}`)
    assert.ok(frees.get('2')! > MB / 5 && frees.get('2')! < MB / 5 + 50_000)
    assert.ok(frees.get('4')! > MB)

    // Only the cache, then the download as well, then builds: 1 and 2 go together for what they share.
    const cases = [
      { less: 100_000, spare: ['derived'], evicted: [] },
      { less: 400_000, spare: ['derived', '9'], evicted: [] },
      { less: 700_000, spare: ['derived', '9'], evicted: ['1', '2'] },
    ]
    for (const { less, spare, evicted } of cases) {
      const report = await gc(mirror, all.usedBytes - less, '--dry-run', '--explain')
      assert.deepEqual([report.spare.map(({ name }) => name), report.evicted], [spare, evicted])
      assert.ok(report.freedBytes >= less)
      assert.deepEqual(
        report.builds.filter(({ goes }) => goes).map(({ id }) => id),
        evicted,
      )
    }
    assert.deepEqual(buildsOnDisk(mirror.data), ['1', '2', '3', '4'], 'a dry run changes nothing')
    const text = await cli(mirror, all.usedBytes - 700_000, 'gc', '--dry-run', '--explain')
    assert.match(text.stdout, /The cache derived would go first: 30\d kB\./)
    assert.match(text.stdout, /The download of build 9 that broke off would go first: 20\d kB\./)
    assert.match(
      text.stdout,
      /^1 +goes +[\d.]+ kB +\S+ \S+ +accessed longest ago, and 1\d\d kB have to be freed$/m,
    )
    assert.match(text.stdout, /^4 +stays .* others were accessed longer ago, and are enough$/m)

    const done = await gc(mirror, all.usedBytes - 700_000)
    assert.deepEqual(done.evicted, ['1', '2'])
    assert.deepEqual(buildsOnDisk(mirror.data), ['3', '4'])
    assert.deepEqual(readdirSync(join(mirror.data, 'cache')), [])
    assert.ok(done.usedBytes <= all.usedBytes - 700_000)
    assert.ok(diskUsage(mirror.data) <= done.usedBytes)
  })

  test('what cannot be freed is said, with the reason for each', async () => {
    await using mirror = await fullMirror()
    for (const id of ['1', '2', '3']) await cli(mirror, 100 * MB, 'pin', id)
    const report = await gc(mirror, MB, '--dry-run', '--explain')
    assert.deepEqual(report.evicted, [])
    assert.equal(report.builds.at(-1)!.id, '4')
    assert.match(
      report.builds.at(-1)!.reason,
      /^all that may go would free 1(\.0\d)? MB, and [\d.]+ MB are needed$/,
    )
  })
})
