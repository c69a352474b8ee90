/** Store: what is published is there, also after a restart; what is removed gives its bytes back. */
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
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { StoreCorrupt, StoreError, StoreFormat } from '../../src/errors.ts'
import { Store, type StoreOptions } from '../../src/store/store.ts'
import { publishBuild, readBuild, temporaryDirectory } from '../support/trees.ts'

async function openStore(t: TestContext, options?: StoreOptions) {
  const directory = temporaryDirectory()
  const opened: Store[] = []
  t.after(async () => {
    for (const store of opened) await store.close()
    directory.remove()
  })
  const open = async () => {
    const store = await Store.open(directory.path, options)
    opened.push(store)
    return store
  }
  return { root: directory.path, store: await open(), reopen: open }
}

const A = [
  { path: 'etc/hostname', content: 'a\n' },
  { path: 'shared', content: 'shared by both' },
  { path: 'empty' },
]
const B = [
  { path: 'etc/hostname', content: 'b\n' },
  { path: 'shared', content: 'shared by both' },
]

test('a published build is there, complete, and after a restart too', async (t) => {
  const { root, store, reopen } = await openStore(t)
  await publishBuild(store, '802', A)
  await publishBuild(store, '803', B)
  const expected = new Map([
    ['empty', ''],
    ['shared', 'shared by both'],
    ['etc/hostname', 'a\n'],
  ])
  assert.deepEqual(await readBuild(store, '802'), expected)
  const { bytes } = store
  assert.equal(store.packs.index.size, 3)
  await store.close()
  assert.deepEqual(readdirSync(join(root, 'incoming')), [])
  assert.equal(statSync(join(root, 'builds/802')).mode & 0o777, 0o750)

  const again = await reopen()
  assert.deepEqual(again.ids().sort(), ['802', '803'])
  assert.deepEqual(await readBuild(again, '802'), expected)
  assert.equal((await again.info('802')).url, 'test:802')
  assert.match((await again.contents('802')).toString(), /^#mtree v2.0 upserv-contents 1\n/)
  assert.equal(again.bytes, bytes)
  assert.equal(again.facts.checksumSeed, store.facts.checksumSeed)
})

test('removing a build frees what only it needed, and nothing else', async (t) => {
  const { root, store } = await openStore(t)
  await publishBuild(store, 'a', A)
  await publishBuild(store, 'b', B)
  const exclusive = await store.exclusiveBytes()
  const before = store.bytes
  await store.remove('a')
  assert.equal(store.has('a'), false)
  await assert.rejects(store.manifest('a'), StoreError)
  // The pack of "a" holds the shared blob: what is dead in it is freed by rewriting.
  await store.collect(Number.MAX_SAFE_INTEGER)
  assert.equal(before - store.bytes, exclusive.get('a'))
  assert.deepEqual(
    await readBuild(store, 'b'),
    new Map([
      ['shared', 'shared by both'],
      ['etc/hostname', 'b\n'],
    ]),
  )
  await store.remove('b')
  await store.collect()
  assert.equal(store.bytes, 0)
  assert.deepEqual([readdirSync(join(root, 'packs')), readdirSync(join(root, 'incoming'))], [[], []])
})

test('packs that nothing refers to go after a restart; what is needed stays', async (t) => {
  const { root, store, reopen } = await openStore(t)
  await publishBuild(store, 'a', A)
  await publishBuild(store, 'b', [{ path: 'x', content: 'only b' }])
  await store.remove('b')
  await store.close()
  assert.equal(readdirSync(join(root, 'packs')).length, 2)
  const again = await reopen()
  await again.collect()
  assert.equal(readdirSync(join(root, 'packs')).length, 1)
  assert.equal((await readBuild(again, 'a')).size, 3)
})

test('a pack that is mostly dead is rewritten while somebody reads from it', async (t) => {
  const { store } = await openStore(t)
  await publishBuild(store, 'big', [
    { path: 'keep1', content: 'first' },
    { path: 'drop', content: 'x'.repeat(100_000) },
    { path: 'keep2', content: 'second' },
    { path: 'keep3', content: 'third' },
  ])
  const kept = [
    { path: 'keep1', content: 'first' },
    { path: 'keep2', content: 'second' },
    { path: 'keep3', content: 'third' },
  ]
  await publishBuild(store, 'small', kept)
  const manifest = await store.manifest('big')
  const blob = manifest.blob(manifest.child(0, 'drop' as never))
  using reader = await store.openBlob(manifest.blobDigest(blob))
  await store.remove('big')
  assert.ok((await store.collect()) > 100_000)
  const content = Buffer.alloc(100_000)
  await reader.read([content.subarray(0, 10), content.subarray(10)], 0)
  assert.equal(content.toString(), 'x'.repeat(100_000))
  assert.equal((await readBuild(store, 'small')).get('keep2' as never), 'second')
  assert.equal(store.packs.count, 1)
})

test('the sweep leaves what an ingest under way relies on, and takes the rest', async (t) => {
  const { store } = await openStore(t)
  await publishBuild(store, 'a', [
    { path: 'x', content: 'relied on' },
    { path: 'y', content: 'not relied on' },
  ])
  const manifest = await store.manifest('a')
  const digestOf = (name: string) => manifest.blobDigest(manifest.blob(manifest.child(0, name as never)))
  const staging = await store.beginIngest('b')
  assert.equal(staging.known.claim(digestOf('x')), true)
  await store.remove('a')
  await store.collect(Number.MAX_SAFE_INTEGER)
  assert.equal(staging.known.claim(digestOf('y')), false)
  using reader = await store.openBlob(digestOf('x'))
  assert.equal(reader.size, 9)
  await assert.rejects(store.openBlob(digestOf('y')), StoreCorrupt)
  await store.discardIngest(staging)
  await store.collect()
  assert.equal(store.packs.bytes, 0)
})

test('two ingests that bring the same blob: both builds are whole whichever goes', async (t) => {
  for (const first of ['a', 'b']) {
    const { store, reopen } = await openStore(t)
    const stagings = await Promise.all([store.beginIngest('a'), store.beginIngest('b')])
    await Promise.all(stagings.map((staging) => store.discardIngest(staging)))
    await Promise.all([
      publishBuild(store, 'a', [{ path: 'x', content: 'the same' }]),
      publishBuild(store, 'b', [{ path: 'x', content: 'the same' }]),
    ])
    const other = first === 'a' ? 'b' : 'a'
    await store.remove(first)
    await store.collect(Number.MAX_SAFE_INTEGER)
    assert.equal((await readBuild(store, other)).get('x' as never), 'the same')
    await store.close()
    const again = await reopen()
    await again.collect(Number.MAX_SAFE_INTEGER)
    assert.equal((await readBuild(again, other)).get('x' as never), 'the same')
  }
})

test('a build that is held is not published again, and the old one stays', async (t) => {
  const { root, store } = await openStore(t)
  await publishBuild(store, 'a', A)
  await assert.rejects(publishBuild(store, 'a', B), /held already/)
  assert.equal((await readBuild(store, 'a')).get('etc/hostname' as never), 'a\n')
  assert.deepEqual(readdirSync(join(root, 'incoming')), [])
})

test('a manifest that needs blobs which nobody has is not published', async (t) => {
  const { root, store } = await openStore(t)
  const staging = await store.beginIngest('a')
  const { ingestAlone, buildInfo } = await import('../support/trees.ts')
  const { manifest } = await ingestAlone([{ path: 'x', content: 'lost' }])
  const publishing = store.publish(staging, { packs: [], manifest }, () => Buffer.from(''), buildInfo('a'))
  await assert.rejects(publishing, /needs 1 blobs that the store does not have/)
  assert.deepEqual(
    [store.ids(), readdirSync(join(root, 'builds')), readdirSync(join(root, 'incoming'))],
    [[], [], []],
  )
})

test('sticky is a file: touch and rm work, and so do pin and unpin', async (t) => {
  const { root, store } = await openStore(t)
  await publishBuild(store, 'a', A)
  const sticky = join(root, 'builds/a/sticky')
  assert.equal(await store.isSticky('a'), false)
  writeFileSync(sticky, '')
  assert.equal(await store.isSticky('a'), true)
  await store.unpin('a')
  assert.equal(existsSync(sticky), false)
  await store.pin('a')
  assert.equal(existsSync(sticky), true)
  rmSync(sticky)
  assert.equal(await store.isSticky('a'), false)
  await store.unpin('a')
})

test('the last access is remembered, and written at most once a minute', async (t) => {
  let now = new Date('2026-01-01T00:00:00Z')
  const { root, store, reopen } = await openStore(t, { now: () => now })
  await publishBuild(store, 'a', A)
  const onDisk = () => statSync(join(root, 'builds/a/accessed')).mtime.toISOString()
  assert.equal(onDisk(), '2026-01-01T00:00:00.000Z')
  now = new Date('2026-01-01T00:00:59Z')
  await store.touch('a')
  assert.equal(onDisk(), '2026-01-01T00:00:00.000Z')
  assert.equal(store.accessed('a').toISOString(), '2026-01-01T00:00:59.000Z')
  now = new Date('2026-01-01T00:01:30Z')
  await store.touch('a')
  assert.equal(onDisk(), '2026-01-01T00:01:30.000Z')
  await store.close()
  assert.equal((await reopen()).accessed('a').toISOString(), '2026-01-01T00:01:30.000Z')
})

test('leftovers in incoming go at start, spools stay', async (t) => {
  const { root, store, reopen } = await openStore(t)
  await store.close()
  for (const name of [
    'a-12345678.ingest',
    'b-12345678.removed',
    '12345678.compact',
    'c.spool',
    'd.spool-1.ingest',
  ]) {
    mkdirSync(join(root, 'incoming', name))
    writeFileSync(join(root, 'incoming', name, 'file'), 'x')
  }
  const again = await reopen()
  assert.ok(again.overheadBytes >= 4 * 4096, 'they count as long as they are there')
  await again.leftoversGone()
  assert.deepEqual(readdirSync(join(root, 'incoming')), ['c.spool'])
})

test('ids that would leave the directory are refused', async (t) => {
  const { store } = await openStore(t)
  for (const id of ['', '.', '..', '../x', 'a/b', '.hidden', 'a\n', 'x'.repeat(201)]) {
    await assert.rejects(store.beginIngest(id), StoreError, id)
  }
})

test('a data directory of another format is refused and left as it is', async (t) => {
  const { root, store, reopen } = await openStore(t)
  await store.close()
  const format = join(root, 'upserv.json')
  const otherVersion = /Use the version that made it, or an empty data_dir/
  const restore = /Restore it from a backup, or choose an empty data_dir/
  for (const [text, error, message, hint] of [
    [
      '{"format": 2, "created": "2026", "checksumSeed": 1}',
      StoreFormat,
      /has format 2; .* reads format 1/,
      otherVersion,
    ],
    [
      '{"format": 0, "created": "2026", "checksumSeed": 1}',
      StoreFormat,
      /has format 0; .* reads format 1/,
      otherVersion,
    ],
    ['{"format": "1", "created": "2026", "checksumSeed": 1}', StoreFormat, /has format "1"/, otherVersion],
    ['{"created": "2026", "checksumSeed": 1}', StoreCorrupt, /does not say which format/, restore],
    [
      '{"format": 1, "created": "2026", "checksumSeed": 0}',
      StoreCorrupt,
      /lacks what it should say/,
      restore,
    ],
    ['{"format": 1}', StoreCorrupt, /lacks what it should say/, restore],
    ['null', StoreCorrupt, /does not say which format/, restore],
    ['[]', StoreCorrupt, /does not say which format/, restore],
    ['{"format', StoreCorrupt, /is not JSON/, restore],
    ['', StoreCorrupt, /is not JSON/, restore],
    ['\0\xff\x80', StoreCorrupt, /is not JSON/, restore],
  ] as const) {
    writeFileSync(format, text, 'latin1')
    await assert.rejects(reopen(), (failure: Error) => {
      assert.ok(failure instanceof error, `${text}: ${failure.stack}`)
      assert.match(failure.message, message)
      assert.match(failure.hint ?? '', hint)
      return true
    })
    assert.equal(readFileSync(format, 'latin1'), text)
  }
  rmSync(format)
  await assert.rejects(reopen(), StoreFormat, 'a store without its upserv.json')
})

test("somebody else's directory is not written into", async () => {
  const directory = temporaryDirectory()
  try {
    writeFileSync(join(directory.path, 'precious'), '')
    await assert.rejects(Store.open(directory.path), /is not empty/)
  } finally {
    directory.remove()
  }
})

test('a damaged pack is reported and left alone; other builds are served, the damaged one can go', async (t) => {
  const problems: StoreError[] = []
  const { root, store, reopen } = await openStore(t, { onProblem: (problem) => problems.push(problem) })
  await publishBuild(store, 'a', [{ path: 'x', content: 'lost' }])
  const [pack] = readdirSync(join(root, 'packs'))
  await publishBuild(store, 'b', [{ path: 'x', content: 'kept' }])
  await store.close()
  truncateSync(join(root, 'packs', pack!), 100)
  const again = await reopen()
  await again.collect()
  assert.match(problems.map(({ message }) => message).join('\n'), /a lacks 1 of its blobs/)
  assert.equal(problems.length, 2)
  await assert.rejects(readBuild(again, 'a'), StoreCorrupt)
  assert.equal((await readBuild(again, 'b')).size, 1)
  assert.ok(existsSync(join(root, 'packs', pack!)))
  await again.remove('a')
  await publishBuild(again, 'a', [{ path: 'x', content: 'lost' }])
  assert.equal((await readBuild(again, 'a')).size, 1)
})

test('a damaged manifest is refused, and its build can be removed', async (t) => {
  const { root, store, reopen } = await openStore(t)
  await publishBuild(store, 'a', A)
  await store.close()
  const path = join(root, 'builds/a/manifest')
  const bytes = readFileSync(path)
  bytes[bytes.length - 50]! ^= 1
  writeFileSync(path, bytes)
  const again = await reopen()
  await assert.rejects(again.manifest('a'), StoreCorrupt)
  truncateSync(path, 30)
  await again.remove('a')
  assert.deepEqual(readdirSync(join(root, 'builds')), [])
})
