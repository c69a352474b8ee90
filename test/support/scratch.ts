/**
 * Scratch directories: on a memory file system where there is a roomy one, for speed; removed at the end.
 *
 * Removal goes through `rm`, because trees under test hold names that are not UTF-8 and directories
 * without permissions.
 */
import { spawnSync } from 'node:child_process'
import { accessSync, constants, mkdtempSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Containers often get 64 MB of /dev/shm: less than this and the ordinary temporary directory is taken. */
const ROOMY_BYTES = 2e9

/** Tests that need owners and devices ask this; without root they skip those parts and say so. */
export const isRoot = process.getuid?.() === 0

/** Why a test of owners or devices is skipped, or false when it runs: for node:test's `skip`. */
export const skipUnlessRoot = isRoot ? false : 'needs root: owners and device nodes'

/** A fresh directory, and how to get rid of it: `using scratch = makeScratch()`. */
export interface Scratch extends Disposable {
  readonly path: string
}

export function makeScratch(purpose = 'test'): Scratch {
  const path = mkdtempSync(join(scratchParent(), `upserv-${purpose}-`))
  return { path, [Symbol.dispose]: () => removeTree(path) }
}

/** Removes a tree whatever its names and modes. */
export function removeTree(path: string): void {
  if (!isRoot) spawnSync('chmod', ['-R', 'u+rwX', path], { stdio: 'ignore' })
  const { status, stderr } = spawnSync('rm', ['-rf', '--', path])
  if (status !== 0) throw new Error(`could not remove ${path}: ${stderr}`)
}

function scratchParent(): string {
  const memory = '/dev/shm'
  try {
    accessSync(memory, constants.W_OK)
    const { bavail, bsize } = statfsSync(memory)
    if (bavail * bsize >= ROOMY_BYTES) return memory
  } catch {
    // No such thing on this system.
  }
  return tmpdir()
}
