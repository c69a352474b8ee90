/** A start waits for nothing that can be done later. */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Catalog } from '../../src/build/catalog.ts'
import { BuildEvictor } from '../../src/build/evictor.ts'
import { type Disk, realDisk } from '../../src/lib/disk.ts'
import { Store } from '../../src/store/store.ts'
import { publishBuild, readBuild, temporaryDirectory } from '../support/trees.ts'

test('a start does not wait for the disk to remove what a crash has left, nor for a manifest', async (t) => {
  const directory = temporaryDirectory()
  t.after(() => directory.remove())
  const first = await Store.open(directory.path)
  for (const id of ['a', 'b']) await publishBuild(first, id, [{ path: id, content: id }])
  await first.close()
  for (const name of ['x-12345678.ingest', 'y-12345678.removed', '12345678.compact']) {
    mkdirSync(join(directory.path, 'incoming', name))
    writeFileSync(join(directory.path, 'incoming', name, 'file'), 'x'.repeat(10_000))
  }

  const read: string[] = []
  const unlinking = Promise.withResolvers<void>()
  const slow = Promise.withResolvers<void>()
  const disk: Disk = {
    ...realDisk,
    open: (path, flags, mode) => {
      read.push(path)
      return realDisk.open(path, flags, mode)
    },
    readFile: (path) => {
      read.push(path)
      return realDisk.readFile(path)
    },
    unlink: async (path) => {
      if (path.includes('12345678')) {
        unlinking.resolve()
        await slow.promise
      }
      await realDisk.unlink(path)
    },
  }
  const store = await Store.open(directory.path, { disk })
  assert.deepEqual(
    read.filter((path) => path.endsWith('manifest')),
    [],
  )
  await unlinking.promise
  // Builds are served, come and go, all the same.
  assert.equal((await readBuild(store, 'a')).size, 1)
  assert.equal(await store.damage('b'), undefined)
  await publishBuild(store, 'c', [{ path: 'c', content: 'c' }])
  assert.equal((await readBuild(store, 'c')).size, 1)
  assert.equal(readdirSync(store.paths.incoming).filter((name) => name.includes('12345678')).length, 3)
  const before = store.overheadBytes
  slow.resolve()
  await store.leftoversGone()
  assert.deepEqual(readdirSync(store.paths.incoming), [])
  assert.ok(before - store.overheadBytes >= 10_000, 'what is still to be removed counts')
  await store.close()
})

/** What recovery and eviction do to the disk first, each of which may take as long as it likes. */
const SLOW: { name: string; held: (hold: () => Promise<void>) => Partial<Disk> }[] = [
  {
    name: 'counting the blobs of another build',
    held: (hold) => ({
      open: async (path, flags, mode) => {
        if (path.endsWith('/a/manifest')) await hold()
        return realDisk.open(path, flags, mode)
      },
    }),
  },
  {
    name: 'an eviction under way',
    held: (hold) => ({
      rename: async (from, to) => {
        if (from.endsWith('/a')) await hold()
        await realDisk.rename(from, to)
      },
    }),
  },
  {
    name: 'a sweep under way',
    held: (hold) => ({
      unlink: async (path) => {
        if (path.endsWith('.pack')) await hold()
        await realDisk.unlink(path)
      },
    }),
  },
]

for (const { name, held } of SLOW) {
  test(`clients do not wait for what a start does in the background: ${name}`, async (t) => {
    const directory = temporaryDirectory()
    const slow = Promise.withResolvers<void>()
    t.after(() => slow.resolve())
    t.after(() => directory.remove())
    const first = await Store.open(directory.path)
    for (const id of ['a', 'b', 'c']) await publishBuild(first, id, [{ path: id, content: id.repeat(5000) }])
    await first.close()

    const begun = Promise.withResolvers<void>()
    const hold = async (): Promise<void> => {
      begun.resolve()
      await slow.promise
    }
    const store = await Store.open(directory.path, { disk: { ...realDisk, ...held(hold) } })
    t.after(() => store.close())
    const catalog = new Catalog(store)
    const evicted: string[] = []
    const evicting = new BuildEvictor(store, catalog, (id) => evicted.push(id)).evict(5000)
    await begun.promise
    for (const id of ['b', 'c']) {
      const lease = catalog.lease(id)
      assert.ok(lease)
      assert.equal(await store.damage(id), undefined)
      assert.deepEqual([...(await readBuild(store, id)).values()], [id.repeat(5000)])
      await store.touch(id)
      lease.release()
    }
    const staging = await store.beginIngest('d')
    await store.discardIngest(staging)
    slow.resolve()
    await evicting
    assert.deepEqual(evicted, ['a'])
  })
}
