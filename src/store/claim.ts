/**
 * What a start does first, since it takes no time and all that must be refused is refused here: a data
 * directory that is locked for us, of a format that we read, with the directories that it needs.
 */
import type { Disk } from '../lib/disk.ts'
import { realDisk } from '../lib/disk.ts'
import { diskError } from './disk-error.ts'
import { makeDirectories } from './durable.ts'
import { readOrMakeFacts, type StoreFacts } from './facts.ts'
import { lockStore, type StoreLock } from './lock.ts'
import { StorePaths } from './paths.ts'

/** A data directory that is ours until its lock is released. */
export interface Claim {
  readonly paths: StorePaths
  readonly facts: StoreFacts
  readonly lock: StoreLock
}

export interface ClaimOptions {
  now?: () => Date
  disk?: Disk
  /** The file of the lock, from the process that hands the directory over to us. */
  inherited?: number | undefined
}

/** Takes a data directory, or makes one. @throws StoreLocked, StoreFormat, StoreCorrupt. */
export async function claimStore(
  root: string,
  { now = () => new Date(), disk = realDisk, inherited }: ClaimOptions = {},
): Promise<Claim> {
  const paths = new StorePaths(root)
  await makeDirectories(disk, root)
  const lock = lockStore(paths.lock, now, disk.now, inherited)
  try {
    const facts = await readOrMakeFacts(disk, paths, now)
    for (const directory of [paths.builds, paths.packs, paths.incoming, paths.cache]) {
      await makeDirectories(disk, directory)
    }
    return { paths, facts, lock }
  } catch (error) {
    lock.release()
    throw diskError(error, root)
  }
}
