/**
 * The page for people: files of page/, as they are. Nothing is built, and nothing comes from elsewhere. The
 * browser is told to run what comes from here and nothing else.
 */
import { hash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { FastifyInstance } from 'fastify'

const DIRECTORY = fileURLToPath(new URL('./page', import.meta.url))

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
}

const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

export function servePage(app: FastifyInstance): void {
  for (const name of readdirSync(DIRECTORY, { recursive: true, encoding: 'utf8' })) {
    const type = TYPES[extname(name)]
    if (type === undefined) continue
    const content = readFileSync(join(DIRECTORY, name))
    const etag = `"${hash('sha256', content).slice(0, 32)}"`
    const url = name === 'index.html' ? '/' : `/page/${name}`
    app.get(url, (request, reply) => {
      reply.headers({
        etag,
        'cache-control': 'no-cache',
        'content-type': type,
        'content-security-policy': POLICY,
      })
      return request.headers['if-none-match'] === etag ? reply.code(304).send() : reply.send(content)
    })
  }
}
