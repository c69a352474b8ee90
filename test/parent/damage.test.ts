/** What a child makes of a link, or a parent, that is not what it should be. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { checkManifest } from '../../src/build/replica.ts'
import { ArchiveError } from '../../src/errors.ts'
import { type ByteString, utf8Bytes } from '../../src/lib/bytes.ts'
import { encodeManifest, Manifest, type TreeEntry, type TreeInput } from '../../src/store/manifest.ts'
import { buildsOnDisk, Mirror, randomTree } from '../support/mirror.ts'
import { Relay } from '../support/relay.ts'

const TENTHS = Array.from({ length: 10 }, (_, n) => n / 10)

test('cut off or damaged at every tenth: the build as it is, or an error and nothing', async () => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 20, 20_000))
  await mirror.startNginx()
  const parent = await mirror.startUpserv({ http: '127.0.0.1:0' })
  await mirror.assertServes(parent, '1')
  await using link = await Relay.to(Number(/ http:\/\/\S+:(\d+)/.exec(parent.ready)![1]))
  const data = mirror.path('child')
  const child = await mirror.startUpserv({ data, sources: [`upserv://127.0.0.1:${link.port}`] })
  await mirror.assertServes(child, '1')
  const whole = link.received
  let refused = 0
  for (const how of ['cutAfter', 'flipAfter'] as const) {
    for (const part of TENTHS) {
      await child.cli(['remove', '1'])
      // Connections are kept for the next request: what was on the way is over by now.
      link[how] = Math.floor(part * whole) + 1
      const { client, place } = mirror.client(child, '1')
      const code = await client.ended
      assert.ok(code === 0 || code === 5, `exit ${code}: ${client.output}`)
      if (code === 0) mirror.assertTree('1', place)
      else {
        refused++
        assert.match(client.output, /@ERROR: /)
      }
      assert.deepEqual(buildsOnDisk(data), code === 0 ? ['1'] : [])
      assert.deepEqual(mirror.incoming(), [])
    }
  }
  // What breaks off is asked for again: only what is damaged can be refused.
  assert.ok(refused <= TENTHS.length, `${refused} were refused`)
  await mirror.assertServes(child, '1')
})

test('what a parent says is shown and not obeyed by terminals, in one line', async () => {
  await using mirror = new Mirror()
  const evil = '\x1b]0;title\x07\x1b[2J\nupserv: forged\u009b8m\u202e'
  const lines = [
    { say: evil },
    { error: { code: 'SOURCE_UNREACHABLE', message: `no ${evil}`, hint: `try ${evil}` } },
  ]
  const parent = createServer((request, response) => {
    request.resume()
    response.end(lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
  }).listen(0, '127.0.0.1')
  await once(parent, 'listening')
  const { port } = parent.address() as AddressInfo
  const child = await mirror.startUpserv({ sources: [`upserv://127.0.0.1:${port}`] })
  try {
    const { code, stderr } = await child.cli(['fetch', '1'])
    assert.notEqual(code, 0)
    assert.match(stderr, /no \\x1b\]0;title\\x07\\x1b\[2J upserv: forged\\x9b8m\\u202e/)
    assert.match(stderr, /^[^\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]+$/)
    assert.doesNotMatch(stderr, /^upserv: forged/m)
    const { stdout } = await child.cli(['history', '--fetches'])
    assert.match(stdout, /title/)
    assert.match(stdout, /^[^\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]+$/)
  } finally {
    parent.closeAllConnections()
    parent.close()
  }
})

const ROOT: TreeEntry = {
  parent: 0,
  name: '' as ByteString,
  mode: 0o040755,
  uid: 0,
  gid: 0,
  size: 0,
  mtime: 1,
  mtimeNsec: 0,
  major: 0,
  minor: 0,
  linkTarget: '' as ByteString,
  sameAs: -1,
  xattrs: [],
  blob: -1,
}
const FILE: TreeEntry = { ...ROOT, name: utf8Bytes('file'), mode: 0o100644, size: 5, blob: 0 }
const DIRECTORY: TreeEntry = { ...ROOT, name: utf8Bytes('dir') }
const LINK: TreeEntry = {
  ...ROOT,
  name: utf8Bytes('link'),
  mode: 0o120777,
  size: 4,
  linkTarget: utf8Bytes('file'),
}

function encode(entries: readonly TreeEntry[], more: Partial<TreeInput> = {}): Uint8Array<ArrayBuffer> {
  const blobs = {
    count: 1,
    sizes: [5],
    sha256: new Uint8Array(32).fill(1),
    md5: new Uint8Array(16).fill(2),
    xxh128: new Uint8Array(16).fill(3),
  }
  return encodeManifest({ entries, blobs, userNames: new Map(), groupNames: new Map(), ...more })
}

test('a manifest that is right is taken', () => {
  const entries = [
    ROOT,
    FILE,
    DIRECTORY,
    LINK,
    { ...FILE, parent: 2 },
    { ...FILE, name: utf8Bytes('hard'), sameAs: 1 },
  ]
  const bytes = encode(entries)
  assert.equal(checkManifest(Manifest.decode(bytes), bytes).length, entries.length)
})

const name = (text: string): ByteString => utf8Bytes(text)
const WRONG: { what: string; entries: TreeEntry[]; more?: Partial<TreeInput> }[] = [
  { what: 'a name that climbs', entries: [ROOT, { ...FILE, name: name('..') }] },
  { what: 'a name with a slash', entries: [ROOT, { ...FILE, name: name('../../etc/passwd') }] },
  { what: 'a name with a NUL', entries: [ROOT, { ...FILE, name: name('a\0b') }] },
  { what: 'an empty name', entries: [ROOT, { ...FILE, name: name('') }] },
  { what: 'a name that is too long', entries: [ROOT, { ...FILE, name: name('x'.repeat(256)) }] },
  { what: 'a name twice', entries: [ROOT, FILE, FILE] },
  { what: 'a file and a directory of one name', entries: [ROOT, FILE, { ...DIRECTORY, name: FILE.name }] },
  { what: 'a file below a file', entries: [ROOT, FILE, { ...FILE, parent: 1 }] },
  { what: 'a size that is not that of its content', entries: [ROOT, { ...FILE, size: 6 }] },
  { what: 'content of a directory', entries: [ROOT, FILE, { ...DIRECTORY, blob: 0 }] },
  { what: 'content that there is not', entries: [ROOT, FILE, { ...FILE, name: name('b'), blob: 7 }] },
  { what: 'content that no file has', entries: [ROOT, LINK] },
  { what: 'no such type', entries: [ROOT, FILE, { ...DIRECTORY, mode: 0o030644 }] },
  { what: 'a symlink to nothing', entries: [ROOT, FILE, { ...LINK, linkTarget: name(''), size: 0 }] },
  { what: 'a symlink with a NUL', entries: [ROOT, FILE, { ...LINK, linkTarget: name('a\0b'), size: 3 }] },
  { what: 'a time that is none', entries: [ROOT, { ...FILE, mtime: Number.NaN }] },
  { what: 'too many nanoseconds', entries: [ROOT, { ...FILE, mtimeNsec: 4e9 }] },
  { what: 'device numbers of a file', entries: [ROOT, { ...FILE, major: 1 }] },
  {
    what: 'hard links that differ',
    entries: [ROOT, FILE, { ...FILE, name: name('hard'), sameAs: 1, uid: 7 }],
  },
  { what: 'a root that is a file', entries: [{ ...FILE, name: name('') }] },
]
for (const { what, entries, more } of WRONG)
  test(`a manifest with ${what} is refused`, () => {
    const bytes = encode(entries, more)
    assert.throws(() => checkManifest(Manifest.decode(bytes), bytes), ArchiveError)
  })

test('a manifest of which any byte is another is refused', () => {
  const bytes = encode([ROOT, FILE, DIRECTORY, LINK])
  for (let at = 0; at < bytes.length; at++) {
    const wrong = Uint8Array.from(bytes)
    wrong[at]! ^= 1
    assert.throws(() => checkManifest(Manifest.decode(wrong), wrong))
  }
})
