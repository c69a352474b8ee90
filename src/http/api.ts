/**
 * The JSON API, /api/v1: one table of what can be asked. The routes are made of it, what comes in is checked by
 * it, and the OpenAPI document tells it, so that none of the three says anything else than the others.
 *
 * What changes anything is for the operator, and so is what tells who was where; of all else everybody gets what
 * their view has (view.ts). Work that takes long is begun and then looked at.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { MAX_SHOWN, RECENT } from '../build/activity.ts'
import type { Operations, SessionStatus } from '../build/operations.ts'
import { MAX_WARM_FROM, WARM_COMPRESSIONS, type WarmRequest } from '../build/warm-request.ts'
import { CommandError, NotHeld, RequestError } from '../errors.ts'
import type { FetchQuery, FetchRecord } from '../history/fetch-record.ts'
import { MAX_PAGE } from '../history/history.ts'
import type { RecordQuery, SessionRecord } from '../history/session-record.ts'
import type { Finding } from '../lib/finding.ts'
import type { Logger } from '../lib/log.ts'
import { STOCK_RELEASES } from '../rsync/stock-releases.ts'
import type { BuildsView } from './builds-view.ts'
import { csvLine } from './csv.ts'
import {
  BUILD_ID,
  CURSOR,
  FETCH_QUERY,
  LIMIT,
  object,
  oneOf,
  RECORD_QUERY,
  ref,
  type Schema,
} from './schemas.ts'
import { activityFor, OPERATORS_VIEW, type View } from './view.ts'

export interface ApiParts {
  operations: Operations
  /** Reads the configuration again. @returns keys whose new values need a restart. @throws ConfigError */
  reload: () => Promise<readonly string[]>
  /** Looks at all that has to be right, as `upserv doctor` does. */
  examine: () => Promise<readonly Finding[]>
  /** Clients that are connected, the latest first; with `before`, those with lower numbers. */
  live: (most: number, before?: number) => SessionStatus[]
  builds: BuildsView
  log: Logger
  /** Ends what was begun here. */
  signal: AbortSignal
}

/** What was asked, after it was checked. */
export interface Asked {
  params: Record<string, string>
  query: Record<string, string | number | undefined>
  body: Record<string, unknown>
  /** What who asks is shown. */
  view: View
}

/** What is answered. */
export interface Answered {
  status: number
  body?: unknown
  /** In place of a body: something long, to be saved. */
  file?: { type: string; name: string; content: AsyncIterable<string> }
}

export interface ApiRoute {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Below /api/v1, with `{name}` for parameters. */
  path: string
  /** For programs that are made from the document. */
  id: string
  summary: string
  /** What the summary leaves out. */
  description?: string
  params?: Record<string, Schema>
  query?: Record<string, Schema>
  body?: Schema
  /** It tells who was where: for the operator alone. What changes anything is in any case. */
  isPrivate?: boolean
  /** Of the answer by its status; a string stands for a media type that is no JSON, null for no body. */
  answers: Record<number, Schema | string | null>
  run: (asked: Asked, signal: AbortSignal) => Promise<Answered>
}

/** On the machine of the server. */
const PATH: Schema = { type: 'string', pattern: '^/', maxLength: 4096 }
/** Fetches and imports that were begun by HTTP and go on; more are refused. */
const MAX_BEGUN = 50
/** Exports under way; each holds a page of records. */
const MAX_EXPORTS = 8
/** How long a request waits to see whether what it began fails at once. */
const FAILS_AT_ONCE_MS = 1000

export function apiRoutes({
  operations,
  reload,
  examine,
  live,
  builds,
  log,
  signal: ending,
}: ApiParts): ApiRoute[] {
  let begun = 0
  /** Begins something that takes long. @returns whether it is done already. @throws what it failed with at once. */
  const begin = async (what: string, id: string, work: () => Promise<unknown>): Promise<boolean> => {
    if (begun >= MAX_BEGUN)
      throw new RequestError(429, `${begun} are under way already`, { hint: 'Wait for some.' })
    begun++
    const working = work().finally(() => {
      begun--
    })
    // Later it is told by the log and by the list of fetches.
    working.catch((error: Error) => log.info({ build: id, reason: error.message }, `${what} by http failed`))
    return await Promise.race([working.then(() => true), sleep(FAILS_AT_ONCE_MS, false, { ref: false })])
  }
  let exporting = 0
  /** Upstreams are asked, and programs started: who asks meanwhile gets the same answer. */
  let examining: Promise<readonly Finding[]> | undefined
  let verifying: AbortController | undefined

  return [
    {
      method: 'GET',
      path: '/status',
      id: 'getStatus',
      summary: 'What the server is doing, in a few numbers.',
      answers: { 200: ref('Status') },
      run: async ({ view }) => ok(view.status(await operations.status(), await builds.get())),
    },
    {
      method: 'GET',
      path: '/activity',
      id: 'getActivity',
      summary: 'Who is connected, what is being fetched, what has just ended, and sums since the start.',
      description: `Of clients the ${MAX_SHOWN} latest, and of sessions and fetches that ended the latest ${RECENT}: lists of their own have the others.`,
      answers: { 200: ref('Activity') },
      run: async ({ view }) => ok(activityFor(view, await operations.activity(), await builds.get())),
    },
    {
      method: 'GET',
      path: '/timeline',
      id: 'getTimeline',
      summary: 'Transfers over time: the last hour or the last day.',
      query: { span: { type: 'string', enum: ['hour', 'day'], default: 'hour' } },
      answers: { 200: ref('Timeline') },
      run: async ({ query }) => ok(await operations.timeline(query.span === 'day' ? 'day' : 'hour')),
    },
    {
      method: 'GET',
      path: '/builds',
      id: 'listBuilds',
      summary: 'The builds that are held, in the order of their ids.',
      query: { cursor: CURSOR, limit: LIMIT },
      answers: { 200: ref('BuildPage') },
      run: async ({ query, view }) => ok(pageOf(view.builds(await builds.get()), query)),
    },
    {
      method: 'GET',
      path: '/builds/{id}',
      id: 'getBuild',
      summary: 'One build that is held.',
      params: { id: BUILD_ID },
      answers: { 200: ref('Build') },
      run: async ({ params, view }) => ok(await heldBuild(params.id!, view)),
    },
    {
      method: 'DELETE',
      path: '/builds/{id}',
      id: 'removeBuild',
      summary: 'Deletes a build. Refused while it is sticky or in use.',
      params: { id: BUILD_ID },
      answers: { 204: null },
      run: async ({ params }) => {
        await operations.remove(params.id!)
        builds.drop()
        return { status: 204 }
      },
    },
    {
      method: 'PUT',
      path: '/builds/{id}/sticky',
      id: 'pinBuild',
      summary: 'Makes a build sticky: it is never evicted.',
      params: { id: BUILD_ID },
      answers: { 200: ref('Build') },
      run: async ({ params }) => {
        await operations.pin(params.id!)
        builds.drop()
        return ok(await heldBuild(params.id!))
      },
    },
    {
      method: 'DELETE',
      path: '/builds/{id}/sticky',
      id: 'unpinBuild',
      summary: 'Lets a build be evicted again.',
      params: { id: BUILD_ID },
      answers: { 200: ref('Build') },
      run: async ({ params }) => {
        await operations.unpin(params.id!)
        builds.drop()
        return ok(await heldBuild(params.id!))
      },
    },
    {
      method: 'GET',
      path: '/available',
      id: 'listAvailable',
      summary: 'The builds that sources could supply, as far as they can tell.',
      query: { cursor: CURSOR, limit: LIMIT },
      answers: { 200: ref('AvailablePage') },
      run: async ({ query, view }, signal) => {
        const available = view.available(await operations.available(signal))
        return ok({ ...pageOf(available.builds, query), gaps: available.gaps })
      },
    },
    {
      method: 'GET',
      path: '/fetches',
      id: 'listFetches',
      summary: 'Fetches under way, and those that ended last.',
      description: `Of those that ended the latest ${RECENT}; all that are remembered come in pages from 'listFetchHistory'. Those under way are all there.`,
      answers: { 200: ref('Fetches') },
      run: async ({ view }) => {
        const { status, recentFetches } = await operations.activity()
        return ok({ running: view.fetches(status.fetches), ended: view.fetchEnds(recentFetches) })
      },
    },
    {
      method: 'POST',
      path: '/fetches',
      id: 'fetchBuild',
      summary: 'Begins to fetch a build that is not held.',
      body: object({ id: BUILD_ID }),
      answers: { 200: ref('Accepted'), 202: ref('Accepted') },
      run: async ({ body }) => {
        const id = String(body.id)
        const held = await begin('fetch', id, () => operations.fetch(id, () => {}, ending))
        return { status: held ? 200 : 202, body: { id, held } }
      },
    },
    {
      method: 'POST',
      path: '/imports',
      id: 'importBuild',
      summary: 'Begins to make a build of an archive on the machine of the server.',
      body: object({ id: BUILD_ID, file: PATH }),
      answers: { 200: ref('Accepted'), 202: ref('Accepted') },
      run: async ({ body }) => {
        const id = String(body.id)
        const held = await begin('import', id, () =>
          operations.import(String(body.file), id, 'archive', () => {}, ending),
        )
        return { status: held ? 200 : 202, body: { id, held } }
      },
    },
    {
      method: 'POST',
      path: '/imports/stick',
      id: 'importStick',
      summary: "Begins to make builds of all that are on a stick in xs-rsync's layout and not held yet.",
      body: object({ directory: PATH }),
      answers: { 200: ref('AcceptedStick'), 202: ref('AcceptedStick') },
      run: async ({ body }) => {
        const directory = String(body.directory)
        const held = await begin('import of a stick', directory, () =>
          operations.importStick(directory, () => {}, ending),
        )
        return { status: held ? 200 : 202, body: { directory, held } }
      },
    },
    {
      method: 'POST',
      path: '/warm',
      id: 'warmBuild',
      summary:
        'Begins to work out what devices with the builds `from` will ask for, before they do; the log tells what came of it.',
      body: object({
        id: BUILD_ID,
        from: { type: 'array', items: BUILD_ID, minItems: 1, maxItems: MAX_WARM_FROM },
        clients: { type: 'array', items: oneOf(...STOCK_RELEASES), minItems: 1, maxItems: MAX_WARM_FROM },
        compress: { type: 'array', items: oneOf(...WARM_COMPRESSIONS), minItems: 1, maxItems: MAX_WARM_FROM },
        checksum: { type: 'boolean' },
        quick: { type: 'boolean' },
      }),
      answers: { 202: null },
      run: async ({ body }) => {
        const request = body as unknown as WarmRequest
        for (const id of [request.id, ...request.from]) await heldBuild(id)
        await begin('warming', request.id, async () => {
          const { updates, ...report } = await operations.warm(request, () => {}, ending)
          log.info({ build: request.id, ...report, updates: updates.length }, 'warmed by http')
        })
        return { status: 202 }
      },
    },
    {
      method: 'POST',
      path: '/reload',
      id: 'reload',
      summary:
        'Reads the configuration again. One that is wrong is not used, and that is the answer; `restart` has the keys that take one.',
      answers: { 200: ref('Reloaded') },
      run: async () => {
        const restart = await reload()
        builds.drop()
        return ok({ restart: [...restart] })
      },
    },
    {
      method: 'GET',
      path: '/doctor',
      isPrivate: true,
      id: 'examine',
      summary:
        'Whether all is right that has to be, and of what is not, what to type: as `upserv doctor` says.',
      description:
        'The server looks at itself, by the configuration as it is in the file now; it may take some seconds until sources have answered. Whether its ports are reached, and whether another version is installed than the one that runs, can only be seen from outside: by `upserv doctor`.',
      answers: { 200: ref('Findings') },
      run: async () => {
        examining ??= examine().finally(() => {
          examining = undefined
        })
        return ok({ items: (await examining).map((finding) => ({ hint: null, ...finding })) })
      },
    },
    {
      method: 'POST',
      path: '/gc',
      id: 'collectGarbage',
      summary: 'Frees what nobody needs, and keeps to the budget; `dryRun` only says what would go.',
      body: object({ dryRun: { type: 'boolean' }, explain: { type: 'boolean' } }),
      answers: { 200: ref('GcReport') },
      run: async ({ body }) =>
        ok(await operations.gc({ dryRun: body.dryRun === true, explain: body.explain === true })),
    },
    {
      method: 'GET',
      path: '/verification',
      id: 'getVerification',
      summary: 'The verification under way, or the last one; null when there was none since the start.',
      answers: { 200: { anyOf: [ref('Verification'), { type: 'null' }] } },
      run: async ({ view }) => ok(view.verification((await operations.activity()).verification)),
    },
    {
      method: 'POST',
      path: '/verification',
      id: 'beginVerification',
      summary:
        'Begins to read a build again, or all of them (`id` null), to see whether anything has rotted.',
      body: object({ id: { anyOf: [BUILD_ID, { type: 'null' }] }, repair: { type: 'boolean' } }),
      answers: { 202: null },
      run: async ({ body }) => {
        if (verifying)
          throw new CommandError('a verification is under way', { hint: 'Wait for it, or stop it.' })
        const id = body.id === null ? undefined : String(body.id)
        if (id !== undefined) await heldBuild(id)
        const abort = new AbortController()
        verifying = abort
        operations
          .verify(id, { repair: body.repair === true }, () => {}, AbortSignal.any([abort.signal, ending]))
          // How it went is told by `getVerification`.
          .catch((error: Error) => log.info({ reason: error.message }, 'verification by http ended'))
          .finally(() => {
            verifying = undefined
          })
        return { status: 202 }
      },
    },
    {
      method: 'DELETE',
      path: '/verification',
      id: 'stopVerification',
      summary: 'Stops the verification that was begun here. What it found is remembered.',
      answers: { 204: null },
      run: async () => {
        verifying?.abort(new CommandError('it was stopped'))
        return { status: 204 }
      },
    },
    {
      method: 'GET',
      path: '/sessions',
      id: 'listSessions',
      summary: 'Clients that are connected, the latest first.',
      description:
        'A page has fewer than `limit` where who asks may not see all of them; `total` counts all.',
      query: { cursor: CURSOR, limit: LIMIT },
      answers: { 200: ref('Sessions') },
      run: async ({ query, view }) => {
        const { sessions: total } = await operations.status()
        const most = Number(query.limit)
        // One more tells whether there are more.
        const found = live(most + 1, beforeOf(query))
        const page = found.slice(0, most)
        const next = found.length > most ? encodeCursor(String(page.at(-1)!.id)) : null
        return ok({ items: view.sessions(page), total, next })
      },
    },
    {
      method: 'GET',
      path: '/sessions/{which}',
      isPrivate: true,
      id: 'explainSession',
      summary:
        'Why a session that has ended went as it did: by its number, or the last one of an address or user.',
      params: { which: { type: 'string', minLength: 1, maxLength: 300 } },
      answers: { 200: ref('Explanation') },
      run: async ({ params }) => ok(await operations.explain(params.which!)),
    },
    {
      method: 'GET',
      path: '/history',
      isPrivate: true,
      id: 'listHistory',
      summary: 'Sessions that have ended, the latest first.',
      query: { ...RECORD_QUERY, cursor: CURSOR, limit: LIMIT },
      answers: { 200: ref('RecordPage') },
      run: async ({ query }) => {
        const before = beforeOf(query)
        const { records, next } = await operations.history(
          queryOf(query, RECORD_QUERY),
          Number(query.limit),
          before,
        )
        return ok({ items: records, next: next === null ? null : encodeCursor(String(next)) })
      },
    },
    {
      method: 'GET',
      path: '/changes',
      isPrivate: true,
      id: 'listChanges',
      summary: 'What was changed, by whom and from where, the latest first: also what was refused.',
      query: { cursor: CURSOR, limit: LIMIT },
      answers: { 200: ref('ChangePage') },
      run: async ({ query }) => {
        const before = beforeOf(query)
        const { changes, next } = await operations.changes(Number(query.limit), before)
        return ok({ items: changes, next: next === null ? null : encodeCursor(String(next)) })
      },
    },
    {
      method: 'DELETE',
      path: '/history',
      id: 'forgetHistory',
      summary: 'Deletes what is remembered of sessions, for good: of all, or of those that are meant.',
      query: RECORD_QUERY,
      answers: { 200: ref('Forgotten') },
      run: async ({ query }) => ok({ deleted: await operations.forget(queryOf(query, RECORD_QUERY)) }),
    },
    {
      method: 'GET',
      path: '/history.csv',
      isPrivate: true,
      id: 'exportHistoryCsv',
      summary: 'All that is remembered of sessions, for a spreadsheet.',
      query: RECORD_QUERY,
      answers: { 200: 'text/csv' },
      run: async ({ query }) =>
        saved('upserv-history.csv', csvOf(CSV_COLUMNS, everyRecord(queryOf(query, RECORD_QUERY)))),
    },
    {
      method: 'GET',
      path: '/history.json',
      isPrivate: true,
      id: 'exportHistoryJson',
      summary: 'All that is remembered of sessions, as one array.',
      query: RECORD_QUERY,
      answers: { 200: { type: 'array', items: ref('SessionRecord') } },
      run: async ({ query }) =>
        saved('upserv-history.json', jsonOf(everyRecord(queryOf(query, RECORD_QUERY)))),
    },
    {
      method: 'GET',
      path: '/history/fetches',
      isPrivate: true,
      id: 'listFetchHistory',
      summary: 'Fetches that have ended, the latest first.',
      query: { ...FETCH_QUERY, cursor: CURSOR, limit: LIMIT },
      answers: { 200: ref('FetchPage') },
      run: async ({ query }) => {
        const before = beforeOf(query)
        const asked = queryOf(query, FETCH_QUERY)
        const { records, next } = await operations.fetchHistory(asked, Number(query.limit), before)
        return ok({ items: records, next: next === null ? null : encodeCursor(String(next)) })
      },
    },
    {
      method: 'DELETE',
      path: '/history/fetches',
      id: 'forgetFetches',
      summary: 'Deletes what is remembered of fetches, for good: of all, or of those that are meant.',
      query: FETCH_QUERY,
      answers: { 200: ref('Forgotten') },
      run: async ({ query }) => ok({ deleted: await operations.forgetFetches(queryOf(query, FETCH_QUERY)) }),
    },
    {
      method: 'GET',
      path: '/history/fetches.csv',
      isPrivate: true,
      id: 'exportFetchesCsv',
      summary: 'All that is remembered of fetches, for a spreadsheet.',
      query: FETCH_QUERY,
      answers: { 200: 'text/csv' },
      run: async ({ query }) =>
        saved('upserv-fetches.csv', csvOf(FETCH_COLUMNS, everyFetch(queryOf(query, FETCH_QUERY)))),
    },
    {
      method: 'GET',
      path: '/history/fetches.json',
      isPrivate: true,
      id: 'exportFetchesJson',
      summary: 'All that is remembered of fetches, as one array.',
      query: FETCH_QUERY,
      answers: { 200: { type: 'array', items: ref('FetchRecord') } },
      run: async ({ query }) => saved('upserv-fetches.json', jsonOf(everyFetch(queryOf(query, FETCH_QUERY)))),
    },
  ]

  /** An answer that is long, to be saved under this name. */
  function saved(name: string, content: AsyncIterable<string>): Answered {
    const type = name.endsWith('.csv') ? 'text/csv' : 'application/json'
    return { status: 200, file: { type: `${type}; charset=utf-8`, name, content: oneOfFew(content) } }
  }

  async function heldBuild(id: string, view: View = OPERATORS_VIEW): Promise<unknown> {
    const build = view.builds(await builds.get()).find((one) => one.id === id)
    if (!build) throw new NotHeld(id)
    return build
  }

  async function* oneOfFew(content: AsyncIterable<string>): AsyncGenerator<string> {
    if (exporting >= MAX_EXPORTS)
      throw new RequestError(503, `${exporting} exports are under way already`, { hint: 'Try again later.' })
    exporting++
    try {
      yield* content
    } finally {
      exporting--
    }
  }

  function everyRecord(query: RecordQuery): AsyncGenerator<SessionRecord[]> {
    return everyPage((before) => operations.history(query, MAX_PAGE, before))
  }

  function everyFetch(query: FetchQuery): AsyncGenerator<FetchRecord[]> {
    return everyPage((before) => operations.fetchHistory(query, MAX_PAGE, before))
  }
}

async function* everyPage<T>(
  look: (before: number | undefined) => Promise<{ records: T[]; next: number | null }>,
): AsyncGenerator<T[]> {
  let before: number | undefined
  for (;;) {
    const { records, next } = await look(before)
    if (records.length > 0) yield records
    if (next === null) return
    before = next
  }
}

function ok(body: unknown): Answered {
  return { status: 200, body }
}

// ---------------------------------------------------------------------------------------------------
// Pages

/** The items behind the cursor, in the order that they are in. */
function pageOf<T extends { id: string }>(
  items: readonly T[],
  { cursor, limit }: Asked['query'],
): { items: T[]; next: string | null } {
  const most = Number(limit)
  const after = cursor === undefined ? undefined : cursorText(cursor)
  const found = after === undefined ? -1 : items.findIndex(({ id }) => id === after)
  if (after !== undefined && found < 0)
    throw new RequestError(400, 'this cursor leads nowhere any more', { hint: 'Begin again without one.' })
  const page = items.slice(found + 1, found + 1 + most)
  const isLast = found + 1 + most >= items.length
  return { items: page, next: isLast ? null : encodeCursor(page.at(-1)!.id) }
}

function encodeCursor(text: string): string {
  return Buffer.from(text).toString('base64url')
}

function cursorText(cursor: string | number): string {
  return Buffer.from(String(cursor), 'base64url').toString()
}

/** The number that a page ends before; undefined for the first page. */
function beforeOf({ cursor }: Asked['query']): number | undefined {
  return cursor === undefined ? undefined : numberOf(cursorText(cursor))
}

function numberOf(text: string): number {
  const number = Number(text)
  if (text === '' || !Number.isSafeInteger(number)) throw new RequestError(400, 'this is no cursor')
  return number
}

/** What is asked for by those parameters that a table has. */
function queryOf(query: Asked['query'], table: Readonly<Record<string, Schema>>): Record<string, string> {
  const asked: Record<string, string> = {}
  for (const key of Object.keys(table)) {
    const value = query[key]
    if (value === undefined) continue
    asked[key] = key === 'since' || key === 'until' ? timeOf(String(value)) : String(value)
  }
  return asked
}

/** Times are compared as they are kept. */
function timeOf(text: string): string {
  const time = new Date(text)
  // A leap second, say, is a time for the document, but none for JavaScript.
  if (Number.isNaN(time.getTime())) throw new RequestError(400, `"${text}" is no time`)
  return time.toISOString()
}

// ---------------------------------------------------------------------------------------------------
// Exports

const CSV_COLUMNS = [
  ...['id', 'began', 'ended', 'address', 'user', 'module', 'build', 'outcome', 'code', 'reason'],
  ...[
    'bytesIn',
    'bytesOut',
    'files',
    'matchedBytes',
    'literalBytes',
    'ms',
    'paths',
    'options',
    'protocol',
    'device',
  ],
] as (keyof SessionRecord)[]

const FETCH_COLUMNS = [
  ...['number', 'began', 'ended', 'id', 'source', 'url', 'receivedBytes', 'outcome', 'code', 'reason'],
] as (keyof FetchRecord)[]

async function* csvOf<T>(
  columns: readonly (keyof T & string)[],
  pages: AsyncIterable<T[]>,
): AsyncGenerator<string> {
  yield csvLine(columns)
  for await (const records of pages)
    yield records.map((record) => csvLine(columns.map((key) => record[key] as string | number))).join('')
}

async function* jsonOf(pages: AsyncIterable<unknown[]>): AsyncGenerator<string> {
  let separator = '[\n'
  for await (const records of pages) {
    yield separator + records.map((record) => JSON.stringify(record)).join(',\n')
    separator = ',\n'
  }
  yield separator === '[\n' ? '[]\n' : '\n]\n'
}
