/**
 * The HTTP side: a page for people, an API for programs, metrics, builds for those without rsync, and what
 * child servers ask for.
 *
 *     /                  the page (page.ts)
 *     /api/v1/...        the API (api.ts), its document (openapi.ts), events (events.ts)
 *     /builds/...        files and archives (files.ts)
 *     /parent/v1/...     for servers that have us as their source (parent.ts)
 *     /metrics           metrics.ts
 *     /healthz, /readyz  whether the process lives, and whether clients should come
 *
 * Reading is open to whoever reaches the address that we listen on; what changes anything takes the token.
 */
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import type { Activity } from '../build/activity.ts'
import type { Operations } from '../build/operations.ts'
import { formatListen, type Listen } from '../config/config.ts'
import { ConfigError, RequestError, UpservError } from '../errors.ts'
import { descriptorOf } from '../lib/descriptor.ts'
import type { Logger } from '../lib/log.ts'
import { formatPeer, peerFrom } from '../lib/peer.ts'
import type { Visitor } from '../rsync/access.ts'
import type { Modules } from '../rsync/modules.ts'
import { type Answered, type ApiRoute, apiRoutes } from './api.ts'
import { BuildsView } from './builds-view.ts'
import { Events } from './events.ts'
import { serveFiles, shieldPath } from './files.ts'
import { checkHost } from './host.ts'
import { createMetrics } from './metrics.ts'
import { openApiDocument, takesToken } from './openapi.ts'
import { servePage } from './page.ts'
import type { ChildHandler } from './parent.ts'
import { PROBLEM_TYPE, problemOf } from './problem.ts'
import { object } from './schemas.ts'
import { checkToken } from './token.ts'

export interface HttpParts {
  operations: Operations
  activity: Activity
  modules: Modules
  visitor: (address: string | undefined) => Visitor
  tokenFile: string
  /** Takes what child servers ask for: their requests are not the framework's, and larger than it lets in. */
  children: ChildHandler
  /** That it may be called by, beside its addresses (host.ts). */
  names: readonly string[]
  /** One who takes nothing of a long answer for so long is hung up on. */
  idleMs: () => number
  log: Logger
  /** Whether the store is open: until then, what asks for it waits. */
  isOpen: () => boolean
  /** From when the server is told to stop. */
  isStopping: () => boolean
  /** Called when something changes by a request: an idle server is not idle then. */
  onChange: () => void
}

const API = '/api/v1'
/** A request is a few words; nothing is uploaded. What a child server asks for is bounded in parent.ts. */
const MAX_BODY = 64 * 1024
/** For a request to come in: a child's, of half a megabyte, may come by a slow link. Answers may take as long as they like. */
const REQUEST_MS = 300_000
const HEADERS_MS = 30_000
const KEEP_ALIVE_MS = 10_000
/** Connections at a time; more are closed at once. */
const MAX_CONNECTIONS = 1000
/** How often it is looked whether a connection that nobody may use any more has become idle. */
const LOOK_EVERY_MS = 100
/** Bytes of a path: Linux's limit, each byte as %XX, and some. */
const MAX_PATH = 16 * 1024

export class Http {
  readonly #app: FastifyInstance
  readonly #children: ChildHandler
  readonly #events: Events
  readonly #ending = new AbortController()
  readonly #servers: Server[] = []
  /** Those that have connections, or may get some. */
  readonly #busy = new Set<Server>()

  private constructor(app: FastifyInstance, children: ChildHandler, events: Events, ending: AbortController) {
    this.#app = app
    this.#children = children
    this.#events = events
    this.#ending = ending
  }

  static async create(parts: HttpParts): Promise<Http> {
    const ending = new AbortController()
    const { operations, activity, log } = parts
    const builds = new BuildsView(operations, activity)
    const events = new Events(operations, activity, builds)
    const app = createApp(parts)
    const metrics = createMetrics({ operations, activity, watchers: () => events.watchers })
    const routes = apiRoutes({ operations, builds, log, signal: ending.signal })
    for (const route of routes) addRoute(app, route, parts)
    const document = openApiDocument(routes)
    app.get(`${API}/openapi.json`, () => document)
    app.get(`${API}/events`, { exposeHeadRoute: false }, (_, reply) => {
      events.watch(reply.raw)
      reply.hijack()
    })
    app.get('/metrics', async (_, reply) => {
      const { type, text } = await metrics()
      return reply.type(type).send(text)
    })
    const { modules, visitor, idleMs } = parts
    serveFiles(app, { modules, visitor, log, idleMs, signal: ending.signal })
    servePage(app)
    serveHealth(app, parts)
    await app.ready()
    return new Http(app, parts.children, events, ending)
  }

  /** @returns the address that it can be reached at. */
  async listen(address: Listen): Promise<string> {
    const { port } = await this.#open({ port: address.port, host: address.host }, (cause) => {
      const hint = 'Choose another with --http HOST:PORT, or --http off.'
      return new ConfigError(`cannot listen on http ${formatListen(address)}: ${cause.message}`, {
        cause,
        hint,
      })
    })
    return `http://${formatListen({ host: address.host, port })}`
  }

  /** Takes over a socket that listens already. @returns the address that it can be reached at. */
  async listenOn(fd: number): Promise<string> {
    const { address, port } = await this.#open(
      { fd },
      (cause) => new ConfigError(`descriptor ${fd} is no socket to listen on: ${cause.message}`, { cause }),
    )
    return `http://${formatListen({ host: address, port })}`
  }

  /** Descriptors of the sockets that listen; undefined where the runtime does not tell. */
  get listening(): (number | undefined)[] {
    return this.#servers.map(descriptorOf)
  }

  async #open(
    where: { port: number; host: string } | { fd: number },
    explain: (cause: Error) => ConfigError,
  ): Promise<{ address: string; port: number }> {
    const [app, children] = [this.#app, this.#children]
    const server = createServer(
      { requestTimeout: REQUEST_MS, headersTimeout: HEADERS_MS, keepAliveTimeout: KEEP_ALIVE_MS },
      (request, response) => {
        if (!children(request, response)) app.routing(request, response)
      },
    )
    server.maxConnections = MAX_CONNECTIONS
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) => reject(explain(cause)))
      server.listen(where, () => resolve())
    })
    this.#servers.push(server)
    this.#busy.add(server)
    return server.address() as AddressInfo
  }

  /** Takes no more requests; those under way go on, but nobody watches any more. */
  close(): void {
    this.#events.close()
    for (const server of this.#servers) server.close(() => this.#busy.delete(server))
  }

  /** Once it takes no more requests: resolves when those under way have ended, and their connections with them. */
  async finished(): Promise<void> {
    while (this.#busy.size > 0) {
      for (const server of this.#servers) server.closeIdleConnections()
      await sleep(LOOK_EVERY_MS, undefined, { ref: false })
    }
  }

  /** Ends what is left. */
  hangUp(): void {
    this.#ending.abort(new RequestError(503, 'the server is stopping'))
    for (const server of this.#servers) server.closeAllConnections()
  }
}

function createApp({ log, names }: HttpParts): FastifyInstance {
  const app = fastify({
    logger: false,
    bodyLimit: MAX_BODY,
    exposeHeadRoutes: true,
    rewriteUrl: ({ url = '/' }) => shieldPath(url),
    routerOptions: { maxParamLength: MAX_PATH },
    frameworkErrors: (error, _, reply) => void sendProblem(reply as FastifyReply, error),
    // A query is text, and its numbers have to be read as such; nothing is left out or filled in a body.
    ajv: {
      customOptions: { coerceTypes: true, removeAdditional: false, useDefaults: true, allErrors: false },
    },
  })
  app.addHook('onRequest', async ({ headers, socket }) => checkHost(headers.host, socket.localAddress, names))
  app.addHook('onSend', async (_, reply) => {
    if (!reply.hasHeader('cache-control')) reply.header('cache-control', 'no-store')
    reply.headers({
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cross-origin-resource-policy': 'same-origin',
    })
  })
  app.setErrorHandler((error, request, reply) => {
    const problem = problemOf(error)
    if (problem.status >= 500 && !(error instanceof UpservError))
      log.error({ url: request.originalUrl, err: error }, 'request failed')
    return sendProblem(reply, error)
  })
  app.setNotFoundHandler((request, reply) => {
    const [path = ''] = request.originalUrl.split('?', 1)
    return sendProblem(reply, new RequestError(404, `there is nothing at ${path.slice(0, 200)}`))
  })
  return app
}

function sendProblem(reply: FastifyReply, error: unknown): FastifyReply {
  const problem = problemOf(error)
  if (problem.status === 401) reply.header('www-authenticate', 'Bearer realm="upserv"')
  if (error instanceof RequestError && error.retryAfterS !== undefined)
    reply.header('retry-after', error.retryAfterS)
  // What was said of a body that is not sent now.
  for (const header of ['content-length', 'content-disposition', 'etag', 'accept-ranges', 'repr-digest'])
    reply.removeHeader(header)
  return reply
    .code(problem.status)
    .type(PROBLEM_TYPE)
    .send(Buffer.from(JSON.stringify(problem)))
}

/** Makes a route of the framework of one of the table. */
function addRoute(
  app: FastifyInstance,
  route: ApiRoute,
  { tokenFile, log, idleMs, onChange }: HttpParts,
): void {
  const { method, path, params, query, body } = route
  const changes = takesToken(route)
  app.route({
    method,
    url: API + path.replaceAll(/\{(\w+)\}/g, ':$1'),
    schema: {
      ...(params ? { params: object(params) } : {}),
      querystring: { type: 'object', properties: query ?? {}, additionalProperties: false },
      ...(body ? { body } : {}),
    },
    // Before the body is read.
    ...(changes
      ? { onRequest: async ({ headers }: FastifyRequest) => checkToken(tokenFile, headers.authorization) }
      : {}),
    handler: async (request, reply) => {
      const gone = new AbortController()
      reply.raw.once('close', () => gone.abort(new RequestError(499, 'the client left')))
      const asked = {
        params: request.params as Record<string, string>,
        query: request.query as Record<string, string | number | undefined>,
        body: (request.body ?? {}) as Record<string, unknown>,
      }
      const answer = await route.run(asked, gone.signal)
      if (changes) {
        onChange()
        const peer = formatPeer(peerFrom(request.ip, request.socket.remotePort))
        log.info({ peer, method, url: request.originalUrl, status: answer.status }, 'change by http')
      }
      if (answer.file) reply.raw.setTimeout(idleMs())
      return sendAnswer(reply, answer)
    },
  })
}

function sendAnswer(reply: FastifyReply, { status, body, file }: Answered): FastifyReply {
  reply.code(status)
  if (file) {
    reply.type(file.type).header('content-disposition', `attachment; filename="${file.name}"`)
    return reply.send(Readable.from(file.content))
  }
  if (body === undefined) return reply.send()
  return reply.type('application/json; charset=utf-8').send(JSON.stringify(body))
}

function serveHealth(app: FastifyInstance, { operations, isOpen, isStopping }: HttpParts): void {
  const say = (reply: FastifyReply, status: number, text: string): FastifyReply =>
    reply.code(status).type('text/plain; charset=utf-8').send(`${text}\n`)
  app.get('/healthz', (_, reply) => (isStopping() ? say(reply, 503, 'stopping') : say(reply, 200, 'ok')))
  app.get('/readyz', async (_, reply) => {
    if (isStopping()) return say(reply, 503, 'stopping')
    if (!isOpen()) return say(reply, 503, 'opening the store')
    const { listening } = await operations.status()
    return listening.length > 0 ? say(reply, 200, 'ready') : say(reply, 503, 'nothing listens for rsync')
  })
}
