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
 * Whoever reaches the address that we listen on may look, and sees what the rules let them have (view.ts); what
 * changes anything, and what tells who was where, is for the operator (operators.ts).
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import type { Activity, Clients } from '../build/activity.ts'
import type { Operations } from '../build/operations.ts'
import { formatListen, type Listen } from '../config/config.ts'
import { type Doorstep, unexpectedProxy } from '../doorstep/doorstep.ts'
import { looksLikeProxyHeader } from '../doorstep/proxy-header.ts'
import {
  type AccessDenied,
  ConfigError,
  CrossSite,
  PeerError,
  RequestError,
  reportError,
  UpservError,
} from '../errors.ts'
import { type ChangeRecord, NOBODY } from '../history/change-record.ts'
import type { Bandwidth } from '../lib/bandwidth.ts'
import { showText } from '../lib/bytes.ts'
import { descriptorOf } from '../lib/descriptor.ts'
import type { Finding } from '../lib/finding.ts'
import type { Logger } from '../lib/log.ts'
import { formatPeer, introduce, type Peer, type Prefixes, peerOf, sourceOf, whereOf } from '../lib/peer.ts'
import { Slices } from '../lib/slices.ts'
import { Tally } from '../lib/tally.ts'
import type { Visitor } from '../rsync/access.ts'
import type { Modules } from '../rsync/modules.ts'
import { type Answered, type ApiRoute, apiRoutes } from './api.ts'
import { BuildsView } from './builds-view.ts'
import { Events } from './events.ts'
import { serveFiles, shieldPath } from './files.ts'
import { checkHost } from './host.ts'
import { createMetrics } from './metrics.ts'
import { changes, openApiDocument, takesToken } from './openapi.ts'
import { type Asking, IDLE_MS, type Operator, Operators } from './operators.ts'
import { servePage } from './page.ts'
import type { ChildHandler } from './parent.ts'
import { PROBLEM_TYPE, problemOf } from './problem.ts'
import { object } from './schemas.ts'
import { OPERATORS_VIEW, type View, viewOf } from './view.ts'

export interface HttpParts {
  operations: Operations
  /** Reads the configuration again. @returns keys whose new values need a restart. */
  reload: () => Promise<readonly string[]>
  /** As `upserv doctor`, from within. */
  examine: () => Promise<readonly Finding[]>
  activity: Activity
  modules: Modules
  visitor: (client: Peer) => Visitor
  /** Judges a guess of the token by one who comes from there. */
  judgeGuess: (client: Peer, isGood: () => boolean) => Promise<boolean>
  /** What all who are sent something share. */
  bandwidth: Bandwidth
  limits: () => { perSource: number; prefixes: Prefixes }
  /** Told of what somebody changed, or tried to. */
  onChangeBy: (change: Omit<ChangeRecord, 'id' | 'at'>) => void
  tokenFile: string
  /** Takes what child servers ask for: their requests are not the framework's, and larger than it lets in. */
  children: ChildHandler
  /** That it may be called by, beside its addresses (host.ts). */
  names: readonly string[]
  /** One who takes nothing of a long answer for so long is hung up on. */
  idleMs: () => number
  log: Logger
  /** Whether clients are served. Until then, what asks for the store waits. */
  isServing: () => boolean
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
/** Requests of a connection that wait for their answers; clients that send several at once (apt does) send some ten. */
const MAX_PIPELINED = 64
/** How often it is looked whether a connection that nobody may use any more has become idle. */
const LOOK_EVERY_MS = 100
const NOTHING_RUNS = "default-src 'none'; frame-ancestors 'none'"
/** Of what a change was about, as it is remembered. */
const MAX_TARGET = 300
/** Bytes of a path: Linux's limit, each byte as %XX, and some. */
const MAX_PATH = 16 * 1024

/** How long a client may take to read our last words. */
const LAST_WORDS_MS = 5000
/** The first byte of every TLS connection. */
const TLS_HANDSHAKE = 0x16
/** Node's own answers to requests that never came about. */
const BAD_REQUESTS: Record<string, number> = { HPE_HEADER_OVERFLOW: 431, ERR_HTTP_REQUEST_TIMEOUT: 408 }

export class Http {
  readonly #app: FastifyInstance
  readonly #children: ChildHandler
  readonly #names: readonly string[]
  readonly #events: Events
  readonly #ending = new AbortController()
  readonly #servers: Server[] = []
  /** Those that have connections, or may get some. */
  readonly #busy = new Set<Server>()
  readonly #openedFor = new WeakMap<Server, { address: string | undefined; tls: boolean }>()
  readonly #log: Logger
  /** On a doorstep. */
  readonly #arriving = new Set<Socket>()
  /** Why clients whose certificates are not good enough may have nothing. */
  readonly #refusals = new WeakMap<Socket, AccessDenied>()
  readonly #limits: HttpParts['limits']
  /** Connections of each source that has any. */
  readonly #bySource = new Tally()
  /** Requests of each connection that wait for their answers. */
  readonly #underWay = new WeakMap<Socket, number>()
  /** What comes in one piece is many requests, all of which Node hands to us at once. */
  readonly #slices = new Slices()

  private constructor(
    app: FastifyInstance,
    { children, names, limits, log }: HttpParts,
    events: Events,
    ending: AbortController,
  ) {
    this.#limits = limits
    this.#app = app
    this.#children = children
    this.#names = names
    this.#log = log
    this.#events = events
    this.#ending = ending
  }

  static async create(parts: HttpParts): Promise<Http> {
    const ending = new AbortController()
    const { operations, activity, log } = parts
    const builds = new BuildsView(operations, activity)
    const events = new Events(operations, activity, builds)
    const app = createApp(parts)
    const operators = new Operators(parts.tokenFile)
    const metrics = createMetrics({ operations, activity, builds, watchers: () => events.watchers })
    const { reload, examine } = parts
    const live: Clients['live'] = (most, before) => activity.clients.live(most, before)
    const routes = apiRoutes({ operations, reload, examine, live, builds, log, signal: ending.signal })
    for (const route of routes) addRoute(app, route, parts, operators)
    serveSession(app, parts, operators)
    const document = openApiDocument(routes)
    app.get(`${API}/openapi.json`, () => document)
    app.get(`${API}/events`, { exposeHeadRoute: false }, async (request, reply) => {
      const asking = askingOf(request, parts)
      const operator = await operators.identify(asking)
      // A session may end, and the token become another one, while somebody watches.
      const isOperator = (): boolean => operator !== undefined && operators.isLive(operator)
      events.watch(reply.raw, () =>
        isOperator() ? OPERATORS_VIEW : viewOf(parts.visitor(peerOf(request.socket))),
      )
      reply.hijack()
    })
    app.get('/metrics', async (request, reply) => {
      const { type, text } = await metrics(await viewFor(request, parts, operators))
      return reply.type(type).send(text)
    })
    const { modules, visitor, idleMs } = parts
    const pace = (client: Peer) => parts.bandwidth.join(whereOf(client, parts.limits().prefixes))
    serveFiles(app, { modules, visitor, log, idleMs, pace, signal: ending.signal })
    servePage(app)
    serveHealth(app, parts)
    await app.ready()
    return new Http(app, parts, events, ending)
  }

  /** @returns the address that it can be reached at. */
  async listen(address: Listen, doorstep: Doorstep): Promise<string> {
    const where = { port: address.port, host: address.host }
    const { port } = await this.#open(where, { doorstep, address: formatListen(address) }, (cause) => {
      const hint = `Choose another with --http${doorstep.speaksTls ? 's' : ''} HOST:PORT, or off.`
      return new ConfigError(`cannot listen on http ${formatListen(address)}: ${cause.message}`, {
        cause,
        hint,
      })
    })
    return urlOf({ host: address.host, port }, doorstep)
  }

  /**
   * Takes over a socket that listens already.
   * @param opened the address that a server before us opened it for.
   * @returns the address that it can be reached at.
   */
  async listenOn(fd: number, doorstep: Doorstep, opened?: string): Promise<string> {
    const { address, port } = await this.#open(
      { fd },
      { doorstep, address: opened },
      (cause) => new ConfigError(`descriptor ${fd} is no socket to listen on: ${cause.message}`, { cause }),
    )
    return urlOf({ host: address, port }, doorstep)
  }

  /** The sockets that listen; without a descriptor where the runtime does not tell. */
  get listening(): { fd: number | undefined; tls: boolean; address: string | undefined }[] {
    return this.#servers.map((server) => ({ fd: descriptorOf(server), ...this.#openedFor.get(server)! }))
  }

  async #open(
    where: { port: number; host: string } | { fd: number },
    { doorstep, address }: { doorstep: Doorstep; address: string | undefined },
    explain: (cause: Error) => ConfigError,
  ): Promise<{ address: string; port: number }> {
    const server = createServer(
      { requestTimeout: REQUEST_MS, headersTimeout: HEADERS_MS, keepAliveTimeout: KEEP_ALIVE_MS },
      (request, response) => this.#queue(request, response),
    )
    server.maxConnections = MAX_CONNECTIONS
    server.on('clientError', (error, socket) => this.#refuseBadRequest(error, socket as Socket))
    // Node's own, which begins to read requests: that may have to wait.
    const [begin] = server.listeners('connection') as ((socket: Socket) => void)[]
    server.removeAllListeners('connection')
    server.on('connection', (socket) => {
      if (doorstep.hasToWait(peerOf(socket))) void this.#meet(socket, doorstep, begin!.bind(server))
      else if (this.#count(socket)) begin!.call(server, socket)
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) => reject(explain(cause)))
      server.listen(where, () => resolve())
    })
    this.#servers.push(server)
    this.#busy.add(server)
    this.#openedFor.set(server, { address, tls: doorstep.speaksTls })
    return server.address() as AddressInfo
  }

  /** Hears what comes before HTTP. */
  async #meet(socket: Socket, doorstep: Doorstep, begin: (socket: Socket) => void): Promise<void> {
    const peer = formatPeer(peerOf(socket))
    this.#arriving.add(socket)
    try {
      const { socket: inside, peer: who, refusal } = await doorstep.meet(socket, HEADERS_MS)
      introduce(inside, who)
      if (!this.#count(inside)) return
      if (refusal) this.#refusals.set(inside, refusal)
      begin(inside)
    } catch (error) {
      const { code, message } = reportError(error)
      this.#log.info({ peer, code, reason: message }, 'turned away by http')
      if (error instanceof PeerError) hangUpSaying(socket, 400, message)
      else socket.destroy()
    } finally {
      this.#arriving.delete(socket)
    }
  }

  #queue(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request
    const underWay = (this.#underWay.get(socket) ?? 0) + 1
    if (underWay > MAX_PIPELINED) {
      // Answers come in order, so there is no telling it now; it hears of it by what it got so far.
      if (!socket.destroyed)
        this.#log.info({ peer: formatPeer(peerOf(socket)), underWay }, 'too many requests at once by http')
      socket.destroy()
      return
    }
    this.#underWay.set(socket, underWay)
    response.once('close', () => this.#underWay.set(socket, (this.#underWay.get(socket) ?? 1) - 1))
    const turn = this.#slices.turn()
    if (turn) void turn.then(() => this.#answer(request, response))
    else this.#answer(request, response)
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    if (request.socket.destroyed) return
    const refusal = this.#refusals.get(request.socket)
    if (refusal) {
      const peer = peerOf(request.socket)
      this.#log.info(
        { peer: formatPeer(peer), code: refusal.code, reason: refusal.message },
        'turned away by http',
      )
      hangUpWith(response, refusal)
      return
    }
    // Before anybody looks at the path: what children may have, a page from elsewhere could ask for as well.
    try {
      checkHost(request.headers.host, request.socket.localAddress, this.#names)
    } catch (error) {
      hangUpWith(response, error)
      return
    }
    if (!this.#children(request, response)) this.#app.routing(request, response)
  }

  /** Of what is no request of HTTP. */
  #refuseBadRequest(error: NodeJS.ErrnoException & { rawPacket?: Uint8Array }, socket: Socket): void {
    if (!socket.writable || error.code === 'ECONNRESET') {
      socket.destroy()
      return
    }
    const { address } = peerOf(socket)
    const said = error.rawPacket ?? Buffer.alloc(0)
    const known = looksLikeProxyHeader(said)
      ? unexpectedProxy(address)
      : said[0] === TLS_HANDSHAKE
        ? 'this port speaks HTTP without TLS'
        : undefined
    if (known !== undefined)
      this.#log.info({ peer: formatPeer(peerOf(socket)), reason: known }, 'turned away by http')
    hangUpSaying(socket, BAD_REQUESTS[error.code ?? ''] ?? 400, known)
  }

  /** One source has not all the connections that there are. @returns whether it may have this one. */
  #count(socket: Socket): boolean {
    const { perSource, prefixes } = this.#limits()
    const source = sourceOf(peerOf(socket), prefixes)
    if (perSource > 0 && this.#bySource.of(source) >= perSource) {
      socket.destroy()
      return false
    }
    this.#bySource.add(source)
    socket.once('close', () => this.#bySource.remove(source))
    return true
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
    for (const socket of this.#arriving) socket.destroy()
    for (const server of this.#servers) server.closeAllConnections()
  }
}

function urlOf(address: Listen, { speaksTls }: Doorstep): string {
  return `${speaksTls ? 'https' : 'http'}://${formatListen(address)}`
}

/** For a request that is heard of by nobody else. */
function hangUpWith(response: ServerResponse, error: unknown): void {
  const problem = problemOf(error)
  response.writeHead(problem.status, { 'content-type': PROBLEM_TYPE, connection: 'close' })
  response.end(JSON.stringify(problem))
}

/** For a client whose request never came about. */
function hangUpSaying(socket: Socket, status: number, text = ''): void {
  const body = text === '' ? '' : `${text}\n`
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: text/plain; charset=utf-8`
  socket.end(`${head}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`)
  // What still comes is read, or the kernel would take back what we have said.
  socket.resume()
  const timer = setTimeout(() => socket.destroy(), LAST_WORDS_MS)
  socket.once('close', () => clearTimeout(timer))
}

function createApp({ log }: HttpParts): FastifyInstance {
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
  app.addHook('onSend', async (_, reply) => {
    if (!reply.hasHeader('cache-control')) reply.header('cache-control', 'no-store')
    reply.headers({
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cross-origin-resource-policy': 'same-origin',
      'x-frame-options': 'DENY',
    })
    // What is no page runs nothing, wherever it is shown.
    if (!reply.hasHeader('content-security-policy')) reply.header('content-security-policy', NOTHING_RUNS)
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
  const { retryAfterS } = Object(error) as { retryAfterS?: unknown }
  if (typeof retryAfterS === 'number') reply.header('retry-after', retryAfterS)
  // What was said of a body that is not sent now.
  for (const header of ['content-length', 'content-disposition', 'etag', 'accept-ranges', 'repr-digest'])
    reply.removeHeader(header)
  return reply
    .code(problem.status)
    .type(PROBLEM_TYPE)
    .send(Buffer.from(JSON.stringify(problem)))
}

/** A request, as who may do what is judged. */
function askingOf({ headers, socket }: FastifyRequest, { judgeGuess }: HttpParts): Asking {
  const client = peerOf(socket)
  return { headers, tls: client.tls, judge: (isGood) => judgeGuess(client, isGood) }
}

async function viewFor(request: FastifyRequest, parts: HttpParts, operators: Operators): Promise<View> {
  if (await operators.identify(askingOf(request, parts))) return OPERATORS_VIEW
  return viewOf(parts.visitor(peerOf(request.socket)))
}

/** Makes a route of the framework of one of the table. */
function addRoute(app: FastifyInstance, route: ApiRoute, parts: HttpParts, operators: Operators): void {
  const { method, path, params, query, body } = route
  const { log, idleMs, onChange } = parts
  const isChange = changes(route)
  /** Who asks, where that is needed to be let in: before the body is read. */
  const known = new WeakMap<FastifyRequest, Operator>()
  const note = (request: FastifyRequest, who: Operator | undefined, error?: unknown): void => {
    if (isChange) parts.onChangeBy(changeBy(request, who, route.id, targetOf(request), error))
  }
  app.route({
    method,
    url: API + path.replaceAll(/\{(\w+)\}/g, ':$1'),
    schema: {
      ...(params ? { params: object(params) } : {}),
      querystring: { type: 'object', properties: query ?? {}, additionalProperties: false },
      ...(body ? { body } : {}),
    },
    ...(takesToken(route)
      ? {
          onRequest: async (request: FastifyRequest) => {
            try {
              known.set(request, await operators.require(askingOf(request, parts), isChange))
            } catch (error) {
              note(request, undefined, error)
              throw error
            }
          },
        }
      : {}),
    handler: async (request, reply) => {
      const gone = new AbortController()
      reply.raw.once('close', () => gone.abort(new RequestError(499, 'the client left')))
      const operator = known.get(request)
      const asked = {
        params: request.params as Record<string, string>,
        query: request.query as Record<string, string | number | undefined>,
        body: (request.body ?? {}) as Record<string, unknown>,
        view: operator ? OPERATORS_VIEW : await viewFor(request, parts, operators),
      }
      let answer: Answered
      try {
        answer = await route.run(asked, gone.signal)
      } catch (error) {
        note(request, operator, error)
        throw error
      }
      note(request, operator)
      if (isChange) {
        onChange()
        const peer = formatPeer(peerOf(request.socket))
        log.info({ peer, method, url: request.originalUrl, status: answer.status }, 'change by http')
      }
      if (answer.file) reply.raw.setTimeout(idleMs())
      return sendAnswer(reply, answer)
    },
  })
}

/** What is remembered of a change. */
function changeBy(
  { socket }: FastifyRequest,
  who: Operator | undefined,
  what: string,
  target: string,
  error: unknown,
): Omit<ChangeRecord, 'id' | 'at'> {
  const { code, message } = error === undefined ? { code: '', message: '' } : reportError(error)
  const isRefusal = who === undefined || error instanceof CrossSite
  return {
    who: who === undefined ? NOBODY : who.by === 'token' ? 'token' : `session ${who.number}`,
    from: formatPeer(peerOf(socket)),
    what,
    target,
    result: error === undefined ? 'done' : isRefusal ? 'refused' : 'failed',
    code,
    reason: message,
  }
}

/** What a request would change: ids and words that were checked, and as they can be shown where they were not. */
function targetOf({ params, body, query }: FastifyRequest): string {
  const words = [params, body, query].flatMap((part) =>
    Object.entries(Object(part) as Record<string, unknown>),
  )
  return showText(words.map(([key, value]) => `${key}=${String(value)}`).join(' ')).slice(0, MAX_TARGET)
}

/** Sessions of browsers. */
function serveSession(app: FastifyInstance, parts: HttpParts, operators: Operators): void {
  const url = `${API}/session`
  const answer = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const asking = askingOf(request, parts)
    const operator = (await operators.identify(asking)) !== undefined
    const cookie = operators.renew(asking)
    if (cookie !== undefined) reply.header('set-cookie', cookie)
    const expiresInSeconds = operators.secondsLeft(asking) ?? null
    return sendAnswer(reply, { status: 200, body: { operator, expiresInSeconds } })
  }
  app.get(url, answer)
  const body = object({ token: { type: 'string', minLength: 1, maxLength: 200 } })
  app.post(url, { schema: { body } }, async (request, reply) => {
    const { token } = request.body as { token: string }
    try {
      const { operator, cookie } = await operators.login(token.trim(), askingOf(request, parts))
      parts.onChangeBy(changeBy(request, operator, 'login', '', undefined))
      reply.header('set-cookie', cookie)
    } catch (error) {
      parts.onChangeBy(changeBy(request, undefined, 'login', '', error))
      throw error
    }
    const expiresInSeconds = Math.floor(IDLE_MS / 1000)
    return sendAnswer(reply, { status: 200, body: { operator: true, expiresInSeconds } })
  })
  app.delete(url, async (request, reply) => {
    const asking = askingOf(request, parts)
    const operator = await operators.require(asking, true)
    reply.header('set-cookie', operators.logout(asking))
    parts.onChangeBy(changeBy(request, operator, 'logout', '', undefined))
    return sendAnswer(reply, { status: 200, body: { operator: false, expiresInSeconds: null } })
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

function serveHealth(app: FastifyInstance, { operations, isServing, isStopping }: HttpParts): void {
  const say = (reply: FastifyReply, status: number, text: string): FastifyReply =>
    reply.code(status).type('text/plain; charset=utf-8').send(`${text}\n`)
  app.get('/healthz', (_, reply) => (isStopping() ? say(reply, 503, 'stopping') : say(reply, 200, 'ok')))
  app.get('/readyz', async (_, reply) => {
    if (isStopping()) return say(reply, 503, 'stopping')
    if (!isServing()) return say(reply, 503, 'starting')
    const { listening, tlsListening } = await operations.status()
    return listening.length + tlsListening.length > 0
      ? say(reply, 200, 'ready')
      : say(reply, 503, 'nothing listens for rsync')
  })
}
