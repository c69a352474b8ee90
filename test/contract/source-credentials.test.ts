/**
 * Who we are, over TLS, to real web servers: tokens, passwords and certificates where an authority of one's own
 * vouches for the upstream. They go to the host that they are for, and to none that it redirects to.
 */
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { findProgram } from '../../src/lib/find-program.ts'
import type { SourceConfig } from '../../src/source/source.ts'
import { Authority, type Pair } from '../support/certificates.ts'
import { type Nginx, type NginxOptions, type NginxRequest, startNginx } from '../support/nginx.ts'
import { freePort } from '../support/processes.ts'
import { makeScratch } from '../support/scratch.ts'
import { content, download, type Result } from './source-upstream.ts'

const programs = await Promise.all(['nginx', 'openssl'].map((name) => findProgram(name)))
const skip = programs.includes(undefined) && 'needs nginx and openssl'
const ARCHIVE = content(100_000)
const TOKEN = 'abc.def-123'
const NAME = 'CN=school-7'
/** A process that has just been started may be slow to say its first word. */
const LIMITS = { headersMs: 10_000, stallMs: 10_000 }

describe('who we are', { skip }, () => {
  const scratch = makeScratch('credentials')
  const path = (name: string): string => join(scratch.path, name)
  let [ours, theirs] = [{} as Authority, {} as Authority]
  let [server, client] = [{} as Pair, {} as Pair]

  before(async () => {
    mkdirSync(path('www'))
    writeFileSync(path('www/802'), ARCHIVE)
    writeFileSync(path('token'), `${TOKEN}\n`)
    ours = await Authority.make(path('ours'))
    theirs = await Authority.make(path('theirs'), 'another authority')
    server = await ours.issue({ cn: 'upstream', san: 'IP:127.0.0.1,DNS:localhost' })
    client = await theirs.issue({ cn: 'school-7', use: 'clientAuth' })
  })
  after(() => scratch[Symbol.dispose]())

  let started = 0
  const nginx = async (
    { cert: certificate, key }: Pair,
    options: Partial<NginxOptions> & { wants?: 'on' | 'optional_no_ca' },
  ): Promise<Nginx> => {
    const { wants, ...rest } = options
    const asks = wants === undefined ? {} : { clientCa: theirs.cert, wants }
    const scratchOf = path(`nginx-${++started}`)
    return await startNginx({
      root: path('www'),
      scratch: scratchOf,
      tls: { certificate, key, ...asks },
      ...rest,
    })
  }
  const fetchFrom = (url: string, http: SourceConfig['http']): Promise<Result> =>
    download({ config: { url: `${url}/{build}`, http }, limits: LIMITS })
  /** What a server was told by whoever asked it for the archive. */
  const toldTo = async (it: Nginx): Promise<Pick<NginxRequest, 'authorization' | 'clientName'>[]> => {
    await it.stop() // The log lines of its answers are written by then.
    return it
      .requests()
      .filter(({ path }) => path === '/802')
      .map(({ authorization, clientName }) => ({ authorization, clientName }))
  }
  const assertCame = ({ bytes, error }: Result): void => {
    assert.equal(error, undefined)
    assert.ok(bytes.equals(ARCHIVE))
  }

  test('a token, and an authority of our own', async () => {
    const upstream = await nginx(server, {
      directives: `if ($http_authorization != "Bearer ${TOKEN}") { return 403; }`,
    })
    try {
      const right = { ca: ours.cert, tokenFile: path('token') }
      assertCame(await fetchFrom(upstream.url, right))
      writeFileSync(path('wrong'), 'x')
      for (const tokenFile of [path('wrong'), undefined]) {
        const { error } = await fetchFrom(upstream.url, { ca: ours.cert, tokenFile })
        assert.equal(error.code, 'SOURCE_REFUSED')
        assert.match(error.message, /answers 403: access denied$/)
        assert.doesNotMatch(`${error.message}${error.hint}`, /abc/)
      }
      // Nothing is said to a server for which nobody vouches.
      const before = upstream.requests().length
      for (const ca of [undefined, theirs.cert]) {
        const { error, waits } = await fetchFrom(upstream.url, { ...right, ca })
        assert.equal(error.code, 'SOURCE_REFUSED')
        assert.match(error.message, /certificate that is not accepted \(\w+\)/)
        assert.match(error.hint!, /source's ca/)
        assert.deepEqual(waits, [])
      }
      assert.equal(upstream.requests().length, before)
    } finally {
      await upstream.stop()
    }
  })

  test('a certificate, a token and an authority: none but the last holds where it redirects to', async () => {
    const other = await nginx(server, { wants: 'optional_no_ca' })
    // By another name as well as on another port: a redirect to the same name is still to another server.
    for (const host of ['localhost', '127.0.0.1']) {
      const upstream = await nginx(server, {
        wants: 'on',
        directives: `location = /802 { return 302 https://${host}:${other.port}/802; }`,
      })
      const http = {
        ...{ ca: ours.cert, tokenFile: path('token') },
        ...{ clientCert: client.cert, clientKey: client.key },
      }
      assertCame(await fetchFrom(upstream.url, http))
      assert.deepEqual(await toldTo(upstream), [{ authorization: `Bearer ${TOKEN}`, clientName: NAME }])
    }
    const nothing = { authorization: '', clientName: '' }
    assert.deepEqual(await toldTo(other), [nothing, nothing])
  })

  test('a password in the URL does not go along either, and shows nowhere', async () => {
    const other = await nginx(server, {})
    const upstream = await nginx(server, {
      directives: `location = /802 { return 302 https://127.0.0.1:${other.port}/802; }`,
    })
    const url = upstream.url.replace('//', '//school:s3cret@')
    const came = await fetchFrom(url, { ca: ours.cert })
    assertCame(came)
    assert.doesNotMatch(JSON.stringify(came.events), /s3cret/)
    const basic = `Basic ${Buffer.from('school:s3cret').toString('base64')}`
    assert.deepEqual(await toldTo(upstream), [{ authorization: basic, clientName: '' }])
    assert.deepEqual(await toldTo(other), [{ authorization: '', clientName: '' }])
  })

  const WRITTEN = [
    // What does not encode anything stands for itself.
    { user: 'school:50%off', sent: Buffer.from('school:50%off') },
    { user: 'school:a%3Ab%25%20%6F', sent: Buffer.from('school:a:b% o') },
    { user: 'école:ключ', sent: Buffer.from('école:ключ') },
    { user: 'school:%e9', sent: Buffer.from('school:\xe9', 'latin1') },
  ]
  test('a password is sent as it is meant, however the URL has it', async () => {
    const upstream = await nginx(server, {})
    const came: Result[] = []
    for (const { user } of WRITTEN)
      came.push(await fetchFrom(upstream.url.replace('//', `//${user}@`), { ca: ours.cert }))
    const told = await toldTo(upstream)
    for (const one of came) assertCame(one)
    assert.deepEqual(
      told.map(({ authorization }) => authorization),
      WRITTEN.map(({ sent }) => `Basic ${sent.toString('base64')}`),
    )
  })

  test('a redirect to a host for which nobody vouches is not followed', async () => {
    const stranger = await nginx(await theirs.issue({ cn: 'stranger', san: 'IP:127.0.0.1' }), {})
    const upstream = await nginx(server, {
      directives: `location = /802 { return 302 https://127.0.0.1:${stranger.port}/802; }`,
    })
    const { error, bytes } = await fetchFrom(upstream.url, { ca: ours.cert })
    assert.equal(error.code, 'SOURCE_REFUSED')
    assert.match(error.message, new RegExp(`${stranger.port}/802 has a certificate that is not accepted`))
    assert.equal(bytes.length, 0)
    await upstream.stop()
    assert.deepEqual(await toldTo(stranger), [])
  })

  test('a server that wants a certificate and gets none says so', async () => {
    const upstream = await nginx(server, { wants: 'on', port: await freePort() })
    const { error } = await fetchFrom(upstream.url, { ca: ours.cert })
    await upstream.stop()
    assert.equal(error.code, 'SOURCE_REFUSED')
    assert.match(error.message, /answers 400$/)
  })
})
