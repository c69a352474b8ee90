/**
 * What the API takes and gives, as JSON Schema: requests are checked by it, and the OpenAPI document tells it.
 * Every property of an answer is always there; what may be missing is null.
 */

export type Schema = Readonly<Record<string, unknown>>

const string: Schema = { type: 'string' }
const integer: Schema = { type: 'integer' }
const count: Schema = { type: 'integer', minimum: 0 }
const boolean: Schema = { type: 'boolean' }
const time: Schema = { type: 'string', format: 'date-time' }
const list = (items: Schema): Schema => ({ type: 'array', items })
const orNull = (schema: Schema): Schema => ({ anyOf: [schema, { type: 'null' }] })
export const oneOf = (...values: string[]): Schema => ({ type: 'string', enum: values })
const counts = (...keys: string[]): Schema => object(Object.fromEntries(keys.map((key) => [key, count])))
export const ref = (name: keyof typeof SCHEMAS): Schema => ({ $ref: `#/components/schemas/${name}` })

/** With exactly these properties. */
export function object(properties: Record<string, Schema>): Schema {
  return { type: 'object', properties, required: Object.keys(properties), additionalProperties: false }
}

/** As build-id.ts has it. */
export const BUILD_ID: Schema = { type: 'string', pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$' }
export const CURSOR: Schema = {
  type: 'string',
  maxLength: 200,
  description: 'The `next` of the page before.',
}
export const LIMIT: Schema = { type: 'integer', minimum: 1, maximum: 1000, default: 100 }
const WORD: Schema = { type: 'string', maxLength: 300 }

/** Which sessions are meant; all that is given must hold. */
export const RECORD_QUERY: Record<string, Schema> = {
  build: BUILD_ID,
  address: WORD,
  device: WORD,
  user: WORD,
  outcome: oneOf('done', 'listed', 'refused', 'peer-error', 'lost', 'failed'),
  since: { ...time, maxLength: 40 },
  until: { ...time, maxLength: 40 },
}

/** Which of the fetches that have ended are meant. */
export const FETCH_QUERY: Record<string, Schema> = {
  build: BUILD_ID,
  source: WORD,
  outcome: oneOf('done', 'failed', 'stopped'),
  since: { ...time, maxLength: 40 },
  until: { ...time, maxLength: 40 },
}

const fetchEnd: Record<string, Schema> = {
  id: string,
  source: string,
  url: string,
  began: time,
  ended: time,
  outcome: FETCH_QUERY.outcome!,
  code: string,
  reason: string,
  receivedBytes: count,
}

const page = (items: Schema): Schema => object({ items: list(items), next: orNull(string) })

const session: Record<string, Schema> = {
  id: integer,
  began: time,
  address: string,
  port: count,
  device: string,
  tls: { type: 'boolean' },
  user: string,
  module: string,
  build: string,
  paths: string,
  options: string,
  protocol: count,
  state: string,
  bytesIn: count,
  bytesOut: count,
  entries: count,
  listedBytes: count,
  files: count,
  matchedBytes: count,
  literalBytes: count,
}

export const SCHEMAS = {
  Problem: {
    type: 'object',
    description: 'What went wrong, as RFC 9457 has it. `code` never changes; `hint` says what to do.',
    properties: { type: string, title: string, status: integer, detail: string, code: string, hint: string },
    required: ['type', 'title', 'status', 'detail', 'code'],
    additionalProperties: false,
  },
  Build: object({
    id: string,
    files: count,
    entries: count,
    bytes: { ...count, description: 'The content of all files.' },
    storedBytes: { ...count, description: 'What removing the build would free now.' },
    sticky: boolean,
    inUse: boolean,
    accessed: time,
    fetched: string,
    source: string,
    url: string,
    vouchers: { ...list(string), description: 'Who vouched for it before it became visible.' },
    checkedBy: { ...string, description: 'The same in few words; empty when nobody did.' },
    channels: list(string),
    damaged: orNull(string),
  }),
  BuildPage: page({ $ref: '#/components/schemas/Build' }),
  AvailablePage: object({
    items: list(object({ id: string, source: string, url: string, published: orNull(time) })),
    gaps: list(object({ source: string, reason: string })),
    next: orNull(string),
  }),
  Fetch: object({
    id: string,
    source: string,
    step: oneOf('waiting', 'locating', 'downloading', 'checking', 'publishing'),
    phase: string,
    began: time,
    receivedBytes: count,
    totalBytes: orNull(count),
    unpackedBytes: count,
    bytesPerSecond: count,
    secondsLeft: orNull(count),
    waiting: count,
  }),
  FetchEnd: object(fetchEnd),
  Fetches: object({
    running: list({ $ref: '#/components/schemas/Fetch' }),
    ended: list({ $ref: '#/components/schemas/FetchEnd' }),
  }),
  Session: object({ ...session, place: count, progress: orNull({ type: 'number', minimum: 0, maximum: 1 }) }),
  Sessions: object({
    items: list({ $ref: '#/components/schemas/Session' }),
    total: count,
    next: orNull(string),
  }),
  SessionRecord: object({
    ...session,
    ended: time,
    codec: string,
    digest: string,
    outcome: RECORD_QUERY.outcome!,
    code: string,
    reason: string,
    ms: count,
    waitedMs: counts('build', 'line'),
    stateMs: { type: 'object', additionalProperties: count },
    newFiles: count,
    newBytes: count,
    searched: count,
    prepared: count,
    reused: count,
    costliest: list(
      object({
        name: string,
        had: oneOf('nothing', 'no-sums', 'too-many-blocks', 'blocks'),
        matchedBytes: count,
        literalBytes: count,
      }),
    ),
  }),
  FetchRecord: object({ number: count, ...fetchEnd }),
  FetchPage: page({ $ref: '#/components/schemas/FetchRecord' }),
  RecordPage: page({ $ref: '#/components/schemas/SessionRecord' }),
  ChangePage: page({ $ref: '#/components/schemas/Change' }),
  Change: object({
    id: integer,
    at: time,
    who: string,
    from: string,
    what: string,
    target: string,
    result: oneOf('done', 'refused', 'failed'),
    code: string,
    reason: string,
  }),
  Login: object({
    operator: boolean,
    expiresInSeconds: orNull({
      ...count,
      description: 'Of the session, if it is not used; null without one.',
    }),
  }),
  Explanation: object({
    record: { $ref: '#/components/schemas/SessionRecord' },
    hints: list(
      object({
        code: string,
        text: string,
        values: { type: 'object', additionalProperties: { type: ['string', 'number'] } },
      }),
    ),
  }),
  Status: object({
    version: string,
    pid: count,
    dataDir: string,
    listening: list(string),
    tlsListening: list(string),
    httpUrls: list(string),
    uptimeSeconds: count,
    budgetBytes: count,
    usedBytes: count,
    usage: counts('builds', 'cache', 'downloads', 'history', 'other'),
    builds: count,
    damaged: list(string),
    sessions: count,
    inLine: count,
    fetches: list({ $ref: '#/components/schemas/Fetch' }),
  }),
  Totals: object({
    since: time,
    sessions: counts('done', 'listed', 'refused', 'peer-error', 'lost', 'failed'),
    bytesIn: count,
    bytesOut: count,
    files: count,
    matchedBytes: count,
    literalBytes: count,
    searched: count,
    prepared: count,
    reused: count,
    fetches: counts('done', 'failed', 'stopped'),
    fetchedBytes: count,
    evicted: count,
  }),
  VerifyReport: object({
    blobs: count,
    bytes: count,
    rottenBlobs: count,
    damaged: list(
      object({ id: string, reason: string, files: list(string), repaired: boolean, failure: orNull(string) }),
    ),
  }),
  Verification: object({
    running: boolean,
    id: orNull(string),
    bytes: count,
    totalBytes: count,
    rottenBlobs: count,
    report: orNull({ $ref: '#/components/schemas/VerifyReport' }),
    failure: orNull(string),
  }),
  Activity: object({
    at: time,
    status: { $ref: '#/components/schemas/Status' },
    sessions: list({ $ref: '#/components/schemas/Session' }),
    recent: list({ $ref: '#/components/schemas/SessionRecord' }),
    recentFetches: list({ $ref: '#/components/schemas/FetchEnd' }),
    totals: { $ref: '#/components/schemas/Totals' },
    verification: orNull({ $ref: '#/components/schemas/Verification' }),
  }),
  Timeline: object({
    start: time,
    stepSeconds: count,
    points: list(object({ bytesOut: integer, askedBytes: integer, sessions: count })),
  }),
  GcReport: object({
    dryRun: boolean,
    budgetBytes: count,
    usedBytes: count,
    deadBytes: count,
    evicted: list(string),
    freedBytes: count,
    spare: list(object({ what: oneOf('cache', 'download'), name: string, bytes: count })),
    builds: list(object({ id: string, goes: boolean, reason: string, accessed: time, freesBytes: count })),
  }),
  Accepted: object({ id: string, held: { ...boolean, description: 'It is there already, or by now.' } }),
  AcceptedStick: object({
    directory: string,
    held: { ...boolean, description: 'All of it is there already, or by now.' },
  }),
  Reloaded: object({ restart: list(string) }),
  Finding: object({
    verdict: oneOf('ok', 'warning', 'problem'),
    about: { ...string, description: 'What was looked at, in a word or two.' },
    says: string,
    hint: { ...orNull(string), description: 'What to type, or to do.' },
  }),
  Findings: object({ items: list({ $ref: '#/components/schemas/Finding' }) }),
  Forgotten: object({ deleted: count }),
} as const satisfies Record<string, Schema>
