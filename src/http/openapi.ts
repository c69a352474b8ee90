/** The OpenAPI document, made of the table of routes. */
import { VERSION } from '../version.ts'
import type { ApiRoute } from './api.ts'
import { SCHEMAS, type Schema } from './schemas.ts'

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
  return {
    openapi: '3.1.0',
    info: {
      title: 'upserv',
      version: VERSION,
      description:
        'What upserv holds, does and did. Reading is open on the address that it listens on; what changes anything takes the token that `upserv token` prints.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/api/v1' }],
    paths,
    components: {
      schemas: SCHEMAS,
      securitySchemes: { token: { type: 'http', scheme: 'bearer' } },
    },
  }
}

/** Whether a route changes something, and so takes the token. */
export function takesToken({ method }: Pick<ApiRoute, 'method'>): boolean {
  return method !== 'GET'
}

const PROBLEM = {
  description: 'What went wrong.',
  content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
}

function operationOf(route: ApiRoute): Record<string, unknown> {
  const { id, summary, params = {}, query = {}, body, answers } = route
  const parameters = [
    ...Object.entries(params).map(([name, schema]) => ({ name, in: 'path', required: true, schema })),
    ...Object.entries(query).map(([name, schema]) => ({ name, in: 'query', required: false, schema })),
  ]
  return {
    operationId: id,
    summary,
    ...(takesToken(route) ? { security: [{ token: [] }] } : {}),
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
