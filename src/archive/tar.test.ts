import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  base256,
  END_MARKER,
  GNU_MAGIC,
  paxMember,
  type RecordedMember,
  RecordingSink,
  tarArchive,
  tarHeader,
  tarMember,
} from '../../test/support/tar-builder.ts'
import { ArchiveError } from '../errors.ts'
import {
  HOLE_BURST_BYTES,
  MAX_LONG_NAME_BYTES,
  MAX_METADATA_BYTES,
  MAX_PAX_BYTES,
  MAX_SKIPPED_BYTES,
  MAX_TRAILER_BYTES,
  TarReader,
} from './tar.ts'

function read(archive: Uint8Array, chunkBytes = archive.length || 1): RecordedMember[] {
  const sink = new RecordingSink()
  const reader = new TarReader(sink)
  for (let at = 0; at < archive.length; at += chunkBytes) reader.write(archive.subarray(at, at + chunkBytes))
  reader.end()
  return sink.result()
}

const FILE: RecordedMember = {
  path: 'file',
  type: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  userName: undefined,
  groupName: undefined,
  size: 0,
  mtime: 0,
  mtimeNsec: 0,
  linkTarget: '',
  major: 0,
  minor: 0,
  xattrs: undefined,
  content: Buffer.alloc(0),
} as unknown as RecordedMember

const file = (content: string, more: object = {}) => ({
  ...FILE,
  size: content.length,
  content: Buffer.from(content, 'latin1'),
  ...more,
})

/** A type S header: four runs in the block, and more in extension blocks. */
function oldSparse(runs: number[], realSize: number, data: string): Buffer {
  const slots = (part: number[], length: number) =>
    Buffer.concat([
      ...part.map((n) => Buffer.from(`${n.toString(8).padStart(11, '0')}\0`)),
      Buffer.alloc((length - part.length) * 12),
    ])
  const blocks = [
    Buffer.concat([
      slots(runs.slice(0, 8), 8),
      Buffer.from([runs.length > 8 ? 1 : 0]),
      Buffer.from(`${realSize.toString(8).padStart(11, '0')}\0`),
    ]),
  ]
  for (let at = 8; at < runs.length; at += 42) {
    blocks.push(
      Buffer.concat([
        slots(runs.slice(at, at + 42), 42),
        Buffer.from([runs.length > at + 42 ? 1 : 0]),
        Buffer.alloc(7),
      ]),
    )
  }
  const [first, ...extensions] = blocks
  return Buffer.concat([
    tarHeader({ type: 'S', magic: GNU_MAGIC, size: data.length, patch: { at: 386, bytes: first! } }),
    ...extensions,
    Buffer.from(data),
    Buffer.alloc((512 - (data.length % 512)) % 512),
  ])
}

function sparseInData(runs: number[], realSize: number, data: string): Buffer {
  const map = Buffer.from(`${[runs.length / 2, ...runs].join('\n')}\n`)
  const head = Buffer.concat([map, Buffer.alloc((512 - (map.length % 512)) % 512)])
  return Buffer.concat([
    paxMember([
      ['GNU.sparse.major', '1'],
      ['GNU.sparse.minor', '0'],
      ['GNU.sparse.name', 'real'],
      ['GNU.sparse.realsize', String(realSize)],
    ]),
    tarMember({ name: 'GNUSparseFile.1/real' }, Buffer.concat([head, Buffer.from(data)])),
  ])
}

/** `size` zeros with one letter at each second kilobyte. */
function holey(runCount: number): { runs: number[]; content: string; data: string } {
  const runs: number[] = []
  let content = ''
  for (let i = 0; i < runCount; i++) {
    runs.push(content.length + 1024, 3)
    content += `${'\0'.repeat(1024)}abc`
  }
  return { runs, content, data: 'abc'.repeat(runCount) }
}

const MANY = holey(60)
const LONG_NAME = `${'d'.repeat(200)}/${'f'.repeat(255)}`

const CASES: readonly { name: string; members: readonly Buffer[]; found: readonly object[] }[] = [
  { name: 'a file', members: [tarMember({}, 'hello')], found: [file('hello')] },
  { name: 'an empty file', members: [tarMember({})], found: [file('')] },
  {
    name: 'a file of exactly one block',
    members: [tarMember({}, 'x'.repeat(512))],
    found: [file('x'.repeat(512))],
  },
  {
    name: 'the root',
    members: [tarMember({ name: './', type: '5' })],
    found: [{ ...FILE, path: '', type: 'directory' }],
  },
  {
    name: 'every plain type, with owners',
    members: [
      tarMember({ name: 'd/', type: '5', mode: 0o1777, userName: 'root', groupName: 'wheel' }),
      tarMember({ name: './d/f', type: '7', uid: 5, gid: 6, mtime: 7 }, 'x'),
      tarMember({ name: 'd/l', type: '1', linkName: './d/f' }),
      tarMember({ name: 'd/s', type: '2', linkName: '/../x//y' }),
      tarMember({ name: 'd/c', type: '3', major: 1, minor: 3 }),
      tarMember({ name: 'd/b', type: '4', major: 8, minor: 1 }),
      tarMember({ name: 'd/p', type: '6', major: 9 }),
    ],
    found: [
      { ...FILE, path: 'd', type: 'directory', mode: 0o1777, userName: 'root', groupName: 'wheel' },
      file('x', { path: 'd/f', uid: 5, gid: 6, mtime: 7 }),
      { ...FILE, path: 'd/l', type: 'hardlink', linkTarget: 'd/f' },
      { ...FILE, path: 'd/s', type: 'symlink', linkTarget: '/../x//y' },
      { ...FILE, path: 'd/c', type: 'char-device', major: 1, minor: 3 },
      { ...FILE, path: 'd/b', type: 'block-device', major: 8, minor: 1 },
      { ...FILE, path: 'd/p', type: 'fifo' },
    ],
  },
  {
    name: 'v7: NUL as type, a slash for directories',
    members: [
      tarMember({ name: 'd/', type: '\0', magic: '' }),
      tarMember({ name: 'd/f', type: '\0', magic: '' }, 'x'),
    ],
    found: [{ ...FILE, path: 'd', type: 'directory' }, file('x', { path: 'd/f' })],
  },
  {
    name: 'sizes of members without content count for nothing',
    members: [
      tarHeader({ name: 'd', type: '5', size: 1000 }),
      tarHeader({ name: 's', type: '2', linkName: 'x', size: 1000 }),
      tarHeader({ name: 'c', type: '3', size: 1000, major: 1, minor: 3 }),
      tarHeader({ name: 'l', type: '1', linkName: 'f', size: 1000 }),
      tarHeader({ name: 'm', type: '1', linkName: 'f', size: 1000, magic: GNU_MAGIC }),
    ],
    found: [
      { ...FILE, path: 'd', type: 'directory' },
      { ...FILE, path: 's', type: 'symlink', linkTarget: 'x' },
      { ...FILE, path: 'c', type: 'char-device', major: 1, minor: 3 },
      { ...FILE, path: 'l', type: 'hardlink', linkTarget: 'f' },
      { ...FILE, path: 'm', type: 'hardlink', linkTarget: 'f' },
    ],
  },
  {
    name: 'a hard link in a pax archive has its content again',
    members: [
      paxMember([['mtime', '1.5']]),
      tarMember({}, 'hello'),
      tarMember({ name: 'l', type: '1', linkName: 'file' }, 'hello'),
    ],
    found: [
      file('hello', { mtime: 1, mtimeNsec: 500_000_000 }),
      { ...FILE, path: 'l', type: 'hardlink', linkTarget: 'file' },
    ],
  },
  {
    name: 'GNU long names, in either order',
    members: [
      tarMember({ name: '././@LongLink', type: 'K', magic: GNU_MAGIC }, `${'t'.repeat(3000)}\0`),
      tarMember({ name: '././@LongLink', type: 'L', magic: GNU_MAGIC }, `${LONG_NAME}\0`),
      tarMember({ name: 'short', type: '2', linkName: 'short', magic: GNU_MAGIC }),
      tarMember({ name: 'next', magic: GNU_MAGIC }, 'x'),
    ],
    found: [
      { ...FILE, path: LONG_NAME, type: 'symlink', linkTarget: 't'.repeat(3000) },
      file('x', { path: 'next' }),
    ],
  },
  {
    name: 'pax replaces every field, for one member',
    members: [
      paxMember([
        ['path', LONG_NAME],
        ['size', '5'],
        ['uid', '3000000000'],
        ['gid', '70000'],
        ['uname', 'user'],
        ['gname', 'group'],
        ['mtime', '-1.25'],
        ['SCHILY.xattr.user.x', 'a\0\n=b'],
      ]),
      tarMember({ size: 0, userName: 'old' }).subarray(0, 512),
      Buffer.concat([Buffer.from('hello'), Buffer.alloc(507)]),
      tarMember({}, 'x'),
    ],
    found: [
      file('hello', {
        path: LONG_NAME,
        uid: 3000000000,
        gid: 70000,
        userName: 'user',
        groupName: 'group',
        mtime: -2,
        mtimeNsec: 750_000_000,
        xattrs: new Map([['user.x', Uint8Array.from(Buffer.from('a\0\n=b'))]]),
      }),
      file('x'),
    ],
  },
  {
    name: 'pax device numbers and link target',
    members: [
      paxMember([
        ['SCHILY.devmajor', '259'],
        ['SCHILY.devminor', '3000000'],
      ]),
      tarMember({ name: 'b', type: '4', major: 0, minor: 0 }),
      paxMember([['linkpath', 'd/e'.repeat(50)]]),
      tarMember({ name: 'l', type: '1', linkName: 'cut' }),
    ],
    found: [
      { ...FILE, path: 'b', type: 'block-device', major: 259, minor: 3000000 },
      { ...FILE, path: 'l', type: 'hardlink', linkTarget: 'd/e'.repeat(50) },
    ],
  },
  {
    name: 'global pax holds for all that follow, and may be taken back',
    members: [
      paxMember(
        [
          ['comment', '0123abc'],
          ['uname', 'all'],
          ['mtime', '5'],
        ],
        'g',
      ),
      tarMember({}, 'x'),
      paxMember([['uname', 'one']]),
      tarMember({}, 'y'),
      paxMember([['uname', '']]),
      tarMember({ userName: 'own' }, 'z'),
      paxMember([['mtime', '6']], 'g'),
      tarMember({}),
    ],
    found: [
      file('x', { userName: 'all', mtime: 5 }),
      file('y', { userName: 'one', mtime: 5 }),
      file('z', { userName: 'own', mtime: 5 }),
      file('', { userName: 'all', mtime: 6 }),
    ],
  },
  {
    name: 'a long name beats a global path, a pax path beats both',
    members: [
      paxMember([['path', 'global']], 'g'),
      tarMember({ type: 'L', magic: GNU_MAGIC }, 'long\0'),
      tarMember({ magic: GNU_MAGIC }),
      tarMember({ type: 'L', magic: GNU_MAGIC }, 'long\0'),
      paxMember([['path', 'own']]),
      tarMember({ magic: GNU_MAGIC }),
    ],
    found: [file('', { path: 'long' }), file('', { path: 'own' })],
  },
  {
    name: 'a volume label is no member',
    members: [tarMember({ name: 'label', type: 'V', magic: GNU_MAGIC }), tarMember({}, 'x')],
    found: [file('x')],
  },
  {
    name: 'old GNU sparse',
    members: [oldSparse([512, 3, 1024, 2], 2000, 'abcde'), tarMember({ name: 'next' }, 'x')],
    found: [
      file(`${'\0'.repeat(512)}abc${'\0'.repeat(509)}de${'\0'.repeat(974)}`),
      file('x', { path: 'next' }),
    ],
  },
  {
    name: 'old GNU sparse with extension blocks',
    members: [
      oldSparse([...MANY.runs, MANY.content.length, 0], MANY.content.length, MANY.data),
      tarMember({ name: 'next' }),
    ],
    found: [file(MANY.content), file('', { path: 'next' })],
  },
  {
    name: 'a file that is one hole',
    members: [oldSparse([700, 0], 700, ''), oldSparse([], 0, '')],
    found: [file('\0'.repeat(700)), file('')],
  },
  {
    name: 'pax sparse 0.0',
    members: [
      paxMember([
        ['GNU.sparse.size', '20'],
        ['GNU.sparse.numblocks', '2'],
        ['GNU.sparse.offset', '0'],
        ['GNU.sparse.numbytes', '2'],
        ['GNU.sparse.offset', '10'],
        ['GNU.sparse.numbytes', '3'],
      ]),
      tarMember({}, 'abcde'),
    ],
    found: [file(`ab${'\0'.repeat(8)}cde${'\0'.repeat(7)}`)],
  },
  {
    name: 'pax sparse 0.1',
    members: [
      paxMember([
        ['GNU.sparse.size', '20'],
        ['GNU.sparse.name', 'real'],
        ['GNU.sparse.map', '0,2,10,3'],
      ]),
      tarMember({ name: 'GNUSparseFile.1/real' }, 'abcde'),
    ],
    found: [file(`ab${'\0'.repeat(8)}cde${'\0'.repeat(7)}`, { path: 'real' })],
  },
  {
    name: 'pax sparse 1.0, its map over several blocks',
    members: [sparseInData(MANY.runs, MANY.content.length + 9, MANY.data), tarMember({ name: 'next' })],
    found: [file(`${MANY.content}${'\0'.repeat(9)}`, { path: 'real' }), file('', { path: 'next' })],
  },
]

for (const { name, members, found } of CASES) {
  test(`tar: ${name}`, () => {
    const archive = tarArchive(...members)
    assert.deepEqual(read(archive), found)
    for (const size of [1, 511, 513]) assert.deepEqual(read(archive, size), found, `in chunks of ${size}`)

    // Every prefix that does not reach into the end marker is incomplete, and nothing but an ArchiveError.
    const complete = archive.length - END_MARKER.length
    for (let cut = 0; cut < complete + 512; cut++) {
      assert.throws(() => read(archive.subarray(0, cut)), ArchiveError, `cut at ${cut}`)
    }
    assert.deepEqual(read(archive.subarray(0, complete + 512)), found, 'one zero block is enough')
    for (let cut = complete + 513; cut < archive.length; cut++) {
      assert.throws(() => read(archive.subarray(0, cut)), /in the middle of its end-of-archive marker/)
    }
  })
}

const HEADER_BLOCK = tarHeader({})
const BAD: readonly { name: string; archive: Buffer; message: RegExp }[] = [
  { name: 'no bytes', archive: Buffer.alloc(0), message: /empty: it has no bytes/ },
  { name: 'no entries', archive: Buffer.alloc(10240), message: /empty: it has no entries/ },
  {
    name: 'wrong checksum',
    archive: Buffer.concat([tarMember({}, 'x'), Buffer.from(HEADER_BLOCK).fill('y', 0, 1)]),
    message: /tar header at byte 1024, behind "file" has a wrong checksum/,
  },
  { name: 'text', archive: Buffer.from('<html>'.repeat(200)), message: /at byte 0 has a wrong checksum/ },
  { name: 'absolute path', archive: tarArchive(tarMember({ name: '/etc/x' })), message: /"\/etc\/x"/ },
  {
    name: 'path with ..',
    archive: tarArchive(tarMember({ name: 'a/../../x' })),
    message: /"a\/\.\.\/\.\.\/x"/,
  },
  {
    name: 'path with NUL',
    archive: tarArchive(paxMember([['path', 'a\0b']]), tarMember({})),
    message: /NUL/,
  },
  {
    name: 'long name with NUL',
    archive: tarArchive(tarMember({ type: 'L', magic: GNU_MAGIC }, 'a\0b\0'), tarMember({})),
    message: /"a\\x00b", which holds a NUL/,
  },
  { name: 'no name', archive: tarArchive(tarMember({ name: '' })), message: /which is empty/ },
  {
    name: 'the root as a file',
    archive: tarArchive(tarMember({ name: '.' })),
    message: /the root .* is a file/,
  },
  {
    name: 'hard link out of the tree',
    archive: tarArchive(tarMember({ type: '1', linkName: '../etc/shadow' })),
    message: /the hard link "file" points at "\.\.\/etc\/shadow"/,
  },
  { name: 'hard link to nothing', archive: tarArchive(tarMember({ type: '1' })), message: /is empty/ },
  {
    name: 'hard link to the root',
    archive: tarArchive(tarMember({ type: '1', linkName: './' })),
    message: /root/,
  },
  {
    name: 'symlink to nothing',
    archive: tarArchive(tarMember({ type: '2' })),
    message: /"file" has no target/,
  },
  {
    name: 'long symlink target',
    archive: tarArchive(paxMember([['linkpath', 'x'.repeat(4096)]]), tarMember({ type: '2' })),
    message: /target of 4096 bytes/,
  },
  {
    name: 'a directory by its name, with content',
    archive: tarArchive(tarMember({ name: 'd/' }, 'x')),
    message: /"d" is named like a directory but has 1 bytes/,
  },
  {
    name: 'unknown type',
    archive: tarArchive(tarMember({ type: 'Q' })),
    message: /"file" has the unknown type "Q"/,
  },
  { name: "star's type S", archive: tarArchive(tarMember({ type: 'S' })), message: /unknown type "S"/ },
  { name: 'another volume', archive: tarArchive(tarMember({ type: 'M' })), message: /another volume/ },
  {
    name: 'an extended header that describes nothing',
    archive: tarArchive(tarMember({}), paxMember([['path', 'x']])),
    message: /extended header that describes no entry/,
  },
  {
    name: 'large pax header',
    archive: tarArchive(tarHeader({ name: 'px', type: 'x', size: MAX_PAX_BYTES + 1 })),
    message: /extended header "px" has 4194305 bytes/,
  },
  {
    name: 'large long name',
    archive: tarArchive(tarHeader({ type: 'L', magic: GNU_MAGIC, size: MAX_LONG_NAME_BYTES + 1 })),
    message: /has 65537 bytes/,
  },
  {
    name: 'headers without end',
    archive: Buffer.concat(Array(MAX_METADATA_BYTES / 512 + 1).fill(tarHeader({ type: 'g' }))),
    message: /bytes of headers without an entry/,
  },
  {
    name: 'volume labels without end',
    archive: Buffer.concat(Array(MAX_METADATA_BYTES / 512 + 1).fill(tarHeader({ type: 'V' }))),
    message: /bytes of headers without an entry/,
  },
  {
    name: 'a hard link with too much content to skip',
    archive: tarArchive(
      paxMember([['size', String(MAX_SKIPPED_BYTES + 1)]]),
      tarMember({ type: '1', linkName: 'x' }),
    ),
    message: /hard links up to "file" repeat more than/,
  },
  {
    name: 'a sparse map for all members',
    archive: tarArchive(paxMember([['GNU.sparse.map', '0,1']], 'g')),
    message: /has a sparse map for all members/,
  },
  {
    name: 'no real size',
    archive: tarArchive(paxMember([['GNU.sparse.map', '0,1']]), tarMember({}, 'x')),
    message: /"file" does not say its real size/,
  },
  {
    name: 'overlapping runs',
    archive: tarArchive(oldSparse([10, 5, 12, 5], 99, 'x'.repeat(10))),
    message: /overlaps/,
  },
  {
    name: 'a run behind the end',
    archive: tarArchive(oldSparse([10, 5], 14, 'xxxxx')),
    message: /behind the file's end/,
  },
  {
    name: 'a map of too little',
    archive: tarArchive(oldSparse([10, 5], 99, 'xxxx')),
    message: /4 are stored/,
  },
  {
    name: 'a map of too much',
    archive: tarArchive(oldSparse([10, 5], 99, 'xxxxxx')),
    message: /6 are stored/,
  },
  {
    name: 'negative run',
    archive: tarArchive(
      tarHeader({
        type: 'S',
        magic: GNU_MAGIC,
        patch: { at: 386, bytes: Buffer.concat([base256(-5n, 12), Buffer.from('00000000001\0')]) },
      }),
    ),
    message: /a run is not two numbers/,
  },
  {
    name: 'a map that never ends',
    archive: tarArchive(sparseInData([0, 1], 9, '').fill('1', 1536, 2048)),
    message: /2\^53/,
  },
  {
    name: 'a map of words',
    archive: tarArchive(sparseInData([0, 1], 9, 'x').fill('z', 1536, 1537)),
    message: /not a number/,
  },
  {
    name: 'a map of more runs than there may be',
    archive: tarArchive(sparseInData([0, 1], 9, 'x').fill('9999999\n', 1536, 1544)),
    message: /more than 1000000 runs/,
  },
  {
    name: 'a map longer than its data',
    archive: tarArchive(
      paxMember([
        ['GNU.sparse.major', '1'],
        ['GNU.sparse.realsize', '9'],
      ]),
      tarMember({}, '1\n0'),
    ),
    message: /longer than its data/,
  },
  {
    name: 'a lone zero block in the middle',
    archive: Buffer.concat([tarMember({}), Buffer.alloc(512), tarMember({})]),
    message: /a lone zero block stands in the archive at byte 512/,
  },
  {
    name: 'two archives joined',
    archive: Buffer.concat([tarArchive(tarMember({})), tarArchive(tarMember({}))]),
    message: /data follows behind the end/,
  },
  {
    name: 'zeros without end',
    archive: Buffer.concat([tarArchive(tarMember({})), Buffer.alloc(MAX_TRAILER_BYTES + 1)]),
    message: /of zeros follow the end/,
  },
]

for (const { name, archive, message } of BAD) {
  test(`tar refused: ${name}`, () => {
    const isRefusal = (error: unknown) => error instanceof ArchiveError && message.test(error.message)
    assert.throws(() => read(archive), isRefusal)
    if (archive.length < 100_000) assert.throws(() => read(archive, 7), isRefusal)
  })
}

test('tar: zeros behind the end marker are the padding of the last record', () => {
  const archive = Buffer.concat([tarArchive(tarMember({}, 'x')), Buffer.alloc(MAX_TRAILER_BYTES)])
  assert.equal(read(archive, 65_536).length, 1)
})

test('tar: the end marker is seen when both its blocks were', () => {
  const reader = new TarReader(new RecordingSink())
  reader.write(tarMember({}, 'x'))
  assert.equal(reader.ended, false)
  reader.write(Buffer.alloc(512))
  assert.equal(reader.ended, false)
  reader.write(Buffer.alloc(512))
  assert.equal(reader.ended, true)
  reader.end()
})

test('tar: where a truncated archive breaks off is told', () => {
  const archive = tarArchive(paxMember([['path', 'dir/file']]), tarMember({}, 'x'.repeat(600)))
  const whereCut = (cut: number) => {
    try {
      read(archive.subarray(0, cut))
    } catch (error) {
      return (error as Error).message
    }
    return ''
  }
  assert.equal(whereCut(100), 'the archive ends in the middle of the header block at byte 0')
  assert.equal(whereCut(520), 'the archive ends in the middle of the extended header "PaxHeaders/file"')
  assert.equal(whereCut(1100), 'the archive ends in the middle of the header block at byte 1024')
  assert.equal(whereCut(1600), 'the archive ends in the middle of "dir/file"')
  assert.equal(whereCut(2200), 'the archive ends in the middle of "dir/file"')
  assert.equal(whereCut(2560), 'the archive ends without an end-of-archive marker')
})

test('tar: a sink hears the real size of a sparse file before any zero, and may refuse it', () => {
  const archive = tarArchive(oldSparse([0, 1], 8e9, 'x'))
  const seen: string[] = []
  const reader = new TarReader({
    entry: (entry) => {
      seen.push(`entry of ${entry.size}`)
      throw new RangeError('too large')
    },
    data: (chunk) => seen.push(`data of ${chunk.length}`),
  })
  assert.throws(() => reader.write(archive), RangeError)
  assert.deepEqual(seen, ['entry of 8000000000'])
})

test('tar: feed pauses in long holes', () => {
  const archive = tarArchive(oldSparse([3 * HOLE_BURST_BYTES, 1], 3 * HOLE_BURST_BYTES + 1, 'x'))
  let bytes = 0
  const reader = new TarReader({ entry: () => {}, data: (chunk) => (bytes += chunk.length) })
  let pauses = 0
  for (const _ of reader.feed(archive)) assert.equal(bytes, ++pauses * HOLE_BURST_BYTES)
  assert.equal(pauses, 2)
  assert.equal(bytes, 3 * HOLE_BURST_BYTES + 1)
  reader.end()
})

test('tar: file data is handed on without a copy', () => {
  const archive = tarArchive(tarMember({}, 'hello'))
  const chunks: Uint8Array[] = []
  new TarReader({ entry: () => {}, data: (chunk) => chunks.push(chunk) }).write(archive)
  assert.equal(chunks.length, 1)
  assert.equal(chunks[0]!.buffer, archive.buffer)
  assert.equal(chunks[0]!.byteOffset, archive.byteOffset + 512)
})

test('tar: what the sink throws comes out as it is', () => {
  const failure = new Error('the sink is full')
  const reader = new TarReader({
    entry: () => {},
    data: () => {
      throw failure
    },
  })
  assert.throws(
    () => reader.write(tarArchive(tarMember({}, 'x'))),
    (error) => error === failure,
  )
})
