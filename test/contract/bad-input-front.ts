/**
 * What stands between a source and the real server that it asks: an HTTP server that passes requests on,
 * except those that a fault is for. What the real server would have answered is at hand then, to be spoilt.
 */
import { request as ask, createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'

export interface Fault {
  /** The request that a build begins with, or the one for its bytes. */
  at: 'first' | 'bytes'
  /** @param count of requests that this fault has answered before. */
  reply(honest: Buffer, request: IncomingMessage, response: ServerResponse, count: number): void
}

export interface FrontOptions {
  /** The real server. */
  port: number
  /** Which requests are those, by method and path. */
  first: RegExp
  bytes: RegExp
  /** The path at the real server. */
  rewrite?: (path: string) => string
}

export class Front implements AsyncDisposable {
  readonly port: number
  readonly #close: () => Promise<void>
  #fault: Fault | undefined
  #count = 0

  private constructor(port: number, close: () => Promise<void>) {
    this.port = port
    this.#close = close
  }

  static async to(options: FrontOptions): Promise<Front> {
    const sockets = new Set<Socket>()
    let front: Front
    const server = createServer((request, response) => {
      void front.#answer(options, request, response).catch(() => response.destroy())
    })
    server.on('connection', (socket) => {
      sockets.add(socket)
      socket.on('close', () => sockets.delete(socket))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    front = new Front((server.address() as AddressInfo).port, async () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    })
    return front
  }

  /** From now on; undefined: all is passed on as it is. */
  set fault(fault: Fault | undefined) {
    this.#fault = fault
    this.#count = 0
  }

  async #answer(options: FrontOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const fault = this.#fault
    const isMeant = fault && options[fault.at].test(`${request.method} ${request.url}`)
    const honest = await passOn(options, request, isMeant ? undefined : response)
    if (isMeant) fault.reply(honest, request, response, this.#count++)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close()
  }
}

/** @returns the real server's answer; streamed to `response` where there is one, as it comes. */
async function passOn(
  { port, rewrite = (path) => path }: FrontOptions,
  request: IncomingMessage,
  response: ServerResponse | undefined,
): Promise<Buffer> {
  const body = Buffer.concat(await Array.fromAsync(request as AsyncIterable<Buffer>))
  const headers = { ...request.headers }
  // A spoilt part is cut from the whole.
  if (!response) for (const name of ['range', 'if-range']) delete headers[name]
  const { method } = request
  const forwarded = ask({
    ...{ host: '127.0.0.1', port, path: rewrite(request.url ?? ''), agent: false },
    ...(method === undefined ? {} : { method }),
    headers,
  })
  forwarded.end(body)
  const answer = await new Promise<IncomingMessage>((resolve, reject) =>
    forwarded.once('response', resolve).once('error', reject),
  )
  if (!response) return Buffer.concat(await Array.fromAsync(answer as AsyncIterable<Buffer>))
  response.writeHead(answer.statusCode ?? 500, answer.headers)
  response.on('close', () => forwarded.destroy())
  answer.pipe(response)
  return Buffer.alloc(0)
}

interface SendOptions {
  etag: string
  /** Ends the connection when all before this byte of the file was sent. */
  upTo?: number
  /** Without a length; with more behind the right bytes. */
  extra?: Uint8Array
}

/** Answers with a file, or the part that was asked for, as a good server does, except where told otherwise. */
export function send(
  file: Uint8Array,
  request: IncomingMessage,
  response: ServerResponse,
  { etag, upTo, extra }: SendOptions,
): void {
  const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1]
  const isSame = [undefined, etag].includes(request.headers['if-range'] as string | undefined)
  const start = range !== undefined && isSame ? Math.min(Number(range), file.length) : 0
  response.setHeader('etag', etag)
  if (start > 0) {
    response.statusCode = 206
    response.setHeader('content-range', `bytes ${start}-${file.length - 1}/${file.length}`)
  }
  if (!extra) response.setHeader('content-length', file.length - start)
  if (upTo === undefined) {
    response.write(file.subarray(start))
    response.end(extra)
    return
  }
  response.flushHeaders()
  response.write(file.subarray(start, Math.max(start, upTo)), () => request.socket.end())
}

/** Writes without end, as fast as it is read. */
export function endless(response: ServerResponse, piece: Uint8Array): void {
  const more = (): void => {
    while (!response.destroyed && response.write(piece));
  }
  response.on('drain', more)
  more()
}
