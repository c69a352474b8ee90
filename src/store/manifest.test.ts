import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fc } from '../../test/support/property.ts'
import { StoreCorrupt, StoreError, StoreFormat } from '../errors.ts'
import { type ByteString, compareBytes } from '../lib/bytes.ts'
import { encodeManifest, Manifest, readManifestBlobs, type TreeEntry, type TreeInput } from './manifest.ts'

const bytes = (text: string) => text as ByteString

function entry(parent: number, name: string, more: Partial<TreeEntry> = {}): TreeEntry {
  const isDirectory = more.mode === undefined ? false : (more.mode & 0o170000) === 0o040000
  return {
    parent,
    name: bytes(name),
    mode: 0o100644,
    uid: 0,
    gid: 0,
    size: 0,
    mtime: 0,
    mtimeNsec: 0,
    major: 0,
    minor: 0,
    linkTarget: bytes(''),
    sameAs: -1,
    xattrs: [],
    blob: isDirectory ? -1 : 0,
    ...more,
  }
}
const directory = (parent: number, name: string) => entry(parent, name, { mode: 0o040755 })

function tree(entries: TreeEntry[], blobs = 1): TreeInput {
  const sha256 = Buffer.alloc(blobs * 32)
  for (let b = 0; b < blobs; b++) sha256.set(createHash('sha256').update(String(b)).digest(), b * 32)
  return {
    entries,
    blobs: {
      count: blobs,
      sizes: Array.from({ length: blobs }, (_, b) => b * 10),
      sha256,
      md5: Buffer.alloc(blobs * 16, 5),
      xxh128: Buffer.alloc(blobs * 16, 7),
    },
    userNames: new Map([[1000, bytes('b\xf6b')]]),
    groupNames: new Map(),
  }
}

const SAMPLE = tree(
  [
    directory(0, ''),
    directory(0, 'foo'),
    directory(0, 'foo.d'),
    entry(0, 'foo-bar', { uid: 4294967294, gid: 1000, size: 2 ** 40, blob: 1 }),
    entry(1, 'x', { mtime: -5, mtimeNsec: 999_999_999 }),
    entry(2, 'y', { mode: 0o120777, linkTarget: bytes('../\xff x'), blob: -1, size: 6 }),
    entry(2, 'dev', { mode: 0o060600, major: 8, minor: 17, blob: -1 }),
    entry(0, '+plus', { sameAs: 3, uid: 4294967294, gid: 1000, size: 2 ** 40, blob: 1 }),
    entry(0, 'zero', {
      xattrs: [
        { name: bytes('security.capability'), value: Uint8Array.of(0, 0, 0) },
        { name: bytes('user.empty'), value: new Uint8Array(0) },
      ],
    }),
    entry(0, 'sock', { mode: 0o140755, blob: -1 }),
  ],
  2,
)

test('manifest: order is rsync order, and everything comes back', () => {
  const manifest = Manifest.decode(encodeManifest(SAMPLE))
  const paths = Array.from({ length: manifest.count }, (_, i) => manifest.path(i))
  assert.deepEqual(paths, [
    '',
    '+plus',
    'foo-bar',
    'sock',
    'zero',
    'foo.d',
    'foo',
    'foo.d/dev',
    'foo.d/y',
    'foo/x',
  ])
  const [, plus, fooBar, , zero, fooD, foo, dev, link, x] = paths.keys()
  assert.equal(manifest.parent(0), 0)
  assert.deepEqual([manifest.firstChild(0), manifest.childCount(0)], [1, 6])
  assert.deepEqual([manifest.firstChild(foo!), manifest.childCount(foo!), manifest.parent(x!)], [9, 1, foo])
  assert.deepEqual(
    [manifest.uid(fooBar!), manifest.gid(fooBar!), manifest.size(fooBar!)],
    [4294967294, 1000, 2 ** 40],
  )
  assert.deepEqual([manifest.mtime(x!), manifest.mtimeNsec(x!)], [-5, 999_999_999])
  assert.equal(manifest.linkTarget(link!), '../\xff x')
  assert.deepEqual([manifest.mode(dev!), manifest.major(dev!), manifest.minor(dev!)], [0o060600, 8, 17])
  assert.deepEqual(
    [manifest.linkGroup(plus!), manifest.linkGroup(fooBar!), manifest.linkGroup(zero!)],
    [1, 1, 0],
  )
  assert.deepEqual(
    manifest.xattrs(zero!).map(({ name, value }) => [name, [...value]]),
    [
      ['security.capability', [0, 0, 0]],
      ['user.empty', []],
    ],
  )
  assert.deepEqual(manifest.xattrs(plus!), [])
  assert.deepEqual([manifest.blob(fooBar!), manifest.blob(fooD!), manifest.blobSize(1)], [1, -1, 10])
  assert.deepEqual(Buffer.from(manifest.blobDigest(1)), createHash('sha256').update('1').digest())
  assert.deepEqual([...manifest.blobMd5(1)], Array(16).fill(5))
  assert.deepEqual([...manifest.blobXxh128(0)], Array(16).fill(7))
  assert.deepEqual(manifest.userNames, new Map([[1000, 'b\xf6b']]))
  assert.deepEqual(manifest.totals, {
    entries: 10,
    files: 4,
    directories: 3,
    symlinks: 1,
    devices: 1,
    specials: 1,
    bytes: 2 ** 40,
    blobBytes: 10,
  })
})

test('manifest: child finds files and directories by name, and nothing else', () => {
  const manifest = Manifest.decode(encodeManifest(SAMPLE))
  for (let i = 1; i < manifest.count; i++)
    assert.equal(manifest.child(manifest.parent(i), manifest.name(i)), i)
  for (const name of ['', 'foo/', 'fo', 'foo.', 'zzz', '\xff', '+'])
    assert.equal(manifest.child(0, bytes(name)), -1)
  assert.equal(manifest.child(1, bytes('x')), -1, 'a file has no children')
})

test('manifest: any tree comes back in order', () => {
  const name = fc.string({
    unit: fc.constantFrom('a', 'b', '.', '-', '\xff', '0'),
    minLength: 1,
    maxLength: 3,
  })
  const node = fc.record({ parent: fc.nat(), name, isDirectory: fc.boolean() })
  fc.assert(
    fc.property(fc.array(node, { maxLength: 60 }), (nodes) => {
      const entries = [directory(0, '')]
      const directories = [0]
      const used = new Set<string>()
      for (const { parent, name, isDirectory } of nodes) {
        const at = directories[parent % directories.length]!
        if (name === '.' || name === '..' || used.has(`${at}/${name}`)) continue
        used.add(`${at}/${name}`)
        if (isDirectory) directories.push(entries.length)
        entries.push(isDirectory ? directory(at, name) : entry(at, name))
      }
      const manifest = Manifest.decode(encodeManifest(tree(entries)))
      assert.equal(manifest.count, entries.length)
      for (let d = 0; d < manifest.count; d++) {
        const keys: string[] = []
        for (let c = manifest.firstChild(d); c < manifest.firstChild(d) + manifest.childCount(d); c++) {
          assert.equal(manifest.parent(c), d)
          assert.equal(manifest.child(d, manifest.name(c)), c)
          keys.push(manifest.isDirectory(c) ? `1${manifest.name(c)}/` : `0${manifest.name(c)}`)
        }
        assert.deepEqual(
          keys,
          [...keys].sort((a, b) => compareBytes(bytes(a), bytes(b))),
        )
      }
    }),
  )
})

test('manifest: cut anywhere or flipped anywhere, it is refused', () => {
  const whole = encodeManifest(SAMPLE)
  for (let length = 0; length < whole.length; length++) {
    assert.throws(() => Manifest.decode(whole.slice(0, length)), StoreError, `cut at ${length}`)
  }
  for (let at = 0; at < whole.length; at++) {
    const damaged = whole.slice()
    damaged[at]! ^= 0x10
    assert.throws(() => Manifest.decode(damaged), StoreError, `flip at ${at}`)
  }
})

test('manifest: another version and other columns', () => {
  const reseal = (bytes: Uint8Array) => {
    bytes.set(createHash('sha256').update(bytes.subarray(0, -32)).digest(), bytes.length - 32)
    return bytes
  }
  const newer = encodeManifest(SAMPLE)
  newer[12] = 2
  assert.throws(() => Manifest.decode(reseal(newer)), StoreFormat)
  // A column of a later version: renamed in place, so that the length stays.
  const text = Buffer.from(encodeManifest(SAMPLE)).toString('latin1').replace('"mtimeNsec"', '"mtimeNew9"')
  const unknown = Manifest.decode(reseal(Buffer.from(text, 'latin1')))
  assert.equal(unknown.mtimeNsec(9), 0)
  assert.equal(unknown.mtime(9), -5)
  const outside = Buffer.from(encodeManifest(SAMPLE))
    .toString('latin1')
    .replace('"type":"f64"', '"type":"f65"')
  assert.throws(() => Manifest.decode(reseal(Buffer.from(outside, 'latin1'))), StoreCorrupt)
})

test('manifest: a file loads, and its blobs can be had alone', async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'upserv-manifest-'))
  try {
    const path = join(scratch, 'manifest')
    const sealed = encodeManifest(SAMPLE)
    writeFileSync(path, sealed)
    const manifest = await Manifest.load(path)
    assert.equal(manifest.seal, Manifest.decode(sealed).seal)
    const { digests, sizes } = await readManifestBlobs(path)
    assert.deepEqual([...sizes], [0, 10])
    assert.ok(Buffer.from(digests).equals(Buffer.concat([manifest.blobDigest(0), manifest.blobDigest(1)])))
    writeFileSync(path, sealed.subarray(0, 100))
    await assert.rejects(Manifest.load(path), StoreCorrupt)
    await assert.rejects(readManifestBlobs(path), StoreCorrupt)
  } finally {
    rmSync(scratch, { recursive: true })
  }
})
