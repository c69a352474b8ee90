/** Rules, rates and limits hold for child servers as for devices: what one may have, how fast, and how often. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { Agent, type IncomingMessage, request } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { encodeBlobRequest } from '../../src/source/parent-wire.ts'
import { httpUrlOf } from '../support/http.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import type { Upserv } from '../support/upserv.ts'

async function setUp(config: string): Promise<{ mirror: Mirror; parent: Upserv; file: string }> {
  const mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 4, 500_000))
  await mirror.publish('2', randomTree(2, 4, 500_000))
  await mirror.publish('3', randomTree(3, 1, 1000))
  await mirror.startNginx()
  const file = mirror.path('upserv.toml')
  writeFileSync(file, config)
  const parent = await mirror.startUpserv({ config: file, http: '127.0.0.1:0' })
  return { mirror, parent, file }
}

/** One request of a child server at this address. */
async function ask(
  parent: Upserv,
  from: string,
  path: string,
  body?: string,
): Promise<{ status: number; text: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const sent = request(`${httpUrlOf(parent)}/parent/v1/builds${path}`, {
    method: body === undefined ? 'GET' : 'POST',
    localAddress: from,
    agent: new Agent(),
  })
  sent.once('response', resolve).once('error', reject).end(body)
  const response = await promise
  const pieces: Buffer[] = []
  for await (const piece of response) pieces.push(piece as Buffer)
  return { status: response.statusCode!, text: Buffer.concat(pieces).toString('latin1') }
}

const NO_SEALS = '{"seals":[]}'

describe('child servers', { concurrency: 2 }, () => {
  test('rules of access hold for them, in listings and for each part of a build', async () => {
    const { mirror: owned, parent } = await setUp(
      '[[module]]\nname = "build-2"\nhosts_allow = ["127.0.0.2"]\n[[module]]\nname = "build-3"\nexclude = ["file-*"]\n',
    )
    await using mirror = owned
    for (const id of ['1', '2', '3']) assert.equal((await parent.cli(['fetch', id])).code, 0)
    const idsFor = async (from: string): Promise<string[]> => {
      const { status, text } = await ask(parent, from, '')
      assert.equal(status, 200)
      return [...text.matchAll(/"id":"(\w+)"/g)].map(([, id]) => id!)
    }
    assert.deepEqual(await idsFor('127.0.0.2'), ['1', '2'])
    assert.deepEqual(await idsFor('127.0.0.3'), ['1'])
    const parts: [part: string, body?: string][] = [['', NO_SEALS], ['/contents'], ['/blobs', 'x']]
    for (const [part, body] of parts) {
      assert.equal((await ask(parent, '127.0.0.3', `/2${part}`, body)).status, 403, `2${part}`)
      assert.equal((await ask(parent, '127.0.0.2', `/3${part}`, body)).status, 403, `3${part}`)
      const { status } = await ask(parent, '127.0.0.2', `/2${part}`, body)
      assert.equal(status, part === '/blobs' ? 400 : 200, `2${part}, for who may`)
    }
    // And a real one gets what it may have, and nothing else.
    const data = mirror.path('child')
    const sources = [httpUrlOf(parent).replace('http:', 'upserv:')]
    const child = await mirror.startUpserv({ data, sources })
    assert.equal((await child.cli(['fetch', '1'])).code, 0)
    for (const id of ['2', '3']) {
      const { code, stderr } = await child.cli(['fetch', id])
      assert.notEqual(code, 0)
      assert.match(stderr, new RegExp(`access denied to build-${id}|${id} is not|build-${id} `))
      assert.ok(!existsSync(join(data, 'builds', id)))
    }
  })

  test('rates hold for them', async () => {
    const { mirror: owned, parent, file } = await setUp('[limits]\nrate_per_source = "600kB"\n')
    await using mirror = owned
    for (const id of ['1', '2']) assert.equal((await parent.cli(['fetch', id])).code, 0)
    const sources = [httpUrlOf(parent).replace('http:', 'upserv:')]
    const child = await mirror.startUpserv({ data: mirror.path('child'), sources })
    const timed = async (id: string): Promise<number> => {
      const began = performance.now()
      const { code, stderr } = await child.cli(['fetch', id])
      assert.equal(code, 0, stderr)
      return performance.now() - began
    }
    // 2 MB that nothing makes smaller, of which an eighth of a second's worth is there at the beginning.
    const slow = await timed('1')
    assert.ok(slow > 2500, `2 MB at 600 kB a second took ${slow} ms`)
    writeFileSync(file, '')
    assert.equal((await parent.cli(['reload', '--config', file])).code, 0)
    const quick = await timed('2')
    assert.ok(quick < slow, `without a rate ${quick} ms, with one ${slow} ms`)
  })

  test('who is sent a manifest slowly takes no place of those who wait for a build', async () => {
    const { mirror: owned, parent } = await setUp('[limits]\nrate = "1kB"\nhttp_per_source = 0\n')
    await using mirror = owned
    await mirror.publish('many', randomTree(4, 300, 10))
    assert.equal((await parent.cli(['fetch', 'many'])).code, 0)
    using children = new DisposableStack()
    // One more than may wait.
    for (let asked = 0; asked <= 200; asked++) {
      const sent = request(`${httpUrlOf(parent)}/parent/v1/builds/many`, { method: 'POST', agent: false })
      children.defer(() => sent.destroy())
      const [{ statusCode }] = await once(sent.end(NO_SEALS), 'response')
      sent.on('error', () => {})
      assert.equal(statusCode, 200, `child ${asked}`)
    }
  })

  test('who is sent blobs slowly keeps nobody else from theirs, and one address has not all places', async () => {
    const { mirror: owned, parent } = await setUp('[limits]\nrate_per_source = "50kB"\n')
    await using mirror = owned
    assert.equal((await parent.cli(['fetch', '1'])).code, 0)
    const tree = mirror.path('trees', '1-1')
    const wanted = readdirSync(tree)
      .filter((name) => name.startsWith('file-'))
      .map((name) =>
        createHash('sha256')
          .update(readFileSync(join(tree, name)))
          .digest(),
      )
      .map((digest) => ({ digest, base: undefined }))
    assert.equal(wanted.length, 4)
    const body = encodeBlobRequest({ base: null, from: 0, wanted })
    using children = new DisposableStack()
    const askSlowly = async (localAddress: string): Promise<number | undefined> => {
      const sent = request(`${httpUrlOf(parent)}/parent/v1/builds/1/blobs`, {
        method: 'POST',
        localAddress,
        agent: false,
      })
      children.defer(() => sent.destroy())
      const [{ statusCode }] = await once(sent.end(body), 'response')
      sent.on('error', () => {})
      return statusCode
    }
    for (let asked = 1; asked <= 16; asked++)
      assert.equal(await askSlowly('127.0.0.2'), 200, `answer ${asked} for one address`)
    assert.equal(await askSlowly('127.0.0.2'), 503, 'one more for it')
    assert.equal(await askSlowly('127.0.0.3'), 200, 'for another address')
    const contents = await ask(parent, '127.0.0.4', '/1/contents')
    assert.equal(contents.status, 200)
    // Who is gone before the first byte, or later, has nothing of the build in use.
    for (let waitedMs = 0; waitedMs < 20; waitedMs += 2) {
      const sent = request(`${httpUrlOf(parent)}/parent/v1/builds/1/blobs`, {
        ...{ method: 'POST', localAddress: '127.0.0.5', agent: false },
      })
      sent.on('error', () => {}).end(body)
      await once(sent, 'finish')
      await sleep(waitedMs)
      sent.destroy()
    }
    children.dispose()
    const removed = async (): Promise<boolean> => (await parent.cli(['remove', '1'])).code === 0
    for (let tries = 0; !(await removed()); tries++) assert.ok(tries < 20, 'it is in use')
  })

  test('connections of one address are counted with all others of HTTP', async () => {
    const { mirror: owned, parent } = await setUp('[limits]\nhttp_per_source = 1\n')
    await using _ = owned
    const { port } = new URL(httpUrlOf(parent))
    const first = connect(Number(port), '127.0.0.1')
    await new Promise<void>((resolve) => {
      first.write('GET /parent/v1/builds HTTP/1.1\r\nHost: localhost\r\n\r\n')
      first.once('data', () => resolve())
    })
    await assert.rejects(ask(parent, '127.0.0.1', ''), /ECONNRESET|socket hang up/)
    assert.equal((await ask(parent, '127.0.0.2', '')).status, 200, 'of another address')
    first.destroy()
  })

  test('what is fetched for them counts as for other strangers', async () => {
    const { mirror: owned, parent } = await setUp('[fetch]\nper_source = 1\n')
    await using mirror = owned
    assert.match((await ask(parent, '127.0.0.1', '/1', NO_SEALS)).text, /"build":/)
    const { status, text } = await ask(parent, '127.0.0.1', '/3', NO_SEALS)
    assert.ok(status === 429 || /"code":"FETCHES_SPENT"/.test(text), `${status} ${text}`)
    assert.deepEqual(mirror.requestsFor('3'), [])
    assert.match(
      (await ask(parent, '127.0.0.1', '/1', NO_SEALS)).text,
      /"build":/,
      'what is held is not fetched',
    )
  })
})
