/** A client of the API that holds every answer to the API's own document. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'

export interface Answer {
  status: number
  headers: Headers
  /** Parsed where it is JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into it, and the document says what it is
  body: any
}

/** What is asked with the token. */
export type TokenFor = 'all' | 'reads' | 'nothing'

export interface Operation {
  operationId: string
  parameters?: { name: string; in: 'path' | 'query'; schema: Record<string, unknown> }[]
  requestBody?: { content: { 'application/json': { schema: Record<string, unknown> } } }
  responses: Record<string, { content?: Record<string, { schema?: object }> }>
  security?: unknown[]
}

export interface Document {
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, object> }
}

export class ApiClient {
  readonly base: string
  readonly document: Document
  readonly #token: string
  readonly #ajv: Ajv2020
  readonly #validators = new Map<string, ValidateFunction>()
  tokenFor: TokenFor = 'all'
  /** Which answers were seen: "getStatus 200". */
  readonly seen = new Set<string>()

  private constructor(base: string, token: string, document: Document) {
    this.base = base
    this.#token = token
    this.document = document
    this.#ajv = new Ajv2020({ strict: false, allErrors: true })
    formats.default(this.#ajv)
    this.#ajv.addSchema(document, 'document')
  }

  /** @param data the server's data directory, where its token is. */
  static async open(base: string, data: string): Promise<ApiClient> {
    const response = await fetch(`${base}/api/v1/openapi.json`)
    assert.equal(response.status, 200)
    const token = readFileSync(join(data, 'http.token'), 'utf8').trim()
    return new ApiClient(base, token, (await response.json()) as Document)
  }

  get(path: string): Promise<Answer> {
    return this.ask('GET', path)
  }

  /** Asks, with the token, and compares the answer with the document. */
  async ask(method: string, path: string, body?: unknown): Promise<Answer> {
    const response = await fetch(`${this.base}/api/v1${path}`, {
      method,
      headers: {
        ...(this.#sendsToken(method) ? { authorization: `Bearer ${this.#token}` } : {}),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      body: body === undefined ? null : JSON.stringify(body),
    })
    const text = await response.text()
    const type = response.headers.get('content-type') ?? ''
    const answer = {
      status: response.status,
      headers: response.headers,
      body: type.includes('json') ? JSON.parse(text) : text,
    }
    this.#compare(method, path, answer, type)
    return answer
  }

  async expect(status: number, method: string, path: string, body?: unknown): Promise<Answer['body']> {
    const answer = await this.ask(method, path, body)
    assert.equal(answer.status, status, `${method} ${path}: ${JSON.stringify(answer.body)}`)
    return answer.body
  }

  #sendsToken(method: string): boolean {
    return this.tokenFor === 'all' || (this.tokenFor === 'reads' && method === 'GET')
  }

  #compare(method: string, path: string, { status, body }: Answer, type: string): void {
    const [pathname = ''] = path.split('?', 1)
    const template = Object.keys(this.document.paths).find((known) =>
      new RegExp(`^${known.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '[^/]+')}$`).test(pathname),
    )
    const operation = template && this.document.paths[template]?.[method.toLowerCase()]
    if (!template || !operation) {
      assert.equal(status, 404, `${method} ${path} is not in the document`)
      return
    }
    const documented = operation.responses[status] ?? operation.responses.default!
    const key = operation.responses[status] ? String(status) : 'default'
    this.seen.add(`${operation.operationId} ${key}`)
    if (key === 'default') {
      assert.ok(status >= 400, `${method} ${path}: status ${status} is not in the document`)
      assert.equal(type, 'application/problem+json')
      assert.equal(body.status, status)
    }
    const content = documented.content?.[type.split(';')[0]!]
    if (!documented.content) {
      assert.equal(body, '', `${method} ${path} has a body`)
      return
    }
    assert.ok(content, `${method} ${path}: ${type} is not in the document`)
    if (!content.schema) return
    const pointer = [
      'paths',
      template,
      method.toLowerCase(),
      'responses',
      key,
      'content',
      type.split(';')[0]!,
      'schema',
    ]
    const validate = this.#validator(pointer.map(escapePointer).join('/'))
    assert.ok(
      validate(body),
      `${method} ${path}: ${this.#ajv.errorsText(validate.errors)}\n${JSON.stringify(body).slice(0, 2000)}`,
    )
  }

  /** Whether a value is what a schema of the document says. */
  assertIs(schema: string, value: unknown): void {
    const validate = this.#validator(`components/schemas/${schema}`)
    assert.ok(validate(value), `${schema}: ${this.#ajv.errorsText(validate.errors)}`)
  }

  #validator(pointer: string): ValidateFunction {
    const known = this.#validators.get(pointer) ?? this.#ajv.compile({ $ref: `document#/${pointer}` })
    this.#validators.set(pointer, known)
    return known
  }
}

/** A browser's session: its cookie, as in "upserv_session=...". */
export async function loginTo(base: string, data: string): Promise<string> {
  const token = readFileSync(join(data, 'http.token'), 'utf8').trim()
  const response = await fetch(`${base}/api/v1/session`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-upserv': 'test' },
    body: JSON.stringify({ token }),
  })
  assert.equal(response.status, 200, await response.text())
  const [cookie = ''] = response.headers.getSetCookie()
  return cookie.split(';')[0]!
}

function escapePointer(part: string): string {
  return encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'))
}

/** Where a server answers HTTP, from the line that it printed. */
export function httpUrlOf({ ready }: { ready: string }): string {
  const [url] = /http:\/\/\S+/.exec(ready) ?? []
  assert.ok(url, ready)
  return url
}
