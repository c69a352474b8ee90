import { fileURLToPath } from 'node:url'

/**
 * The file of a module beside the caller's, for threads and processes that start from it. Sources run as
 * `.ts` in a checkout and as `.js` in the package; the sibling has the extension of who asks.
 */
export function siblingModule(callerUrl: string, path: string): string {
  return fileURLToPath(new URL(path + (callerUrl.endsWith('.ts') ? '.ts' : '.js'), callerUrl))
}
