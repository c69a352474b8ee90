/**
 * Many connections that do nothing, or nearly: devices behind slow links, and whoever never says a word.
 * What is asked is how much memory they hold in the server.
 */
import { connect, type Socket } from 'node:net'
import type { Build } from './data.ts'
import type { Server } from './servers.ts'

/** 'idle' has read the greeting and says nothing; 'stalled' asked for a build and stops reading. */
export type Idleness = 'idle' | 'stalled'

export interface Held {
  readonly count: number
  /** Bytes: all processes of the server, before and with the connections. */
  readonly pssBefore: number
  readonly pss: number
  readonly processes: number
}

/** So many at a time: a full listen queue forgets whoever stays silent. */
const OPENED_AT_ONCE = 20

/** A connection that is never answered means that the server refuses so many. */
const ANSWER_MS = 60_000

/** What a client of protocol 31 says for `rsync -a`, without digests to negotiate: see docs/rsync-protocol.md. */
const HELLO = '@RSYNCD: 31.0\n'
const ARGUMENTS = ['--server', '--sender', '-logDtpre.iLsfxC', '.']
const NO_FILTERS = Buffer.from('0400000700000000', 'hex')

export async function holdConnections(
  { port, meter }: Server,
  build: Build,
  count: number,
  idleness: Idleness,
): Promise<Held> {
  await meter.settle()
  const { pss: pssBefore } = await meter.memory()
  const sockets: Socket[] = []
  try {
    while (sockets.length < count) {
      const opening = Math.min(OPENED_AT_ONCE, count - sockets.length)
      const opened = Array.from({ length: opening }, () => open(port, build, idleness, sockets))
      await Promise.all(opened)
    }
    await meter.settle()
    const { pss, processes } = await meter.memory()
    return { count, pssBefore, pss, processes }
  } finally {
    for (const socket of sockets) socket.destroy()
    await meter.settle()
  }
}

/** Resolves when the connection has come as far as it is to go. */
function open(port: number, { id }: Build, idleness: Idleness, sockets: Socket[]): Promise<void> {
  const socket = connect(port, '127.0.0.1')
  sockets.push(socket)
  return new Promise((resolve, reject) => {
    let said = ''
    const isUp = (): void => {
      socket.setTimeout(0)
      socket.pause()
      resolve()
    }
    socket.setTimeout(ANSWER_MS, () =>
      socket.destroy(new Error(`no answer in ${ANSWER_MS} ms after "${said}"`)),
    )
    socket.on('error', reject)
    socket.once('close', () => reject(new Error(`the server ended a connection after "${said}"`)))
    socket.on('data', (chunk) => {
      const before = said
      said += chunk.toString('latin1')
      const greets = !before.includes('\n') && said.includes('\n')
      if (greets && idleness === 'idle') isUp()
      else if (greets) socket.write(`${HELLO}build-${id}\n`)
      if (!said.includes('@RSYNCD: OK\n')) return
      socket.removeAllListeners('data')
      socket.write(`${[...ARGUMENTS, `build-${id}/root/`].join('\0')}\0\0`)
      socket.write(NO_FILTERS)
      isUp()
    })
  })
}
