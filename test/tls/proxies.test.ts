/** Behind a real HAProxy that says where clients come from: what rules, limits, log and history go by. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { Authority } from '../support/certificates.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { freePort, run, ServerProcess, waitForPort } from '../support/processes.ts'
import { rsync } from '../support/rsync.ts'
import { missing, rsyncSsl, tlsPort } from '../support/rsync-ssl.ts'
import type { Upserv } from '../support/upserv.ts'

const skip = await missing('haproxy', 'openssl', 'curl')

/** The source address that the proxy is reached from is the client's, and can be any of 127.0.0.0/8. */
const NEAR = '127.0.0.2'
const FAR = '127.0.0.3'
/** The one that the proxy itself has for upserv. */
const PROXY = '127.0.0.9'

describe('behind a proxy', { skip }, () => {
  let mirror: Mirror
  let upserv: Upserv
  let proxy: ServerProcess
  let ca: string
  /** Ports of the proxy, by what they lead to and in which version. */
  const ports: Record<string, number> = {}

  before(async () => {
    mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 3, 200_000))
    await mirror.startNginx()
    const ours = await Authority.make(mirror.path('ours'))
    ca = ours.cert
    const { cert, key } = await ours.issue({ cn: 'upserv', san: 'DNS:localhost' })
    writeFileSync(
      mirror.path('upserv.toml'),
      `proxy_protocol_from = ["${PROXY}"]
[rsync]\ntls_listen = "127.0.0.1:0"\nmax_per_source = 3\nhosts_deny = ["${FAR}"]
[http]\ntls_listen = "127.0.0.1:0"
[tls]\ncert = "${cert}"\nkey = "${key}"\n`,
    )
    upserv = await mirror.startUpserv({ config: mirror.path('upserv.toml'), http: '127.0.0.1:0' })
    const port = (pattern: RegExp): number => Number(pattern.exec(upserv.ready)![1])
    const behind = {
      rsync: upserv.port,
      tls: tlsPort(upserv),
      http: port(/ http:\/\/\S+?:(\d+)/),
      https: port(/https:\/\/\S+?:(\d+)/),
    }
    const sections: string[] = []
    for (const [name, to] of Object.entries(behind)) {
      for (const [version, sends] of [
        ['1', 'send-proxy'],
        ['2', 'send-proxy-v2 proxy-v2-options unique-id,crc32c'],
      ] as const) {
        const from = await freePort()
        ports[`${name} ${version}`] = from
        sections.push(
          `listen ${name}${version}\n  bind 127.0.0.1:${from}\n  unique-id-format %ci_%cp\n` +
            `  server upserv 127.0.0.1:${to} source ${PROXY} ${sends}\n`,
        )
      }
    }
    const config = mirror.path('haproxy.cfg')
    const times = 'timeout connect 10s\n  timeout client 60s\n  timeout server 60s'
    writeFileSync(config, `global\n  maxconn 100\ndefaults\n  mode tcp\n  ${times}\n${sections.join('')}`)
    proxy = new ServerProcess('haproxy', ['-db', '-f', config])
    // One port will do: it opens all or none. Who knocks through it says nothing, and is one session.
    await waitForPort(ports['rsync 1']!, proxy)
  })
  after(async () => {
    await proxy?.stop()
    await upserv?.stop()
    await mirror?.[Symbol.asyncDispose]()
  })

  for (const version of ['1', '2']) {
    test(`version ${version}: rsync, plain and over TLS, is judged by the client's address`, async () => {
      const plain = (from: string, place: string) =>
        rsync([
          '-aH',
          `--address=${from}`,
          `rsync://127.0.0.1:${ports[`rsync ${version}`]}/build-1/root/`,
          place,
        ])
      const place = mirror.place()
      const near = await plain(NEAR, place)
      assert.equal(near.code, 0, near.stderr)
      mirror.assertTree('1', place)
      const far = await plain(FAR, mirror.place())
      assert.equal(far.code, 5)
      assert.match(far.stderr, /access denied to build-1 from UNDETERMINED \(127\.0\.0\.3\)/)
      const secured = mirror.place()
      const url = `rsync://localhost:${ports[`tls ${version}`]}/build-1/root/`
      const { code, stderr } = await rsyncSsl('openssl', ['-aH', url, secured], { ca })
      assert.equal(code, 0, stderr)
      mirror.assertTree('1', secured)
      const { stdout } = await upserv.cli(['history', '--json'])
      const seen = (JSON.parse(stdout) as { address: string; tls: boolean }[]).map(({ address, tls }) => ({
        address,
        tls,
      }))
      assert.deepEqual(seen.slice(0, 3), [
        { address: '127.0.0.1', tls: true },
        { address: FAR, tls: false },
        { address: NEAR, tls: false },
      ])
    })

    test(`version ${version}: HTTP and HTTPS are judged by the client's address`, async () => {
      for (const scheme of ['http', 'https']) {
        const get = (from: string) =>
          run('curl', [
            ...['-sS', '--cacert', ca, '--interface', from, '-o', '/dev/null', '-w', '%{http_code}'],
            `${scheme}://localhost:${ports[`${scheme} ${version}`]}/builds/1/root/file-0`,
          ])
        const near = await get(NEAR)
        assert.equal(near.stdout, '200', near.stderr)
        assert.equal((await get(FAR)).stdout, '403')
      }
    })
  }

  test('the limit of a source counts clients, not the proxy', async () => {
    // Five at a time, all through the one proxy, from five addresses.
    const ends = await Promise.all(
      Array.from({ length: 5 }, (_, n) =>
        rsync([`--address=127.0.0.${20 + n}`, `rsync://127.0.0.1:${ports['rsync 2']}/`]),
      ),
    )
    assert.deepEqual(
      ends.map(({ code }) => code),
      Array(5).fill(0),
    )
  })

  test('whoever comes from the address of a proxy must send a header', async () => {
    const { code, stderr } = await rsync([`--address=${PROXY}`, `${upserv.url}/`])
    assert.equal(code, 5)
    assert.match(
      stderr,
      /^@ERROR: proxy-header: there is none, and connections from this address begin with one$/m,
    )
  })

  test('one who comes directly needs none', async () => {
    assert.equal((await rsync([`${upserv.url}/`])).code, 0)
  })
})
