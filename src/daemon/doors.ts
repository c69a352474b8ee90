/**
 * Doors: where clients come in. Each connection becomes a Session; the door keeps count, logs how it went
 * and closes gracefully.
 *
 * Handshakes are counted apart from transfers: whose turn it is to transfer is a matter of turns.ts. Where
 * there are too many handshakes, handshakes.ts says which one goes. So idle connections keep nobody out, however many
 * one address opens, and however many addresses one network has.
 *
 * A crowd may come, or go, at once: what is done for each of it is little, and is done in slices.
 */
import { createServer, type Server, type Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { idOfModule } from '../build/build-id.ts'
import type { SessionStatus } from '../build/operations.ts'
import { formatListen, type Listen } from '../config/config.ts'
import type { Doorstep } from '../doorstep/doorstep.ts'
import { ConfigError, PeerError, reportError, ServerBusy, UpservError } from '../errors.ts'
import type { SessionRecord } from '../history/session-record.ts'
import { Bandwidth } from '../lib/bandwidth.ts'
import { descriptorOf } from '../lib/descriptor.ts'
import type { Logger } from '../lib/log.ts'
import {
  formatPeer,
  type Peer,
  type Prefixes,
  peerOf,
  type Where,
  whereOf,
  whereOfProxy,
} from '../lib/peer.ts'
import { Slices } from '../lib/slices.ts'
import { Tally } from '../lib/tally.ts'
import {
  type Before,
  Session,
  type SessionContext,
  type SessionProgress,
  type SessionReport,
} from '../rsync/session.ts'
import { StreamDuplex } from './duplex.ts'
import { type Handshake, Handshakes } from './handshakes.ts'

/** After sessions were told to end at once, how long they are waited for. */
const HANG_UP_MS = 2000

/**
 * Clients that wait for their builds to be fetched, at most: each costs a socket and a few kilobytes, and
 * the same few lines a minute.
 */
const MAX_WAITING_FOR_BUILDS = 10_000

/** Clients that are being told why they can't come in, each for some seconds; more just see us hang up. */
const MAX_TURNED_AWAY = 1000

const LF = 0x0a
/** A client's greeting, and the name of a module. */
const LINES_BEFORE_LOOKING = 2
/** How long one who is turned away may take to begin. */
const LAST_WORDS_MS = 5000

export interface DoorLimits {
  /** Clients that have not asked completely yet; one more, and the oldest goes of who has the most. */
  readonly handshakes: number
  /** Connections from one address, or from one /64 of IPv6; 0 for any number. */
  readonly perSource: number
  /** Connections from one network; 0 for any number. */
  readonly perNetwork?: number
  /** Handshakes under way from one source; 0 for any number. One more, and the oldest of them goes. */
  readonly handshakesPerSource?: number
  /** The same from one network; one more, and the oldest goes of the source that has the most there. */
  readonly handshakesPerNetwork?: number
  /** What a source and a network are. */
  readonly prefixes?: Prefixes
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
  /** What all who are served share. */
  readonly bandwidth?: Bandwidth
}

/** As how many clients there may be, there are. */
interface Full {
  readonly most: number
  readonly what: string
  /** Of which ones, for the client. */
  readonly of?: string
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
  readonly #listeners: {
    readonly server: Server
    readonly tls: boolean
    readonly address: string | undefined
  }[] = []
  /** Meetings on doorsteps, as long as they last. */
  readonly #meetings = new Set<Promise<void>>()
  readonly #sessions = new Set<Promise<void>>()
  /** Who is served, the oldest first. */
  readonly #running = new Map<Session, Visit>()
  readonly #handshakes = new Handshakes()
  /** Of who is on a doorstep: the first part of their handshakes is under way. */
  readonly #arriving = new Set<Handshake>()
  /** Those whose session ends when ours does. A signal looks through all who listen for each one that begins to. */
  readonly #hangUps = new Set<() => void>()
  /** For goodbyes: what is noted of each session. */
  readonly #slices = new Slices()
  #closed = false
  #turnedAway = 0
  /** Connections of each source and network that has any. */
  readonly #counts = new Tally()
  readonly #bandwidth: Bandwidth
  readonly #abort = new AbortController()
  #next: number

  /** @param limits past those of sources and sessions one is turned away. */
  constructor(context: SessionContext, limits: DoorLimits, log: Logger, options: DoorsOptions = {}) {
    this.#limits = limits
    this.#context = context
    this.#log = log
    this.#next = options.first ?? 1
    this.#bandwidth = options.bandwidth ?? new Bandwidth()
    this.#onChange = options.onChange ?? (() => {})
    this.#onEnd = options.onEnd ?? (() => {})
  }

  get sessions(): number {
    return this.#sessions.size
  }

  /** Clients on a doorstep. */
  get arriving(): number {
    return this.#arriving.size
  }

  /** Who is served, the latest first, so many at most. */
  live(most: number, before = Number.POSITIVE_INFINITY): SessionStatus[] {
    const latest = [...this.#running]
      .filter(([, { id }]) => id < before)
      .slice(-most)
      .reverse()
    return latest.map(([session, visit]) => statusOf(visit, session.progress))
  }

  isLive(id: number): boolean {
    for (const visit of this.#running.values()) if (visit.id === id) return true
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
  async listen(address: Listen, doorstep: Doorstep): Promise<string> {
    const { port } = await this.#open(
      { host: address.host, port: address.port },
      { doorstep, address: formatListen(address) },
      (cause) => cannotListen(address, cause),
    )
    return formatListen({ host: address.host, port })
  }

  /**
   * Takes over a socket that listens already, which somebody handed us. Closing it closes our side only: who
   * connects after that waits for whoever is handed it next.
   * @param opened the address that a server before us opened it for.
   */
  async listenOn(fd: number, doorstep: Doorstep, opened?: string): Promise<string> {
    const { address, port } = await this.#open(
      { fd },
      { doorstep, address: opened },
      (cause) => new ConfigError(`descriptor ${fd} is no socket to listen on: ${cause.message}`, { cause }),
    )
    return address === undefined ? `descriptor ${fd}` : formatListen({ host: address, port })
  }

  async #open(
    where: { host: string; port: number } | { fd: number },
    { doorstep, address }: { doorstep: Doorstep; address: string | undefined },
    explain: (cause: NodeJS.ErrnoException) => ConfigError,
  ): Promise<{ address: string | undefined; port: number }> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      const peer = peerOf(socket)
      if (doorstep.hasToWait(peer)) {
        const meeting = this.#meet(socket, peer, doorstep).finally(() => this.#meetings.delete(meeting))
        this.#meetings.add(meeting)
      } else this.admit(socket, socket, peer)
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) => reject(explain(cause)))
      server.listen(where, () => resolve())
    })
    this.#listeners.push({ server, tls: doorstep.speaksTls, address })
    const bound = server.address()
    return typeof bound === 'object' && bound ? bound : { address: undefined, port: 0 }
  }

  /** The sockets that listen; without a descriptor where the runtime does not tell. */
  get listening(): { fd: number | undefined; tls: boolean; address: string | undefined }[] {
    return this.#listeners.map(({ server, tls, address }) => ({ fd: descriptorOf(server), tls, address }))
  }

  /** The number of the next session. */
  get next(): number {
    return this.#next
  }

  /** Lets a client on the doorstep say what comes before rsync. It is in its handshake, and counts as such. */
  async #meet(socket: Socket, peer: Peer, doorstep: Doorstep): Promise<void> {
    // A proxy has any number of clients: whose connection it is shows when its header is there.
    const isProxy = doorstep.isProxy(peer)
    const full = this.#whyFull(peer, isProxy)
    if (full || this.#closed) {
      // Before TLS there is no way to say why.
      if (full) this.#logTurnedAway(peer, full)
      socket.on('error', () => {}).destroy()
      return
    }
    const where = isProxy ? whereOfProxy(peer) : this.#whereFrom(peer)
    this.#makeRoom(where, isProxy)
    const began = this.#context.now()
    let gaveUp: string | undefined
    const arriving: Handshake = {
      ...where,
      giveUp: (why) => {
        gaveUp = why
        socket.destroy()
      },
    }
    this.#arriving.add(arriving)
    this.#handshakes.add(arriving)
    const uncount = isProxy ? () => {} : this.#count(where)
    const leave = (): void => {
      this.#arriving.delete(arriving)
      this.#handshakes.remove(arriving)
      uncount()
    }
    try {
      const {
        socket: inside,
        peer: who,
        refusal,
      } = await doorstep.meet(socket, this.#context.limits.handshakeMs)
      leave()
      if (gaveUp !== undefined || this.#closed) inside.destroy()
      else if (refusal) await this.#refuse(inside, inside, who, refusal)
      else this.admit(inside, inside, who, { since: began })
    } catch (error) {
      leave()
      const { code, message } = reportError(error)
      if (error instanceof PeerError) await this.#refuse(socket, socket, peer, error)
      else this.#log.info({ peer: formatPeer(peer), code, reason: gaveUp ?? message }, 'handshake failed')
    }
  }

  /** Counts a connection. @returns how to count it no more. */
  #count(where: Where): () => void {
    const keys = [where.source, where.network]
    for (const key of keys) this.#counts.add(key)
    return () => {
      for (const key of keys) this.#counts.remove(key)
    }
  }

  /**
   * Serves one client on streams that are open.
   * @param before when it came, and what it has said to a process that hands over to this one.
   */
  admit(input: Readable, output: Writable, peer: Peer, before: Before = {}): void {
    const refused = this.#whyFull(peer)
    if (refused) {
      this.#logTurnedAway(peer, refused)
      void this.#turnAway(input, output, new ServerBusy(refused.most, refused.of).message)
      return
    }
    const where = this.#whereFrom(peer)
    this.#makeRoom(where)
    const leave = this.#count(where)
    const session = this.#serve(input, output, peer, where, before).finally(() => {
      this.#sessions.delete(session)
      leave()
      this.#onChange()
    })
    this.#sessions.add(session)
    this.#onChange()
  }

  /** What a client's connections count for. */
  #whereFrom(peer: Peer): Where {
    return whereOf(peer, this.#limits.prefixes)
  }

  #whyFull(peer: Peer, isProxy = false): Full | undefined {
    const { handshakes, perSource, perNetwork = 0, inside } = this.#limits
    const { source, network } = this.#whereFrom(peer)
    if (!isProxy && perSource > 0 && this.#counts.of(source) >= perSource) {
      return { most: perSource, what: 'too many connections from this address', of: 'from your address' }
    }
    if (!isProxy && perNetwork > 0 && this.#counts.of(network) >= perNetwork) {
      return { most: perNetwork, what: 'too many connections from this network', of: 'from your network' }
    }
    const most = handshakes + inside + MAX_WAITING_FOR_BUILDS
    return this.#sessions.size >= most ? { most, what: 'too many sessions' } : undefined
  }

  /** @param isProxy it is not known yet whose handshake it is: only the bound for all together holds. */
  #makeRoom(newcomer: Where, isProxy = false): void {
    const { handshakes: all, handshakesPerSource = 0, handshakesPerNetwork = 0 } = this.#limits
    const perSource = isProxy ? 0 : handshakesPerSource
    const perNetwork = isProxy ? 0 : handshakesPerNetwork
    this.#handshakes.makeRoom(newcomer, { all, perSource, perNetwork })
  }

  /** Takes no more clients and waits for those that are here, at most so long; then hangs up on them. May be called again, to be shorter. */
  async close(patienceMs: number): Promise<void> {
    this.#closed = true
    for (const arriving of this.#arriving) arriving.giveUp('the server is stopping')
    await this.leave(patienceMs)
  }

  /** The same, when another process opens the doors from now on: who is on a doorstep is let in before. */
  async leave(patienceMs: number): Promise<void> {
    for (const { server } of this.#listeners) server.close()
    const gone = this.#gone()
    const waiting = new AbortController()
    await Promise.race([gone, sleep(patienceMs, undefined, { signal: waiting.signal }).catch(() => {})])
    this.#abort.abort()
    for (const hangUp of this.#hangUps) hangUp()
    // What a session still waits for, such as a disk, must not keep the server from ending.
    await Promise.race([gone, sleep(HANG_UP_MS, undefined, { signal: waiting.signal }).catch(() => {})])
    waiting.abort()
  }

  async #gone(): Promise<void> {
    while (this.#meetings.size + this.#sessions.size > 0)
      await Promise.all([...this.#meetings, ...this.#sessions])
  }

  #logTurnedAway(peer: Peer, { most, what }: Full): void {
    this.#log.warn({ peer: formatPeer(peer), sessions: this.#sessions.size, most }, `turned away: ${what}`)
  }

  /** Of one who has come to the doorstep and may not come in. */
  async #refuse(input: Readable, output: Writable, peer: Peer, error: UpservError): Promise<void> {
    const { code, message } = error
    this.#log.info({ peer: formatPeer(peer), ...proofOf(peer), code, reason: message }, 'turned away')
    await this.#turnAway(input, output, message)
  }

  /** A greeting has to come first, or the client would not understand the rest. */
  async #turnAway(input: Readable, output: Writable, message: string): Promise<void> {
    const duplex = new StreamDuplex(input, output)
    if (this.#turnedAway >= MAX_TURNED_AWAY) return duplex.destroy()
    this.#turnedAway++
    const timer = setTimeout(() => duplex.destroy(), LAST_WORDS_MS)
    try {
      await duplex.write(Buffer.from(`@RSYNCD: 31.0 md5\n@ERROR: ${message}\n`))
      // Clients greet and name a module before they look. A program between us, as of rsync-ssl, ends as soon
      // as we do, and a client that still writes to it fails without having read a word.
      let lines = 0
      while (lines < LINES_BEFORE_LOOKING) {
        const said = await duplex.read()
        if (!said) break
        for (const byte of said) if (byte === LF) lines++
      }
    } catch {
      // The client hung up first.
    } finally {
      clearTimeout(timer)
    }
    await duplex.close()
    this.#turnedAway--
  }

  async #serve(input: Readable, output: Writable, peer: Peer, where: Where, before: Before): Promise<void> {
    const visit = { id: this.#next++, peer, began: new Date() }
    const began = this.#context.now()
    const share = this.#bandwidth.join(where)
    const duplex = new StreamDuplex(input, output, share)
    const hangUp = (): void => duplex.destroy()
    this.#hangUps.add(hangUp)
    const { since: arrived = began } = before
    const handshake: Handshake = {
      ...where,
      giveUp: (why) => {
        session.giveUp(why)
        hangUp()
        this.#running.delete(session)
      },
    }
    const session = new Session(duplex, peer, this.#context, this.#abort.signal, {
      ...before,
      since: arrived,
      onHandshake: (isUnderWay) =>
        isUnderWay ? this.#handshakes.add(handshake) : this.#handshakes.remove(handshake),
    })
    this.#running.set(session, visit)
    try {
      const report = await session.run(hangUp)
      // Saying goodbye to a client that does not hang up is no handshake.
      this.#handshakes.remove(handshake)
      this.#running.delete(session)
      const ms = this.#context.now() - began
      await this.#slices.turn()
      if (!report.relayed) {
        this.#report(visit, report, ms)
        this.#onEnd(recordOf(visit, report, ms))
      }
      await duplex.close()
    } catch (error) {
      this.#log.error({ session: visit.id, peer: formatPeer(peer), err: error }, 'session failed')
      duplex.destroy()
    } finally {
      share.leave()
      this.#handshakes.remove(handshake)
      this.#running.delete(session)
      this.#hangUps.delete(hangUp)
    }
  }

  #report({ id: session, peer }: Visit, report: SessionReport, ms: number): void {
    const { error, figures, outcome, modules: _m, place: _p, relayed: _r, stateMs: _s, ...rest } = report
    const { costliest: _files, position: _position, ...counts } = figures
    const build = buildOf(report.modules)
    const device = peer.devices[0] ?? peer.address
    const about = {
      session,
      peer: formatPeer(peer),
      ...proofOf(peer),
      device,
      ...(build !== '' && { build }),
    }
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
      hint: 'Use systemd socket activation (upserv.socket, upserv-tls.socket), or another port: --rsync :8873, --rsync-tls :8874.',
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

/** For the log: what TLS says of a client that came by it. */
function proofOf({ tls, devices }: Peer): { tls?: true; device?: string } {
  const [device] = devices
  return { ...(tls ? { tls } : {}), ...(device === undefined ? {} : { device }) }
}

/** What is known of a session from who it is and what it is about. */
function aboutOf({ id, peer, began }: Visit, { modules, ...progress }: SessionProgress) {
  const { user, module, paths, options, protocol, state, bytesIn, bytesOut, entries, listedBytes } = progress
  const build = buildOf(modules)
  const who = { id, began: began.toISOString(), address: peer.address ?? '', port: peer.port }
  const proof = { device: peer.devices[0] ?? '', tls: peer.tls, user }
  return {
    ...who,
    ...proof,
    module,
    build,
    paths,
    options,
    protocol,
    state,
    bytesIn,
    bytesOut,
    entries,
    listedBytes,
  }
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
