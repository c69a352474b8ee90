/**
 * The thread of the history: the only one that touches its database.
 *
 * A record is a row: what one looks for in columns, all of it as JSON. Rows are written some at a time, in one
 * transaction. Deleted rows are overwritten (`secure_delete`), as they may be deleted for the sake of privacy.
 */
import { closeSync, openSync, renameSync, rmSync, statSync } from 'node:fs'
import type { DatabaseSync as Database, SQLInputValue } from 'node:sqlite'
import { parentPort, workerData } from 'node:worker_threads'
import { checkProgram } from '../lib/module-path.ts'
import { type ChangePage, type ChangeRecord, NOBODY } from './change-record.ts'
import type { FetchEnd, FetchPage, FetchQuery, FetchRecord } from './fetch-record.ts'
import type { RecordPage, RecordQuery, SessionRecord } from './session-record.ts'
import { DatabaseSync } from './sqlite.ts'

export interface HistoryWorkerData {
  file: string
  keepMs: number
  maxRows: number
}

export type HistoryOrder =
  | { type: 'last' }
  | { type: 'add'; record: SessionRecord }
  | { type: 'find'; query: RecordQuery; limit: number; before: number | null }
  | { type: 'forget'; query: RecordQuery }
  | { type: 'addFetch'; end: FetchEnd }
  | { type: 'findFetches'; query: FetchQuery; limit: number; before: number | null }
  | { type: 'forgetFetches'; query: FetchQuery }
  | { type: 'note'; change: Omit<ChangeRecord, 'id'> }
  | { type: 'changes'; limit: number; before: number | null }
  | { type: 'close' }

export type HistoryMessage =
  | { type: 'written'; records: number }
  | { type: 'size'; bytes: number }
  | { type: 'problem'; reason: string }
  | { type: 'answer'; number: number; value: unknown }
  | { type: 'failed'; number: number; reason: string }

/** Names the layout of the database, in its `user_version`. */
const FORMAT = 2
/** What makes a layout of the one before it. */
const MIGRATIONS: Record<number, string> = {
  1: "ALTER TABLE sessions ADD COLUMN device TEXT NOT NULL DEFAULT ''",
}
/** Records are written after this time, or as soon as there are so many. */
const WRITE_AFTER_MS = 500
const WRITE_AT = 500
/** Changes that are remembered: they are made by hand. */
const MAX_CHANGES = 20_000
/** Beside them, what strangers were refused: however much that is, it pushes out no change that was made. */
const MAX_REFUSALS = 5000
const PRUNE_EVERY_MS = 3_600_000
/** Deleted as soon as there are so many more than may be, as a part of those. */
const MAX_EXCESS = 0.1
/** SQLite's SQLITE_CORRUPT and SQLITE_NOTADB. */
const RUINED = [11, 26]
/** Only upserv's own user: it says who was where, when. */
const FILE_MODE = 0o600

checkProgram()
const { file, keepMs, maxRows } = workerData as HistoryWorkerData
const damaged = `${file}.damaged`
const port = parentPort!
const say = (message: HistoryMessage): void => port.postMessage(message)

class OtherFormat extends Error {}

let waiting: SessionRecord[] = []
let waitingFetches: FetchEnd[] = []
let timer: NodeJS.Timeout | undefined
let saidProblem = ''
let size = -1
/** Rows that were written since those too many were deleted. */
let added = 0
/** The same of changes. */
let noted = 0
let opened: Database | undefined
/** Why what is there has to be put aside. */
let ruin: Error | undefined

const pruning = setInterval(() => attempt(prune), PRUNE_EVERY_MS)
attempt(prune)

port.on('message', (order: HistoryOrder & { number?: number }) => {
  if (order.type === 'add' || order.type === 'addFetch') {
    if (order.type === 'add') waiting.push(order.record)
    else waitingFetches.push(order.end)
    if (waiting.length + waitingFetches.length >= WRITE_AT) attempt(write)
    else timer ??= setTimeout(() => attempt(write), WRITE_AFTER_MS)
    return
  }
  if (order.type === 'note') {
    attempt(() => note(order.change))
    return
  }
  attempt(write)
  if (order.type === 'close') {
    clearInterval(pruning)
    opened?.close()
    port.close()
    return
  }
  const number = order.number!
  try {
    say({ type: 'answer', number, value: carryOut(order) })
  } catch (error) {
    say({ type: 'failed', number, reason: (error as Error).message })
    closeIfRuined(error)
  }
})

function carryOut(order: Exclude<HistoryOrder, { type: 'add' | 'addFetch' | 'note' | 'close' }>): unknown {
  switch (order.type) {
    case 'last':
      // Also when the records themselves have been deleted.
      return Number(
        database().prepare("SELECT seq FROM sqlite_sequence WHERE name = 'sessions'").get()?.seq ?? 0,
      )
    case 'find':
      return find(order.query, order.limit, order.before)
    case 'forget':
      return forget('sessions', conditions(order.query))
    case 'findFetches':
      return findFetches(order.query, order.limit, order.before)
    case 'forgetFetches':
      return forget('fetches', fetchConditions(order.query))
    case 'changes':
      return changes(order.limit, order.before)
  }
}

/** Opened when it is needed, and tried again the next time: a disk that is full, or another program, gets over it. */
function database(): Database {
  opened ??= openOrReplace()
  return opened
}

/** What can never be read is put aside: a history that is lost must not keep devices from updating. */
function openOrReplace(): Database {
  if (ruin) putAside(ruin)
  try {
    return open()
  } catch (error) {
    if (!isRuined(error)) throw error
    putAside(error as Error)
    return open()
  }
}

function putAside({ message }: Error): void {
  for (const suffix of ['-wal', '-shm']) rmSync(file + suffix, { force: true })
  renameSync(file, damaged)
  ruin = undefined
  say({ type: 'problem', reason: `${file} cannot be used and was put aside: ${message}` })
}

/** A part that was not looked at when it was opened may turn out to be damaged. It is put aside with the next use. */
function closeIfRuined(error: unknown): void {
  if (!opened || !isRuined(error)) return
  opened.close()
  opened = undefined
  ruin = error as Error
}

function isRuined(error: unknown): boolean {
  const { errcode } = Object(error) as { errcode?: unknown }
  // The low byte is the kind, the others say more of it.
  return error instanceof OtherFormat || (typeof errcode === 'number' && RUINED.includes(errcode & 0xff))
}

function open(): Database {
  // SQLite gives its other files the mode of this one.
  closeSync(openSync(file, 'a', FILE_MODE))
  const candidate = new DatabaseSync(file)
  try {
    candidate.exec(
      'PRAGMA busy_timeout = 30000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON; PRAGMA cache_size = -256',
    )
    migrate(candidate)
    candidate.exec(`
      CREATE TABLE IF NOT EXISTS sessions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, ended TEXT NOT NULL, address TEXT NOT NULL, user TEXT NOT NULL,
        build TEXT NOT NULL, outcome TEXT NOT NULL, record TEXT NOT NULL, device TEXT NOT NULL DEFAULT ''
      ) STRICT;
      CREATE INDEX IF NOT EXISTS sessions_ended ON sessions (ended);
      CREATE INDEX IF NOT EXISTS sessions_address ON sessions (address);
      CREATE INDEX IF NOT EXISTS sessions_build ON sessions (build);
      CREATE INDEX IF NOT EXISTS sessions_device ON sessions (device) WHERE device <> '';
      CREATE TABLE IF NOT EXISTS changes (id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, record TEXT NOT NULL) STRICT;
      CREATE TABLE IF NOT EXISTS fetches (
        id INTEGER PRIMARY KEY AUTOINCREMENT, ended TEXT NOT NULL, build TEXT NOT NULL, source TEXT NOT NULL,
        outcome TEXT NOT NULL, record TEXT NOT NULL
      ) STRICT;
      CREATE INDEX IF NOT EXISTS fetches_ended ON fetches (ended);
      PRAGMA user_version = ${FORMAT};
    `)
    return candidate
  } catch (error) {
    candidate.close()
    throw error
  }
}

/** Brings an older layout up to ours, all of it or nothing. @throws OtherFormat for one that we don't know. */
function migrate(db: Database): void {
  const found = Number(db.prepare('PRAGMA user_version').get()!.user_version)
  if (found > FORMAT || found < 0)
    throw new OtherFormat(`it has format ${found}, this program reads ${FORMAT}`)
  if (found === 0) return
  for (let format = found; format < FORMAT; format++)
    db.exec(`BEGIN; ${MIGRATIONS[format]}; PRAGMA user_version = ${format + 1}; COMMIT`)
}

function write(): void {
  clearTimeout(timer)
  timer = undefined
  const records = waiting
  const fetches = waitingFetches
  waiting = []
  waitingFetches = []
  const count = records.length + fetches.length
  if (count === 0) return
  try {
    const db = database()
    const insert = db.prepare(
      'INSERT OR REPLACE INTO sessions (id, ended, address, device, user, build, outcome, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
    )
    const insertFetch = db.prepare(
      'INSERT INTO fetches (ended, build, source, outcome, record) VALUES (?, ?, ?, ?, ?)',
    )
    db.exec('BEGIN')
    try {
      for (const record of records) {
        const { id, ended, address, device, user, build, outcome } = record
        insert.run(id, ended, address, device, user, build, outcome, JSON.stringify(record))
      }
      for (const end of fetches)
        insertFetch.run(end.ended, end.id, end.source, end.outcome, JSON.stringify(end))
      db.exec('COMMIT')
    } catch (error) {
      // SQLite may have done so itself.
      if (db.isTransaction) db.exec('ROLLBACK')
      throw error
    }
  } finally {
    say({ type: 'written', records: count })
  }
  measure()
  added += count
  if (added > maxRows * MAX_EXCESS) prune()
}

function note(change: Omit<ChangeRecord, 'id'>): void {
  database().prepare('INSERT INTO changes (at, record) VALUES (?, ?)').run(change.at, JSON.stringify(change))
  measure()
  if (++noted > MAX_CHANGES * MAX_EXCESS) prune()
}

function changes(limit: number, before: number | null): ChangePage {
  const rows = database()
    .prepare('SELECT id, record FROM changes WHERE id < ? ORDER BY id DESC LIMIT ?')
    .all(before ?? Number.MAX_SAFE_INTEGER, limit + 1)
  const found = rows
    .slice(0, limit)
    .map(({ id, record }) => ({ id: Number(id), ...JSON.parse(String(record)) }) as ChangeRecord)
  return { changes: found, next: rows.length > limit ? found.at(-1)!.id : null }
}

type Table = 'sessions' | 'fetches'

function find(query: RecordQuery, limit: number, before: number | null): RecordPage {
  const { rows, next } = pageOf('sessions', conditions(query), limit, before)
  return { records: rows.map(({ record }) => asRecord(record)), next }
}

/** What was written before there was TLS says nothing of it. */
function asRecord(json: string): SessionRecord {
  return { device: '', tls: false, ...(JSON.parse(json) as Omit<SessionRecord, 'device' | 'tls'>) }
}

function findFetches(query: FetchQuery, limit: number, before: number | null): FetchPage {
  const { rows, next } = pageOf('fetches', fetchConditions(query), limit, before)
  const records = rows.map(
    ({ id, record }): FetchRecord => ({ number: id, ...(JSON.parse(record) as FetchEnd) }),
  )
  return { records, next }
}

function pageOf(
  table: Table,
  { where, values }: Conditions,
  limit: number,
  before: number | null,
): { rows: { id: number; record: string }[]; next: number | null } {
  const from = before === null ? [] : [before]
  const rows = database()
    .prepare(
      `SELECT id, record FROM ${table} ${clause([...where, ...from.map(() => 'id < ?')])} ORDER BY id DESC LIMIT ?`,
    )
    .all(...values, ...from, limit + 1)
    .map(({ id, record }) => ({ id: Number(id), record: String(record) }))
  const page = rows.slice(0, limit)
  return { rows: page, next: rows.length > limit ? page.at(-1)!.id : null }
}

function forget(table: Table, { where, values }: Conditions): number {
  const db = database()
  const { changes } = db.prepare(`DELETE FROM ${table} ${clause(where)}`).run(...values)
  // Nobody can tell who is in it.
  rmSync(damaged, { force: true })
  // Else the write-ahead log would keep what was deleted.
  db.exec('VACUUM; PRAGMA wal_checkpoint(TRUNCATE)')
  measure()
  return Number(changes)
}

function prune(): void {
  const oldest = Date.now() - keepMs
  const aside = statSync(damaged, { throwIfNoEntry: false })
  if (aside && aside.mtimeMs < oldest) rmSync(damaged, { force: true })
  const db = database()
  for (const table of ['sessions', 'fetches'] satisfies Table[]) {
    db.prepare(`DELETE FROM ${table} WHERE ended < ?`).run(new Date(oldest).toISOString())
    db.prepare(
      `DELETE FROM ${table} WHERE id <= (SELECT id FROM ${table} ORDER BY id DESC LIMIT 1 OFFSET ?)`,
    ).run(maxRows)
  }
  db.prepare('DELETE FROM changes WHERE at < ?').run(new Date(oldest).toISOString())
  for (const [whose, most] of [
    [`record ->> '$.who' <> '${NOBODY}'`, MAX_CHANGES],
    [`record ->> '$.who' = '${NOBODY}'`, MAX_REFUSALS],
  ] as const) {
    db.prepare(
      `DELETE FROM changes WHERE ${whose}
         AND id <= (SELECT id FROM changes WHERE ${whose} ORDER BY id DESC LIMIT 1 OFFSET ?)`,
    ).run(most)
  }
  db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  added = 0
  noted = 0
  measure()
}

interface Conditions {
  where: string[]
  values: SQLInputValue[]
}

function conditions({ build, address, device, user, outcome, since, until }: RecordQuery): Conditions {
  return allOf({
    'build = ?': build,
    'address = ?': address,
    'device = ?': device,
    'user = ?': user,
    'outcome = ?': outcome,
    ...within(since, until),
  })
}

function fetchConditions({ build, source, outcome, since, until }: FetchQuery): Conditions {
  return allOf({ 'build = ?': build, 'source = ?': source, 'outcome = ?': outcome, ...within(since, until) })
}

function within(since: string | undefined, until: string | undefined): Record<string, string | undefined> {
  return { 'ended >= ?': since, 'ended < ?': until }
}

/** Those that are given. */
function allOf(conditions: Record<string, string | undefined>): Conditions {
  const given = Object.entries(conditions).flatMap(([condition, value]) =>
    value === undefined ? [] : [[condition, value] as const],
  )
  return { where: given.map(([condition]) => condition), values: given.map(([, value]) => value) }
}

function clause(where: readonly string[]): string {
  return where.length > 0 ? `WHERE ${where.join(' AND ')}` : ''
}

function measure(): void {
  let bytes = 0
  for (const suffix of ['', '-wal', '-shm', '.damaged'])
    bytes += statSync(file + suffix, { throwIfNoEntry: false })?.size ?? 0
  if (bytes !== size) say({ type: 'size', bytes })
  size = bytes
}

/** Carries on when the disk is full or failing. Each problem is told once. */
function attempt(work: () => void): void {
  try {
    work()
    saidProblem = ''
  } catch (error) {
    const reason = (error as Error).message
    if (reason !== saidProblem) say({ type: 'problem', reason })
    saidProblem = reason
    closeIfRuined(error)
  }
}
