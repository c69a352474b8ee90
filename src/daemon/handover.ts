/**
 * How a server hands over to another process of the same program, as it is installed by now, so that neither those
 * it serves nor those who come notice: for upgrades, and for settings that take a restart.
 *
 *     the process before                                    its successor
 *     starts it, with the sockets that listen, the lock
 *     of the data directory, and one end of a channel
 *                                                    ready  has read its configuration; waits
 *     stops fetching and writing
 *     yours: what it has to know                            opens the data directory and all doors; who comes waits,
 *                                                           and nothing is fetched, published or removed
 *                                                  serving
 *     takes no more clients, finishes those that it has
 *     (freed, ended, fetched, changed, live)                holds their builds, remembers what they did
 *     ends
 *
 * Until "serving" the process before can take everything back, and does when its successor ends or is silent. The
 * lock is one open file that both have, so it is never free in between. Lines of JSON on a socket pair that only the
 * two of us have; what one side does not know it passes over, as the other may be of another version.
 */
import { spawn } from 'node:child_process'
import { Socket } from 'node:net'
import { createInterface } from 'node:readline'
import type { SessionStatus } from '../build/operations.ts'
import { formatListen, type Listen } from '../config/config.ts'
import { CommandError, ConfigError, HandoverFailed } from '../errors.ts'
import type { ChangeRecord } from '../history/change-record.ts'
import type { FetchEnd } from '../history/fetch-record.ts'
import type { Recorder } from '../history/recorder.ts'
import type { SessionRecord } from '../history/session-record.ts'

/** Names it to the successor: which descriptor is what. */
const VARIABLE = 'UPSERV_HANDOVER'
/** Descriptors that a program has anyway. */
const FIRST_FD = 3
/** To load the program and read a configuration. */
const READY_MS = 60_000
/** To open a large store on a slow disk: clients wait meanwhile, and most wait longer than this. */
const SERVING_MS = 120_000

/** A socket that listens. */
export interface InheritedSocket {
  kind: 'rsync' | 'rsync-tls' | 'http' | 'https'
  fd: number
  /** The address that it was opened for, as the configuration had it. Undefined: systemd opened it. */
  address?: string | undefined
}

/** What a successor has to know. */
export interface Legacy {
  /** The number of its first session. */
  firstSession: number
  /** Builds that sessions of the process before hold on to. */
  held: string[]
  /** Builds whose fetches it has stopped, to be gone on with. */
  fetching: string[]
  /** Who it is. */
  pid: number
  version: string
}

type FromOld =
  | ({ type: 'yours' } & Legacy)
  | { type: 'freed'; id: string }
  | { type: 'ended'; record: SessionRecord }
  | { type: 'fetched'; end: FetchEnd }
  | { type: 'changed'; change: Omit<ChangeRecord, 'id'> }
  | { type: 'live'; sessions: SessionStatus[] }
type FromNew =
  | { type: 'ready'; pid: number; version: string }
  | { type: 'serving' }
  | { type: 'failed'; reason: string; hint?: string | undefined }
  | { type: 'stop' }

/** One end of the channel. */
class Channel<In extends { type: string }, Out> {
  /** Resolves when the other end is gone. */
  readonly closed: Promise<void>
  readonly #socket: Socket

  constructor(socket: Socket, onMessage: (message: In) => void) {
    this.#socket = socket
    // That it broke shows by its end. (`once` of node:events would take the error for it, and reject.)
    socket.on('error', () => {})
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()))
    const lines = createInterface({ input: socket })
    // It tells of the socket's errors again: of a process that is killed before it has read what we said.
    lines.on('error', () => {})
    lines.on('line', (line) => {
      const message = parseLine<In>(line)
      if (message) onMessage(message)
    })
  }

  get isOpen(): boolean {
    return !this.#socket.destroyed
  }

  send(message: Out): void {
    if (this.#socket.writable) this.#socket.write(`${JSON.stringify(message)}\n`)
  }

  close(): void {
    this.#socket.destroy()
  }
}

/** Undefined for the piece of a line that a process leaves behind which is killed. */
function parseLine<T>(line: string): T | undefined {
  try {
    return JSON.parse(line) as T
  } catch {
    return undefined
  }
}

// ---------------------------------------------------------------------------------------------------
// The process before.

export interface SuccessorOptions {
  sockets: readonly InheritedSocket[]
  /** The file of the data directory's lock. */
  lock: number
  environment: NodeJS.ProcessEnv
  /** Told when the successor is told to stop: so are we then. */
  onStop: () => void
}

/** The process that is about to take our place, or has: what happens here it remembers. */
export class Successor implements Recorder {
  readonly pid: number
  readonly version: string
  readonly #channel: Channel<FromNew, FromOld>
  readonly #serving: Promise<void>

  private constructor(
    channel: Channel<FromNew, FromOld>,
    { pid, version }: { pid: number; version: string },
    serving: Promise<void>,
  ) {
    this.#channel = channel
    this.#serving = serving
    this.pid = pid
    this.version = version
  }

  /** Starts one as we were started. @throws CommandError when it does not come up to "ready". */
  static async start({ sockets, lock, environment, onStop }: SuccessorOptions): Promise<Successor> {
    const fds = [...sockets.map(({ fd }) => fd), lock]
    const handed: Handed = {
      sockets: sockets.map((socket, i) => ({ ...socket, fd: FIRST_FD + i })),
      lock: FIRST_FD + sockets.length,
      channel: FIRST_FD + fds.length,
    }
    // By way of a process that ends at once: so it is no child of ours, and systemd, which takes in the orphan,
    // hears of its end.
    const program = [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
    const child = spawn('setsid', ['--fork', ...program], {
      stdio: ['ignore', 'inherit', 'inherit', ...fds, 'pipe'],
      env: { ...environment, [VARIABLE]: JSON.stringify(handed) },
    })
    const ready = Promise.withResolvers<{ pid: number; version: string }>()
    const serving = Promise.withResolvers<void>()
    // Told of by whichever of them is waited for.
    ready.promise.catch(() => {})
    serving.promise.catch(() => {})
    const fail = (reason: string, hint?: string): void => {
      const error = new HandoverFailed(reason, hint)
      ready.reject(error)
      serving.reject(error)
    }
    child.once('error', (error) => fail(error.message))
    const channel = new Channel<FromNew, FromOld>(child.stdio[handed.channel] as Socket, (message) => {
      if (message.type === 'ready') ready.resolve(message)
      else if (message.type === 'serving') serving.resolve()
      else if (message.type === 'failed') fail(message.reason, message.hint)
      else if (message.type === 'stop') onStop()
    })
    void channel.closed.then(() => fail('it ended'))
    try {
      return new Successor(channel, await within(READY_MS, ready.promise), serving.promise)
    } catch (error) {
      channel.close()
      throw error
    }
  }

  /** It may begin. Resolves when it serves; from then on there is no way back. @throws CommandError */
  async takeOver(legacy: Legacy): Promise<void> {
    this.#channel.send({ type: 'yours', ...legacy })
    await within(SERVING_MS, this.#serving)
  }

  /** Nobody here holds on to that build any more. */
  freed(id: string): void {
    this.#channel.send({ type: 'freed', id })
  }

  session(record: SessionRecord): void {
    this.#channel.send({ type: 'ended', record })
  }

  fetch(end: FetchEnd): void {
    this.#channel.send({ type: 'fetched', end })
  }

  change(change: Omit<ChangeRecord, 'id'>): void {
    this.#channel.send({ type: 'changed', change })
  }

  /** Whom we still serve. */
  live(sessions: SessionStatus[]): void {
    this.#channel.send({ type: 'live', sessions })
  }

  /** Says no more. */
  close(): void {
    this.#channel.close()
  }

  /**
   * Ends it, wherever it is. Resolves when it has ended, however long that takes: as long as it may write to the data
   * directory nobody else can.
   */
  async end(): Promise<void> {
    if (!this.#channel.isOpen) return
    try {
      process.kill(this.pid, 'SIGKILL')
    } catch (error) {
      // It has ended by itself, which is about to show.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
    await this.#channel.closed
  }
}

async function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    reject(new HandoverFailed(`it was silent for ${ms / 1000} s`))
  }, ms)
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

// ---------------------------------------------------------------------------------------------------
// Its successor.

/** What to do about the doors of one kind. */
export interface Doorways {
  take: InheritedSocket[]
  open: Listen[]
  /** Nobody would take clients from these any more. */
  close: InheritedSocket[]
}

/**
 * Goes by the configuration as a restart would: what it names listens already or is opened, what it does not name is
 * closed. Sockets of systemd stay, and then nothing else is opened.
 */
export function doorwaysOf(inherited: readonly InheritedSocket[], named: readonly Listen[]): Doorways {
  const foreign = inherited.filter(({ address }) => address === undefined)
  const own = inherited.filter(({ address }) => address !== undefined)
  const doorways: Doorways = { take: foreign, open: [], close: own }
  if (foreign.length > 0) return doorways
  for (const listen of named) {
    const found = own.findIndex(({ address }) => address === formatListen(listen))
    if (found >= 0) doorways.take.push(...own.splice(found, 1))
    else doorways.open.push(listen)
  }
  return doorways
}

/** How doors of one kind are opened. */
export interface DoorKind {
  doorways: Pick<Doorways, 'take' | 'open'>
  open(address: Listen): Promise<unknown>
  take(socket: Pick<InheritedSocket, 'fd' | 'address'>): Promise<unknown>
}

/**
 * Opens what can fail first: a client that comes in by a socket which listens already would be hung up on, and the
 * server before us had served it.
 * @param inherited all sockets of that server.
 */
export async function openDoors(
  kinds: readonly DoorKind[],
  inherited: readonly InheritedSocket[],
): Promise<void> {
  for (const { doorways, open } of kinds)
    for (const address of doorways.open)
      await open(address).catch((error: Error) => {
        throw whoListens(error, address, inherited) ?? error
      })
  for (const { doorways, take } of kinds) for (const socket of doorways.take) await take(socket)
}

/** Of an address that can't be opened as the server before us listens there, though on another one. */
function whoListens(
  { cause }: Error,
  address: Listen,
  inherited: readonly InheritedSocket[],
): ConfigError | undefined {
  if ((cause as NodeJS.ErrnoException | undefined)?.code !== 'EADDRINUSE') return undefined
  const before = inherited.find((socket) => socket.address?.endsWith(`:${address.port}`))
  if (!before) return undefined
  const where = formatListen(address)
  return new ConfigError(
    `cannot listen on ${where}: the server before this one listens on ${before.address}, and does until it ends`,
    { cause, hint: 'A handover cannot change that: restart the server.' },
  )
}

interface Handed {
  sockets: InheritedSocket[]
  lock: number
  channel: number
}

/** The process that hands over to us. */
export class Predecessor {
  readonly sockets: readonly InheritedSocket[]
  readonly lock: number
  /** Whom it still serves. */
  live: readonly SessionStatus[] = []
  /** Resolves when it has ended. */
  readonly gone: Promise<void>
  readonly #channel: Channel<FromOld, FromNew>
  readonly #legacy = Promise.withResolvers<Legacy>()
  /** What is done about what it tells. */
  #tell: ((message: FromOld) => void) | undefined
  readonly #early: FromOld[] = []

  private constructor({ sockets, lock, channel }: Handed) {
    this.sockets = sockets
    this.lock = lock
    this.#legacy.promise.catch(() => {})
    this.#channel = new Channel(new Socket({ fd: channel }), (message) => {
      if (message.type === 'yours') this.#legacy.resolve(message)
      else if (this.#tell) this.#tell(message)
      else this.#early.push(message)
    })
    this.gone = this.#channel.closed.then(() => {
      this.live = []
      this.#legacy.reject(new CommandError('the process before took back what it was about to hand over'))
    })
  }

  /** Undefined where nobody hands over to us. Taken once: programs that we start must not think they were meant. */
  static take(environment: NodeJS.ProcessEnv): Predecessor | undefined {
    const handed = environment[VARIABLE]
    delete environment[VARIABLE]
    return handed === undefined ? undefined : new Predecessor(JSON.parse(handed) as Handed)
  }

  /** We could begin. @returns when the data directory is ours. @throws CommandError when it will not be. */
  async ready(version: string): Promise<Legacy> {
    this.#channel.send({ type: 'ready', pid: process.pid, version })
    return await this.#legacy.promise
  }

  /**
   * Hears what it does.
   * @param onFree is told of each build that it does not hold on to any more.
   * @param recorder is told what it would have remembered.
   */
  listen(onFree: (id: string) => void, recorder: Recorder): void {
    this.#tell = (message) => {
      if (message.type === 'freed') onFree(message.id)
      else if (message.type === 'ended') recorder.session(message.record)
      else if (message.type === 'fetched') recorder.fetch(message.end)
      else if (message.type === 'changed') recorder.change(message.change)
      else if (message.type === 'live') this.live = message.sessions
    }
    for (const message of this.#early.splice(0)) this.#tell(message)
  }

  /** From now on clients are ours. */
  serving(): void {
    this.#channel.send({ type: 'serving' })
  }

  /** @param hint what to do about it. */
  failed(reason: string, hint?: string): void {
    this.#channel.send({ type: 'failed', reason, hint })
  }

  /** It has as long as a server that is told to stop. */
  stop(): void {
    this.#channel.send({ type: 'stop' })
  }
}
