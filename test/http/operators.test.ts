/** Who sees what by HTTP, who may change what, and what is remembered of it: the running program, rsync and a browser. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { after, before, describe, test } from 'node:test'
import { skipWithoutBrowser, startBrowser } from '../support/browser.ts'
import { ApiClient, httpUrlOf, loginTo } from '../support/http.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { rsyncSucceeds } from '../support/rsync.ts'
import type { Upserv } from '../support/upserv.ts'

const LOOK_EVERY_MS = 50

describe('who sees what', () => {
  let mirror: Mirror
  let upserv: Upserv
  let base: string
  let token: string
  const get = async (path: string, headers: Record<string, string> = {}): Promise<string> => {
    const response = await fetch(base + path, { headers })
    return `${response.status} ${await response.text()}`
  }
  const asOperator = (): Record<string, string> => ({ authorization: `Bearer ${token}` })

  before(async () => {
    mirror = new Mirror()
    for (const id of ['open', 'secretstaff', 'secretinside', 'i-secret'])
      await mirror.publish(id, randomTree(1, 2, 5000))
    await mirror.startNginx()
    writeFileSync(mirror.path('secrets'), 'alice:sesame\n', { mode: 0o600 })
    const config = mirror.path('upserv.toml')
    writeFileSync(
      config,
      `
[channels]
stable = "open"
hiddenchannel = "secretstaff"
[[source]]
name = "internal"
builds = "^i-"
url = "${mirror.nginx.url}/{build}"
[[source]]
name = "public"
url = "${mirror.nginx.url}/{build}"
[[module]]
name = "build-secretstaff"
auth_users = ["alice"]
secrets_file = "${mirror.path('secrets')}"
[[module]]
name = "build-secretinside"
hosts_deny = ["127.0.0.0/8"]
[[module]]
source = "internal"
hosts_allow = ["192.0.2.0/24"]
[[module]]
name = "build-unlisted"
list = false
`,
    )
    upserv = await mirror.startUpserv({ http: '127.0.0.1:0', config, sources: [] })
    base = httpUrlOf(upserv)
    token = readFileSync(`${mirror.data}/http.token`, 'utf8').trim()
    for (const id of ['open', 'secretstaff', 'secretinside', 'i-secret'])
      assert.equal((await upserv.cli(['fetch', id])).code, 0)
    const env = { RSYNC_PASSWORD: 'sesame' }
    await rsyncSucceeds(['-r', `${upserv.url}/build-open/root/`, mirror.place()])
    await rsyncSucceeds(
      ['-r', `rsync://alice@127.0.0.1:${upserv.port}/build-secretstaff/root/`, mirror.place()],
      { env },
    )
    // A session is told of when its connection has closed.
    for (let ended = 0; ended < 2; ) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS))
      const { recent } = JSON.parse((await get('/api/v1/activity', asOperator())).slice(4)) as {
        recent: unknown[]
      }
      ended = recent.length
    }
  })
  after(async () => {
    await upserv?.stop()
    await mirror?.[Symbol.asyncDispose]()
  })

  const PLACES = [
    ...[
      'status',
      'activity',
      'builds',
      'builds/open',
      'available',
      'fetches',
      'verification',
      'sessions',
      'timeline',
    ],
    ...['history', 'history.json', 'history.csv', 'changes', 'sessions/1'],
  ].map((path) => `/api/v1/${path}`)

  test('no private name, no user, no address comes to who has not logged in', async () => {
    const said = await Promise.all([...PLACES, '/metrics', '/', '/parent/v1/builds'].map((path) => get(path)))
    for (const [i, text] of said.entries()) {
      assert.doesNotMatch(
        text,
        // Where the server itself is, and the upstream, is no secret.
        /secret(?!s)|hiddenchannel|internal|alice|127\.0\.0\.1(?!:\d+["/])/,
        PLACES[i] ?? String(i),
      )
    }
    // They are what the document says all the same.
    const api = await ApiClient.open(base, mirror.data)
    api.tokenFor = 'nothing'
    for (const path of PLACES) await api.get(path.replace('/api/v1', ''))
    const status = JSON.parse((await get('/api/v1/status')).slice(4)) as { builds: number }
    assert.equal(status.builds, 1)
    assert.match(await get('/metrics'), /^upserv_builds_held 1$/m)
    const { recent } = JSON.parse((await get('/api/v1/activity')).slice(4)) as {
      recent: { build: string; address: string }[]
    }
    assert.deepEqual(
      recent.map(({ build, address }) => [build, address]),
      [['open', '']],
    )
    for (const path of ['history', 'history.json', 'history.csv', 'changes', 'sessions/1'])
      assert.match(await get(`/api/v1/${path}`), /^401 /, path)
  })

  test('a build that is hidden is answered as one that is not there', async () => {
    const alike = async (path: string, hidden: string): Promise<void> => {
      const [there, absent] = await Promise.all(
        [hidden, 'nowhere'].map((id) => get(path.replace('ID', () => id))),
      )
      assert.equal(there!.replaceAll(hidden, 'X'), absent!.replaceAll('nowhere', 'X'))
    }
    for (const hidden of ['secretstaff', 'secretinside', 'i-secret']) await alike('/api/v1/builds/ID', hidden)
    const [held, unheld] = await Promise.all(['i-secret', 'i-nowhere'].map((id) => get(`/builds/${id}.tar`)))
    assert.equal(held!.replaceAll('i-secret', 'X'), unheld!.replaceAll('i-nowhere', 'X'))
    assert.deepEqual(mirror.requestsFor('i-nowhere'), [], 'nothing was fetched for it')
  })

  test('a client that may have a build gets it; what is kept of that is for nobody else', async () => {
    const env = { RSYNC_PASSWORD: 'sesame' }
    const args = ['-rc', '--no-whole-file']
    const url = `127.0.0.1:${upserv.port}/build-secretstaff/root/`
    // The second time everything comes out of what was kept for the first.
    for (let i = 0; i < 2; i++)
      await rsyncSucceeds([...args, `rsync://alice@${url}`, mirror.place()], { env })
    const { run } = await import('../support/processes.ts')
    for (const user of ['', 'alice@']) {
      const wrong = { ...process.env, RSYNC_PASSWORD: 'wrong' }
      const { code, stdout, stderr } = await run(
        'rsync',
        [...args, '-v', `rsync://${user}${url}`, mirror.place()],
        { env: wrong },
      )
      assert.equal(code, 5)
      assert.match(stderr, /auth failed on module build-secretstaff/)
      assert.doesNotMatch(stdout, /file-/)
    }
    const etag = (await fetch(`${base}/builds/open.tar`, { method: 'HEAD' })).headers.get('etag')!
    assert.ok(etag)
    for (const id of ['secretstaff', 'secretinside', 'i-secret'])
      assert.equal(
        (await fetch(`${base}/builds/${id}.tar`, { headers: { 'if-none-match': '*' } })).status,
        403,
        id,
      )
  })

  test('the operator sees all of it, by token and by session', async () => {
    const cookie = await loginTo(base, mirror.data)
    for (const headers of [asOperator(), { cookie }]) {
      const builds = await get('/api/v1/builds', headers)
      for (const id of ['open', 'secretstaff', 'secretinside', 'i-secret'])
        assert.ok(builds.includes(`"${id}"`), id)
      const history = await get('/api/v1/history', headers)
      assert.match(history, /^200 .*"user":"alice"/)
      assert.match(await get('/api/v1/activity', headers), /"address":"127\.0\.0\.1"/)
      assert.match(await get('/metrics', headers), /^upserv_builds_held 4$/m)
    }
    assert.match(await get('/api/v1/history', { authorization: 'Bearer a-token-that-is-none' }), /^401 /)
  })

  test('events tell each what they may hear', async () => {
    const hear = async (headers: Record<string, string>): Promise<string> => {
      const abort = new AbortController()
      const response = await fetch(`${base}/api/v1/events`, { headers, signal: abort.signal })
      let text = ''
      for await (const chunk of response.body!) {
        text += Buffer.from(chunk).toString()
        if (text.includes('event: builds') && text.includes('event: activity') && text.endsWith('\n\n')) break
      }
      abort.abort()
      return text
    }
    const [stranger, operator] = await Promise.all([hear({}), hear(asOperator())])
    assert.doesNotMatch(stranger, /secret|hiddenchannel/)
    assert.match(stranger, /"id":"open"/)
    assert.match(operator, /"id":"secretstaff"/)
  })

  test('changes by session, and what is remembered of them', async () => {
    const cookie = await loginTo(base, mirror.data)
    const pin = async (headers: Record<string, string>): Promise<number> =>
      (await fetch(`${base}/api/v1/builds/open/sticky`, { method: 'PUT', headers })).status
    assert.equal(await pin({ cookie }), 403, 'as a form of another site would send it')
    assert.equal(await pin({ cookie, 'x-upserv': '1', 'sec-fetch-site': 'cross-site' }), 403)
    assert.equal(await pin({ cookie, 'x-upserv': '1', origin: 'http://evil.example' }), 403)
    assert.equal(await pin({ 'x-upserv': '1' }), 401)
    assert.equal(await pin({ cookie, 'x-upserv': '1', origin: base }), 200)
    assert.equal((await upserv.cli(['unpin', 'open'])).code, 0)
    assert.equal((await upserv.cli(['remove', 'nowhere'])).code, 1)
    const api = await ApiClient.open(base, mirror.data)
    const { items } = await api.expect(200, 'GET', '/changes?limit=10')
    const told = items.map(({ who, what, target, result, code }: Record<string, string>) =>
      [who!.replace(/\d+/, 'N'), what, target, result, code].join('|'),
    )
    assert.deepEqual(told.slice(0, 7), [
      'command|remove|id=nowhere|failed|BUILD_NOT_HELD',
      'command|unpin|id=open|done|',
      'session N|pinBuild|id=open|done|',
      'nobody|pinBuild|id=open|refused|TOKEN_MISSING',
      'nobody|pinBuild|id=open|refused|CROSS_SITE',
      'nobody|pinBuild|id=open|refused|CROSS_SITE',
      'nobody|pinBuild|id=open|refused|CROSS_SITE',
    ])
    assert.match(items[2].from, /^127\.0\.0\.1:\d+$/)
    const { stdout } = await upserv.cli(['history', '--audit', '--limit', '3'])
    assert.match(
      stdout,
      /^CHANGE +AT +BY +WHAT +OF +RESULT\n\d+ .* command, this machine +remove +id=nowhere +failed: build nowhere is not held/,
    )
    assert.equal((await upserv.cli(['history', '--audit', '--build', 'x'])).code, 64)
    await upserv.process.waitForOutput(
      'stderr',
      /"audit":\{"who":"session \d+","from":"127\.0\.0\.1:\d+","what":"pinBuild"/,
    )
    assert.doesNotMatch(upserv.process.stderr, new RegExp(token))
  })

  test('what a stranger would change is remembered in words that no terminal obeys', async () => {
    const path = '/api/v1/builds/%1b%5d0;title%07%0a99999%20forged%c2%9b2J'
    const { status } = await fetch(`${base}${path}?q=%1b%5b8m`, { method: 'DELETE' })
    assert.equal(status, 401)
    const { stdout } = await upserv.cli(['history', '--audit', '--limit', '1'])
    assert.match(stdout, /nobody.*removeBuild.*\\x1b\]0;title\\x07\\n99999 forged\\x9b2J q=\\x1b\[8m/)
    assert.match(stdout, /^[^\x00-\x09\x0b-\x1f\x7f-\x9f]+$/)
    assert.equal(stdout.trimEnd().split('\n').length, 2)
    const { items } = await (await ApiClient.open(base, mirror.data)).expect(200, 'GET', '/changes?limit=1')
    assert.doesNotMatch(items[0].target, /[\x00-\x1f\x7f-\x9f]/)
  })

  test('whoever has no token fills no disk by trying: changes stay, and the log has the rest', async () => {
    const api = await ApiClient.open(base, mirror.data)
    const latest = async () => (await api.expect(200, 'GET', '/changes?limit=1')).items[0]
    const { id } = await latest()
    const tries = 600
    for (let i = 0; i < tries; i++) {
      const refused = await fetch(`${base}/api/v1/builds/flood-${i}`, { method: 'DELETE' })
      assert.equal(refused.status, 401)
      await refused.arrayBuffer()
    }
    assert.equal((await upserv.cli(['pin', 'open'])).code, 0)
    assert.equal((await upserv.cli(['unpin', 'open'])).code, 0)
    const { what, id: last } = await latest()
    assert.equal(what, 'unpin')
    assert.ok(last - id < tries, `${last - id} are remembered`)
    await upserv.process.waitForOutput('stderr', new RegExp(`"target":"id=flood-${tries - 1}"`))
    assert.equal(upserv.process.stderr.match(/"target":"id=flood-\d+"/g)?.length, tries)
  })

  let session: string
  test('wrong tokens are slowed down, whatever they come by', async () => {
    session = await loginTo(base, mirror.data)
    const guess = async (): Promise<number> =>
      (
        await fetch(`${base}/api/v1/session`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', 'x-upserv': '1' },
          body: JSON.stringify({ token: 'a-guess-of-the-token' }),
        })
      ).status
    for (let i = 0; i < 29; i++) assert.equal(await guess(), 401)
    const byToken = async (): Promise<number> =>
      Number((await get('/api/v1/history', { authorization: 'Bearer another-guess-of-it' })).slice(0, 3))
    const crowd = await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 ? guess() : byToken())))
    assert.ok(crowd.filter((status) => status === 429).length >= 10, crowd.join())
  })

  test('another token: every session ends, the old one is good for nothing', async () => {
    // Whoever guessed wrong has to wait; what was begun before has not.
    const look = (): Promise<string> => get('/api/v1/history', { cookie: session })
    assert.match(await look(), /^200 /)
    const { stdout } = await upserv.cli(['token', '--new'])
    assert.notEqual(stdout.trim(), token)
    assert.match(await look(), /^401 /)
    assert.match(await get('/api/v1/history', asOperator()), /^4(?:01|29) /)
    assert.equal(readFileSync(`${mirror.data}/http.token`, 'utf8'), stdout)
  })
})

describe('pages from elsewhere', { skip: skipWithoutBrowser }, () => {
  test("another site's page can neither read nor change anything, and frames nothing", async () => {
    await using mirror = new Mirror()
    await mirror.publish('open', randomTree(1, 1, 1000))
    await mirror.startNginx()
    const upserv = await mirror.startUpserv({ http: '127.0.0.1:0' })
    const base = httpUrlOf(upserv)
    assert.equal((await upserv.cli(['fetch', 'open'])).code, 0)
    const evil: Server = createServer((_, response) => {
      response.setHeader('content-type', 'text/html')
      response.end(`<!doctype html><title>evil</title><iframe src="${base}/"></iframe>`)
    })
    await new Promise<void>((resolve) => evil.listen(0, '127.0.0.2', () => resolve()))
    const browser = await startBrowser()
    try {
      const page = await browser.newPage()
      const [name = '', value = ''] = (await loginTo(base, mirror.data)).split('=')
      await page.context().addCookies([{ name, value, url: base, sameSite: 'Strict', httpOnly: true }])
      await page.goto(`http://127.0.0.2:${(evil.address() as { port: number }).port}/`)
      const tries = (await page.evaluate(`
        (async () => {
          const attempt = async (path, options) => {
            try {
              const response = await fetch('${base}/api/v1' + path, { credentials: 'include', ...options })
              return response.type + ' ' + response.status
            } catch { return 'failed' }
          }
          return {
            read: await attempt('/builds', {}),
            form: await attempt('/builds/open/sticky', { method: 'POST', mode: 'no-cors' }),
            change: await attempt('/builds/open', { method: 'DELETE', headers: { 'x-upserv': 'page' } }),
            login: await attempt('/session', { method: 'POST', mode: 'no-cors', body: '{"token":"x"}' }),
          }
        })()`)) as Record<string, string>
      assert.equal(tries.read, 'failed')
      assert.equal(tries.change, 'failed')
      for (const blind of [tries.form, tries.login]) assert.match(blind!, /^(?:opaque 0|failed)$/)
      assert.deepEqual(
        JSON.parse((await upserv.cli(['list', '--json'])).stdout).map(({ id }: { id: string }) => id),
        ['open'],
      )
      const frame = page.frames().find((one) => one !== page.mainFrame())
      assert.doesNotMatch((await frame?.content()) ?? '', /id="builds"/)
    } finally {
      await browser.close()
      evil.close()
      await upserv.stop()
    }
  })
})
