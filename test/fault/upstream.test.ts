/**
 * An upstream that fails while people wait: killed, replaced under our feet, slow, overloaded, without the
 * build. What the waiting client sees, and what is left of it afterwards (design: what happens when).
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { percentOf, type WaitingClient } from '../support/client.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { freePort } from '../support/processes.ts'
import type { Upserv } from '../support/upserv.ts'

/** About 5 MB at 1 MB a second: time to break things in the middle. */
const TREE = randomTree(1, 50, 100_000)
const RATE = '1m'
/** Lines that a client must hear while nothing comes from upstream. */
const LINES = 3

/** Mostly waiting, so several fit into one processor. */
const CONCURRENCY = 4

/** A client that waits for a build, at a moment when at least a fifth and not all of it has come. */
async function clientInMidDownload(
  mirror: Mirror,
  upserv: Upserv,
  id: string,
): Promise<{ client: WaitingClient; place: string }> {
  const { client, place } = mirror.client(upserv, id)
  const line = await client.waitForLine(/ [2-8]\d %/)
  assert.ok(percentOf(line)! < 90)
  return { client, place }
}

describe('the upstream fails', { concurrency: CONCURRENCY }, () => {
  test('killed and started again in the middle of a download: goes on where it was', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', TREE, { sha256: true })
    await mirror.startNginx(RATE)
    const upserv = await mirror.startUpserv()
    const { client, place } = await clientInMidDownload(mirror, upserv, '1')
    await mirror.nginx.kill()
    await client.waitForLine(/trying again in .* \(1 of \d+\)/)
    await mirror.startNginx()
    await client.ends(0)
    mirror.assertTree('1', place)
    const [resumed, ...more] = mirror.requestsFor('1') // nginx writes nothing about what it was killed in
    assert.deepEqual(more, [])
    assert.equal(resumed?.status, 206)
    const from = Number(/^bytes=(\d+)-$/.exec(resumed!.range)?.[1])
    assert.ok(from > 500_000, `went on at byte ${from}`)
    await client.waitForLine(/going on at/)
  })

  test('replaced in the middle of a download: starts over, and mixes nothing', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', TREE)
    await mirror.startNginx(RATE)
    const upserv = await mirror.startUpserv()
    const { client, place } = await clientInMidDownload(mirror, upserv, '1')
    await mirror.nginx.kill()
    await mirror.publish('1', randomTree(2, 40, 120_000))
    await mirror.startNginx()
    await client.ends(0)
    mirror.assertTree('1', place)
    await client.waitForLine(/starting over/)
    assert.deepEqual(mirror.incoming(), [])
  })

  test('gone for good in the middle: the client is told, and a later request goes on', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', TREE)
    await mirror.startNginx(RATE)
    const upserv = await mirror.startUpserv()
    const { client } = await clientInMidDownload(mirror, upserv, '1')
    await mirror.nginx.kill()
    await client.waitForLine(/trying again/)
    client.kill() // A person gives up; the server does not wait for them.
    await upserv.stop()
    assert.notDeepEqual(mirror.incoming(), [], 'the part that was downloaded is gone')
    await mirror.startNginx()
    await mirror.assertServes(await mirror.startUpserv(), '1')
    assert.deepEqual(
      mirror.requestsFor('1').map(({ status }) => status),
      [206],
    )
  })

  test('down from the beginning: the client is told why after some tries', async () => {
    await using mirror = new Mirror()
    const port = await freePort()
    const upserv = await mirror.startUpserv({ sources: [`http://127.0.0.1:${port}/{build}`] })
    const { stdout, stderr, place } = await mirror.sync(upserv, '1', 5)
    assert.match(stdout, /trying again in .* \(4 of 5\)/)
    assert.match(stderr, /^@ERROR: http:\/\/127\.0\.0\.1:\d+\/1: .*refused.*\n/)
    assert.doesNotMatch(stderr, /undefined|\[object/)
    assert.throws(() => readFileSync(place))
    await upserv.stop()
  })

  test('the log says more than the client hears: of a source that is passed over, and of what programs complain', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 2, 1000))
    writeFileSync(mirror.archive('2'), Buffer.concat([Buffer.from('BZh91AY&SY'), Buffer.alloc(5000, 7)]))
    const config = mirror.path('upserv.toml')
    const down = `http://127.0.0.1:${await freePort()}/{build}`
    writeFileSync(
      config,
      `[[source]]\nname = "down"\nattempts = 1\nurl = "${down}"\n` +
        `[[source]]\nname = "disk"\nurl = "file://${mirror.path('www')}/{build}"\n`,
    )
    const upserv = await mirror.startUpserv({ config, sources: [] })
    const { stdout } = await mirror.assertServes(upserv, '1')
    assert.doesNotMatch(stdout, /ECONNREFUSED/)
    const [passed] = await upserv.process.waitForOutput('stderr', /^.*source passed over.*$/m)
    assert.match(passed, /build.*1.*down.*SOURCE_UNREACHABLE.*hint.*Check that.*detail.*ECONNREFUSED/)
    const { stderr } = await mirror.sync(upserv, '2', 5)
    assert.match(stderr, /^@ERROR: .*the bzip2 data is damaged/)
    assert.doesNotMatch(stderr, /ended with/)
    const [failed] = await upserv.process.waitForOutput('stderr', /^.*fetch failed.*$/m)
    assert.match(failed, /ARCHIVE_BAD.*detail.*bzip2 ended with \d+: /)
  })

  test('pauses and trickles: the client hears something all the time', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', TREE)
    const archive = readFileSync(mirror.archive('1'))
    const half = archive.length >> 1
    const begun = Promise.withResolvers<WaitingClient>()
    await using upstream = await startScripted(async (request, response) => {
      if (request.url !== '/1') return void response.writeHead(404).end()
      response.writeHead(200, { 'content-length': archive.length, etag: '"1"' })
      response.write(archive.subarray(0, half))
      // Nothing more comes until the client has been told something, again and again.
      await (await begun.promise).waitForMore(LINES)
      for (let at = half; at < archive.length; at += 500_000) {
        response.write(archive.subarray(at, Math.min(at + 500_000, archive.length)))
        await sleep(100)
      }
      response.end()
    })
    const upserv = await mirror.startUpserv({ sources: [`${upstream.url}/{build}`] })
    const { client, place } = mirror.client(upserv, '1')
    begun.resolve(client)
    await client.ends(0)
    mirror.assertTree('1', place)
  })

  test('overloaded (503) at first: asked again, and the client hears of it', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 5, 1000))
    const archive = readFileSync(mirror.archive('1'))
    const statuses = [503, 503]
    await using upstream = await startScripted((request, response) => {
      if (request.url !== '/1') return void response.writeHead(404).end()
      const status = statuses.shift() ?? 200
      response.writeHead(status).end(status === 200 ? archive : 'busy')
    })
    const upserv = await mirror.startUpserv({ sources: [`${upstream.url}/{build}`] })
    const { stdout } = await mirror.assertServes(upserv, '1')
    assert.match(stdout, /503.*trying again in .* \(1 of 5\)/)
    assert.match(stdout, /503.*trying again in .* \(2 of 5\)/)
  })

  test('overloaded for longer than a fetch waits: left alone by later ones too, and who asks hears until when', async () => {
    await using mirror = new Mirror()
    const asked: string[] = []
    await using upstream = await startScripted((request, response) => {
      asked.push(request.url!)
      response.writeHead(503, { 'retry-after': '900' }).end()
    })
    await using down = await startScripted((request, response) => {
      asked.push(`mirror ${request.url}`)
      response.writeHead(503, { 'retry-after': '1800' }).end()
    })
    const config = mirror.path('upserv.toml')
    const urls = [`${upstream.url}/{build}`, `${down.url}/{build}`]
    writeFileSync(config, `[[source]]\nname = "busy"\nurl = ${JSON.stringify(urls)}\n`)
    const upserv = await mirror.startUpserv({ config, sources: [] })
    const first = await mirror.sync(upserv, '1', 5)
    assert.match(first.stderr, /^@ERROR: .*503, and asks to come back in 15 min/)
    const second = await mirror.sync(upserv, '2', 5)
    assert.match(second.stderr, /^@ERROR: .*busy when it was last asked, and asks to come back in 1[45] min/)
    assert.deepEqual(asked, ['/1', 'mirror /1'])
  })

  test('a deadline is for all of a fetch: starting over gives it no more time', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 5, 50_000))
    const archive = readFileSync(mirror.archive('1'))
    let versions = 0
    // Each answer is another version and breaks off half way: every start fails, after a second at most.
    await using upstream = await startScripted((request, response) => {
      if (request.url !== '/1') return void response.writeHead(404).end()
      response.writeHead(200, { 'content-length': archive.length, etag: `"${++versions}"` })
      response.write(archive.subarray(0, archive.length >> 1), () => response.destroy())
    })
    const config = mirror.path('upserv.toml')
    writeFileSync(config, `[[source]]\nname = "restless"\nurl = "${upstream.url}/{build}"\ndeadline = 1.3\n`)
    const upserv = await mirror.startUpserv({ config, sources: [] })
    const { stderr } = await mirror.sync(upserv, '1', 5)
    assert.match(stderr, /^@ERROR: it was not complete after /)
  })

  test('SIGTERM in the middle of a download: exit 0 soon, a word to who waits, and a later start goes on', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', TREE, { sha256: true })
    await mirror.startNginx(RATE)
    const upserv = await mirror.startUpserv()
    const { client } = await clientInMidDownload(mirror, upserv, '1')
    // Which kills it when it does not end.
    await upserv.stop()
    await client.ends(5)
    assert.match(client.stderr, /^@ERROR: .*stopping.*\n/)
    await mirror.nginx.stop()
    await mirror.startNginx()
    await mirror.assertServes(await mirror.startUpserv(), '1')
    const last = mirror.requestsFor('1').at(-1)!
    assert.equal(last.status, 206)
    assert.ok(Number(/^bytes=(\d+)-$/.exec(last.range)?.[1]) > 500_000, last.range)
  })

  test('kill -9 in the middle of a download: the next start goes on', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', TREE, { sha256: true })
    await mirror.startNginx(RATE)
    const upserv = await mirror.startUpserv()
    await clientInMidDownload(mirror, upserv, '1')
    await upserv.kill9()
    await mirror.nginx.stop()
    await mirror.startNginx()
    await mirror.assertServes(await mirror.startUpserv(), '1')
    assert.equal(mirror.requestsFor('1').at(-1)!.status, 206)
  })
})

describe('the upstream does not have it', { concurrency: CONCURRENCY }, () => {
  test('404: told by the name of the source, and remembered for a while', async () => {
    await using mirror = new Mirror()
    await mirror.startNginx()
    const config = mirror.path('upserv.toml')
    const url = `${mirror.nginx.url}/{build}`
    writeFileSync(config, `[[source]]\nname = "school-mirror"\nurl = "${url}"\n`)
    const upserv = await mirror.startUpserv({ config, sources: [] })
    for (let i = 0; i < 2; i++) {
      const { stderr } = await mirror.sync(upserv, '999', 5)
      assert.match(
        stderr,
        /^@ERROR: build-999 is not published by school-mirror[^\n]*\nrsync error: [^\n]*\n$/,
      )
    }
    await mirror.nginx.stop() // Then everything is in its log.
    assert.equal(mirror.requestsFor('999').length, 1)
    assert.deepEqual(mirror.incoming(), [])
  })

  test('no source offers such ids: the nearest known ones are named', async () => {
    await using mirror = new Mirror()
    await mirror.startNginx()
    for (const id of ['802', '767']) await mirror.publish(id, randomTree(1, 2, 10))
    const config = mirror.path('upserv.toml')
    writeFileSync(
      config,
      `[[source]]\nname = "olpc"\nbuilds = "^[0-9]+$"\nurl = "${mirror.nginx.url}/{build}"\n`,
    )
    const upserv = await mirror.startUpserv({ config, sources: [] })
    for (const id of ['802', '767']) await mirror.assertServes(upserv, id)
    const { stderr } = await mirror.sync(upserv, '8O2', 5)
    assert.match(stderr, /^@ERROR: no such build: build-8O2 .*\bbuild-802\b/)
    assert.doesNotMatch(stderr, /767/)
    const { stderr: far } = await mirror.sync(upserv, 'nothing-like-it', 5)
    assert.match(far, /^@ERROR: no such build: build-nothing-like-it .*build-767, build-802/)
  })
})

async function startScripted(listener: RequestListener): Promise<{ url: string } & AsyncDisposable> {
  const server: Server = createServer((request, response) => void listener(request, response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
    },
  }
}
