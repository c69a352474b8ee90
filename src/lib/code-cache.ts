/**
 * Compiled code, kept from one start to the next: stripping types and compiling modules is more than half of
 * what a start costs. Node knows each piece by the digest of its source and a checksum of itself, so what is
 * stale, torn or rotten is compiled anew, and what can't be kept is compiled each time.
 */
import { statSync } from 'node:fs'
import { enableCompileCache } from 'node:module'

/** Writing by the group or by others. */
const FOREIGN_WRITE = 0o022

/**
 * From here on modules come from `directory` where they can, and `flushCompileCache` keeps them there. What
 * lies there is run as code of ours, so it is used only where `parent`, a directory above it, is our own and
 * nobody else may write there: root must not run what a service's user has left.
 */
export function keepCompiledCode(directory: string, parent: string): void {
  const stats = statSync(parent, { throwIfNoEntry: false })
  if (!stats || stats.uid !== process.geteuid!() || (stats.mode & FOREIGN_WRITE) !== 0) return
  enableCompileCache(directory)
}
