/** Talks to the server's API. The token is known for as long as the page is open, and kept nowhere. */

let token = ''

export function hasToken() {
  return token !== ''
}

export function setToken(text) {
  token = text.trim()
}

/** What the server said was wrong; `code` never changes. */
export class Problem extends Error {
  constructor({ status, code, detail, hint }) {
    super(detail)
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
      ...(method === 'GET' ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const isJson = response.headers.get('content-type')?.includes('json')
  const answer = isJson ? await response.json() : undefined
  if (response.ok) return answer
  if (response.status === 401) token = ''
  throw new Problem(answer ?? { status: response.status, code: 'UNKNOWN', detail: `HTTP ${response.status}` })
}
