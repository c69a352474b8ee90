import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { xxhash128 } from 'hash-wasm'
import { ENDLESS_ROOM, ingestAlone, type TestEntry } from '../../test/support/trees.ts'
import { ArchiveError, NoRoom } from '../errors.ts'
import type { ByteString } from '../lib/bytes.ts'
import { Manifest } from '../store/manifest.ts'
import { BLOB_OVERHEAD } from '../store/pack.ts'
import { DEFAULT_TREE_LIMITS } from './tree-rules.ts'

async function treeOf(entries: readonly TestEntry[]) {
  return Manifest.decode((await ingestAlone(entries)).manifest)
}
function find(manifest: Manifest, path: string): number {
  let at = 0
  for (const name of path.split('/')) at = manifest.child(at, name as ByteString)
  return at
}
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const dir = (path: string, more: Partial<TestEntry> = {}): TestEntry => ({ path, type: 'directory', ...more })
const link = (path: string, linkTarget: string): TestEntry => ({ path, type: 'hardlink', linkTarget })

const REFUSED: { name: string; entries: TestEntry[]; says: RegExp }[] = [
  { name: 'a file twice', entries: [{ path: 'a' }, { path: 'a' }], says: /entry a is in the archive twice/ },
  { name: 'a directory twice', entries: [dir('a'), dir('a')], says: /twice/ },
  { name: 'the root twice', entries: [dir(''), dir('')], says: /\(the root\) is in the archive twice/ },
  {
    name: 'an implied directory described twice',
    entries: [{ path: 'a/b' }, dir('a'), dir('a')],
    says: /twice/,
  },
  {
    name: 'an implied directory that is a file',
    entries: [{ path: 'a/b' }, { path: 'a' }],
    says: /is a file, but/,
  },
  { name: 'the root as a file', entries: [{ path: '' }], says: /is a file/ },
  {
    name: 'below a file',
    entries: [{ path: 'a' }, { path: 'a/b' }],
    says: /a\/b lies below a, which is not/,
  },
  {
    name: 'deep below a file',
    entries: [{ path: 'a' }, { path: 'a/b/c/d' }],
    says: /lies below a, which is not/,
  },
  {
    name: 'below a symlink',
    entries: [{ path: 'a', type: 'symlink', linkTarget: '/etc' }, { path: 'a/passwd' }],
    says: /lies below a/,
  },
  {
    name: 'a link to nothing',
    entries: [link('a', 'b')],
    says: /link to b, which is not in the archive before it/,
  },
  { name: 'a link to what comes later', entries: [link('a', 'b'), { path: 'b' }], says: /before it/ },
  { name: 'a link to a directory', entries: [dir('d'), link('a', 'd')], says: /link to the directory d/ },
  { name: 'a link to itself', entries: [{ path: 'a' }, link('a', 'a')], says: /link to itself/ },
  { name: 'a link over a file', entries: [{ path: 'a' }, { path: 'b' }, link('a', 'b')], says: /twice/ },
  {
    name: 'a link over an implied directory',
    entries: [{ path: 'a/b' }, { path: 'c' }, link('a', 'c')],
    says: /twice/,
  },
  { name: 'a long name', entries: [{ path: 'x'.repeat(256) }], says: /name of 256 bytes/ },
  { name: 'a long path', entries: [{ path: `${'x/'.repeat(2100)}y` }], says: /path of 4201 bytes/ },
  { name: 'too deep', entries: [{ path: `${'x/'.repeat(600)}y` }], says: /more than 512 directories deep/ },
]
for (const { name, entries, says } of REFUSED) {
  test(`ingest refuses ${name}`, async () => {
    await assert.rejects(ingestAlone(entries), (error: Error) => {
      assert.ok(error instanceof ArchiveError)
      assert.match(error.message, says)
      return true
    })
  })
}

test('ingest counts entries, implied ones too', async () => {
  const limits = { ...DEFAULT_TREE_LIMITS, maxEntries: 3, maxDepth: 10 }
  await ingestAlone([{ path: 'a/b' }], { limits })
  await assert.rejects(ingestAlone([{ path: 'a/b' }, { path: 'c' }], { limits }), /one entry more than the 3/)
})

test('ingest: implied directories are 0755 root, as old as the newest entry in them', async () => {
  const manifest = await treeOf([
    { path: 'a/b/c', mtime: -50, mtimeNsec: 7 },
    { path: 'a/old', mtime: -100 },
    { path: 'later/x' },
    dir('later', { mode: 0o1777, uid: 5, mtime: 42 }),
  ])
  const a = find(manifest, 'a')
  assert.deepEqual(
    [manifest.mode(a), manifest.uid(a), manifest.mtime(a), manifest.mtimeNsec(a)],
    [0o40755, 0, -50, 7],
  )
  const later = find(manifest, 'later')
  assert.deepEqual([manifest.mode(later), manifest.uid(later), manifest.mtime(later)], [0o41777, 5, 42])
  assert.equal(manifest.mtime(0), 42)
})

test('ingest: digests, in the layouts that are promised', async () => {
  const manifest = await treeOf([
    { path: 'hello', content: 'hello' },
    { path: 'empty' },
    { path: 'large', content: 'hello'.repeat(200_000) },
  ])
  const blob = manifest.blob(find(manifest, 'hello'))
  // docs/rsync-protocol.md, section 8.4, has this value.
  assert.equal(hex(manifest.blobXxh128(blob)), '1838525eaacf79c77f3e1b07adc1e9b5')
  assert.equal(hex(manifest.blobMd5(blob)), '5d41402abc4b2a76b9719d911017c592')
  const empty = manifest.blob(find(manifest, 'empty'))
  assert.equal(hex(manifest.blobDigest(empty)), createHash('sha256').digest('hex'))
  assert.equal(manifest.blobSize(empty), 0)
  const large = manifest.blob(find(manifest, 'large'))
  const content = 'hello'.repeat(200_000)
  assert.equal(hex(manifest.blobDigest(large)), createHash('sha256').update(content).digest('hex'))
  assert.equal(hex(manifest.blobMd5(large)), createHash('md5').update(content).digest('hex'))
  assert.equal(hex(manifest.blobXxh128(large).slice().reverse()), await xxhash128(content))
})

test('ingest: equal content is stored once, small or large, known before or not', async () => {
  const large = 'x'.repeat(300_000)
  const result = await ingestAlone([
    { path: 'a', content: 'same' },
    { path: 'b', content: 'same' },
    { path: 'c', content: large },
    { path: 'd', content: large },
    { path: 'e', content: 'other' },
  ])
  assert.equal(Manifest.decode(result.manifest).blobCount, 3)
  assert.equal(result.reusedBytes, large.length + 4)
  assert.equal(result.packs.length, 1)
  assert.equal(result.packBytes, 16 + 4 + large.length + 5 + 3 * 56 + 64)

  const all = await ingestAlone(
    [
      { path: 'a', content: 'same' },
      { path: 'c', content: large },
    ],
    { known: () => true },
  )
  assert.deepEqual([all.packs, all.packBytes, all.reusedBytes], [[], 0, large.length + 4])
  assert.equal(Manifest.decode(all.manifest).blobCount, 2)
})

test('ingest: hard links share attributes and content, and form one group', async () => {
  const xattrs = new Map([['user.a' as ByteString, Uint8Array.of(1)]])
  const manifest = await treeOf([
    { path: 'z', content: 'hi', mode: 0o4755, uid: 7, xattrs },
    link('a', 'z'),
    link('d/b', 'a'),
    { path: 'lone', content: 'hi' },
    { path: 's', type: 'symlink', linkTarget: 'z' },
    link('s2', 's'),
  ])
  const [z, a, b, lone, s, s2] = ['z', 'a', 'd/b', 'lone', 's', 's2'].map((path) => find(manifest, path))
  assert.equal(manifest.linkGroup(a!), 1)
  assert.deepEqual([manifest.linkGroup(z!), manifest.linkGroup(b!), manifest.linkGroup(lone!)], [1, 1, 0])
  assert.deepEqual([manifest.mode(b!), manifest.uid(b!), manifest.blob(b!)], [0o104755, 7, manifest.blob(z!)])
  assert.equal(manifest.xattrs(b!)[0]!.name, 'user.a')
  assert.equal(manifest.linkGroup(s!), manifest.linkGroup(s2!))
  assert.equal(manifest.linkTarget(s2!), 'z')
  assert.equal(manifest.totals.bytes, 4)
})

test('ingest: devices, fifos and sockets', async () => {
  const manifest = await treeOf([
    { path: 'c', type: 'char-device', major: 4, minor: 64, mode: 0o620 },
    { path: 'b', type: 'block-device', major: 8, minor: 1048575 },
    { path: 'p', type: 'fifo', major: 9 },
    { path: 's', type: 'socket' },
  ])
  const modes = ['c', 'b', 'p', 's'].map((path) => manifest.mode(find(manifest, path)).toString(8))
  assert.deepEqual(modes, ['20620', '60644', '10644', '140644'])
  assert.deepEqual([manifest.major(find(manifest, 'b')), manifest.minor(find(manifest, 'b'))], [8, 1048575])
  assert.equal(manifest.major(find(manifest, 'p')), 0)
  assert.equal(manifest.blob(find(manifest, 'c')), -1)
})

test('ingest: names of owners from the archive, then from the tree', async () => {
  const name = (text: string) => text as ByteString
  const manifest = await treeOf([
    { path: 'a', uid: 0, gid: 0, userName: name('root'), groupName: name('wheel') },
    { path: 'b', uid: 0, gid: 50, userName: name('toor') },
    { path: 'c', uid: 33, gid: 0 },
    {
      path: 'etc/passwd',
      content: 'root:x:0:0::/:/bin/sh\nwww:x:33:33::/:\nagain:x:33:33::/:\nnobody:x:99:99::/:\nbad:x:zz:0\n',
    },
    { path: 'etc/group', content: 'root:x:0:\nstaff:x:50:\n' },
  ])
  assert.deepEqual(
    manifest.userNames,
    new Map([
      [0, 'root'],
      [33, 'www'],
    ]),
  )
  assert.deepEqual(
    manifest.groupNames,
    new Map([
      [0, 'wheel'],
      [50, 'staff'],
    ]),
  )
})

test('ingest notices a reproducible image by its mtimes', async () => {
  const files = (mtimeOf: (i: number) => number) =>
    Array.from({ length: 40 }, (_, i) => ({ path: `f${i}`, content: `${i}`, mtime: mtimeOf(i) }))
  assert.equal((await ingestAlone(files(() => 1234))).uniformMtime, 1234)
  assert.equal((await ingestAlone(files((i) => (i < 2 ? i : 1234)))).uniformMtime, 1234)
  assert.equal((await ingestAlone(files((i) => (i < 10 ? i : 1234)))).uniformMtime, undefined)
  assert.equal((await ingestAlone(files(() => 1234).slice(0, 10))).uniformMtime, undefined)
})

test('ingest claims room before a file is written, and gives back what it did not need', async () => {
  let claimed = 0
  const room = {
    claim: (bytes: number) => {
      if (bytes > 1e9) throw new NoRoom('too large')
      claimed += bytes
    },
    giveBack: (bytes: number) => {
      claimed -= bytes
    },
    diskFull: () => false,
  }
  await ingestAlone(
    [
      { path: 'a', content: 'same' },
      { path: 'b', content: 'same' },
      { path: 'c', content: 'xy' },
    ],
    { room },
  )
  assert.equal(claimed, 6 + 2 * BLOB_OVERHEAD)
  await assert.rejects(ingestAlone([{ path: 'a', size: 100e9 } as TestEntry], { room }), NoRoom)
})

test('ingest: equal attributes are kept once, however many entries have them', async () => {
  const value = Buffer.alloc(60_000, 'v')
  const shared = new Map([['user.big' as ByteString, value]])
  const entries = (xattrsOf: (i: number) => Map<ByteString, Uint8Array>) =>
    Array.from({ length: 2000 }, (_, i) => ({ path: `f${i}`, xattrs: xattrsOf(i) }))
  const limits = { ...DEFAULT_TREE_LIMITS, maxMetadataBytes: 200_000 }
  for (const [name, xattrsOf] of [
    ['one map, as of a global header', () => shared],
    ['maps that share values', () => new Map(shared)],
  ] as const) {
    const before = process.memoryUsage().arrayBuffers
    let peak = 0
    const room = {
      ...ENDLESS_ROOM,
      claim: () => {
        peak = Math.max(peak, process.memoryUsage().arrayBuffers - before)
      },
    }
    const { manifest } = await ingestAlone(entries(xattrsOf), { limits, room })
    assert.ok(peak < 40e6, `${name}: ${peak} bytes`)
    assert.ok(manifest.length < 500_000, name)
    const tree = Manifest.decode(manifest)
    assert.ok(Buffer.from(tree.xattrs(find(tree, 'f1999'))[0]!.value).equals(value), name)
  }
})

const BOUNDED: { name: string; entries: TestEntry[] }[] = [
  { name: 'paths', entries: Array.from({ length: 20 }, (_, i) => ({ path: `${'p'.repeat(200)}${i}` })) },
  {
    name: 'link targets',
    entries: Array.from({ length: 20 }, (_, i) => ({
      path: `${i}`,
      type: 'symlink' as const,
      linkTarget: 't'.repeat(200),
    })),
  },
  {
    name: 'attributes',
    entries: Array.from({ length: 20 }, (_, i) => ({
      path: `${i}`,
      xattrs: new Map([['user.x' as ByteString, Buffer.alloc(200, i)]]),
    })),
  },
  {
    name: 'names of owners',
    entries: Array.from({ length: 20 }, (_, i) => ({
      path: `${i}`,
      uid: i,
      userName: 'n'.repeat(200) as ByteString,
    })),
  },
  {
    name: 'names of accounts',
    entries: [
      ...Array.from({ length: 20 }, (_, i) => ({ path: `${i}`, uid: i })),
      {
        path: 'etc/passwd',
        content: Array.from({ length: 20 }, (_, i) => `${'n'.repeat(200)}:x:${i}:0\n`).join(''),
      },
    ],
  },
]
for (const { name, entries } of BOUNDED) {
  test(`ingest: ${name} take memory up to a limit`, async () => {
    const limits = { ...DEFAULT_TREE_LIMITS, maxMetadataBytes: 2000 }
    await assert.rejects(ingestAlone(entries, { limits }), (error: Error) => {
      assert.ok(error instanceof ArchiveError)
      assert.match(error.message, /beyond the 2 kB that we take/)
      return true
    })
  })
}

test('ingest: names of owners that are too long for any system are ignored', async () => {
  const name = (length: number) => 'n'.repeat(length) as ByteString
  const manifest = await treeOf([
    { path: 'a', uid: 1, gid: 1, userName: name(256), groupName: name(256) },
    { path: 'b', uid: 2, userName: name(255) },
    { path: 'c', uid: 3 },
    { path: 'etc/passwd', content: `${name(256)}:x:3:3\n` },
  ])
  assert.deepEqual([...manifest.userNames.keys()], [2])
  assert.equal(manifest.groupNames.size, 0)
})
