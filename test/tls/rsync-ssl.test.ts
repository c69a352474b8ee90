/** rsync over TLS with stock rsync-ssl and each program that it can use: right and wrong certificates of both sides. */
import assert from 'node:assert/strict'
import { copyFileSync, writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { Authority, type Pair } from '../support/certificates.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { freePort, ServerProcess, waitForPort } from '../support/processes.ts'
import { rsync } from '../support/rsync.ts'
import { HELPERS, type Helper, missing, rsyncSsl, tlsPort } from '../support/rsync-ssl.ts'
import type { Upserv } from '../support/upserv.ts'

const skip = await missing('openssl', 'gnutls-cli', 'stunnel4', 'rsync-ssl')
const ALL = Object.keys(HELPERS) as Helper[]

describe('rsync-ssl', { skip }, () => {
  let mirror: Mirror
  let ours: Authority
  let other: Authority
  let right: Pair
  let upserv: Upserv
  let device: Pair
  /** What the server has shown so far of sessions and of who came no further. */
  const log = (): string => upserv.process.stderr
  const url = (): string => `rsync://localhost:${tlsPort(upserv)}`

  before(async () => {
    mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 5, 300_000))
    await mirror.startNginx()
    ours = await Authority.make(mirror.path('ours'))
    other = await Authority.make(mirror.path('other'), 'another authority')
    right = await ours.issue({ cn: 'upserv', san: 'DNS:localhost', use: 'serverAuth' })
    device = await ours.issue({ cn: 'serial-7', san: 'DNS:laptop-7.example', use: 'clientAuth' })
    await use(right)
    await configure('')
    upserv = await mirror.startUpserv({ config: mirror.path('upserv.toml'), http: '127.0.0.1:0' })
  })
  after(async () => {
    await upserv?.stop()
    await mirror?.[Symbol.asyncDispose]()
  })

  /** Puts another certificate in the place of the server's. */
  async function use({ cert, key }: Pair): Promise<void> {
    copyFileSync(cert, mirror.path('cert.pem'))
    copyFileSync(key, mirror.path('key.pem'))
    if (upserv) await reload()
  }
  async function configure(more: string, rsyncKeys = ''): Promise<void> {
    writeFileSync(
      mirror.path('upserv.toml'),
      `[rsync]\ntls_listen = "127.0.0.1:0"\n${rsyncKeys}
[tls]\ncert = "${mirror.path('cert.pem')}"\nkey = "${mirror.path('key.pem')}"
client_ca = "${ours.cert}"\n${more}`,
    )
    if (upserv) await reload()
  }
  async function reload(): Promise<void> {
    const { code, stderr } = await upserv.cli(['reload'])
    assert.equal(code, 0, stderr)
  }

  for (const helper of ALL) {
    test(`${helper}: a build comes as it is`, async () => {
      const place = mirror.place()
      const { code, stderr } = await rsyncSsl(helper, ['-aH', `${url()}/build-1/root/`, place], {
        ca: ours.cert,
      })
      assert.equal(code, 0, stderr)
      mirror.assertTree('1', place)
      assert.match(log(), /"tls":true,"device":"127\.0\.0\.1","build":"1","outcome":"done"/)
    })
  }

  for (const helper of ALL) {
    test(`${helper}: an authority that is not the server's is refused by the client`, async () => {
      const { code, stdout } = await rsyncSsl(helper, ['--no-motd', `${url()}/`], { ca: other.cert })
      assert.notEqual(code, 0)
      assert.doesNotMatch(stdout, /build-/)
    })
  }

  test('a certificate of the server that has expired, or is for another name, is refused by the client', async () => {
    const wrong = {
      expired: await ours.issue({ cn: 'upserv', san: 'DNS:localhost', expired: true }),
      'another name': await ours.issue({ cn: 'elsewhere', san: 'DNS:elsewhere.example' }),
    }
    for (const [name, pair] of Object.entries(wrong)) {
      await use(pair)
      for (const helper of ALL) {
        const { code, stdout } = await rsyncSsl(helper, ['--no-motd', `${url()}/`], { ca: ours.cert })
        assert.notEqual(code, 0, `${helper}, ${name}`)
        assert.doesNotMatch(stdout, /build-/, `${helper}, ${name}`)
      }
    }
    await use(right)
    for (const helper of ALL) {
      const { code, stdout, stderr } = await rsyncSsl(helper, [`${url()}/`], { ca: ours.cert })
      assert.equal(code, 0, stderr)
      assert.match(stdout, /^build-1/m, helper)
    }
    assert.match(log(), /"reason":"TLS could not be agreed on: [^"]*certificate/)
  })

  test('a client shows who it is: in the log, live, in the history and its exports', async () => {
    for (const helper of ['openssl', 'gnutls'] as const) {
      const args = ['-a', `${url()}/build-1/root/`, mirror.place()]
      const { code, stderr } = await rsyncSsl(helper, args, { ca: ours.cert, client: device })
      assert.equal(code, 0, stderr)
    }
    assert.match(log(), /"tls":true,"device":"serial-7","build":"1","outcome":"done"/)
    const { stdout } = await upserv.cli(['history', '--device', 'serial-7', '--json'])
    const records = JSON.parse(stdout) as { device: string; tls: boolean; user: string }[]
    assert.deepEqual(
      records.map(({ device: name, tls, user }) => [name, tls, user]),
      Array(2).fill(['serial-7', true, '']),
    )
    assert.match((await upserv.cli(['top', '--once'])).stdout, /serial-7 \(127\.0\.0\.1\) {2}build-1/)
    assert.match((await upserv.cli(['why', 'serial-7'])).stdout, /agreed on +TLS, protocol 3/)
    const http = /http:\/\/\S+/.exec(upserv.ready)![0]
    const token = (await upserv.cli(['token'])).stdout.trim()
    const ask = { headers: { authorization: `Bearer ${token}` } }
    const csv = await (await fetch(`${http}/api/v1/history.csv?device=serial-7`, ask)).text()
    assert.equal(csv.match(/,serial-7\r\n/g)?.length, 2, csv)
    const json = (await (
      await fetch(`${http}/api/v1/history.json?device=serial-7`, ask)
    ).json()) as typeof records
    assert.equal(json.length, 2)
  })

  // rsync-ssl of 3.5.0 writes a configuration that stunnel refuses when there is a certificate to show.
  test('stunnel as a service of its own shows who its client is', async () => {
    const port = await freePort()
    const config = mirror.path('stunnel.conf')
    writeFileSync(
      config,
      `foreground = yes\npid =\n[upserv]\nclient = yes\naccept = 127.0.0.1:${port}
connect = 127.0.0.1:${tlsPort(upserv)}\ncert = ${device.cert}\nkey = ${device.key}
CAfile = ${ours.cert}\nverifyChain = yes\ncheckHost = localhost\n`,
    )
    const stunnel = new ServerProcess('stunnel4', [config])
    try {
      await waitForPort(port, stunnel)
      const place = mirror.place()
      const { code, stderr } = await rsync(['-aH', `rsync://127.0.0.1:${port}/build-1/root/`, place])
      assert.equal(code, 0, stderr)
      mirror.assertTree('1', place)
    } finally {
      await stunnel.stop()
    }
    assert.match(log(), /"device":"serial-7","build":"1","outcome":"done"/)
  })

  test('a certificate of a client that is not right keeps it out, and it is told why', async () => {
    const strangers: [string, Pair, RegExp][] = [
      ['of another authority', await other.issue({ cn: 'serial-7' }), /not accepted \(UNABLE_TO_/],
      ['expired', await ours.issue({ cn: 'serial-7', expired: true }), /not accepted \(CERT_HAS_EXPIRED\)/],
      [
        'for servers',
        await ours.issue({ cn: 'serial-7', use: 'serverAuth' }),
        /not accepted \(INVALID_PURPOSE\)/,
      ],
    ]
    for (const [name, client, says] of strangers) {
      for (const helper of ['openssl', 'gnutls'] as const) {
        const { code, stderr } = await rsyncSsl(helper, [`${url()}/`], { ca: ours.cert, client })
        assert.equal(code, 5, `${helper}, ${name}: ${stderr}`)
        assert.match(stderr, /^@ERROR: the certificate of the client/m)
        assert.match(stderr, says)
      }
    }
  })

  test('where certificates are required nobody comes in without; a name that is taken out stays out', async () => {
    await configure('[tls.devices]\n"laptop-7.example" = "library"\n', 'client_certs = "required"')
    const list = (client?: Pair) =>
      rsyncSsl('openssl', [`${url()}/`], { ca: ours.cert, ...(client ? { client } : {}) })
    assert.match((await list()).stderr, /^@ERROR: this server asks for a certificate of the client/m)
    assert.equal((await list(device)).code, 0)
    assert.match(log(), /"device":"library"/)
    const unknown = await ours.issue({ cn: 'serial-8' })
    assert.match((await list(unknown)).stderr, /^@ERROR: the certificate of the client names no device/m)
    await configure('[tls.devices]\n"serial-8" = "lab"\n', 'client_certs = "required"')
    assert.match((await list(device)).stderr, /^@ERROR: the certificate of the client names no device/m)
    assert.equal((await list(unknown)).code, 0)
    await configure('')
    assert.equal((await list()).code, 0)
  })

  test('an authority that is taken out vouches for nobody any more', async () => {
    copyFileSync(ours.cert, mirror.path('devices.pem'))
    const withCa = (path: string) =>
      writeFileSync(
        mirror.path('upserv.toml'),
        `[rsync]\ntls_listen = "127.0.0.1:0"\n[tls]\ncert = "${mirror.path('cert.pem')}"
key = "${mirror.path('key.pem')}"\nclient_ca = "${path}"\n`,
      )
    withCa(mirror.path('devices.pem'))
    await reload()
    const list = () => rsyncSsl('openssl', [`${url()}/`], { ca: ours.cert, client: device })
    assert.equal((await list()).code, 0)
    copyFileSync(other.cert, mirror.path('devices.pem'))
    await reload()
    assert.match((await list()).stderr, /^@ERROR: the certificate of the client is not accepted/m)
    await configure('')
  })
})
