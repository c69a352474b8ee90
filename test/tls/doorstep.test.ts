/** What comes before rsync and HTTP on a connection: half handshakes, other protocols, certificates that change. */
import assert from 'node:assert/strict'
import { chmodSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { connect as connectPlain, type Socket } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { connect, type TLSSocket } from 'node:tls'
import { Authority, type Pair } from '../support/certificates.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { run } from '../support/processes.ts'
import { rsync } from '../support/rsync.ts'
import { missing, rsyncSsl, tlsPort } from '../support/rsync-ssl.ts'
import { upserv as runUpserv, type Upserv } from '../support/upserv.ts'

const skip = await missing('openssl')
const MAX_HANDSHAKES = 6
const LOOK_EVERY_MS = 50

describe('the doorstep', { skip }, () => {
  let mirror: Mirror
  let ours: Authority
  let first: Pair
  let second: Pair
  let device: Pair
  let upserv: Upserv
  let port: number
  let http: number
  let https: number
  const log = (): string => upserv.process.stderr

  before(async () => {
    mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 2, 100_000))
    await mirror.startNginx()
    ours = await Authority.make(mirror.path('ours'))
    first = await ours.issue({ cn: 'first', san: 'DNS:localhost' })
    second = await ours.issue({ cn: 'second', san: 'DNS:localhost' })
    device = await ours.issue({ cn: 'laptop-7' })
    install(first)
    writeFileSync(mirror.path('upserv.toml'), configuration('max_handshakes = 6'))
    upserv = await mirror.startUpserv({ config: mirror.path('upserv.toml'), http: '127.0.0.1:0' })
    port = tlsPort(upserv)
    http = Number(/http:\/\/\S+?:(\d+)/.exec(upserv.ready)![1])
    https = Number(/https:\/\/\S+?:(\d+)/.exec(upserv.ready)![1])
  })
  after(async () => {
    await upserv?.stop()
    await mirror?.[Symbol.asyncDispose]()
  })

  function install({ cert, key }: Pair): void {
    copyFileSync(cert, mirror.path('cert.pem'))
    copyFileSync(key, mirror.path('key.pem'))
  }
  function configuration(rsyncKeys: string): string {
    return `[rsync]\ntls_listen = "127.0.0.1:0"\n${rsyncKeys}
[http]\ntls_listen = "127.0.0.1:0"
[tls]\ncert = "${mirror.path('cert.pem')}"\nkey = "${mirror.path('key.pem')}"\nclient_ca = "${ours.cert}"\n`
  }
  /** A client in the middle of rsync's greeting, over TLS. */
  async function greet(to = port): Promise<TLSSocket> {
    const socket = connect({
      port: to,
      host: '127.0.0.1',
      servername: 'localhost',
      ca: readFileSync(ours.cert),
    })
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    socket.once('secureConnect', resolve)
    socket.once('error', reject)
    await promise
    return socket
  }
  /** Which certificate newcomers see. */
  async function shown(): Promise<string> {
    const socket = await greet()
    const { CN } = socket.getPeerCertificate().subject
    socket.destroy()
    return String(CN)
  }
  async function until(what: () => Promise<boolean> | boolean): Promise<void> {
    const deadline = performance.now() + 30_000
    while (!(await what())) {
      assert.ok(performance.now() < deadline, `waited in vain\n${log()}`)
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS))
    }
  }
  function knock(to: number, bytes: Uint8Array | string): Promise<Socket> {
    const socket = connectPlain(to, '127.0.0.1')
    socket.on('error', () => {})
    return new Promise((resolve) => socket.once('connect', () => socket.write(bytes, () => resolve(socket))))
  }
  /** All that it says until it hangs up. */
  async function answer(socket: Socket): Promise<string> {
    const pieces: Uint8Array[] = []
    for await (const piece of socket) pieces.push(piece as Uint8Array)
    return Buffer.concat(pieces).toString('latin1')
  }
  /** The first half of what a client of TLS begins with. */
  const HALF_HELLO = Buffer.from('160301020001000200', 'hex')

  test('plain rsync on the port for TLS is told so', async () => {
    const { code, stderr } = await rsync([`rsync://127.0.0.1:${port}/`])
    assert.equal(code, 5)
    assert.match(stderr, /^@ERROR: tls: this port speaks TLS, and the client does not$/m)
  })

  test('TLS on the port for plain rsync ends at once, and the log says why', async () => {
    const { code } = await rsyncSsl('openssl', [`rsync://127.0.0.1:${upserv.port}/`])
    assert.notEqual(code, 0)
    await upserv.process.waitForOutput('stderr', /greeting: the client speaks TLS, and this port does not/)
  })

  test('HTTP on the port for HTTPS, and HTTPS on that for HTTP, are told so', async () => {
    const plain = await run('curl', ['-sS', '-i', `http://127.0.0.1:${https}/healthz`])
    assert.match(plain.stdout, /^HTTP\/1\.1 400 Bad Request\r\n[\s\S]*this port speaks TLS/)
    const { code } = await run('curl', ['-sS', '-k', `https://127.0.0.1:${http}/healthz`])
    assert.equal(code, 35)
    await upserv.process.waitForOutput('stderr', /this port speaks HTTP without TLS/)
  })

  test('a PROXY header from whoever is not listed is an error, on every port', async () => {
    const headers = [
      'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n',
      Buffer.from('0d0a0d0a000d0a515549540a2100' + '0000', 'hex'),
    ]
    for (const header of headers) {
      for (const to of [port, http, https]) {
        const said = await answer((await knock(to, header)).end())
        assert.match(
          said,
          /a PROXY header came from 127\.0\.0\.1, which is not listed in proxy_protocol_from/,
        )
      }
      const rsyncd = await answer((await knock(upserv.port, header)).end())
      assert.match(rsyncd, /^@ERROR: .*a PROXY header came from an address that is not listed/m)
    }
  })

  test('half handshakes keep nobody out: newcomers take the place of the oldest', async () => {
    const half = await Promise.all(Array.from({ length: MAX_HANDSHAKES + 4 }, () => knock(port, HALF_HELLO)))
    const { code, stderr } = await rsyncSsl('openssl', [`rsync://localhost:${port}/`], { ca: ours.cert })
    assert.equal(code, 0, stderr)
    await upserv.process.waitForOutput('stderr', /too many handshakes: of 6, 6 were from this address/)
    const gone = half.filter(({ destroyed, readableEnded }) => destroyed || readableEnded)
    assert.ok(gone.length <= half.length - MAX_HANDSHAKES + 2, 'only as many as had to make room')
    for (const socket of half) socket.destroy()
  })

  test('half a handshake has the time that a whole one has', async () => {
    writeFileSync(mirror.path('upserv.toml'), configuration('handshake_timeout = 0.2'))
    assert.equal((await upserv.cli(['reload'])).code, 0)
    assert.equal(await answer(await knock(port, HALF_HELLO)), '')
    assert.equal(await answer(await knock(port, '')), '', 'nor one that says nothing')
    await upserv.process.waitForOutput('stderr', /the client did not begin in time/)
    writeFileSync(mirror.path('upserv.toml'), configuration(''))
    assert.equal((await upserv.cli(['reload'])).code, 0)
  })

  test('TLS before 1.2 and renegotiation are refused', async () => {
    const to = ['s_client', '-connect', `127.0.0.1:${port}`, '-servername', 'localhost']
    const old = await run('openssl', [...to, '-tls1_1', '-cipher', 'DEFAULT:@SECLEVEL=0'], { input: '' })
    assert.match(old.stderr, /alert protocol version|unsupported protocol/)
    const again = await run('openssl', [...to, '-tls1_2'], { input: 'R\n' })
    assert.match(again.stderr, /RENEGOTIATING/)
    assert.match(again.stderr, /no renegotiation/)
  })

  test('a session that goes on with what was agreed on before is that of the same device', async () => {
    for (const version of ['-tls1_2', '-tls1_3']) {
      const ticket = mirror.path(`ticket${version}`)
      const args = [
        's_client',
        version,
        '-connect',
        `127.0.0.1:${port}`,
        '-servername',
        'localhost',
        '-quiet',
      ]
      const shows = ['-cert', device.cert, '-key', device.key]
      const input = '@RSYNCD: 31.0 md5\n#list\n'
      await run('openssl', [...args, ...shows, '-sess_out', ticket], { input })
      const before = log().length
      await run('openssl', [...args, '-sess_in', ticket], { input })
      await until(() => /"session ended"/.test(log().slice(before)))
      assert.match(log().slice(before), /"device":"laptop-7"/, version)
    }
  })

  test('another certificate holds for newcomers, and sessions go on with theirs', async () => {
    assert.equal(await shown(), 'first')
    const session = await greet()
    install(second)
    // Nobody has said a word to the server: it looks by itself.
    await until(async () => (await shown()) === 'second')
    session.end('@RSYNCD: 31.0 md5\n#list\n')
    assert.match(await answer(session), /@RSYNCD: EXIT/)
  })

  test('a pair that cannot be right is not used, and said to be so', async () => {
    const wrongs: [string, () => void, RegExp][] = [
      ['half a renewal', () => copyFileSync(first.cert, mirror.path('cert.pem')), /is not the key of/],
      [
        'no certificate',
        () => writeFileSync(mirror.path('cert.pem'), 'oops\n'),
        /holds no certificate in PEM/,
      ],
      [
        'a key that others may read',
        () => chmodSync(mirror.path('key.pem'), 0o644),
        /others may read or change it/,
      ],
    ]
    for (const [name, damage, says] of wrongs) {
      damage()
      const { code, stderr } = await upserv.cli(['reload'])
      assert.equal(code, 78, name)
      assert.match(stderr, says)
      assert.equal(await shown(), 'second', name)
      const before = log().length
      await until(async () => {
        assert.equal(await shown(), 'second', name)
        return (
          /certificate not used/.test(log().slice(before)) ||
          says.test(log().split('certificate not used').at(-2) ?? '')
        )
      })
      chmodSync(mirror.path('key.pem'), 0o600)
      install(second)
    }
    install(first)
    await until(async () => (await shown()) === 'first')
  })

  test('a server does not start with a key that others may read, or with half a pair', async () => {
    const key = mirror.path('open.pem')
    copyFileSync(first.key, key)
    chmodSync(key, 0o644)
    const config = mirror.path('wrong.toml')
    const start = () =>
      runUpserv(['serve', '--config', config, '--data', mirror.path('other'), '--rsync', '127.0.0.1:0'])
    writeFileSync(config, `[tls]\ncert = "${first.cert}"\nkey = "${key}"\n`)
    const open = await start()
    assert.equal(open.code, 78)
    assert.match(open.stderr, /the key \S+ cannot be used: others may read or change it/)
    writeFileSync(config, `[tls]\ncert = "${first.cert}"\n`)
    assert.match((await start()).stderr, /tls\.cert and tls\.key go together/)
    writeFileSync(config, `[http]\ntls_listen = "127.0.0.1:0"\n`)
    assert.match((await start()).stderr, /http\.tls_listen: there is no certificate to show/)
    writeFileSync(
      config,
      `[rsync]\nclient_certs = "required"\n[tls]\ncert = "${first.cert}"\nkey = "${first.key}"\n`,
    )
    assert.match(
      (await start()).stderr,
      /rsync\.client_certs is "required", but no certificate could be right/,
    )
  })
})
