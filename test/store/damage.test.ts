/** Damage and failing disks: one rotten file costs its own build and no other, and nothing leaks. */
import assert from 'node:assert/strict'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { NoRoom, StoreCorrupt, StoreError } from '../../src/errors.ts'
import { asBuffer } from '../../src/lib/bytes.ts'
import { Store, type StoreOptions } from '../../src/store/store.ts'
import { publishBuild, readBuild, type TestEntry, temporaryDirectory } from '../support/trees.ts'
import { failing, failingSync, watchingSync } from './faults.ts'

async function openStore(t: TestContext, options: StoreOptions = {}) {
  const directory = temporaryDirectory()
  const problems: StoreError[] = []
  const opened: Store[] = []
  t.after(async () => {
    for (const store of opened) await store.close()
    directory.remove()
  })
  const root = join(directory.path, 'data')
  const open = async () => {
    const store = await Store.open(root, { onProblem: (problem) => problems.push(problem), ...options })
    opened.push(store)
    return store
  }
  const store = await open()
  const reopen = async () => {
    for (const before of opened) await before.close()
    return await open()
  }
  return { root, store, problems, reopen }
}

const ALL = Number.MAX_SAFE_INTEGER
const file = (path: string, content = path): TestEntry => ({ path, content })
const packsIn = (root: string) => readdirSync(join(root, 'packs'))
const packOf = (root: string, before: string[]) =>
  join(root, 'packs', packsIn(root).find((name) => !before.includes(name))!)

test('removing a build that lacked a blob leaves another build that brought it later whole', async (t) => {
  const { root, store, reopen } = await openStore(t)
  await publishBuild(store, 'a', [file('x', 'the same')])
  truncateSync(join(root, 'packs', packsIn(root)[0]!), 100)
  const again = await reopen()
  await again.marked()
  await publishBuild(again, 'b', [file('x', 'the same')])
  await again.remove('a')
  await again.collect(ALL)
  assert.equal((await readBuild(again, 'b')).get('x' as never), 'the same')
})

test('a manifest that could not be read when its blobs were counted takes none with it', async (t) => {
  const { root, store, reopen, problems } = await openStore(t)
  await publishBuild(store, 'a', [file('x', 'the same')])
  await publishBuild(store, 'b', [file('x', 'the same')])
  const manifest = join(root, 'builds/a/manifest')
  const again = await reopen()
  await failing(
    t,
    'open',
    'EIO',
    (path) => path === manifest,
    () => again.marked(),
  )
  assert.match(problems.map(({ message }) => message).join(), /build a is damaged: .*EIO/)
  // Its blobs are not kept for it, so it is not served, whatever its manifest says by now.
  await assert.rejects(again.manifest('a'), StoreCorrupt)
  await again.remove('a')
  await again.collect(ALL)
  assert.equal((await readBuild(again, 'b')).get('x' as never), 'the same')
})

const header = (change: (header: Record<string, unknown>) => unknown) => (bytes: Buffer) => {
  const end = 24 + bytes.readUInt32LE(16)
  const changed = Buffer.from(JSON.stringify(change(JSON.parse(bytes.toString('utf8', 24, end)))))
  assert.ok(changed.length <= end - 24 + 8)
  const padded = Buffer.alloc(Math.ceil(changed.length / 8) * 8, ' ')
  changed.copy(padded)
  bytes.writeUInt32LE(padded.length, 16)
  return Buffer.concat([bytes.subarray(0, 24), padded, bytes.subarray(end)])
}
const ROTTEN: { name: string; damage: (bytes: Buffer) => Buffer }[] = [
  { name: 'nothing in it', damage: () => Buffer.alloc(0) },
  { name: 'another version', damage: (bytes) => Buffer.from(bytes.fill(9, 12, 13)) },
  { name: 'no JSON', damage: (bytes) => Buffer.from(bytes.fill('x', 24, 40)) },
  { name: 'a header that is null', damage: header(() => null) },
  { name: 'no columns', damage: header(({ columns, ...rest }) => rest) },
  { name: 'a column that is null', damage: header((was) => ({ ...was, columns: [null] })) },
  { name: 'blobs beyond all memory', damage: header((was) => ({ ...was, blobs: 2 ** 31, columns: [] })) },
  { name: 'entries beyond all memory', damage: header((was) => ({ ...was, entries: 2 ** 30, columns: [] })) },
  { name: 'a count of -1', damage: header((was) => ({ ...was, blobs: -1 })) },
]
for (const { name, damage } of ROTTEN) {
  test(`a rotten manifest (${name}) keeps nobody else from being counted`, async (t) => {
    const { root, store, reopen, problems } = await openStore(t)
    for (const id of ['a', 'b']) await publishBuild(store, id, [file(id), file('shared')])
    const path = join(root, 'builds/a/manifest')
    writeFileSync(path, damage(readFileSync(path)))
    const again = await reopen()
    await again.collect(ALL)
    assert.match(problems.map(({ message }) => message).join(), /build a is damaged/)
    assert.equal((await readBuild(again, 'b')).size, 2)
    assert.ok((await again.exclusiveBytes()).has('a'))
    await again.remove('a')
    await again.collect(ALL)
    assert.equal((await readBuild(again, 'b')).size, 2)
  })
}

const ROTTEN_PACKS: { name: string; damage: (path: string) => void }[] = [
  {
    name: 'another version',
    damage: (path) => {
      const bytes = readFileSync(path)
      bytes[12] = 9
      writeFileSync(path, bytes)
    },
  },
  {
    name: 'a directory',
    damage: (path) => {
      rmSync(path)
      mkdirSync(path)
    },
  },
]
for (const { name, damage } of ROTTEN_PACKS) {
  test(`a rotten pack (${name}) does not keep the store from opening, and counts`, async (t) => {
    const { root, store, reopen, problems } = await openStore(t)
    await publishBuild(store, 'a', [file('a')])
    const before = packsIn(root)
    await publishBuild(store, 'b', [file('b')])
    const pack = packOf(root, before)
    damage(pack)
    const again = await reopen()
    assert.equal(problems.length, 1)
    assert.match(problems[0]!.message, new RegExp(pack))
    assert.equal(again.packs.unknownBytes, statSync(pack).size)
    assert.equal((await readBuild(again, 'a')).size, 1)
  })
}

test('a pack that the disk cannot read is a problem of its own; a lack of descriptors is fatal', async (t) => {
  const { root, store, reopen, problems } = await openStore(t)
  await publishBuild(store, 'a', [file('a')])
  const pack = join(root, 'packs', packsIn(root)[0]!)
  const isPack = (path: string) => path === pack
  await assert.rejects(failing(t, 'open', 'EMFILE', isPack, reopen), (error: Error) => {
    assert.ok(error instanceof StoreError)
    assert.match(error.hint!, /open files/)
    return true
  })
  await failing(t, 'open', 'EIO', isPack, reopen)
  assert.match(problems.map(({ message }) => message).join(), /EIO/)
})

test('what cannot be unlinked of a removed build is reported, and its blobs go all the same', async (t) => {
  const { root, store, problems } = await openStore(t)
  await publishBuild(store, 'a', [file('a')])
  mkdirSync(join(root, 'builds/a/subdirectory'))
  await store.remove('a')
  assert.deepEqual(readdirSync(join(root, 'incoming')), [], 'a directory in it goes as well')

  await publishBuild(store, 'b', [file('b')])
  const isInfo = (path: string) => path.endsWith('build.json')
  await failing(t, 'unlink', 'EIO', isInfo, () => store.remove('b'))
  assert.match(problems.map(({ message }) => message).join(), /EIO/)
  assert.equal(store.has('b'), false)
  await store.collect()
  assert.equal(store.bytes, 0)
})

test('a build whose directory was removed by hand gives its blobs back', async (t) => {
  const { root, store } = await openStore(t)
  await publishBuild(store, 'a', [file('a')])
  rmSync(join(root, 'builds/a'), { recursive: true })
  await store.remove('a')
  await store.collect()
  assert.equal(store.bytes, 0)
})

test('a removal that cannot be made durable has not happened', async (t) => {
  const { root, store } = await openStore(t)
  await publishBuild(store, 'a', [file('a')])
  const isBuilds = (path: string) => path === join(root, 'builds')
  await assert.rejects(
    failingSync(t, 'EIO', isBuilds, () => store.remove('a')),
    StoreError,
  )
  await store.collect(ALL)
  assert.equal((await readBuild(store, 'a')).size, 1)
  await store.remove('a')
  await store.collect()
  assert.equal(store.bytes, 0)
})

test('the names of a new data directory are made durable, and so is its own', async (t) => {
  const directory = temporaryDirectory()
  t.after(() => directory.remove())
  const root = join(directory.path, 'deep/data')
  const synced: string[] = []
  const existed: boolean[] = []
  const store = await watchingSync(
    t,
    (path) => {
      synced.push(path)
      if (path === root) existed.push(existsSync(join(root, 'builds')) && existsSync(join(root, 'packs')))
    },
    () => Store.open(root),
  )
  await store.close()
  assert.ok(existed.includes(true), 'the root, when builds/ and packs/ were in it')
  assert.ok(synced.includes(dirname(root)) && synced.includes(directory.path))
})

test('packs that were adopted when publishing failed are counted, and swept', async (t) => {
  const { root, store } = await openStore(t)
  const isPacks = (path: string) => path === join(root, 'packs')
  const publishing = () => publishBuild(store, 'a', [file('a')])
  await assert.rejects(failingSync(t, 'EIO', isPacks, publishing), StoreError)
  assert.equal(packsIn(root).length, 1)
  assert.equal(store.bytes, statSync(join(root, 'packs', packsIn(root)[0]!)).size)
  await store.collect()
  assert.deepEqual([store.bytes, packsIn(root)], [0, []])
})

test('a rewrite that fails leaves nothing behind and loses nothing', async (t) => {
  const { root, store } = await openStore(t)
  await publishBuild(store, 'big', [file('kept'), file('dropped', 'x'.repeat(10_000))])
  await publishBuild(store, 'small', [file('kept')])
  await store.remove('big')
  const onDisk = () => packsIn(root).reduce((sum, name) => sum + statSync(join(root, 'packs', name)).size, 0)
  const collect = () => store.collect()
  const isPacks = (path: string) => path === join(root, 'packs')
  await assert.rejects(failingSync(t, 'EIO', isPacks, collect), StoreError)
  assert.deepEqual(readdirSync(join(root, 'incoming')), [])
  assert.equal(store.packs.bytes, onDisk())
  const isOld = (path: string) => path.endsWith('.pack')
  await assert.rejects(failing(t, 'unlink', 'EIO', isOld, collect), StoreError)
  assert.deepEqual(readdirSync(join(root, 'incoming')), [])
  assert.equal(store.packs.bytes, onDisk())
  await store.collect(ALL)
  assert.equal(store.packs.bytes, onDisk())
  assert.equal(packsIn(root).length, 1)
  assert.equal((await readBuild(store, 'small')).get('kept' as never), 'kept')
})

test('compaction goes on to the next pack where one cannot be read', async (t) => {
  const { root, store, problems } = await openStore(t)
  const before: string[] = []
  for (const id of ['a', 'b']) {
    before.push(...packsIn(root))
    // The pack of "a" is the deader one, so it comes first.
    const size = id === 'a' ? 20_000 : 10_000
    await publishBuild(store, id, [file(`kept-${id}`), file(id, id.repeat(size))])
    if (id === 'a') truncateSync(packOf(root, before), 16)
  }
  await publishBuild(store, 'small', [file('kept-a'), file('kept-b')])
  await store.remove('a')
  await store.remove('b')
  const freed = await store.collect()
  assert.ok(freed >= 10_000, `${freed}`)
  assert.equal(problems.length, 1)
  assert.equal(await store.deadBytes(), 0, 'what cannot be had back is not counted on')
})

test('compaction goes on to the next pack where an ingest relies on all of one', async (t) => {
  const { store } = await openStore(t)
  await publishBuild(store, 'a', [file('kept-a'), file('big-a', 'a'.repeat(20_000))])
  await publishBuild(store, 'b', [file('kept-b'), file('big-b', 'b'.repeat(10_000))])
  await publishBuild(store, 'small', [file('kept-a'), file('kept-b')])
  const manifest = await store.manifest('a')
  const digest = manifest.blobDigest(manifest.blob(manifest.child(0, 'big-a' as never)))
  const staging = await store.beginIngest('new')
  assert.ok(staging.known.claim(digest))
  await store.remove('a')
  await store.remove('b')
  const dead = await store.deadBytes()
  assert.ok(dead >= 10_000 && dead < 11_000, `${dead}`)
  const freed = await store.collect()
  assert.equal(freed, dead)
  using reader = await store.openBlob(digest)
  assert.equal(reader.size, 20_000)
  await store.discardIngest(staging)
})

test('what an ingest relies on does not become free when its build leaves', async (t) => {
  const { store } = await openStore(t)
  await publishBuild(store, 'a', [file('x', 'x'.repeat(10_000))])
  const manifest = await store.manifest('a')
  const staging = await store.beginIngest('new')
  assert.ok(staging.known.claim(manifest.blobDigest(0)))
  assert.equal(await (await store.plan()).leave('a'), store.fileBytes('a'))
  assert.ok((await store.bytesOf([])) > 10_000, 'it counts as kept')
  await store.discardIngest(staging)
  assert.ok((await (await store.plan()).leave('a')) > 10_000)
  assert.equal(await store.bytesOf([]), 0)
})

test('a directory that has the name of a build but is none gives way to it', async (t) => {
  const { root, store, problems } = await openStore(t)
  mkdirSync(join(root, 'builds/a/precious'), { recursive: true })
  await publishBuild(store, 'a', [file('a')])
  assert.equal((await readBuild(store, 'a')).size, 1)
  assert.match(problems.map(({ message }) => message).join(), /builds\/a was not a build of ours/)
  assert.deepEqual(readdirSync(join(root, 'incoming')), [])
})

test('a publish that fails puts back what it had moved aside, and is told in our words', async (t) => {
  const { root, store } = await openStore(t)
  mkdirSync(join(root, 'builds/a/precious'), { recursive: true })
  const publishing = () => publishBuild(store, 'a', [file('a')])
  const isBuilds = (path: string) => path === join(root, 'builds')
  await assert.rejects(failingSync(t, 'ENOSPC', isBuilds, publishing), NoRoom)
  assert.deepEqual(readdirSync(join(root, 'builds/a')), ['precious'])
  const isBuild = (from: string) => from.endsWith('.ingest/build')
  await assert.rejects(failing(t, 'rename', 'EROFS', isBuild, publishing), (error: Error) => {
    assert.ok(error instanceof StoreError)
    assert.match(error.hint!, /read-only/)
    return true
  })
  assert.deepEqual(readdirSync(join(root, 'builds/a')), ['precious'])
  assert.equal(store.has('a'), false)
  await store.collect(ALL)
  assert.equal(store.bytes, 0)
})

test('a blob that cannot be read is told in our words', async (t) => {
  const { store } = await openStore(t)
  await publishBuild(store, 'a', [file('a')])
  const digest = asBuffer((await store.manifest('a')).blobDigest(0))
  const open = () => store.openBlob(digest)
  await assert.rejects(
    failing(t, 'open', 'EMFILE', (path) => path.endsWith('.pack'), open),
    (error) => {
      assert.ok(error instanceof StoreError)
      assert.match(error.hint!, /open files/)
      return true
    },
  )
})

test('a build is served from a disk that takes no writes', async (t) => {
  let now = new Date('2026-01-01T00:00:00Z')
  const { store, problems } = await openStore(t, { now: () => now })
  await publishBuild(store, 'a', [file('a')])
  now = new Date('2026-01-02T00:00:00Z')
  await failing(
    t,
    'utimes',
    'EROFS',
    () => true,
    () => store.touch('a'),
  )
  assert.equal(store.accessed('a').getTime(), now.getTime())
  assert.match(problems.map(({ message }) => message).join(), /EROFS/)
  await assert.rejects(
    failing(
      t,
      'open',
      'EROFS',
      () => true,
      () => store.pin('a'),
    ),
    StoreError,
  )
})
