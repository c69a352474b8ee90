import assert from 'node:assert/strict'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { makeScratch } from '../../test/support/scratch.ts'
import { type ChangeRecord, NOBODY } from './change-record.ts'
import type { FetchEnd } from './fetch-record.ts'
import { History } from './history.ts'
import type { SessionRecord } from './session-record.ts'

const DAY = 86_400_000

function record(id: number, more: Partial<SessionRecord> = {}): SessionRecord {
  const ended = new Date(Date.now() - 1000 + id).toISOString()
  return {
    ...{
      id,
      began: ended,
      ended,
      address: '192.0.2.1',
      port: 4000,
      device: '',
      tls: false,
      user: '',
      module: 'build-1',
      build: '1',
    },
    ...{ paths: 'root/', options: '-a', protocol: 31, codec: 'zstd', digest: 'xxh128' },
    ...{ outcome: 'done', code: '', reason: '', state: 'closed', ms: 5, waitedMs: { build: 0, line: 0 } },
    ...{
      stateMs: {},
      bytesIn: 1,
      bytesOut: 2,
      entries: 3,
      listedBytes: 4,
      files: 5,
      newFiles: 0,
      newBytes: 0,
    },
    ...{ matchedBytes: 6, literalBytes: 7, searched: 1, prepared: 2, reused: 3, costliest: [] },
    ...more,
  }
}

function open(directory: string, keepMs = 30 * DAY, maxRows?: number, now?: () => number) {
  const problems: string[] = []
  const sizes: number[] = []
  const history = new History({
    directory,
    keepMs,
    ...(maxRows === undefined ? {} : { maxRows }),
    ...(now ? { now } : {}),
    onProblem: ({ message }) => problems.push(message),
  })
  history.onSize = (bytes) => sizes.push(bytes)
  return { history, problems, sizes }
}

test('what was added is there after a restart, the latest first, page by page', async () => {
  using scratch = makeScratch('history')
  const directory = join(scratch.path, 'history')
  const first = open(directory)
  for (let id = 1; id <= 25; id++) first.history.add(record(id))
  await first.history.close()
  assert.deepEqual(first.problems, [])
  assert.ok(first.sizes.at(-1)! > 0)
  const { history } = open(directory)
  assert.equal(await history.lastId(), 25)
  const ids: number[] = []
  let before: number | undefined
  for (let pages = 1; ; pages++) {
    const { records, next } = await history.find({}, 10, before)
    ids.push(...records.map(({ id }) => id))
    if (next === null) break
    before = next
    assert.ok(pages < 3)
  }
  assert.deepEqual(
    ids,
    [...Array(25).keys()].map((i) => 25 - i),
  )
  assert.deepEqual((await history.find({}, 1)).records[0]!.waitedMs, { build: 0, line: 0 })
  await history.close()
})

test('records are found by what they say', async () => {
  using scratch = makeScratch('history')
  const { history } = open(scratch.path)
  history.add(record(1, { build: '1', address: '192.0.2.1' }))
  history.add(record(2, { build: '2', address: '192.0.2.1', user: 'alice', outcome: 'lost' }))
  history.add(
    record(3, { build: '2', address: '192.0.2.2', ended: new Date(Date.now() - DAY).toISOString() }),
  )
  const find = async (query: Parameters<History['find']>[0]): Promise<number[]> =>
    (await history.find(query, 10)).records.map(({ id }) => id)
  assert.deepEqual(await find({ build: '2' }), [3, 2])
  assert.deepEqual(await find({ build: '2', address: '192.0.2.1' }), [2])
  assert.deepEqual(await find({ user: 'alice' }), [2])
  assert.deepEqual(await find({ outcome: 'lost' }), [2])
  assert.deepEqual(await find({ since: new Date(Date.now() - DAY / 2).toISOString() }), [2, 1])
  assert.deepEqual(await find({ until: new Date(Date.now() - DAY / 2).toISOString() }), [3])
  assert.deepEqual(await find({ build: "1' OR '1'='1" }), [])
  await history.close()
})

test('a database from before there were names of devices is read on, and new sessions have them', async () => {
  using scratch = makeScratch('history')
  const { device: _device, tls: _tls, ...old } = record(1, { user: 'alice' })
  // As the release before wrote it.
  const db = new DatabaseSync(join(scratch.path, 'sessions.db'))
  db.exec(`
    CREATE TABLE sessions (
      id INTEGER PRIMARY KEY AUTOINCREMENT, ended TEXT NOT NULL, address TEXT NOT NULL, user TEXT NOT NULL,
      build TEXT NOT NULL, outcome TEXT NOT NULL, record TEXT NOT NULL
    ) STRICT;
    CREATE INDEX sessions_ended ON sessions (ended);
    PRAGMA user_version = 1;
  `)
  db.prepare('INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)').run(
    ...[1, old.ended, old.address, old.user, old.build, old.outcome, JSON.stringify(old)],
  )
  db.close()
  for (const expected of [2, 3]) {
    // The second time it is of the new layout already.
    const { history, problems } = open(scratch.path)
    history.add(record(expected, { device: 'library', tls: true }))
    const { records } = await history.find({}, 10)
    assert.deepEqual(problems, [])
    assert.deepEqual(records.at(-1), { device: '', tls: false, ...old })
    const { records: found } = await history.find({ device: 'library' }, 10)
    assert.equal(found[0]!.id, expected)
    assert.deepEqual([found[0]!.device, found[0]!.tls], ['library', true])
    assert.equal(found.length, expected - 1)
    await history.close()
  }
  assert.ok(!existsSync(join(scratch.path, 'sessions.db.damaged')))
})

test('what is forgotten is nowhere on the disk any more, and its number is not given again', async () => {
  using scratch = makeScratch('history')
  const { history } = open(scratch.path)
  history.add(record(1, { user: 'SomebodyWhoWantsToBeForgotten' }))
  history.add(record(2, { user: 'bob' }))
  const everything = (): string =>
    readdirSync(scratch.path)
      .map((name) => readFileSync(join(scratch.path, name), 'latin1'))
      .join()
  assert.equal((await history.find({}, 10)).records.length, 2)
  assert.match(everything(), /SomebodyWho/)
  assert.equal(await history.forget({ user: 'SomebodyWhoWantsToBeForgotten' }), 1)
  assert.doesNotMatch(everything(), /SomebodyWho/)
  assert.match(everything(), /bob/)
  assert.equal(await history.forget({}), 1)
  assert.equal(await history.lastId(), 2)
  await history.close()
})

test('what is too old goes at the next start', async () => {
  using scratch = makeScratch('history')
  const first = open(scratch.path)
  first.history.add(record(1, { ended: new Date(Date.now() - 40 * DAY).toISOString() }))
  first.history.add(record(2))
  await first.history.close()
  const { history } = open(scratch.path)
  assert.deepEqual(
    (await history.find({}, 10)).records.map(({ id }) => id),
    [2],
  )
  await history.close()
})

test('a database that is none is put aside, and told', async () => {
  using scratch = makeScratch('history')
  writeFileSync(join(scratch.path, 'sessions.db'), 'This is no database. '.repeat(1000))
  const { history, problems } = open(scratch.path)
  history.add(record(1))
  assert.equal((await history.find({}, 10)).records.length, 1)
  assert.match(problems[0]!, /sessions\.db cannot be used and was put aside: file is not a database/)
  assert.ok(existsSync(join(scratch.path, 'sessions.db.damaged')))
  await history.close()
})

test('a database that turns out to be damaged later is put aside then', async () => {
  using scratch = makeScratch('history')
  const file = join(scratch.path, 'sessions.db')
  const first = open(scratch.path)
  for (let id = 1; id <= 100; id++) first.history.add(record(id))
  await first.history.close()
  const content = readFileSync(file)
  // The first page says what is in the others: it is read when the database is opened.
  writeFileSync(file, Buffer.concat([content.subarray(0, 4096), Buffer.alloc(content.length - 4096, 0xaa)]))
  const { history, problems } = open(scratch.path)
  history.add(record(101))
  assert.equal((await history.find({}, 10)).records.length, 1)
  assert.match(problems.join(), /was put aside: database disk image is malformed/)
  // Nobody can tell who is in it: it goes with whoever wants to be forgotten.
  await history.forget({ user: 'alice' })
  assert.ok(!existsSync(`${file}.damaged`))
  await history.close()
})

test('a database that cannot be opened for now stays where it is', async () => {
  using scratch = makeScratch('history')
  const first = open(scratch.path)
  first.history.add(record(1))
  await first.history.close()
  const inTheWay = join(scratch.path, 'sessions.db-wal')
  mkdirSync(inTheWay)
  const { history, problems } = open(scratch.path)
  await assert.rejects(history.find({}, 10), /the history failed/)
  rmdirSync(inTheWay)
  history.add(record(2))
  assert.equal((await history.find({}, 10)).records.length, 2)
  assert.equal(problems.length, 1)
  assert.ok(!existsSync(join(scratch.path, 'sessions.db.damaged')))
  await history.close()
})

test('no more are kept than may be, however fast they come', async () => {
  using scratch = makeScratch('history')
  const { history } = open(scratch.path, DAY, 1000)
  for (let id = 1; id <= 5000; id++) history.add(record(id))
  const ids: number[] = []
  let before: number | undefined
  do {
    const { records, next } = await history.find({}, 1000, before)
    ids.push(...records.map(({ id }) => id))
    before = next ?? undefined
  } while (before !== undefined)
  assert.equal(ids[0], 5000)
  assert.ok(ids.length <= 1100, String(ids.length))
  await history.close()
})

function change(who: string, target: string): Omit<ChangeRecord, 'id'> {
  const at = new Date().toISOString()
  return { at, who, from: '192.0.2.1:4000', what: 'remove', target, result: 'done', code: '', reason: '' }
}

async function allChanges(history: History): Promise<ChangeRecord[]> {
  const all: ChangeRecord[] = []
  let before: number | undefined
  do {
    const { changes, next } = await history.changes(1000, before)
    all.push(...changes)
    before = next ?? undefined
  } while (before !== undefined)
  return all
}

test('what strangers are refused is remembered within an allowance, which comes back', async () => {
  using scratch = makeScratch('history')
  let now = 0
  const { history } = open(scratch.path, DAY, undefined, () => now)
  for (let i = 0; i < 25_000; i++) history.note(change(NOBODY, 'at once'))
  // Nobody else has to share it.
  history.note(change('command', 'done'))
  now = 60 * 60_000
  history.note(change(NOBODY, 'an hour later'))
  const all = await allChanges(history)
  await history.close()
  assert.deepEqual(
    all.slice(0, 3).map(({ target }) => target),
    ['an hour later', 'done', 'at once'],
  )
  assert.equal(all.length, 502)
})

test('changes are bounded, and strangers push out none that was made', async () => {
  using scratch = makeScratch('history')
  let now = 0
  const { history } = open(scratch.path, DAY, undefined, () => now)
  history.note(change('token', 'the first'))
  for (let i = 0; i < 25_000; i++) {
    now += 60 * 60_000
    history.note(change(NOBODY, String(i)))
  }
  const [latest, ...others] = await allChanges(history)
  for (let i = 0; i < 25_000; i++) history.note(change('command', String(i)))
  const made = (await allChanges(history)).filter(({ who }) => who !== NOBODY)
  await history.close()
  assert.deepEqual([latest!.target, others.at(-1)!.target], ['24999', 'the first'])
  assert.ok(others.length <= 7000, `${others.length} of strangers`)
  assert.equal(made[0]!.target, '24999')
  assert.ok(made.length >= 20_000 && made.length <= 22_000, `${made.length} changes`)
})

test('only its own user may read it; kept for no time, nothing is written', async () => {
  using scratch = makeScratch('history')
  const off = open(join(scratch.path, 'off'), 0)
  off.history.add(record(1))
  assert.deepEqual(await off.history.find({}, 10), { records: [], next: null })
  await off.history.close()
  assert.ok(!existsSync(join(scratch.path, 'off')))
  const { history } = open(join(scratch.path, 'on'))
  history.add(record(1))
  await history.find({}, 1)
  for (const name of readdirSync(join(scratch.path, 'on')))
    assert.equal(statSync(join(scratch.path, 'on', name)).mode & 0o777, 0o600, name)
  await history.close()
  await assert.rejects(history.find({}, 1), /closed/)
})

test('a burst of records is bounded', async () => {
  using scratch = makeScratch('history')
  const { history, problems } = open(scratch.path)
  for (let id = 1; id <= 10_100; id++) history.add(record(id))
  assert.deepEqual(problems, ['the disk is too slow for it'])
  assert.equal(await history.lastId(), 10_000)
  await history.close()
})

test('what was put aside goes when it is as old as records may be, and no sooner', async () => {
  using scratch = makeScratch('history')
  const aside = join(scratch.path, 'sessions.db.damaged')
  for (const [days, stays] of [
    [29, true],
    [31, false],
  ] as const) {
    writeFileSync(aside, 'who was where')
    const then = new Date(Date.now() - days * DAY)
    utimesSync(aside, then, then)
    const { history, problems } = open(scratch.path)
    assert.equal(await history.lastId(), 0)
    assert.equal(existsSync(aside), stays)
    await history.close()
    assert.deepEqual(problems, [])
  }
})

test('fetches are remembered beside sessions, found, and forgotten', async () => {
  using scratch = makeScratch('history')
  const first = open(scratch.path)
  const fetched = (id: string, more: Partial<FetchEnd> = {}): FetchEnd => {
    const now = new Date().toISOString()
    return {
      ...{ id, source: 'olpc', url: `http://mirror.example/${id}`, began: now, ended: now, outcome: 'done' },
      ...{ code: '', reason: '', receivedBytes: 7 },
      ...more,
    }
  }
  const old = new Date(Date.now() - 40 * DAY).toISOString()
  first.history.add(record(1))
  first.history.addFetch(fetched('0', { ended: old }))
  first.history.addFetch(fetched('1'))
  first.history.addFetch(fetched('2', { source: 'other' }))
  first.history.addFetch(fetched('2', { outcome: 'failed', code: 'SOURCE_UNREACHABLE', reason: 'no answer' }))
  await first.history.close()
  assert.deepEqual(first.problems, [])

  const { history } = open(scratch.path)
  const find = async (query: Parameters<History['findFetches']>[0]): Promise<number[]> =>
    (await history.findFetches(query, 10)).records.map(({ number }) => number)
  // The first was too old.
  assert.deepEqual(await find({}), [4, 3, 2])
  assert.deepEqual(await find({ build: '2' }), [4, 3])
  assert.deepEqual(await find({ source: 'olpc', outcome: 'done' }), [2])
  assert.deepEqual(await find({ until: new Date(0).toISOString() }), [])
  const page = await history.findFetches({}, 2)
  assert.deepEqual(
    page.records.map(({ number, id, reason }) => ({ number, id, reason })),
    [
      { number: 4, id: '2', reason: 'no answer' },
      { number: 3, id: '2', reason: '' },
    ],
  )
  assert.deepEqual((await history.findFetches({}, 2, page.next!)).next, null)
  assert.equal(await history.forgetFetches({ build: '2' }), 2)
  assert.deepEqual(await find({}), [2])
  assert.equal((await history.find({}, 10)).records.length, 1)
  await history.close()
})
