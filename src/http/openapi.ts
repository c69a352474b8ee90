/** The OpenAPI document, made of the table of routes. */
import { VERSION } from '../version.ts'
import type { ApiRoute } from './api.ts'
import { object, SCHEMAS, type Schema } from './schemas.ts'

export function openApiDocument(routes: readonly ApiRoute[]): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const route of routes) {
    paths[route.path] ??= {}
    paths[route.path]![route.method.toLowerCase()] = operationOf(route)
  }
  paths['/events'] = {
    get: {
      operationId: 'watch',
      summary: 'What goes on, as server-sent events.',
      description:
        'Events `activity` (an Activity without `recent` and `recentFetches`, once a second), `builds` (all of them, when they change), `session` (a SessionRecord) and `fetch` (a FetchEnd), each as JSON.',
      responses: {
        200: { description: 'A stream.', content: { 'text/event-stream': {} } },
        default: PROBLEM,
      },
    },
  }
  const login = { 200: { description: 'Who asks.', content: jsonOf('Login') }, default: PROBLEM }
  paths['/session'] = {
    get: { operationId: 'getSession', summary: 'Whether who asks is the operator.', responses: login },
    post: {
      operationId: 'login',
      summary: 'Begins a session: the cookie comes with the answer.',
      description: 'Takes the header `X-Upserv`, whatever its value, as every change by session does.',
      requestBody: {
        required: true,
        content: {
          'application/json': {
            schema: object({ token: { type: 'string', minLength: 1, maxLength: 200 } }),
          },
        },
      },
      responses: login,
    },
    delete: { operationId: 'logout', summary: 'Ends the session.', responses: login },
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'upserv',
      version: VERSION,
      description:
        'What upserv holds, does and did. Everybody may read what the rules let their address have, without users and addresses of devices; history and changes take the token that `upserv token` prints, or a session begun with it.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/api/v1' }],
    paths,
    components: {
      schemas: SCHEMAS,
      securitySchemes: {
        token: { type: 'http', scheme: 'bearer' },
        session: { type: 'apiKey', in: 'cookie', name: 'upserv_session' },
      },
    },
  }
}

/** Whether a route changes something. */
export function changes({ method }: Pick<ApiRoute, 'method'>): boolean {
  return method !== 'GET'
}

/** Whether it takes the token, or a session that was begun with it. */
export function takesToken(route: Pick<ApiRoute, 'method' | 'isPrivate'>): boolean {
  return changes(route) || route.isPrivate === true
}

function jsonOf(schema: keyof typeof SCHEMAS) {
  return { 'application/json': { schema: { $ref: `#/components/schemas/${schema}` } } }
}

const PROBLEM = {
  description: 'What went wrong.',
  content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
}

function operationOf(route: ApiRoute): Record<string, unknown> {
  const { id, summary, description, params = {}, query = {}, body, answers } = route
  const parameters = [
    ...Object.entries(params).map(([name, schema]) => ({ name, in: 'path', required: true, schema })),
    ...Object.entries(query).map(([name, schema]) => ({ name, in: 'query', required: false, schema })),
  ]
  return {
    operationId: id,
    summary,
    ...(description === undefined ? {} : { description }),
    ...(takesToken(route) ? { security: [{ token: [] }, { session: [] }] } : {}),
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(body ? { requestBody: { required: true, content: { 'application/json': { schema: body } } } } : {}),
    responses: {
      ...Object.fromEntries(Object.entries(answers).map(([status, answer]) => [status, responseOf(answer)])),
      default: PROBLEM,
    },
  }
}

function responseOf(answer: Schema | string | null): Record<string, unknown> {
  if (answer === null) return { description: 'Done, or begun.' }
  if (typeof answer === 'string') return { description: 'A file.', content: { [answer]: {} } }
  return { description: 'What was asked for.', content: { 'application/json': { schema: answer } } }
}
