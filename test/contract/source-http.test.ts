/** What an HTTP upstream can do wrong, one by one, and what the download makes of it. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { Spool } from '../../src/source/spool.ts'
import { freePort } from '../support/processes.ts'
import { makeScratch } from '../support/scratch.ts'
import {
  content,
  download,
  etagOf,
  file,
  hangUp,
  QUICK,
  quickSource,
  type Reply,
  silence,
  startUpstream,
  status,
  type Upstream,
} from './source-upstream.ts'

const FILE = content(200_000)
const ETAG = etagOf(FILE)
const CHANGED = content(200_000, 2)
const OLD = 'Sat, 21 Nov 2020 12:00:00 GMT'
const NEWER = 'Sun, 22 Nov 2020 12:00:00 GMT'
const NO_ETAG = { etag: null }

/** The requests for the archive: those for its checksum are another test's business. */
function archiveRequests({ requests }: Upstream): string[] {
  return requests
    .filter((line) => !/\.(sha256|sha512|md5)$/.test(line))
    .map((line) => line.replace('GET /802', 'GET'))
}

interface Case {
  name: string
  replies: Reply[]
  requests: string[]
  /** The end of it: all bytes of FILE, or this error code. */
  code?: string
  message?: RegExp
  waits?: number[]
  events?: string[]
}

const CASES: Case[] = [
  { name: 'all goes well', replies: [file(FILE)], requests: ['GET'], waits: [], events: [] },
  { name: 'empty file', replies: [file(Buffer.alloc(0))], requests: ['GET'], waits: [] },
  { name: 'chunked, of unknown length', replies: [file(FILE, { chunked: true })], requests: ['GET'] },

  // What upstream refuses.
  { name: '404', replies: [status(404)], requests: ['GET'], code: 'BUILD_NOT_PUBLISHED', message: /by test/ },
  { name: '410', replies: [status(410)], requests: ['GET'], code: 'BUILD_NOT_PUBLISHED' },
  {
    name: '401',
    replies: [status(401)],
    requests: ['GET'],
    code: 'SOURCE_REFUSED',
    message: /access denied/,
  },
  { name: '403', replies: [status(403)], requests: ['GET'], code: 'SOURCE_REFUSED', message: /answers 403/ },
  { name: '400', replies: [status(400)], requests: ['GET'], code: 'SOURCE_REFUSED' },
  { name: '204', replies: [status(204)], requests: ['GET'], code: 'SOURCE_REFUSED' },
  { name: '206 unasked', replies: [status(206)], requests: ['GET'], code: 'SOURCE_REFUSED' },
  { name: '416 unasked', replies: [status(416)], requests: ['GET'], code: 'SOURCE_REFUSED' },

  // What passes.
  { name: '500, then fine', replies: [status(500), file(FILE)], requests: ['GET', 'GET'], waits: [1000] },
  {
    name: '503 with Retry-After',
    replies: [status(503, { 'retry-after': '7' }), status(429, { 'retry-after': '0' }), file(FILE)],
    requests: ['GET', 'GET', 'GET'],
    waits: [7000, 0],
  },
  {
    name: '503 for the next hour',
    replies: [status(503, { 'retry-after': '3600' })],
    requests: ['GET'],
    code: 'SOURCE_UNREACHABLE',
    message: /come back in 1 h/,
  },
  {
    name: 'always 502',
    replies: [status(502)],
    requests: Array(5).fill('GET'),
    waits: [1000, 2000, 4000, 8000],
    code: 'SOURCE_UNREACHABLE',
    message: /answers 502 \(5 attempts\)/,
  },
  { name: 'no answer but a hang-up', replies: [hangUp, file(FILE)], requests: ['GET', 'GET'], waits: [1000] },
  { name: 'no answer at all', replies: [silence, file(FILE)], requests: ['GET', 'GET'], waits: [1000] },

  // A connection that breaks.
  ...[1, 2, 65_536, 100_000, 199_999].map((k) => ({
    name: `cut at byte ${k}`,
    replies: [file(FILE, { cutAt: k }), file(FILE)],
    requests: ['GET', `GET bytes=${k}- if ${ETAG}`],
    waits: [1000],
    events: ['retry', `resumed ${k}`],
  })),
  {
    name: 'cut before the first byte',
    replies: [file(FILE, { cutAt: 0 }), file(FILE)],
    requests: ['GET', 'GET'],
    events: ['retry'],
  },
  {
    name: 'cut before the first byte, and then another file of that name',
    replies: [file(FILE, { cutAt: 0 }), file(CHANGED)],
    requests: ['GET', 'GET'],
    code: 'SOURCE_CHANGED',
  },
  {
    name: 'cut twelve times, each with progress',
    replies: [...Array<Reply>(12).fill(file(FILE, { cutAt: 10_000 })), file(FILE)],
    requests: ['GET', ...Array.from({ length: 12 }, (_, i) => `GET bytes=${(i + 1) * 10_000}- if ${ETAG}`)],
    waits: Array(12).fill(1000),
  },
  {
    name: 'cut, and no progress from then on',
    replies: [file(FILE, { cutAt: 10_000 }), status(503)],
    requests: ['GET', ...Array(7).fill(`GET bytes=10000- if ${ETAG}`)],
    waits: [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000],
    code: 'SOURCE_UNREACHABLE',
  },
  {
    name: 'cut, and the file is gone',
    replies: [file(FILE, { cutAt: 10_000 }), status(404)],
    requests: ['GET', `GET bytes=10000- if ${ETAG}`],
    code: 'SOURCE_CHANGED',
    message: /was removed/,
  },
  {
    name: 'cut in the middle of chunks',
    replies: [file(FILE, { cutAt: 10_000, chunked: true }), file(FILE)],
    requests: ['GET', `GET bytes=10000- if ${ETAG}`],
  },
  {
    name: 'a stall',
    replies: [file(FILE, { stallAt: 10_000 }), file(FILE)],
    requests: ['GET', `GET bytes=10000- if ${ETAG}`],
    waits: [1000],
  },
  {
    name: 'Last-Modified stands in for an ETag',
    replies: [
      file(FILE, { ...NO_ETAG, lastModified: OLD, cutAt: 10_000 }),
      file(FILE, { ...NO_ETAG, lastModified: OLD }),
    ],
    requests: ['GET', `GET bytes=10000- if ${OLD}`],
  },
  {
    name: 'Last-Modified stands in for a weak ETag',
    replies: [
      file(FILE, { etag: 'W/"x"', lastModified: OLD, cutAt: 10_000 }),
      file(FILE, { etag: 'W/"x"', lastModified: OLD }),
    ],
    requests: ['GET', `GET bytes=10000- if ${OLD}`],
  },
  {
    name: 'a weak ETag alone is not enough to go on',
    replies: [file(FILE, { etag: 'W/"x"', cutAt: 10_000 })],
    requests: ['GET'],
    code: 'SOURCE_CHANGED',
    message: /may have changed/,
  },
  {
    name: 'no validator is not enough to go on',
    replies: [file(FILE, { ...NO_ETAG, cutAt: 10_000 })],
    requests: ['GET'],
    code: 'SOURCE_CHANGED',
  },
  {
    name: 'no validator matters as long as there is no byte',
    replies: [file(FILE, { ...NO_ETAG, cutAt: 0 }), file(FILE, NO_ETAG)],
    requests: ['GET', 'GET'],
  },
  {
    name: 'a part that is shorter than asked for',
    replies: [
      file(FILE, { cutAt: 10_000 }),
      (_, response) =>
        void response
          .writeHead(206, {
            etag: ETAG,
            'content-range': 'bytes 10000-19999/200000',
            'content-length': 10_000,
          })
          .end(FILE.subarray(10_000, 20_000)),
      file(FILE),
    ],
    requests: ['GET', `GET bytes=10000- if ${ETAG}`, `GET bytes=20000- if ${ETAG}`],
  },

  // Ranges that do not work.
  {
    name: 'ranges ignored: what was had is skipped',
    replies: [file(FILE, { cutAt: 70_000 }), file(FILE, { ignoreRange: true })],
    requests: ['GET', `GET bytes=70000- if ${ETAG}`],
    events: ['retry', 'resumed 70000'],
  },
  {
    name: 'ranges ignored, and always cut at the same place',
    replies: [file(FILE, { cutAt: 70_000, ignoreRange: true })],
    requests: ['GET', ...Array(7).fill(`GET bytes=70000- if ${ETAG}`)],
    code: 'SOURCE_UNREACHABLE',
  },
  {
    name: 'ranges ignored, and nothing to tell by',
    replies: [
      file(FILE, { ...NO_ETAG, lastModified: OLD, cutAt: 10_000 }),
      file(FILE, { ...NO_ETAG, ignoreRange: true }),
    ],
    requests: ['GET', `GET bytes=10000- if ${OLD}`],
    code: 'SOURCE_CHANGED',
  },
  ...[
    { name: 'start', range: 'bytes 9999-199999/200000', code: 'SOURCE_FAILED' },
    { name: 'unit', range: 'octets 10000-199999/200000', code: 'SOURCE_FAILED' },
    { name: 'length', range: 'bytes 10000-199998/200000', code: 'SOURCE_FAILED' },
    { name: 'total', range: 'bytes 10000-199999/200001', code: 'SOURCE_CHANGED' },
  ].map(({ name, range, code }) => ({
    name: `Content-Range with another ${name}`,
    replies: [file(FILE, { cutAt: 10_000 }), file(FILE, { headers: { 'content-range': range } })],
    requests: ['GET', `GET bytes=10000- if ${ETAG}`],
    code,
  })),

  {
    name: 'Content-Range with another start, without a length to tell',
    replies: [
      file(FILE, { cutAt: 10_000 }),
      file(FILE, { chunked: true, headers: { 'content-range': 'bytes 9999-199999/200000' } }),
    ],
    requests: ['GET', `GET bytes=10000- if ${ETAG}`],
    code: 'SOURCE_FAILED',
    message: /"bytes 9999-199999\/200000"/,
  },

  // A file that changes.
  {
    name: 'changed: other ETag, all of it',
    replies: [file(FILE, { cutAt: 10_000 }), file(CHANGED)],
    requests: ['GET', `GET bytes=10000- if ${ETAG}`],
    code: 'SOURCE_CHANGED',
    message: /changed while it was being downloaded, at byte 10000/,
  },
  {
    name: 'changed: other date, all of it',
    replies: [
      file(FILE, { ...NO_ETAG, lastModified: OLD, cutAt: 10_000 }),
      file(CHANGED, { ...NO_ETAG, lastModified: NEWER }),
    ],
    requests: ['GET', `GET bytes=10000- if ${OLD}`],
    code: 'SOURCE_CHANGED',
  },
  {
    name: 'changed: the part has another ETag (a server that ignores If-Range)',
    replies: [file(FILE, { cutAt: 10_000 }), file(FILE, { headers: { etag: '"other"' } })],
    requests: ['GET', `GET bytes=10000- if ${ETAG}`],
    code: 'SOURCE_CHANGED',
  },
  {
    name: 'changed: shorter now (416)',
    replies: [file(FILE, { cutAt: 10_000 }), status(416)],
    requests: ['GET', `GET bytes=10000- if ${ETAG}`],
    code: 'SOURCE_CHANGED',
    message: /shorter now/,
  },

  {
    name: 'changed: shorter now, which shows only at the end',
    replies: [
      file(FILE, { chunked: true, cutAt: 10_000 }),
      file(FILE.subarray(0, 5000), { etag: ETAG, chunked: true, ignoreRange: true }),
    ],
    requests: ['GET', `GET bytes=10000- if ${ETAG}`],
    code: 'SOURCE_CHANGED',
    message: /shorter now/,
  },

  // Bodies of the wrong length.
  {
    name: 'all bytes, but no end',
    replies: [file(FILE, { cutAt: 10_000 }), file(FILE, { chunked: true, stallAt: 190_000 })],
    requests: ['GET', `GET bytes=10000- if ${ETAG}`],
  },
  {
    name: 'a body shorter than announced, orderly closed',
    replies: [
      ({ socket }, response, progress) => {
        response.writeHead(200, { etag: ETAG, 'content-length': FILE.length, connection: 'close' })
        response.write(FILE.subarray(0, 5000))
        progress.at(5000, () => socket.end())
      },
      file(FILE),
    ],
    requests: ['GET', `GET bytes=5000- if ${ETAG}`],
  },
  {
    name: 'a part longer than announced',
    replies: [file(FILE, { cutAt: 10_000 }), file(FILE, { chunked: true, extra: Buffer.from('too much') })],
    requests: ['GET', `GET bytes=10000- if ${ETAG}`],
    code: 'SOURCE_FAILED',
    message: /more bytes than the 200000/,
  },

  // Redirects.
  {
    name: 'redirects, also relative ones',
    replies: [status(302, { location: '/hop' })],
    requests: ['GET', 'GET /hop', 'GET /there'],
  },
  {
    name: 'a redirect to itself',
    replies: [status(301, { location: '' })],
    requests: ['GET'],
    code: 'SOURCE_REFUSED',
    message: /in a circle/,
  },
  {
    name: 'redirects without end',
    replies: [status(302, { location: '/more/1' })],
    requests: ['GET', 'GET /more/1', 'GET /more/2', 'GET /more/3', 'GET /more/4', 'GET /more/5'],
    code: 'SOURCE_REFUSED',
    message: /more than 5 times/,
  },
  {
    name: 'a redirect to another scheme',
    replies: [status(302, { location: 'file:///etc/passwd' })],
    requests: ['GET'],
    code: 'SOURCE_REFUSED',
    message: /to a file: URL/,
  },
  { name: 'a redirect to nowhere', replies: [status(302)], requests: ['GET'], code: 'SOURCE_REFUSED' },
]

const HOPS: Record<string, Reply[]> = { '/hop': [status(307, { location: 'there' })], '/there': [file(FILE)] }
for (let i = 1; i <= 9; i++) HOPS[`/more/${i}`] = [status(302, { location: `/more/${i + 1}` })]

for (const { name, replies, requests, code, message, waits, events } of CASES)
  test(`http: ${name}`, async (t) => {
    const upstream = await startUpstream(t, { '/802': replies, ...HOPS })
    const result = await download({ upstream })
    assert.equal(result.error?.code, code, String(result.error?.stack))
    if (message) assert.match(result.error.message, message)
    const expected = name === 'empty file' ? Buffer.alloc(0) : FILE
    if (code) assert.ok(expected.subarray(0, result.bytes.length).equals(result.bytes), 'no wrong byte')
    else assert.ok(result.bytes.equals(expected), `${result.bytes.length} bytes, but others`)
    assert.deepEqual(archiveRequests(upstream), requests)
    if (waits) assert.deepEqual(result.waits, waits)
    const told = result.events.map((event) => (event.type === 'resumed' ? `resumed ${event.at}` : event.type))
    if (events) assert.deepEqual(told, events)
  })

test('http: a body longer than its Content-Length ends where that says', async (t) => {
  const upstream = await startUpstream(t, {
    '/802': [
      ({ socket }) => {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: ${ETAG}\r\n\r\n`)
        socket.end('01234567')
      },
    ],
  })
  const { bytes, error } = await download({ upstream })
  assert.equal(error, undefined)
  assert.equal(bytes.toString(), '01234')
})

test('http: asks for the file itself, and keeps passwords to the host they are for', async (t) => {
  const other = await startUpstream(t, { '/802': [file(FILE)] })
  const upstream = await startUpstream(t, { '/802': [status(302, { location: `${other.url}/802` })] })
  const url = upstream.url.replace('//', '//me:p%40ss@')
  const source = quickSource(undefined, { url: `${url}/{build}` })
  const { signal } = new AbortController()
  await using found = await source.locate('802', { signal, onEvent: () => undefined })
  assert.equal(found.url, `${upstream.url}/802`)
  assert.equal(upstream.headers[0]!['accept-encoding'], 'identity')
  assert.equal(upstream.headers[0]!.authorization, `Basic ${btoa('me:p@ss')}`)
  assert.equal(other.headers[0]!.authorization, undefined)
})

test('http: a connection that breaks before anybody reads', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(FILE, { stallAt: 50_000 }), file(FILE)] })
  const source = quickSource(upstream)
  const { signal } = new AbortController()
  await using found = await source.locate('802', { signal, onEvent: () => undefined })
  for (const socket of upstream.sockets) socket.destroy()
  assert.ok(Buffer.concat(await Array.fromAsync(found.bytes())).equals(FILE))
})

test('http: an encoding that the server claims is left on', async (t) => {
  const upstream = await startUpstream(t, {
    '/802': [file(FILE, { headers: { 'content-encoding': 'gzip' } })],
  })
  const { bytes } = await download({ upstream })
  assert.ok(bytes.equals(FILE))
})

test('http: nobody listens', async () => {
  const { error, waits } = await download({ config: { url: `http://127.0.0.1:${await freePort()}/{build}` } })
  assert.equal(error.code, 'SOURCE_UNREACHABLE')
  assert.match(error.message, /refused \(5 attempts\)/)
  assert.equal(waits.length, 4)
})

test('http: the host name is not known', async () => {
  const { error } = await download({ config: { url: 'http://no-such-host.invalid/{build}' } })
  assert.equal(error.code, 'SOURCE_UNREACHABLE')
})

test('http: what answers does not speak HTTP', async (t) => {
  const server = createServer((socket) => socket.end('@RSYNCD: 31.0\n')).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const { port } = server.address() as { port: number }
  const { error } = await download({ config: { url: `http://127.0.0.1:${port}/{build}` } })
  assert.equal(error.code, 'SOURCE_UNREACHABLE')
})

test('http: a checksum that is guessed at and answered with 503 is waited for', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(FILE)], '/802.sha256': [status(503)] })
  const { error } = await download({ upstream })
  assert.equal(error.code, 'SOURCE_UNREACHABLE')
})

test('http: a checksum file without end is cut off', async (t) => {
  const upstream = await startUpstream(t, {
    '/802': [file(FILE)],
    '/SUMS': [file(content(100_001), { chunked: true })],
  })
  const config = { checksum: `${upstream.url}/SUMS` }
  const { error } = await download({ upstream, config, limits: { checksumBytes: 100_000 } })
  assert.equal(error.code, 'SOURCE_FAILED')
  assert.match(error.message, /larger than 100 kB/)
})

// ---------------------------------------------------------------------------------------------------
// Aborting.

/** Sends without end, as fast as it is read. */
const endless: Reply = (request, response) => {
  const more = () => {
    while (!request.socket.destroyed && response.write(FILE));
  }
  response.on('drain', more)
  more()
}

test('http: an abort ends an endless stream, with its own reason', async (t) => {
  const upstream = await startUpstream(t, { '/802': [endless] })
  const controller = new AbortController()
  const reason = new Error('nobody waits any more')
  const { error, bytes } = await download({
    upstream,
    signal: controller.signal,
    onBytes: (count) => void (count > 1e6 && controller.abort(reason)),
  })
  assert.equal(error, reason)
  assert.ok(bytes.length > 1e6)
})

test('http: an abort ends a wait for an answer', async (t) => {
  const upstream = await startUpstream(t, { '/802': [silence] })
  const controller = new AbortController()
  const reason = new Error('enough')
  const limits = { headersMs: 60_000 }
  const waiting = download({ upstream, signal: controller.signal, limits })
  while (upstream.requests.length === 0) await new Promise(setImmediate)
  controller.abort(reason)
  assert.equal((await waiting).error, reason)
})

test('http: an abort ends a wait for a connection', async (t) => {
  const { promise: connected, resolve } = Promise.withResolvers<Socket>()
  const server = createServer(resolve).listen(0, '127.0.0.1') // It never says a word of TLS.
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const controller = new AbortController()
  const reason = new Error('enough')
  const config = { url: `https://127.0.0.1:${port}/{build}` }
  const waiting = download({ config, signal: controller.signal, limits: { connectMs: 60_000 } })
  const socket = await connected
  t.after(() => {
    socket.destroy()
    server.close()
  })
  controller.abort(reason)
  assert.equal((await waiting).error, reason)
})

test('http: an abort ends a wait between attempts', async (t) => {
  const upstream = await startUpstream(t, { '/802': [status(500)] })
  const controller = new AbortController()
  const reason = new Error('enough')
  const source = quickSource(upstream)
  const locating = source.locate('802', {
    signal: controller.signal,
    onEvent: ({ type }) => type === 'retry' && setImmediate(() => controller.abort(reason)),
  })
  await assert.rejects(locating, reason)
})

test('http: who stops reading, or never starts, leaves no connection behind', async (t) => {
  const sockets: Socket[] = []
  const tracked: Reply = (request, response, progress) => {
    sockets.push(request.socket)
    endless(request, response, progress)
  }
  const upstream = await startUpstream(t, { '/802': [tracked], '/SUMS': [tracked] })
  const { signal } = new AbortController()
  const options = { signal, onEvent: () => undefined }

  const strict = quickSource(upstream, { checksum: `${upstream.url}/SUMS` })
  await assert.rejects(strict.locate('802', options), { code: 'SOURCE_FAILED' })

  const source = quickSource(upstream)
  const left = await source.locate('802', options)
  for await (const _ of left.bytes()) break
  await assert.rejects(Array.fromAsync(left.bytes()), /only once/)

  const unread = await source.locate('802', options)
  await unread[Symbol.asyncDispose]()

  assert.equal(sockets.length, 4)
  for (const socket of sockets)
    if (!socket.closed) await new Promise((resolve) => socket.on('close', resolve))
})

test('http: a slow reader holds the upstream back, and is not taken for a stall', async (t) => {
  let written = 0
  const upstream = await startUpstream(t, {
    '/802': [
      (request, response) => {
        const more = () => {
          while (!request.socket.destroyed) {
            written += FILE.length
            if (!response.write(FILE)) return
          }
        }
        response.on('drain', more)
        more()
      },
    ],
  })
  const controller = new AbortController()
  let read = 0
  let ahead = 0
  const { events } = await download({
    upstream,
    signal: controller.signal,
    onBytes: async (count) => {
      read = count
      if (ahead > 0) return controller.abort()
      if (count < 1e6) return
      await new Promise((resolve) => setTimeout(resolve, QUICK.stallMs * 3))
      ahead = written - read
    },
  })
  assert.deepEqual(events, [])
  assert.ok(ahead < 30e6, `${ahead} bytes ahead of the reader`) // what socket buffers take, and no more
})

// ---------------------------------------------------------------------------------------------------
// Going on in a later process.

function spoolDir(t: TestContext): string {
  const scratch = makeScratch('spool')
  t.after(() => scratch[Symbol.dispose]())
  return join(scratch.path, 'incoming')
}

/** A first process, which dies when it has had about so many bytes. */
async function dieAt(upstream: Upstream, dir: string, bytes: number): Promise<number> {
  const spool = new Spool(dir)
  const controller = new AbortController()
  const { error } = await download({
    upstream,
    spool,
    signal: controller.signal,
    onBytes: (count) => void (count >= bytes && controller.abort(new Error('killed'))),
  })
  assert.ok(bytes > FILE.length || error.message === 'killed')
  const held = spool.bytes
  await spool.close()
  return held
}

async function later(upstream: Upstream, dir: string) {
  upstream.requests.length = 0
  const spool = new Spool(dir)
  const result = await download({ upstream, spool })
  await spool.close()
  return result
}

test('spool: a later process goes on where the first one died', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(FILE)] })
  const dir = spoolDir(t)
  const held = await dieAt(upstream, dir, 50_000)
  assert.ok(held >= 50_000 && held < FILE.length)
  const { bytes, events } = await later(upstream, dir)
  assert.ok(bytes.equals(FILE))
  assert.deepEqual(archiveRequests(upstream), [`GET bytes=${held}- if ${ETAG}`])
  assert.deepEqual(events, [{ type: 'resumed', at: held }])
  assert.ok((await readFile(join(dir, 'download'))).equals(FILE))
})

test('spool: when all of it is there, one byte is asked for to learn that it still holds', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(FILE)] })
  const dir = spoolDir(t)
  assert.equal(await dieAt(upstream, dir, Number.POSITIVE_INFINITY), FILE.length)
  const { bytes } = await later(upstream, dir)
  assert.ok(bytes.equals(FILE))
  assert.deepEqual(archiveRequests(upstream), [`GET bytes=${FILE.length - 1}- if ${ETAG}`])
})

test('spool: broken again in the later process', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(FILE), file(FILE, { cutAt: 20_000 }), file(FILE)] })
  const dir = spoolDir(t)
  const held = await dieAt(upstream, dir, 50_000)
  const { bytes } = await later(upstream, dir)
  assert.ok(bytes.equals(FILE))
  assert.deepEqual(archiveRequests(upstream), [
    `GET bytes=${held}- if ${ETAG}`,
    `GET bytes=${held + 20_000}- if ${ETAG}`,
  ])
})

const RESTARTS = [
  { name: 'changed: all of it comes', reply: file(CHANGED), requests: 1 },
  { name: 'changed: a part of another version comes', reply: file(CHANGED, { etag: null }), requests: 1 },
  { name: 'nothing from there on', reply: file(CHANGED.subarray(0, 100), { etag: ETAG }), requests: 2 },
]
for (const { name, reply, requests } of RESTARTS)
  test(`spool: ${name}, and the download starts over`, async (t) => {
    const upstream = await startUpstream(t, { '/802': [file(FILE), reply] })
    const dir = spoolDir(t)
    await dieAt(upstream, dir, 50_000)
    const { bytes, error, events } = await later(upstream, dir)
    assert.equal(error, undefined)
    assert.ok(CHANGED.subarray(0, bytes.length).equals(bytes))
    assert.equal(archiveRequests(upstream).length, requests)
    assert.deepEqual(
      events.map(({ type }) => type),
      ['restarted'],
    )
  })

test('spool: an upstream without ranges is read again, and what is held is not', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(FILE, { ignoreRange: true })] })
  const dir = spoolDir(t)
  await dieAt(upstream, dir, 50_000)
  const { bytes, events } = await later(upstream, dir)
  assert.ok(bytes.equals(FILE))
  assert.equal(events[0]?.type, 'resumed')
})

test('spool: nothing is kept of what cannot be told from another version', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(FILE, NO_ETAG)] })
  const dir = spoolDir(t)
  assert.equal(await dieAt(upstream, dir, 50_000), 0)
  const { bytes } = await later(upstream, dir)
  assert.ok(bytes.equals(FILE))
  assert.deepEqual(archiveRequests(upstream), ['GET'])
})

test('spool: a change in the middle of a download drops it', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(FILE, { cutAt: 50_000 }), file(CHANGED)] })
  const dir = spoolDir(t)
  assert.equal((await later(upstream, dir)).error.code, 'SOURCE_CHANGED')
  const { bytes } = await later(upstream, dir)
  assert.ok(bytes.equals(CHANGED))
  assert.deepEqual(archiveRequests(upstream), ['GET'])
})

/** A spool on a disk that is full after so many bytes. */
class FullSpool extends Spool {
  override async append(chunk: Uint8Array): Promise<void> {
    if (this.bytes + chunk.length > 50_000)
      throw Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' })
    await super.append(chunk)
  }
}

test('spool: a full disk costs the spool, not the download', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(FILE)] })
  const dir = spoolDir(t)
  const { bytes, error, events } = await download({
    upstream,
    spool: new FullSpool(dir),
  })
  assert.equal(error, undefined)
  assert.ok(bytes.equals(FILE))
  assert.deepEqual(events, [{ type: 'spool-stopped', reason: 'ENOSPC: no space left' }])
  await assert.rejects(readFile(join(dir, 'download')), { code: 'ENOENT' })
})

test('spool: a directory that cannot be written costs the spool, not the download', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(FILE)] })
  const dir = join(spoolDir(t), 'file', 'below')
  await mkdir(join(dir, '..', '..'), { recursive: true })
  await writeFile(join(dir, '..'), 'not a directory')
  const { bytes, events } = await download({
    upstream,
    spool: new Spool(dir),
  })
  assert.ok(bytes.equals(FILE))
  assert.deepEqual(
    events.map(({ type }) => type),
    ['spool-stopped'],
  )
})

/** A spool whose disk fails on reading back. */
class RottenSpool extends Spool {
  override async *prefix(): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const chunk of super.prefix()) {
      yield chunk.subarray(0, 1000)
      throw new Error('EIO: i/o error')
    }
  }
}

test('spool: a disk that fails to give it back costs the rest of it', async (t) => {
  const upstream = await startUpstream(t, { '/802': [file(FILE)] })
  const dir = spoolDir(t)
  const held = await dieAt(upstream, dir, 50_000)
  upstream.requests.length = 0
  const { bytes, error } = await download({
    upstream,
    spool: new RottenSpool(dir),
  })
  assert.equal(error, undefined)
  assert.ok(bytes.equals(FILE))
  assert.deepEqual(archiveRequests(upstream), [`GET bytes=${held}- if ${ETAG}`, `GET bytes=1000- if ${ETAG}`])
})

test('a server that knows no If-Range sends a part of another file: its time tells', async (t) => {
  const [old, young] = ['Fri, 02 Nov 2007 12:00:00 GMT', 'Sat, 03 Nov 2007 12:00:00 GMT']
  const [before, now] = [content(700_000, 1), content(700_000, 2)]
  const upstream = await startUpstream(t, {
    '/802': [
      file(before, { etag: null, lastModified: old, cutAt: 300_000 }),
      (request, response, progress) => {
        delete request.headers['if-range']
        file(now, { etag: null, lastModified: young })(request, response, progress)
      },
    ],
  })
  const { bytes, error } = await download({ upstream })
  assert.equal(error.code, 'SOURCE_CHANGED')
  assert.ok(bytes.equals(before.subarray(0, bytes.length)), 'parts of two files were put together')
})
