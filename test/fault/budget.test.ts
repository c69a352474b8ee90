/**
 * The budget, held by the running program: what is evicted and what never is, and that the directory is
 * never larger than the budget and the fetch under way.
 */
import assert from 'node:assert/strict'
import { readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { buildsOnDisk, bytesOnDisk, Mirror, randomTree, SizeWatch } from '../support/mirror.ts'
import { run } from '../support/processes.ts'
import { makeTree, randomBytes, SpecWriter } from '../support/tree.ts'
import type { Upserv } from '../support/upserv.ts'

const MB = 1e6
/** Of each build, give or take its manifest. No two share anything. */
const BUILD_BYTES = 8 * MB
/** Two builds fit, a third does not. */
const BUDGET = 20 * MB
/** Locks, logs and the like. */
const SMALL_CHANGE = 0.2 * MB

const CONCURRENCY = 2

async function mirrorWith(ids: readonly string[], limitRate?: string): Promise<Mirror> {
  const mirror = new Mirror()
  for (const id of ids)
    await mirror.publish(id, randomTree(Number(id), 20, BUILD_BYTES / 20), { suffix: 'tar' })
  await mirror.startNginx(limitRate)
  return mirror
}

const start = (mirror: Mirror): Promise<Upserv> => mirror.startUpserv({ budget: `${BUDGET}` })

describe('the budget', { concurrency: CONCURRENCY }, () => {
  test('the build accessed the longest time ago goes', async () => {
    await using mirror = await mirrorWith(['1', '2', '3', '4'])
    const upserv = await start(mirror)
    const size = new SizeWatch(mirror.data)
    await mirror.assertServes(upserv, '1')
    await mirror.assertServes(upserv, '2')
    await mirror.assertServes(upserv, '1')
    await mirror.assertServes(upserv, '3')
    assert.deepEqual(buildsOnDisk(mirror.data), ['1', '3'])
    await mirror.assertServes(upserv, '4')
    assert.deepEqual(buildsOnDisk(mirror.data), ['3', '4'])
    await mirror.assertServes(upserv, '3')
    await mirror.assertServes(upserv, '4')
    assert.deepEqual(mirror.incoming(), [])
    // One fetch at a time: its packs, and the download as far as it is kept for a resume.
    assert.ok(size.peak <= BUDGET + 2 * BUILD_BYTES, `${size.peak} bytes at the highest`)
    await upserv.stop()
    size.stop()
    assert.ok(size.now() <= BUDGET + SMALL_CHANGE, `${size.now()} bytes at the end`)
  })

  test('the order of access outlives a restart', async () => {
    await using mirror = await mirrorWith(['1', '2', '3'])
    let upserv = await start(mirror)
    await mirror.assertServes(upserv, '1')
    await mirror.assertServes(upserv, '2')
    await upserv.stop()
    upserv = await start(mirror)
    // Whole seconds would not do: both were fetched within one.
    await mirror.assertServes(upserv, '3')
    assert.deepEqual(buildsOnDisk(mirror.data), ['2', '3'])
  })

  test('a sticky build never goes', async () => {
    await using mirror = await mirrorWith(['1', '2', '3', '4'])
    const upserv = await start(mirror)
    await mirror.assertServes(upserv, '1')
    writeFileSync(join(mirror.data, 'builds', '1', 'sticky'), '') // as `touch` does
    for (const id of ['2', '3', '4']) await mirror.assertServes(upserv, id)
    assert.deepEqual(buildsOnDisk(mirror.data), ['1', '4'])
    rmSync(join(mirror.data, 'builds', '1', 'sticky'))
    await mirror.assertServes(upserv, '3')
    assert.deepEqual(buildsOnDisk(mirror.data), ['3', '4'])
  })

  test('a build that a channel names goes only where the configuration says so', async () => {
    await using mirror = await mirrorWith(['1', '2', '3', '4'])
    const config = mirror.path('upserv.toml')
    writeFileSync(config, '[channels]\nstable = "1"\n')
    let upserv = await mirror.startUpserv({ budget: `${BUDGET}`, config })
    for (const id of ['1', '2', '3']) await mirror.assertServes(upserv, id)
    assert.deepEqual(buildsOnDisk(mirror.data), ['1', '3'])
    const { stdout } = await upserv.cli(['gc', '--dry-run', '--explain'])
    assert.match(stdout, /^1 +stays .* channel "stable" names it$/m)
    await upserv.stop()

    writeFileSync(config, 'evict_channels = true\n[channels]\nstable = "1"\n')
    upserv = await mirror.startUpserv({ budget: `${BUDGET}`, config })
    await mirror.assertServes(upserv, '4')
    assert.deepEqual(buildsOnDisk(mirror.data), ['3', '4'])
    await upserv.stop()
  })

  test('a build that is being fetched again does not go meanwhile', async () => {
    await using mirror = await mirrorWith(['1', '2', '3'], '4m')
    let upserv = await start(mirror)
    await mirror.assertServes(upserv, '1')
    const packs = readdirSync(join(mirror.data, 'packs'))
    await mirror.assertServes(upserv, '2')
    await upserv.stop()
    for (const name of packs) rmSync(join(mirror.data, 'packs', name))

    upserv = await start(mirror)
    const repaired = mirror.client(upserv, '1').client
    await upserv.process.waitForOutput('stderr', /"build":"1".*"fetch began"/)
    const { stdout } = await upserv.cli(['gc', '--dry-run', '--explain'])
    assert.match(stdout, /^1 +stays .* it is being fetched again$/m)
    await mirror.assertServes(upserv, '3')
    assert.equal(await repaired.ended, 0)
    assert.deepEqual(buildsOnDisk(mirror.data), ['1', '3'])
    const gone = [...upserv.process.stderr.matchAll(/"build":"(\d)","msg":"build evicted"/g)]
    assert.deepEqual(
      gone.map(([, id]) => id),
      ['2'],
    )
    await upserv.stop()
  })

  test('a build in use never goes', async () => {
    await using mirror = await mirrorWith(['1', '2', '3', '4'])
    const upserv = await start(mirror)
    await mirror.assertServes(upserv, '1')
    const { client: slow, place } = mirror.client(upserv, '1', ['-v', '--outbuf=L', '--bwlimit=2000k'])
    await slow.waitForLine(/^file-1$/)
    slow.freeze()
    for (const id of ['2', '3', '4']) await mirror.assertServes(upserv, id)
    assert.ok(slow.isRunning, 'the client was too quick for this test')
    assert.deepEqual(buildsOnDisk(mirror.data), ['1', '4'])
    slow.wake()
    await slow.ends(0)
    mirror.assertTree('1', place)
    await mirror.assertServes(upserv, '3')
    assert.deepEqual(buildsOnDisk(mirror.data), ['3', '4'])
  })

  test('what cannot fit is refused with the numbers, and nothing is evicted for it', async () => {
    await using mirror = await mirrorWith(['1', '2', '3'])
    await mirror.publish('huge', randomTree(9, 30, 1 * MB), { suffix: 'tar' })
    const upserv = await start(mirror)
    const size = new SizeWatch(mirror.data)
    await mirror.assertServes(upserv, '1')
    await mirror.assertServes(upserv, '2')
    const huge = await mirror.sync(upserv, 'huge', 5)
    const refused =
      /^@ERROR: build huge needs at least [\d.]+ (MB|kB more than there can be); the budget is 20 MB/
    assert.match(huge.stderr, refused)
    assert.deepEqual(buildsOnDisk(mirror.data), ['1', '2'])

    for (const id of ['1', '2']) assert.equal((await upserv.cli(['pin', id])).code, 0)
    const third = await mirror.sync(upserv, '3', 5)
    assert.match(
      third.stderr,
      /^@ERROR: build 3 needs at least [\d.]+ MB; the budget is 20 MB, of which 16(\.1)? MB are sticky or in use/,
    )
    assert.deepEqual(buildsOnDisk(mirror.data), ['1', '2'])
    assert.deepEqual(mirror.incoming(), [])
    size.stop()
    assert.ok(size.peak <= BUDGET + 2 * BUILD_BYTES, `${size.peak} bytes at the highest`)
    for (const id of ['1', '2']) await mirror.assertServes(upserv, id)

    assert.equal((await upserv.cli(['unpin', '1'])).code, 0)
    await mirror.assertServes(upserv, '3')
    assert.deepEqual(buildsOnDisk(mirror.data), ['2', '3'])
  })

  test('an image that says how large it is unpacked is refused by that, before it is downloaded', async () => {
    await using mirror = new Mirror()
    // Half of it is air: the archive fits into the budget, and the image does not.
    const text = new SpecWriter()
    text.directory('')
    for (let i = 0; i < 8; i++) text.file(`file-${i}`, Buffer.from(randomBytes(i, MB).toString('hex')))
    const image = mirror.path('image.zip')
    makeTree(mirror.path('air'), text.spec)
    for (const [id, compressor] of [
      ['zip.gz', 'gzip -1 -c'],
      ['zip.xz', 'xz -0 -c'],
    ] as const) {
      const script = `test -e '${image}' || (cd '${mirror.path('air')}' && zip -q -0 -r '${image}' .)
${compressor} '${image}' > '${mirror.archive(id)}'`
      const { code, stderr } = await run('sh', ['-ec', script])
      assert.equal(code, 0, stderr)
    }
    await mirror.publish('1', randomTree(1, 4, MB))
    await mirror.startNginx('1m')
    const upserv = await mirror.startUpserv({ budget: `${10 * MB}` })
    await mirror.assertServes(upserv, '1')
    for (const id of ['zip.gz', 'zip.xz']) {
      const { stderr } = await mirror.sync(upserv, id, 5)
      assert.match(stderr, /^@ERROR: build \S+ needs at least 16 MB; the budget is 10 MB/m)
      const whole = statSync(mirror.archive(id)).size
      assert.ok(whole < 10 * MB, `${whole} bytes`)
      await mirror.nginx.stop() // The log lines of its answers are written by then.
      const [all, end, ...others] = mirror.requestsFor(id).toSorted((a, b) => b.bytes - a.bytes)
      assert.deepEqual([all!.range, end!.range, others], ['', `bytes=${whole - 65_536}-${whole - 1}`, []])
      assert.ok(all!.bytes < whole / 2, `${all!.bytes} bytes came`)
      await mirror.startNginx('1m')
    }
    assert.deepEqual(buildsOnDisk(mirror.data), ['1'])
    assert.deepEqual(mirror.incoming(), [])
    await mirror.assertServes(upserv, '1')
  })

  test('a tar may say that it is large, and fit: what comes twice is stored once', async () => {
    await using mirror = new Mirror()
    const twins = new SpecWriter()
    twins.directory('')
    const content = Buffer.from(randomBytes(1, MB).toString('hex'))
    for (let i = 0; i < 8; i++) twins.file(`file-${i}`, content)
    await mirror.publish('1', twins.spec, { suffix: 'tar.gz' })
    await mirror.startNginx()
    const upserv = await mirror.startUpserv({ budget: `${10 * MB}` })
    await mirror.assertServes(upserv, '1')
  })

  test('two fetches at once, and room for one more build only', async () => {
    await using mirror = await mirrorWith(['1', '2', '3', '4'], '8m')
    const upserv = await start(mirror)
    const size = new SizeWatch(mirror.data)
    await mirror.assertServes(upserv, '1')
    await mirror.assertServes(upserv, '2')
    assert.equal((await upserv.cli(['pin', '1'])).code, 0)
    // Both need the room of build 2. One gets it; the other takes its turn or is refused, but fills nothing.
    const [third, fourth] = await Promise.all(
      ['3', '4'].map(async (id) => {
        const { client, place } = mirror.client(upserv, id)
        return { id, place, client, code: await client.ended }
      }),
    )
    const winners = [third!, fourth!].filter(({ code }) => code === 0)
    assert.ok(winners.length > 0, `${third!.client.output}${fourth!.client.output}`)
    for (const { id, place } of winners) mirror.assertTree(id, place)
    for (const { code, client } of [third!, fourth!]) {
      if (code !== 0)
        assert.match(client.stderr, /^@ERROR: build \d needs .* the budget is 20 MB/, client.output)
    }
    assert.ok(buildsOnDisk(mirror.data).includes('1'))
    assert.deepEqual(mirror.incoming(), [])
    await upserv.stop()
    assert.ok(size.peak <= BUDGET + 2 * 2 * BUILD_BYTES, `${size.peak} bytes at the highest`)
    size.stop()
    assert.ok(size.now() <= BUDGET + SMALL_CHANGE, `${size.now()} bytes at the end`)
  })

  test('SIGTERM while a fetch waits for room: it is soon over, and what it had downloaded is kept', async () => {
    await using mirror = await mirrorWith(['1', '3', '4'], '1m')
    let upserv = await start(mirror)
    await mirror.assertServes(upserv, '1')
    // Both begin in what room there is. One goes beyond it, and the other waits for that.
    const waits = Promise.withResolvers<string>()
    for (const id of ['3', '4'])
      void mirror
        .client(upserv, id)
        .client.waitForLine(/waiting for room until/)
        .then(() => waits.resolve(id), waits.reject)
    const id = await waits.promise
    await upserv.stop()
    const { size } = statSync(join(mirror.data, 'incoming', `${id}.spool`, 'download'))
    assert.ok(size > MB, `${size} bytes`)
    await mirror.nginx.stop()
    await mirror.startNginx()
    upserv = await start(mirror)
    await mirror.assertServes(upserv, id)
    await upserv.stop()
    await mirror.nginx.stop()
    const last = mirror.requestsFor(id).at(-1)!
    assert.deepEqual([last.status, last.range], [206, `bytes=${size}-`])
  })

  test('gc --dry-run tells what gc would do, and changes nothing', async () => {
    await using mirror = await mirrorWith(['1', '2'])
    const upserv = await start(mirror)
    await mirror.assertServes(upserv, '1')
    await mirror.assertServes(upserv, '2')
    await upserv.stop()
    const config = mirror.path('tight.toml')
    writeFileSync(config, 'budget = "10MB"\n')

    const before = bytesOnDisk(mirror.data)
    const dry = await upserv.cli(['gc', '--dry-run', '--json', '--config', config])
    assert.equal(dry.code, 0, dry.stderr)
    const told = JSON.parse(dry.stdout)
    assert.deepEqual(told.evicted, ['1'])
    assert.ok(told.freedBytes > 0.9 * BUILD_BYTES && told.freedBytes < 1.1 * BUILD_BYTES, dry.stdout)
    // Neither do commands that only look.
    for (const command of ['list', 'status']) {
      assert.equal((await upserv.cli([command, '--config', config])).code, 0)
    }
    assert.deepEqual(buildsOnDisk(mirror.data), ['1', '2'])
    assert.equal(bytesOnDisk(mirror.data), before)

    const real = await upserv.cli(['gc', '--json', '--config', config])
    assert.equal(real.code, 0, real.stderr)
    assert.deepEqual(JSON.parse(real.stdout).evicted, ['1'])
    assert.deepEqual(buildsOnDisk(mirror.data), ['2'])
    assert.ok(bytesOnDisk(mirror.data) < 10 * MB)
  })

  test('a budget that was lowered is kept to from the next start on', async () => {
    await using mirror = await mirrorWith(['1', '2'])
    let upserv = await start(mirror)
    await mirror.assertServes(upserv, '1')
    await mirror.assertServes(upserv, '2')
    await upserv.stop()
    upserv = await mirror.startUpserv({ budget: '10MB' })
    await upserv.process.waitForOutput('stderr', /"build":"1".*build evicted/)
    await mirror.assertServes(upserv, '2')
    await upserv.stop()
    assert.deepEqual(buildsOnDisk(mirror.data), ['2'])
    assert.ok(bytesOnDisk(mirror.data) < 10 * MB)
  })
})
