/** The page, the API and what child servers ask for, over HTTPS. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Authority, type Pair } from '../support/certificates.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { run } from '../support/processes.ts'
import { missing } from '../support/rsync-ssl.ts'
import type { Upserv } from '../support/upserv.ts'

const skip = await missing('openssl', 'curl')

describe('HTTPS', { skip }, () => {
  let mirror: Mirror
  let ours: Authority
  let other: Authority
  let device: Pair
  let parent: Upserv
  let url: string

  before(async () => {
    mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 4, 100_000))
    await mirror.startNginx()
    ours = await Authority.make(mirror.path('ours'))
    other = await Authority.make(mirror.path('other'))
    device = await ours.issue({ cn: 'school-3' })
    await start('')
    url = /https:\/\/\S+/.exec(parent.ready)![0].replace('127.0.0.1', 'localhost')
  })
  after(async () => {
    await parent?.stop()
    await mirror?.[Symbol.asyncDispose]()
  })

  async function start(httpKeys: string): Promise<void> {
    const { cert, key } = await ours.issue({ cn: 'upserv', san: 'DNS:localhost' })
    writeFileSync(
      mirror.path('upserv.toml'),
      `[rsync]\ntls_listen = []\n[http]\nlisten = []\ntls_listen = "127.0.0.1:0"\ntls_cert = "${cert}"\ntls_key = "${key}"
${httpKeys}\n[tls]\nclient_ca = "${ours.cert}"\n`,
    )
    if (parent) assert.equal((await parent.cli(['reload'])).code, 0)
    else parent = await mirror.startUpserv({ config: mirror.path('upserv.toml') })
  }
  async function curl(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await run('curl', ['-sS', '--cacert', ours.cert, ...args])
    assert.equal(code, 0, stderr)
    return stdout
  }

  test('page, API, changes, exports and files are there', async () => {
    const token = (await parent.cli(['token'])).stdout.trim()
    assert.match(await curl(`${url}/`), /<title>/)
    const body = ['-H', 'content-type: application/json', '-d', '{"id":"1"}']
    const fetched = await curl(
      '-X',
      'POST',
      '-H',
      `authorization: Bearer ${token}`,
      ...body,
      `${url}/api/v1/fetches`,
    )
    assert.match(fetched, /"id":"1"/)
    assert.equal((await parent.cli(['fetch', '1'])).code, 0)
    assert.match(await curl(`${url}/api/v1/builds`), /"id":"1"/)
    const bearer = ['-H', `authorization: Bearer ${token}`]
    assert.match(await curl(...bearer, `${url}/api/v1/history.csv`), /^id,began/)
    assert.equal((await curl(`${url}/builds/1/root/file-0`)).length > 0, true)
    // Its other ports are no business of HTTPS: a browser would take a promise for all of them.
    assert.doesNotMatch(await curl('-i', `${url}/`), /strict-transport-security/i)
  })

  test('events come as they happen', async () => {
    // Events never end: the first one is enough.
    const { stdout } = await run('sh', [
      '-c',
      'curl -sSN --cacert "$1" "$2" | grep -m1 "^event: "',
      'sh',
      ours.cert,
      `${url}/api/v1/events`,
    ])
    assert.match(stdout, /^event: \w+/)
  })

  /** A server that has the parent as its source, and fetches from it. @returns how that ended. */
  async function child(
    name: string,
    keys: Record<string, string>,
  ): Promise<{ code: number | null; stderr: string }> {
    const data = mirror.path(name)
    const config = mirror.path(`${name}.toml`)
    const lines = Object.entries(keys).map(([key, value]) => `${key} = "${value}"`)
    const source = url.replace('https:', 'upservs:')
    writeFileSync(
      config,
      `[[source]]\nname = "parent"\nurl = "${keys.url ?? source}"\n${lines.filter((line) => !line.startsWith('url')).join('\n')}\n`,
    )
    const server = await mirror.startUpserv({ data, config, sources: [] })
    const result = await server.cli(['fetch', '1'])
    if (result.code === 0) {
      const place = mirror.place()
      const { code } = await run('rsync', ['-aH', `${server.url}/build-1/root/`, place])
      assert.equal(code, 0)
      mirror.assertTree('1', place)
    }
    await server.stop()
    return result
  }

  test('a child fetches over TLS, and only from whom its authority vouches for', async () => {
    const good = await child('good', { ca: ours.cert })
    assert.equal(good.code, 0, good.stderr)
    const stranger = await child('stranger', { ca: other.cert })
    assert.equal(stranger.code, 69)
    assert.match(stranger.stderr, /certificate that is not accepted/)
    const nameless = await child('nameless', {
      ca: ours.cert,
      url: url.replace('https:', 'upservs:').replace('localhost', '127.0.0.1'),
    })
    assert.equal(nameless.code, 69)
    assert.match(nameless.stderr, /certificate that is not accepted \(ERR_TLS_CERT_ALTNAME_INVALID\)/)
  })

  test('where children need certificates, one without or with a wrong one is told why', async () => {
    await start('client_certs = "required"')
    const good = await child('known', { ca: ours.cert, client_cert: device.cert, client_key: device.key })
    assert.equal(good.code, 0, good.stderr)
    const bare = await child('bare', { ca: ours.cert })
    assert.equal(bare.code, 69)
    assert.match(bare.stderr, /403/)
    const wrong = await other.issue({ cn: 'school-3' })
    const stranger = await child('wrong', { ca: ours.cert, client_cert: wrong.cert, client_key: wrong.key })
    assert.equal(stranger.code, 69)
    const answer = await curl('-i', `${url}/healthz`)
    assert.match(answer, /^HTTP\/1\.1 403 [\s\S]*this server asks for a certificate of the client/)
    assert.match(await curl('--cert', device.cert, '--key', device.key, `${url}/healthz`), /^ok/)
  })

  test('what a file of authorities that is none makes of a source is said', async () => {
    const nonsense = join(mirror.path(), 'nonsense.pem')
    writeFileSync(nonsense, 'nonsense\n')
    const { code, stderr } = await child('nonsense', { ca: nonsense })
    assert.notEqual(code, 0)
    assert.match(stderr, /certificate that is not accepted|cannot be used/)
  })
})
