import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { fromHex, toHex } from '../../../test/support/hex.ts'
import { PeerError } from '../../errors.ts'
import { ByteReader } from '../../lib/byte-reader.ts'
import { ByteWriter } from '../../lib/byte-writer.ts'
import { ascii } from '../../lib/bytes.ts'
import type { Xattr } from '../tree.ts'
import { encodeXattrValues, readXattrRequest, sentXattrs, XattrEncoder } from './xattrs.ts'

const xattr = (name: string, value: string): Xattr => ({ name: ascii(name), value: Buffer.from(value) })
const USUAL = { withRsyncOwn: false, kept: undefined }
const names = (all: readonly Xattr[]): string[] => all.map(({ name }) => name)

test("what travels is sorted by bytes, without what is the system's or rsync's own", () => {
  const all = [
    xattr('user.b', ''),
    xattr('system.posix_acl_access', ''),
    xattr('user.rsync.%stat', ''),
    xattr('user.B', ''),
    xattr('security.capability', ''),
  ]
  assert.deepEqual(names(sentXattrs(all, USUAL)), ['security.capability', 'user.B', 'user.b'])
  assert.deepEqual(names(sentXattrs(all, { ...USUAL, withRsyncOwn: true })), [
    'security.capability',
    'user.B',
    'user.b',
    'user.rsync.%stat',
  ])
})

test("what the client's rules keep travels, the system's too", () => {
  const all = [
    xattr('user.a', ''),
    xattr('system.posix_acl_access', ''),
    xattr('user.rsync.%stat', ''),
    xattr('trusted.b', ''),
  ]
  const kept = new Set(['user.a', 'system.posix_acl_access', 'user.rsync.%stat'].map(ascii))
  assert.deepEqual(names(sentXattrs(all, { ...USUAL, kept })), ['system.posix_acl_access', 'user.a'])
  assert.deepEqual(names(sentXattrs(all, { withRsyncOwn: true, kept })), [
    'system.posix_acl_access',
    'user.a',
    'user.rsync.%stat',
  ])
})

test('sets: the first of its kind in full, then its number', () => {
  const encoder = new XattrEncoder(USUAL)
  const long = 'v'.repeat(33)
  const md5 = createHash('md5').update(long).digest('hex')
  const a = [xattr('user.a', 'x')]
  const steps: readonly { name: string; set: readonly Xattr[]; hex: string }[] = [
    { name: 'no attribute', set: [], hex: '00 00' },
    { name: 'again none', set: [], hex: '01' },
    { name: 'one', set: a, hex: '00 01 07 01 757365722e6100 78' },
    { name: 'the same one of another file', set: [xattr('user.a', 'x')], hex: '02' },
    { name: 'another value', set: [xattr('user.a', 'y')], hex: '00 01 07 01 757365722e6100 79' },
    {
      name: '32 bytes go as they are',
      set: [xattr('user.a', 'z'.repeat(32))],
      hex: `00 01 07 20 757365722e6100 ${'7a'.repeat(32)}`,
    },
    {
      name: 'of 33 bytes only the MD5',
      set: [xattr('user.a', long)],
      hex: `00 01 07 21 757365722e6100 ${md5}`,
    },
    {
      name: 'two, sorted',
      set: [xattr('user.b', ''), xattr('user.a', 'x')],
      hex: '00 02 07 01 757365722e6100 78 07 00 757365722e6200',
    },
    { name: 'only hidden ones are none', set: [xattr('system.x', 'x')], hex: '01' },
    { name: 'the first again', set: a, hex: '02' },
  ]
  for (const { name, set, hex } of steps) {
    const out = new ByteWriter()
    encoder.encode(out, set)
    assert.equal(toHex(out.view()), toHex(fromHex(hex)), name)
  }
})

test('values on request: each under its distance, then the end', () => {
  const sent = [xattr('user.a', 'A'), xattr('user.b', 'BB'), xattr('user.c', '')]
  const out = new ByteWriter()
  encodeXattrValues(out, [1, 3], sent)
  assert.equal(toHex(out.take()), toHex(fromHex('01 01 41 02 00 00')))
  encodeXattrValues(out, [2], sent)
  assert.equal(toHex(out.take()), toHex(fromHex('02 02 4242 00')))
  encodeXattrValues(out, [], sent)
  assert.equal(toHex(out.take()), '00')
})

/** A reader over these bytes, a byte at a time. */
function readerOf(hex: string): ByteReader {
  const bytes = fromHex(hex)
  let at = 0
  return new ByteReader(async () => (at < bytes.length ? bytes.subarray(at, ++at) : undefined))
}

for (const { hex, numbers } of [
  { hex: '00', numbers: [] },
  { hex: '01 00', numbers: [1] },
  { hex: '02 01 03 00', numbers: [2, 3, 6] },
  { hex: '8080 00', numbers: [128] },
]) {
  test(`request for values: ${hex}`, async () => {
    const reader = readerOf(`${hex} ff`)
    assert.deepEqual(await readXattrRequest(reader, 128), numbers)
    assert.equal(reader.consumed, fromHex(hex).length)
  })
}

for (const [hex, why] of [
  ['02 00', 'an attribute beyond the last'],
  ['01 01 00', 'one more than there are'],
  ['f0ffffffff 00', 'a step back'],
  ['f0ffffff7f 00', 'a number near the limit'],
  ['f8', 'no varint'],
] as const) {
  test(`request for values, never right: ${why}`, async () => {
    await assert.rejects(readXattrRequest(readerOf(hex), 1), PeerError)
  })
}
