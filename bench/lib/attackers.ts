/**
 * A crowd that means harm, as a process of its own: `node attackers.ts PORT TLS-PORT IDLE HALF HALF-TLS READERS
 * WRITERS`. Whoever is hung up on comes back after a second. Prints `{"up": ...}` when all have come as far as they mean to, and what
 * became of them as JSON when its standard input ends.
 *
 * They come from many addresses of the loopback network, as a crowd does: limits of one address alone do not keep
 * it out.
 */
import { connect, type Socket } from 'node:net'
import { nul } from '../../test/support/hostile.ts'
import { tlsHello } from '../../test/support/tls-hello.ts'

const [port, tlsPort, idle, half, halfTls, readers, writers] = process.argv.slice(2).map(Number) as [
  number,
  number,
  number,
  number,
  number,
  number,
  number,
]

/** As devices behind modems that hold on to their connection. */
const COMES_BACK_MS = 1000
/** A slow reader takes so much at a time, a slow writer sends one byte. */
const SIP_BYTES = 1024
const SIP_EVERY_MS = 1000
const OPENED_AT_ONCE = 20
const ADDRESSES = 50

const GREETING = '@RSYNCD: 31.0\n'
const ARGUMENTS = nul('--server', '--sender', '-logDtpre.iLsfxC', '.', 'build-1/root/')
const NO_FILTERS = Buffer.from('0400000700000000', 'hex')

type Kind = 'idle' | 'half' | 'halfTls' | 'reader' | 'writer'

/** Of one who never says more: the server has signed its answer by then. */
const HELLO = await tlsHello('TLSv1.3', 'localhost')

const held = new Map<Socket, Kind>()
const counts = { connected: 0, hungUpOn: 0, turnedAway: 0 }
let over = false

/** Resolves when it has come as far as it means to, or was sent away. */
function open(kind: Kind, number: number): Promise<void> {
  const localAddress = `127.0.1.${1 + (number % ADDRESSES)}`
  const socket = connect({ port: kind === 'halfTls' ? tlsPort : port, host: '127.0.0.1', localAddress })
  let timer: NodeJS.Timeout | undefined
  return new Promise((resolve) => {
    let said = ''
    socket.on('error', () => {})
    socket.once('close', () => {
      clearInterval(timer)
      held.delete(socket)
      if (said.includes('@ERROR')) counts.turnedAway++
      else counts.hungUpOn++
      resolve()
      if (!over) setTimeout(() => void open(kind, number), COMES_BACK_MS)
    })
    socket.once('connect', () => {
      counts.connected++
      held.set(socket, kind)
      if (kind === 'halfTls') socket.write(HELLO)
    })
    socket.on('data', function onData(chunk: Buffer) {
      if (kind === 'halfTls') return resolve()
      const greeted = said.includes('\n')
      if (said.length < 4096) said += chunk.toString('latin1')
      if (!greeted && said.includes('\n')) {
        if (kind === 'idle') return resolve()
        if (kind === 'writer') {
          // All that a client owes, a byte at a time.
          const all = Buffer.concat([Buffer.from(`${GREETING}build-1\n${ARGUMENTS}`), NO_FILTERS])
          let at = 0
          timer = setInterval(
            () => socket.write(all.subarray(at++ % all.length).subarray(0, 1)),
            SIP_EVERY_MS,
          )
          return resolve()
        }
        socket.write(`${GREETING}build-1\n`)
        if (kind === 'half') return resolve()
      }
      if (kind === 'reader' && said.includes('@RSYNCD: OK\n')) {
        socket.off('data', onData)
        socket.write(Buffer.concat([Buffer.from(ARGUMENTS), NO_FILTERS, askForAll()]))
        socket.pause()
        timer = setInterval(() => socket.read(SIP_BYTES), SIP_EVERY_MS)
        resolve()
      }
    })
  })
}

/** Requests for all 400 files, which lie behind the root in the list: of each the client has nothing. */
function askForAll(): Buffer {
  const payload = Buffer.alloc(400 * 19)
  for (let n = 0; n < 400; n++) payload.set([n === 0 ? 2 : 1, 0x00, 0xa0], n * 19)
  const head = Buffer.alloc(4)
  head.writeUInt32LE(0x07000000 | payload.length)
  return Buffer.concat([head, payload])
}

const wanted: Kind[] = [
  ...Array.from({ length: readers }, () => 'reader' as const),
  ...Array.from({ length: writers }, () => 'writer' as const),
  ...Array.from({ length: half }, () => 'half' as const),
  ...Array.from({ length: halfTls }, () => 'halfTls' as const),
  ...Array.from({ length: idle }, () => 'idle' as const),
]
for (let at = 0; at < wanted.length; at += OPENED_AT_ONCE)
  await Promise.all(wanted.slice(at, at + OPENED_AT_ONCE).map((kind, i) => open(kind, at + i)))
process.stdout.write(`${JSON.stringify({ up: tally() })}\n`)

process.stdin.resume().once('end', () => {
  over = true
  process.stdout.write(`${JSON.stringify({ ...counts, held: tally() })}\n`, () => process.exit(0))
})

function tally(): Record<Kind, number> {
  const sum = { idle: 0, half: 0, halfTls: 0, reader: 0, writer: 0 }
  for (const kind of held.values()) sum[kind]++
  return sum
}
