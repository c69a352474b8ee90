/**
 * One owner process at a time: a kernel lock on upserv.lock.
 *
 * Node has no flock(2), so flock(1) takes the lock for us. The lock belongs to the *open file
 * description*, which the child shares with us: it stays ours when flock(1) has exited, and the kernel
 * drops it when we close the file or die, also by kill -9. Nothing has to be cleaned up, and a file that
 * was left behind means nothing by itself. Node opens files close-on-exec, so programs that we start
 * later do not inherit the lock.
 *
 * The file's content (pid, host, start time) only serves the message for the process that comes second.
 * The file is never unlinked: two processes could then hold locks on two files of the same name.
 */
import { spawnSync } from 'node:child_process'
import { closeSync, constants, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { hostname } from 'node:os'
import { StoreError, StoreLocked } from '../errors.ts'
import { FILE_MODE } from './paths.ts'

/** What flock(1) exits with when -n finds the lock taken (we name it, so that no other failure looks like it). */
const TAKEN = 75

export interface StoreLock {
  release(): void
}

interface Owner {
  pid: number
  host: string
  since: string
}

/** Takes the lock or throws StoreLocked, which says who has it. */
export function lockStore(path: string, now: () => Date = () => new Date()): StoreLock {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, FILE_MODE)
  try {
    takeLock(fd, path)
    const owner: Owner = { pid: process.pid, host: hostname(), since: now().toISOString() }
    ftruncateSync(fd, 0)
    writeSync(fd, `${JSON.stringify(owner)}\n`, 0)
  } catch (error) {
    closeSync(fd)
    throw error
  }
  let held = true
  return {
    release() {
      if (held) closeSync(fd)
      held = false
    },
  }
}

function takeLock(fd: number, path: string): void {
  const result = spawnSync('flock', ['-n', '-x', '-E', String(TAKEN), '3'], {
    stdio: ['ignore', 'ignore', 'pipe', fd],
    encoding: 'utf8',
  })
  if (result.error) {
    const missing = (result.error as NodeJS.ErrnoException).code === 'ENOENT'
    throw new StoreError(
      `cannot lock ${path}: ${missing ? 'there is no program "flock"' : result.error.message}`,
      {
        hint: 'flock is part of util-linux: apt-get install util-linux',
        cause: result.error,
      },
    )
  }
  if (result.status === 0) return
  if (result.status !== TAKEN) {
    throw new StoreError(
      `cannot lock ${path}: ${result.stderr.trim() || `flock exited with ${result.status}`}`,
      {
        hint: 'The file system must support flock(2); some network file systems do not.',
      },
    )
  }
  const owner = readOwner(path)
  throw new StoreLocked(
    owner
      ? `${path} is held by process ${owner.pid} on ${owner.host} since ${owner.since}`
      : `${path} is held by another process`,
    { hint: 'One upserv owns a data directory at a time: stop the other one, or choose another data_dir.' },
  )
}

function readOwner(path: string): Owner | undefined {
  try {
    const owner = JSON.parse(readFileSync(path, 'utf8')) as Partial<Owner>
    const { pid, host, since } = owner
    if (typeof pid === 'number' && typeof host === 'string' && typeof since === 'string')
      return { pid, host, since }
  } catch {
    // The owner may be writing it this moment; the message does without.
  }
  return undefined
}
