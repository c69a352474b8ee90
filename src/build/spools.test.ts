import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { StorePaths } from '../store/paths.ts'
import { Spools } from './spools.ts'

const DAY_MS = 24 * 3600 * 1000

function setUp(t: TestContext, ages: Record<string, number>) {
  const root = mkdtempSync(join(tmpdir(), 'spools-'))
  t.after(() => rmSync(root, { recursive: true }))
  const paths = new StorePaths(root)
  mkdirSync(paths.incoming)
  for (const [id, days] of Object.entries(ages)) {
    mkdirSync(paths.spool(id))
    const file = join(paths.spool(id), 'download')
    writeFileSync(file, Buffer.alloc(1000))
    const then = new Date(Date.now() - days * DAY_MS)
    utimesSync(file, then, then)
  }
  // An ingest is none of our business.
  mkdirSync(paths.newIngest('802'))
  const active = new Set<string>()
  const counted: number[] = []
  const spools = new Spools(
    paths,
    (id) => active.has(id),
    (bytes) => counted.push(bytes),
  )
  const held = () => Object.keys(ages).filter((id) => existsSync(paths.spool(id)))
  return { spools, active, counted, held }
}

test('idle spools are counted; those of fetches under way are not', async (t) => {
  const { spools, active, counted, held } = setUp(t, { '801': 1, '802': 2 })
  await spools.refresh()
  active.add('802')
  await spools.refresh()
  assert.deepEqual(counted, [2000, 1000])
  assert.deepEqual(held(), ['801', '802'])
})

test('what nobody has come back for in two weeks goes, unless it is in use', async (t) => {
  const { spools, active, counted, held } = setUp(t, { old: 15, older: 30, recent: 13 })
  active.add('older')
  await spools.refresh()
  assert.deepEqual(held(), ['older', 'recent'])
  assert.deepEqual(counted, [1000])
})

test('when room is short, the longest forgotten goes first, no more than it takes', async (t) => {
  const { spools, active, counted, held } = setUp(t, { a: 3, b: 5, c: 4, d: 6 })
  active.add('d')
  await spools.drop(1500)
  assert.deepEqual(held(), ['a', 'd'])
  assert.deepEqual(counted, [1000])
})
