/** The order of eviction is that of the accesses, whatever the clock did, unless somebody touched a build. */
import assert from 'node:assert/strict'
import { rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Catalog } from '../../src/build/catalog.ts'
import { BuildEvictor } from '../../src/build/evictor.ts'
import { type Disk, realDisk } from '../../src/lib/disk.ts'
import { Store } from '../../src/store/store.ts'
import { publishBuild, temporaryDirectory } from '../support/trees.ts'

const HOUR = 3600_000
const at = (text: string) => Date.parse(text)

async function setUp(t: TestContext, ids: readonly string[]) {
  const directory = temporaryDirectory()
  const clock = { now: at('2026-01-01T00:00:00Z') }
  let store: Store | undefined
  t.after(async () => {
    await store?.close()
    directory.remove()
  })
  const open = async () => {
    await store?.close()
    store = await Store.open(directory.path, { now: () => new Date(clock.now) })
    return store
  }
  await open()
  for (const id of ids) {
    await publishBuild(store!, id, [{ path: id, content: id.repeat(10_000) }])
    clock.now += HOUR
  }
  const accessedFile = (id: string) => join(directory.path, 'builds', id, 'accessed')
  const touch = (id: string, time: number) => utimesSync(accessedFile(id), new Date(time), new Date(time))
  /** Ids, who goes first at the start. */
  const order = async () => {
    const orders = await Promise.all(
      store!.ids().map(async (id) => ({ id, order: await store!.accessOrder(id) })),
    )
    return orders
      .sort((a, b) => a.order - b.order)
      .map(({ id }) => id)
      .join('')
  }
  return { clock, open, touch, order, accessedFile, store: () => store! }
}

test('a clock that jumps, forward or back, does not change the order of accesses', async (t) => {
  const { clock, open, order, store } = await setUp(t, ['a', 'b', 'c'])
  clock.now = at('2040-01-01T00:00:00Z')
  await store().touch('a')
  assert.equal(await order(), 'bca')
  clock.now = at('1970-01-01T00:01:00Z')
  await store().touch('b')
  await publishBuild(store(), 'd', [{ path: 'd' }])
  assert.equal(await order(), 'cabd')
  await open()
  assert.equal(await order(), 'cabd', 'after a restart')
  clock.now = at('2026-01-02T00:00:00Z')
  await store().touch('c')
  assert.equal(await order(), 'abdc')
  await open()
  assert.equal(await order(), 'abdc')
  assert.ok(store().accessed('a').getTime() <= clock.now, 'nobody is shown a time in the future')
})

test('a build that was just fetched stays, although the clock says that it is the oldest', async (t) => {
  const { clock, open, store } = await setUp(t, ['a', 'b'])
  clock.now = at('1970-01-01T00:01:00Z')
  await publishBuild(store(), 'new', [{ path: 'new', content: 'n'.repeat(10_000) }])
  await open()
  const gone: string[] = []
  await new BuildEvictor(store(), new Catalog(store()), (id) => gone.push(id)).evict(15_000)
  assert.deepEqual(gone, ['a', 'b'])
  assert.deepEqual(store().ids(), ['new'])
})

const TOUCHES = [
  { name: 'now', time: '2026-01-01T04:00:00Z', order: 'bca' },
  { name: 'at a time between others', time: '2026-01-01T01:30:00Z', order: 'bac' },
  { name: 'in the future', time: '2050-01-01T00:00:00Z', order: 'bca' },
  { name: 'long ago', time: '2000-01-01T00:00:00Z', order: 'abc' },
]
for (const { name, time, order: expected } of TOUCHES) {
  test(`\`touch accessed\` keeps its meaning: ${name}`, async (t) => {
    const { open, touch, order } = await setUp(t, ['a', 'b', 'c'])
    touch('a', at(time))
    assert.equal(await order(), expected, 'while we run')
    assert.equal(await order(), expected, 'looking changes nothing')
    await open()
    assert.equal(await order(), expected, 'after a restart')
  })
}

test('an access after a touch counts', async (t) => {
  const { clock, open, touch, order, store } = await setUp(t, ['a', 'b', 'c'])
  touch('c', at('2000-01-01T00:00:00Z'))
  assert.equal(await order(), 'cab')
  clock.now += HOUR
  await store().touch('c')
  assert.equal(await order(), 'abc')
  await open()
  assert.equal(await order(), 'abc')
})

test('a mark that is gone, empty or makes no sense goes by its time, or first', async (t) => {
  const { open, order, accessedFile, touch } = await setUp(t, ['a', 'b', 'c', 'd'])
  rmSync(accessedFile('d'))
  writeFileSync(accessedFile('b'), 'no mark at all')
  touch('b', at('2026-01-01T02:30:00Z'))
  writeFileSync(accessedFile('a'), '')
  touch('a', at('2026-01-01T09:00:00Z'))
  await open()
  assert.equal(await order(), 'dcba')
})

test('at most a minute of accesses is written late, and its mtime is the time for people', async (t) => {
  const { clock, open, order, store, accessedFile } = await setUp(t, ['a', 'b'])
  const before = statSync(accessedFile('a')).mtimeMs
  await store().touch('a')
  const written = statSync(accessedFile('a')).mtimeMs
  assert.equal(written, clock.now)
  assert.ok(written > before)
  clock.now += 59_000
  await store().touch('a')
  assert.equal(statSync(accessedFile('a')).mtimeMs, written)
  clock.now += 1000
  await store().touch('a')
  assert.equal(statSync(accessedFile('a')).mtimeMs, clock.now)
  await open()
  assert.equal(await order(), 'ba')
})

test('who looks while an access is being written sees the access', async (t) => {
  const directory = temporaryDirectory()
  t.after(() => directory.remove())
  let now = at('2026-01-01T00:00:00Z')
  let looked: Promise<number> | undefined
  const disk: Disk = {
    ...realDisk,
    open: async (path, flags, mode) => {
      if (path.endsWith('accessed') && flags === 'w' && store?.has('b')) {
        looked = store.accessOrder('a')
        await looked
      }
      return await realDisk.open(path, flags, mode)
    },
  }
  let store: Store | undefined
  store = await Store.open(directory.path, { disk, now: () => new Date(now) })
  for (const id of ['a', 'b']) {
    await publishBuild(store, id, [{ path: id }])
    now += HOUR
  }
  await store.touch('a')
  const behind = await store.accessOrder('b')
  assert.ok((await looked!) > behind, 'while it was written')
  assert.ok(Number.isInteger(await store.accessOrder('a')), 'nobody touched it')
  await store.close()
})
