/**
 * Who root is when it touches a data directory: its owner. What root wrote there the server could not change,
 * and would fail on much later.
 */
import { statSync } from 'node:fs'
import { ConfigError } from '../errors.ts'

const ROOT = 0

/** Gives root's privileges up, for good, where the directory is another user's. Others stay who they are. */
export function becomeOwner(dataDir: string): void {
  if (process.getuid?.() !== ROOT) return
  const owner = statSync(dataDir, { throwIfNoEntry: false })
  if (!owner || owner.uid === ROOT) return
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
