/** Rot: what is not what it was is found, never used again, and made whole by the next ingest of it. */
import assert from 'node:assert/strict'
import { createHash, Hash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Ingest } from '../../src/build/ingest.ts'
import { StoreCorrupt, type StoreError } from '../../src/errors.ts'
import { asBuffer } from '../../src/lib/bytes.ts'
import { type Disk, realDisk } from '../../src/lib/disk.ts'
import { generateContents } from '../../src/store/contents.ts'
import { Store } from '../../src/store/store.ts'
import { systemError } from '../support/memory-disk.ts'
import { openFilesBelow } from '../support/open-files.ts'
import {
  buildInfo,
  ENDLESS_ROOM,
  feed,
  publishBuild,
  readBuild,
  type TestEntry,
  temporaryDirectory,
} from '../support/trees.ts'
import { WatchedDisk } from '../support/watched-disk.ts'

const ALL = Number.MAX_SAFE_INTEGER
const SIZE = 50_000
const file = (path: string, content = path.repeat(SIZE)): TestEntry => ({ path, content })
const COMMON = file('s')
const A = [file('a'), COMMON, file('small', 'tiny')]
const B = [file('b'), COMMON]

async function setUp(t: TestContext, disk: Disk = realDisk) {
  const directory = temporaryDirectory()
  const problems: StoreError[] = []
  let store: Store
  const open = async () => {
    await store?.close()
    store = await Store.open(directory.path, { onProblem: (problem) => problems.push(problem), disk })
    return store
  }
  t.after(async () => {
    await store.close()
    directory.remove()
  })
  await open()
  await publishBuild(store!, 'A', A)
  await publishBuild(store!, 'B', B)
  return { root: directory.path, problems, open, store: () => store }
}

/** Where the bytes of a file of a build lie. */
async function placeOf(store: Store, id: string, path: string) {
  const manifest = await store.manifest(id)
  const digest = manifest.blobDigest(manifest.blob(manifest.child(0, path as never)))
  const row = store.packs.index.find(digest)
  return {
    digest: asBuffer(digest),
    pack: store.packs.get(store.packs.index.pack(row))!.path,
    offset: store.packs.index.offset(row),
  }
}

function overwrite(path: string, offset: number, text: string): void {
  const fd = openSync(path, 'r+')
  writeSync(fd, text, offset)
  closeSync(fd)
}

const verifyAll = (store: Store) => store.verify(undefined, () => {}, new AbortController().signal)

/** As a fetch of a build that is held and damaged. */
async function repair(store: Store, id: string, entries: readonly TestEntry[], mayReplace = () => true) {
  const staging = await store.beginIngest(id)
  const ingest = await Ingest.create(staging.directory, staging.known, ENDLESS_ROOM)
  feed(ingest, entries)
  const result = ingest.finish()
  await store.publish(staging, result, generateContents, buildInfo(id), mayReplace)
  return result
}

const contentsOf = (entries: readonly TestEntry[]) =>
  new Map(entries.map(({ path, content }) => [path, content]))
async function assertHolds(store: Store, id: string, entries: readonly TestEntry[]) {
  assert.deepEqual(
    new Map([...(await readBuild(store, id))].sort()),
    new Map([...contentsOf(entries)].sort()),
  )
}

test('verify: nothing is wrong, and everything was read', async (t) => {
  const { store, problems } = await setUp(t)
  const seen: number[] = []
  const done = await store().verify(
    undefined,
    ({ bytes }, total) => seen.push(bytes / total),
    new AbortController().signal,
  )
  assert.deepEqual(done, { blobs: 4, bytes: 3 * SIZE + 4, rotten: 0 })
  assert.equal(seen.at(-1), 1)
  const one = await store().verify(['B'], () => {}, new AbortController().signal)
  assert.deepEqual(one, { blobs: 2, bytes: 2 * SIZE, rotten: 0 })
  assert.deepEqual(problems, [])
})

test('a blob that has rotted damages the builds that need it, also after a restart, until it comes in again', async (t) => {
  const { store, open, root } = await setUp(t)
  const { pack, offset, digest } = await placeOf(store(), 'A', 's')
  overwrite(pack, offset + 1000, 'rot')
  assert.equal((await verifyAll(store())).rotten, 1)
  for (const again of [false, true]) {
    if (again) await open()
    for (const id of ['A', 'B']) {
      assert.equal((await store().damage(id))?.message, `build ${id} is damaged: 1 file is lost`)
      assert.ok(store().isLost(digest))
    }
    await assert.rejects(store().openBlob(digest), StoreCorrupt)
    assert.equal((await verifyAll(store())).rotten, 0, 'what is known to be lost is not found again')
  }
  assert.deepEqual(store().knownDamaged().sort(), ['A', 'B'])

  // Another build brings it: both are whole, without having been touched.
  const result = await publishBuild(store(), 'C', [COMMON, file('small', 'tiny')])
  assert.equal(result.reusedBytes, 4, 'only what was rotten was written')
  for (const id of ['A', 'B']) assert.equal(await store().damage(id), undefined)
  await assertHolds(store(), 'A', A)
  await assertHolds(store(), 'B', B)
  // And it stays when who brought it leaves; the old copy goes.
  await store().remove('C')
  const before = store().bytes
  assert.ok((await store().deadBytes()) >= SIZE)
  await store().collect(ALL)
  assert.ok(before - store().bytes >= SIZE)
  assert.equal(await store().deadBytes(), 0)
  for (const id of ['A', 'B']) await assertHolds(store(), id, id === 'A' ? A : B)
  await open()
  await verifyAll(store())
  assert.deepEqual(store().knownDamaged(), [])
  assert.ok(existsSync(join(root, 'packs/untrusted')))
})

test('to tell which builds are damaged takes no longer for more of them', async (t) => {
  const { store } = await setUp(t)
  const many = Array.from({ length: 200 }, (_, n) => file(`many-${n}`, `${n}`))
  for (let n = 0; n < 10; n++) await publishBuild(store(), `whole-${n}`, many)
  const { pack, offset } = await placeOf(store(), 'A', 'a')
  overwrite(pack, offset, 'rot')
  await verifyAll(store())
  const { index } = store().packs
  const looks = t.mock.method(index, 'isLost').mock
  assert.deepEqual(store().knownDamaged(), ['A'])
  assert.ok(looks.callCount() <= index.rowCount, `${looks.callCount()} looks at ${index.rowCount} blobs`)
})

/** How often `method` is called at most between two turns of others, with a clock that jumps, while `work` is done. */
async function mostAtOnce(
  t: TestContext,
  target: object,
  method: string,
  work: () => Promise<unknown>,
): Promise<number> {
  const original = Reflect.get(target, method)
  let [clock, inTurn, most] = [0, 0, 0]
  const mocks = [
    t.mock.method(performance, 'now', () => (clock += 100)),
    t.mock.method(
      target,
      method as never,
      function (this: unknown, ...args: unknown[]) {
        if (inTurn++ === 0) setImmediate(() => (inTurn = 0))
        most = Math.max(most, inTurn)
        return Reflect.apply(original, this, args)
      } as never,
    ),
  ]
  await work()
  for (const { mock } of mocks) mock.restore()
  return most
}

test('what is long is hashed in pieces: a manifest, the contents, neighbours in a pack', async (t) => {
  const { store } = await setUp(t)
  const many = Array.from({ length: 4500 }, (_, n) => file(`a-name-that-is-rather-long-${n}`, `${n}`))
  const staging = await store().beginIngest('many')
  const ingest = await Ingest.create(staging.directory, staging.known, ENDLESS_ROOM)
  feed(ingest, many)
  const result = ingest.finish()
  const whole = 256 * 1024
  assert.ok(result.manifest.length > 2 * whole)
  const updates = t.mock.method(Hash.prototype, 'update').mock
  const contents = Buffer.alloc(2 * whole + 1, 'of upstream')
  await store().publish(staging, result, () => contents, buildInfo('many'))
  await store().checkFiles('many')
  await store().manifest('many')
  for (const { arguments: args } of updates.calls) assert.ok((args[0] as unknown as Buffer).length <= whole)
  assert.ok(updates.callCount() > 12)
  updates.restore()
  const most = await mostAtOnce(t, Buffer.prototype, 'equals', () => verifyAll(store()))
  assert.ok(most > 1 && most <= 64, `${most} blobs at a stretch`)
})

test('what is lost and nobody needs is forgotten a slice at a time', async (t) => {
  const { store } = await setUp(t)
  const many = Array.from({ length: 4000 }, (_, n) => file(`many-${n}`, `${n}`))
  await publishBuild(store(), 'many', many)
  const { index } = store().packs
  const lost = (await Promise.all(many.map(({ path }) => placeOf(store(), 'many', path)))).map(
    (place) => place.digest,
  )
  for (const digest of lost) index.lose(index.find(digest))
  await store().remove('many')
  const most = await mostAtOnce(t, index, 'delete', () => store().collect())
  assert.deepEqual([...index.lost()], [])
  assert.ok(most > 1 && most <= 512, `${most} at a stretch`)
})

test('what the disk gives nothing of for a while damages builds, and costs nothing', async (t) => {
  let silent = ''
  const disk = new WatchedDisk(realDisk, ({ name, path }) =>
    silent !== '' && path === silent && name.startsWith('read') ? { fails: 'EIO' } : undefined,
  )
  const { store, root } = await setUp(t, disk)
  const { pack } = await placeOf(store(), 'B', 'b')
  silent = pack
  assert.equal((await verifyAll(store())).rotten, 1)
  assert.equal((await store().damage('B'))?.message, 'build B is damaged: 1 file is lost')
  assert.equal(await store().damage('A'), undefined)
  // What may be whole is not dead, whatever room is needed.
  assert.equal(await store().deadBytes(), 0)
  await store().collect(ALL)
  assert.ok(existsSync(pack))
  await verifyAll(store())
  assert.equal((await store().damage('B'))?.lostBlobs, 1, 'it still says nothing')
  silent = ''
  assert.equal((await verifyAll(store())).rotten, 0)
  assert.equal(await store().damage('B'), undefined)
  await assertHolds(store(), 'B', B)
  assert.ok(!existsSync(join(root, 'packs/untrusted')), 'nothing of it is kept')

  // A bad sector, and a source to get it from again: then the pack is only dead weight.
  silent = pack
  await verifyAll(store())
  await repair(store(), 'B', B, () => assert.fail('need not be replaced'))
  assert.equal(await store().damage('B'), undefined)
  await store().collect(ALL)
  assert.ok(!existsSync(pack))
  await assertHolds(store(), 'A', A)
  await assertHolds(store(), 'B', B)
})

for (const name of ['manifest', 'contents', 'build.json']) {
  test(`a build whose ${name} cannot be read for a while is whole again when it can`, async (t) => {
    let silent = ''
    const disk = new WatchedDisk(realDisk, ({ name, path }) =>
      silent !== '' && path.endsWith(silent) && name.startsWith('read') ? { fails: 'EIO' } : undefined,
    )
    const { store, open, root } = await setUp(t, disk)
    for (const again of [false, true]) {
      silent = `A/${name}`
      // After a start its blobs are counted only now.
      if (again) await open()
      await verifyAll(store())
      const known = (await store().damage('A'))?.message
      assert.match(known!, /EIO/)
      assert.ok(!existsSync(join(root, 'builds/A/damaged')), 'nothing of it is kept')
      silent = ''
      assert.equal(await store().damage('A'), undefined)
      await assertHolds(store(), 'A', A)
      await store().remove('B')
      await store().collect(ALL)
      await assertHolds(store(), 'A', A)
      await publishBuild(store(), 'B', B)
    }
  })
}

test('a start at which a manifest cannot be read costs no blob, unless room is needed', async (t) => {
  let fails: string | undefined
  const disk = new WatchedDisk(realDisk, ({ name, path }) =>
    fails !== undefined && path.endsWith('A/manifest') && name === 'look' ? { fails } : undefined,
  )
  const { store, open, root } = await setUp(t, disk)
  await store().remove('B')
  fails = 'EIO'
  await open()
  // As a server does that has just started.
  await store().collect(0, { background: true })
  await store().compact()
  assert.match((await store().damage('A'))!.message, /EIO/)
  fails = undefined
  assert.equal(await store().damage('A'), undefined)
  await assertHolds(store(), 'A', A)

  fails = 'EIO'
  await open()
  await store().collect(ALL)
  assert.equal(readdirSync(join(root, 'packs')).length, 0, 'what can be served is worth more')
})

test('a build that is readable again is counted before anything goes, whatever comes in between', async (t) => {
  // By the name of a call.
  let failures: Record<string, string> = {}
  const disk = new WatchedDisk(realDisk, ({ name, path }) => {
    const fails = path.endsWith('A/manifest') ? failures[name] : undefined
    return fails ? { fails } : undefined
  })
  const { store, open } = await setUp(t, disk)
  for (const wasCounted of [true, false]) {
    if (!wasCounted) {
      failures = { look: 'EIO' }
      await open()
    }
    await store().marked()
    failures = { look: 'EIO', readFile: 'EIO' }
    await store().checkFiles('A')
    // It can be read as a whole, and then there are no descriptors to read it once more.
    failures = { look: 'EMFILE' }
    const attempts = [() => store().checkFiles('A'), () => store().collect(ALL)]
    for (const attempt of attempts) await attempt().catch((error) => assert.match(error.message, /EMFILE/))
    failures = {}
    assert.equal(await store().damage('A'), undefined)
    await store().collect(ALL)
    await assertHolds(store(), 'A', A)
  }
})

test('a verification of a directory that is not there stops, and damages nothing', async (t) => {
  const { store, root } = await setUp(t)
  const { digest } = await placeOf(store(), 'A', 'a')
  renameSync(root, `${root}-moved`)
  const { signal } = new AbortController()
  try {
    const looks = [
      () => verifyAll(store()),
      () => store().checkFiles('A'),
      () => store().checkBlob(digest, signal),
    ]
    for (const look of looks) await assert.rejects(look(), /not the file that this process locked/)
  } finally {
    renameSync(`${root}-moved`, root)
  }
  for (const id of ['A', 'B']) assert.equal(await store().damage(id), undefined)
  assert.equal((await verifyAll(store())).rotten, 0)
})

test('a damaged build is made whole in place: only what is missing is written, and who uses it is not disturbed', async (t) => {
  const { store, root } = await setUp(t)
  const place = await placeOf(store(), 'A', 'a')
  overwrite(place.pack, place.offset, '!')
  const small = await placeOf(store(), 'A', 'small')
  overwrite(small.pack, small.offset, 'TINY')
  await verifyAll(store())
  assert.equal((await store().damage('A'))?.lostBlobs, 2)
  assert.equal(await store().damage('B'), undefined, 'B needs neither')
  const manifest = await store().manifest('A')
  const { mtimeMs } = statSync(join(root, 'builds/A/manifest'))
  const result = await repair(store(), 'A', A, () => assert.fail('need not be replaced'))
  assert.ok(result.packBytes < SIZE + 1000, `${result.packBytes} bytes were written`)
  assert.equal(await store().damage('A'), undefined)
  assert.equal(await store().manifest('A'), manifest)
  assert.equal(statSync(join(root, 'builds/A/manifest')).mtimeMs, mtimeMs)
  await assertHolds(store(), 'A', A)
})

const OWN_FILES = ['manifest', 'contents', 'build.json'] as const
for (const name of OWN_FILES) {
  test(`a build whose ${name} has rotted is replaced, and stays sticky`, async (t) => {
    const { store, root, open } = await setUp(t)
    await store().pin('A')
    const path = join(root, 'builds/A', name)
    overwrite(path, statSync(path).size - 10, '\0rot\0')
    await verifyAll(store())
    for (const again of [false, true]) {
      if (again) await open()
      const damage = await store().damage('A')
      assert.ok(damage?.files)
      assert.match(damage.message, new RegExp(`^build A is damaged: .*${name}`))
      await assert.rejects(store().manifest('A'), StoreCorrupt)
    }
    assert.equal(await store().damage('B'), undefined)
    await assert.rejects(
      repair(store(), 'A', A, () => false),
      /in use/,
    )
    assert.ok(await store().damage('A'), 'it is as it was')
    await repair(store(), 'A', A)
    assert.equal(await store().damage('A'), undefined)
    assert.ok(await store().isSticky('A'))
    await assertHolds(store(), 'A', A)
    await open()
    assert.equal((await verifyAll(store())).rotten, 0)
    assert.deepEqual(store().knownDamaged(), [])
    await store().unpin('A')
    for (const id of ['A', 'B']) await store().remove(id)
    await store().collect(ALL)
    assert.equal(store().bytes, 0)
  })
}

test('a damaged build whose archive is another tree by now gives way to that', async (t) => {
  const { store } = await setUp(t)
  const place = await placeOf(store(), 'A', 'a')
  overwrite(place.pack, place.offset, '!')
  await verifyAll(store())
  const changed = [file('a', 'changed'), COMMON]
  await assert.rejects(
    repair(store(), 'A', changed, () => false),
    /in use, and upstream's archive is another tree/,
  )
  await repair(store(), 'A', changed)
  await assertHolds(store(), 'A', changed)
  await assertHolds(store(), 'B', B)
})

for (const { name, isSticky, change } of [
  { name: 'pinned', isSticky: true, change: (path: string) => writeFileSync(path, '') },
  { name: 'unpinned', isSticky: false, change: (path: string) => rmSync(path) },
])
  test(`a build that is ${name} while another tree is about to take its place stays so`, async (t) => {
    const { store, root, open } = await setUp(t)
    if (!isSticky) await store().pin('A')
    writeFileSync(join(root, 'builds/A/contents'), 'rot')
    await store().checkFiles('A')
    await repair(store(), 'A', A, () => {
      change(join(root, 'builds/A/sticky'))
      return true
    })
    assert.equal(await store().damage('A'), undefined)
    assert.equal(await store().isSticky('A'), isSticky)
    await open()
    assert.equal(await store().isSticky('A'), isSticky)
  })

const PACK_DAMAGE: { name: string; damage: (path: string) => void; lost: number }[] = [
  { name: 'cut short', damage: (path) => truncateSync(path, 16 + SIZE), lost: 2 },
  { name: 'emptied', damage: (path) => truncateSync(path, 0), lost: 3 },
  { name: 'deleted', damage: (path) => rmSync(path), lost: 3 },
]
for (const { name, damage, lost } of PACK_DAMAGE) {
  test(`a pack that was ${name} while we run: exactly what is gone is lost`, async (t) => {
    const { store } = await setUp(t)
    damage((await placeOf(store(), 'A', 'a')).pack)
    await verifyAll(store())
    assert.equal((await store().damage('A'))?.lostBlobs, lost)
    await repair(store(), 'A', A)
    assert.equal(await store().damage('A'), undefined)
    for (const id of ['A', 'B']) await assertHolds(store(), id, id === 'A' ? A : B)
    await store().collect(ALL)
    await assertHolds(store(), 'A', A)
  })
}

test('a pack that could not be used at start goes once nobody lacks anything', async (t) => {
  const { store, open } = await setUp(t)
  const { pack } = await placeOf(store(), 'A', 'a')
  truncateSync(pack, 16 + SIZE)
  await open()
  assert.equal((await store().damage('A'))?.lostBlobs, 3)
  assert.equal((await store().damage('B'))?.lostBlobs, 1)
  await repair(store(), 'A', A)
  assert.deepEqual(store().knownDamaged(), [])
  assert.ok(store().packs.unknownBytes > 0)
  await store().packs.dropUnknown()
  assert.ok(!existsSync(pack))
  assert.equal(store().packs.unknownBytes, 0)
})

test('an index of a pack that has rotted is written anew before a start needs it', async (t) => {
  const { store, open, problems } = await setUp(t)
  const { pack } = await placeOf(store(), 'A', 'a')
  overwrite(pack, statSync(pack).size - 100, 'rot')
  assert.equal((await verifyAll(store())).rotten, 0)
  assert.match(problems.map(({ message }) => message).join(), /does not match its digest/)
  await open()
  assert.equal(problems.length, 1)
  await assertHolds(store(), 'A', A)
  assert.ok(!existsSync(pack))
})

test('an index that has rotted, while a manifest cannot be read: what that build needs is written anew with the rest', async (t) => {
  let fails: string | undefined
  const disk = new WatchedDisk(realDisk, ({ name, path }) =>
    fails !== undefined && path.endsWith('A/manifest') && /^(?:look|readFile)$/.test(name)
      ? { fails }
      : undefined,
  )
  const { store, open } = await setUp(t, disk)
  const { pack } = await placeOf(store(), 'A', 'a')
  fails = 'EIO'
  await open()
  overwrite(pack, statSync(pack).size - 100, 'rot')
  await verifyAll(store())
  assert.ok(!existsSync(pack), 'it was written anew')
  fails = undefined
  await open()
  assert.equal(await store().damage('A'), undefined)
  await assertHolds(store(), 'A', A)
})

test('an ingest that relied on a blob before it was found to have rotted fails, and the next one does not', async (t) => {
  const { store } = await setUp(t)
  const { pack, offset } = await placeOf(store(), 'A', 's')
  const staging = await store().beginIngest('C')
  const ingest = await Ingest.create(staging.directory, staging.known, ENDLESS_ROOM)
  feed(ingest, [COMMON])
  const result = ingest.finish()
  assert.equal(result.reusedBytes, SIZE)
  overwrite(pack, offset, 'rot')
  await verifyAll(store())
  const publishing = store().publish(staging, result, generateContents, buildInfo('C'))
  await assert.rejects(
    publishing,
    (error: Error) => error instanceof StoreCorrupt && /needs 1 blobs/.test(error.message),
  )
  assert.equal(store().has('C'), false)
  await publishBuild(store(), 'C', [COMMON])
  await assertHolds(store(), 'C', [COMMON])
  await store().collect(ALL)
  for (const id of ['A', 'B']) await assertHolds(store(), id, id === 'A' ? A : B)
})

test('an ingest under way that has not met the blob yet writes it anew', async (t) => {
  const { store } = await setUp(t)
  const { pack, offset } = await placeOf(store(), 'A', 's')
  const staging = await store().beginIngest('C')
  overwrite(pack, offset, 'rot')
  await verifyAll(store())
  const ingest = await Ingest.create(staging.directory, staging.known, ENDLESS_ROOM)
  feed(ingest, [COMMON])
  await store().publish(staging, ingest.finish(), generateContents, buildInfo('C'))
  assert.deepEqual(store().knownDamaged(), [])
  await assertHolds(store(), 'C', [COMMON])
})

test('what is lost and nobody needs any more is forgotten', async (t) => {
  const { store } = await setUp(t)
  const { pack, offset } = await placeOf(store(), 'A', 's')
  overwrite(pack, offset, 'rot')
  await verifyAll(store())
  for (const id of ['A', 'B']) await store().remove(id)
  await store().collect()
  assert.deepEqual([store().packs.index.size, store().packs.index.lostCount, store().bytes], [0, 0, 0])
})

test('one blob is checked by itself; nonsense in the list of what has rotted is passed over', async (t) => {
  const { store, open, root } = await setUp(t)
  const { pack, offset, digest } = await placeOf(store(), 'A', 's')
  const never = new AbortController().signal
  assert.ok(await store().checkBlob(digest, never))
  overwrite(pack, offset, 'rot')
  assert.equal(await store().checkBlob(digest, never), false)
  assert.ok(await store().damage('B'))
  const list = join(root, 'packs/untrusted')
  writeFileSync(list, `\0\0\nno.pack x\n${readFileSync(list, 'utf8')}`)
  await open()
  assert.ok(await store().damage('B'))
  assert.deepEqual(
    readdirSync(join(root, 'packs')).filter((name) => name.endsWith('.new')),
    [],
  )
})

test('a verification that is given up stops', async (t) => {
  const { store } = await setUp(t)
  const abort = new AbortController()
  const verifying = store().verify(undefined, () => abort.abort(new Error('enough')), abort.signal)
  await assert.rejects(verifying, /enough/)
})

test('no file stays open for each pack, neither by verifying nor by reading what is small', async (t) => {
  const { store, root } = await setUp(t)
  const contents = Array.from({ length: 150 }, (_, n) => `of build ${n}`)
  for (const [n, content] of contents.entries()) await publishBuild(store(), `n${n}`, [file('x', content)])
  const openPacks = (): number => openFilesBelow(join(root, 'packs')).length
  await verifyAll(store())
  assert.ok(openPacks() < 140, `${openPacks()} packs are open`)
  for (const content of contents) {
    const target = Buffer.alloc(content.length)
    await store().copyBlob(createHash('sha256').update(content).digest(), 0, [target])
    assert.equal(String(target), content)
  }
  assert.ok(openPacks() < 140, `${openPacks()} packs are open`)
})

test("what is read of a blob is never its neighbour's", async (t) => {
  const { store } = await setUp(t)
  const contents = [
    'first, a small blob',
    'second, and its neighbour',
    'x'.repeat(200_000),
    'y'.repeat(200_000),
  ]
  await publishBuild(
    store(),
    'N',
    contents.map((content, n) => file(`${n}`, content)),
  )
  for (const content of contents) {
    const digest = createHash('sha256').update(content).digest()
    const { length } = content
    for (const [position, size] of [
      [0, length + 1],
      [length, 1],
      [-1, 1],
    ] as const) {
      const targets = [Buffer.alloc(size - 1), Buffer.alloc(1)]
      await assert.rejects(async () => store().copyBlob(digest, position, targets), RangeError)
    }
    const whole = [Buffer.alloc(5), Buffer.alloc(length - 5)]
    await store().copyBlob(digest, 0, whole)
    assert.equal(String(Buffer.concat(whole)), content)
  }
})

test('a build that leaves while it is verified is not damaged', async (t) => {
  const directory = temporaryDirectory()
  t.after(() => directory.remove())
  const problems: StoreError[] = []
  let checking: Promise<void> | undefined
  const store = await Store.open(directory.path, {
    onProblem: (problem) => problems.push(problem),
    step: async (name) => {
      if (name !== 'remove: renamed away') return
      checking = store.checkFiles('A')
      for (let i = 0; i < 20; i++) await Promise.race([checking, sleep(1)])
    },
  })
  await publishBuild(store, 'A', A)
  await store.remove('A')
  await checking
  assert.deepEqual(problems, [])
  await store.close()
})

test('a build that is whole by now is not replaced, whatever the archive is by now', async (t) => {
  const { store, root } = await setUp(t)
  const before = statSync(join(root, 'builds/A')).ino
  await repair(store(), 'A', [file('another')], () => assert.fail('it is not damaged'))
  assert.equal(statSync(join(root, 'builds/A')).ino, before)
  await assertHolds(store(), 'A', A)
  await store().collect(ALL)
  assert.equal(await store().deadBytes(), 0)
})

test('a damaged build whose replacement failed stays, when the disk works again', async (t) => {
  const directory = temporaryDirectory()
  t.after(() => directory.remove())
  const place = join(directory.path, 'builds/A')
  let failures = 0
  const disk: Disk = {
    ...realDisk,
    rename: async (from, to) => {
      // The new one does not get its name, and cannot be taken back.
      const concerns = from.endsWith('/build') || (from === place && failures === 1)
      if (concerns && failures > 0) {
        failures--
        throw systemError('EIO', 'rename', from)
      }
      await realDisk.rename(from, to)
    },
  }
  const store = await Store.open(directory.path, { disk, onProblem: () => {} })
  await publishBuild(store, 'A', A)
  overwrite(join(place, 'contents'), 0, 'rot')
  await store.checkFiles('A')
  failures = 2
  await assert.rejects(repair(store, 'A', A), /EIO/)
  assert.ok(existsSync(join(place, 'manifest')))
  await store.collect(ALL)
  assert.ok(existsSync(join(place, 'manifest')), 'what is held is there')
  await repair(store, 'A', A)
  await assertHolds(store, 'A', A)
  await store.close()
})
