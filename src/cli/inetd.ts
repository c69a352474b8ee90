/**
 * `upserv server`: one connection on stdin and stdout, as xinetd and inetd start it.
 *
 * One process owns the data directory, so that a fleet's work is done once: this one hands its connection
 * to the owner through the control socket, byte by byte. When there is no owner it starts one, which ends
 * by itself when nobody has needed it for a while.
 */
import { spawn } from 'node:child_process'
import { closeSync, fstatSync, mkdirSync, openSync, renameSync, statSync } from 'node:fs'
import { Socket } from 'node:net'
import { resolve } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Config, Flags } from '../config/config.ts'
import { connectControl, requestRsync } from '../daemon/control.ts'
import { StreamDuplex } from '../daemon/duplex.ts'
import { StoreError } from '../errors.ts'
import { type Peer, peerFrom, UNKNOWN_PEER } from '../lib/peer.ts'
import { DIRECTORY_MODE, FILE_MODE, StorePaths } from '../store/paths.ts'
import { EXIT } from './exit.ts'
import { becomeOwner } from './owner.ts'

/** How long an owner that we started stays without anything to do. */
const OWNER_IDLE_SECONDS = 600
/** How long we wait for an owner to open its socket. */
const OWNER_STARTS_MS = 20_000
const RETRY_MS = 50
/** Some fifty thousand sessions. Nobody else looks after this file: it lies in the data directory. */
const NEW_LOG_FROM = 16 * 2 ** 20
/** How long after one that found another owner a new one is tried. */
const START_AGAIN_MS = 500

export async function runInetd(load: () => Config, flags: Flags): Promise<void> {
  const { input, output, peer } = standardStreams()
  let owner: Socket
  try {
    owner = await connectOwner(load(), flags, peer)
  } catch (error) {
    // The client waits for a greeting: without one it would only say that it saw none.
    const client = new StreamDuplex(input, output)
    const reason = (error as Error).message.replaceAll('\n', ' ')
    await client.write(Buffer.from(`@RSYNCD: 31.0 md5\n@ERROR: ${reason}\n`)).catch(() => undefined)
    await client.close()
    throw error
  }
  // Each direction ends by itself: a client may have said all and still listen.
  await Promise.allSettled([pipeline(input, owner), pipeline(owner, output)])
}

/** A connection to an owner that has begun to serve it: one may end by itself just as we come. */
async function connectOwner(config: Config, flags: Flags, peer: Peer): Promise<Socket> {
  const deadline = Date.now() + OWNER_STARTS_MS
  for (;;) {
    const owner = await findOwner(config, flags, deadline)
    requestRsync(owner, peer)
    if (await speaks(owner)) return owner
    owner.destroy()
  }
}

/** Whether anything comes: a server greets first, whatever its client says. */
function speaks(owner: Socket): Promise<boolean> {
  return new Promise((settle) => {
    owner.once('readable', () => settle(owner.readableLength > 0))
    owner.once('error', () => settle(false))
    owner.once('close', () => settle(false))
  })
}

async function findOwner(config: Config, flags: Flags, deadline: number): Promise<Socket> {
  const paths = new StorePaths(config.dataDir)
  let start: OwnerStart | undefined
  for (;;) {
    const owner = await connectControl(paths.socket)
    if (owner) return owner
    // When another one was there, it either opens its socket soon or was about to end: then it is our turn.
    const again = start?.outcome === 'another' && Date.now() - start.at > START_AGAIN_MS
    becomeOwner(config.dataDir)
    if (!start || again) start = startOwner(config, flags)
    if (start.outcome === 'failed' || Date.now() > deadline) {
      throw new StoreError(`no upserv could be started on ${config.dataDir}`, {
        hint: `See ${logFile(config)}.`,
      })
    }
    await sleep(RETRY_MS)
  }
}

interface OwnerStart {
  at: number
  /** Undefined while it runs. */
  outcome: 'another' | 'failed' | undefined
}

function startOwner(config: Config, flags: Flags): OwnerStart {
  let log: number
  try {
    mkdirSync(config.dataDir, { recursive: true, mode: DIRECTORY_MODE })
    log = openLog(logFile(config))
  } catch (cause) {
    throw new StoreError(`the data directory cannot be written: ${(cause as Error).message}`, { cause })
  }
  const idleSeconds = config.exitWhenIdleMs > 0 ? config.exitWhenIdleMs / 1000 : OWNER_IDLE_SECONDS
  const configFile = flags.config ?? process.env.UPSERV_CONFIG
  const args = [
    ...['serve', '--data', config.dataDir, '--rsync', 'off', '--rsync-tls', 'off'],
    ...['--http', 'off', '--https', 'off'],
    ...['--exit-when-idle', String(idleSeconds)],
    ...(configFile === undefined ? [] : ['--config', resolve(configFile)]),
  ]
  // A whole school that connects at once must not start as many owners, all but one of which would find
  // the store's lock taken. flock(1) finds that out without starting node, and becomes it with --no-fork.
  const alone = [
    '--nonblock',
    '--no-fork',
    '--conflict-exit-code',
    String(EXIT.unavailable),
    startLock(config),
  ]
  const start: OwnerStart = { at: Date.now(), outcome: undefined }
  const child = spawn('flock', [...alone, process.execPath, ...process.execArgv, process.argv[1]!, ...args], {
    detached: true,
    stdio: ['ignore', 'ignore', log],
    cwd: '/',
  })
  child.once('error', () => {
    start.outcome = 'failed'
  })
  child.once('exit', (code) => {
    start.outcome = code === EXIT.unavailable || code === EXIT.ok ? 'another' : 'failed'
  })
  child.unref()
  closeSync(log)
  return start
}

/** Locked by the owner that one of us started. Hidden, as it is not the store's. */
function startLock(config: Config): string {
  return `${config.dataDir}/.upserv.start`
}

/**
 * Opened to add to it; a new one is begun where it has become large, and the one before is kept. Whoever comes a moment
 * later finds another file under that name than it has looked at, and leaves it. (Two in the very same instant may still
 * put the new one in the place of the old one: then what is lost is a log.)
 */
function openLog(path: string): number {
  const log = openSync(path, 'a', FILE_MODE)
  const { size, ino } = fstatSync(log)
  if (size < NEW_LOG_FROM) return log
  if (statSync(path, { throwIfNoEntry: false })?.ino === ino) renameSync(path, `${path}.1`)
  closeSync(log)
  return openSync(path, 'a', FILE_MODE)
}

/** xinetd gives a service nowhere to log to. */
function logFile(config: Config): string {
  return `${config.dataDir}/.upserv.log`
}

/** xinetd's socket is both; a pipe, as in tests and over ssh, is one each. */
function standardStreams(): { input: Readable; output: Writable; peer: Peer } {
  const { stdin, stdout } = process
  const peer = stdin instanceof Socket ? peerFrom(stdin.remoteAddress, stdin.remotePort) : UNKNOWN_PEER
  return { input: stdin, output: stdout, peer }
}
