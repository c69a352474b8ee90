/**
 * One owner process at a time: a kernel lock on upserv.lock.
 *
 * The kernel drops the lock when we close the file or die, also by kill -9 (lib/flock.ts). Nothing has to
 * be cleaned up, and a file that was left behind means nothing by itself: not after a crash, and not when
 * the pid in it belongs to somebody else by now.
 *
 * The file's content (pid, host, start time) only serves the message for the process that comes second.
 * The file is never unlinked: two processes could then hold locks on two files of the same name.
 */
import { hostname } from 'node:os'
import { StoreError, StoreLocked } from '../errors.ts'
import { type DiskNow, realDisk } from '../lib/disk.ts'
import { LockUnavailable } from '../lib/flock.ts'
import { diskError, isDiskFull } from './disk-error.ts'
import { FILE_MODE } from './paths.ts'

export interface StoreLock {
  /** The file that is locked: a process that inherits it holds the lock as well, and keeps it when we let go. */
  readonly fd: number
  /**
   * @throws StoreError when the file of that name is not the one we locked: then the directory was removed
   *   or replaced under us, and somebody else may own what is there now.
   */
  assertOurs(): void
  release(): void
}

interface Owner {
  pid: number
  host: string
  since: string
}

/**
 * Takes the lock.
 * @param inherited the file, which the process before us has locked and handed over.
 * @throws StoreLocked, which says who has it.
 */
export function lockStore(
  path: string,
  clock: () => Date = () => new Date(),
  disk: DiskNow = realDisk.now,
  inherited?: number,
): StoreLock {
  let fd: number
  try {
    fd = inherited ?? disk.open(path, 'rwc', FILE_MODE)
  } catch (error) {
    throw diskError(error, path)
  }
  let ino: number | undefined
  try {
    // Of a file that is locked already this says so, and of one that was let go by mistake as well.
    takeLock(disk, fd, path)
    nameOwner(disk, fd, clock())
    ino = disk.stat(path)?.ino
  } catch (error) {
    letGo(disk, fd)
    throw diskError(error, path)
  }
  let held = true
  return {
    fd,
    assertOurs() {
      if (!held) throw new StoreError(`${path} was given up`)
      let now: number | undefined
      try {
        now = disk.stat(path)?.ino
      } catch (error) {
        throw diskError(error, path)
      }
      if (now === ino) return
      throw new StoreError(`${path} is not the file that this process locked`, {
        hint: 'The data directory was moved, removed or replaced: put it back, or restart upserv.',
      })
    },
    release() {
      if (held) letGo(disk, fd)
      held = false
    },
  }
}

/** The system lets go of a file also when it reports an error, and what led here matters more. */
function letGo(disk: DiskNow, fd: number): void {
  try {
    disk.close(fd)
  } catch {
    // What is in the file is only for people.
  }
}

function takeLock(disk: DiskNow, fd: number, path: string): void {
  try {
    if (disk.lock(fd)) return
  } catch (error) {
    if (!(error instanceof LockUnavailable)) throw error
    throw new StoreError(`cannot lock ${path}: ${error.message}`, { hint: error.hint, cause: error })
  }
  const owner = readOwner(disk, path)
  throw new StoreLocked(
    owner
      ? `${path} is held by process ${owner.pid} on ${owner.host} since ${owner.since}`
      : `${path} is held by another process`,
    { hint: 'One upserv owns a data directory at a time: stop the other one, or choose another data_dir.' },
  )
}

/** A full disk keeps nobody from starting, who may be about to make room. */
function nameOwner(disk: DiskNow, fd: number, since: Date): void {
  const owner: Owner = { pid: process.pid, host: hostname(), since: since.toISOString() }
  const line = Buffer.from(`${JSON.stringify(owner)}\n`)
  try {
    disk.truncate(fd, 0)
    disk.write(fd, line, 0, line.length, 0)
  } catch (error) {
    if (!isDiskFull(error)) throw error
  }
}

function readOwner(disk: DiskNow, path: string): Owner | undefined {
  try {
    const owner = JSON.parse(disk.readFile(path).toString('utf8')) as Partial<Owner>
    const { pid, host, since } = owner
    if (typeof pid === 'number' && typeof host === 'string' && typeof since === 'string')
      return { pid, host, since }
  } catch {
    // The owner may be writing it this moment; the message does without.
  }
  return undefined
}
