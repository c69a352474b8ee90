/** Evictions on a real store: least recently accessed first, and only what is needed. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { BuildEvictor } from '../../src/build/evictor.ts'
import { NoRoom } from '../../src/errors.ts'
import { type Disk, realDisk } from '../../src/lib/disk.ts'
import { readManifestBlobs } from '../../src/store/manifest.ts'
import { BUILD_OVERHEAD, Store } from '../../src/store/store.ts'
import { publishBuild, readBuild, temporaryDirectory } from '../support/trees.ts'

const SIZE = 100_000
const unique = (id: string) => ({ path: id, content: id.repeat(SIZE) })
const common = { path: 'common', content: '!'.repeat(SIZE) }

async function setUp(t: TestContext, disk: Disk = realDisk) {
  const directory = temporaryDirectory()
  let time = 0
  const store = await Store.open(directory.path, { now: () => new Date(++time * 3600_000), disk })
  t.after(async () => {
    await store.close()
    directory.remove()
  })
  for (const id of ['a', 'b', 'c']) await publishBuild(store, id, [unique(id), common])
  const leased = new Set<string>()
  const gone: string[] = []
  const tenancy = {
    isLeased: (id: string) => leased.has(id),
    removeUnleased: async (id: string) => {
      if (leased.has(id)) return false
      await store.remove(id)
      return true
    },
  }
  const evictor = new BuildEvictor(store, tenancy, (id) => gone.push(id))
  return { store, leased, gone, evictor, tenancy }
}

test('the least recently accessed goes first, and only it when that is enough', async (t) => {
  const { store, gone, evictor } = await setUp(t)
  await store.touch('a')
  const before = store.bytes
  await evictor.evict(SIZE)
  assert.deepEqual(gone, ['b'])
  assert.ok(before - store.bytes >= SIZE)
  assert.equal((await readBuild(store, 'c')).size, 2)
})

test('a build that leaves while builds are looked at is passed over', async (t) => {
  const looked = Promise.withResolvers<void>()
  const slow = Promise.withResolvers<void>()
  let isSlow = false
  const stat: Disk['stat'] = async (path) => {
    if (isSlow && path.endsWith('/b/accessed')) {
      looked.resolve()
      await slow.promise
    }
    return await realDisk.stat(path)
  }
  const { store, evictor, gone } = await setUp(t, { ...realDisk, stat })
  isSlow = true
  const evicting = evictor.evict(SIZE)
  await looked.promise
  await store.remove('b')
  slow.resolve()
  await evicting
  assert.deepEqual(gone, ['a'])
  assert.deepEqual(store.ids(), ['c'])
})

test('sticky and leased builds stay, and count as held', async (t) => {
  const { store, leased, gone, evictor } = await setUp(t)
  await store.pin('a')
  leased.add('b')
  const held = await evictor.heldBytes()
  assert.ok(held > 3 * SIZE && held < 3.2 * SIZE + 2 * BUILD_OVERHEAD)
  await evictor.evict(SIZE)
  assert.deepEqual(gone, ['c'])
  await assert.rejects(evictor.evict(SIZE), NoRoom)
  assert.deepEqual(store.ids().sort(), ['a', 'b'])
})

test('what can be had from dead blobs costs no build', async (t) => {
  const { store, gone, evictor } = await setUp(t)
  await store.remove('a')
  await evictor.evict(SIZE)
  assert.deepEqual(gone, [])
})

test('a build that is leased before its turn comes is passed over', async (t) => {
  const { leased, gone, evictor, tenancy } = await setUp(t)
  const remove = tenancy.removeUnleased
  tenancy.removeUnleased = async (id) => {
    if (id === 'a') leased.add('a')
    return await remove(id)
  }
  await evictor.evict(SIZE)
  assert.deepEqual(gone, ['b'])
})

test('blobs of the build that is about to be published are not counted on, and stay', async (t) => {
  const { store, gone, evictor } = await setUp(t)
  // The newcomer has the content of "a": it goes first, as the oldest, but frees next to nothing.
  const staging = await store.beginIngest('new')
  const incoming = (await readManifestBlobs(store.paths.build('a').manifest)).digests
  for (let at = 0; at < incoming.length; at += 32) staging.known.claim(incoming.subarray(at, at + 32))
  await evictor.evict(SIZE, incoming)
  assert.deepEqual(gone, ['a', 'b'])
  for (let at = 0; at < incoming.length; at += 32) {
    const blob = await store.openBlob(incoming.subarray(at, at + 32))
    blob.close()
  }
  await store.discardIngest(staging)
})

test('blobs that another ingest relies on make it look further', async (t) => {
  const { store, gone, evictor } = await setUp(t)
  const staging = await store.beginIngest('new')
  const relied = (await readManifestBlobs(store.paths.build('a').manifest)).digests
  for (let at = 0; at < relied.length; at += 32) staging.known.claim(relied.subarray(at, at + 32))
  const before = store.bytes
  await evictor.evict(SIZE)
  assert.ok(before - store.bytes >= SIZE)
  assert.deepEqual(gone, ['a', 'b'])
  await store.discardIngest(staging)
})

test('nothing is evicted for blobs that an ingest relies on, when that cannot be enough', async (t) => {
  const { store, gone, evictor } = await setUp(t)
  for (const id of ['b', 'c']) await store.pin(id)
  const staging = await store.beginIngest('new')
  const relied = (await readManifestBlobs(store.paths.build('a').manifest)).digests
  for (let at = 0; at < relied.length; at += 32) staging.known.claim(relied.subarray(at, at + 32))
  assert.ok((await evictor.heldBytes()) > 4 * SIZE, 'they count as held')
  await assert.rejects(evictor.evict(SIZE), NoRoom)
  assert.deepEqual(gone, [])
  await store.discardIngest(staging)
  await evictor.evict(SIZE)
  assert.deepEqual(gone, ['a'])
})

test('a plan that is made anew counts dead blobs again', async (t) => {
  const { store, leased, gone, evictor, tenancy } = await setUp(t)
  await publishBuild(store, 'dead', [unique('dead')])
  await store.remove('dead')
  const remove = tenancy.removeUnleased
  tenancy.removeUnleased = async (id) => {
    if (id === 'a') leased.add('a')
    return await remove(id)
  }
  // The dead blob has four times the size of the others: one build more is enough.
  await evictor.evict(4 * SIZE + SIZE / 2)
  assert.deepEqual(gone, ['b'])
})

test('packs that nobody can read count as held', async (t) => {
  const { store, evictor } = await setUp(t)
  const before = await evictor.heldBytes()
  t.mock.getter(store.packs, 'unknownBytes', () => 12_345)
  assert.equal(await evictor.heldBytes(), before + 12_345)
})
