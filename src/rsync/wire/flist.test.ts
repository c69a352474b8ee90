import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cursor, decodeFlist, decodeIdList } from '../../../test/support/flist-decoder.ts'
import { fromHex, toHex } from '../../../test/support/hex.ts'
import { fc } from '../../../test/support/property.ts'
import { ByteWriter } from '../../lib/byte-writer.ts'
import { ascii, type ByteString } from '../../lib/bytes.ts'
import { DIRECTORY, REGULAR, SYMLINK, TYPE_MASK } from '../../lib/file-mode.ts'
import { encodeIdList, FLAG, FlistEncoder, type FlistEntry, type FlistFormat } from './flist.ts'
import { decodeVarint } from './ints.ts'

const format = (protocol: number, changes: Partial<FlistFormat> = {}): FlistFormat => ({
  protocol,
  varintFlags: protocol >= 31,
  safeEnd: protocol >= 31,
  owner: false,
  group: false,
  links: false,
  devices: false,
  specials: false,
  hardLinks: false,
  atimes: false,
  crtimes: false,
  checksumLength: 0,
  ...changes,
})

const entry = (changes: Partial<FlistEntry>): FlistEntry => ({
  name: ascii('f'),
  mode: 0o100644,
  size: 1,
  mtime: 1_700_000_000,
  mtimeNsec: 0,
  uid: 0,
  gid: 0,
  major: 0,
  minor: 0,
  linkTarget: ascii(''),
  directoryFlags: 0,
  linkGroup: 0,
  linkFirst: -1,
  checksum: undefined,
  ...changes,
})
const named = (name: string, changes: Partial<FlistEntry> = {}): FlistEntry =>
  entry({ name: name as ByteString, ...changes })
const dir = (name: string, changes: Partial<FlistEntry> = {}): FlistEntry =>
  named(name, { mode: 0o040755, size: 0, ...changes })

/** Bytes of entry after entry, written by one encoder. */
function encode(format: FlistFormat, entries: readonly FlistEntry[]): string[] {
  const encoder = new FlistEncoder(format)
  return entries.map((entry) => {
    const out = new ByteWriter()
    encoder.entry(out, entry)
    return toHex(out.view())
  })
}

function gives(name: string, format: FlistFormat, rows: readonly (readonly [FlistEntry, string])[]): void {
  test(name, () => {
    const bytes = encode(
      format,
      rows.map(([entry]) => entry),
    )
    for (const [i, [, hex]] of rows.entries()) {
      assert.equal(bytes[i], toHex(fromHex(hex)), `entry ${i}`)
    }
  })
}

// ---------------------------------------------------------------------------------------------------
// The annotated conversations of docs/rsync-protocol.md, section 12.

const HI = named('hi', { size: 6, mtimeNsec: 500_000_000 })
const ARCHIVE = { owner: true, group: true, links: true, devices: true, specials: true }

test('section 12.1: protocol 32', () => {
  const out = new ByteWriter()
  const encoder = new FlistEncoder(format(32, ARCHIVE))
  encoder.entry(out, HI)
  encoder.end(out, 0)
  const root = new Map([[0, ascii('root')]])
  for (let i = 0; i < 2; i++) encodeIdList(out, root, { protocol: 32, id0Names: true })
  const hex = `a000 02 6869 000600 6500f153 f00065cd1d a4810000 00 00 0000 0004726f6f74 0004726f6f74`
  assert.equal(toHex(out.view()), toHex(fromHex(hex)))
})

test('section 12.2: protocol 29', () => {
  const out = new ByteWriter()
  const encoder = new FlistEncoder(format(29, ARCHIVE))
  encoder.entry(out, HI)
  encoder.end(out, 0)
  for (let i = 0; i < 2; i++) encodeIdList(out, new Map(), { protocol: 29, id0Names: false })
  const hex = `01 02 6869 06000000 00f15365 a4810000 00000000 00000000 00 00000000 00000000`
  assert.equal(toHex(out.view()), toHex(fromHex(hex)))
})

// ---------------------------------------------------------------------------------------------------
// Flags, by protocol: section 6.2. Ids are off, so SAME_UID and SAME_GID (0x18) are always set.

for (const [protocol, varintFlags, first, second] of [
  [27, false, '18', '98'],
  [29, false, '18', '98'],
  [30, false, '18', '98'],
  [30, true, '18', '8098'],
  [32, true, '18', '8098'],
] as const) {
  test(`flags at ${protocol}, ${varintFlags ? 'varint' : 'bytes'}: SAME_TIME on a second entry`, () => {
    const both = [named('a', { mode: 0o100644 }), named('b', { mode: 0o100600 })]
    const [one = '', two = ''] = encode(format(protocol, { varintFlags }), both)
    assert.ok(one.startsWith(`${first}0161`), one)
    assert.ok(two.startsWith(`${second}0162`), two)
  })
}

/** With ids on, a first entry has no flag of its own: 0 would end the list. */
const IDS = { owner: true, group: true }
for (const { protocol, varintFlags, file, directory } of [
  { protocol: 27, varintFlags: false, file: '01 01', directory: '40 01000000' },
  { protocol: 28, varintFlags: false, file: '01 01', directory: '0400 01' },
  { protocol: 29, varintFlags: false, file: '01 01', directory: '0400 01' },
  { protocol: 30, varintFlags: false, file: '01 01', directory: '0400 01' },
  { protocol: 31, varintFlags: true, file: '04 01', directory: '04 01' },
  { protocol: 32, varintFlags: true, file: '04 01', directory: '04 01' },
]) {
  test(`flags are never 0: protocol ${protocol}`, () => {
    const how = format(protocol, { ...IDS, varintFlags })
    const start = (hex: string): string => `${toHex(fromHex(hex))}6e`
    assert.ok(encode(how, [named('n')])[0]!.startsWith(start(file)))
    assert.ok(encode(how, [dir('n')])[0]!.startsWith(start(directory)))
  })
}

test('flags above one byte are two from 28 on, with EXTENDED', () => {
  const how = format(30, { varintFlags: false })
  const [bytes = ''] = encode(how, [dir('d', { directoryFlags: FLAG.noContentDir })])
  assert.ok(bytes.startsWith('1c010164'), bytes)
  const both = FLAG.topDir | FLAG.noContentDir
  assert.ok(encode(how, [dir('d', { directoryFlags: both })])[0]!.startsWith('1d01'))
})

test('NO_CONTENT_DIR does not exist below 30: then neither is TOP_DIR, which alone is', () => {
  const both = FLAG.topDir | FLAG.noContentDir
  for (const protocol of [27, 28, 29]) {
    assert.ok(encode(format(protocol), [dir('d', { directoryFlags: both })])[0]!.startsWith('180164'))
    assert.ok(encode(format(protocol), [dir('d', { directoryFlags: FLAG.topDir })])[0]!.startsWith('190164'))
  }
})

test('directory flags on what is no directory are left out', () => {
  const both = FLAG.topDir | FLAG.noContentDir
  assert.ok(encode(format(32), [named('f', { directoryFlags: both })])[0]!.startsWith('180166'))
})

// ---------------------------------------------------------------------------------------------------
// Fields and the state behind them: sections 6.3 and 6.4.

const T = '00f15365'
gives('names share their beginning, at most 255 bytes of it', format(29), [
  [named('usr/bin/a'), `18 09 ${toHex(Buffer.from('usr/bin/a'))} 01000000 ${T} a4810000`],
  [named('usr/bin/abc'), 'ba 09 02 6263 01000000'],
  [named('usr/lib'), 'ba 04 03 6c6962 01000000'],
  [named('z'), '9a 01 7a 01000000'],
  [named('z'), 'ba 01 00 01000000'],
])

const LONG = 'n'.repeat(255)
gives('a suffix of 255 bytes is short, one of 256 long', format(29), [
  [named(`a${'m'.repeat(254)}`), `18 ff 61${'6d'.repeat(254)} 01000000 ${T} a4810000`],
  [named(`b${'m'.repeat(255)}`), `da 00010000 62${'6d'.repeat(255)} 01000000`],
])
gives('a prefix of more than 255 bytes is told as 255', format(32), [
  [named(`${LONG}xx`), `58 8101 ${'6e'.repeat(255)}7878 000100 6500f153 a4810000`],
  [named(`${LONG}xxy`), '80ba ff 03 787879 000100'],
])

gives('protocol 30: sizes and times', format(30, { varintFlags: false }), [
  [named('a', { size: 5_000_000_000, mtime: -1 }), '18 01 61 c100f2052a f8ffffffffffffffff a4810000'],
  [named('b', { size: 0, mtime: 2_208_988_800 }), '1a 01 62 000000 80807eaa83'],
  [named('c', { size: 0, mtime: 0 }), '1a 01 63 000000 00000000'],
])
gives('protocol 29: sizes and times', format(29), [
  [named('a', { size: 5_000_000_000, mtime: -1 }), '18 01 61 ffffffff00f2052a01000000 ffffffff a4810000'],
  [named('b', { size: 0, mtime: 4_000_000_000 }), '1a 01 62 00000000 00286bee'],
])
gives('nanoseconds from 31 on, where there are any', format(31), [
  [named('a', { mtimeNsec: 999_999_999 }), 'a018 01 61 000100 6500f153 f0ffc99a3b a4810000'],
  [named('b', { mtimeNsec: 1 }), 'a09a 01 62 000100 01'],
  [named('c'), '809a 01 63 000100'],
])
gives('no nanoseconds at 30', format(30), [
  [named('a', { mtimeNsec: 5 }), '18 01 61 000100 6500f153 a4810000'],
])

gives('owners and groups, each only where it changes', format(32, IDS), [
  [named('a', { uid: 0, gid: 100 }), '04 01 61 000100 6500f153 a4810000 00 64'],
  [named('b', { uid: 0, gid: 100 }), '809a 01 62 000100'],
  [named('c', { uid: 1000, gid: 100 }), '8092 01 63 000100 83e8'],
  [named('d', { uid: 1000, gid: 0 }), '808a 01 64 000100 00'],
])
gives('ids below 30', format(28, { owner: true }), [
  [named('a', { uid: 1000 }), `10 01 61 01000000 ${T} a4810000 e8030000`],
  [named('b', { uid: 70_000 }), '92 01 62 01000000 70110100'],
])

gives('targets of symbolic links travel with l alone', format(32, { links: true }), [
  [
    named('l', { mode: SYMLINK | 0o777, size: 5, linkTarget: ascii('../xy') }),
    '18 01 6c 000500 6500f153 ffa10000 05 2e2e2f7879',
  ],
])
gives('without l they are listed with none', format(32), [
  [
    named('l', { mode: SYMLINK | 0o777, size: 5, linkTarget: ascii('../xy') }),
    '18 01 6c 000500 6500f153 ffa10000',
  ],
])
gives('an argument to delete', format(32), [
  [named('x', { mode: 0, size: 0, mtime: 0 }), '809a 01 78 000000'],
])

gives('access times are those of modification, not for directories', format(32, { atimes: true }), [
  [dir('d'), '18 01 64 000000 6500f153 ed410000'],
  [named('a'), '8098 01 61 000100 a4810000 6500f153'],
  [named('b'), 'c0 9a40 01 62 000100'],
])
gives('at 27 the flag for equal access times has no room', format(27, { atimes: true }), [
  [named('a'), `18 01 61 01000000 ${T} a4810000 6500f153`],
  [named('b'), '9a 01 62 01000000 6500f153'],
])
gives('creation times are told by a flag', format(32, { crtimes: true }), [
  [named('a'), 'c21800 01 61 000100 6500f153 a4810000'],
])

// ---------------------------------------------------------------------------------------------------
// Devices and specials: section 6.5.

const char = (name: string, major: number, minor: number): FlistEntry =>
  named(name, { mode: 0o020600, size: 0, major, minor })
const fifo = (name: string): FlistEntry => named(name, { mode: 0o010600, size: 0 })
const DEVICES = { devices: true, specials: true }
test('a further name of a device does not tell its major number, so the next device does', () => {
  const encoded = encode(format(32, { ...DEVICES, hardLinks: true, varintFlags: true }), [
    { ...char('a', 4, 1), linkGroup: 1 },
    char('b', 200, 1),
    { ...char('c', 4, 1), linkGroup: 1, linkFirst: 0 },
    char('d', 4, 2),
    char('e', 4, 3),
  ])
  const [d, e] = encoded.slice(3).map((hex) => decodeVarint(fromHex(hex))!.value & FLAG.sameRdevMajor)
  assert.equal(d, 0)
  assert.equal(e, FLAG.sameRdevMajor)
})

gives('devices at 27: the raw number, forgotten after a file', format(27, DEVICES), [
  [char('a', 4, 64), `18 01 61 00000000 ${T} 80210000 40040000`],
  [char('b', 4, 64), '9e 01 62 00000000'],
  [char('c', 4, 300), '9a 01 63 00000000 2c041000'],
  [fifo('d'), '9c 01 64 00000000 80110000'],
  [char('e', 4, 300), '9c 01 65 00000000 80210000'],
  [named('f', { size: 0 }), '98 01 66 00000000 a4810000'],
  [char('g', 4, 300), '98 01 67 00000000 80210000 2c041000'],
])
for (const protocol of [28, 29]) {
  gives(`devices at ${protocol}: major once, minor in one byte or four`, format(protocol, DEVICES), [
    [char('a', 4, 64), `1c08 01 61 00000000 ${T} 80210000 04000000 40`],
    [char('b', 4, 255), '9e09 01 62 00000000 ff'],
    [char('c', 4, 256), '9e01 01 63 00000000 00010000'],
    [fifo('d'), '9c09 01 64 00000000 80110000 00'],
    [char('e', 4, 1), '9c09 01 65 00000000 80210000 01'],
    [char('f', 0, 1), '9e08 01 66 00000000 00000000 01'],
  ])
}
gives('devices at 30', format(30, { ...DEVICES, varintFlags: false }), [
  [char('a', 4, 64), '18 01 61 000000 6500f153 80210000 04 40'],
  [char('b', 4, 300), '9e01 01 62 000000 812c'],
  [fifo('c'), '9c01 01 63 000000 80110000 00'],
])
gives('specials have none from 31 on', format(31, DEVICES), [
  [char('a', 4, 64), '18 01 61 000000 6500f153 80210000 04 40'],
  [fifo('b'), '8098 01 62 000000 80110000'],
  [char('c', 4, 1), '8198 01 63 000000 80210000 01'],
])
for (const protocol of [27, 29, 30, 32]) {
  test(`devices without D at ${protocol}: listed without numbers`, () => {
    const [bytes = ''] = encode(format(protocol), [char('a', 4, 64)])
    assert.ok(bytes.endsWith('80210000'), bytes)
  })
}

// ---------------------------------------------------------------------------------------------------
// Hard links: section 6.6.

const LINKS = { hardLinks: true }
gives('hard links at 27: every regular file has numbers', format(27, LINKS), [
  [named('a', { linkGroup: 7 }), `18 01 61 01000000 ${T} a4810000 01000000 07000000`],
  [named('b', { linkGroup: 7, linkFirst: 0 }), '9a 01 62 01000000 01000000 07000000'],
  [named('c', { linkGroup: 9 }), '9a 01 63 01000000 01000000 09000000'],
  [fifo('d'), '98 01 64 00000000 80110000'],
])
for (const protocol of [28, 29]) {
  gives(`hard links at ${protocol}: where there are several names`, format(protocol, LINKS), [
    [named('a', { linkGroup: 7 }), `1c02 01 61 01000000 ${T} a4810000 01000000 07000000`],
    [named('b', { linkGroup: 7, linkFirst: 0 }), '9e06 01 62 01000000 07000000'],
    [named('c'), '9a 01 63 01000000'],
    [dir('d', { linkGroup: 5 }), '98 01 64 00000000 ed410000'],
  ])
}
gives('hard links from 30 on: the index of the first name', format(30, { ...LINKS, varintFlags: false }), [
  [named('a', { linkGroup: 7 }), '1c12 01 61 000100 6500f153 a4810000'],
  [named('b', { linkGroup: 7, linkFirst: 0 }), '9e02 01 62 00'],
  [named('c', { linkGroup: 7, linkFirst: 300 }), '9e02 01 63 812c'],
  [named('d'), '9a 01 64 000100'],
])
gives('without H there are no links', format(32), [
  [named('a', { linkGroup: 7 }), '18 01 61 000100 6500f153 a4810000'],
  [named('b', { linkGroup: 7, linkFirst: 0 }), '809a 01 62 000100'],
])

// ---------------------------------------------------------------------------------------------------
// Checksums, the end, ids: sections 6.7 and 6.8.

const SUM = Buffer.alloc(16, 0xcc)
gives('-c at 27: every entry has one, zeros where there is no content', format(27, { checksumLength: 16 }), [
  [named('a', { checksum: SUM }), `18 01 61 01000000 ${T} a4810000 ${'cc'.repeat(16)}`],
  [dir('d'), `98 01 64 00000000 ed410000 ${'00'.repeat(16)}`],
  [named('e'), `98 01 65 01000000 a4810000 ${'00'.repeat(16)}`],
])
gives('-c later: regular files', format(32, { checksumLength: 8 }), [
  [named('a', { checksum: SUM.subarray(8) }), `18 01 61 000100 6500f153 a4810000 ${'cc'.repeat(8)}`],
  [dir('d'), '8098 01 64 000000 ed410000'],
])

for (const { protocol, varintFlags, safeEnd, ioError, hex } of [
  { protocol: 27, varintFlags: false, safeEnd: false, ioError: 1, hex: '00' },
  { protocol: 29, varintFlags: false, safeEnd: false, ioError: 0, hex: '00' },
  { protocol: 30, varintFlags: false, safeEnd: false, ioError: 1, hex: '00' },
  { protocol: 30, varintFlags: false, safeEnd: true, ioError: 0, hex: '00' },
  { protocol: 30, varintFlags: false, safeEnd: true, ioError: 1, hex: '041001' },
  { protocol: 31, varintFlags: false, safeEnd: true, ioError: 3, hex: '041003' },
  { protocol: 30, varintFlags: true, safeEnd: false, ioError: 1, hex: '0001' },
  { protocol: 32, varintFlags: true, safeEnd: true, ioError: 0, hex: '0000' },
]) {
  const how = `protocol ${protocol}${varintFlags ? ', varints' : ''}${safeEnd ? ', safe' : ''}`
  test(`the end with io_error ${ioError}: ${how}`, () => {
    const out = new ByteWriter()
    new FlistEncoder(format(protocol, { varintFlags, safeEnd })).end(out, ioError)
    assert.equal(toHex(out.view()), hex)
  })
}

for (const { name, names, how, hex } of [
  { name: 'nobody', names: [], how: { protocol: 30, id0Names: false }, hex: '00' },
  { name: 'nobody, with id 0', names: [], how: { protocol: 32, id0Names: true }, hex: '00 00' },
  {
    name: 'root goes behind the end',
    names: [
      [0, 'root'],
      [7, 'lp'],
    ],
    how: { protocol: 32, id0Names: true },
    hex: '07 026c70 00 04726f6f74',
  },
  {
    name: 'root is not named without id 0',
    names: [
      [0, 'root'],
      [1000, 'x'],
    ],
    how: { protocol: 31, id0Names: false },
    hex: '83e8 0178 00',
  },
  {
    name: 'below 30',
    names: [[1000, 'x']],
    how: { protocol: 29, id0Names: false },
    hex: 'e8030000 0178 00000000',
  },
  {
    name: 'names that no byte can count are left out',
    names: [
      [5, 'n'.repeat(256)],
      [6, ''],
    ],
    how: { protocol: 30, id0Names: false },
    hex: '00',
  },
] as const) {
  test(`id list: ${name}`, () => {
    const out = new ByteWriter()
    encodeIdList(out, new Map(names as unknown as [number, ByteString][]), how)
    assert.equal(toHex(out.view()), toHex(fromHex(hex)))
  })
}

// ---------------------------------------------------------------------------------------------------

test('whatever is encoded in whatever format, a receiver reads back', () => {
  const mode = fc.constantFrom(
    0,
    0o100644,
    0o100755,
    0o040755,
    0o120777,
    0o020600,
    0o060660,
    0o010600,
    0o140755,
  )
  const component = fc.constantFrom('a', 'ab', 'usr', 'x'.repeat(200), '\xff', 'n'.repeat(255))
  const entries = fc.array(
    fc.record({
      path: fc.array(component, { minLength: 1, maxLength: 4 }),
      mode,
      size: fc.oneof(
        fc.nat(),
        fc.nat({ max: 2 ** 31 - 1 }).map((n) => n * 1000),
      ),
      mtime: fc.oneof(fc.constant(1_700_000_000), fc.nat()),
      mtimeNsec: fc.constantFrom(0, 0, 1, 999_999_999),
      uid: fc.constantFrom(0, 0, 1000, 2 ** 31 - 1),
      gid: fc.constantFrom(0, 0, 100),
      major: fc.constantFrom(4, 4, 8, 200),
      minor: fc.constantFrom(0, 64, 255, 256, 70_000),
      linkGroup: fc.constantFrom(0, 0, 1, 2),
      directoryFlags: fc.constantFrom(0, FLAG.topDir, FLAG.noContentDir),
    }),
    { maxLength: 30 },
  )
  const flags = fc.boolean()
  const formats = fc
    .record({
      protocol: fc.constantFrom(27, 28, 29, 30, 31, 32),
      varint: flags,
      owner: flags,
      group: flags,
      links: flags,
      devices: flags,
      specials: flags,
      hardLinks: flags,
      checksum: flags,
      atimes: flags,
    })
    .map(({ varint, checksum, ...rest }) =>
      format(rest.protocol, {
        ...rest,
        varintFlags: rest.protocol >= 30 && varint,
        checksumLength: checksum ? 16 : 0,
      }),
    )
  const property = fc.property(formats, entries, (format, rows) => {
    const encoder = new FlistEncoder(format)
    const out = new ByteWriter()
    const firstOf = new Map<string, number>()
    const written = rows.map((row, i) => {
      const type = row.mode & TYPE_MASK
      // Names of one file have one inode: what they say of it is equal.
      const group = type === DIRECTORY || type === 0 ? 0 : row.linkGroup
      const key = `${group}:${row.mode}`
      const first = group === 0 ? -1 : (firstOf.get(key) ?? -1)
      const model = first < 0 ? undefined : made[first]
      if (group !== 0 && first < 0) firstOf.set(key, i)
      const { path, ...values } = row
      const one = entry({
        ...(model ?? values),
        name: path.join('/') as ByteString,
        linkGroup: group === 0 ? (format.protocol === 27 ? 1000 + i : 0) : group * 100_000 + row.mode,
        linkFirst: first,
        linkTarget: ascii('target'),
        checksum: type === REGULAR ? Buffer.alloc(16, (model?.size ?? row.size) & 0xff) : undefined,
      })
      made[i] = one
      encoder.entry(out, one)
      return one
    })
    encoder.end(out, 0)
    const cursor = new Cursor(out.take())
    const { entries, ioError } = decodeFlist(cursor, format)
    assert.equal(cursor.left, 0)
    assert.equal(ioError, 0)
    assert.equal(entries.length, written.length)
    for (const [i, got] of entries.entries()) {
      const one = written[i]!
      const type = one.mode & TYPE_MASK
      assert.equal(got.name, one.name)
      assert.equal(got.mode, one.mode)
      assert.equal(got.size, one.size)
      assert.equal(got.mtime, one.mtime)
      assert.equal(got.mtimeNsec, format.protocol >= 31 ? one.mtimeNsec : 0)
      if (format.owner) assert.equal(got.uid, one.uid)
      if (format.group) assert.equal(got.gid, one.gid)
      if (got.rdev !== undefined && format.protocol >= 28 && (type === 0o020000 || type === 0o060000)) {
        assert.equal(got.rdev, `${one.major}:${one.minor}`)
      }
      if (type === SYMLINK && format.links) assert.equal(got.linkTarget, 'target')
      if (type === REGULAR && format.checksumLength > 0) {
        assert.equal(got.checksum, toHex(one.checksum!))
      }
      const sameFile = (j: number): boolean => one.linkGroup !== 0 && written[j]!.linkGroup === one.linkGroup
      if (format.hardLinks && got.link !== undefined) {
        for (let j = 0; j < i; j++) assert.equal(entries[j]!.link === got.link, sameFile(j), `${j} and ${i}`)
      }
    }
  })
  const made: FlistEntry[] = []
  fc.assert(property, { numRuns: 1500 })
})

test('id lists come back', () => {
  for (const how of [
    { protocol: 29, id0Names: false },
    { protocol: 30, id0Names: false },
    { protocol: 32, id0Names: true },
  ]) {
    const out = new ByteWriter()
    encodeIdList(
      out,
      new Map([
        [1000, ascii('x')],
        [0, ascii('root')],
        [70_000, ascii('long')],
      ]),
      how,
    )
    const expected = new Map([
      [1000, 'x'],
      [70_000, 'long'],
    ])
    if (how.id0Names) expected.set(0, 'root')
    assert.deepEqual(decodeIdList(new Cursor(out.take()), how), expected)
  }
})
