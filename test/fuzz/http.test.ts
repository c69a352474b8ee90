/** Requests that no client makes: each gets an answer that is one, or a closed connection; the server goes on. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { campaign } from '../support/campaign.ts'
import { httpUrlOf } from '../support/http.ts'
import { Mirror, randomTree } from '../support/mirror.ts'

const get = (path: string, ...headers: string[]): Buffer =>
  Buffer.from([`GET ${path} HTTP/1.1`, 'Host: HOST', ...headers, '', ''].join('\r\n'))
const send = (method: string, path: string, body: string, ...headers: string[]): Buffer =>
  Buffer.from(
    [
      `${method} ${path} HTTP/1.1`,
      'Host: HOST',
      ...headers,
      ...(body === '' ? [] : ['Content-Type: application/json']),
      `Content-Length: ${body.length}`,
      '',
      body,
    ].join('\r\n'),
  )
/** The server's token takes its place, as its address that of HOST. */
const OPERATOR = 'Connection: close\r\nAuthorization: Bearer TOKEN'
const SEEDS = [
  get('/'),
  get('/page/app.js', 'If-None-Match: "x"'),
  get('/api/v1/builds?limit=2&cursor=abc'),
  get('/api/v1/openapi.json', 'Accept-Encoding: gzip'),
  get('/api/v1/sessions/1', 'Authorization: Bearer aaaaaaaaaaaaaaaa'),
  get('/builds/1/root/file-0', 'Range: bytes=0-10,20-30'),
  get('/builds/1.tar.zst'),
  get('/builds/1/manifest.json'),
  get('/metrics'),
  get('/parent/v1/builds/1/manifest'),
  get('/api/v1/history?limit=3', OPERATOR),
  send('PUT', '/api/v1/builds/1/sticky', '', OPERATOR),
  send('POST', '/api/v1/fetches', '{"id":"1"}', OPERATOR),
  send('POST', '/api/v1/gc', '{"dryRun":true,"explain":true}', OPERATOR),
  send('POST', '/api/v1/gc', '{"dryRun":true,"explain":true}'),
  send('POST', '/parent/v1/builds/1/blobs', '{"blobs":[]}'),
]
const WORDS = [
  ...[
    '\r\n',
    '\r\n\r\n',
    '\n',
    'HTTP/1.1',
    'HTTP/2.0',
    'Transfer-Encoding: chunked\r\n',
    'Content-Length: -1\r\n',
    'Content-Length: 99999999999\r\n',
  ],
  ...[
    'Expect: 100-continue\r\n',
    'Upgrade: websocket\r\nConnection: upgrade\r\n',
    'Range: bytes=-\r\n',
    'Range: bytes=9999999999999999999-\r\n',
  ],
  ...[
    '%00',
    '%2e%2e%2f',
    '../',
    '//',
    '?',
    '#',
    '%',
    '{',
    '}',
    '[',
    '\0',
    'DELETE',
    'CONNECT',
    'OPTIONS *',
    'Host: [::1\r\n',
    'X: '.repeat(3000),
  ],
  ...['0\r\n\r\n', 'ffffffff\r\n', '__proto__', '{"__proto__":1}'],
]

/** A minute. */
const [PATIENCE_STEPS, STEP_MS] = [120, 500]

test('damaged requests', async (t) => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 3, 1000), { suffix: 'tar' })
  const upserv = await mirror.startUpserv({
    sources: [`file://${mirror.path('www')}/{build}`],
    http: '127.0.0.1:0',
  })
  await mirror.assertServes(upserv, '1')
  const base = new URL(httpUrlOf(upserv))
  const token = readFileSync(join(mirror.data, 'http.token'), 'utf8').trim()
  const ask = (input: Buffer, waits = false): Promise<Buffer> => {
    const filled = input.toString('latin1').replace('HOST', base.host).replace('TOKEN', token)
    return exchange(Number(base.port), Buffer.from(filled, 'latin1'), waits)
  }
  // Undamaged they are let in, so that it is what they ask for that hears of the damage.
  for (const seed of SEEDS.filter((one) => one.includes(OPERATOR)))
    assert.match((await ask(seed, true)).toString('latin1'), /^HTTP\/1\.1 200 /, seed.toString())
  await campaign(t, {
    extension: 'http',
    seeds: SEEDS,
    words: WORDS,
    check: async (input) => {
      const said = await ask(input)
      if (said.length === 0) return 'closed'
      const status = /^HTTP\/1\.[01] (\d{3}) /.exec(said.toString('latin1', 0, 20))?.[1]
      assert.ok(
        status !== undefined,
        `no answer is one that begins ${JSON.stringify(said.toString('latin1', 0, 100))}`,
      )
      assert.ok(!/^5/.test(status) || status === '503' || status === '501', said.toString('latin1', 0, 600))
      return status
    },
    leastOutcomes: 6,
  })
  assert.equal((await fetch(new URL('/healthz', base))).status, 200)
  assert.doesNotMatch(upserv.process.stderr, /"level":[56]0/)
  await upserv.stop()
})

/**
 * Until the server hangs up: we have said all, so it has no reason to wait.
 * @param waits our side stays open, for a request that asks for the end of the connection itself.
 */
function exchange(port: number, bytes: Buffer, waits: boolean): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const heard: Buffer[] = []
    let size = 0
    const socket = connect({ port, host: '127.0.0.1' })
    const done = (): void => {
      clearInterval(late)
      socket.destroy()
      resolve(Buffer.concat(heard))
    }
    // Steps, so that a campaign may be paused: what is skipped then counts as one.
    let steps = 0
    const late = setInterval(() => {
      if (++steps < PATIENCE_STEPS) return
      reject(new Error('it neither answers nor hangs up'))
      done()
    }, STEP_MS)
    socket
      .on('error', done)
      .on('close', done)
      .on('data', (chunk: Buffer) => {
        heard.push(chunk)
        size += chunk.length
        if (size > 1e6) done()
      })
    if (waits) socket.write(bytes)
    else socket.end(bytes)
  })
}
