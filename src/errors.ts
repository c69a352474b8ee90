/**
 * Every error class that upserv throws, so also the list of what can go wrong.
 *
 * Sorted by whose turn it is to act: the peer's (a client broke the protocol), the upstream's (a source
 * failed), the operator's (the configuration or a command is wrong), the disk's (the store failed).
 * `message` says what happened, with values; `hint` says what to do; `code` never changes, so that
 * scripts and tests can rely on it; `cause` is kept. Log or throw, not both.
 */

import { byteString, showBytes } from './lib/bytes.ts'

export interface ErrorDetails {
  /** What the person who reads the message can do about it: one sentence. */
  hint?: string
  cause?: unknown
}

export abstract class UpservError extends Error {
  /** Stable name of this kind of error, for programs. */
  abstract readonly code: string
  readonly hint: string | undefined

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.name = new.target.name
    this.hint = details.hint
  }
}

/** What of an error crosses to another thread or process. */
export interface ErrorReport {
  code: string
  message: string
  hint: string | undefined
  /** What lies behind it, for the log alone: it may tell of this machine what is nobody else's business. */
  detail: string | undefined
}

/** An error that happened in another thread or process, under its own code. */
export class RelayedError extends UpservError {
  readonly code: string
  /** What lay behind it there. */
  readonly detail: string | undefined

  constructor({
    code,
    message,
    hint,
    detail,
  }: Omit<ErrorReport, 'detail'> & { detail?: string | undefined }) {
    super(message, hint === undefined ? {} : { hint })
    this.code = code
    this.detail = detail
  }
}

/** What is not one of ours is a bug, or the system's: its message is kept. */
export function reportError(error: unknown): ErrorReport {
  const detail = error instanceof RelayedError ? error.detail : detailOf(error)
  if (error instanceof UpservError) {
    const { code, message, hint } = error
    return { code, message, hint, detail }
  }
  const message = error instanceof Error ? error.message : String(error)
  return { code: 'INTERNAL', message, hint: undefined, detail }
}

const MAX_CAUSES = 6
const MAX_CAUSE = 1000

/** What the error was caused by, from the nearest on; each is one line, whatever its message holds. */
function detailOf(error: unknown): string | undefined {
  const causes: string[] = []
  for (let at = error; at instanceof Error && at.cause !== undefined && causes.length < MAX_CAUSES; ) {
    at = at.cause
    const said =
      at instanceof Error ? at.message || (at as NodeJS.ErrnoException).code || at.name : String(at)
    causes.push(showBytes(byteString(Buffer.from(said.slice(0, MAX_CAUSE))), MAX_CAUSE))
  }
  return causes.length === 0 ? undefined : causes.join('; because: ')
}

// ---------------------------------------------------------------------------------------------------
// The peer's turn: tell the client, end the session, touch nobody else.

/** The peer sent what can never be right. `field` is the label in docs/rsync-protocol.md. */
export class PeerError extends UpservError {
  readonly code: string = 'PEER_PROTOCOL'
  readonly field: string

  constructor(field: string, message: string, details?: ErrorDetails) {
    super(`${field}: ${message}`, details)
    this.field = field
  }
}

/** The peer asked, correctly, for something that this server never does. `exitCode` is rsync's own. */
export class RefusedError extends UpservError {
  readonly code: string = 'PEER_REFUSED'
  readonly exitCode: number

  constructor(message: string, exitCode = 4, details?: ErrorDetails) {
    super(message, details)
    this.exitCode = exitCode
  }
}

/** The rules of a module do not admit this client: by its address, or by what it said to prove who it is. */
export class AccessDenied extends RefusedError {
  override readonly code = 'ACCESS_DENIED'

  constructor(message: string, details?: ErrorDetails) {
    super(message, undefined, details)
  }
}

/** So many clients are here, or wait, as may. */
export class ServerBusy extends RefusedError {
  override readonly code = 'SERVER_BUSY'

  /** @param of which ones, as in "from your address"; '' for all. */
  constructor(most: number, of = '') {
    // The stock daemon's words: scripts look for them.
    super(`max connections (${most}) reached -- try again later${of === '' ? '' : ` (${of})`}`)
  }
}

/** Too many logins have failed from where this one comes; it was not looked at. */
export class LoginsSlowed extends RefusedError {
  override readonly code = 'LOGINS_SLOWED'
  readonly retryAfterS: number

  constructor(retryAfterS: number) {
    super(`too many logins from your address have failed: try again in ${retryAfterS} seconds`)
    this.retryAfterS = retryAfterS
  }
}

/** A build is not held, and for who asks nothing more is fetched now. */
export class FetchesSpent extends RefusedError {
  override readonly code = 'FETCHES_SPENT'
  readonly retryAfterS: number | undefined

  constructor(why: string, retryAfterS: number | undefined) {
    const when = retryAfterS === undefined ? 'when these are done' : `in ${inWords(retryAfterS)}`
    super(`this build is not held here, and ${why}: try again ${when}`, undefined, {
      hint: 'Builds that are held are served all the same.',
    })
    this.retryAfterS = retryAfterS === undefined ? undefined : Math.ceil(retryAfterS)
  }
}

function inWords(seconds: number): string {
  const minutes = Math.max(1, Math.ceil(seconds / 60))
  return minutes === 1 ? 'a minute' : `${minutes} minutes`
}

/** The connection ended or stalled; nobody is left to tell. */
export class ConnectionLost extends UpservError {
  readonly code: string = 'PEER_GONE'
}

/** What another process has to know to go on with a client that has named its module. */
export interface Visit {
  peer: {
    readonly address: string | undefined
    readonly port: number
    readonly devices: readonly string[]
    readonly tls: boolean
  }
  greeting: string
  module: string
  /** Who it has proven to be; undefined where it was not asked. */
  user: string | undefined
}

/** A connection to whoever goes on with a client. */
export interface RelayedConnection {
  /** Undefined at its end. */
  read(): Promise<Uint8Array | undefined>
  write(data: Uint8Array): Promise<void>
  /** The client says no more. */
  end(): void
  destroy(): void
}

/** What the client asks for is had of another process by now, which has taken this one's place. */
export class HandedOver extends UpservError {
  readonly code = 'SERVER_HANDED_OVER'
  /** Connects to it. */
  readonly relay: (visit: Visit) => Promise<RelayedConnection>

  constructor(relay: (visit: Visit) => Promise<RelayedConnection>) {
    super('another process has taken over from this one', { hint: 'Ask again.' })
    this.relay = relay
  }
}

// ---------------------------------------------------------------------------------------------------
// The upstream's turn: retry, take the next source, or tell who waits.

export class SourceError extends UpservError {
  readonly code: string = 'SOURCE_FAILED'
}

/** No configured source offers this id at all. */
export class NoSuchBuild extends SourceError {
  override readonly code = 'BUILD_UNKNOWN'
}

/** The source offers such ids, but its upstream does not have this one (404 or 410). */
export class NotPublished extends SourceError {
  override readonly code = 'BUILD_NOT_PUBLISHED'
}

/** The upstream could not be reached, answered with an error, or broke off, more often than we retry. */
export class UpstreamUnreachable extends SourceError {
  override readonly code = 'SOURCE_UNREACHABLE'
}

/** The upstream answered, and asking again would not change it: not allowed, redirects in a circle, and so on. */
export class UpstreamRefused extends SourceError {
  override readonly code = 'SOURCE_REFUSED'
  /** The HTTP status, where that is what it answered with. */
  readonly status: number | undefined
  /** What it asked for in place of an answer: WWW-Authenticate. */
  challenge: string | undefined

  constructor(message: string, status: number | undefined, details?: ErrorDetails) {
    super(message, details)
    this.status = status
  }
}

/** The file changed upstream while it was being downloaded, so its parts do not belong together. */
export class UpstreamChanged extends SourceError {
  override readonly code = 'SOURCE_CHANGED'
}

/** The archive's digest is not the one that was published beside it. */
export class DigestMismatch extends SourceError {
  override readonly code = 'SOURCE_DIGEST_MISMATCH'

  constructor(url: string, algorithm: string, expected: string, actual: string) {
    super(`${url} has ${algorithm} ${actual}, its checksum file says ${expected}`, {
      hint: 'Nothing of it was kept. The mirror may be half published: try again later.',
    })
  }
}

/** What is there is not what was signed, or was signed by somebody else. */
export class SignatureBad extends SourceError {
  override readonly code = 'SOURCE_SIGNATURE_BAD'

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, {
      hint: "Nothing of it was kept. If the key has changed, the source's keys must say so.",
      ...details,
    })
  }
}

/** The archive is truncated, corrupt, hostile or of a format that we do not read. */
export class ArchiveError extends SourceError {
  override readonly code: string = 'ARCHIVE_BAD'
}

/** A format needs a program that this machine lacks. */
export class ToolMissing extends SourceError {
  override readonly code = 'TOOL_MISSING'

  constructor(tool: string, format: string, debianPackage: string) {
    super(`${format} archives need the program "${tool}", which is not installed`, {
      hint: `apt-get install ${debianPackage}`,
    })
  }
}

// ---------------------------------------------------------------------------------------------------
// The operator's turn.

/** What the configuration says is wrong. The message names the key and, where there is one, the nearest right one. */
export class ConfigError extends UpservError {
  readonly code = 'CONFIG_BAD'
}

/** What the command line says is wrong, although its options are known: the message names the one. */
export class UsageError extends UpservError {
  readonly code = 'USAGE_BAD'
}

/** A command cannot be carried out as things are: no such build, build in use, and so on. */
export class CommandError extends UpservError {
  readonly code: string = 'COMMAND_REFUSED'
}

/** A server was to give its place to a new process, and could not: it goes on as if nothing had been. */
export class HandoverFailed extends CommandError {
  override readonly code = 'HANDOVER_FAILED'

  /** @param remedy what the new process says can be done. */
  constructor(reason: string, remedy?: string) {
    const comfort = 'Nothing has changed, and the old one goes on. The log has what the new one said.'
    super(`the new process could not take over: ${reason}`, {
      hint: remedy === undefined ? comfort : `${remedy}\n        ${comfort}`,
    })
  }
}

/** A command names a build that is not held. */
export class NotHeld extends CommandError {
  override readonly code = 'BUILD_NOT_HELD'

  constructor(id: string) {
    super(`build ${id} is not held`, { hint: 'See `upserv list`.' })
  }
}

/** A command asks for a session that nobody remembers. */
export class SessionUnknown extends CommandError {
  override readonly code = 'SESSION_UNKNOWN'
}

/** The program's files are those of another version than that which runs: no thread can start from them. */
export class ProgramReplaced extends UpservError {
  readonly code = 'PROGRAM_REPLACED'

  constructor(running: string, installed: string) {
    super(`the program was replaced: version ${running} runs, and its files are those of ${installed}`, {
      hint: 'Run `upserv handover`, or restart the server.',
    })
  }
}

/** A request by HTTP that cannot be served as it is. `status` is HTTP's own. */
export class RequestError extends UpservError {
  readonly code: string = 'REQUEST_BAD'
  readonly status: number
  /** When it is worth to try again; undefined where nobody knows. */
  readonly retryAfterS: number | undefined

  constructor(status: number, message: string, details?: ErrorDetails & { retryAfterS?: number }) {
    super(message, details)
    this.status = status
    this.retryAfterS = details?.retryAfterS
  }
}

/** Changes by HTTP take a token, and this request has none, or another one. */
export class TokenMissing extends RequestError {
  override readonly code = 'TOKEN_MISSING'

  constructor(message: string, details?: ErrorDetails) {
    super(401, message, details)
  }
}

/** A browser says that the request was made by a page from elsewhere. */
export class CrossSite extends RequestError {
  override readonly code = 'CROSS_SITE'

  constructor(message: string, details?: ErrorDetails) {
    super(403, message, details)
  }
}

/** A person pressed ^C, or a command was told to end. */
export class Interrupted extends UpservError {
  readonly code = 'INTERRUPTED'
}

// ---------------------------------------------------------------------------------------------------
// The disk's turn.

export class StoreError extends UpservError {
  readonly code: string = 'STORE_FAILED'
}

/** Another process owns the data directory. */
export class StoreLocked extends StoreError {
  override readonly code = 'STORE_LOCKED'
}

/** The data directory was written by a version whose format we do not read. */
export class StoreFormat extends StoreError {
  override readonly code = 'STORE_FORMAT'
}

/** A sealed file or a blob is not what its digest says. */
export class StoreCorrupt extends StoreError {
  override readonly code = 'STORE_CORRUPT'
}

/** A build lacks what it needs, and could not be made whole again. */
export class BuildDamaged extends StoreError {
  override readonly code = 'BUILD_DAMAGED'
}

/** The build cannot be made to fit: bigger than the budget, or all else is sticky or in use, or the disk is full. */
export class NoRoom extends StoreError {
  override readonly code = 'STORE_NO_ROOM'
}

// ---------------------------------------------------------------------------------------------------

/** Every code, by whose turn it is, for who has to know them before anything went wrong. */
export const CODES = {
  peer: [
    'PEER_PROTOCOL',
    'PEER_REFUSED',
    'ACCESS_DENIED',
    'SERVER_BUSY',
    'LOGINS_SLOWED',
    'FETCHES_SPENT',
    'PEER_GONE',
    'SERVER_HANDED_OVER',
  ],
  upstream: [
    'SOURCE_FAILED',
    'BUILD_UNKNOWN',
    'BUILD_NOT_PUBLISHED',
    'SOURCE_UNREACHABLE',
    'SOURCE_REFUSED',
    'SOURCE_CHANGED',
    'SOURCE_DIGEST_MISMATCH',
    'SOURCE_SIGNATURE_BAD',
    'ARCHIVE_BAD',
    'TOOL_MISSING',
  ],
  operator: [
    'CONFIG_BAD',
    'USAGE_BAD',
    'COMMAND_REFUSED',
    'HANDOVER_FAILED',
    'BUILD_NOT_HELD',
    'SESSION_UNKNOWN',
    'PROGRAM_REPLACED',
    'REQUEST_BAD',
    'TOKEN_MISSING',
    'CROSS_SITE',
    'INTERRUPTED',
  ],
  disk: ['STORE_FAILED', 'STORE_LOCKED', 'STORE_FORMAT', 'STORE_CORRUPT', 'BUILD_DAMAGED', 'STORE_NO_ROOM'],
  /** What is none of these: a bug, or an error of the system's. */
  ours: ['INTERNAL'],
} as const
