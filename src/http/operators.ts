/**
 * Operators: who asks by HTTP as the one who runs the server. Either with the token itself, as programs do, or with
 * a session that a browser began with it.
 *
 * A session is a cookie that no script reads (HttpOnly) and that no other site makes a browser send
 * (SameSite=Strict). What is kept of it is its hash. It ends when it is not used for a while, after a while in any
 * case, when the token in the file is another one, at the logout, and with the process. Its value changes now and
 * then; the one before it is good for a moment more, for requests that were on their way.
 *
 * A change by cookie must come from our own page: it takes a header that neither a form nor another site's script
 * can send, and what a browser says of where a request comes from must not contradict. docs/adr/0008-access.md.
 */
import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { CrossSite, TokenMissing } from '../errors.ts'
import { bearerOf, isSameToken, readToken } from './token.ts'

/** Not used for so long, a session ends. */
export const IDLE_MS = 30 * 60_000
/** However much it is used. */
export const LONGEST_MS = 12 * 3_600_000
/** After so long it gets another value. */
export const RENEW_MS = 15 * 60_000
/** For so long the value before is good as well. */
export const OVERLAP_MS = 60_000
/** Sessions at a time; one more, and the one that was used the longest time ago ends. */
export const MAX_SESSIONS = 100
/** What our page sends with every change; other sites' pages can't without asking us first. */
export const OWN_HEADER = 'x-upserv'

const VALUE_BYTES = 32
const COOKIE = 'upserv_session'

/** What judges guesses of the token: access/attempts.ts, for one who comes from here. */
export type JudgeGuess = (isGood: () => boolean) => Promise<boolean>

/** A request, as far as it matters who makes it. */
export interface Asking {
  readonly headers: IncomingHttpHeaders
  /** Whether nobody on the way can read it. */
  readonly tls: boolean
  readonly judge: JudgeGuess
}

/** By what somebody has shown to be the operator; for the log. */
export type Operator =
  /** `digest` is the token's. */
  { readonly by: 'token'; readonly digest: string } | { readonly by: 'session'; readonly number: number }

interface Session {
  readonly number: number
  readonly began: number
  used: number
  renewed: number
  value: string
  /** The value before, and until when it is good. */
  before: { value: string; until: number } | undefined
  /** Of the token that it was begun with. */
  readonly token: string
}

export class Operators {
  readonly #tokenFile: string
  readonly #now: () => number
  /** The one that was used last is the last. */
  readonly #sessions = new Map<number, Session>()
  #last = 0

  /** @param now milliseconds on a clock that never jumps. */
  constructor(tokenFile: string, now: () => number = () => performance.now()) {
    this.#tokenFile = tokenFile
    this.#now = now
  }

  get sessions(): number {
    return this.#sessions.size
  }

  /** Whether somebody is still the operator who was. For who watches: it is no use of a session. */
  isLive(operator: Operator): boolean {
    if (operator.by === 'token') return this.#isTheToken(operator.digest)
    const session = this.#sessions.get(operator.number)
    return session !== undefined && !this.#hasEnded(session)
  }

  /**
   * Who asks. Undefined: nobody that we know, which is no fault.
   * @throws TokenMissing for a token that is none of ours, LoginsSlowed for too many of them.
   */
  async identify(asking: Asking): Promise<Operator | undefined> {
    const given = bearerOf(asking.headers.authorization)
    if (given !== undefined) {
      await this.#checkToken(given, asking.judge)
      return { by: 'token', digest: digestOf(given) }
    }
    const session = this.#find(asking)
    return session && { by: 'session', number: session.number }
  }

  /** @throws TokenMissing for nobody, CrossSite for a change that another site's page asks for. */
  async require(asking: Asking, changes: boolean): Promise<Operator> {
    const operator = await this.identify(asking)
    if (!operator) {
      throw new TokenMissing(
        changes ? 'changes take a token' : 'this takes a token: it tells who was where',
        {
          hint: TOKEN_HINT,
        },
      )
    }
    if (changes && operator.by === 'session') checkOwnPage(asking)
    return operator
  }

  /** Begins a session. @returns the header that sets its cookie. @throws as `identify`. */
  async login(token: string, asking: Asking): Promise<{ operator: Operator; cookie: string }> {
    checkOwnPage(asking)
    await this.#checkToken(token, asking.judge)
    // Whatever cookie came with it is not taken over: nobody chooses the value of a session but us.
    this.logout(asking)
    const [oldest] = this.#sessions.keys()
    if (this.#sessions.size >= MAX_SESSIONS && oldest !== undefined) this.#sessions.delete(oldest)
    const now = this.#now()
    const value = randomBytes(VALUE_BYTES).toString('base64url')
    const session: Session = {
      number: ++this.#last,
      began: now,
      used: now,
      renewed: now,
      value: digestOf(value),
      before: undefined,
      token: digestOf(token),
    }
    this.#sessions.set(session.number, session)
    return { operator: { by: 'session', number: session.number }, cookie: cookieOf(value, asking.tls) }
  }

  /** @returns the header that gives a session's cookie another value; undefined while it is fresh, or there is none. */
  renew(asking: Asking): string | undefined {
    const session = this.#find(asking)
    const now = this.#now()
    if (!session || now - session.renewed < RENEW_MS) return undefined
    const value = randomBytes(VALUE_BYTES).toString('base64url')
    session.before = { value: session.value, until: now + OVERLAP_MS }
    session.value = digestOf(value)
    session.renewed = now
    return cookieOf(value, asking.tls)
  }

  /** Seconds until the session of who asks ends if it is not used; undefined where there is none. */
  secondsLeft(asking: Asking): number | undefined {
    const session = this.#find(asking)
    if (!session) return undefined
    return Math.ceil((Math.min(session.used + IDLE_MS, session.began + LONGEST_MS) - this.#now()) / 1000)
  }

  /** Ends the session of who asks. @returns the header that makes a browser forget it. */
  logout(asking: Asking): string {
    const session = this.#find(asking)
    if (session) this.#sessions.delete(session.number)
    return cookieOf('', asking.tls)
  }

  #find({ headers, tls }: Asking): Session | undefined {
    const given = cookieIn(headers.cookie, nameFor(tls))
    if (given === undefined) return undefined
    const value = digestOf(given)
    const now = this.#now()
    for (const session of this.#sessions.values()) {
      const { before } = session
      // Hashes of what nobody can guess: how far they are alike says nothing.
      if (session.value !== value && !(before && before.until > now && before.value === value)) continue
      if (this.#hasEnded(session)) {
        this.#sessions.delete(session.number)
        return undefined
      }
      session.used = now
      this.#sessions.delete(session.number)
      this.#sessions.set(session.number, session)
      return session
    }
    return undefined
  }

  #hasEnded(session: Session): boolean {
    const now = this.#now()
    return (
      now - session.used > IDLE_MS || now - session.began > LONGEST_MS || !this.#isTheToken(session.token)
    )
  }

  /** Whether a token that was the right one still is. */
  #isTheToken(digest: string): boolean {
    try {
      return timingSafeEqual(Buffer.from(digest), Buffer.from(digestOf(readToken(this.#tokenFile))))
    } catch {
      return false
    }
  }

  async #checkToken(given: string, judge: JudgeGuess): Promise<void> {
    const good = await judge(() => isSameToken(given, readToken(this.#tokenFile)))
    if (!good) throw new TokenMissing('this is not the token', { hint: TOKEN_HINT })
  }
}

const TOKEN_HINT =
  'Send the token that `upserv token` prints, as "Authorization: Bearer TOKEN", or log in on the page.'

/** @throws CrossSite unless our own page asks, as far as a browser says. */
export function checkOwnPage({ headers }: Pick<Asking, 'headers'>): void {
  const site = headers['sec-fetch-site']
  const elsewhere =
    (site !== undefined && site !== 'same-origin') ||
    (headers.origin !== undefined && !isOrigin(headers.origin, headers.host))
  if (elsewhere) throw new CrossSite("another site's page asked for this")
  if (headers[OWN_HEADER] === undefined) {
    throw new CrossSite(`a change by session takes the header "${OWN_HEADER}"`, {
      hint: 'Our page sends it. Programs send the token instead.',
    })
  }
}

/** Whether an Origin is the host that was asked; the scheme may be that of a proxy before us. */
function isOrigin(origin: string | string[], host: string | undefined): boolean {
  return (
    typeof origin === 'string' &&
    URL.canParse(origin) &&
    host !== undefined &&
    new URL(origin).host === host.toLowerCase()
  )
}

/** A browser takes a name of this kind from a secure connection alone, and from no other host of the domain. */
function nameFor(tls: boolean): string {
  return tls ? `__Host-${COOKIE}` : COOKIE
}

function cookieOf(value: string, tls: boolean): string {
  const age = value === '' ? 0 : Math.floor(LONGEST_MS / 1000)
  return `${nameFor(tls)}=${value}; Path=/; HttpOnly; SameSite=Strict; Max-Age=${age}${tls ? '; Secure' : ''}`
}

function cookieIn(header: string | undefined, name: string): string | undefined {
  for (const part of (header ?? '').slice(0, 8192).split(';')) {
    const [key, value] = part.trim().split('=', 2)
    if (key === name && value !== undefined && /^[A-Za-z0-9_-]{1,100}$/.test(value)) return value
  }
  return undefined
}

function digestOf(text: string): string {
  return hash('sha256', text, 'base64url')
}
