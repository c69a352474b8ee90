/**
 * Whose handshake goes when there are too many: of the network, and in it the source, that has the most. Who is let
 * in before the doors close. That nobody is counted who has gone.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Authority } from '../../test/support/certificates.ts'
import { missing } from '../../test/support/rsync-ssl.ts'
import { makeScratch } from '../../test/support/scratch.ts'
import { sessionContext } from '../../test/support/session.ts'
import type { Listen } from '../config/config.ts'
import { Certificates } from '../doorstep/certificates.ts'
import { Doorstep } from '../doorstep/doorstep.ts'
import type { SessionRecord } from '../history/session-record.ts'
import { descriptorOf } from '../lib/descriptor.ts'
import { createLogger } from '../lib/log.ts'
import { peerFrom } from '../lib/peer.ts'
import { type DoorLimits, Doors } from './doors.ts'
import { openDoors } from './handover.ts'

function open(limits: Partial<DoorLimits>) {
  const log = createLogger()
  log.level = 'silent'
  const ended: SessionRecord[] = []
  const doors = new Doors(
    sessionContext({}),
    { handshakes: 100, perSource: 0, inside: 100, ...limits },
    log,
    {
      onEnd: (record) => ended.push(record),
    },
  )
  const knock = (address: string): PassThrough => {
    const [input, output] = [new PassThrough(), new PassThrough()]
    output.resume()
    doors.admit(input, output, peerFrom(address, 1))
    return input
  }
  const gone = async (): Promise<string[]> => {
    for (let i = 0; i < 20; i++) await nextTurn()
    return ended
      .filter(({ reason }) => reason.startsWith('too many handshakes'))
      .map(({ address }) => address)
  }
  return { doors, knock, gone }
}

test('doors: a crowd from many addresses of one network keeps nobody else out', async () => {
  const { doors, knock, gone } = open({ handshakes: 10 })
  knock('192.0.2.1')
  knock('192.0.2.1')
  // Each from a site of its own, as one who has a /48 can.
  for (let i = 0; i < 50; i++) knock(`2001:db8:0:${i.toString(16)}::1`)
  assert.deepEqual([...new Set((await gone()).map((address) => address.includes(':')))], [true])
  assert.equal(doors.live(100).filter(({ address }) => address === '192.0.2.1').length, 2)
  await doors.close(0)
})

test('doors: handshakes of one source have a limit of their own, and it is the oldest that goes', async () => {
  const { doors, knock, gone } = open({ handshakesPerSource: 2 })
  for (let i = 0; i < 5; i++) knock('2001:db8::1')
  knock('2001:db8::2') // of the same /64
  knock('2001:db8:0:1::1')
  assert.deepEqual(
    await gone(),
    Array.from({ length: 4 }, () => '2001:db8::1'),
  )
  await doors.close(0)
})

test('doors: handshakes of one network have a limit of their own, and the source that has the most pays', async () => {
  const { doors, knock, gone } = open({ handshakesPerNetwork: 3 })
  for (const last of [1, 2, 2, 3, 4]) knock(`192.0.2.${last}`)
  knock('198.51.100.1')
  assert.deepEqual(await gone(), ['192.0.2.2', '192.0.2.1'])
  await doors.close(0)
})

test('doors: connections of a network are counted, and no longer than they last', async () => {
  const { doors, knock } = open({
    perNetwork: 2,
    prefixes: { ipv4Network: 24, ipv6Source: 64, ipv6Network: 48 },
  })
  const first = knock('192.0.2.1')
  knock('192.0.2.2')
  knock('192.0.2.3')
  knock('198.51.100.1')
  assert.equal(doors.sessions, 3)
  first.end()
  while (doors.sessions > 2) await nextTurn()
  knock('192.0.2.3')
  assert.equal(doors.sessions, 3)
  await doors.close(0)
})

test('doors: handshakes that come through a proxy count for the clients that it names, and before that for nobody', async (t) => {
  const { doors, knock, gone } = open({ handshakesPerSource: 1, handshakesPerNetwork: 1 })
  const doorstep = new Doorstep({ isProxy: () => true, tls: undefined })
  const address = await doors.listen({ host: '127.0.0.1', port: 0 }, doorstep)
  const sockets: Socket[] = []
  t.after(async () => {
    for (const socket of sockets) socket.destroy()
    await doors.close(0)
  })
  const arrive = async (): Promise<Socket> => {
    const socket = connect(Number(address.split(':').at(-1)), '127.0.0.1').on('error', () => {})
    sockets.push(socket.resume())
    while (doors.arriving < sockets.length && !sockets.some(({ destroyed }) => destroyed)) await nextTurn()
    return socket
  }
  /** Whether we greet who is named, or have hung up. */
  const name = async (socket: Socket, client: string): Promise<boolean> => {
    const heard = new Promise<boolean>((resolve) => {
      socket.once('data', () => resolve(true)).once('close', () => resolve(false))
    })
    socket.write(`PROXY TCP4 ${client} 127.0.0.1 1 2\r\n`)
    return !socket.destroyed && (await heard)
  }
  const [first, second, third] = [await arrive(), await arrive(), await arrive()]
  knock('127.0.0.2') // the proxy's neighbour
  assert.ok(await name(first, '192.0.2.7'))
  assert.ok(await name(second, '198.51.100.8'))
  assert.deepEqual(await gone(), [])
  assert.ok(await name(third, '192.0.2.7'))
  assert.deepEqual(await gone(), ['192.0.2.7'])
})

for (const { name, end, letIn } of [
  { name: 'leave: who is on the doorstep is let in before', end: 'leave', letIn: true },
  { name: 'close: nobody is let in any more', end: 'close', letIn: false },
] as const)
  test(`doors: ${name}`, async () => {
    const { doors } = open({})
    // Behind a proxy the protocol begins when it has named its client.
    const doorstep = new Doorstep({ isProxy: () => true, tls: undefined })
    const address = await doors.listen({ host: '127.0.0.1', port: 0 }, doorstep)
    const socket = connect(Number(address.split(':').at(-1)), '127.0.0.1')
    let said = ''
    socket.setEncoding('latin1').on('data', (text: string) => {
      said += text
    })
    const closed = new Promise((resolve) => socket.on('error', () => {}).once('close', resolve))
    await once(socket, 'connect')
    socket.write('PROXY TCP4 192.0.2.7 ')
    while (doors.arriving === 0) await nextTurn()
    let gone = false
    const ended = doors[end](60_000).finally(() => {
      gone = true
    })
    // No door any more for who comes now.
    const [error] = (await once(connect(Number(address.split(':').at(-1)), '127.0.0.1'), 'error')) as [
      NodeJS.ErrnoException,
    ]
    assert.equal(error.code, 'ECONNREFUSED')
    if (letIn) {
      assert.ok(!gone)
      socket.write('127.0.0.1 1 2\r\n@RSYNCD: 31.0 md5\n')
      while (!/^@RSYNCD: /.test(said)) await once(socket, 'data')
      assert.equal(doors.live(1)[0]?.address, '192.0.2.7')
      assert.ok(!gone, 'it is waited for')
      socket.write('#list\n')
    }
    await closed
    await ended
    assert.equal(/^@RSYNCD: [\s\S]*@RSYNCD: EXIT/.test(said), letIn)
    assert.equal(doors.sessions, 0)
  })

test('doors: who leaves a crowd while waiting for the TLS handshake is counted no more', {
  skip: await missing('openssl'),
}, async () => {
  using scratch = makeScratch()
  const pair = await (await Authority.make(join(scratch.path, 'ours'))).issue({ cn: 'upserv' })
  let looks = 0
  // Each handshake takes more than a slice, as under load: one of the crowd a turn.
  const slowClock = (): number => {
    looks++
    for (const until = performance.now() + 10; performance.now() < until; );
    return 0
  }
  const ignore = (): void => {}
  const certificates = new Certificates({ ...pair, clientCa: undefined }, ignore, ignore, slowClock)
  const CROWD = 10
  const { doors } = open({})
  const tls = { certificates, clientCerts: 'off', devices: undefined } as const
  const address = await doors.listen(
    { host: '127.0.0.1', port: 0 },
    new Doorstep({ isProxy: () => false, tls }),
  )
  const knock = () => connect(Number(address.split(':').at(-1)), '127.0.0.1').on('error', ignore)
  const crowd = Array.from({ length: CROWD }, knock)
  while (doors.arriving < CROWD) await nextTurn()
  for (const socket of crowd) socket.write(Uint8Array.of(0x16))
  const looksBefore = looks
  while (looks === looksBefore) await nextTurn()
  for (const socket of crowd) socket.resetAndDestroy()
  for (let turns = 0; doors.arriving > 0 && turns < 1000; turns++) await nextTurn()
  const left = doors.arriving
  await doors.close(0)
  assert.equal(left, 0)
})

test('doors: what listens already is taken when all else is open, and who is in the way is named', async () => {
  const before = createServer().listen(0, '127.0.0.1')
  await once(before, 'listening')
  const { port } = before.address() as AddressInfo
  const inherited = { kind: 'rsync', fd: descriptorOf(before)!, address: `127.0.0.1:${port}` } as const
  const { doors } = open({})
  const doorstep = new Doorstep({ isProxy: () => false, tls: undefined })
  const ways = {
    open: (address: Listen) => doors.listen(address, doorstep),
    take: ({ fd }: { fd: number }) => doors.listenOn(fd, doorstep),
  }
  const take = { ...ways, doorways: { take: [inherited], open: [] } }
  const conflict = { ...ways, doorways: { take: [], open: [{ host: '0.0.0.0', port }] } }
  const refused = openDoors([take, conflict], [inherited])
  await assert.rejects(refused, {
    message: `cannot listen on 0.0.0.0:${port}: the server before this one listens on 127.0.0.1:${port}, and does until it ends`,
    hint: /restart the server/,
  })
  assert.deepEqual(doors.listening, [])
  // Of another program it is said as before.
  await assert.rejects(openDoors([take, conflict], []), { message: /another program does/ })
  await doors.close(0)
  before.close()
})
