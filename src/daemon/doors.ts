/**
 * Doors: where clients come in. Each connection becomes a Session; the door keeps count, logs how it went
 * and closes gracefully.
 */
import type { Server, Socket } from 'node:net'
import { createServer } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { formatListen, type Listen } from '../config/config.ts'
import { ConfigError, UpservError } from '../errors.ts'
import type { Logger } from '../lib/log.ts'
import { Session, type SessionContext, type SessionReport } from '../rsync/session.ts'
import { StreamDuplex } from './duplex.ts'

/** After sessions were told to end at once, how long they are waited for. */
const HANG_UP_MS = 2000

export class Doors {
  readonly #context: SessionContext
  readonly #maxSessions: number
  readonly #log: Logger
  readonly #onChange: () => void
  readonly #listeners: Server[] = []
  readonly #sessions = new Set<Promise<void>>()
  readonly #abort = new AbortController()
  #number = 0

  /**
   * @param maxSessions more than these at a time are turned away.
   * @param onChange called whenever a session begins or ends.
   */
  constructor(context: SessionContext, maxSessions: number, log: Logger, onChange: () => void = () => {}) {
    this.#maxSessions = maxSessions
    this.#context = context
    this.#log = log
    this.#onChange = onChange
  }

  get sessions(): number {
    return this.#sessions.size
  }

  /** Opens a TCP port. @returns the address that clients can connect to. */
  async listen(address: Listen): Promise<string> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
      this.admit(socket, socket, peerOf(socket)),
    )
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) => reject(cannotListen(address, cause)))
      server.listen(address.port, address.host, () => resolve())
    })
    this.#listeners.push(server)
    const bound = server.address()
    const port = typeof bound === 'object' && bound ? bound.port : address.port
    return formatListen({ host: address.host, port })
  }

  /** Serves one client on streams that are open. */
  admit(input: Readable, output: Writable, peer: string): void {
    if (this.#sessions.size >= this.#maxSessions) {
      void this.#turnAway(input, output, peer)
      return
    }
    const session = this.#serve(input, output, peer).finally(() => {
      this.#sessions.delete(session)
      this.#onChange()
    })
    this.#sessions.add(session)
    this.#onChange()
  }

  /** Takes no more clients and waits for those that are here, at most so long; then hangs up on them. */
  async close(patienceMs: number): Promise<void> {
    for (const listener of this.#listeners) listener.close()
    const gone = Promise.all(this.#sessions)
    const waiting = new AbortController()
    await Promise.race([gone, sleep(patienceMs, undefined, { signal: waiting.signal }).catch(() => {})])
    this.#abort.abort()
    // What a session still waits for, such as a disk, must not keep the server from ending.
    await Promise.race([gone, sleep(HANG_UP_MS, undefined, { signal: waiting.signal }).catch(() => {})])
    waiting.abort()
  }

  /** A greeting has to come first, or the client would not understand the rest. */
  async #turnAway(input: Readable, output: Writable, peer: string): Promise<void> {
    this.#log.warn({ peer, sessions: this.#sessions.size }, 'turned away: too many sessions')
    const duplex = new StreamDuplex(input, output)
    const message = `@ERROR: max connections (${this.#maxSessions}) reached -- try again later`
    await duplex.write(Buffer.from(`@RSYNCD: 31.0 md5\n${message}\n`)).catch(() => {})
    await duplex.close()
  }

  async #serve(input: Readable, output: Writable, peer: string): Promise<void> {
    const number = ++this.#number
    const began = this.#context.now()
    const duplex = new StreamDuplex(input, output)
    const hangUp = (): void => duplex.destroy()
    this.#abort.signal.addEventListener('abort', hangUp, { once: true })
    try {
      const session = new Session(duplex, this.#context, this.#abort.signal)
      const report = await session.run(hangUp)
      this.#report(number, peer, report, this.#context.now() - began)
      await duplex.close()
    } catch (error) {
      this.#log.error({ session: number, peer, err: error }, 'session failed')
      duplex.destroy()
    } finally {
      this.#abort.signal.removeEventListener('abort', hangUp)
    }
  }

  #report(session: number, peer: string, report: SessionReport, ms: number): void {
    const { error, figures, outcome, ...rest } = report
    const facts = { session, peer, outcome, ...rest, ...figures, ms: Math.round(ms) }
    if (outcome === 'failed') this.#log.error({ ...facts, err: error }, 'session failed')
    else if (error instanceof UpservError)
      this.#log.info({ ...facts, code: error.code, reason: error.message }, 'session ended')
    else this.#log.info(facts, 'session ended')
  }
}

function peerOf(socket: Socket): string {
  return formatListen({ host: socket.remoteAddress ?? 'unknown', port: socket.remotePort ?? 0 })
}

function cannotListen(address: Listen, cause: NodeJS.ErrnoException): ConfigError {
  const where = formatListen(address)
  if (cause.code === 'EACCES') {
    return new ConfigError(`may not listen on ${where}: ports below 1024 are for privileged processes`, {
      cause,
      hint: 'Use systemd socket activation, or another port: --rsync :8873.',
    })
  }
  if (cause.code === 'EADDRINUSE') {
    return new ConfigError(`cannot listen on ${where}: another program does`, {
      cause,
      hint: `See which: ss -ltnp 'sport = ${address.port}'`,
    })
  }
  return new ConfigError(`cannot listen on ${where}: ${cause.message}`, { cause })
}
