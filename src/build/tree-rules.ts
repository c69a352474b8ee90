/** What holds of the tree of any build, whether it comes out of an archive or from another server. Pure. */
import { isRegularMode } from '../lib/file-mode.ts'
import type { TreeEntry } from '../store/manifest.ts'

export interface TreeLimits {
  maxEntries: number
  /** Path components. */
  maxDepth: number
  /** Of paths, link targets, distinct sets of extended attributes and names of owners, all together. */
  maxMetadataBytes: number
}

/** Far above any real system tree, and about what a worker thread can hold in memory. */
export const DEFAULT_TREE_LIMITS: TreeLimits = {
  maxEntries: 5_000_000,
  maxDepth: 512,
  maxMetadataBytes: 512 * 2 ** 20,
}

/** Fewer files than this sharing an mtime are no sign of anything. */
const UNIFORM_MIN_FILES = 16
/** Reproducible images clamp: files older than the build date may keep their own mtime. */
const UNIFORM_SHARE = 0.9

/** The mtime that nearly all regular files have, if they do. */
export function uniformMtime(entries: readonly TreeEntry[]): number | undefined {
  // Majority vote: if one mtime has more than half of the files, it is the one left standing.
  let candidate = 0
  let votes = 0
  let files = 0
  for (const { mode, mtime } of entries) {
    if (!isRegularMode(mode)) continue
    files++
    if (votes === 0) candidate = mtime
    votes += mtime === candidate ? 1 : -1
  }
  if (files < UNIFORM_MIN_FILES) return undefined
  let sharing = 0
  for (const { mode, mtime } of entries) if (isRegularMode(mode) && mtime === candidate) sharing++
  return sharing >= files * UNIFORM_SHARE ? candidate : undefined
}
