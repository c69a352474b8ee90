import { readFileSync } from 'node:fs'

/** As package.json has it. */
export const VERSION: string = readVersion()

function readVersion(): string {
  // Two levels up from the compiled file, one from the source.
  for (const path of ['../package.json', '../../package.json']) {
    try {
      const { name, version } = JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as {
        name: string
        version: string
      }
      if (name === 'upserv') return version
    } catch {
      // Not there: look one level up.
    }
  }
  return 'unknown'
}
