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
 * Asynchronous throughout, for the event loop: an fsync can take seconds. (pack.ts has the synchronous
 * half, which only worker threads use.)
 */
import { type FileHandle, open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { diskError } from './disk-error.ts'
import { FILE_MODE } from './paths.ts'

/** Makes the names in a directory durable: what was created, renamed or removed there. */
export async function syncDirectory(path: string): Promise<void> {
  await withFile(path, 'r', (handle) => handle.sync())
}

/** Step 1 and 2: a new file with durable content. Its name is durable once its directory is fsynced. */
export async function writeSynced(
  path: string,
  content: Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<number> {
  return await withFile(path, 'wx', async (handle) => {
    let size = 0
    for await (const chunk of content instanceof Uint8Array ? [content] : content) {
      // writeFile on a handle goes on where it stands, and writes all of it.
      await handle.writeFile(chunk)
      size += chunk.length
    }
    await handle.sync()
    return size
  })
}

/** All four steps, for a single small file that may be there already. */
export async function replaceFile(path: string, content: Uint8Array): Promise<void> {
  const temporary = `${path}.new`
  await withFile(temporary, 'w', async (handle) => {
    await handle.writeFile(content)
    await handle.sync()
  })
  try {
    await rename(temporary, path)
  } catch (error) {
    throw diskError(error, path)
  }
  await syncDirectory(dirname(path))
}

/** Opens a file for `use` and closes it. @throws NoRoom, StoreError. */
async function withFile<T>(path: string, flags: string, use: (handle: FileHandle) => Promise<T>): Promise<T> {
  try {
    const handle = await open(path, flags, FILE_MODE)
    try {
      return await use(handle)
    } finally {
      await handle.close()
    }
  } catch (error) {
    throw diskError(error, path)
  }
}
