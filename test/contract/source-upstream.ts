/**
 * An HTTP upstream that does what a script says: for each path the replies to one request after the
 * other, the last of them for all that follow. Every request is written down as the script's author
 * would: `GET /os802.tar bytes=5- if "a"`.
 *
 * Connections are cut as soon as the client says that it has had the bytes before the cut: what is still
 * under way when a connection breaks may or may not arrive, and the next request would be anyone's guess.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { TestContext } from 'node:test'
import { createSource } from '../../src/source/create.ts'
import type { SourceLimits } from '../../src/source/limits.ts'
import type { Source, SourceConfig, SourceEvent } from '../../src/source/source.ts'
import type { Spool } from '../../src/source/spool.ts'

// Whoever runs the tests behind a proxy still means this machine by 127.0.0.1.
process.env.no_proxy = '*'

export type Reply = (request: IncomingMessage, response: ServerResponse, progress: Progress) => void

/** How far the client is. */
export class Progress {
  #count = 0
  #waiting: { count: number; action: () => void }[] = []

  reached(count: number): void {
    this.#count = count
    const due = this.#waiting.filter((waiting) => waiting.count <= count)
    this.#waiting = this.#waiting.filter((waiting) => waiting.count > count)
    for (const { action } of due) action()
  }

  /** Runs the action as soon as the client has had so many bytes. */
  at(count: number, action: () => void): void {
    this.#waiting.push({ count, action })
    this.reached(this.#count)
  }
}

export interface Upstream {
  /** `http://127.0.0.1:PORT` */
  readonly url: string
  readonly requests: string[]
  readonly headers: IncomingMessage['headers'][]
  /** Connections that are open right now. */
  readonly sockets: ReadonlySet<Socket>
  readonly progress: Progress
}

export async function startUpstream(t: TestContext, script: Record<string, Reply[]>): Promise<Upstream> {
  const requests: string[] = []
  const headers: IncomingMessage['headers'][] = []
  const sockets = new Set<Socket>()
  const progress = new Progress()
  const turns = new Map<string, number>()
  const server = createServer((request, response) => {
    const path = request.url ?? ''
    const { range, 'if-range': ifRange } = request.headers
    requests.push([`${request.method} ${path}`, range, ifRange && `if ${ifRange}`].filter(Boolean).join(' '))
    headers.push(request.headers)
    const replies = script[path]
    const turn = turns.get(path) ?? 0
    turns.set(path, turn + 1)
    const reply = replies?.[Math.min(turn, replies.length - 1)] ?? status(404)
    reply(request, response, progress)
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    headers,
    sockets,
    progress,
  }
}

// ---------------------------------------------------------------------------------------------------
// Replies.

export function status(code: number, headers: Record<string, string> = {}, body = ''): Reply {
  return (_, response) => void response.writeHead(code, headers).end(body)
}

/** Closes the connection without an answer. */
export const hangUp: Reply = (request) => void request.socket.destroy()

/** Accepts the request and never answers. */
export const silence: Reply = () => undefined

export interface FileReply {
  /** Default: derived from the content, as a good upstream does. null: none. */
  etag?: string | null
  lastModified?: string
  /** Answer 200 with all of it, whatever was asked for. */
  ignoreRange?: boolean
  /** Send this many bytes of the body, then break the connection. */
  cutAt?: number
  /** Send this many bytes of the body, then nothing more. */
  stallAt?: number
  /** Without Content-Length. */
  chunked?: boolean
  /** Headers that replace the right ones. */
  headers?: Record<string, string>
  /** Bytes sent behind the right ones. */
  extra?: Uint8Array
}

export function etagOf(content: Uint8Array): string {
  return `"${createHash('sha256').update(content).digest('hex').slice(0, 16)}"`
}

/** Serves a file as RFC 9110 has it, except where told otherwise. */
export function file(content: Uint8Array, options: FileReply = {}): Reply {
  const etag = options.etag === undefined ? etagOf(content) : options.etag
  return (request, response, progress) => {
    const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')
    const validators: unknown[] = [etag?.startsWith('"') ? etag : undefined, options.lastModified]
    const ifRange = request.headers['if-range']
    const ranged = range && !options.ignoreRange && (ifRange === undefined || validators.includes(ifRange))
    const start = ranged ? Number(range[1]) : 0
    if (etag !== null) response.setHeader('etag', etag)
    if (options.lastModified) response.setHeader('last-modified', options.lastModified)
    if (start >= content.length && ranged) {
      response.writeHead(416, { 'content-range': `bytes */${content.length}` }).end()
      return
    }
    if (ranged) {
      response.statusCode = 206
      response.setHeader('content-range', `bytes ${start}-${content.length - 1}/${content.length}`)
    }
    const body = content.subarray(start)
    if (!options.chunked) response.setHeader('content-length', body.length)
    for (const [name, value] of Object.entries(options.headers ?? {})) response.setHeader(name, value)
    const sent = options.cutAt ?? options.stallAt
    if (sent === undefined) {
      response.write(body)
      response.end(options.extra)
      return
    }
    response.flushHeaders()
    const cut = () => progress.at(start + sent, () => options.cutAt !== undefined && request.socket.destroy())
    if (sent === 0) cut()
    else response.write(body.subarray(0, sent), cut)
  }
}

// ---------------------------------------------------------------------------------------------------
// The other side.

/** Limits short enough that a test which runs into them does not notice. */
export const QUICK = { connectMs: 2000, headersMs: 300, stallMs: 100 }

/** A source that offers `/{build}` of an upstream, for whom no wait takes time. */
export function quickSource(
  upstream: Pick<Upstream, 'url'> | undefined,
  config: Partial<SourceConfig> = {},
  limits: Partial<SourceLimits> = {},
  waits: number[] = [],
): Source {
  const url = `${upstream?.url}/{build}`
  const defaults = { name: 'test', builds: '^.+$', url, checksum: undefined, contents: undefined }
  const source = createSource(
    { ...defaults, ...config },
    {
      limits: { ...QUICK, ...limits },
      clock: { random: () => 1, sleep: async (ms) => void waits.push(ms) },
    },
  )
  assert.equal(source.kind, 'archive')
  return source as Source
}

export interface Attempt {
  /** Where it comes from: `/{build}` below it, unless `config` says otherwise. */
  upstream?: Upstream
  config?: Partial<SourceConfig>
  id?: string
  spool?: Spool
  signal?: AbortSignal
  limits?: Partial<SourceLimits>
  /** Called with the number of bytes had so far, after each chunk. */
  onBytes?(count: number): void | Promise<void>
}

export interface Result {
  bytes: Buffer
  error: Error & { code?: string; hint?: string | undefined }
  events: SourceEvent[]
  waits: number[]
}

/** Locates and downloads once, as a process would; `error` is what came of it, if anything. */
export async function download(attempt: Attempt): Promise<Result> {
  const { upstream, config, id = '802', spool, signal = new AbortController().signal, onBytes } = attempt
  const events: SourceEvent[] = []
  const waits: number[] = []
  const chunks: Uint8Array[] = []
  let count = 0
  let error = undefined as unknown as Result['error']
  try {
    const source = quickSource(upstream, config, attempt.limits, waits)
    await using found = await source.locate(id, { signal, spool, onEvent: (event) => events.push(event) })
    for await (const chunk of found.bytes()) {
      chunks.push(chunk)
      count += chunk.length
      await onBytes?.(count)
      upstream?.progress.reached(count)
    }
  } catch (caught) {
    error = caught as Result['error']
  }
  return { bytes: Buffer.concat(chunks), error, events, waits }
}

/** Bytes that repeat nowhere, so that a part in the wrong place shows. */
export function content(size: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(size)
  let state = seed >>> 0
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}
