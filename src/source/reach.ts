/** Whether the upstream of a source can be reached at all, whatever it publishes: for `upserv doctor`. */
import { access, constants } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { EnvHttpProxyAgent, request } from 'undici'
import type { SourceConfig } from './source.ts'
import { schemeOf, showUrl, withoutUser } from './url.ts'

export interface Reached {
  /** Where its archives lie, as people read it. */
  readonly place: string
  /** Why nothing can be had from there, if so. */
  readonly failure: string | undefined
  /** What to type to see for oneself. */
  readonly look: string
  /** How much later than the upstream's our clock is; undefined where it does not say what time it is. */
  readonly skewMs?: number | undefined
}

/** Where all of a source's archives lie, as far as its template says it. */
export function commonPlace({ url }: Pick<SourceConfig, 'url'>): URL {
  const fixed = url.split('{', 1)[0]!
  const directory = fixed.slice(0, fixed.lastIndexOf('/') + 1)
  // A template whose host is a placeholder has no place in common.
  return new URL(
    /^[a-z]+:\/\/[^/]*\/$|^[a-z]+:\/.*\/$/i.test(directory) ? directory : url.replaceAll(/[{}]/g, ''),
  )
}

/** Asks for the directory of its archives. Any answer will do but one that says the server itself is not well. */
export async function reachSource(source: SourceConfig, signal: AbortSignal): Promise<Reached> {
  const url = commonPlace(source)
  return schemeOf(source.url) === 'file'
    ? await reachDirectory(fileURLToPath(url))
    : await reachHttp(url, signal)
}

async function reachDirectory(path: string): Promise<Reached> {
  const failure = await access(path, constants.R_OK | constants.X_OK).then(
    () => undefined,
    (error: Error) => error.message,
  )
  return { place: path, failure, look: `ls -ld ${path}; is it mounted?` }
}

async function reachHttp(url: URL, signal: AbortSignal): Promise<Reached> {
  const place = showUrl(url)
  const look = `Check the network, and the url of this source: curl -I ${place}`
  const dispatcher = new EnvHttpProxyAgent()
  try {
    const asked = Date.now()
    const { statusCode, headers, body } = await request(withoutUser(url), {
      method: 'HEAD',
      signal,
      dispatcher,
    })
    await body.dump()
    const theirs = Date.parse(String(headers.date ?? ''))
    const skewMs = Number.isNaN(theirs) ? undefined : (asked + Date.now()) / 2 - theirs
    return {
      place,
      failure: statusCode >= 500 ? `${place} answers with ${statusCode}` : undefined,
      look,
      skewMs,
    }
  } catch (error) {
    const { name, message, code } = error as NodeJS.ErrnoException
    return {
      place,
      failure: `${place}: ${name === 'TimeoutError' ? 'no answer' : message || code || name}`,
      look,
    }
  } finally {
    await dispatcher.destroy()
  }
}
