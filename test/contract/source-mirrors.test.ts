/** Several mirrors of one file, rates, and upstreams that send next to nothing. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { SYSTEM_CLOCK } from '../../src/source/clock.ts'
import { createSource } from '../../src/source/create.ts'
import { Pace, rateAt } from '../../src/source/pace.ts'
import type { Source } from '../../src/source/source.ts'
import { Spool } from '../../src/source/spool.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import type { RunResult } from '../support/processes.ts'
import { makeScratch } from '../support/scratch.ts'
import { SleepClock } from '../support/sleep-clock.ts'
import { upserv } from '../support/upserv.ts'
import { content, download, etagOf, file, quickSource, startUpstream, status } from './source-upstream.ts'

const ARCHIVE = content(700_000)
const SHA256 = createHash('sha256').update(ARCHIVE).digest('hex')
const OLD = 'Fri, 02 Nov 2007 12:00:00 GMT'

test('one breaks off: the next goes on at that byte, and what comes is checked', async (t) => {
  const checksum = { '/802.sha256': [file(Buffer.from(SHA256))] }
  const first = await startUpstream(t, { '/802': [file(ARCHIVE, { cutAt: 300_000 })], ...checksum })
  const second = await startUpstream(t, { '/802': [file(ARCHIVE, { etag: '"another"' })] })
  const { bytes, error, events, waits } = await download({
    upstream: first,
    config: { mirrors: [`${second.url}/{build}`] },
  })
  assert.equal(error, undefined)
  assert.ok(bytes.equals(ARCHIVE))
  assert.deepEqual(second.requests, ['GET /802 bytes=300000-'])
  assert.deepEqual(
    events.map(({ type }) => type),
    ['mirror', 'resumed'],
  )
  assert.deepEqual(waits, [])
})

test('nobody checks what comes: only a mirror whose file has the same time goes on', async (t) => {
  for (const [lastModified, fits] of [
    [OLD, true],
    ['Sat, 03 Nov 2007 12:00:00 GMT', false],
  ] as const) {
    const first = await startUpstream(t, {
      '/802': [file(ARCHIVE, { cutAt: 300_000, lastModified: OLD }), file(ARCHIVE, { lastModified: OLD })],
    })
    const second = await startUpstream(t, { '/802': [file(ARCHIVE, { etag: '"another"', lastModified })] })
    const { bytes, error } = await download({
      upstream: first,
      config: { mirrors: [`${second.url}/{build}`] },
    })
    assert.equal(error, undefined)
    assert.ok(bytes.equals(ARCHIVE))
    assert.equal(first.requests.filter((request) => request.includes('/802 bytes=')).length, fits ? 0 : 1)
  }
})

test('what one does not have, refuses or is too ill to say, another may have', async (t) => {
  for (const code of [404, 403, 500]) {
    const first = await startUpstream(t, { '/802': [status(code)] })
    const second = await startUpstream(t, { '/802': [file(ARCHIVE)] })
    const { bytes, error } = await download({
      upstream: first,
      config: { mirrors: [`${second.url}/{build}`] },
    })
    assert.equal(error, undefined)
    assert.ok(bytes.equals(ARCHIVE))
  }
})

test('none has it', async (t) => {
  const [first, second] = [await startUpstream(t, {}), await startUpstream(t, {})]
  const { error } = await download({ upstream: first, config: { mirrors: [`${second.url}/{build}`] } })
  assert.equal(error.code, 'BUILD_NOT_PUBLISHED')
})

test('none is ready: each is asked again when the one that asked for the longest wait allows it', async (t) => {
  const first = await startUpstream(t, { '/802': [status(500), file(ARCHIVE)] })
  const second = await startUpstream(t, { '/802': [status(503, { 'retry-after': '60' })] })
  const config = { mirrors: [`${second.url}/{build}`] }
  const { error, waits } = await download({ upstream: first, config })
  assert.equal(error, undefined)
  assert.deepEqual(waits, [60_000])
})

test('one that wants to be left alone for long keeps nobody from asking the other', async (t) => {
  const first = await startUpstream(t, { '/802': [status(503, { 'retry-after': '3600' })] })
  const second = await startUpstream(t, { '/802': [status(500), file(ARCHIVE)] })
  const config = { mirrors: [`${second.url}/{build}`] }
  const { error, bytes } = await download({ upstream: first, config })
  assert.equal(error, undefined)
  assert.ok(bytes.equals(ARCHIVE))
  assert.deepEqual(
    first.requests.filter((request) => request.includes('/802 ') || request.endsWith('/802')).length,
    1,
  )
})

test('all break off again and again: each goes on where the last one was', async (t) => {
  const cut = [100_000, 100_000, 400_000].map((cutAt) => file(ARCHIVE, { cutAt, lastModified: OLD }))
  const first = await startUpstream(t, { '/802': [...cut, file(ARCHIVE, { lastModified: OLD })] })
  const second = await startUpstream(t, { '/802': [...cut, file(ARCHIVE, { lastModified: OLD })] })
  const { bytes, error } = await download({ upstream: first, config: { mirrors: [`${second.url}/{build}`] } })
  assert.equal(error, undefined)
  assert.ok(bytes.equals(ARCHIVE))
})

test('an upstream that sends a byte now and then is given up', async (t) => {
  const upstream = await startUpstream(t, {
    '/802': [
      (_, response) => {
        response.writeHead(200, { 'content-length': 1000, etag: '"a"' })
        const timer = setInterval(() => response.write('x'), 20)
        response.on('close', () => clearInterval(timer))
      },
    ],
  })
  const { error } = await download({ upstream, limits: { slowMs: 200, slowBytes: 100, stallMs: 5000 } })
  assert.equal(error.code, 'SOURCE_UNREACHABLE')
  assert.match(error.message, /sends too slowly: \d+ bytes in/)
})

for (const places of [1, 2])
  test(`a byte for each connection, and then nothing: ${places} such places are given up`, async (t) => {
    const [first, ...others] = await Promise.all(
      Array.from({ length: places }, () =>
        startUpstream(t, { '/802': [file(ARCHIVE, { stallAt: 1, lastModified: OLD })] }),
      ),
    )
    const { bytes, error, events } = await download({
      upstream: first!,
      config: { mirrors: others.map(({ url }) => `${url}/{build}`) },
      limits: { stallMs: 50 },
    })
    assert.equal(error.code, 'SOURCE_UNREACHABLE')
    assert.match(error.message, /nothing came for .* \(8 attempts\)/)
    assert.equal(events.filter(({ type }) => type === 'retry').length, 7)
    assert.ok(bytes.length <= 8 * places, `${bytes.length} bytes`)
  })

test('rates: of several the first that holds at that time', () => {
  const day = { from: 8 * 60, to: 18 * 60, bytesPerSecond: 1 }
  const night = { from: 22 * 60, to: 6 * 60, bytesPerSecond: 2 }
  const at = (hour: number): Date => new Date(2026, 0, 5, hour)
  assert.deepEqual(
    [7, 8, 17, 18, 23, 3, 6].map((hour) => rateAt([day, night], at(hour))),
    [undefined, 1, 1, undefined, 2, 2, undefined],
  )
  assert.equal(rateAt([{ from: 0, to: 0, bytesPerSecond: 3 }], at(12)), 3)
})

test('rates: all who share one take it together', async () => {
  const memory = Pace.memory()
  const rules = [{ from: 0, to: 0, bytesPerSecond: 1_000_000 }]
  const { signal } = new AbortController()
  const began = performance.now()
  await Promise.all([1, 2, 3].map(() => new Pace(rules, memory, SYSTEM_CLOCK).spend(100_000, signal)))
  assert.ok(performance.now() - began > 290, 'three times a tenth of a second')
  const stop = new AbortController()
  const waiting = new Pace(rules, memory, SYSTEM_CLOCK).spend(1e9, stop.signal)
  stop.abort(new Error('enough'))
  await assert.rejects(waiting)
})

test('rates by the time of day: slow until the hours are over, and again from when they begin', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(ARCHIVE)] })
  const clock = new SleepClock()
  const rates = [{ from: 8 * 60, to: 18 * 60, bytesPerSecond: 10 }]
  const source = createSource(
    {
      name: 'test',
      builds: '.',
      url: `${upstream.url}/{build}`,
      checksum: undefined,
      contents: undefined,
      rates,
    },
    { clock, limits: { headersMs: 30_000, stallMs: 30_000 } },
  ) as Source
  /** How long the program believes that it took, from that time of the day on. */
  const secondsFrom = async (hour: number, minute: number): Promise<number> => {
    clock.set(hour, minute)
    await using found = await source.locate('802', options)
    assert.ok(Buffer.concat(await Array.fromAsync(found.bytes())).equals(ARCHIVE))
    return clock.slept / 1000
  }
  const last = await secondsFrom(17, 59)
  assert.ok(last >= 60 && last < 70, `${last} s, of which a minute is slow`)
  assert.equal(await secondsFrom(18, 0), 0)
  assert.equal(await secondsFrom(7, 59), 0)
  assert.ok((await secondsFrom(8, 0)) > 3600)
})

test('a source with a rate keeps to it', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(ARCHIVE)] })
  const source = quickSource(upstream, { rates: [{ from: 0, to: 0, bytesPerSecond: 2_000_000 }] })
  const began = performance.now()
  await using found = await source.locate('802', { signal: new AbortController().signal, onEvent: () => {} })
  for await (const _ of found.bytes());
  assert.ok(performance.now() - began > 340, '700 kB at 2 MB a second')
})

test('the program: the first mirror breaks off in the middle, the second sends the rest', async () => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 50, 100_000), { sha256: true })
  await mirror.startNginx('1m')
  await using second = new Mirror()
  for (const name of ['1', '1.sha256']) copyFileSync(mirror.archive(name), second.archive(name))
  await second.startNginx()
  const config = mirror.path('upserv.toml')
  const urls = [mirror, second].map(({ nginx }) => `${nginx.url}/{build}`)
  writeFileSync(config, `[[source]]\nname = "two"\nurl = ${JSON.stringify(urls)}\n`)
  const upserv = await mirror.startUpserv({ config, sources: [] })
  const { client, place } = mirror.client(upserv, '1')
  await client.waitForLine(/ [2-8]\d %/)
  await mirror.nginx.kill()
  await client.ends(0)
  mirror.assertTree('1', place)
  assert.match(client.output, new RegExp(`; going on with ${second.nginx.url}/1$`, 'm'))
  assert.match(client.output, /going on at/)
  await upserv.process.waitForOutput('stderr', new RegExp(`"type":"mirror","url":"${second.nginx.url}/1"`))
  await second.nginx.stop() // Then everything is in its log.
  const [rest, ...more] = second.requestsFor('1')
  assert.deepEqual([rest?.status, more], [206, []])
  assert.match(rest!.range, /^bytes=[1-9]\d*-$/)
})

test('a deadline: what came is kept, and the next one goes on from there', async () => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 20, 200_000), { sha256: true })
  await mirror.startNginx('1m')
  const config = mirror.path('upserv.toml')
  writeFileSync(config, `[[source]]\nname = "slow"\nurl = "${mirror.nginx.url}/{build}"\ndeadline = 2\n`)
  const upserv = await mirror.startUpserv({ config, sources: [] })
  const late = await mirror.sync(upserv, '1', 5)
  assert.match(late.stderr + late.stdout, /@ERROR: it was not complete after 2 s/)
  let again: Awaited<ReturnType<Mirror['sync']>> | undefined
  for (let tries = 0; !again && tries < 6; tries++)
    again = await mirror.sync(upserv, '1').catch(() => undefined)
  assert.match(again!.stdout, /going on at/)
  mirror.assertTree('1', again!.place)
})

test('a deadline is that of the source that is asked, whatever another one allows', async () => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 20, 200_000))
  await mirror.startNginx('1m')
  const config = mirror.path('upserv.toml')
  const url = `${mirror.nginx.url}/{build}`
  const [quick, patient] = ['quick', 'patient'].map(
    (name) => `[[source]]\nname = "${name}"\nurl = "${url}"\n`,
  )
  writeFileSync(config, `${quick}deadline = 1\n${patient}`)
  const upserv = await mirror.startUpserv({ config, sources: [] })
  const late = await mirror.sync(upserv, '1', 5)
  assert.match(late.stderr + late.stdout, /@ERROR: it was not complete after 1 s/)
})

test('the longest deadline that may be set gives no fetch up', async () => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 2, 1000))
  await mirror.startNginx()
  const config = mirror.path('upserv.toml')
  const fetchWithin = async (days: number): Promise<RunResult> => {
    const url = `${mirror.nginx.url}/{build}`
    writeFileSync(config, `[[source]]\nname = "patient"\nurl = "${url}"\ndeadline = ${days * 86_400}\n`)
    return await upserv(['fetch', '1', '--config', config, '--data', mirror.data])
  }
  // Node's timers hold no more than 24 days and 20 hours.
  const refused = await fetchWithin(25)
  assert.equal(refused.code, 78, refused.stderr)
  assert.match(refused.stderr, /deadline/)
  const fetched = await fetchWithin(24)
  assert.equal(fetched.code, 0, fetched.stderr)
})

const { signal } = new AbortController()
const options = { signal, onEvent: () => {} }

test('the first is down: what lies beside the archive is had from the mirror that has it', async (t) => {
  const dead = 'http://127.0.0.1:1/os'
  const mirror = await startUpstream(t, {
    '/m/802.tar': [file(ARCHIVE)],
    '/m/802.tar.sha256': [file(Buffer.from(`${SHA256}  802.tar\n`))],
    '/m/802.contents': [file(Buffer.from('contents'))],
  })
  const places = { url: `${dead}/{build}.tar`, mirrors: [`${mirror.url}/m/{build}.tar`] }
  for (const checksum of [undefined, '{url}.sha256']) {
    const source = quickSource(undefined, { ...places, checksum, contents: `${dead}/{build}.contents` })
    await using found = await source.locate('802', options)
    assert.deepEqual([found.checksum?.hex, String(await found.contents())], [SHA256, 'contents'])
    assert.ok(Buffer.concat(await Array.fromAsync(found.bytes())).equals(ARCHIVE))
  }
  // What a mirror lacks is not there, and must be where the source wants it.
  const { url } = await startUpstream(t, { '/802.tar': [file(ARCHIVE)] })
  const bare = { ...places, mirrors: [`${url}/{build}.tar`] }
  await using unchecked = await quickSource(undefined, bare).locate('802', options)
  assert.equal(unchecked.checksum, undefined)
  const strict = quickSource(undefined, { ...bare, checksum: '{url}.sha256' })
  await assert.rejects(strict.locate('802', options), { message: /does not exist/ })
  // Whoever trusts TLS does not get by with less because somebody cuts it off.
  const safe = quickSource(undefined, { ...places, url: 'https://127.0.0.1:1/os/{build}.tar' })
  await assert.rejects(safe.locate('802', options), { code: 'SOURCE_UNREACHABLE' })
})

test('who has sent the archive cannot give its checksum: a mirror that has none does not stand in', async (t) => {
  const ill = { '/802.tar': [file(ARCHIVE)], '/802.tar.sha256': [status(503)] }
  const sum = { '/802.tar.sha256': [file(Buffer.from(SHA256))] }
  const [none, has] = [await startUpstream(t, {}), await startUpstream(t, sum)]
  const mirrors = (...urls: string[]) => urls.map((url) => `${url}/{build}.tar`)
  for (const isMirror of [false, true]) {
    const { url } = await startUpstream(t, ill)
    const [first, ...others] = isMirror ? ['http://127.0.0.1:1', url] : [url]
    const places = { url: `${first}/{build}.tar`, mirrors: mirrors(...others, none.url) }
    await assert.rejects(quickSource(undefined, places).locate('802', options), {
      code: 'SOURCE_UNREACHABLE',
    })
    const more = { ...places, mirrors: [...places.mirrors, ...mirrors(has.url)] }
    await using found = await quickSource(undefined, more).locate('802', options)
    assert.equal(found.checksum?.hex, SHA256)
  }
})

test('the first is down, and a later process goes on with what a mirror gave', async (t) => {
  using scratch = makeScratch('mirror-spool')
  const mirror = await startUpstream(t, { '/802': [file(ARCHIVE, { stallAt: 300_000 }), file(ARCHIVE)] })
  const config = { url: 'http://127.0.0.1:1/{build}', mirrors: [`${mirror.url}/{build}`] }
  const first = new Spool(scratch.path)
  const stop = new AbortController()
  const limits = { stallMs: 60_000, attemptsToStart: 1 }
  await download({
    ...{ config, limits, spool: first, signal: stop.signal },
    onBytes: (count) => void (count >= 300_000 && stop.abort(new Error('enough'))),
  })
  await first.close()
  const second = new Spool(scratch.path)
  const { bytes, error } = await download({ config, limits, spool: second })
  await second.close()
  assert.equal(error, undefined)
  assert.ok(bytes.equals(ARCHIVE))
  const asked = mirror.requests.filter((request) => / \/802( |$)/.test(request))
  assert.deepEqual(asked, ['GET /802', `GET /802 bytes=300000- if ${etagOf(ARCHIVE)}`])
})

test('the first is down: what a star stands for is found at the second', async (t) => {
  const second = await startUpstream(t, {
    '/m/': [status(200, {}, '<a href="os-1.tar">os-1.tar</a><a href="os-2.tar">os-2.tar</a>')],
    '/m/os-2.tar': [file(ARCHIVE)],
    '/m/os-2.tar.sha256': [file(Buffer.from(SHA256))],
  })
  for (const first of ['http://127.0.0.1:1/os', (await startUpstream(t, {})).url]) {
    const source = quickSource(undefined, {
      url: `${first}/os-*.tar`,
      mirrors: [`${second.url}/m/os-*.tar`],
      builds: '^2$',
    })
    await using found = await source.locate('2', options)
    assert.ok(Buffer.concat(await Array.fromAsync(found.bytes())).equals(ARCHIVE))
  }
})

test('a checksum that is elsewhere than the archive is had from there, or not at all', async (t) => {
  const mirror = await startUpstream(t, {
    '/802': [file(ARCHIVE)],
    '/802.sha256': [file(Buffer.from(SHA256))],
  })
  const source = quickSource(undefined, {
    ...{ url: 'http://127.0.0.1:1/{build}', mirrors: [`${mirror.url}/{build}`] },
    checksum: 'http://127.0.0.1:2/{build}.sha256',
  })
  await assert.rejects(source.locate('802', options), { code: 'SOURCE_UNREACHABLE' })
})

test('directories: the first that has it, with what lies beside it there', async () => {
  using scratch = makeScratch('sticks')
  const place = (stick: string, name: string): string => join(scratch.path, stick, name)
  for (const stick of ['a', 'b']) mkdirSync(join(scratch.path, stick))
  writeFileSync(place('b', '802'), ARCHIVE)
  writeFileSync(place('b', '802.sha256'), SHA256)
  mkdirSync(place('a', '803'))
  writeFileSync(place('b', '803'), ARCHIVE)
  const [first, second] = ['a', 'b', 'c'].map((stick) =>
    pathToFileURL(place(stick, '{build}')).href.replace(/%7B/, '{').replace(/%7D/, '}'),
  )
  const source = quickSource(undefined, {
    url: first!,
    mirrors: [second!],
    checksum: '{url}.sha256',
    checksumRequired: false,
  })
  for (const id of ['802', '803']) {
    await using found = await source.locate(id, options)
    assert.equal(found.url, pathToFileURL(place('b', id)).href)
    assert.equal(found.checksum?.hex, id === '802' ? SHA256 : undefined)
    assert.ok(Buffer.concat(await Array.fromAsync(found.bytes())).equals(ARCHIVE))
  }
  await assert.rejects(source.locate('804', options), { code: 'BUILD_NOT_PUBLISHED' })
  assert.throws(() => quickSource(undefined, { url: first!, mirrors: ['file://host/{build}'] }), {
    code: 'CONFIG_BAD',
  })
})
