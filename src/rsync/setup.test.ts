import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromHex, toHex } from '../../test/support/hex.ts'
import { Pipe } from '../../test/support/session.ts'
import { RefusedError } from '../errors.ts'
import { ByteWriter } from '../lib/byte-writer.ts'
import { ascii, type ByteString } from '../lib/bytes.ts'
import { Connection } from './connection.ts'
import { type Agreement, agree, blockSumRule } from './setup.ts'
import { parseArguments } from './wire/arguments.ts'
import { encodeVstring } from './wire/ints.ts'

const SEED = 0x12345678
const OURS = toHex(vstring('xxh128 xxh3 xxh64 md5 sha1 none'))
const CODECS = toHex(vstring('zstd lz4 zlibx zlib'))

function vstring(text: string): Buffer {
  const out = new ByteWriter()
  encodeVstring(out, ascii(text))
  return out.take()
}

interface Row {
  name: string
  protocol: number
  args?: string[]
  /** What the client sends: its lists. */
  lists?: string[]
  /** What we send. */
  hex: string
  agreed: Partial<Agreement>
}

/** docs/rsync-protocol.md, sections 3.1 to 3.5. */
const ROWS: readonly Row[] = [
  // Compat flags: a bit for each letter of the client's.
  {
    name: 'no letters',
    protocol: 30,
    args: ['-e.'],
    hex: '06 78563412',
    agreed: { compat: 0x06, transferDigest: 'md5', listDigest: 'md5', codec: undefined, seed: SEED },
  },
  { name: 'no cluster', protocol: 30, args: [], hex: '06 78563412', agreed: { compat: 0x06 } },
  {
    name: 'i: recursion in parts is declined',
    protocol: 30,
    args: ['-e.i'],
    hex: '06 78563412',
    agreed: { compat: 0x06 },
  },
  { name: 'f', protocol: 30, args: ['-e.f'], hex: '0e 78563412', agreed: { compat: 0x0e } },
  { name: 'x', protocol: 31, args: ['-e.x'], hex: '16 78563412', agreed: { compat: 0x16 } },
  { name: 'C', protocol: 31, args: ['-e.C'], hex: '26 78563412', agreed: { compat: 0x26 } },
  {
    name: 'I: in-place partial files are not offered',
    protocol: 31,
    args: ['-e.I'],
    hex: '06 78563412',
    agreed: { compat: 0x06 },
  },
  { name: 'u', protocol: 32, args: ['-e.u'], hex: '8106 78563412', agreed: { compat: 0x106 } },
  { name: 'V, of a pre-release', protocol: 31, args: ['-e.V'], hex: '06 78563412', agreed: { compat: 0x06 } },
  { name: '3.0.9', protocol: 30, args: ['-re.iLsf'], hex: '0e 78563412', agreed: { compat: 0x0e } },
  { name: '3.1.3', protocol: 31, args: ['-re.iLsfxC'], hex: '3e 78563412', agreed: { compat: 0x3e } },
  {
    name: '3.2 and later',
    protocol: 32,
    args: ['-re.iLsfxCIvu'],
    lists: ['md5'],
    hex: `81be ${OURS} 78563412`,
    agreed: { compat: 0x1be },
  },
  // Digests: the client's order among what we offer.
  {
    name: 'the first of 3.5.0',
    protocol: 32,
    args: ['-e.v'],
    lists: ['xxh128 xxh3 xxh64 md5 md4 sha1'],
    hex: `8086 ${OURS} 78563412`,
    agreed: { transferDigest: 'xxh128', listDigest: 'xxh128' },
  },
  {
    name: 'without xxhash',
    protocol: 31,
    args: ['-e.v'],
    lists: ['md5 md4'],
    hex: `8086 ${OURS} 78563412`,
    agreed: { transferDigest: 'md5' },
  },
  {
    name: 'what we do not offer is passed over',
    protocol: 31,
    args: ['-e.v'],
    lists: ['md4 crc sha1 md5'],
    hex: `8086 ${OURS} 78563412`,
    agreed: { transferDigest: 'sha1', listDigest: 'sha1' },
  },
  {
    name: 'a choice, not negotiated',
    protocol: 32,
    args: ['-e.v', '--checksum-choice=xxh3'],
    hex: '8086 78563412',
    agreed: { transferDigest: 'xxh3', listDigest: 'xxh3' },
  },
  {
    name: 'two choices',
    protocol: 32,
    args: ['-e.v', '--checksum-choice=md5,sha1'],
    hex: '8086 78563412',
    agreed: { transferDigest: 'md5', listDigest: 'sha1' },
  },
  {
    name: 'an old name',
    protocol: 32,
    args: ['-e.v', '--checksum-choice=xxhash'],
    hex: '8086 78563412',
    agreed: { transferDigest: 'xxh64' },
  },
  {
    name: 'auto is no choice',
    protocol: 32,
    args: ['-e.v', '--checksum-choice=auto'],
    lists: ['md5'],
    hex: `8086 ${OURS} 78563412`,
    agreed: { transferDigest: 'md5' },
  },
  {
    name: 'auto beside a choice',
    protocol: 30,
    args: ['-e.', '--checksum-choice=auto,sha1'],
    hex: '06 78563412',
    agreed: { transferDigest: 'md5', listDigest: 'sha1' },
  },
  {
    name: 'below 30: MD4',
    protocol: 29,
    args: ['-r'],
    hex: '78563412',
    agreed: { compat: 0, transferDigest: 'md4-seeded', listDigest: 'md4', codec: undefined },
  },
  {
    name: 'letters mean nothing below 30',
    protocol: 27,
    args: ['-re.v'],
    hex: '78563412',
    agreed: { compat: 0 },
  },
  // Codecs.
  {
    name: '-z, negotiated',
    protocol: 32,
    args: ['-ze.v'],
    lists: ['md5', 'zstd lz4 zlibx zlib'],
    hex: `8086 ${OURS} ${CODECS} 78563412`,
    agreed: { codec: 'zstd' },
  },
  {
    name: '-z, what we have of theirs',
    protocol: 32,
    args: ['-ze.v'],
    lists: ['md5', 'lzo zlib zstd'],
    hex: `8086 ${OURS} ${CODECS} 78563412`,
    agreed: { codec: 'zlib' },
  },
  {
    name: '-z with a chosen digest',
    protocol: 32,
    args: ['-ze.v', '--checksum-choice=md5'],
    lists: ['zlibx'],
    hex: `8086 ${CODECS} 78563412`,
    agreed: { codec: 'zlibx', transferDigest: 'md5' },
  },
  { name: '-z of 3.1', protocol: 31, args: ['-ze.iLsfxC'], hex: '3e 78563412', agreed: { codec: 'zlib' } },
  { name: '-z below 30', protocol: 29, args: ['-z'], hex: '78563412', agreed: { codec: 'zlib' } },
  {
    name: '--new-compress',
    protocol: 31,
    args: ['-e.', '--new-compress'],
    hex: '06 78563412',
    agreed: { codec: 'zlibx' },
  },
  {
    name: '--old-compress',
    protocol: 32,
    args: ['-ze.v', '--old-compress'],
    lists: ['md5'],
    hex: `8086 ${OURS} 78563412`,
    agreed: { codec: 'zlib' },
  },
  {
    name: '--compress-choice=none',
    protocol: 32,
    args: ['-e.v', '--compress-choice=none'],
    lists: ['md5'],
    hex: `8086 ${OURS} 78563412`,
    agreed: { codec: undefined },
  },
  {
    name: '--zl=9 alone',
    protocol: 30,
    args: ['-e.', '--compress-level=9'],
    hex: '06 78563412',
    agreed: { codec: 'zlib' },
  },
  {
    name: '--zl=0 turns zlib off',
    protocol: 30,
    args: ['-ze.', '--compress-level=0'],
    hex: '06 78563412',
    agreed: { codec: undefined },
  },
  {
    name: '--zl=0 does not turn zstd off',
    protocol: 32,
    args: ['-ze.v', '--compress-level=0'],
    lists: ['md5', 'zstd'],
    hex: `8086 ${OURS} ${CODECS} 78563412`,
    agreed: { codec: 'zstd' },
  },
  {
    name: '-z of a client that likes lz4 best',
    protocol: 32,
    args: ['-ze.v'],
    lists: ['md5', 'lz4 zstd'],
    hex: `8086 ${OURS} ${CODECS} 78563412`,
    agreed: { codec: 'lz4' },
  },
  {
    name: 'lz4 forced',
    protocol: 30,
    args: ['-e.', '--compress-choice=lz4'],
    hex: '06 78563412',
    agreed: { codec: 'lz4' },
  },
  {
    name: '--zl=0 does not turn lz4 off',
    protocol: 30,
    args: ['-e.', '--compress-choice=lz4', '--compress-level=0'],
    hex: '06 78563412',
    agreed: { codec: 'lz4' },
  },
  // The seed.
  {
    name: 'a seed of the client',
    protocol: 29,
    args: ['-r', '--checksum-seed=1'],
    hex: '01000000',
    agreed: { seed: 1 },
  },
  {
    name: 'a negative one',
    protocol: 29,
    args: ['-r', '--checksum-seed=-1'],
    hex: 'ffffffff',
    agreed: { seed: -1 },
  },
  {
    name: 'a seed of 0 is none',
    protocol: 29,
    args: ['-r', '--checksum-seed=0'],
    hex: '78563412',
    agreed: { seed: SEED },
  },
]

function begin({ protocol, args = [], lists = [] }: Pick<Row, 'protocol' | 'args' | 'lists'>) {
  const pipe = new Pipe()
  const connection = new Connection(pipe, () => 0)
  for (const list of lists) pipe.send(vstring(list))
  pipe.end()
  const options = parseArguments(['--server', '--sender', ...args, '.', 'm/'] as ByteString[])
  return { pipe, connection, agreement: agree(connection, protocol, options, SEED) }
}

for (const row of ROWS) {
  test(`setup at ${row.protocol}: ${row.name}`, async () => {
    const { pipe, connection, agreement } = begin(row)
    const agreed = await agreement
    for (const [key, value] of Object.entries(row.agreed))
      assert.equal(agreed[key as keyof Agreement], value, key)
    assert.equal(toHex(pipe.output), toHex(fromHex(row.hex)))
    assert.ok(connection.outMuxed)
    assert.ok(Object.isFrozen(agreed))
  })
}

for (const { name, ...how } of [
  { name: 'a digest that we do not have', protocol: 32, args: ['-e.', '--checksum-choice=crc'] },
  { name: 'one of two that we do not have', protocol: 32, args: ['-e.', '--checksum-choice=md5,crc'] },
  { name: 'a codec that we do not have', protocol: 32, args: ['-e.', '--compress-choice=lzo'] },
]) {
  test(`setup: ${name} is refused once text can reach the client`, async () => {
    const { connection, agreement } = begin(how)
    await assert.rejects(agreement, RefusedError)
    assert.ok(connection.outMuxed)
  })
}

for (const { name, ...how } of [
  { name: 'digest', protocol: 32, args: ['-e.v'], lists: ['crc32 md4'] },
  { name: 'codec', protocol: 32, args: ['-ze.v'], lists: ['md5', 'lzo'] },
]) {
  test(`setup: without a common ${name} nothing is agreed`, async () => {
    await assert.rejects(begin(how).agreement, RefusedError)
  })
}

for (const { protocol, compat, seedFirst } of [
  // Recorded from 3.2.7 and 3.5.0 with --protocol=29 --checksum-choice=md5.
  { protocol: 27, compat: 0, seedFirst: true },
  { protocol: 29, compat: 0, seedFirst: true },
  { protocol: 30, compat: 0x0e, seedFirst: false },
  { protocol: 31, compat: 0x3e, seedFirst: true },
]) {
  test(`block sums: at ${protocol} with compat flags ${compat.toString(16)}`, () => {
    const agreement = {
      protocol,
      compat,
      transferDigest: 'md5',
      listDigest: 'md5',
      seed: SEED,
      codec: undefined,
    } as const
    assert.deepEqual(blockSumRule(agreement), { name: 'md5', seed: SEED, seedFirst })
  })
}
