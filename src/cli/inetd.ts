/**
 * `upserv server`: one connection on stdin and stdout, as xinetd and inetd start it.
 *
 * One process owns the data directory, so that a fleet's work is done once: this one hands its connection
 * to the owner through the control socket, byte by byte. When there is no owner it starts one, which ends
 * by itself when nobody has needed it for a while.
 */
import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Config, Flags } from '../config/config.ts'
import { connectControl, requestRsync } from '../daemon/control.ts'
import { StoreError } from '../errors.ts'
import { DIRECTORY_MODE, StorePaths } from '../store/paths.ts'

/** How long an owner that we started stays without anything to do. */
const OWNER_IDLE_SECONDS = 600
/** How long we wait for an owner to open its socket. */
const OWNER_STARTS_MS = 20_000
const RETRY_MS = 50

export async function runInetd(config: Config, flags: Flags): Promise<void> {
  const { input, output, peer } = standardStreams()
  let owner: Socket
  try {
    owner = await findOwner(config, flags)
  } catch (error) {
    // The client waits for a greeting: without one it would only say that it saw none.
    output.write(`@RSYNCD: 31.0 md5\n@ERROR: ${(error as Error).message.replaceAll('\n', ' ')}\n`)
    throw error
  }
  requestRsync(owner, peer)
  // Each direction ends by itself: a client may have said all and still listen.
  await Promise.allSettled([pipeline(input, owner), pipeline(owner, output)])
}

async function findOwner(config: Config, flags: Flags): Promise<Socket> {
  const paths = new StorePaths(config.dataDir)
  const deadline = Date.now() + OWNER_STARTS_MS
  let started = false
  for (;;) {
    const owner = await connectControl(paths.socket)
    if (owner) return owner
    if (!started) {
      // Of several that start at once, the lock lets one be the owner; the others end.
      startOwner(config, flags)
      started = true
    }
    if (Date.now() > deadline) {
      throw new StoreError(`no upserv could be started on ${config.dataDir}`, {
        hint: `See ${logFile(config)}.`,
      })
    }
    await sleep(RETRY_MS)
  }
}

function startOwner(config: Config, flags: Flags): void {
  mkdirSync(config.dataDir, { recursive: true, mode: DIRECTORY_MODE })
  const log = openSync(logFile(config), 'a', 0o640)
  const args = [
    'serve',
    '--data',
    config.dataDir,
    '--rsync',
    'off',
    '--http',
    'off',
    '--exit-when-idle',
    String(OWNER_IDLE_SECONDS),
  ]
  if (flags.config !== undefined) args.push('--config', flags.config)
  spawn(process.execPath, [process.argv[1]!, ...args], {
    detached: true,
    stdio: ['ignore', 'ignore', log],
    cwd: '/',
  }).unref()
  closeSync(log)
}

/** xinetd gives a service nowhere to log to. */
function logFile(config: Config): string {
  return `${config.dataDir}/.upserv.log`
}

/** xinetd's socket is both; a pipe, as in tests and over ssh, is one each. */
function standardStreams(): { input: Readable; output: Writable; peer: string } {
  const { stdin, stdout } = process
  const peer =
    stdin instanceof Socket && stdin.remoteAddress ? `${stdin.remoteAddress}:${stdin.remotePort}` : 'inetd'
  return { input: stdin, output: stdout, peer }
}
