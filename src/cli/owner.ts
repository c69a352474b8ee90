/**
 * Who root is when it touches a data directory: its owner. What root wrote there the server could not change,
 * and would fail on much later.
 */
import { type Stats, statSync } from 'node:fs'
import { ConfigError } from '../errors.ts'

const ROOT = 0

/** Gives root's privileges up, for good, where the directory is another user's. Others stay who they are. */
export function becomeOwner(dataDir: string): void {
  const owner = otherOwner(dataDir)
  if (!owner) return
  try {
    process.setgroups!([owner.gid])
    process.setgid!(owner.gid)
    process.setuid!(owner.uid)
  } catch (cause) {
    throw new ConfigError(`${dataDir} belongs to user ${owner.uid}, and root may not become that user here`, {
      cause,
      hint: `Run this as its owner: setpriv --reuid=${owner.uid} --regid=${owner.gid} --clear-groups upserv ...`,
    })
  }
}

/**
 * How root starts a program that makes or removes something where the owner of the data directory may write. Root
 * does not do that itself: a path there can lead elsewhere a moment later.
 */
export function asOwner(dataDir: string): { uid?: number; gid?: number } {
  const owner = otherOwner(dataDir)
  return owner ? { uid: owner.uid, gid: owner.gid } : {}
}

/** Whom root has to become; undefined where everybody may stay who they are. */
export function otherOwner(dataDir: string): Stats | undefined {
  if (process.getuid?.() !== ROOT) return undefined
  const owner = statSync(dataDir, { throwIfNoEntry: false })
  return owner?.uid === ROOT ? undefined : owner
}
