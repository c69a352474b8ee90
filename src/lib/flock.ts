/**
 * A kernel lock on an open file, which Node has no call for: flock(1) takes it for us.
 *
 * The lock belongs to the *open file description*, which the child shares with us: it stays ours when
 * flock(1) has exited, and the kernel drops it when we close the file or die, also by kill -9. Node opens
 * files close-on-exec, so programs that we start later do not inherit it.
 */
import { spawnSync } from 'node:child_process'

/** What flock(1) exits with when -n finds the lock taken (we name it, so that no other failure looks like it). */
const TAKEN = 75

/** Takes an exclusive lock; false when somebody else has it. @throws Error with a `hint` when that can't be known. */
export function flock(fd: number): boolean {
  const result = spawnSync('flock', ['-n', '-x', '-E', String(TAKEN), '3'], {
    stdio: ['ignore', 'ignore', 'pipe', fd],
    encoding: 'utf8',
  })
  if (result.error) {
    const missing = (result.error as NodeJS.ErrnoException).code === 'ENOENT'
    throw new LockUnavailable(
      missing ? 'there is no program "flock"' : result.error.message,
      'flock is part of util-linux: apt-get install util-linux',
    )
  }
  if (result.status === 0) return true
  if (result.status === TAKEN) return false
  throw new LockUnavailable(
    result.stderr.trim() || `flock exited with ${result.status}`,
    'The file system must support flock(2); some network file systems do not.',
  )
}

/** Whether the lock is free cannot be found out here. */
export class LockUnavailable extends Error {
  readonly hint: string

  constructor(message: string, hint: string) {
    super(message)
    this.hint = hint
  }
}
