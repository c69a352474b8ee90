/** Whether the upstream of a source can be reached at all, whatever it publishes: for `upserv doctor`. */
import { access, constants } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { type Dispatcher, request } from 'undici'
import { whereabouts } from './create.ts'
import { Route } from './http-client.ts'
import { SOURCE_LIMITS } from './limits.ts'
import type { SourceConfig } from './source.ts'
import { showTemplate, showUrl, withoutUser } from './url.ts'

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

/**
 * Asks for the directory of its archives, and each mirror for its own. Any answer will do but one that says the
 * server itself is not well.
 */
export async function reachSource(source: SourceConfig, signal: AbortSignal): Promise<Reached[]> {
  const places = [source.url, ...(source.mirrors ?? [])]
  return await Promise.all(places.map((url) => reachPlace({ ...source, url }, signal)))
}

async function reachPlace(source: SourceConfig, signal: AbortSignal): Promise<Reached> {
  let at: URL
  let dispatcher: Dispatcher
  try {
    at = whereabouts(source)
    dispatcher = new Route(SOURCE_LIMITS, source.http ?? {}).dispatcher
  } catch (error) {
    const look = `Look at the source "${source.name}" in upserv.toml.`
    return { place: showTemplate(source.url), failure: (error as Error).message, look }
  }
  try {
    return at.protocol === 'file:'
      ? await reachDirectory(fileURLToPath(at))
      : await reachHttp(at, dispatcher, signal)
  } finally {
    await dispatcher.destroy()
  }
}

async function reachDirectory(path: string): Promise<Reached> {
  const failure = await access(path, constants.R_OK | constants.X_OK).then(
    () => undefined,
    (error: Error) => error.message,
  )
  return { place: path, failure, look: `ls -ld ${path}; is it mounted?` }
}

async function reachHttp(at: URL, dispatcher: Dispatcher, signal: AbortSignal): Promise<Reached> {
  const place = showUrl(at)
  const look = `Check the network, and the url of this source: curl -I ${place}`
  try {
    const asked = Date.now()
    const { statusCode, headers, body } = await request(withoutUser(at), {
      method: 'HEAD',
      signal,
      dispatcher,
    })
    await body.dump()
    const theirs = Date.parse(String(headers.date ?? ''))
    const skewMs = Number.isNaN(theirs) ? undefined : (asked + Date.now()) / 2 - theirs
    const failure = statusCode >= 500 ? `${place} answers with ${statusCode}` : undefined
    return { place, failure, look, skewMs }
  } catch (error) {
    const { name, message, code } = error as NodeJS.ErrnoException
    const failure = `${place}: ${name === 'TimeoutError' ? 'no answer' : message || code || name}`
    return { place, failure, look }
  }
}
