/**
 * Doors: where clients come in. Each connection becomes a Session; the door keeps count, logs how it went
 * and closes gracefully.
 *
 * Handshakes are counted apart from transfers: whose turn it is to transfer is a matter of turns.ts. Where
 * there are too many handshakes, the oldest one goes of whoever has begun the most and finished none: so idle
 * connections keep nobody out, however many one address opens.
 */
import type { Server } from 'node:net'
import { createServer } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { idOfModule } from '../build/build-id.ts'
import type { SessionStatus } from '../build/operations.ts'
import { formatListen, type Listen } from '../config/config.ts'
import { ConfigError, type Visit as EarlierVisit, reportError, ServerBusy, UpservError } from '../errors.ts'
import type { SessionRecord } from '../history/session-record.ts'
import { descriptorOf } from '../lib/descriptor.ts'
import type { Logger } from '../lib/log.ts'
import { formatPeer, type Peer, peerFrom, sourceOf } from '../lib/peer.ts'
import { Session, type SessionContext, type SessionProgress, type SessionReport } from '../rsync/session.ts'
import { StreamDuplex } from './duplex.ts'

/** After sessions were told to end at once, how long they are waited for. */
const HANG_UP_MS = 2000

/**
 * Clients that wait for their builds to be fetched, at most: each costs a socket and a few kilobytes, and
 * the same few lines a minute.
 */
const MAX_WAITING_FOR_BUILDS = 10_000

/** Clients that are being told why they can't come in, each for some seconds; more just see us hang up. */
const MAX_TURNED_AWAY = 1000

export interface DoorLimits {
  /** Clients that have not asked completely yet; one more, and the oldest goes of who has the most. */
  readonly handshakes: number
  /** Connections from one address, or from one /64 of IPv6; 0 for any number. */
  readonly perSource: number
  /** Those who transfer, or wait in line for it. */
  readonly inside: number
}

export interface DoorsOptions {
  /** The first session's number. */
  readonly first?: number
  /** Called whenever a session begins or ends. */
  readonly onChange?: () => void
  /** Told how each session went. */
  readonly onEnd?: (record: SessionRecord) => void
}

/** Which session it is. */
interface Visit {
  readonly id: number
  readonly peer: Peer
  /** By the clock on the wall. */
  readonly began: Date
}

export class Doors {
  #context: SessionContext
  #limits: DoorLimits
  readonly #log: Logger
  readonly #onChange: () => void
  readonly #onEnd: (record: SessionRecord) => void
  readonly #listeners: Server[] = []
  readonly #sessions = new Set<Promise<void>>()
  /** Who is served, the oldest first. */
  readonly #running = new Map<Session, { readonly visit: Visit; readonly source: string; hangUp(): void }>()
  #turnedAway = 0
  readonly #bySource = new Map<string, number>()
  readonly #abort = new AbortController()
  #next: number

  /** @param limits past those of sources and sessions one is turned away. */
  constructor(context: SessionContext, limits: DoorLimits, log: Logger, options: DoorsOptions = {}) {
    this.#limits = limits
    this.#context = context
    this.#log = log
    this.#next = options.first ?? 1
    this.#onChange = options.onChange ?? (() => {})
    this.#onEnd = options.onEnd ?? (() => {})
  }

  get sessions(): number {
    return this.#sessions.size
  }

  /** Who is served, the latest first, so many at most. */
  live(most: number): SessionStatus[] {
    const latest = [...this.#running].slice(-most).reverse()
    return latest.map(([session, { visit }]) => statusOf(visit, session.progress))
  }

  isLive(id: number): boolean {
    for (const { visit } of this.#running.values()) if (visit.id === id) return true
    return false
  }

  /** What all who are served have been sent so far. */
  sent(): { bytesOut: number; contentBytes: number } {
    const sum = { bytesOut: 0, contentBytes: 0 }
    for (const session of this.#running.keys()) {
      const { bytesOut, contentBytes } = session.sent
      sum.bytesOut += bytesOut
      sum.contentBytes += contentBytes
    }
    return sum
  }

  /** What holds for sessions that begin from now on. */
  change(context: Partial<SessionContext>, limits: DoorLimits): void {
    this.#context = { ...this.#context, ...context }
    this.#limits = limits
  }

  /** Opens a TCP port. @returns the address that clients can connect to. */
  async listen(address: Listen): Promise<string> {
    const { port } = await this.#open({ host: address.host, port: address.port }, (cause) =>
      cannotListen(address, cause),
    )
    return formatListen({ host: address.host, port })
  }

  /**
   * Takes over a socket that listens already, which somebody handed us. Closing it closes our side only: who
   * connects after that waits for whoever is handed it next.
   */
  async listenOn(fd: number): Promise<string> {
    const { address, port } = await this.#open(
      { fd },
      (cause) => new ConfigError(`descriptor ${fd} is no socket to listen on: ${cause.message}`, { cause }),
    )
    return address === undefined ? `descriptor ${fd}` : formatListen({ host: address, port })
  }

  async #open(
    where: { host: string; port: number } | { fd: number },
    explain: (cause: NodeJS.ErrnoException) => ConfigError,
  ): Promise<{ address: string | undefined; port: number }> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
      this.admit(socket, socket, peerFrom(socket.remoteAddress, socket.remotePort)),
    )
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) => reject(explain(cause)))
      server.listen(where, () => resolve())
    })
    this.#listeners.push(server)
    const bound = server.address()
    return typeof bound === 'object' && bound ? bound : { address: undefined, port: 0 }
  }

  /** Descriptors of the sockets that listen; undefined where the runtime does not tell. */
  get listening(): (number | undefined)[] {
    return this.#listeners.map(descriptorOf)
  }

  /** The number of the next session. */
  get next(): number {
    return this.#next
  }

  /**
   * Serves one client on streams that are open.
   * @param visit what it has said already, to a process that hands over to this one.
   */
  admit(input: Readable, output: Writable, peer: Peer, visit?: EarlierVisit): void {
    const refused = this.#whyFull(peer)
    if (refused) {
      void this.#turnAway(input, output, peer, refused)
      return
    }
    this.#makeRoom()
    const source = sourceOf(peer)
    this.#bySource.set(source, (this.#bySource.get(source) ?? 0) + 1)
    const session = this.#serve(input, output, peer, visit).finally(() => {
      this.#sessions.delete(session)
      const left = this.#bySource.get(source)! - 1
      if (left > 0) this.#bySource.set(source, left)
      else this.#bySource.delete(source)
      this.#onChange()
    })
    this.#sessions.add(session)
    this.#onChange()
  }

  #whyFull(peer: Peer): { most: number; what: string } | undefined {
    const { handshakes, perSource, inside } = this.#limits
    if (perSource > 0 && (this.#bySource.get(sourceOf(peer)) ?? 0) >= perSource) {
      return { most: perSource, what: 'too many connections from this address' }
    }
    const most = handshakes + inside + MAX_WAITING_FOR_BUILDS
    return this.#sessions.size >= most ? { most, what: 'too many sessions' } : undefined
  }

  /** Hangs up on one handshake if there are as many as may be, so that somebody else can begin one. */
  #makeRoom(): void {
    let count = 0
    const bySource = new Map<string, Session[]>()
    for (const [session, { source }] of this.#running) {
      if (!session.inHandshake) continue
      count++
      const theirs = bySource.get(source)
      if (theirs) theirs.push(session)
      else bySource.set(source, [session])
    }
    if (count < this.#limits.handshakes) return
    let most: readonly Session[] = []
    for (const theirs of bySource.values()) if (theirs.length > most.length) most = theirs
    const [oldest] = most
    const running = oldest && this.#running.get(oldest)
    if (!running) return
    oldest.giveUp(`too many handshakes: of ${count}, ${most.length} were from this address`)
    running.hangUp()
    this.#running.delete(oldest)
  }

  /** Takes no more clients and waits for those that are here, at most so long; then hangs up on them. May be called again, to be shorter. */
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
  async #turnAway(
    input: Readable,
    output: Writable,
    peer: Peer,
    { most, what }: { most: number; what: string },
  ): Promise<void> {
    this.#log.warn({ peer: formatPeer(peer), sessions: this.#sessions.size, most }, `turned away: ${what}`)
    const duplex = new StreamDuplex(input, output)
    if (this.#turnedAway >= MAX_TURNED_AWAY) return duplex.destroy()
    this.#turnedAway++
    const { message } = new ServerBusy(most)
    await duplex.write(Buffer.from(`@RSYNCD: 31.0 md5\n@ERROR: ${message}\n`)).catch(() => {})
    await duplex.close()
    this.#turnedAway--
  }

  async #serve(input: Readable, output: Writable, peer: Peer, before?: EarlierVisit): Promise<void> {
    const visit = { id: this.#next++, peer, began: new Date() }
    const began = this.#context.now()
    const duplex = new StreamDuplex(input, output)
    const hangUp = (): void => duplex.destroy()
    this.#abort.signal.addEventListener('abort', hangUp, { once: true })
    const session = new Session(duplex, peer, this.#context, this.#abort.signal, before)
    this.#running.set(session, { visit, source: sourceOf(peer), hangUp })
    try {
      const report = await session.run(hangUp)
      // Saying goodbye to a client that does not hang up is no handshake.
      this.#running.delete(session)
      const ms = this.#context.now() - began
      if (!report.relayed) {
        this.#report(visit, report, ms)
        this.#onEnd(recordOf(visit, report, ms))
      }
      await duplex.close()
    } catch (error) {
      this.#log.error({ session: visit.id, peer: formatPeer(peer), err: error }, 'session failed')
      duplex.destroy()
    } finally {
      this.#running.delete(session)
      this.#abort.signal.removeEventListener('abort', hangUp)
    }
  }

  #report({ id: session, peer }: Visit, report: SessionReport, ms: number): void {
    const { error, figures, outcome, modules: _m, place: _p, relayed: _r, stateMs: _s, ...rest } = report
    const { costliest: _files, position: _position, ...counts } = figures
    const build = buildOf(report.modules)
    const about = { session, peer: formatPeer(peer), device: peer.address, ...(build !== '' && { build }) }
    const facts = { ...about, outcome, ...rest, ...counts, ms: Math.round(ms) }
    if (outcome === 'failed') this.#log.error({ ...facts, err: error }, 'session failed')
    else if (error instanceof UpservError)
      this.#log.info({ ...facts, code: error.code, reason: error.message }, 'session ended')
    else this.#log.info(facts, 'session ended')
  }
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

/** The build that a session is about; '' for none. */
function buildOf(modules: readonly string[]): string {
  return modules.map(idOfModule).findLast((held) => held !== undefined) ?? ''
}

/** What is known of a session from who it is and what it is about. */
function aboutOf({ id, peer, began }: Visit, { modules, ...progress }: SessionProgress) {
  const { user, module, paths, options, protocol, state, bytesIn, bytesOut, entries, listedBytes } = progress
  const build = buildOf(modules)
  const who = { id, began: began.toISOString(), address: peer.address ?? '', port: peer.port, user }
  return { ...who, module, build, paths, options, protocol, state, bytesIn, bytesOut, entries, listedBytes }
}

function statusOf(visit: Visit, progress: SessionProgress): SessionStatus {
  const { place, entries, figures } = progress
  const { files, matchedBytes, literalBytes, position } = figures
  const done = entries > 0 ? position / entries : null
  return { ...aboutOf(visit, progress), place, progress: done, files, matchedBytes, literalBytes }
}

function recordOf(visit: Visit, report: SessionReport, ms: number): SessionRecord {
  const { codec, digest, outcome, error, waitedMs, stateMs, figures } = report
  const { position: _position, ...counts } = figures
  const { code, message } = error === undefined ? { code: '', message: '' } : reportError(error)
  return {
    ...aboutOf(visit, report),
    ended: new Date(visit.began.getTime() + ms).toISOString(),
    ...{ codec, digest, outcome, code, reason: message, waitedMs },
    ms: Math.round(ms),
    stateMs: Object.fromEntries(Object.entries(stateMs).map(([state, took]) => [state, Math.round(took)])),
    ...counts,
  }
}
