import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { realDisk } from '../lib/disk.ts'
import { Channels, noteChannels } from './channels.ts'

const kept = { stable: { id: '802', since: 1000 } }

const CASES: { name: string; configured: Record<string, string>; now: number; since: number }[] = [
  {
    name: 'the same build keeps its time, whenever that is',
    configured: { stable: '802' },
    now: 5000,
    since: 1000,
  },
  { name: 'another build counts from now', configured: { stable: '803' }, now: 5000, since: 5000 },
  { name: 'the clock was set back', configured: { stable: '803' }, now: 10, since: 1002 },
  { name: 'twice within a second', configured: { stable: '803' }, now: 1000, since: 1002 },
  {
    name: 'just behind what --modify-window=1 forgives',
    configured: { stable: '803' },
    now: 1002,
    since: 1002,
  },
]
for (const { name, configured, now, since } of CASES) {
  test(`a channel's time: ${name}`, () => {
    const noted = noteChannels(kept, configured, now)
    assert.deepEqual(noted, { stable: { id: configured.stable, since } })
    assert.equal(noted === kept, configured.stable === '802', 'written only if something is new')
  })
}

test('a time is never given twice to one channel, on the way there and back', () => {
  let records = {}
  const seen: number[] = []
  for (const [id, now] of [
    ['1', 100],
    ['2', 100],
    ['1', 50],
    ['2', 101],
    ['1', 0],
  ] as const) {
    records = noteChannels(records, { c: id }, now)
    seen.push((records as typeof kept & { c: { since: number } }).c.since)
  }
  assert.deepEqual(seen, [100, 102, 104, 106, 108])
})

test('what is known of a channel stays while the configuration does without it', () => {
  assert.equal(noteChannels(kept, {}, 5000), kept)
  const noted = noteChannels(kept, { test: '900' }, 5000)
  assert.deepEqual(noted, { ...kept, test: { id: '900', since: 5000 } })
})

function setUp(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'channels-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'channels.json')
  const problems: Error[] = []
  const open = (configured: Record<string, string>, seconds: number) =>
    Channels.open(
      configured,
      realDisk,
      path,
      (error) => problems.push(error),
      () => new Date(seconds * 1000 + 999),
    )
  return { path, problems, open }
}

test('opening writes nothing; what is kept is found again', async (t) => {
  const { path, problems, open } = setUp(t)
  const first = await open({ stable: '802', beta: '9' }, 1000)
  assert.ok(!existsSync(path))
  await first.keep()
  await (await open({ stable: '803' }, 1000)).keep()
  const later = await open({ stable: '803', beta: '9' }, 9000)
  assert.deepEqual(later.all(), [
    { name: 'beta', id: '9', since: 1000 },
    { name: 'stable', id: '803', since: 1002 },
  ])
  const before = statSync(path, { bigint: true }).ino
  await later.keep()
  assert.equal(statSync(path, { bigint: true }).ino, before, 'nothing new: not written')
  assert.deepEqual(later.get('stable'), { name: 'stable', id: '803', since: 1002 })
  assert.equal(later.get('toString'), undefined)
  assert.deepEqual(problems, [])
})

for (const text of ['', '{"stable": {"id": "802"}}', '{"stable": {"id": "../802", "since": 1}}', '[1]']) {
  test(`a file that says ${text || 'nothing'} is told of, and replaced`, async (t) => {
    const { path, problems, open } = setUp(t)
    writeFileSync(path, text)
    const channels = await open({ stable: '802' }, 1000)
    assert.match(problems[0]!.message, /channels\.json does not say/)
    assert.equal(channels.get('stable')!.since, 1000)
    await channels.keep()
    assert.deepEqual(JSON.parse(readFileSync(path, 'utf8')), { stable: { id: '802', since: 1000 } })
  })
}
