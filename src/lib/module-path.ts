import { fileURLToPath } from 'node:url'
import { getEnvironmentData, setEnvironmentData } from 'node:worker_threads'
import { ProgramReplaced } from '../errors.ts'
import { VERSION } from '../version.ts'

/** Under this every thread finds the version of who has started it. */
const STARTED_BY = 'upserv version'

/**
 * The file of a module beside the caller's, for threads that start from it: they have to `checkProgram`. Sources run
 * as `.ts` in a checkout and as `.js` in the package; the sibling has the extension of who asks.
 */
export function siblingModule(callerUrl: string, path: string): string {
  setEnvironmentData(STARTED_BY, VERSION)
  return fileURLToPath(new URL(path + (callerUrl.endsWith('.ts') ? '.ts' : '.js'), callerUrl))
}

/**
 * For threads, before they do anything. They start from the program's files as these are by then: once an upgrade has
 * replaced them, and no new process has taken over, those are not what the process speaks with.
 * @throws ProgramReplaced
 */
export function checkProgram(): void {
  const version = getEnvironmentData(STARTED_BY)
  if (version !== VERSION) throw new ProgramReplaced(String(version ?? 'an earlier one'), VERSION)
}
