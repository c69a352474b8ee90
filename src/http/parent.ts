/**
 * The HTTP side of being a parent: paths, who may ask, and how an answer streams. What is answered is
 * build/parent.ts's to say; the bytes are those of source/parent-wire.ts.
 *
 *     GET  /parent/v1/builds                  what there is, as JSON
 *     POST /parent/v1/builds/ID               {"seals": [...]}: lines while it is fetched, then its manifest
 *     GET  /parent/v1/builds/ID/contents      the file `contents`
 *     POST /parent/v1/builds/ID/blobs         the blobs that are named, in spans
 *
 * The rules of a build's module hold here as well. Where they want a password, it comes as HTTP has it
 * (Basic); where they hide files, a child may not have the build at all, since it would show them.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { isBuildId, moduleOf } from '../build/build-id.ts'
import type { Parent } from '../build/parent.ts'
import {
  AccessDenied,
  FetchesSpent,
  LoginsSlowed,
  NoSuchBuild,
  RefusedError,
  reportError,
  ServerBusy,
  UpservError,
} from '../errors.ts'
import { paced, type Share } from '../lib/bandwidth.ts'
import { utf8Bytes } from '../lib/bytes.ts'
import { type Peer, peerOf } from '../lib/peer.ts'
import { Tally } from '../lib/tally.ts'
import type { Asker } from '../rsync/modules.ts'
import {
  type AnswerLine,
  decodeBlobRequest,
  MAX_REQUEST_BYTES,
  MAX_SEALS_BYTES,
  PARENT_PATH,
  sealsRequest,
} from '../source/parent-wire.ts'

/** Requests that wait for a build to be fetched. */
const MAX_WAITING = 200
/**
 * Answers of blobs and contents files at a time, some of them taken slowly. Each holds a frame of 4 MB at most and 2 MB
 * of what was asked for: 400 MB, should all be large and slow.
 */
const MAX_SENDING = 64
/** Those of one source: a site of some children, each of which asks for three builds at most, and not all that there are. */
const MAX_SENDING_OF_SOURCE = 16
/**
 * Manifests and contents files that are being sent, some of them slowly, and so are held in memory: as long as there
 * are more nobody else is answered.
 */
const MAX_SENDING_BYTES = 128 << 20
/** Of these, to one source: others get theirs meanwhile. */
const MAX_SENDING_BYTES_OF_SOURCE = MAX_SENDING_BYTES / 4
/** Who does not take a byte for so long is gone. */
const IDLE_MS = 120_000
const BUSY_RETRY_S = 5

/** What we ask of who knows the rules: access/policy.ts has it. */
export interface ChildVisitor extends Asker {
  mayKnock(modules: readonly string[]): boolean
  mustProve(modules: readonly string[]): boolean
  proveSlowly(modules: readonly string[], proof: Proof): Promise<boolean>
  introduce(proof: Proof): Promise<boolean>
  settings(modules: readonly string[]): { hides: readonly unknown[] }
}

export interface ParentDoorOptions {
  /** There once the store is open. */
  parent: Promise<Parent>
  visitor(client: Peer): ChildVisitor
  /** What counts as one, of those who come from there. */
  source(client: Peer): string
  /** Begins to count what one who comes from there is sent. */
  pace(client: Peer): Share
  /** Aborted when the server stops. */
  signal: AbortSignal
  onRequest(running: Promise<unknown>): void
  log(fields: Record<string, unknown>, message: string): void
}

/** Takes what is meant for it, and says whether it did. */
export type ChildHandler = (request: IncomingMessage, response: ServerResponse) => boolean

export function parentDoor(options: ParentDoorOptions): ChildHandler {
  const door = new ParentDoor(options)
  return (request, response) => door.handle(request, response)
}

interface Call {
  request: IncomingMessage
  response: ServerResponse
  client: Peer
  visitor: ChildVisitor
  id: string
  signal: AbortSignal
}

class ParentDoor {
  readonly #options: ParentDoorOptions
  #waiting = 0
  #sending = 0
  readonly #sendingBySource = new Tally()
  readonly #sendingBytesBySource = new Tally()
  #sendingBytes = 0

  constructor(options: ParentDoorOptions) {
    this.#options = options
  }

  handle(request: IncomingMessage, response: ServerResponse): boolean {
    const [path = ''] = (request.url ?? '').split('?', 1)
    if (!path.startsWith(`${PARENT_PATH}/`)) return false
    const running = this.#answer(request, response, path.slice(PARENT_PATH.length)).catch((error) => {
      this.#fail(response, error)
    })
    this.#options.onRequest(running)
    return true
  }

  async #answer(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
    const abort = new AbortController()
    response.once('close', () => abort.abort(new RefusedError('the child is gone')))
    response.setTimeout(IDLE_MS, () => response.destroy())
    const { client, proof } = whoAsks(request)
    const visitor = this.#options.visitor(client)
    const signal = AbortSignal.any([abort.signal, this.#options.signal])
    signal.throwIfAborted()
    const [, builds, id, part] = /^\/(builds)(?:\/([^/]+)(?:\/(contents|blobs))?)?$/.exec(path) ?? []
    if (builds === undefined || (id !== undefined && !isBuildId(id)))
      throw new NoSuchBuild('no such resource')
    const wants = id === undefined || part === 'contents' ? 'GET' : 'POST'
    if (request.method !== wants) throw new RefusedError(`this is asked for by ${wants}`)
    if (id === undefined) {
      if (proof) await visitor.introduce(proof)
      const listing = await (await this.#options.parent).list(childOf(visitor), signal)
      sendJson(response, 200, listing)
      return
    }
    await this.#admit(visitor, id, proof)
    const call: Call = { request, response, client, visitor, id, signal }
    if (part === 'blobs') await this.#sendBlobs(call)
    else if (part === 'contents') await this.#sendContents(call)
    else await this.#sendBuild(call)
    this.#options.log({ build: id, part: part ?? 'manifest', child: client.address }, 'child served')
  }

  async #admit(visitor: ChildVisitor, id: string, proof: Proof | undefined): Promise<void> {
    const modules = [moduleOf(id)]
    const proven =
      !visitor.mustProve(modules) || (proof !== undefined && (await visitor.proveSlowly(modules, proof)))
    if (!visitor.mayKnock(modules) || !proven) {
      throw new AccessDenied(`access denied to ${moduleOf(id)}`, {
        hint: 'The rules of the module hold for child servers too: let them in by address, or give them a password.',
      })
    }
    if (visitor.settings(modules).hides.length > 0) {
      throw new AccessDenied(`${moduleOf(id)} hides files here, and a child server would show them`)
    }
  }

  async #sendBuild(call: Call): Promise<void> {
    const { request, response, visitor, id, signal } = call
    const seals = readSeals(await readBody(request, MAX_SEALS_BYTES))
    if (this.#waiting >= MAX_WAITING) throw new ServerBusy(MAX_WAITING)
    this.#mustHaveRoom(call)
    const write = (line: AnswerLine): void => {
      if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/octet-stream' })
      response.write(`${JSON.stringify(line)}\n`)
    }
    try {
      const { line, body } = await this.#wait(async () =>
        (await this.#options.parent).describe(id, seals, childOf(visitor), (say) => write({ say }), signal),
      )
      // It took a while, in which others may have got what was left.
      this.#mustHaveRoom(call)
      write({ build: line })
      await this.#sendWhole(call, body)
    } catch (error) {
      if (!response.headersSent || signal.aborted) throw error
      const { code, message, hint } = reportError(error)
      write({ error: { code, message, ...(hint === undefined ? {} : { hint }) } })
      response.end()
    }
  }

  async #sendBlobs(call: Call): Promise<void> {
    const { request, response, visitor, id, signal } = call
    const asked = decodeBlobRequest(await readBody(request, MAX_REQUEST_BYTES))
    if (!asked) throw new RefusedError('this is no request for blobs')
    await this.#hold(call, async () => {
      const blobs = (await this.#options.parent).blobs(id, asked, childOf(visitor), signal)
      try {
        // What is refused is refused before there is a status.
        const first = await blobs.next()
        response.writeHead(200, { 'content-type': 'application/octet-stream' })
        if (first.done) response.end()
        else await this.#send(request, behind(first.value, blobs), response)
      } finally {
        // It leases builds, and nobody else ends it for a child that is gone before the second piece.
        await blobs.return()
      }
    })
  }

  async #sendContents(call: Call): Promise<void> {
    const { request, response, visitor, id, signal } = call
    // A list of all files, which is as large as many an update; old children don't ask for it compressed.
    const asZstd = /\bzstd\b/.test(String(request.headers['accept-encoding'] ?? ''))
    this.#mustHaveRoom(call)
    await this.#hold(call, async () => {
      const bytes = await (await this.#options.parent).contents(id, childOf(visitor), { asZstd, signal })
      // It took a while, in which others may have got what was left.
      this.#mustHaveRoom(call)
      response.writeHead(200, {
        'content-type': 'application/octet-stream',
        'content-length': bytes.length,
        ...(asZstd ? { 'content-encoding': 'zstd' } : {}),
      })
      await this.#sendWhole(call, bytes)
    })
  }

  #mustHaveRoom({ client }: Call): void {
    if (this.#sendingBytes >= MAX_SENDING_BYTES) throw new ServerBusy(MAX_SENDING)
    const ofSource = this.#sendingBytesBySource.of(this.#options.source(client))
    if (ofSource >= MAX_SENDING_BYTES_OF_SOURCE)
      throw new ServerBusy(MAX_SENDING_OF_SOURCE, 'from your address')
  }

  /** What lies in memory until all of it was taken. */
  async #sendWhole({ request, response, client }: Call, bytes: Uint8Array): Promise<void> {
    const source = this.#options.source(client)
    this.#sendingBytes += bytes.length
    this.#sendingBytesBySource.add(source, bytes.length)
    try {
      await this.#send(request, one(bytes), response)
    } finally {
      this.#sendingBytes -= bytes.length
      this.#sendingBytesBySource.remove(source, bytes.length)
    }
  }

  /** Nothing is asked for ahead of what the child takes. */
  async #send(
    { socket }: IncomingMessage,
    content: AsyncIterable<Uint8Array>,
    response: ServerResponse,
  ): Promise<void> {
    const share = this.#options.pace(peerOf(socket))
    try {
      await pipeline(paced(content, share), response)
    } finally {
      share.leave()
    }
  }

  async #wait<T>(forBuild: () => Promise<T>): Promise<T> {
    this.#waiting++
    try {
      return await forBuild()
    } finally {
      this.#waiting--
    }
  }

  /** Answers, of which there may be so many at a time. */
  async #hold({ client }: Call, answer: () => Promise<void>): Promise<void> {
    const source = this.#options.source(client)
    if (this.#sending >= MAX_SENDING) throw new ServerBusy(MAX_SENDING)
    if (this.#sendingBySource.of(source) >= MAX_SENDING_OF_SOURCE)
      throw new ServerBusy(MAX_SENDING_OF_SOURCE, 'from your address')
    this.#sending++
    this.#sendingBySource.add(source)
    try {
      await answer()
    } finally {
      this.#sending--
      this.#sendingBySource.remove(source)
    }
  }

  #fail(response: ServerResponse, error: unknown): void {
    // Half an answer can only be broken off: the child asks again.
    if (response.headersSent || response.destroyed) {
      response.destroy()
      return
    }
    const { code, message, hint } = reportError(error)
    const status = statusOf(error)
    if (status >= 500 && !(error instanceof UpservError))
      this.#options.log({ reason: message }, 'a child could not be answered')
    if (status === 503) response.setHeader('retry-after', BUSY_RETRY_S)
    if (status === 403) response.setHeader('www-authenticate', 'Basic realm="upserv"')
    sendJson(response, status, { error: { code, message, ...(hint === undefined ? {} : { hint }) } })
  }
}

function statusOf(error: unknown): number {
  if (error instanceof AccessDenied) return 403
  if (error instanceof NoSuchBuild) return 404
  if (error instanceof ServerBusy) return 503
  if (error instanceof LoginsSlowed || error instanceof FetchesSpent) return 429
  if (error instanceof RefusedError) return 400
  const code = error instanceof UpservError ? error.code : ''
  if (code === 'BUILD_NOT_PUBLISHED' || code === 'BUILD_UNKNOWN') return 404
  return code === 'COMMAND_REFUSED' ? 503 : 500
}

interface Proof {
  user: string
  provenBy(password: Uint8Array): boolean
}

function whoAsks(request: IncomingMessage): { client: Peer; proof: Proof | undefined } {
  const client = peerOf(request.socket)
  const [, encoded] = /^Basic ([A-Za-z0-9+/=]{1,1000})$/i.exec(request.headers.authorization ?? '') ?? []
  const [, user, given] = /^([^:]*):(.*)$/s.exec(Buffer.from(encoded ?? '', 'base64').toString('utf8')) ?? []
  if (user === undefined || given === undefined) return { client, proof: undefined }
  const digest = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()
  const provenBy = (password: Uint8Array): boolean =>
    timingSafeEqual(digest(password), digest(Buffer.from(given)))
  return { client, proof: { user: utf8Bytes(user), provenBy } }
}

/** A child may have a module if it may have all of it. */
function childOf(visitor: ChildVisitor): Asker {
  return {
    mayHave: (module) => visitor.mayHave(module) && visitor.settings([module]).hides.length === 0,
    mayHearOf: (source) => visitor.mayHearOf(source),
    beginFetch: (modules) => visitor.beginFetch(modules),
  }
}

async function readBody(request: IncomingMessage, limit: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    bytes += chunk.length
    if (bytes > limit) throw new RefusedError(`a request here has ${limit} bytes at most`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function readSeals(body: Uint8Array): string[] {
  try {
    return sealsRequest.parse(JSON.parse(Buffer.from(body).toString('utf8'))).seals
  } catch (cause) {
    throw new RefusedError('this is no request for a build', undefined, { cause })
  }
}

async function* one(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

async function* behind(first: Uint8Array, rest: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield first
  yield* rest
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(`${JSON.stringify(value)}\n`)
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length })
  response.end(body)
}
