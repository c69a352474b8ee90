/** What becomes of an archive's tree. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ENDLESS_ROOM, feed, type TestEntry, temporaryDirectory } from '../../test/support/trees.ts'
import { ArchiveError } from '../errors.ts'
import { realDisk } from '../lib/disk.ts'
import { Manifest } from '../store/manifest.ts'
import { Ingest } from './ingest.ts'
import { checkManifest } from './replica.ts'
import type { TreeShape } from './shape.ts'

/** Ingests, and gives a line for each path; the manifest must be one that another server would take. */
async function shaped(entries: readonly TestEntry[], shape: TreeShape): Promise<string[]> {
  const directory = temporaryDirectory()
  try {
    const known = { claim: () => false }
    const ingest = await Ingest.create(directory.path, known, ENDLESS_ROOM, undefined, realDisk.now, shape)
    try {
      feed(ingest, entries)
      const { manifest: bytes } = ingest.finish()
      const manifest = Manifest.decode(bytes)
      checkManifest(manifest, bytes)
      return Array.from({ length: manifest.count - 1 }, (_, i) => {
        const group = manifest.linkGroup(i + 1)
        const owner =
          manifest.uid(i + 1) || manifest.gid(i + 1) ? ` ${manifest.uid(i + 1)}:${manifest.gid(i + 1)}` : ''
        return `${manifest.path(i + 1)}${group > 0 ? ` =${group}` : ''}${owner}`
      }).sort()
    } finally {
      ingest.abort()
    }
  } finally {
    directory.remove()
  }
}

const file = (path: string, content = path, more: Partial<TestEntry> = {}): TestEntry =>
  ({ path, type: 'file', content, ...more }) as TestEntry
const link = (path: string, linkTarget: string): TestEntry =>
  ({ path, type: 'hardlink', linkTarget }) as TestEntry

const PRISTINE = [
  file('boot/duplicate'),
  file('versions/run/b1/etc/passwd', 'root:x:0:0\nolpc:x:500:500\n'),
  link('versions/pristine/b1/etc/passwd', 'versions/run/b1/etc/passwd'),
  file('versions/pristine/b1/bin/sh'),
  link('versions/pristine/b1/bin/ash', 'versions/pristine/b1/bin/sh'),
  file('versions/pristine/b2/other'),
  file('versions/contents'),
]
const PLAIN = [
  file('bin/sh'),
  file('etc/keep.conf'),
  file('etc/site/secret'),
  file('versions/run/x'),
  file('a/core'),
  file('core'),
]

const CASES: { name: string; entries: TestEntry[]; shape: TreeShape; paths: string[] }[] = [
  {
    name: 'versions/pristine: its first directory, and hard links that began elsewhere',
    entries: PRISTINE,
    shape: { pristine: true },
    paths: ['bin', 'bin/ash =1', 'bin/sh =1', 'etc', 'etc/passwd'],
  },
  {
    name: 'no versions/pristine: without versions',
    entries: PLAIN,
    shape: { pristine: true },
    paths: ['a', 'a/core', 'bin', 'bin/sh', 'core', 'etc', 'etc/keep.conf', 'etc/site', 'etc/site/secret'],
  },
  {
    name: 'a subtree',
    entries: PLAIN,
    shape: { subtree: '/etc/' },
    paths: ['keep.conf', 'site', 'site/secret'],
  },
  {
    name: 'a subtree of what is pristine',
    entries: PRISTINE,
    shape: { pristine: true, subtree: 'bin' },
    paths: ['ash =1', 'sh =1'],
  },
  {
    name: 'without what matches: a name anywhere, a path from the root',
    entries: PLAIN,
    shape: { exclude: ['core', '/etc/site', '/versions/**', 's?'] },
    paths: ['a', 'bin', 'etc', 'etc/keep.conf', 'versions'],
  },
  {
    name: 'other owners',
    entries: [file('a', 'a', { uid: 1000, gid: 1000 }), file('b', 'b', { uid: 7, gid: 7 })],
    shape: { users: { '1000': 500, '*': 0 }, groups: { '7': 70_000 } },
    paths: ['a 500:1000', 'b 0:70000'],
  },
]
for (const { name, entries, shape, paths } of CASES)
  test(`shape: ${name}`, async () => assert.deepEqual(await shaped(entries, shape), paths))

test('shape: a part that is not there', async () => {
  await assert.rejects(shaped(PLAIN, { subtree: 'opt' }), ArchiveError)
  await assert.rejects(shaped(PLAIN, { subtree: 'bin/sh' }), ArchiveError)
  await assert.rejects(
    shaped([{ path: 'versions/pristine', type: 'directory' } as TestEntry], { pristine: true }),
    ArchiveError,
  )
})

test('shape: times that follow from content', async () => {
  const times = async (content: string): Promise<number[]> => {
    const directory = temporaryDirectory()
    const ingest = await Ingest.create(
      directory.path,
      { claim: () => false },
      ENDLESS_ROOM,
      undefined,
      realDisk.now,
      { contentMtimes: true },
    )
    feed(ingest, [file('a', content, { mtime: 5 }), file('b', 'same', { mtime: 5 })])
    const manifest = Manifest.decode(ingest.finish().manifest)
    directory.remove()
    return [manifest.mtime(1), manifest.mtime(2)]
  }
  const [first, second] = [await times('one'), await times('two')]
  assert.notEqual(first[0], second[0])
  assert.equal(first[1], second[1])
  for (const time of [...first, ...second]) assert.ok(time >= 1e9 && time < 1.6e9, `${time}`)
})
