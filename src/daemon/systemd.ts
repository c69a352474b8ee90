/**
 * What systemd and its services say to each other: sockets that it opened for us, and in return that we are
 * ready, alive, reloading or about to end. Both are environment variables; without them nothing happens here.
 *
 * Node cannot send a datagram to a Unix socket, so systemd's own `systemd-notify` does: it is there wherever
 * systemd is, and it waits until systemd has read what it sent. Its process is not ours, hence
 * `NotifyAccess=all` in the unit. A watchdog's sign of life comes from the event loop's timer, so it stops
 * when the loop does.
 */
import { execFile } from 'node:child_process'
import { ConfigError } from '../errors.ts'

/** The first descriptor that is handed over: SD_LISTEN_FDS_START of sd_listen_fds(3). */
const FIRST_FD = 3
/** More is no configuration that anybody made on purpose. */
const MAX_SOCKETS = 64
/** Names of sockets that carry rsync: ours, and what systemd calls those that nobody has named. */
const RSYNC_NAMES = ['rsync', 'upserv.socket', 'unknown', '']
/** Of those that carry it over TLS. */
const RSYNC_TLS_NAMES = ['rsync-tls', 'upserv-tls.socket']
/** As often within the time after which systemd takes us for dead, so that one that comes late does no harm. */
const SIGNS_OF_LIFE = 3
/** systemd-notify answers in milliseconds; a systemd that is stuck must not keep us. */
const NOTIFY_TIMEOUT_MS = 10_000

/** A listening socket that carries rsync. */
export interface HandedSocket {
  readonly fd: number
  readonly tls: boolean
}

/**
 * The listening sockets that carry rsync. They are taken once: programs that we start must
 * not think they were meant.
 * @throws ConfigError for a socket whose name says that it is for something that we don't do.
 */
export function takeSockets(environment: NodeJS.ProcessEnv, pid: number): HandedSocket[] {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = environment
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'LISTEN_PIDFDID'])
    delete environment[name]
  // Meant for another process, which left it in the environment when it started us.
  if (LISTEN_PID === undefined || Number(LISTEN_PID) !== pid) return []
  const count = Number(LISTEN_FDS)
  if (!Number.isInteger(count) || count < 0 || count > MAX_SOCKETS) {
    throw new ConfigError(`LISTEN_FDS is "${LISTEN_FDS}": that is no number of sockets`)
  }
  const names = LISTEN_FDNAMES?.split(':') ?? []
  return Array.from({ length: count }, (_, index) => {
    const name = names[index] ?? ''
    const tls = RSYNC_TLS_NAMES.includes(name)
    if (!tls && !RSYNC_NAMES.includes(name)) {
      throw new ConfigError(`systemd hands over a socket named "${name}", and upserv knows no use for it`, {
        hint: 'Set FileDescriptorName=rsync or rsync-tls in the socket unit, or remove it.',
      })
    }
    return { fd: FIRST_FD + index, tls }
  })
}

/** Tells the service manager how we are. Without one, every call does nothing. */
export class ServiceManager {
  readonly #environment: NodeJS.ProcessEnv | undefined
  readonly #watchdogMs: number
  readonly #onProblem: (problem: Error) => void
  /** One after the other, so that they arrive in order. */
  #sending: Promise<void> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined

  /** Takes what concerns it out of the environment. @param onProblem told once why nothing can be sent. */
  constructor(environment: NodeJS.ProcessEnv, pid: number, onProblem: (problem: Error) => void) {
    const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = environment
    for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete environment[name]
    this.#environment = NOTIFY_SOCKET ? { ...environment, NOTIFY_SOCKET } : undefined
    const isOurs = WATCHDOG_PID === undefined || Number(WATCHDOG_PID) === pid
    const microseconds = isOurs ? Number(WATCHDOG_USEC) : 0
    this.#watchdogMs = microseconds > 0 ? microseconds / 1000 / SIGNS_OF_LIFE : 0
    this.#onProblem = onProblem
  }

  /** Clients can connect. From now on there are signs of life. */
  async ready(status: string): Promise<void> {
    await this.#send('READY=1', `STATUS=${status}`)
    if (this.#watchdogMs > 0 && this.#environment) {
      this.#timer ??= setInterval(() => void this.#send('WATCHDOG=1'), this.#watchdogMs)
    }
  }

  /** The configuration is being read again; `ready` says that it is done. */
  async reloading(): Promise<void> {
    await this.#send('RELOADING=1')
  }

  /** The environment for a process that is to take our place. */
  get inheritance(): NodeJS.ProcessEnv {
    if (!this.#environment) return process.env
    const microseconds = Math.round(this.#watchdogMs * SIGNS_OF_LIFE * 1000)
    return { ...this.#environment, ...(microseconds > 0 && { WATCHDOG_USEC: String(microseconds) }) }
  }

  /** Another process is the service from now on. Its end is the service's, and ours is not. */
  async handedOver(pid: number): Promise<void> {
    this.close()
    await this.#send(`MAINPID=${pid}`)
  }

  /** Sessions are given time to end, so we may not be killed before that. */
  async stopping(withinMs: number): Promise<void> {
    const microseconds = Math.ceil(withinMs) * 1000
    await this.#send('STOPPING=1', `EXTEND_TIMEOUT_USEC=${microseconds}`, 'STATUS=letting sessions end')
  }

  /** No more signs of life. */
  close(): void {
    clearInterval(this.#timer)
  }

  #send(...assignments: readonly string[]): Promise<void> {
    const env = this.#environment
    if (!env) return Promise.resolve()
    this.#sending = this.#sending.then(
      () =>
        new Promise((resolve) => {
          execFile('systemd-notify', assignments, { env, timeout: NOTIFY_TIMEOUT_MS }, (error) => {
            if (error) this.#onProblem(error)
            resolve()
          })
        }),
    )
    return this.#sending
  }
}
