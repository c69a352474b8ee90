/**
 * Libraries that only those need who ask a source: loaded when one is first asked. They take 6 MB, and the thread that
 * serves devices asks sources for nothing but lists, if anybody wants these.
 */
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)

/** Some 50 ms of work the first time, 25 where compiled code is kept. */
export function undici(): typeof import('undici') {
  return require('undici')
}

export function htmlparser(): Promise<typeof import('htmlparser2')> {
  return import('htmlparser2')
}

/** Loads them all, while their files are those of this version. */
export async function loadLibraries(): Promise<void> {
  undici()
  await htmlparser()
}
