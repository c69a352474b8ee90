import assert from 'node:assert/strict'
import { test } from 'node:test'
import { paxRecord } from '../../test/support/tar-builder.ts'
import { ArchiveError } from '../errors.ts'
import { ascii } from '../lib/bytes.ts'
import { decodePax, MAX_XATTR_VALUE_BYTES, MAX_XATTRS, type PaxFields } from './tar-pax.ts'

const HEADER = ascii('x')

type Records = readonly (readonly [string, string | Buffer])[]

function decode(records: Records, base: PaxFields = {}): PaxFields {
  return decodePax(Buffer.concat(records.map(([key, value]) => paxRecord(key, value))), base, HEADER)
}

const xattrs = (...pairs: [string, Buffer][]) =>
  new Map(pairs.map(([name, value]) => [name, Uint8Array.from(value)]))
const BINARY = Buffer.from('01000002\0=\n12 path=x\n', 'latin1')

const CASES: readonly { name: string; records: Records; fields: object }[] = [
  { name: 'nothing', records: [], fields: {} },
  {
    name: 'every plain key',
    records: [
      ['path', 'a\nb=c'],
      ['linkpath', '\xff'],
      ['size', '8589934592'],
      ['uid', '4294967295'],
      ['gid', '3000000'],
      ['uname', 'user'],
      ['gname', 'group'],
      ['SCHILY.devmajor', '259'],
      ['SCHILY.devminor', '70000'],
    ],
    fields: {
      path: 'a\nb=c',
      linkPath: '\xff',
      size: 8589934592,
      uid: 4294967295,
      gid: 3000000,
      userName: 'user',
      groupName: 'group',
      major: 259,
      minor: 70000,
    },
  },
  {
    name: 'keys that say nothing to us',
    records: [
      ['comment', 'x'],
      ['atime', 'junk'],
      ['ctime', ''],
      ['hdrcharset', 'BINARY'],
      ['SCHILY.acl.access', 'user::rwx'],
      ['VENDOR.thing', 'y'],
    ],
    fields: {},
  },
  {
    name: 'the later record wins',
    records: [
      ['path', 'a'],
      ['path', 'b'],
    ],
    fields: { path: 'b' },
  },
  {
    name: 'attributes are bytes, length alone ends them',
    records: [['SCHILY.xattr.security.capability', BINARY]],
    fields: { xattrs: xattrs(['security.capability', BINARY]) },
  },
  {
    name: 'an attribute may be empty',
    records: [['SCHILY.xattr.user.empty', '']],
    fields: { xattrs: xattrs(['user.empty', Buffer.alloc(0)]) },
  },
  {
    name: 'names of attributes as GNU tar encodes them',
    records: [['SCHILY.xattr.user.a%3Db%253D%41', 'v']],
    fields: { xattrs: xattrs(['user.a=b%3D%41', Buffer.from('v')]) },
  },
  {
    name: 'attributes as libarchive writes them',
    records: [['LIBARCHIVE.xattr.user.a%3Db%20c', BINARY.toString('base64').replace(/=+$/, '')]],
    fields: { xattrs: xattrs(['user.a=b c', BINARY]) },
  },
  {
    name: 'sparse 0.0',
    records: [
      ['GNU.sparse.size', '100'],
      ['GNU.sparse.numblocks', '2'],
      ['GNU.sparse.offset', '0'],
      ['GNU.sparse.numbytes', '5'],
      ['GNU.sparse.offset', '50'],
      ['GNU.sparse.numbytes', '6'],
    ],
    fields: { sparse: { mapInData: false, realSize: 100, runs: [0, 5, 50, 6] } },
  },
  {
    name: 'sparse 0.1',
    records: [
      ['GNU.sparse.size', '100'],
      ['GNU.sparse.name', 'real'],
      ['GNU.sparse.map', '0,5,50,6'],
    ],
    fields: { sparse: { mapInData: false, name: 'real', realSize: 100, runs: [0, 5, 50, 6] } },
  },
  {
    name: 'sparse 1.0',
    records: [
      ['GNU.sparse.major', '1'],
      ['GNU.sparse.minor', '0'],
      ['GNU.sparse.name', 'real'],
      ['GNU.sparse.realsize', '100'],
    ],
    fields: { sparse: { mapInData: true, name: 'real', realSize: 100, runs: [] } },
  },
]

for (const { name, records, fields } of CASES) {
  test(`pax: ${name}`, () => {
    assert.deepEqual(decode(records), fields)
    const data = Buffer.concat(records.map(([key, value]) => paxRecord(key, value)))
    const ends = new Set([0])
    for (let at = 0; at < data.length; ends.add(at)) at += Number.parseInt(data.toString('latin1', at), 10)
    for (let cut = 0; cut < data.length; cut++) {
      // Between two records nothing shows that there was more; the header's size is what says so.
      if (ends.has(cut)) continue
      assert.throws(() => decodePax(data.subarray(0, cut), {}, HEADER), ArchiveError, `cut at ${cut}`)
    }
  })
}

const TIMES: readonly [string, number, number][] = [
  ['0', 0, 0],
  ['1700000000', 1700000000, 0],
  ['1700000000.', 1700000000, 0],
  ['1700000000.5', 1700000000, 500_000_000],
  ['1700000000.000000001', 1700000000, 1],
  ['1700000000.9999999999', 1700000000, 999_999_999],
  ['-1', -1, 0],
  ['-0', 0, 0],
  ['-0.5', -1, 500_000_000],
  ['-1.25', -2, 750_000_000],
  ['-1.0000000001', -2, 999_999_999],
  ['-1.0000000000', -1, 0],
  ['8589934592.1', 8589934592, 100_000_000],
]

for (const [text, seconds, nanoseconds] of TIMES) {
  test(`pax: mtime ${text}`, () => {
    assert.deepEqual(decode([['mtime', text]]), { mtime: { seconds, nanoseconds } })
  })
}

const BAD: readonly { name: string; records: Records; message: RegExp }[] = [
  {
    name: 'negative size',
    records: [['size', '-1']],
    message: /the pax header "x": the record "size" is "-1"/,
  },
  { name: 'size of 2^53', records: [['size', '9007199254740992']], message: /not a number up to/ },
  { name: 'hex', records: [['size', '0x10']], message: /not a number/ },
  { name: 'uid of 2^32', records: [['uid', '4294967296']], message: /"uid" is "4294967296"/ },
  { name: 'mtime of words', records: [['mtime', 'today']], message: /not a time/ },
  { name: 'mtime of too many digits', records: [['mtime', '1'.repeat(16)]], message: /not a time/ },
  { name: 'nameless attribute', records: [['SCHILY.xattr.', 'x']], message: /not a name/ },
  { name: 'long attribute name', records: [[`SCHILY.xattr.${'n'.repeat(256)}`, 'x']], message: /not a name/ },
  {
    name: 'large attribute',
    records: [['SCHILY.xattr.user.x', Buffer.alloc(MAX_XATTR_VALUE_BYTES + 1)]],
    message: /has 65537 bytes/,
  },
  {
    name: 'many attributes',
    records: Array.from({ length: MAX_XATTRS + 1 }, (_, i) => [`SCHILY.xattr.user.${i}`, 'x'] as const),
    message: /1025 extended attributes/,
  },
  {
    name: 'large attributes in all',
    records: Array.from({ length: 17 }, (_, i) => [`SCHILY.xattr.user.${i}`, Buffer.alloc(65_536)] as const),
    message: /17 extended attributes of \d+ bytes/,
  },
  { name: 'not base64', records: [['LIBARCHIVE.xattr.user.x', '?']], message: /not base64/ },
  { name: 'sparse 2.0', records: [['GNU.sparse.major', '2']], message: /a sparse format we do not know/ },
  { name: 'odd sparse map', records: [['GNU.sparse.map', '1,2,3']], message: /odd number/ },
  { name: 'negative in a sparse map', records: [['GNU.sparse.map', '1,-2']], message: /not a number/ },
  { name: 'numbytes alone', records: [['GNU.sparse.numbytes', '1']], message: /does not follow an offset/ },
]

for (const { name, records, message } of BAD) {
  test(`pax refused: ${name}`, () => {
    const isRefusal = (error: unknown) => error instanceof ArchiveError && message.test(error.message)
    assert.throws(() => decode(records), isRefusal)
  })
}

for (const raw of [
  'x',
  '5',
  '5 ',
  '6 a=bc\n',
  '0 a=b\n',
  '6 abc\n',
  '99999999999999999999 a=b\n',
  ' 6 a=b\n',
]) {
  test(`pax refused: the bytes ${JSON.stringify(raw)}`, () => {
    assert.throws(() => decodePax(Buffer.from(raw), {}, HEADER), ArchiveError)
  })
}

test('pax: a header on top of another leaves that as it is', () => {
  const base = decode([
    ['path', 'global'],
    ['uname', 'u'],
    ['SCHILY.xattr.user.a', '1'],
    ['GNU.sparse.map', '0,1'],
  ])
  const before = structuredClone(base)
  const fields = decode(
    [
      ['path', ''],
      ['SCHILY.xattr.user.b', '2'],
      ['GNU.sparse.offset', '5'],
    ],
    base,
  )
  assert.equal(fields.path, undefined)
  assert.equal(fields.userName, 'u')
  assert.deepEqual([...fields.xattrs!.keys()], ['user.a', 'user.b'])
  assert.deepEqual(base, before)
})

test('pax: attributes do not keep the bytes that were lent', () => {
  const data = paxRecord('SCHILY.xattr.user.x', 'value')
  const fields = decodePax(data, {}, HEADER)
  data.fill(0)
  assert.deepEqual([...fields.xattrs!.values()].map(String), [String(Uint8Array.from(Buffer.from('value')))])
})
