/**
 * Talks to the server's API. Who has logged in has a cookie, which this page can't read and the browser sends: all
 * that is known here is whether there is a session.
 */

/** Undefined until the server has said. */
let operator
let changed = () => {}

export function isOperator() {
  return operator === true
}

export function isVisitor() {
  return operator === false
}

/** @param react called at once when a session has begun or ended, before anything else is asked for. */
export function whenOperatorChanges(react) {
  changed = react
}

function become(isOne) {
  if (isOne === operator) return
  const isNews = operator !== undefined
  operator = isOne
  if (isNews) changed()
}

/** Whether there is a session, as the server says: it may have ended meanwhile. */
export async function lookForSession() {
  become((await ask('GET', '/session')).operator)
}

/** @throws Problem when this is not the token. */
export async function login(token) {
  become((await ask('POST', '/session', { token: token.trim() })).operator)
}

export async function logout() {
  become((await ask('DELETE', '/session')).operator)
}

/** What the server said was wrong; `code` never changes. */
export class Problem extends Error {
  constructor({ status, code, detail, hint }, method) {
    super(detail)
    this.method = method
    this.status = status
    this.code = code
    this.hint = hint
  }
}

/** @throws Problem */
export async function ask(method, path, body) {
  const response = await fetch(`/api/v1${path}`, {
    method,
    headers: {
      // No other site's page can send this: it says that ours does.
      ...(method === 'GET' ? {} : { 'x-upserv': 'page' }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const isJson = response.headers.get('content-type')?.includes('json')
  const answer = isJson ? await response.json() : undefined
  if (response.ok) return answer
  if (response.status === 401) become(false)
  const unknown = { status: response.status, code: 'UNKNOWN', detail: `HTTP ${response.status}` }
  throw new Problem(answer ?? unknown, method)
}
