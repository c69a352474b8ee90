/**
 * One request, as a download needs it: redirects, time limits, credentials, and which failures may pass.
 *
 * undici's `request` rather than `fetch`, which decodes Content-Encoding: servers label a `.tar.gz` as
 * gzip-encoded although it is the file itself, and its checksum and byte ranges count the encoded bytes.
 * Proxies are taken from `http_proxy`, `https_proxy` and `no_proxy`, as curl does.
 */

import { readFileSync } from 'node:fs'
import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import { ConfigError, UpstreamRefused, UpstreamUnreachable } from '../errors.ts'
import { formatDuration } from '../lib/units.ts'
import type { Clock } from './clock.ts'
import { header, parseRetryAfter } from './http-headers.ts'
import { undici } from './late-libraries.ts'
import type { SourceLimits } from './limits.ts'
import { Rests } from './rests.ts'
import { Transient } from './retry.ts'
import type { HttpOptions } from './source.ts'
import { showUrl, withoutUser } from './url.ts'

/** An answer with a body that somebody asked for: 200, 206 or 416. Read it, or discard it. */
export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** The body as it comes, once. Throws Transient when the connection breaks or stalls. */
  chunks(): AsyncGenerator<Uint8Array, void, undefined>
  /** Lets go of the connection. May be called at any time, also twice. */
  discard(): void
}

/** Headers for a request, when it goes to the host that was configured. */
export type Authorize = (url: URL, asked: Asked, signal: AbortSignal) => Promise<Record<string, string>>

/** What is asked for; a GET unless told otherwise. */
export interface Asked {
  headers?: Record<string, string>
  method?: 'GET' | 'POST'
  body?: Uint8Array
}

/** All of an answer that is small; what `tooLarge` makes is thrown where it is not. */
export async function readWhole(answer: Answer, limit: number, tooLarge: () => Error): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of answer.chunks()) {
    size += chunk.length
    if (size > limit) throw tooLarge()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

type Body = Dispatcher.ResponseData['body']

const REDIRECTS = [301, 302, 303, 307, 308]
/** Codes of certificates that are not accepted: no retry will make them good. */
const BAD_CERTIFICATE =
  /^(?:CERT_|ERR_TLS_CERT|DEPTH_ZERO_SELF_SIGNED|SELF_SIGNED_CERT|UNABLE_TO_(?:GET|VERIFY))/

/** Where undici finds proxies. */
const PROXY_VARIABLES = ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY'] as const
/** Why a server was not asked at all. */
const RESTING = 'the upstream was busy when it was last asked'

export class HttpClient {
  readonly #limits: SourceLimits
  readonly #clock: Clock
  readonly #route: Route
  /** To hosts that a redirect leads to: without our certificate. */
  readonly #elsewhere: Route

  readonly #authorize: Authorize
  readonly #rests: Rests

  /**
   * @param authorize headers that a request to this URL needs, beside a password in the URL itself.
   * @param rests servers that are not to be asked just now.
   * @throws ConfigError
   */
  constructor(
    limits: SourceLimits,
    clock: Clock,
    options: HttpOptions = {},
    authorize?: Authorize,
    rests = new Rests(),
  ) {
    this.#limits = limits
    this.#rests = rests
    this.#clock = clock
    this.#route = new Route(limits, options)
    this.#elsewhere = options.clientCert === undefined ? this.#route : new Route(limits, { ca: options.ca })
    this.#authorize = authorize ?? (async () => bearer(options))
  }

  /**
   * Throws Transient for what may pass (no connection, 408, 429, 5xx), UpstreamRefused with the status for
   * everything else that is not the file or a part of it, and the signal's reason when it aborts.
   */
  async ask(url: URL, asked: Asked, signal: AbortSignal): Promise<Answer> {
    const seen = new Set<string>()
    let at = url
    for (;;) {
      seen.add(at.href)
      const { statusCode, headers: found, body } = await this.#send(at, url, asked, signal)
      if (statusCode === 200 || statusCode === 206 || statusCode === 416) {
        return new UndiciAnswer(statusCode, found, body, this.#limits, signal)
      }
      release(body)
      if (!REDIRECTS.includes(statusCode)) {
        const failure = failureOf(at, statusCode, header(found, 'retry-after'), this.#clock.now())
        const rest = failure instanceof Transient ? (failure.retryAfterMs ?? 0) : 0
        if (rest > this.#limits.retryAfterMs) this.#rests.note(at, rest)
        if (failure instanceof UpstreamRefused) failure.challenge = header(found, 'www-authenticate')
        throw failure
      }
      at = redirectTarget(at, header(found, 'location'), statusCode)
      if (seen.has(at.href)) {
        throw new UpstreamRefused(
          `${showUrl(url)} redirects in a circle, by way of ${showUrl(at)}`,
          statusCode,
        )
      }
      if (seen.size > this.#limits.redirects) {
        throw new UpstreamRefused(
          `${showUrl(url)} redirects more than ${this.#limits.redirects} times`,
          statusCode,
        )
      }
    }
  }

  async #send(url: URL, first: URL, asked: Asked, signal: AbortSignal) {
    signal.throwIfAborted()
    const left = this.#rests.leftFor(url)
    if (left !== undefined) throw new Transient(RESTING, { retryAfterMs: left, isResting: true })
    const headers: Record<string, string> = {
      'user-agent': 'upserv',
      'accept-encoding': 'identity',
      ...asked.headers,
    }
    // Who we are is for the host for which it was configured, wherever that redirects to.
    const isElsewhere = url.origin !== first.origin
    if (!isElsewhere && (first.username || first.password)) headers.authorization = basicAuth(first)
    if (!isElsewhere) Object.assign(headers, await this.#authorize(url, asked, signal))
    const { dispatcher } = isElsewhere ? this.#elsewhere : this.#route
    const sent = undici().request(withoutUser(url), {
      method: asked.method ?? 'GET',
      headers,
      body: asked.body ?? null,
      signal,
      dispatcher,
    })
    try {
      return await untilAborted(sent, signal)
    } catch (error) {
      signal.throwIfAborted()
      throw this.#classify(error, url)
    }
  }

  #classify(error: unknown, url: URL): unknown {
    const code = codeOf(error)
    if (BAD_CERTIFICATE.test(code)) {
      return new UpstreamRefused(
        `${showUrl(url)} has a certificate that is not accepted (${code})`,
        undefined,
        {
          hint: "Check this machine's clock and its ca-certificates. The source's ca names a file with an authority of your own.",
          cause: error,
        },
      )
    }
    // undici's word for what a proxy answers to CONNECT.
    if (/\b407\b/.test((error as Error).message)) return failureOf(url, 407, undefined, this.#clock.now())
    if (code === 'UND_ERR_INVALID_ARG') return error
    return new Transient(this.#reason(error, code), { cause: error })
  }

  #reason(error: unknown, code: string): string {
    switch (code) {
      case 'UND_ERR_CONNECT_TIMEOUT':
        return `no connection within ${formatDuration(this.#limits.connectMs)}`
      case 'UND_ERR_HEADERS_TIMEOUT':
        return `no answer within ${formatDuration(this.#limits.headersMs)}`
      default:
        return describe(error, code)
    }
  }
}

function bearer({ tokenFile }: HttpOptions): Record<string, string> {
  if (tokenFile === undefined) return {}
  return { authorization: `Bearer ${readSecret(tokenFile).trim()}` }
}

/** @throws ConfigError */
function readSecret(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new ConfigError(`${file} cannot be read: ${(cause as Error).message}`, { cause })
  }
}

/** What requests to a source go through: proxies of the environment, its certificates. */
export class Route {
  readonly #limits: SourceLimits
  readonly #tls: { ca?: string; cert?: string; key?: string }
  #dispatcher: Dispatcher | undefined

  /** @throws ConfigError for a certificate that can't be read, or a proxy that can't be one. */
  constructor(limits: SourceLimits, { ca, clientCert, clientKey }: HttpOptions) {
    this.#limits = limits
    this.#tls = {
      ...(ca === undefined ? {} : { ca: readSecret(ca) }),
      ...(clientCert === undefined
        ? {}
        : { cert: readSecret(clientCert), key: readSecret(clientKey ?? clientCert) }),
    }
    if (PROXY_VARIABLES.some((name) => process.env[name])) this.#dispatcher = this.#connect()
  }

  /** Made when it is first asked for. */
  get dispatcher(): Dispatcher {
    this.#dispatcher ??= this.#connect()
    return this.#dispatcher
  }

  #connect(): Dispatcher {
    const { EnvHttpProxyAgent } = undici()
    try {
      return new EnvHttpProxyAgent({
        connect: { timeout: this.#limits.connectMs, ...this.#tls },
        requestTls: this.#tls, // behind a proxy
        headersTimeout: this.#limits.headersMs,
        bodyTimeout: 0, // `chunks` watches it: only while somebody waits for a byte, and to the millisecond.
        allowH2: false, // One stream of bulk data gains nothing from it, and HTTP/1.1 fails in simpler ways.
      })
    } catch (cause) {
      throw new ConfigError(
        `the environment names a proxy that cannot be used: ${(cause as Error).message}`,
        {
          hint: 'http_proxy and https_proxy are URLs, as in http://proxy.example.org:3128.',
          cause,
        },
      )
    }
  }
}

class UndiciAnswer implements Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly #body: Body
  readonly #limits: SourceLimits
  readonly #signal: AbortSignal

  constructor(
    status: number,
    headers: IncomingHttpHeaders,
    body: Body,
    limits: SourceLimits,
    signal: AbortSignal,
  ) {
    this.status = status
    this.headers = headers
    this.#body = body
    this.#limits = limits
    this.#signal = signal
    // The connection may break while nobody reads; that is told to whoever reads next.
    body.on('error', () => undefined)
  }

  async *chunks(): AsyncGenerator<Uint8Array, void, undefined> {
    const body = this.#body
    const iterator: AsyncIterator<Uint8Array> = body[Symbol.asyncIterator]()
    /** Time spent waiting, and what came in it. */
    let slow = { ms: 0, bytes: 0 }
    try {
      for (;;) {
        // The time that the consumer takes is not the upstream's: the clock runs only while we wait.
        const stall = setTimeout(() => {
          body.destroy(new Transient(`nothing came for ${formatDuration(this.#limits.stallMs)}`))
        }, this.#limits.stallMs)
        const began = performance.now()
        let next: IteratorResult<Uint8Array>
        try {
          next = await iterator.next()
        } finally {
          clearTimeout(stall)
        }
        if (next.done) return
        slow = { ms: slow.ms + performance.now() - began, bytes: slow.bytes + next.value.length }
        if (slow.ms > this.#limits.slowMs) {
          if (slow.bytes < this.#limits.slowBytes) throw this.#tooSlow(slow.bytes)
          slow = { ms: 0, bytes: 0 }
        }
        yield next.value
      }
    } catch (error) {
      this.#signal.throwIfAborted()
      throw error instanceof Transient || error instanceof UpstreamUnreachable
        ? error
        : new Transient(describe(error, codeOf(error)), { cause: error })
    } finally {
      this.discard()
    }
  }

  discard(): void {
    release(this.#body)
  }

  /** Each new connection would bring a few bytes more: that must not look like progress. */
  #tooSlow(bytes: number): UpstreamUnreachable {
    const time = formatDuration(this.#limits.slowMs)
    return new UpstreamUnreachable(`the upstream sends too slowly: ${bytes} bytes in ${time}`, {
      hint: 'What has arrived is kept if possible. Try again later, or name another mirror.',
    })
  }
}

/**
 * `request` notices an abort only once it is connected, which can take until the connect limit. Whoever
 * aborts is let go at once; an answer that still comes is released.
 */
function untilAborted(sent: Promise<Dispatcher.ResponseData>, signal: AbortSignal) {
  return new Promise<Dispatcher.ResponseData>((resolve, reject) => {
    const onAbort = () => {
      reject(signal.reason)
      sent.then(({ body }) => release(body)).catch(() => undefined)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    sent.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}

/** Closes the connection rather than read to its end a body that nobody wants. */
function release(body: Body): void {
  if (!body.destroyed) body.on('error', () => undefined).destroy()
}

function redirectTarget(from: URL, location: string | undefined, status: number): URL {
  if (location === undefined || !URL.canParse(location, from)) {
    throw new UpstreamRefused(`${showUrl(from)} redirects to nowhere`, status)
  }
  const to = new URL(location, from)
  if (to.protocol !== 'http:' && to.protocol !== 'https:') {
    throw new UpstreamRefused(`${showUrl(from)} redirects to a ${to.protocol} URL`, status)
  }
  if (from.protocol === 'https:' && to.protocol === 'http:') {
    throw new UpstreamRefused(`${showUrl(from)} redirects from https to http, to ${showUrl(to)}`, status, {
      hint: 'That would give up what https protects. If it is meant so, write the http URL in the source.',
    })
  }
  return to
}

function failureOf(url: URL, status: number, retryAfter: string | undefined, now: number): Error {
  const message = `${showUrl(url)} answers ${status}`
  if (status >= 500 || status === 429 || status === 408) {
    return new Transient(`the upstream answers ${status}`, { retryAfterMs: parseRetryAfter(retryAfter, now) })
  }
  if (status === 401 || status === 403) {
    return new UpstreamRefused(`${message}: access denied`, status, {
      hint: "Put user:password@ before the host in the source's url, or name a token_file or client_cert.",
    })
  }
  if (status === 407) {
    return new UpstreamRefused(`${message}: the proxy wants a password`, status, {
      hint: 'Put user:password@ before the host in http_proxy and https_proxy.',
    })
  }
  if (status === 421) {
    return new UpstreamRefused(`${message}: it is not called so`, status, {
      hint: 'Where that is an upserv behind a proxy on its own machine, its http.names must have the name.',
    })
  }
  return new UpstreamRefused(message, status)
}

/** Whether an error says that upstream has no such file. */
export function isMissing(error: unknown): boolean {
  return error instanceof UpstreamRefused && (error.status === 404 || error.status === 410)
}

function basicAuth(url: URL): string {
  // A URL may hold a % that stands for itself ("50%off") and bytes that are not UTF-8: decodeURIComponent throws at both.
  const decode = (text: string): string =>
    text.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  return `Basic ${Buffer.from(`${decode(url.username)}:${decode(url.password)}`, 'latin1').toString('base64')}`
}

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | undefined)?.code
  return typeof code === 'string' ? code : ''
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection was refused',
  ECONNRESET: 'the connection was reset',
  EHOSTUNREACH: 'there is no route to the host',
  ENETUNREACH: 'there is no route to its network',
  ENOTFOUND: 'its host name is not known',
  EAI_AGAIN: 'the name server does not answer',
  ETIMEDOUT: 'the connection timed out',
  UND_ERR_SOCKET: 'the connection broke',
}

function describe(error: unknown, code: string): string {
  const known = REASONS[code]
  if (known) return known
  return `the connection failed: ${(error as Error).message || code || 'no reason given'}`
}
