/**
 * A crash between any two steps of publishing, removing and compacting. The store calls `step` between
 * them; each time the data directory is copied as it is at that moment, which is what a kill -9 leaves,
 * and a new store opens the copy: every build is there whole or not at all.
 */
import assert from 'node:assert/strict'
import { cpSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { StoreError } from '../../src/errors.ts'
import { Store } from '../../src/store/store.ts'
import { publishBuild, readBuild, type TestEntry, temporaryDirectory } from '../support/trees.ts'

const OLD: TestEntry[] = [
  { path: 'shared', content: 'shared content' },
  { path: 'old', content: 'o'.repeat(1000) },
  { path: 'also-shared', content: 'also shared' },
]
const NEW: TestEntry[] = [
  { path: 'shared', content: 'shared content' },
  { path: 'also-shared', content: 'also shared' },
  { path: 'new', content: 'n'.repeat(400_000) },
]
const OTHER: TestEntry[] = [{ path: 'other', content: 'other' }]
const BUILDS: Record<string, TestEntry[]> = { old: OLD, new: NEW, other: OTHER }

/** Opens a copy of what a crash left and checks all that was promised. Returns the ids that are visible. */
async function checkSurvivor(root: string, at: string): Promise<string[]> {
  const problems: StoreError[] = []
  const store = await Store.open(root, { onProblem: (problem) => problems.push(problem) })
  try {
    const ids = store.ids().sort()
    // Twice: as it was found, and when the sweep has taken all it can.
    for (const need of [0, Number.MAX_SAFE_INTEGER]) {
      await store.collect(need)
      for (const id of ids) {
        const expected = new Map(BUILDS[id]!.map(({ path, content }) => [path, content]))
        const found = new Map([...(await readBuild(store, id))])
        assert.deepEqual(new Map([...found].sort()), new Map([...expected].sort()), `${id} ${at}`)
        assert.ok((await store.contents(id)).toString().trimEnd().endsWith('entries'), at)
        await store.info(id)
      }
    }
    assert.deepEqual(problems, [], at)
    await store.leftoversGone()
    assert.deepEqual(readdirSync(store.paths.incoming), [], at)
    // Everything that is not needed has gone, and what went can come again.
    const needed = await store.bytesOf(ids)
    assert.ok(store.bytes - needed <= 80 * store.packs.count, `${at}: ${store.bytes} bytes for ${needed}`)
    for (const id of Object.keys(BUILDS)) if (!ids.includes(id)) await publishBuild(store, id, BUILDS[id]!)
    assert.deepEqual(store.ids().sort(), Object.keys(BUILDS).sort(), at)
    return ids
  } finally {
    await store.close()
  }
}

/** Runs `work` on a store that holds `old` and `other`, crashing in thought at each step. */
async function crashAtEachStep(work: (store: Store) => Promise<void>): Promise<Map<string, string[]>> {
  const directory = temporaryDirectory()
  const crashes: { at: string; copy: string }[] = []
  let watching = false
  try {
    const store = await Store.open(join(directory.path, 'data'), {
      step: (name) => {
        if (!watching) return
        const copy = join(directory.path, `crash-${crashes.length}`)
        cpSync(join(directory.path, 'data'), copy, { recursive: true, preserveTimestamps: true })
        crashes.push({ at: `crash ${crashes.length} at "${name}"`, copy })
      },
    })
    await publishBuild(store, 'other', OTHER)
    await publishBuild(store, 'old', OLD)
    watching = true
    await work(store)
    watching = false
    await store.close()
    const visible = new Map<string, string[]>()
    for (const { at, copy } of crashes) {
      visible.set(at, await checkSurvivor(copy, at))
      rmSync(copy, { recursive: true })
    }
    return visible
  } finally {
    directory.remove()
  }
}

test('publish: at every crash the new build is whole or absent, and once there it stays', async () => {
  const visible = [
    ...(await crashAtEachStep(async (store) => void (await publishBuild(store, 'new', NEW)))).values(),
  ]
  assert.ok(visible.length >= 7)
  const has = visible.map((ids) => ids.includes('new'))
  assert.deepEqual(has, [...has].sort(), 'absent, then there')
  assert.deepEqual([has.at(0), has.at(-1)], [false, true])
  assert.ok(visible.every((ids) => ids.includes('old') && ids.includes('other')))
})

test('remove and compact: at every crash the build is whole or absent, and its neighbours whole', async () => {
  const visible = [
    ...(
      await crashAtEachStep(async (store) => {
        await publishBuild(store, 'new', NEW)
        await store.remove('old')
        await store.collect(Number.MAX_SAFE_INTEGER)
        await store.remove('other')
        await store.collect()
      })
    ).values(),
  ]
  assert.ok(visible.length >= 20)
  const gone = visible.map((ids) => !ids.includes('old'))
  assert.deepEqual(gone, [...gone].sort(), 'there, then gone')
  assert.deepEqual([gone.at(0), gone.at(-1)], [false, true])
})
