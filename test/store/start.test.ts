/** A start waits for nothing that can be done later. */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
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
