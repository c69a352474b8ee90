/**
 * Talks to the server's API. Who has logged in has a cookie, which this page can't read and the browser sends: all
 * that is known here is whether there is a session.
 */

let operator = false

export function isOperator() {
  return operator
}

/** Whether there is a session, as the server says. */
export async function lookForSession() {
  operator = (await ask('GET', '/session')).operator
  return operator
}

/** @throws Problem when this is not the token. */
export async function login(token) {
  operator = (await ask('POST', '/session', { token: token.trim() })).operator
}

export async function logout() {
  operator = (await ask('DELETE', '/session')).operator
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
  if (response.status === 401) operator = false
  const unknown = { status: response.status, code: 'UNKNOWN', detail: `HTTP ${response.status}` }
  throw new Problem(answer ?? unknown, method)
}
