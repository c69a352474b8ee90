/** Errors as programs get them: problem+json, RFC 9457. */
import { RequestError, reportError, SourceError, StoreError, UpservError } from '../errors.ts'

export interface Problem {
  /** Where the code is explained. */
  type: string
  title: string
  status: number
  detail: string
  /** Never changes. */
  code: string
  /** What to do. */
  hint?: string
}

export const PROBLEM_TYPE = 'application/problem+json'

/** HTTP's status for codes that don't have that of their kind. */
const STATUS: Record<string, number> = {
  BUILD_UNKNOWN: 404,
  BUILD_NOT_PUBLISHED: 404,
  BUILD_NOT_HELD: 404,
  SESSION_UNKNOWN: 404,
  ACCESS_DENIED: 403,
  SERVER_BUSY: 503,
  SERVER_HANDED_OVER: 503,
  LOGINS_SLOWED: 429,
  FETCHES_SPENT: 429,
  BUILD_DAMAGED: 503,
  STORE_NO_ROOM: 507,
  COMMAND_REFUSED: 409,
  CONFIG_BAD: 409,
  USAGE_BAD: 400,
  INTERRUPTED: 503,
}

const TITLES: Record<number, string> = {
  400: 'The request is wrong',
  401: 'A token is needed',
  403: 'Not allowed',
  404: 'There is no such thing',
  405: 'Not this way',
  409: 'Not as things are',
  413: 'Too large',
  416: 'No such range',
  421: 'Not by this name',
  429: 'Too many at a time',
  500: 'Something failed',
  502: 'The upstream failed',
  503: 'Not now',
  507: 'No room',
}

/** @param error whatever was thrown. What is not ours is told to nobody: the log has it. */
export function problemOf(error: unknown): Problem {
  const status = statusOf(error)
  const known = error instanceof UpservError || status < 500
  const { code, message, hint } = known ? reportError(error) : INTERNAL
  return {
    type: 'about:blank',
    title: TITLES[status] ?? TITLES[500]!,
    status,
    detail: message,
    code: error instanceof UpservError ? code : status < 500 ? 'REQUEST_BAD' : 'INTERNAL',
    ...(hint === undefined ? {} : { hint }),
  }
}

const INTERNAL = { code: 'INTERNAL', message: 'internal error: see the log of the server', hint: undefined }

function statusOf(error: unknown): number {
  if (error instanceof RequestError) return error.status
  if (error instanceof UpservError) {
    const status = STATUS[error.code]
    if (status !== undefined) return status
    if (error instanceof SourceError || error.code.startsWith('SOURCE_') || error.code === 'ARCHIVE_BAD')
      return 502
    return error instanceof StoreError ? 500 : 409
  }
  // Fastify's own: a body that is no JSON, a parameter that does not match its schema.
  const { statusCode } = Object(error) as { statusCode?: unknown }
  return typeof statusCode === 'number' && statusCode >= 400 && statusCode < 600 ? statusCode : 500
}
