/** The API against real clients, every answer held to the API's own document. */
import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { ApiClient, type Document, httpUrlOf, type Operation, type TokenFor } from '../support/http.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { fc } from '../support/property.ts'
import { rsyncEnds, rsyncSucceeds } from '../support/rsync.ts'
import type { Upserv } from '../support/upserv.ts'

const LOOK_EVERY_MS = 50
/** Requests that are made up for each operation. */
const RUNS_EACH = 4

describe('the API', () => {
  let mirror: Mirror
  let upserv: Upserv
  let api: ApiClient

  before(async () => {
    mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 20, 20_000), { sha256: true })
    await mirror.publish('2', new Map([...randomTree(1, 20, 20_000), ...randomTree(2, 3, 20_000)]))
    await mirror.publish('3', randomTree(3, 4, 300_000))
    await mirror.startNginx()
    writeFileSync(mirror.path('upserv.toml'), '[channels]\nstable = "1"\n')
    upserv = await mirror.startUpserv({ http: '127.0.0.1:0', config: mirror.path('upserv.toml') })
    api = await ApiClient.open(httpUrlOf(upserv), mirror.data)
  })
  after(async () => {
    await upserv?.stop()
    await mirror?.[Symbol.asyncDispose]()
  })

  test('status and builds of a server that holds nothing', async () => {
    assert.deepEqual(await api.expect(200, 'GET', '/builds'), { items: [], next: null })
    const status = await api.expect(200, 'GET', '/status')
    assert.deepEqual([status.builds, status.pid], [0, upserv.process.child.pid])
    assert.equal(await api.expect(200, 'GET', '/verification'), null)
  })

  test('a build is fetched, and is what its source said', async () => {
    // It may have come by the time of the answer.
    const begun = await api.ask('POST', '/fetches', { id: '1' })
    assert.deepEqual(begun.body, { id: '1', held: begun.status === 200 })
    const build = await until(async () => (await api.get('/builds')).body.items[0])
    assert.equal(build.id, '1')
    assert.equal(build.files, 21)
    assert.deepEqual(build.channels, ['stable'])
    assert.equal(build.checkedBy, 'sha256')
    assert.match(build.vouchers.join('; '), /^sha256 in \S+\/1\.sha256$/)
    assert.deepEqual(await api.expect(200, 'POST', '/fetches', { id: '1' }), { id: '1', held: true })
    const { ended } = await api.expect(200, 'GET', '/fetches')
    assert.deepEqual([ended[0].id, ended[0].outcome], ['1', 'done'])
    assert.equal(ended[0].receivedBytes, statSync(mirror.archive('1')).size)
    assert.equal((await api.expect(404, 'POST', '/fetches', { id: '404' })).code, 'BUILD_NOT_PUBLISHED')
    const failed = (await api.expect(200, 'GET', '/fetches')).ended[0]
    assert.deepEqual([failed.id, failed.outcome, failed.code], ['404', 'failed', 'BUILD_NOT_PUBLISHED'])
  })

  test('a session is what its client did, and is explained', async () => {
    const place = mirror.place()
    await rsyncSucceeds(['-aH', `${upserv.url}/build-1/root/`, place])
    const { stdout } = await rsyncSucceeds([
      '-aH',
      '--stats',
      '--no-i-r',
      `${upserv.url}/build-2/root/`,
      place,
    ])
    const figure = (name: string): number =>
      Number(new RegExp(`${name}: ([\\d,]+)`).exec(stdout)![1]!.replaceAll(',', ''))
    const record = await until(async () =>
      (await api.get('/history?build=2')).body.items.find(
        (one: { outcome: string }) => one.outcome === 'done',
      ),
    )
    assert.equal(record.address, '127.0.0.1')
    assert.equal(record.module, 'build-2')
    assert.equal(record.literalBytes, figure('Literal data'))
    assert.equal(record.matchedBytes, figure('Matched data'))
    assert.equal(record.files, figure('Number of regular files transferred'))
    assert.equal(record.entries, figure('Number of files'))
    // The client's figure is from before its goodbye.
    const more = record.bytesIn - figure('Total bytes sent')
    assert.ok(more >= 0 && more < 16, `${more}`)
    const { hints, record: same } = await api.expect(200, 'GET', `/sessions/${record.id}`)
    assert.deepEqual(same, record)
    assert.ok(hints.length > 0)
    assert.equal((await api.expect(200, 'GET', '/sessions/127.0.0.1')).record.id, record.id)
    const [first] = (await api.expect(200, 'GET', '/history?build=1')).items
    const codes = (await api.expect(200, 'GET', `/sessions/${first.id}`)).hints.map(
      ({ code }: { code: string }) => code,
    )
    assert.ok(codes.includes('first-sync'), codes.join())
    for (const unknown of ['999999', '192.0.2.77', 'nobody'])
      assert.equal((await api.expect(404, 'GET', `/sessions/${unknown}`)).code, 'SESSION_UNKNOWN')
    const { totals, recent } = await api.expect(200, 'GET', '/activity')
    assert.equal(totals.sessions.done, 2)
    assert.equal(recent[0].id, record.id)
    const { points } = await api.expect(200, 'GET', '/timeline')
    const sum = (key: string): number =>
      points.reduce((all: number, point: Record<string, number>) => all + point[key]!, 0)
    assert.deepEqual([sum('sessions'), sum('bytesOut')], [2, totals.bytesOut])
    assert.equal((await api.expect(200, 'GET', '/timeline?span=day')).points.length, 288)
  })

  test('who is connected is shown while it is', async () => {
    await until(async () => (await api.ask('POST', '/fetches', { id: '3' })).body.held)
    const { client } = mirror.client(upserv, '3', ['--bwlimit=300k', '-v', '--outbuf=L'])
    await client.waitForLine(/^file-1$/)
    const session = await until(async () => {
      const [one] = (await api.get('/sessions')).body.items
      return one?.bytesOut > 300_000 ? one : undefined
    })
    assert.deepEqual([session.build, session.state, session.place], ['3', 'transfer', 0])
    assert.ok(session.progress > 0 && session.progress < 1, JSON.stringify(session))
    assert.equal((await api.expect(409, 'GET', `/sessions/${session.id}`)).code, 'COMMAND_REFUSED')
    assert.equal((await api.expect(409, 'DELETE', '/builds/3')).code, 'COMMAND_REFUSED')
    const { client: later } = mirror.client(upserv, '3', ['--bwlimit=300k', '-v', '--outbuf=L'])
    await later.waitForLine(/^file-1$/)
    const latest = await api.expect(200, 'GET', '/sessions?limit=1')
    assert.equal(latest.total, 2)
    const rest = await api.expect(200, 'GET', `/sessions?limit=1&cursor=${latest.next}`)
    assert.deepEqual(
      [...latest.items, ...rest.items].map(({ id }) => id),
      [session.id + 1, session.id],
    )
    assert.equal(rest.next, null)
    later.kill()
    await until(async () => (await api.get('/sessions')).body.total === 1)
    client.kill()
    const record = await until(async () => {
      const { items } = (await api.get('/history?outcome=lost')).body
      return items.find(({ id }: { id: number }) => id === session.id)
    })
    assert.equal(record.code, 'PEER_GONE')
    assert.equal((await api.expect(200, 'GET', `/sessions/${record.id}`)).hints[0].code, 'client-left')
  })

  test('pin, unpin, remove', async () => {
    assert.equal((await api.expect(200, 'PUT', '/builds/1/sticky')).sticky, true)
    assert.equal((await api.expect(200, 'GET', '/builds/1')).sticky, true)
    assert.match((await api.expect(409, 'DELETE', '/builds/1')).detail, /sticky/)
    assert.equal((await api.expect(200, 'DELETE', '/builds/1/sticky')).sticky, false)
    await until(async () => (await api.ask('DELETE', '/builds/3')).status === 204)
    for (const [method, path] of [
      ['DELETE', '/builds/3'],
      ['PUT', '/builds/3/sticky'],
      ['GET', '/builds/3'],
    ] as const)
      assert.equal((await api.expect(404, method, path)).code, 'BUILD_NOT_HELD')
  })

  test('import, gc, verify, available', async () => {
    const file = mirror.archive('3')
    await api.ask('POST', '/imports', { id: 'by-hand', file })
    await until(async () => (await api.get('/builds/by-hand')).status === 200)
    assert.equal((await api.expect(409, 'POST', '/imports', { id: 'by-hand', file })).code, 'COMMAND_REFUSED')
    const report = await api.expect(200, 'POST', '/gc', { dryRun: true, explain: true })
    assert.deepEqual(report.builds.map(({ id }: { id: string }) => id).sort(), ['1', '2', 'by-hand'])
    await api.expect(202, 'POST', '/verification', { id: null, repair: false })
    const verified = await until(async () => {
      const { body } = await api.get('/verification')
      return body?.running === false ? body : undefined
    })
    assert.equal(verified.report.rottenBlobs, 0)
    assert.ok(verified.report.bytes > 1_000_000)
    await api.expect(204, 'DELETE', '/verification')
    await api.expect(404, 'POST', '/verification', { id: 'none', repair: false })
    const available = await api.expect(200, 'GET', '/available')
    assert.equal(available.gaps.length, 1)
  })

  test('warm, reload, a stick: what commands do as well', async () => {
    const warm = { clients: ['3.2'], compress: ['none', 'zstd'], checksum: false, quick: true }
    await api.expect(404, 'POST', '/warm', { id: '2', from: ['none'], ...warm })
    await api.expect(202, 'POST', '/warm', { id: '2', from: ['1'], ...warm })
    await until(async () => /"msg":"warmed by http"/.test(upserv.process.stderr))
    // A client that comes from there finds all of it worked out.
    const place = mirror.place()
    await rsyncSucceeds(['-aH', `${upserv.url}/build-1/root/`, place])
    await rsyncSucceeds(['-aH', '--no-whole-file', `${upserv.url}/build-2/root/`, place])
    const { record } = await until(async () => {
      const { body } = await api.get('/sessions/127.0.0.1')
      return body?.record?.module === 'build-2' && body.record.outcome === 'done' ? body : undefined
    })
    assert.deepEqual([record.searched, record.prepared], [0, 0])

    const config = mirror.path('upserv.toml')
    const good = readFileSync(config, 'utf8')
    writeFileSync(config, `${good}beta = "2"\n[http]\nnames = ["other.example"]\n`)
    assert.deepEqual((await api.expect(200, 'POST', '/reload')).restart, ['http.names'])
    assert.deepEqual((await api.expect(200, 'GET', '/builds/2')).channels, ['beta'])
    writeFileSync(config, 'bugdet = 1\n')
    assert.match((await api.expect(409, 'POST', '/reload')).detail, /unknown key "bugdet"/)
    writeFileSync(config, good)
    assert.deepEqual((await api.expect(200, 'POST', '/reload')).restart, [])

    const directory = mirror.path('stick')
    const xobuilds = join(directory, 'xs-xobuilds')
    mkdirSync(xobuilds, { recursive: true })
    const archive = readFileSync(mirror.archive('3'))
    writeFileSync(join(xobuilds, 'os9-tree.tar.gz'), archive)
    writeFileSync(join(xobuilds, 'os9-tree.tar.gz.md5'), `${hash('md5', archive)}  os9-tree.tar.gz\n`)
    writeFileSync(join(xobuilds, 'os9.name'), '9\n')
    await api.ask('POST', '/imports/stick', { directory })
    await until(async () => (await api.get('/builds/9')).status === 200)
    assert.equal((await api.expect(200, 'POST', '/imports/stick', { directory })).held, true)
    await api.expect(204, 'DELETE', '/builds/9')
    const { items } = await api.expect(200, 'GET', '/changes')
    const tried = items.map(({ what, result }: { what: string; result: string }) => `${what} ${result}`)
    for (const change of ['warmBuild done', 'reload done', 'reload failed', 'importStick done'])
      assert.ok(tried.includes(change), `${change}: ${tried}`)
  })

  test('the server looks at itself, as the command does from outside', async () => {
    type Found = { verdict: string; about: string; says: string; hint?: string | null }[]
    const config = mirror.path('upserv.toml')
    const good = readFileSync(config, 'utf8')
    // What is wrong is told, with what to type.
    writeFileSync(config, `${good}[[source]]\nname = "bad"\nurl = "file://${mirror.path('none')}/{build}"\n`)
    try {
      const { items }: { items: Found } = await api.expect(200, 'GET', '/doctor')
      const { stdout } = await upserv.cli(['doctor', '--json', '--config', config])
      // Time and figures go on; the command comes to the ports as well, and knows no flags of the server.
      const told = (all: Found): string[] =>
        all
          .filter(({ about }) => !/ port |^source 127|^(?:clock|server|disk|budget)$/.test(about))
          .map(({ verdict, about, says, hint }) => `${verdict} ${about}: ${says}: ${hint ?? ''}`)
      assert.deepEqual(told(items), told(JSON.parse(stdout)))
      for (const about of ['clock', 'server', 'disk', 'budget'])
        assert.ok(
          items.some((one) => one.about === about),
          about,
        )
      assert.ok(
        items.some(({ about, verdict, hint }) => about === 'source bad' && verdict === 'problem' && hint),
      )

      writeFileSync(config, 'bugdet = 1\n')
      const { items: wrong } = await api.expect(200, 'GET', '/doctor')
      assert.deepEqual([wrong.length, wrong[0].verdict, wrong[0].about], [1, 'problem', 'configuration'])
      assert.match(wrong[0].says, /unknown key "bugdet"/)
    } finally {
      writeFileSync(config, good)
    }
  })

  test('lists come in pages', async () => {
    const ids: string[] = []
    for (let cursor = ''; ; ) {
      const { items, next } = await api.expect(200, 'GET', `/builds?limit=1${cursor}`)
      assert.equal(items.length, 1)
      ids.push(items[0].id)
      if (next === null) break
      cursor = `&cursor=${next}`
    }
    assert.deepEqual(ids, ['1', '2', 'by-hand'])
    const all = (await api.expect(200, 'GET', '/history')).items.map(({ id }: { id: number }) => id)
    const first = await api.expect(200, 'GET', '/history?limit=1')
    const rest = await api.expect(200, 'GET', `/history?cursor=${first.next}`)
    assert.deepEqual(
      [...first.items, ...rest.items].map(({ id }) => id),
      all,
    )
    await api.expect(400, 'GET', '/builds?cursor=nowhere')
    await api.expect(400, 'GET', '/history?cursor=bm93aGVyZQ')
  })

  test('the history is exported, and forgotten', async () => {
    const { items } = await api.expect(200, 'GET', '/history')
    assert.deepEqual(await api.expect(200, 'GET', '/history.json'), items)
    const csv: string = await api.expect(200, 'GET', '/history.csv?outcome=done')
    const lines = csv.trimEnd().split('\r\n')
    assert.equal(
      lines.length,
      1 + items.filter(({ outcome }: { outcome: string }) => outcome === 'done').length,
    )
    assert.match(lines[0]!, /^id,began,ended,address,user,module,build,outcome,/)
    assert.match(lines[1]!, /^\d+,20..-/)
    assert.deepEqual(
      await api.expect(200, 'GET', '/history?since=2000-01-01T00:00:00Z&until=2001-01-01T00:00:00Z'),
      { items: [], next: null },
    )
    // A leap second is a time, though not one for JavaScript.
    await api.expect(400, 'GET', '/history?since=2016-12-31T23:59:60Z')
    const { deleted } = await api.expect(200, 'DELETE', '/history?address=127.0.0.1')
    assert.equal(deleted, items.length)
    assert.deepEqual((await api.expect(200, 'GET', '/history')).items, [])
    assert.deepEqual((await api.expect(200, 'GET', '/activity')).recent, [])
    assert.deepEqual(await api.expect(200, 'GET', '/history.json'), [])
  })

  test('fetches are remembered, exported, and forgotten', async () => {
    const { items } = await api.expect(200, 'GET', '/history/fetches')
    const of1 = items.find(({ id }: { id: string }) => id === '1')
    assert.deepEqual(
      { source: of1.source, url: of1.url, outcome: of1.outcome, receivedBytes: of1.receivedBytes },
      {
        source: new URL(mirror.nginx.url).host,
        url: `${mirror.nginx.url}/1`,
        outcome: 'done',
        receivedBytes: statSync(mirror.archive('1')).size,
      },
    )
    assert.deepEqual(await api.expect(200, 'GET', '/history/fetches.json'), items)
    const csv: string = await api.expect(200, 'GET', '/history/fetches.csv?build=1')
    assert.match(
      csv,
      /^number,began,ended,id,source,url,receivedBytes,outcome,code,reason\r\n\d+,20[^\n]*\/1,/,
    )
    const shown = await upserv.cli(['history', '--fetches', '--build', '1'])
    assert.match(
      shown.stdout,
      /^ENDED +BUILD +SOURCE +OUTCOME +RECEIVED +TOOK +FROM\n\S.* 1 +127\.0\.0\.1:\d+ +done /,
    )
    assert.match((await upserv.cli(['history', '--source', 'x'])).stderr, /Say --fetches as well/)
    assert.match((await upserv.cli(['history', '--fetches', '--user', 'x'])).stderr, /--user is of sessions/)
    const { deleted } = await api.expect(200, 'DELETE', '/history/fetches?build=1')
    assert.equal(deleted, items.filter(({ id }: { id: string }) => id === '1').length)
    const { stdout } = await upserv.cli(['history', '--fetches', '--forget', '--yes'])
    assert.match(stdout, new RegExp(`^${items.length - deleted} fetches are forgotten\\.$`, 'm'))
    assert.deepEqual((await api.expect(200, 'GET', '/fetches')).ended, [])
  })

  test('what changes anything takes the token', async () => {
    const operations = Object.entries(api.document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({
        path: path.replaceAll(/\{\w+\}/g, '1'),
        method,
        operation,
      })),
    )
    const closed = operations.filter(({ operation }) => operation.security)
    assert.deepEqual(
      operations.filter(
        ({ operation, path, method }) => method !== 'get' && path !== '/session' && !operation.security,
      ),
      [],
    )
    const told = closed.filter(({ method }) => method === 'get').map(({ path }) => path)
    assert.deepEqual(told.sort(), [
      '/changes',
      '/doctor',
      '/history',
      '/history.csv',
      '/history.json',
      '/history/fetches',
      '/history/fetches.csv',
      '/history/fetches.json',
      '/sessions/1',
    ])
    for (const { path, method } of closed) {
      for (const authorization of [undefined, 'Bearer', 'Bearer wrong', `Basic ${'a'.repeat(43)}`]) {
        const response = await fetch(`${api.base}/api/v1${path}`, {
          method: method.toUpperCase(),
          headers: authorization === undefined ? {} : { authorization },
        })
        assert.equal(response.status, 401, `${method} ${path} ${authorization}`)
        assert.match(response.headers.get('www-authenticate')!, /^Bearer/)
        assert.equal(((await response.json()) as { code: string }).code, 'TOKEN_MISSING')
      }
    }
    const file = join(mirror.data, 'http.token')
    const token = readFileSync(file, 'utf8')
    assert.equal(statSync(file).mode & 0o777, 0o600)
    chmodSync(file, 0o644)
    assert.match((await api.expect(401, 'PUT', '/builds/1/sticky')).detail, /others may read it/)
    chmodSync(file, 0o600)
    writeFileSync(file, 'short\n')
    assert.match((await api.expect(401, 'PUT', '/builds/1/sticky')).detail, /holds no token/)
    assert.doesNotMatch(upserv.process.stderr, new RegExp(readFileSync(file, 'utf8').trim()))
    writeFileSync(file, token)
    assert.equal((await api.expect(200, 'GET', '/builds/1')).sticky, false)
  })

  test('to a page whose name was made to lead here nothing is told', async () => {
    const { port } = new URL(api.base)
    const paths = ['/', '/api/v1/history', '/api/v1/events', '/metrics', '/builds/1/root/', '/nothing']
    for (const path of [...paths, '/parent/v1/builds', '/parent/v1/builds/1/contents'])
      assert.equal(await raw(Number(port), path, { host: `evil.example:${port}` }), 421, path)
    for (const path of ['/api/v1/status', '/parent/v1/builds'])
      assert.equal(await raw(Number(port), path, { host: `localhost:${port}` }), 200)
  })

  test('events tell what goes on', async () => {
    const stream = new EventStream(`${api.base}/api/v1/events`)
    try {
      const activity = await stream.next('activity', () => true)
      api.assertIs('Activity', { ...activity, recent: [], recentFetches: [] })
      const builds = await stream.next('builds', () => true)
      assert.deepEqual(
        builds.map(({ id }: { id: string }) => id),
        ['1', '2', 'by-hand'],
      )
      await rsyncSucceeds(['-aH', `${upserv.url}/build-2/root/`, mirror.place()])
      api.assertIs('SessionRecord', await stream.next('session', ({ build }) => build === '2'))
      await rsyncEnds(0, ['-aH', `${upserv.url}/build-3/root/`, mirror.place()])
      api.assertIs('FetchEnd', await stream.next('fetch', ({ id }) => id === '3'))
      await stream.next('builds', (list) => list.length === 4)
    } finally {
      stream.close()
    }
  })

  test('so many watch, and no more, until one leaves', async () => {
    // Held with what they wait for: an answer that is garbage hangs up.
    const watching: { abort: AbortController; response: Response }[] = []
    const watch = async (): Promise<number> => {
      const abort = new AbortController()
      const response = await fetch(`${api.base}/api/v1/events`, { signal: abort.signal })
      if (response.status === 200) watching.push({ abort, response })
      return response.status
    }
    try {
      const statuses = await Promise.all(Array.from({ length: 105 }, watch))
      assert.equal(statuses.filter((status) => status === 200).length, 100)
      assert.equal(statuses.filter((status) => status === 503).length, 5)
      watching.pop()!.abort.abort()
      await until(async () => (await watch()) === 200)
    } finally {
      for (const { abort } of watching) abort.abort()
    }
  })

  test('whatever is asked within what the document allows is answered as it says', async () => {
    // Whatever is changed here nobody misses.
    await using elsewhere = new Mirror()
    const source = `file://${mirror.path('www')}/{build}`
    const other = await elsewhere.startUpserv({ http: '127.0.0.1:0', sources: [source] })
    const its = await ApiClient.open(httpUrlOf(other), elsewhere.data)
    for (const id of ['1', '2']) await its.ask('POST', '/fetches', { id })
    await until(async () => (await its.get('/builds')).body.items.length === 2)
    for (const { path, method, operation } of operationsOf(api.document)) {
      const asked = fc.tuple(argumentsOf(operation), fc.boolean(), fc.constantFrom<TokenFor>('all', 'reads'))
      await fc.assert(
        fc.asyncProperty(asked, async ([{ params, query, body }, wild, tokenFor]) => {
          const filled = path.replaceAll(/\{(\w+)\}/g, (_, name: string) =>
            encodeURIComponent(String(params[name])),
          )
          const search = new URLSearchParams(
            Object.entries(query).flatMap(([name, value]) =>
              value === undefined ? [] : [[name, String(value)]],
            ),
          )
          if (wild) search.set('surprise', '1')
          its.tokenFor = tokenFor
          const { status } = await its.ask(
            method.toUpperCase(),
            `${filled}${search.size > 0 ? `?${search}` : ''}`,
            body,
          )
          assert.ok(status < 500, `${method} ${filled}?${search}: ${status}`)
          // With it they come as far as what is asked for, and not only to what keeps strangers out.
          if (tokenFor === 'all') assert.notEqual(status, 401)
          if (wild && method === 'get') assert.equal(status, 400)
        }),
        { numRuns: RUNS_EACH },
      )
    }
    assert.equal((await fetch(`${its.base}/healthz`)).status, 200)
    assert.doesNotMatch(other.process.stderr, /"level":[56]0/)
    await other.stop()
  })

  test('every operation of the document was carried out above', () => {
    for (const { operation } of operationsOf(api.document)) {
      const { operationId, responses } = operation
      const done = Object.keys(responses).filter((status) => status !== 'default')
      assert.ok(
        done.some((status) => api.seen.has(`${operationId} ${status}`)),
        `${operationId} was only refused`,
      )
    }
  })

  test('garbage does no harm', async () => {
    const { port } = new URL(api.base)
    for (const path of [
      '/api/v1/builds/%FF',
      '/api/v1/builds/%',
      '/builds/%FF',
      '//',
      '/api/v1/nothing',
      `/${'a'.repeat(10_000)}`,
    ]) {
      const status = await raw(Number(port), path)
      assert.ok(status >= 400 && status < 500, `${path}: ${status}`)
    }
    assert.equal((await fetch(`${api.base}/healthz`)).status, 200)
  })
})

/** Without events, which are no answer that ends, and sessions, which the token is not for. */
function operationsOf({ paths }: Document): { path: string; method: string; operation: Operation }[] {
  return Object.entries(paths)
    .filter(([path]) => path !== '/events' && path !== '/session')
    .flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
    )
}

function argumentsOf({ parameters = [], requestBody }: Operation) {
  const of = (where: string) =>
    fc.record(
      Object.fromEntries(
        parameters.filter((one) => one.in === where).map(({ name, schema }) => [name, anyOfSchema(schema)]),
      ),
      where === 'query' ? { requiredKeys: [] } : {},
    ) as fc.Arbitrary<Record<string, unknown>>
  const body = requestBody
    ? anyOfSchema(requestBody.content['application/json'].schema)
    : fc.constant(undefined)
  return fc.record({ params: of('path'), query: of('query'), body })
}

/** Values that a schema allows, and now and then others. */
function anyOfSchema(schema: Record<string, unknown>): fc.Arbitrary<unknown> {
  const { type, pattern, anyOf, properties, minimum, maximum, format } = schema
  if (schema.enum) return fc.constantFrom(...(schema.enum as unknown[]))
  if (anyOf) return fc.oneof(...(anyOf as Record<string, unknown>[]).map(anyOfSchema))
  if (type === 'null') return fc.constant(null)
  if (type === 'boolean') return fc.boolean()
  if (type === 'integer') return fc.integer({ min: Number(minimum ?? -1000), max: Number(maximum ?? 1000) })
  if (type === 'object')
    return fc.record(
      Object.fromEntries(
        Object.entries(properties as Record<string, Record<string, unknown>>).map(([key, value]) => [
          key,
          anyOfSchema(value),
        ]),
      ),
    )
  if (format === 'date-time')
    return fc
      .date({ min: new Date(0), max: new Date(4e12), noInvalidDate: true })
      .map((date) => date.toISOString())
  if (typeof pattern === 'string')
    return fc.oneof(
      fc.stringMatching(new RegExp(pattern)).map((text) => text.slice(0, 100)),
      fc.constantFrom('1', '2', '/etc/passwd'),
    )
  return fc.string({ minLength: 1, maxLength: 50, unit: 'binary' }).map((text) => text.toWellFormed())
}

function raw(port: number, path: string, headers: Record<string, string> = {}): Promise<number> {
  return new Promise((resolve, reject) => {
    const asking = request({ port, host: '127.0.0.1', path, headers }, (response) => {
      response.resume()
      resolve(response.statusCode!)
    })
    asking.on('error', reject)
    asking.end()
  })
}

/** Asks again until there is something to see. */
async function until<T>(look: () => Promise<T>): Promise<NonNullable<T>> {
  const deadline = performance.now() + 60_000
  for (;;) {
    const seen = await look()
    if (seen) return seen
    assert.ok(performance.now() < deadline, `never: ${look}`)
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS))
  }
}

/** Reads server-sent events. */
class EventStream {
  readonly #abort = new AbortController()
  // biome-ignore lint/suspicious/noExplicitAny: whatever was told
  readonly #heard: { event: string; data: any }[] = []
  #changed = Promise.withResolvers<void>()

  constructor(url: string) {
    void this.#read(url).catch(() => {})
  }

  close(): void {
    this.#abort.abort()
  }

  // biome-ignore lint/suspicious/noExplicitAny: whatever was told
  async next(event: string, matches: (data: any) => boolean): Promise<any> {
    const deadline = AbortSignal.timeout(60_000)
    deadline.addEventListener('abort', () => this.#changed.resolve(), { once: true })
    for (;;) {
      const at = this.#heard.findIndex((one) => one.event === event && matches(one.data))
      if (at >= 0) return this.#heard.splice(at, 1)[0]!.data
      assert.ok(!deadline.aborted, `no event ${event}`)
      await this.#changed.promise
    }
  }

  async #read(url: string): Promise<void> {
    const response = await fetch(url, { signal: this.#abort.signal })
    let text = ''
    for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
      const parts = (text + piece).split('\n\n')
      text = parts.pop()!
      for (const part of parts) {
        const match = /^event: (.*)\ndata: (.*)$/.exec(part)
        if (match) this.#heard.push({ event: match[1]!, data: JSON.parse(match[2]!) })
      }
      this.#changed.resolve()
      this.#changed = Promise.withResolvers<void>()
    }
  }
}
