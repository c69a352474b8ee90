import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { realDisk } from '../lib/disk.ts'
import { StorePaths } from '../store/paths.ts'
import { Spare } from './spare.ts'

/** A data directory with so many bytes in cache/, and a download of as many that broke off. */
function setUp(t: TestContext, bytes: number) {
  const root = mkdtempSync(join(tmpdir(), 'spare-'))
  t.after(() => rmSync(root, { recursive: true }))
  const paths = new StorePaths(root)
  mkdirSync(paths.cache)
  mkdirSync(paths.spool('802'), { recursive: true })
  writeFileSync(join(paths.cache, '00000000.seg'), Buffer.alloc(bytes))
  writeFileSync(join(paths.spool('802'), 'download'), Buffer.alloc(bytes))
  const charges: Record<string, number> = {}
  const spare = new Spare(
    realDisk,
    paths,
    () => false,
    (what, size) => {
      charges[what] = size
    },
  )
  return { paths, spare, charges }
}

test('what was derived gives way before a download that broke off', async (t) => {
  const { paths, spare, charges } = setUp(t, 8192)
  await spare.refresh()
  assert.deepEqual(charges, { cache: 8192, code: 0, spools: 8192, 'files beside': 0 })
  assert.deepEqual(
    (await spare.plan(9000)).map(({ what }) => what),
    ['cache', 'download'],
  )
  await spare.drop(8192)
  assert.equal(charges.cache, 0)
  assert.ok(existsSync(paths.spool('802')))
})

for (const { who, isLive } of [
  { who: 'a server', isLive: true },
  { who: 'a command', isLive: false },
])
  test(`${who} whose cache directory was deleted makes room from all else`, async (t) => {
    const { paths, spare, charges } = setUp(t, 8192)
    if (isLive) await spare.attach({ bytes: 0, drop: async () => {} })
    rmSync(paths.cache, { recursive: true })
    await spare.refresh()
    assert.equal(charges.cache, 0)
    assert.deepEqual(
      (await spare.plan(1)).map(({ what }) => what),
      ['download'],
    )
    await spare.drop(1)
    assert.ok(!existsSync(paths.spool('802')))
  })
