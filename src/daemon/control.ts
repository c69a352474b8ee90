/**
 * The control socket: other upserv processes on this machine talk to the one that owns the data directory.
 *
 * A request is one line of JSON; answers are lines of JSON, any number of `say` or `progress` and then one
 * `result` or `error`. Who hangs up before that gives up what it asked for. A request of type `rsync` makes the rest of the connection an rsync session, which is how
 * xinetd's one process for each client ends up in the one server. The socket lies in the data directory
 * and only its owner may use it.
 */
import { chmodSync, closeSync, openSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { z } from 'zod'
import type { Operations, VerifyProgress, WarmProgress } from '../build/operations.ts'
import { MAX_WARM_FROM, WARM_COMPRESSIONS } from '../build/warm-request.ts'
import { CommandError, RelayedError, reportError, type Visit } from '../errors.ts'
import { type Peer, peerFrom } from '../lib/peer.ts'
import { STOCK_RELEASES } from '../rsync/stock-releases.ts'

const id = z.string().max(300)
const path = z.string().max(4096)
/** Who may use the socket may say where a client comes from: it is the server's own user. */
const peerSchema = z.strictObject({
  address: z.string().max(100).optional(),
  port: z.number().int().min(0).max(65_535),
  devices: z.array(z.string().max(300)).max(100).default([]),
  tls: z.boolean().default(false),
})
/** What the client has said so far to the process that hands it over to us. */
const visitSchema = z.strictObject({
  greeting: z.string().max(5000),
  module: z.string().max(5000),
  user: z.string().max(5000).optional(),
})
const word = z.string().max(300).optional()
const querySchema = z.strictObject({
  build: word,
  address: word,
  device: word,
  user: word,
  outcome: word,
  since: word,
  until: word,
})
const fetchQuerySchema = z.strictObject({
  build: word,
  source: word,
  outcome: word,
  since: word,
  until: word,
})
const requestSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('rsync'), peer: peerSchema, visit: visitSchema.optional() }),
  z.strictObject({ type: z.literal('list') }),
  z.strictObject({ type: z.literal('status') }),
  z.strictObject({ type: z.literal('reload') }),
  z.strictObject({ type: z.literal('handOver'), prepare: z.boolean() }),
  z.strictObject({ type: z.literal('available') }),
  z.strictObject({ type: z.literal('activity') }),
  z.strictObject({ type: z.literal('timeline'), span: z.enum(['hour', 'day']) }),
  z.strictObject({
    type: z.literal('history'),
    query: querySchema,
    limit: z.number().int().positive(),
    before: z.number().int().optional(),
  }),
  z.strictObject({
    type: z.literal('changes'),
    limit: z.number().int().positive(),
    before: z.number().int().optional(),
  }),
  z.strictObject({ type: z.literal('explain'), which: z.string().max(300) }),
  z.strictObject({ type: z.literal('forget'), query: querySchema }),
  z.strictObject({
    type: z.literal('fetchHistory'),
    query: fetchQuerySchema,
    limit: z.number().int().positive(),
    before: z.number().int().optional(),
  }),
  z.strictObject({ type: z.literal('forgetFetches'), query: fetchQuerySchema }),
  z.strictObject({ type: z.literal('fetch'), id }),
  z.strictObject({ type: z.literal('import'), file: path, id, form: z.enum(['archive', 'export']) }),
  z.strictObject({ type: z.literal('importStick'), directory: path }),
  z.strictObject({ type: z.literal('export'), id, have: z.array(id).max(100), path }),
  z.strictObject({ type: z.literal('pin'), id }),
  z.strictObject({ type: z.literal('unpin'), id }),
  z.strictObject({ type: z.literal('remove'), id }),
  z.strictObject({ type: z.literal('gc'), dryRun: z.boolean(), explain: z.boolean() }),
  z.strictObject({ type: z.literal('verify'), id: id.optional(), repair: z.boolean() }),
  z.strictObject({
    type: z.literal('warm'),
    id,
    from: z.array(id).max(MAX_WARM_FROM),
    clients: z.array(z.enum(STOCK_RELEASES)),
    compress: z.array(z.enum(WARM_COMPRESSIONS)),
    checksum: z.boolean(),
    quick: z.boolean(),
  }),
])
type Request = z.output<typeof requestSchema>

type Answer =
  | { type: 'say'; line: string }
  | { type: 'progress'; progress: VerifyProgress | WarmProgress }
  | { type: 'result'; value: unknown }
  | { type: 'error'; code: string; message: string; hint?: string | undefined }

/** A request is one short line. */
const MAX_REQUEST = 64 * 1024
/** sun_path of a Unix socket holds so many bytes, its final NUL included. */
const MAX_SOCKET_PATH = 108

/** Who goes on. */
export interface HandoverReport {
  pid: number
  version: string
  /** Clients that the process before goes on with. */
  sessions: number
}

export interface ControlHandlers {
  /** Requests wait until there are operations. */
  operations: Promise<Operations>
  /** Takes over a connection that carries rsync. */
  rsync(socket: Socket, peer: Peer, visit?: Visit): void
  /** Reads the configuration again. @returns keys whose new values need a restart. */
  reload(): Promise<readonly string[]>
  /** Hands over to a new process, or only sees to it that the files of this one may change from now on. */
  handOver(prepare: boolean): Promise<HandoverReport>
  /** Requests under way keep an idle server from ending itself. */
  onRequest?: (running: Promise<unknown>) => void
}

export interface ControlDoor {
  /** Takes no more requests; those under way go on. */
  close(): void
  /** Ends the connections that are left, such as those of who connected and asked for nothing. */
  hangUp(): void
}

/** Listens on the socket. What a dead owner left there is replaced: the caller holds the store's lock. */
export async function listenControl(path: string, handlers: ControlHandlers): Promise<ControlDoor> {
  rmSync(path, { force: true })
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    void serve(socket, handlers)
  })
  await withShortPath(
    path,
    (short) =>
      new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen(short, () => resolve())
      }),
  )
  chmodSync(path, 0o600)
  return {
    close: () => void server.close(),
    hangUp: () => {
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** Connects to the owner of a data directory; undefined when there is none. */
export async function connectControl(path: string): Promise<Socket | undefined> {
  return withShortPath(
    path,
    (short) =>
      new Promise<Socket | undefined>((resolve, reject) => {
        const socket = connect({ path: short, allowHalfOpen: true })
        socket.once('connect', () => {
          socket.removeAllListeners('error')
          resolve(socket)
        })
        socket.once('error', (error: NodeJS.ErrnoException) => {
          if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') resolve(undefined)
          else
            reject(
              new CommandError(`${path}: ${error.message}`, {
                cause: error,
                hint: 'Run this as the user that upserv runs as.',
              }),
            )
        })
      }),
  )
}

/** Asks the owner for a session: from then on the socket speaks rsync. */
export function requestRsync(
  socket: Socket,
  { address, port, devices, tls }: Peer,
  visit?: Omit<Visit, 'peer'>,
): void {
  const request: Request = {
    type: 'rsync',
    peer: { address, port, devices: [...devices], tls },
    ...(visit && { visit }),
  }
  socket.write(`${JSON.stringify(request)}\n`)
}

/** What can be asked of an owner from outside. */
export interface Remote extends Operations {
  reload(): Promise<readonly string[]>
  handOver(prepare: boolean): Promise<HandoverReport>
}

/** The operations of the owner at the other end of a fresh connection, for one request. */
export function remoteOperations(connection: () => Promise<Socket>): Remote {
  const ask = async <T, P = never>(
    request: Request,
    say: (line: string) => void = () => {},
    signal?: AbortSignal,
    onProgress: (progress: P) => void = () => {},
  ): Promise<T> => {
    const socket = await connection()
    const lines = createInterface({ input: socket })
    const hangUp = () => socket.destroy()
    // Without this, who reads lines of a connection that was cut would wait for ever.
    socket.once('close', () => lines.close())
    signal?.addEventListener('abort', hangUp, { once: true })
    try {
      socket.write(`${JSON.stringify(request)}\n`)
      for await (const line of lines) {
        const answer = JSON.parse(line) as Answer
        if (answer.type === 'say') say(answer.line)
        else if (answer.type === 'progress') onProgress(answer.progress as P)
        else if (answer.type === 'result') return answer.value as T
        else throw new RelayedError({ ...answer, hint: answer.hint })
      }
      signal?.throwIfAborted()
      throw serverEnded()
    } catch (error) {
      // It was killed before it had read what we ask, or in the middle of its answer.
      const { code = '' } = error as NodeJS.ErrnoException
      if (error instanceof SyntaxError || ['ECONNRESET', 'EPIPE'].includes(code)) throw serverEnded()
      throw error
    } finally {
      signal?.removeEventListener('abort', hangUp)
      socket.destroy()
    }
  }
  return {
    list: () => ask({ type: 'list' }),
    status: () => ask({ type: 'status' }),
    reload: () => ask({ type: 'reload' }),
    handOver: (prepare) => ask({ type: 'handOver', prepare }),
    available: (signal) => ask({ type: 'available' }, undefined, signal),
    activity: () => ask({ type: 'activity' }),
    timeline: (span) => ask({ type: 'timeline', span }),
    history: (query, limit, before) =>
      ask({ type: 'history', query, limit, ...(before === undefined ? {} : { before }) }),
    changes: (limit, before) => ask({ type: 'changes', limit, ...(before === undefined ? {} : { before }) }),
    explain: (which) => ask({ type: 'explain', which }),
    forget: (query) => ask({ type: 'forget', query }),
    fetchHistory: (query, limit, before) =>
      ask({ type: 'fetchHistory', query, limit, ...(before === undefined ? {} : { before }) }),
    forgetFetches: (query) => ask({ type: 'forgetFetches', query }),
    fetch: (build, say, signal) => ask({ type: 'fetch', id: build }, say, signal),
    import: (file, build, form, say, signal) => ask({ type: 'import', file, id: build, form }, say, signal),
    importStick: (directory, say, signal) => ask({ type: 'importStick', directory }, say, signal),
    export: (build, have, to, signal) =>
      ask({ type: 'export', id: build, have: [...have], path: to }, undefined, signal),
    pin: (build) => ask({ type: 'pin', id: build }),
    unpin: (build) => ask({ type: 'unpin', id: build }),
    remove: (build) => ask({ type: 'remove', id: build }),
    gc: ({ dryRun, explain }) => ask({ type: 'gc', dryRun, explain }),
    verify: (build, { repair }, onProgress, signal) =>
      ask(
        { type: 'verify', ...(build === undefined ? {} : { id: build }), repair },
        undefined,
        signal,
        onProgress,
      ),
    warm: (request, onProgress, signal) => ask({ type: 'warm', ...request }, undefined, signal, onProgress),
  }
}

function serverEnded(): CommandError {
  return new CommandError('the server ended before it answered', {
    hint: 'Look into its log, then try again.',
  })
}

async function serve(socket: Socket, handlers: ControlHandlers): Promise<void> {
  const abort = new AbortController()
  socket.on('error', () => abort.abort())
  let request: Request
  try {
    request = requestSchema.parse(JSON.parse(await readRequestLine(socket)))
  } catch {
    socket.end(
      `${JSON.stringify({ type: 'error', code: 'COMMAND_REFUSED', message: 'no such request' } satisfies Answer)}\n`,
    )
    return
  }
  if (request.type === 'rsync') {
    socket.removeAllListeners('error')
    const { visit } = request
    const { address, port, devices, tls } = request.peer
    const peer = { ...peerFrom(address, port), devices, tls }
    handlers.rsync(socket, peer, visit && { peer, ...visit, user: visit.user })
    return
  }
  socket.once('close', () => abort.abort())
  // Nothing more is to come, so the end of it says that nobody listens any more.
  socket.once('end', () => abort.abort())
  socket.resume()
  const send = (answer: Answer): void => {
    if (socket.writable) socket.write(`${JSON.stringify(answer)}\n`)
  }
  const running: Promise<unknown> =
    request.type === 'reload'
      ? handlers.reload()
      : request.type === 'handOver'
        ? handlers.handOver(request.prepare)
        : handlers.operations.then((operations) => carryOut(request, operations, send, abort.signal))
  handlers.onRequest?.(running)
  try {
    send({ type: 'result', value: (await running) ?? null })
  } catch (error) {
    const { code, message, hint } = reportError(error)
    send({ type: 'error', code, message, hint })
  }
  socket.end()
}

function carryOut(
  request: Exclude<Request, { type: 'rsync' | 'reload' | 'handOver' }>,
  operations: Operations,
  send: (answer: Answer) => void,
  signal: AbortSignal,
): Promise<unknown> {
  const say = (line: string): void => send({ type: 'say', line })
  switch (request.type) {
    case 'list':
      return operations.list()
    case 'status':
      return operations.status()
    case 'available':
      return operations.available(signal)
    case 'activity':
      return operations.activity()
    case 'timeline':
      return operations.timeline(request.span)
    case 'history':
      return operations.history(request.query, request.limit, request.before)
    case 'changes':
      return operations.changes(request.limit, request.before)
    case 'explain':
      return operations.explain(request.which)
    case 'forget':
      return operations.forget(request.query)
    case 'fetchHistory':
      return operations.fetchHistory(request.query, request.limit, request.before)
    case 'forgetFetches':
      return operations.forgetFetches(request.query)
    case 'fetch':
      return operations.fetch(request.id, say, signal)
    case 'import':
      return operations.import(request.file, request.id, request.form, say, signal)
    case 'importStick':
      return operations.importStick(request.directory, say, signal)
    case 'export':
      return operations.export(request.id, request.have, request.path, signal)
    case 'pin':
      return operations.pin(request.id)
    case 'unpin':
      return operations.unpin(request.id)
    case 'remove':
      return operations.remove(request.id)
    case 'gc':
      return operations.gc(request)
    case 'verify': {
      const onProgress = (progress: VerifyProgress): void => send({ type: 'progress', progress })
      return operations.verify(request.id, request, onProgress, signal)
    }
    case 'warm': {
      const { type: _, ...warm } = request
      return operations.warm(warm, (progress) => send({ type: 'progress', progress }), signal)
    }
  }
}

/** The first line; what follows it stays in the socket. */
function readRequestLine(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let seen = Buffer.alloc(0)
    const settle = (error?: Error): void => {
      socket.off('readable', onReadable)
      socket.off('end', onEnd)
      if (error) reject(error)
    }
    const onEnd = (): void => settle(new Error('no request'))
    const onReadable = (): void => {
      for (
        let piece = socket.read() as Buffer | null;
        piece !== null;
        piece = socket.read() as Buffer | null
      ) {
        seen = Buffer.concat([seen, piece])
        const end = seen.indexOf(0x0a)
        if (end >= 0) {
          settle()
          if (end + 1 < seen.length) socket.unshift(seen.subarray(end + 1))
          resolve(seen.toString('utf8', 0, end))
          return
        }
        if (seen.length > MAX_REQUEST) {
          settle(new Error('request too long'))
          return
        }
      }
    }
    socket.on('readable', onReadable)
    socket.once('end', onEnd)
    onReadable()
  })
}

/** A path that is too long for a Unix socket is reached through an open file descriptor of its directory. */
async function withShortPath<T>(path: string, use: (short: string) => Promise<T>): Promise<T> {
  if (Buffer.byteLength(path) < MAX_SOCKET_PATH) return use(path)
  const directory = openSync(dirname(path), 'r')
  try {
    return await use(join('/proc/self/fd', String(directory), basename(path)))
  } finally {
    closeSync(directory)
  }
}
