/** An archive that can only be read from a file: it lies beside the packs of its ingest, and counts while it does. */
import { join } from 'node:path'
import type { SpillFile } from '../archive/read.ts'
import type { DiskNow } from '../lib/disk.ts'
import { writeWhole } from '../store/pack.ts'
import type { IngestRoom } from './blob-sink.ts'

/** Nobody else has anything to do with it. */
const FILE_MODE = 0o600

export async function spillTo(
  directory: string,
  chunks: AsyncIterable<Uint8Array>,
  room: IngestRoom,
  disk: DiskNow,
): Promise<SpillFile> {
  const path = join(directory, 'archive')
  const fd = disk.open(path, 'rwc', FILE_MODE)
  let size = 0
  const remove = async (): Promise<void> => {
    disk.close(fd)
    disk.unlink(path)
    room.giveBack(size)
  }
  try {
    for await (const chunk of chunks) {
      room.claim(chunk.length)
      writeWhole(disk, fd, path, chunk, size, () => room.diskFull())
      size += chunk.length
    }
  } catch (error) {
    await remove()
    throw error
  }
  const read = (position: number, length: number): Uint8Array => {
    const bytes = Buffer.allocUnsafe(Math.max(0, Math.min(length, size - position)))
    for (let done = 0; done < bytes.length; ) {
      const count = disk.read(fd, bytes, done, bytes.length - done, position + done)
      if (count === 0) return bytes.subarray(0, done)
      done += count
    }
    return bytes
  }
  return { path, read, [Symbol.asyncDispose]: remove }
}
