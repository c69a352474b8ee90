/**
 * Builds for those without rsync:
 *
 *     /builds/<id>/root/<path>      a file, in ranges, or what is in a directory
 *     /builds/<id>/contents         as the file of the same name in the build's module
 *     /builds/<id>/manifest.json    a list of all that is in it
 *     /builds/<id>.tar, .tar.zst    all of it
 *
 * The rules of the build's rsync module hold here as well: who may not have it, may not have it here, and what
 * it hides is hidden. Who would have to log in has to use rsync, which does not send passwords in the open. A
 * build that is not held is fetched: the client is told to come again, as `curl --retry` does.
 *
 * What is in a build was made by somebody else, and a browser must not take it for a page of ours: it is sent
 * as bytes to be saved, in a sandbox.
 */
import { hash } from 'node:crypto'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { constants, createZstdCompress } from 'node:zlib'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isBuildId, moduleOf } from '../build/build-id.ts'
import { contentOf, findNode, manifestJsonOf, tarOf, typeNameOf } from '../build/export.ts'
import { AccessDenied, RequestError } from '../errors.ts'
import { paced, type Share } from '../lib/bandwidth.ts'
import { ascii, type ByteString, showBytes } from '../lib/bytes.ts'
import { isDirectoryMode, isRegularMode } from '../lib/file-mode.ts'
import type { Logger } from '../lib/log.ts'
import { formatPeer, type Peer, peerOf } from '../lib/peer.ts'
import type { Visitor } from '../rsync/access.ts'
import { HiddenTree } from '../rsync/hidden-tree.ts'
import type { Asker, Modules, OpenModule } from '../rsync/modules.ts'
import type { Tree } from '../rsync/tree.ts'
import { parseRange } from './range.ts'

export interface FilesParts {
  modules: Modules
  /** Begins to judge a client. */
  visitor: (client: Peer) => Visitor
  log: Logger
  /** One who takes nothing for so long is hung up on: a download keeps its build, and others out. */
  idleMs: () => number
  /** Begins to count what one who comes from there is sent. */
  pace: (client: Peer) => Share
  /** Ends what is under way. */
  signal: AbortSignal
}

/** Answers with content that are under way. */
const MAX_ANSWERS = 64
/** Of these, archives: each compresses, or keeps the disk busy. */
const MAX_ARCHIVES = 8
/** How long a request waits for a build that is not held, before it is told to come again. */
const PATIENCE_MS = 2000
const RETRY_S = 5
/** Builds that are waited for on behalf of requests that were told to come again. */
const MAX_OPENING = 20
/** Entries of a directory that are listed. */
const MAX_LISTED = 50_000
/** Quick: the reader waits. */
const ZSTD_LEVEL = 3

const PREFIX = '/builds/'
const ROOT = ascii('root')
const CONTENTS = ascii('contents')

/**
 * The rest of a path is bytes, which the router must not decode as text: it goes through it as one word.
 * For the router's `rewriteUrl`.
 */
export function shieldPath(url: string): string {
  if (!url.startsWith(PREFIX)) return url
  const [path = '', ...query] = url.split('?')
  return [PREFIX + encodeURIComponent(path.slice(PREFIX.length)), ...query].join('?')
}

export function serveFiles(app: FastifyInstance, parts: FilesParts): void {
  const files = new Files(parts)
  app.get(`${PREFIX}*`, (request, reply) => files.serve(request, reply))
}

type What = 'file' | 'manifest' | 'tar' | 'tar.zst'

interface Asked {
  id: string
  what: What
  /** Of a file, from the module's root: "root/etc/passwd", "contents". */
  path: ByteString
  /** The path ends in a slash, so that relative links in a list work. */
  slash: boolean
}

class Files {
  readonly #parts: FilesParts
  #answers = 0
  #archives = 0
  /** Modules on their way, by name. */
  readonly #opening = new Map<string, Promise<OpenModule>>()

  constructor(parts: FilesParts) {
    this.#parts = parts
  }

  async serve(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const asked = parse((request.params as { '*': string })['*'])
    if (!asked) throw new RequestError(404, 'there is no such thing in a build')
    // One who has hung up is not worked for any more.
    const gone = new AbortController()
    reply.raw.once('close', () => gone.abort(new RequestError(499, 'the client left')))
    const signal = AbortSignal.any([gone.signal, this.#parts.signal])
    const { tree, release } = await this.#open(asked.id, request, signal)
    let handedOver = false
    try {
      reply.headers(SANDBOX)
      const done = (): void => release()
      handedOver = await this.#answer(asked, tree, request, reply, signal, done)
      return reply
    } finally {
      if (!handedOver) release()
    }
  }

  /** The tree as this client may see it. */
  async #open(
    id: string,
    { socket }: FastifyRequest,
    signal: AbortSignal,
  ): Promise<{ tree: Tree; release: () => void }> {
    const { modules, visitor: begin } = this.#parts
    const visitor = begin(peerOf(socket))
    const name = moduleOf(id)
    const ruledBy = modules.ruledBy(name)
    if (!visitor.mayKnock(ruledBy)) throw new AccessDenied(`access denied to build ${id}`)
    if (visitor.mustProve(ruledBy)) {
      throw new AccessDenied(`build ${id} is for users who log in`, {
        hint: `Use rsync, which asks for the password: rsync -a rsync://USER@SERVER/${name}/root/ PLACE`,
      })
    }
    const { hides } = visitor.settings(ruledBy)
    const { tree, release } = await this.#openSoon(name, visitor)
    return { tree: hides.length > 0 ? new HiddenTree(tree, hides, signal) : tree, release }
  }

  /** @throws RequestError that says when to come again, for a build that takes long to be fetched. */
  async #openSoon(name: string, asker: Asker): Promise<OpenModule> {
    const known = this.#opening.get(name)
    if (known) throw comeAgain(name)
    const { modules, signal, log } = this.#parts
    const tooMany = new AbortController()
    const opening = modules.open(name, asker, () => {}, AbortSignal.any([signal, tooMany.signal]))
    const soon = await Promise.race([opening, sleep(PATIENCE_MS, undefined, { ref: false })])
    if (soon) return soon
    // The fetch goes on. Whoever waits for it here keeps it from being given up while it is in line.
    this.#opening.set(name, opening)
    opening
      .then((module) => module.release())
      .catch((error: Error) => log.info({ module: name, reason: error.message }, 'nothing for http'))
      .finally(() => this.#opening.delete(name))
    if (this.#opening.size > MAX_OPENING)
      tooMany.abort(new RequestError(503, 'too many builds are waited for'))
    throw comeAgain(name)
  }

  /** @returns whether `done` will be called later. */
  async #answer(
    asked: Asked,
    tree: Tree,
    request: FastifyRequest,
    reply: FastifyReply,
    signal: AbortSignal,
    done: () => void,
  ): Promise<boolean> {
    const { id, what } = asked
    await tree.enter?.(0)
    const root = tree.child(0, ROOT)
    if (what === 'file') return this.#answerFile(asked, tree, request, reply, signal, done)
    if (root < 0) throw new RequestError(404, `nothing of build ${id} is to be seen`)
    const etag = `W/"${hash('sha256', `${tree.key}:${what}`).slice(0, 32)}"`
    reply.header('etag', etag)
    // What a module hides is known to this request alone, and so is its tag.
    if (!tree.key.startsWith('hidden:') && matchesTag(request.headers['if-none-match'], etag)) {
      reply.code(304).send()
      return false
    }
    const source = what === 'manifest' ? manifestJsonOf(tree, root, id, signal) : tarOf(tree, root, signal)
    reply.header('content-type', ARCHIVE_TYPES[what])
    if (what !== 'manifest') reply.header('content-disposition', `attachment; filename="${id}.${what}"`)
    return this.#stream(request, reply, source, { what, compress: what === 'tar.zst', done, signal })
  }

  async #answerFile(
    { id, path, slash }: Asked,
    tree: Tree,
    request: FastifyRequest,
    reply: FastifyReply,
    signal: AbortSignal,
    done: () => void,
  ): Promise<boolean> {
    const node = await this.#find(tree, path)
    if (node < 0) throw new RequestError(404, `build ${id} has no ${showBytes(path)}`)
    const mode = tree.mode(node)
    if (isDirectoryMode(mode)) {
      await answerDirectory(tree, node, { id, path, slash }, request, reply)
      return false
    }
    if (!isRegularMode(mode)) {
      throw new RequestError(404, `${showBytes(path)} is a ${typeNameOf(mode)}, which has no content`)
    }
    const size = tree.size(node)
    const sha256 = tree.digest(node, 'sha256')
    const etag = `"${sha256 ? Buffer.from(sha256).toString('hex') : hash('sha256', tree.contentKey(node))}"`
    reply.headers({
      etag,
      'last-modified': new Date(tree.mtime(node) * 1000).toUTCString(),
      'accept-ranges': 'bytes',
      'content-type': 'application/octet-stream',
      'content-disposition': 'attachment',
      ...(sha256 ? { 'repr-digest': `sha-256=:${Buffer.from(sha256).toString('base64')}:` } : {}),
    })
    if (matchesTag(request.headers['if-none-match'], etag)) {
      reply.code(304).send()
      return false
    }
    const condition = request.headers['if-range']
    const ranged = condition === undefined || condition === etag
    const range = ranged ? parseRange(request.headers.range, size) : undefined
    if (range === 'none') {
      reply.code(416).header('content-range', `bytes */${size}`)
      throw new RequestError(416, `${showBytes(path)} has ${size} bytes`)
    }
    const { from, end } = range ?? { from: 0, end: size }
    if (range) reply.code(206).header('content-range', `bytes ${from}-${end - 1}/${size}`)
    reply.header('content-length', end - from)
    const source = contentOf(tree, node, from, end)
    return this.#stream(request, reply, source, { what: 'file', compress: false, done, signal })
  }

  async #find(tree: Tree, path: ByteString): Promise<number> {
    if (path === CONTENTS) return tree.child(0, CONTENTS)
    const root = tree.child(0, ROOT)
    return root < 0 ? -1 : findNode(tree, root, path.slice(ROOT.length + 1) as ByteString)
  }

  /** Sends what comes, as fast as it is read. */
  #stream(
    request: FastifyRequest,
    reply: FastifyReply,
    source: AsyncGenerator<Buffer>,
    {
      what,
      compress,
      done,
      signal,
    }: { what: What; compress: boolean; done: () => void; signal: AbortSignal },
  ): boolean {
    if (request.method === 'HEAD') {
      reply.send(Readable.from([])) // an empty text would take the place of the length
      return false
    }
    const isArchive = what === 'tar' || what === 'tar.zst'
    if (this.#answers >= MAX_ANSWERS || (isArchive && this.#archives >= MAX_ARCHIVES)) {
      reply.header('retry-after', RETRY_S)
      throw new RequestError(503, 'too much is being downloaded', { hint: 'Try again later.' })
    }
    this.#answers++
    if (isArchive) this.#archives++
    const { log, idleMs } = this.#parts
    reply.raw.setTimeout(idleMs())
    const began = performance.now()
    let bytes = 0
    const counted = async function* (): AsyncGenerator<Buffer> {
      for await (const piece of source) {
        bytes += piece.length
        yield piece
      }
    }
    const readable = Readable.from(counted(), { objectMode: false, highWaterMark: 256 * 1024 })
    const params = { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL }
    const zstd = compress ? createZstdCompress({ params }) : undefined
    if (zstd) pipeline(readable, zstd).catch(() => {}) // what is sent has the error as well
    const share = this.#parts.pace(peerOf(request.socket))
    const sent = zstd ?? readable
    const body = Readable.from(paced(sent, share), { objectMode: false, highWaterMark: 256 * 1024 })
    body.once('close', () => {
      this.#answers--
      if (isArchive) this.#archives--
      share.leave()
      sent.destroy()
      done()
      const failed = body.errored ?? readable.errored
      const facts = {
        peer: formatPeer(peerOf(request.socket)),
        url: request.originalUrl,
        bytes,
        ms: Math.round(performance.now() - began),
      }
      if (failed && !signal.aborted) log.warn({ ...facts, reason: failed.message }, 'download failed')
      else log[isArchive ? 'info' : 'debug'](facts, signal.aborted ? 'download broke off' : 'download ended')
    })
    reply.send(body)
    return true
  }
}

const ARCHIVE_TYPES = {
  manifest: 'application/json; charset=utf-8',
  tar: 'application/x-tar',
  'tar.zst': 'application/zstd',
  file: 'application/octet-stream',
} as const

const SANDBOX = {
  'content-security-policy': "sandbox; default-src 'none'",
  'cache-control': 'private, no-cache', // what a tag names never changes; whether one may still have it does
}

function comeAgain(name: string): RequestError {
  return new RequestError(503, `${name} is not here yet: it is being fetched`, {
    hint: `Try again in ${RETRY_S} seconds; /api/v1/fetches tells how it goes.`,
    retryAfterS: RETRY_S,
  })
}

/** Undefined for what names nothing. */
function parse(raw: string): Asked | undefined {
  const slash = raw.endsWith('/')
  const [first = '', ...rest] = raw.split('/')
  const segments = rest.map(decodeBytes)
  const head = decodeBytes(first)
  if (head === undefined || segments.some((segment) => segment === undefined || /[/\0]/.test(segment)))
    return undefined
  if (rest.length === 0) {
    const archive = /^(.+)\.(tar\.zst|tar)$/.exec(head)
    return archive && isBuildId(archive[1]!)
      ? { id: archive[1]!, what: archive[2] as What, path: NOTHING, slash }
      : undefined
  }
  if (!isBuildId(head)) return undefined
  const path = segments.filter((segment) => segment !== '').join('/') as ByteString
  if (path === 'manifest.json') return { id: head, what: 'manifest', path, slash }
  return path === CONTENTS || segments[0] === ROOT ? { id: head, what: 'file', path, slash } : undefined
}

const NOTHING = ascii('')

/** Percent-encoded bytes. Undefined for what is none. */
function decodeBytes(text: string): ByteString | undefined {
  if (/%(?![0-9A-Fa-f]{2})/.test(text)) return undefined
  const bytes = Buffer.from(text, 'utf8').toString('latin1')
  return bytes.replaceAll(/%(..)/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  ) as ByteString
}

function encodeBytes(bytes: ByteString): string {
  return bytes.replaceAll(/[^A-Za-z0-9._~-]/g, (byte) => {
    return `%${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`
  })
}

function matchesTag(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false
  const bare = (tag: string): string => tag.trim().replace(/^W\//, '')
  return header.trim() === '*' || header.split(',').some((tag) => bare(tag) === bare(etag))
}

// ---------------------------------------------------------------------------------------------------
// Directories

async function answerDirectory(
  tree: Tree,
  node: number,
  { id, path, slash }: Pick<Asked, 'id' | 'path' | 'slash'>,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  if (!slash) {
    const [url = ''] = request.originalUrl.split('?', 1)
    reply.redirect(`${url}/`, 308)
    return
  }
  await tree.enter?.(node)
  const count = tree.childCount(node)
  if (count > MAX_LISTED) {
    throw new RequestError(503, `${showBytes(path)} has ${count} entries`, { hint: 'See manifest.json.' })
  }
  const first = tree.firstChild(node)
  const entries = Array.from({ length: count }, (_, i) => first + i).map((child) => {
    const mode = tree.mode(child)
    return {
      name: tree.name(child),
      href: encodeBytes(tree.name(child)) + (isDirectoryMode(mode) ? '/' : ''),
      type: typeNameOf(mode),
      size: isRegularMode(mode) ? tree.size(child) : 0,
    }
  })
  if (request.headers.accept?.includes('application/json')) {
    const listed = entries.map(({ name, ...rest }) => ({ name: showBytes(name, 4096), ...rest }))
    reply.type('application/json; charset=utf-8').send(JSON.stringify(listed))
    return
  }
  const title = `build ${id}: /${showBytes(path.slice(ROOT.length + 1) as ByteString, 4096)}`
  const lines = entries.map(
    ({ name, href, type, size }) =>
      `<tr><td><a href="${href}">${escapeHtml(showBytes(name, 4096))}</a></td><td>${type}</td><td>${type === 'file' ? size : ''}</td></tr>`,
  )
  reply
    .type('text/html; charset=utf-8')
    .send(
      [
        `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark">`,
        `<title>${escapeHtml(title)}</title><h1>${escapeHtml(title)}</h1>`,
        '<table><tr><th>name</th><th>type</th><th>bytes</th></tr>',
        path === ROOT ? '' : '<tr><td><a href="../">..</a></td><td></td><td></td></tr>',
        ...lines,
        '</table></html>',
      ].join('\n'),
    )
}

function escapeHtml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`)
}
