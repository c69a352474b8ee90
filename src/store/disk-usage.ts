/**
 * What files take on a disk, which is more than they hold: whole blocks, and directories beside them. The
 * budget counts this, so that `du` does not find more than was promised.
 */
import { join } from 'node:path'
import type { Disk } from '../lib/disk.ts'
import { codeOf } from './disk-error.ts'

/** As nearly all file systems have it. */
export const BLOCK_BYTES = 4096

export function blocksOf(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES
}

/** What a file or a directory with all that is in it takes; 0 when there is nothing of that name. */
export async function diskUsage(disk: Disk, path: string): Promise<number> {
  try {
    const stats = await disk.stat(path)
    let bytes = blocksOf(stats.size)
    if (stats.isDirectory())
      for (const name of await disk.readdir(path)) bytes += await diskUsage(disk, join(path, name))
    return bytes
  } catch (error) {
    // Gone while we looked, or never there.
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return 0
    throw error
  }
}
