/** Whether the upstream of a source can be reached at all, whatever it publishes: for `upserv doctor`. */
import { access, constants } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { EnvHttpProxyAgent, request } from 'undici'
import type { SourceConfig } from './source.ts'
import { schemeOf, showUrl, withoutUser } from './url.ts'

/** Where all of a source's archives lie, as far as its template says it. */
export function commonPlace({ url }: Pick<SourceConfig, 'url'>): URL {
  const fixed = url.split('{', 1)[0]!
  const directory = fixed.slice(0, fixed.lastIndexOf('/') + 1)
  // A template whose host is a placeholder has no place in common.
  return new URL(
    /^[a-z]+:\/\/[^/]*\/$|^[a-z]+:\/.*\/$/i.test(directory) ? directory : url.replaceAll(/[{}]/g, ''),
  )
}

/** Why nothing can be had from there, or undefined. Any answer of a web server will do. */
export async function whyUnreachable(source: SourceConfig, signal: AbortSignal): Promise<string | undefined> {
  const place = commonPlace(source)
  try {
    if (schemeOf(source.url) === 'file') {
      await access(fileURLToPath(place), constants.R_OK | constants.X_OK)
      return undefined
    }
    const dispatcher = new EnvHttpProxyAgent()
    try {
      const { body } = await request(withoutUser(place), { method: 'HEAD', signal, dispatcher })
      await body.dump()
      return undefined
    } finally {
      await dispatcher.destroy()
    }
  } catch (error) {
    const { name, message, code } = error as NodeJS.ErrnoException
    return `${showUrl(place)}: ${name === 'TimeoutError' ? 'no answer' : message || code || name}`
  }
}
