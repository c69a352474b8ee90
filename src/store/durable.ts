/**
 * Writing so that it is still there after a power cut.
 *
 * A file system promises nothing about data that was not fsynced, and nothing about a name until the
 * directory that holds it was. So a file is made durable in this order, each step with its reason:
 *
 * 1. write under a name that nobody looks for: a crash leaves a leftover, never a half file in place
 * 2. fsync the file: otherwise the rename may survive a power cut and the data may not
 * 3. rename to the final name: atomic, readers see the old or the new
 * 4. fsync the directory: otherwise the rename itself may be forgotten, after we said that it is done
 *
 * Every fsync says which promise it keeps; test/store/power-cut.test.ts leaves out each in turn and must
 * see that promise broken.
 *
 * Asynchronous throughout, for the event loop: an fsync can take seconds. (pack.ts has the synchronous
 * half, which only worker threads use.)
 */
import { dirname, join, resolve } from 'node:path'
import type { Disk, DiskFile, SyncReason } from '../lib/disk.ts'
import { codeOf, diskError } from './disk-error.ts'
import { DIRECTORY_MODE, FILE_MODE } from './paths.ts'

/** Makes the names in a directory durable: what was created, renamed or removed there. */
export async function syncDirectory(disk: Disk, path: string, why: SyncReason): Promise<void> {
  await withFile(disk, path, 'r', (handle) => handle.sync(why))
}

/** Step 1 and 2: a new file with durable content. Its name is durable once its directory is fsynced. */
export async function writeSynced(
  disk: Disk,
  path: string,
  content: Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  why: SyncReason,
): Promise<number> {
  return await withFile(disk, path, 'wx', async (handle) => {
    let size = 0
    for await (const chunk of content instanceof Uint8Array ? [content] : content) {
      await handle.writeFile(chunk)
      size += chunk.length
    }
    await handle.sync(why)
    return size
  })
}

/** All four steps, for a single small file that may be there already. */
export async function replaceFile(
  disk: Disk,
  path: string,
  content: Uint8Array,
  why: SyncReason,
): Promise<void> {
  const temporary = `${path}.new`
  await withFile(disk, temporary, 'w', async (handle) => {
    await handle.writeFile(content)
    await handle.sync(why)
  })
  try {
    await disk.rename(temporary, path)
  } catch (error) {
    throw diskError(error, path)
  }
  await syncDirectory(disk, dirname(path), `${why}: its name`)
}

/** An empty file that is there afterwards, whether it was before or not. */
export async function touchFile(disk: Disk, path: string): Promise<void> {
  await withFile(disk, path, 'a', async () => {})
}

/** Makes a directory and those above it, where they are missing. */
export async function makeDirectories(disk: Disk, path: string): Promise<void> {
  const absolute = resolve(path)
  const make = async () => {
    await disk.mkdir(absolute, DIRECTORY_MODE).catch((error) => {
      if (codeOf(error) !== 'EEXIST') throw error
    })
  }
  try {
    await make().catch(async (error) => {
      if (codeOf(error) !== 'ENOENT' || absolute === dirname(absolute)) throw error
      await makeDirectories(disk, dirname(absolute))
      await make()
    })
  } catch (error) {
    throw diskError(error, path)
  }
}

/** Makes the names of a directory and of all above it durable, as far as we may look into them. */
export async function syncAncestors(disk: Disk, path: string, why: SyncReason): Promise<void> {
  for (let at = resolve(path); at !== dirname(at); ) {
    at = dirname(at)
    try {
      const handle = await disk.open(at, 'r')
      try {
        await handle.sync(why)
      } finally {
        await handle.close()
      }
    } catch (error) {
      // Somebody else's directory, which was there before; or one that can't be fsynced, such as /proc.
      if (!['EACCES', 'EPERM', 'EINVAL'].includes(codeOf(error) ?? '')) throw diskError(error, at)
    }
  }
}

/** Removes a file, or a directory with all that is in it. That it was not there is fine. */
export async function removeTree(disk: Disk, path: string): Promise<void> {
  const isAbsent = (error: unknown) => codeOf(error) === 'ENOENT'
  try {
    await disk.unlink(path)
  } catch (error) {
    if (isAbsent(error)) return
    // EISDIR on Linux; POSIX says EPERM.
    if (codeOf(error) !== 'EISDIR' && codeOf(error) !== 'EPERM') throw error
    try {
      for (const name of await disk.readdir(path)) await removeTree(disk, join(path, name))
      await disk.rmdir(path)
    } catch (error) {
      if (!isAbsent(error)) throw error
    }
  }
}

/** Opens a file for `use` and closes it. @throws NoRoom, StoreError. */
async function withFile<T>(
  disk: Disk,
  path: string,
  flags: Parameters<Disk['open']>[1],
  use: (handle: DiskFile) => Promise<T>,
): Promise<T> {
  try {
    const handle = await disk.open(path, flags, FILE_MODE)
    try {
      return await use(handle)
    } finally {
      await handle.close()
    }
  } catch (error) {
    throw diskError(error, path)
  }
}
