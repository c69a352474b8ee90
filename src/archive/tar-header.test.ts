import assert from 'node:assert/strict'
import { test } from 'node:test'
import { base256, GNU_MAGIC, type HeaderFields, tarHeader } from '../../test/support/tar-builder.ts'
import { ArchiveError } from '../errors.ts'
import { checksumMatches, decodeNumber, decodeTarHeader, isZeroBlock, type TarHeader } from './tar-header.ts'

const PLAIN: TarHeader = {
  format: 'ustar',
  name: 'file',
  type: '0',
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 0,
  mtime: 0,
  linkName: '',
  userName: '',
  groupName: '',
  major: 0,
  minor: 0,
} as TarHeader

const HEADERS: readonly { name: string; fields: HeaderFields; header: object }[] = [
  { name: 'plain ustar', fields: {}, header: {} },
  { name: 'v7', fields: { magic: '', type: '\0' }, header: { format: 'v7' } },
  { name: 'v7 has no owner names', fields: { magic: '', userName: 'junk' }, header: { format: 'v7' } },
  { name: 'GNU', fields: { magic: GNU_MAGIC, userName: 'u' }, header: { format: 'gnu', userName: 'u' } },
  {
    name: 'ustar prefix',
    fields: { name: 'b'.repeat(100), prefix: 'p'.repeat(155) },
    header: { name: `${'p'.repeat(155)}/${'b'.repeat(100)}` },
  },
  {
    name: 'GNU keeps times where the prefix would be',
    fields: { magic: GNU_MAGIC, prefix: '14740421035' },
    header: { format: 'gnu' },
  },
  {
    name: 'fields filled to the last byte',
    fields: {
      name: 'n'.repeat(100),
      userName: 'u'.repeat(32),
      groupName: 'g'.repeat(32),
      size: '777777777777',
    },
    header: { name: 'n'.repeat(100), userName: 'u'.repeat(32), groupName: 'g'.repeat(32), size: 8 ** 12 - 1 },
  },
  { name: 'names are bytes', fields: { name: 'f\xff\n' }, header: { name: 'f\xff\n' } },
  { name: 'file type bits in the mode', fields: { mode: 0o104755 }, header: { mode: 0o4755 } },
  { name: 'padding by spaces', fields: { mode: '  644 \0', uid: '     7 ' }, header: { uid: 7 } },
  { name: 'blank numbers', fields: { mode: '', uid: '        ', mtime: '' }, header: { mode: 0 } },
  { name: 'junk behind the end of a number', fields: { uid: '12\0junk' }, header: { uid: 0o12 } },
  { name: 'largest uid', fields: { uid: base256(2n ** 32n - 1n, 8) }, header: { uid: 2 ** 32 - 1 } },
  { name: 'size of 2^53 - 1', fields: { size: base256(2n ** 53n - 1n, 12) }, header: { size: 2 ** 53 - 1 } },
  { name: 'mtime before 1970', fields: { mtime: base256(-1n, 12) }, header: { mtime: -1 } },
  { name: 'mtime far back', fields: { mtime: base256(-12345678901n, 12) }, header: { mtime: -12345678901 } },
  {
    name: 'device numbers',
    fields: { type: '4', major: 8, minor: base256(70000n, 8) },
    header: { type: '4', major: 8, minor: 70000 },
  },
  { name: 'device numbers of others are not looked at', fields: { major: 'junk' }, header: {} },
]

for (const { name, fields, header } of HEADERS) {
  test(`tar header: ${name}`, () => {
    const block = tarHeader(fields)
    assert.ok(checksumMatches(block))
    assert.deepEqual(decodeTarHeader(block), { ...PLAIN, ...header })
  })
}

const BAD: readonly { name: string; fields: HeaderFields; message: RegExp }[] = [
  { name: 'negative size', fields: { size: base256(-1n, 12) }, message: /"file" has a bad size/ },
  { name: 'size of 2^53', fields: { size: base256(2n ** 53n, 12) }, message: /bad size/ },
  { name: 'size of 2^88', fields: { size: base256(2n ** 88n, 12) }, message: /bad size/ },
  { name: 'text as size', fields: { size: '12x' }, message: /bad size in its tar header: "12x/ },
  { name: 'digits 8 and 9', fields: { size: '189' }, message: /bad size/ },
  { name: 'negative uid', fields: { uid: base256(-2n, 8) }, message: /bad uid/ },
  { name: 'uid of 2^32', fields: { uid: base256(2n ** 32n, 8) }, message: /bad uid/ },
  { name: 'gid of 2^32', fields: { gid: base256(2n ** 32n, 8) }, message: /bad gid/ },
  { name: 'mtime of -2^60', fields: { mtime: base256(-(2n ** 60n), 12) }, message: /bad mtime/ },
  { name: 'device number', fields: { type: '3', major: base256(-1n, 8) }, message: /bad device major/ },
]

for (const { name, fields, message } of BAD) {
  test(`tar header refused: ${name}`, () => {
    const isRefusal = (error: unknown) => error instanceof ArchiveError && message.test(error.message)
    assert.throws(() => decodeTarHeader(tarHeader(fields)), isRefusal)
  })
}

test('checksum: signed sums pass, any other change of a byte does not', () => {
  assert.ok(checksumMatches(tarHeader({ name: 'n\xe9\xff', signedChecksum: true })))
  const block = tarHeader({ name: 'n\xe9' })
  for (let at = 0; at < 512; at++) {
    if (at >= 148 && at < 156) continue // writers end the number with any of NUL and space
    block[at]! ^= 1
    assert.equal(checksumMatches(block), false, `byte ${at}`)
    block[at]! ^= 1
  }
})

test('checksum: a zero block has none', () => {
  assert.equal(checksumMatches(Buffer.alloc(512)), false)
  assert.equal(isZeroBlock(Buffer.alloc(512)), true)
  for (const at of [0, 511]) {
    const block = Buffer.alloc(512)
    block[at] = 1
    assert.equal(isZeroBlock(block), false)
  }
})

test('base-256: both ends of the safe range, and one beyond', () => {
  for (const value of [0n, 1n, -1n, 255n, -256n, 2n ** 53n - 1n, -(2n ** 53n) + 1n]) {
    assert.equal(decodeNumber(base256(value, 12), 0, 12), Number(value))
  }
  assert.equal(decodeNumber(base256(2n ** 53n, 12), 0, 12), undefined)
  assert.equal(decodeNumber(base256(-(2n ** 53n), 12), 0, 12), undefined)
})
