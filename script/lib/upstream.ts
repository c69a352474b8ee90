/**
 * The smallest upstream: a directory of archives over HTTP, with ranges and validators, so that a broken
 * download can go on. For the demonstration; real upstreams are real web servers.
 */
import { createReadStream, readdirSync, type Stats, statSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream/promises'

/** Serves the plain files of `dir`, by name, at `http://127.0.0.1:PORT/`. */
export async function startUpstream(dir: string): Promise<{ url: string; server: Server }> {
  const server = createServer((request, response) => {
    answer(dir, request, response).catch(() => response.destroy())
  })
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server }
}

async function answer(dir: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const name = basename(new URL(request.url ?? '/', 'http://upstream').pathname)
  const file = readdirSync(dir).includes(name) ? join(dir, name) : undefined
  const stat = file === undefined ? undefined : statSync(file)
  if (!file || !stat?.isFile()) return void response.writeHead(404).end('not here\n')
  if (request.method !== 'GET' && request.method !== 'HEAD') return void response.writeHead(405).end()

  const etag = `"${stat.size.toString(16)}-${Math.trunc(stat.mtimeMs).toString(16)}"`
  const headers = {
    'accept-ranges': 'bytes',
    'content-type': 'application/octet-stream',
    'last-modified': stat.mtime.toUTCString(),
    etag,
  }
  const range = rangeOf(request, stat, etag)
  if (range === 'unsatisfiable') {
    return void response.writeHead(416, { ...headers, 'content-range': `bytes */${stat.size}` }).end()
  }
  const { start, end } = range ?? { start: 0, end: stat.size }
  response.writeHead(range ? 206 : 200, {
    ...headers,
    'content-length': end - start,
    ...(range && { 'content-range': `bytes ${start}-${end - 1}/${stat.size}` }),
  })
  if (request.method === 'HEAD' || end === start) return void response.end()
  await pipeline(createReadStream(file, { start, end: end - 1 }), response)
}

/** The one range that was asked for, its end exclusive; undefined for the whole file. */
function rangeOf(
  request: IncomingMessage,
  { size }: Stats,
  etag: string,
): { start: number; end: number } | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
  const condition = request.headers['if-range']
  if (!match || (condition !== undefined && condition !== etag)) return undefined
  const start = Number(match[1])
  const end = match[2] ? Math.min(Number(match[2]) + 1, size) : size
  return start >= end ? 'unsatisfiable' : { start, end }
}
