/**
 * Attacks by number: a crowd that comes, goes or asks in the same instant, against the running program. Each of it
 * costs little; what must hold is that everybody else has a turn in between. What counts is what the thread worked
 * without one, as a busy machine makes any thread wait.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Authority } from '../support/certificates.ts'
import { httpUrlOf } from '../support/http.ts'
import { lagEnvironment, takeLag } from '../support/lag.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { rsyncSucceeds } from '../support/rsync.ts'
import { missing, tlsPort } from '../support/rsync-ssl.ts'
import { tlsHello } from '../support/tls-hello.ts'
import type { Upserv } from '../support/upserv.ts'

const skip = await missing('openssl')

/** Slices are 8 ms and some; collecting garbage takes its time, and a busy machine makes work take longer. */
const MOST_MS = 100
const ADDRESSES = 50
const AT_ONCE = 200
const CROWD = 1500
const HELLOS = 400

describe('crowds', { skip }, () => {
  let mirror: Mirror
  let upserv: Upserv
  let lagFile: string
  const pid = (): number => upserv.process.child.pid!

  before(async () => {
    mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 2, 1000), { suffix: 'tar' })
    await mirror.startNginx()
    const { cert, key } = await (await Authority.make(mirror.path('ours'))).issue({ cn: 'upserv' })
    writeFileSync(
      mirror.path('upserv.toml'),
      `[rsync]\ntls_listen = "127.0.0.1:0"\n[tls]\ncert = "${cert}"\nkey = "${key}"\n`,
    )
    lagFile = mirror.path('lag.json')
    upserv = await mirror.startUpserv({
      config: mirror.path('upserv.toml'),
      http: '127.0.0.1:0',
      env: lagEnvironment(lagFile),
    })
    // What the first of all costs is compiling.
    await mirror.assertServes(upserv, '1')
    for (const path of ['/metrics', '/api/v1/openapi.json', '/api/v1/builds'])
      await (await fetch(httpUrlOf(upserv) + path)).text()
  })
  after(async () => {
    await upserv?.stop()
    await mirror?.[Symbol.asyncDispose]()
  })

  /** As many at once as wait for the server in the kernel; those beyond would be lost there. */
  async function connectAll(port: number, count: number, arrived = connected): Promise<Socket[]> {
    const sockets: Socket[] = []
    while (sockets.length < count) {
      const some = Array.from({ length: Math.min(AT_ONCE, count - sockets.length) }, (_, n) => {
        const socket = connect({ port, host: '127.0.0.1', localAddress: `127.0.1.${1 + (n % ADDRESSES)}` })
        return socket.on('error', () => {})
      })
      await Promise.all(some.map(arrived))
      sockets.push(...some)
    }
    return sockets
  }

  const connected = (socket: Socket): Promise<void> =>
    new Promise((resolve) => socket.once('connect', () => resolve()))
  const next = (socket: Socket): Promise<void> =>
    new Promise((resolve) => socket.once('data', () => resolve()).once('close', () => resolve()))

  /** Others had a turn all the while, and have one now. */
  async function assertPolite(what: string): Promise<void> {
    await rsyncSucceeds([`${upserv.url}/`])
    const { busyMax } = await takeLag(pid(), lagFile)
    assert.ok(busyMax < MOST_MS, `${what}: the server worked for ${busyMax} ms without a turn for others`)
  }

  /** What all have said lies there when the server looks again. */
  async function inOneTurn(say: () => Promise<unknown>): Promise<void> {
    process.kill(pid(), 'SIGSTOP')
    try {
      await say()
    } finally {
      process.kill(pid(), 'SIGCONT')
    }
  }

  test(`${CROWD} clients that come, and go, at once`, async () => {
    await takeLag(pid(), lagFile)
    const sockets = await connectAll(upserv.port, CROWD, next)
    await assertPolite('they came')
    await inOneTurn(
      async () =>
        await Promise.all(
          sockets.map((socket) => new Promise<void>((gone) => socket.once('close', () => gone()).destroy())),
        ),
    )
    while (upserv.process.stderr.split('"session ended"').length <= CROWD) await sleep(20)
    await assertPolite('they went')
  })

  test(`${HELLOS} handshakes of TLS that begin at once`, async () => {
    const hello = await tlsHello('TLSv1.3', 'localhost')
    const sockets = await connectAll(tlsPort(upserv), HELLOS)
    await rsyncSucceeds([`${upserv.url}/`])
    await takeLag(pid(), lagFile)
    await inOneTurn(() =>
      Promise.all(sockets.map((socket) => new Promise<void>((said) => socket.write(hello, () => said())))),
    )
    await Promise.all(sockets.map(next))
    for (const socket of sockets) socket.destroy()
    await assertPolite('they shook hands')
  })

  for (const path of ['/metrics', '/api/v1/openapi.json', '/parent/v1/builds']) {
    test(`requests in one piece: ${path}`, async () => {
      const { host, port } = new URL(httpUrlOf(upserv))
      const one = Buffer.from(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
      const many = Buffer.concat(Array.from({ length: Math.ceil(400_000 / one.length) }, () => one))
      await takeLag(pid(), lagFile)
      const [socket] = (await connectAll(Number(port), 1)) as [Socket]
      const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
      socket.resume().write(many)
      await closed
      await assertPolite(path)
      assert.equal((await fetch(httpUrlOf(upserv) + path)).status, 200)
    })
  }

  test('a few requests in one piece are all answered', async () => {
    const { host, port } = new URL(httpUrlOf(upserv))
    const one = `GET /healthz HTTP/1.1\r\nHost: ${host}\r\n\r\n`
    const [socket] = (await connectAll(Number(port), 1)) as [Socket]
    socket.write(one.repeat(19) + one.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'))
    let heard = ''
    for await (const piece of socket) heard += String(piece)
    assert.equal(heard.match(/^HTTP\/1\.1 200 OK/gm)?.length, 20)
  })
})
