/**
 * What comes before a protocol begins: headers of the PROXY protocol and the first bytes of TLS, damaged, on
 * doorsteps with real connections. A client comes in, with nothing lost of what it said behind its header, or is
 * told why not, or is gone; no other error comes of it, and nobody stays on the doorstep.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { Certificates } from '../../src/doorstep/certificates.ts'
import { type Arrival, Doorstep } from '../../src/doorstep/doorstep.ts'
import { decodeProxyHeader } from '../../src/doorstep/proxy-header.ts'
import { ConnectionLost, PeerError } from '../../src/errors.ts'
import { campaign, kindOf } from '../support/campaign.ts'
import { Authority, type Pair } from '../support/certificates.ts'
import { missing } from '../support/rsync-ssl.ts'
import { makeScratch, type Scratch } from '../support/scratch.ts'
import { tlsHello } from '../support/tls-hello.ts'

const skip = await missing('openssl')

/** Longer than any of ours takes to hear of an end. */
const WITHIN_MS = 60_000
const GREETING = Buffer.from('@RSYNCD: 31.0\n#list\n')
const V2 = '0d0a0d0a000d0a515549540a'
const v2 = (rest: string): Buffer => Buffer.from(V2 + rest.replaceAll(' ', ''), 'hex')
const TCP4 = 'c0000201 c0000202 1000 0369'
const TCP6 = `${'20010db8000000000000000000000001'.repeat(2)} 1000 0369`
const HEADERS = [
  Buffer.from('PROXY TCP4 192.0.2.1 192.0.2.2 4096 873\r\n'),
  Buffer.from('PROXY TCP6 2001:db8::1 2001:db8::2 4096 873\r\n'),
  Buffer.from('PROXY UNKNOWN\r\n'),
  v2(`21 11 000c ${TCP4}`),
  v2(`21 21 0024 ${TCP6}`),
  v2('20 00 0000'),
  // With a checksum and a name, as proxies add them.
  v2(`21 11 001b ${TCP4} 03 0004 01020304 02 0005 6c6f63616c`),
  v2(`21 31 00d8 ${'2f'.repeat(216)}`),
]

/** One of each kind of door. */
const KINDS = ['proxy', 'tls', 'proxy and tls'] as const
type Kind = (typeof KINDS)[number]

let scratch: Scratch
let pair: Pair
const doors = new Map<Kind, { server: Server; port: number; met: (of: number) => Promise<Met> }>()

interface Met {
  readonly outcome: string
  readonly arrival?: Arrival
  /** The door's end of it. */
  readonly socket: Socket
}

before(async () => {
  if (skip) return
  scratch = makeScratch('preface')
  const authority = await Authority.make(`${scratch.path}/ours`)
  pair = await authority.issue({ cn: 'upserv', san: 'DNS:localhost' })
  for (const kind of KINDS) doors.set(kind, await openDoor(kind))
})
after(() => {
  for (const { server } of doors.values()) server.close()
  scratch?.[Symbol.dispose]()
})

async function openDoor(kind: Kind) {
  const certificates = new Certificates({ ...pair, clientCa: undefined }, assert.fail, () => {})
  const doorstep = new Doorstep({
    isProxy: () => kind !== 'tls',
    tls: kind === 'proxy' ? undefined : { certificates, clientCerts: 'off', devices: undefined },
  })
  const meetings = new Map<number, PromiseWithResolvers<Met>>()
  const meeting = (port: number): PromiseWithResolvers<Met> => {
    const known = meetings.get(port) ?? Promise.withResolvers<Met>()
    meetings.set(port, known)
    return known
  }
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const { resolve, reject } = meeting(socket.remotePort!)
    doorstep.meet(socket, WITHIN_MS).then(
      (arrival) =>
        resolve({ outcome: `in as ${arrival.peer.address ? 'a client' : 'nobody'}`, arrival, socket }),
      (error: unknown) => {
        if (error instanceof PeerError || error instanceof ConnectionLost)
          resolve({ outcome: kindOf(error), socket })
        else reject(error as Error)
      },
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const met = async (port: number): Promise<Met> => {
    try {
      return await meeting(port).promise
    } finally {
      meetings.delete(port)
    }
  }
  return { server, port: (server.address() as AddressInfo).port, met }
}

/** Says it all, in pieces that its own bytes choose, and no more. */
async function say(kind: Kind, input: Buffer): Promise<string> {
  const { port, met } = doors.get(kind)!
  const client = connect({ port, host: '127.0.0.1', noDelay: true })
  client.on('error', () => {}).resume()
  await new Promise<void>((resolve) => client.once('connect', () => resolve()))
  const own = client.localPort!
  const cut = input.length === 0 ? 0 : (input[input.length >> 1]! * 7) % input.length
  client.write(input.subarray(0, cut))
  await new Promise<void>((resolve) => setImmediate(resolve))
  client.end(input.subarray(cut))
  const { outcome, arrival, socket } = await met(own)
  if (arrival && kind === 'proxy') {
    const heard: Buffer[] = []
    for await (const piece of arrival.socket) heard.push(piece as Buffer)
    const { size } = decodeProxyHeader(input)!
    assert.ok(Buffer.concat(heard).equals(input.subarray(size)), 'what stands behind the header was changed')
  }
  socket.destroy()
  client.destroy()
  return outcome
}

test('damaged PROXY headers and first bytes of TLS', { skip }, async (t) => {
  const hellos = [await tlsHello('TLSv1.2', 'localhost'), await tlsHello('TLSv1.3', 'a-name.example')]
  const seeds = [
    ...HEADERS.flatMap((header) => [Buffer.concat([header, GREETING]), Buffer.concat([header, hellos[1]!])]),
    ...hellos,
    GREETING,
  ]
  await campaign(t, {
    extension: 'preface',
    seeds,
    words: [
      ...[
        'PROXY ',
        'PROXY TCP4 ',
        'PROXY UNKNOWN',
        '\r\n',
        '\n',
        ' ',
        '::',
        '65536',
        '255.255.255.255',
        '%eth0',
      ],
      ...[V2, '\x21\x11', '\x21\x21', '\x20\x00', '\x03\x00\x04', '\x16\x03\x01', '\x16\x03\x03\x40\x00'],
      ...[
        '\x15\x03\x03\x00\x02\x02\x28',
        '\x14\x03\x03\x00\x01\x01',
        'GET / HTTP/1.1\r\n\r\n',
        'X'.repeat(9000),
      ],
    ].map((word) => (word === V2 ? Buffer.from(V2, 'hex').toString('latin1') : word)),
    check: async (input) => {
      const outcomes: string[] = []
      for (const kind of KINDS) outcomes.push(await say(kind, input))
      return outcomes.join('; ')
    },
    leastOutcomes: 12,
  })
  // After all that, whoever means well comes in by each of them.
  for (const kind of KINDS) {
    const { port, met, server } = doors.get(kind)!
    const plain = connect(port, '127.0.0.1')
    await new Promise<void>((resolve) => plain.once('connect', () => resolve()))
    const own = plain.localPort!
    if (kind !== 'tls') plain.write(HEADERS[0]!)
    const client =
      kind === 'proxy'
        ? plain
        : connectTls({
            socket: plain,
            servername: 'localhost',
            ca: readFileSync(`${scratch.path}/ours/ca.pem`),
          })
    const { arrival } = await met(own)
    assert.equal(arrival?.peer.address, kind === 'tls' ? '127.0.0.1' : '192.0.2.1')
    client.destroy()
    plain.destroy()
    arrival?.socket.destroy()
    await until(() => server, 0)
  }
})

/** All connections of a server are gone. */
async function until(of: () => Server, count: number): Promise<void> {
  for (let tries = 0; ; tries++) {
    const left = await new Promise<number>((resolve, reject) =>
      of().getConnections((error, connections) => (error ? reject(error) : resolve(connections))),
    )
    if (left === count) return
    assert.ok(tries < 2000, `${left} stay on the doorstep`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
