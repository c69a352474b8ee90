/**
 * Rules that go by client certificates, met by real clients that show one: who is named sees and gets a build that
 * others do not, and nothing of what is kept of it for the next device ever reaches anybody else.
 */
import assert from 'node:assert/strict'
import { appendFileSync, existsSync, globSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Authority, type Pair } from '../support/certificates.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { run } from '../support/processes.ts'
import { rsync } from '../support/rsync.ts'
import { missing, rsyncSsl, tlsPort } from '../support/rsync-ssl.ts'
import { repetitiveText, SpecWriter } from '../support/tree.ts'
import type { Upserv } from '../support/upserv.ts'

const skip = await missing('openssl', 'rsync-ssl', 'curl')

/** A name and a text that are nowhere but in the private build. */
const NAME = 'a-most-private-name'
const TEXT = 'a most private text'

describe('rules by certificate', { skip }, () => {
  let mirror: Mirror
  let ours: Authority
  let upserv: Upserv
  let laptop: Pair
  let kiosk: Pair
  const others = (): [who: string, client: Pair | undefined][] => [
    ['another certificate', kiosk],
    ['no certificate', undefined],
  ]

  before(async () => {
    mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 3, 100_000))
    const secret = new SpecWriter()
    secret.directory('')
    secret.file(NAME, Buffer.from(`${TEXT}\n`))
    secret.file('large', Buffer.concat([Buffer.from(TEXT), repetitiveText(3000)]))
    await mirror.publish('secret', secret.spec)
    await mirror.startNginx()
    ours = await Authority.make(mirror.path('ours'))
    const { cert, key } = await ours.issue({ cn: 'upserv', san: 'DNS:localhost' })
    laptop = await ours.issue({ cn: 'laptop-7', use: 'clientAuth' })
    kiosk = await ours.issue({ cn: 'kiosk-1', use: 'clientAuth' })
    writeFileSync(
      mirror.path('upserv.toml'),
      `[rsync]\ntls_listen = "127.0.0.1:0"
[http]\ntls_listen = "127.0.0.1:0"\nclient_certs = "optional"
[tls]\ncert = "${cert}"\nkey = "${key}"\nclient_ca = "${ours.cert}"
[channels]\ninner = "secret"
[[module]]\nname = "build-secret"\nauth_users = ["cert:laptop-*"]\n`,
    )
    upserv = await mirror.startUpserv({ config: mirror.path('upserv.toml'), http: '127.0.0.1:0' })
    await mirror.assertServes(upserv, '1')
  })
  after(async () => {
    await upserv?.stop()
    await mirror?.[Symbol.asyncDispose]()
  })

  const ask = (client: Pair | undefined, args: readonly string[], path: string, place?: string) =>
    rsyncSsl(
      'openssl',
      [...args, `rsync://localhost:${tlsPort(upserv)}/${path}`, ...(place ? [place] : [])],
      {
        ca: ours.cert,
        ...(client ? { client } : {}),
      },
    )

  test('nothing is fetched for who is not named; who is gets the build', async () => {
    for (const [who, client] of others()) {
      const { code, stderr } = await ask(client, ['-a'], 'build-secret/root/', mirror.place())
      assert.equal(code, 5, who)
      assert.match(stderr, /^@ERROR: access denied to build-secret/m, who)
    }
    assert.deepEqual(mirror.requestsFor('secret'), [])
    const place = mirror.place()
    const { code, stderr } = await ask(laptop, ['-aH'], 'build-secret/root/', place)
    assert.equal(code, 0, stderr)
    mirror.assertTree('secret', place)
    assert.equal((await ask(laptop, ['-a'], 'channel-inner/root/', mirror.place())).code, 0)
  })

  test('listings show it to who may have it, and to nobody else', async () => {
    const shown = await ask(laptop, [], '')
    assert.match(shown.stdout, /^build-secret\b/m)
    assert.match(shown.stdout, /^channel-inner\b/m)
    const plain = { stdout: (await rsync([`${upserv.url}/`])).stdout, who: 'without TLS' }
    const hidden = [plain]
    for (const [who, client] of others()) hidden.push({ who, stdout: (await ask(client, [], '')).stdout })
    for (const { who, stdout } of hidden) {
      assert.match(stdout, /^build-1\b/m, who)
      assert.doesNotMatch(stdout, /secret|inner/, who)
    }
  })

  test('by HTTPS it is the same', async () => {
    const port = /https:\/\/\S+?:(\d+)/.exec(upserv.ready)![1]
    const get = async (path: string, client?: Pair): Promise<string> => {
      const shows = client ? ['--cert', client.cert, '--key', client.key] : []
      const { stdout } = await run('curl', [
        ...['-sS', '--cacert', ours.cert, '-w', '\n%{http_code}', ...shows],
        `https://localhost:${port}${path}`,
      ])
      return stdout
    }
    assert.match(await get(`/builds/secret/root/${NAME}`, laptop), new RegExp(`${TEXT}\n\n200$`))
    assert.match(await get('/api/v1/builds', laptop), /"secret"/)
    for (const client of [kiosk, undefined]) {
      assert.match(await get(`/builds/secret/root/${NAME}`, client), /\n403$/)
      const listed = await get('/api/v1/builds', client)
      assert.match(listed, /"1"/)
      assert.doesNotMatch(listed, /secret/)
    }
  })

  test('what is kept of a private build serves nobody else', async () => {
    const requests: string[][] = [
      ['-a'],
      ['-az', '--zc=zlib'],
      ['-az', '--zc=zstd'],
      ['-r', '--list-only', '-c'],
    ]
    // Lists, differences and compressed forms of it, each twice: the second time they are what was kept.
    for (const args of [...requests, ...requests]) {
      const place = mirror.place()
      const first = await ask(laptop, ['-a'], 'build-secret/root/', place)
      assert.equal(first.code, 0, first.stderr)
      appendFileSync(join(place, 'large'), 'and something that it has not')
      const target = args.includes('--list-only') ? undefined : place
      assert.equal((await ask(laptop, args, 'build-secret/root/', target)).code, 0)
      const { code, stdout } = await ask(laptop, ['-r', '--list-only'], 'builds/')
      assert.equal(code, 0)
      assert.ok(stdout.includes(NAME), 'or the test would see nothing')
    }
    const kept = (): string =>
      globSync(join(mirror.data, 'cache', '**', '*'))
        .filter((path) => !path.endsWith('.lock'))
        .map((path) => {
          try {
            return readFileSync(path, 'latin1')
          } catch {
            return '' // a directory
          }
        })
        .join('')
    assert.ok(kept().includes(NAME), 'lists of it are kept')

    for (const [who, client] of others()) {
      for (const args of requests) {
        const list = await ask(client, ['-r', '--list-only', ...args], 'builds/')
        assert.equal(list.code, 0, `${who}: ${list.stderr}`)
        assert.match(list.stdout, / 1\/root\/file-0$/m, who)
        assert.doesNotMatch(list.stdout + list.stderr, new RegExp(`secret|${NAME}`), who)
        if (args.includes('--list-only')) continue
        const place = mirror.place()
        assert.equal((await ask(client, args, 'builds/', place)).code, 0, who)
        assert.deepEqual(readdirSync(place), ['1'], who)
        for (const path of ['builds/secret/', `builds/secret/root/${NAME}`]) {
          const named = mirror.place()
          const { code } = await ask(client, args, path, named)
          assert.equal(code, 23, `${who}, ${path}`)
          assert.ok(!existsSync(named) || readdirSync(named).length === 0, `${who}, ${path}`)
        }
      }
      // Its old copy says nothing either: who had it once, and may not have it now.
      const old = mirror.place()
      assert.equal((await ask(laptop, ['-a'], 'build-secret/root/', old)).code, 0)
      for (const path of ['build-secret/root/', 'channel-inner/root/'])
        assert.equal((await ask(client, ['-az'], path, old)).code, 5, `${who}, ${path}`)
    }
    assert.equal((await ask(laptop, ['-a'], 'build-secret/root/', mirror.place())).code, 0)
  })
})
