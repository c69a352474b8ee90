import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { sumsOf } from '../../test/support/receiver.ts'
import { memoryKept, SEED } from '../../test/support/session.ts'
import { randomBytes } from '../../test/support/tree.ts'
import { ascii } from '../lib/bytes.ts'
import { Derived } from './derived.ts'
import { type BlockSumRule, createBlockSum, prepareBlockSum } from './digests.ts'
import { blockSumRule } from './setup.ts'
import { isPossible, stockSumHead, visitOf } from './stock-clients.ts'
import { type STOCK_RELEASES, stockRelease } from './stock-releases.ts'

const signal = new AbortController().signal
const derived = new Derived({ kept: memoryKept(), checksumSeed: SEED })
after(() => derived.close())

const MIB = 2 ** 20
/** docs/rsync-protocol.md, section 8.3: what real clients were seen to send. */
const BLOCKS = [
  { length: 1, block: 700, strong: 2 },
  { length: 490_000, block: 700, strong: 2 },
  { length: 490_001, block: 700, strong: 2 },
  { length: 500_000, block: 704, strong: 2 },
  { length: 1e6, block: 1000, strong: 2 },
  { length: 1e7, block: 3160, strong: 2 },
  { length: 16 * MIB, block: 4096, strong: 2 },
  { length: 64 * MIB, block: 8192, strong: 3 },
  { length: 1e8, block: 10_000, strong: 3 },
  { length: 256 * MIB, block: 16_384, strong: 3 },
  { length: 1e9, block: 31_616, strong: 3 },
  { length: 4096 * MIB, block: 65_536, strong: 4 },
  { length: 16_384 * MIB, block: 131_072, strong: 4 },
  { length: 65_536 * MIB, block: 131_072, strong: 5 },
  { length: 65_536 * MIB, block: 262_144, strong: 5, protocol: 29 },
]

test('blocks are as long as clients make them, and so are their sums', () => {
  for (const { length, block, strong, protocol = 31 } of BLOCKS) {
    assert.deepEqual(stockSumHead(length, protocol, 'xxh128'), {
      count: Math.ceil(length / block),
      blockLength: block,
      strongLength: strong,
      remainder: length % block,
    })
  }
  assert.equal(stockSumHead(0, 31, 'xxh128'), undefined, 'of an empty file nothing is sent')
  assert.equal(stockSumHead(2 ** 50, 31, 'xxh128'), undefined, 'that many we would not look at')
})

test('sums are those of a client, whether they are made at once or in a thread', async () => {
  const sizes = [1, 699, 700, 701, 65_536, 65_537, 500_000, 3_000_001]
  const rules: BlockSumRule[] = [
    { name: 'xxh128', seed: SEED, seedFirst: true },
    { name: 'md5', seed: SEED, seedFirst: true },
    { name: 'md5', seed: SEED, seedFirst: false },
    { name: 'md4-seeded', seed: SEED, seedFirst: true },
  ]
  const children = Object.fromEntries(
    sizes.map((size) => [`f${size}`, { mode: 0o100644, data: randomBytes(size, size) }]),
  )
  const tree = new MemoryTree({ mode: 0o40755, children })
  for (const rule of rules) {
    await prepareBlockSum(rule)
    for (const size of sizes) {
      const node = tree.child(0, ascii(`f${size}`))
      const head = stockSumHead(size, 31, rule.name)!
      const bytes = await derived.blockSums(tree, node, head, rule, signal)
      const { weak, strong } = sumsOf(
        randomBytes(size, size),
        head.blockLength,
        head.strongLength,
        createBlockSum(rule),
      )
      const expected = Buffer.alloc(bytes.length)
      for (let k = 0; k < head.count; k++) {
        const at = k * (4 + head.strongLength)
        expected.writeUInt32LE(weak[k]!, at)
        expected.set(strong.subarray(k * head.strongLength, (k + 1) * head.strongLength), at + 4)
      }
      assert.deepEqual(Buffer.from(bytes), expected, `${rule.name}, ${size} bytes`)
    }
  }
  tree.close()
})

test('what is agreed on with clients of each release is what section 3 says of them', async () => {
  const facts = async (release: (typeof STOCK_RELEASES)[number], compress: 'auto' | 'zlibx' | undefined) => {
    const called = { letters: 'H', numericIds: true, compress }
    assert.ok(isPossible(release, called))
    const { agreement, options } = await visitOf(release, called, ascii('build-1/root/'), SEED)
    assert.deepEqual(options.paths, ['build-1/root/'])
    assert.ok(options.recurse && options.hardLinks && options.numericIds && options.devices)
    const { protocol, transferDigest, listDigest, codec } = agreement
    return [protocol, transferDigest, listDigest, blockSumRule(agreement).seedFirst, codec]
  }
  assert.deepEqual(await facts('3.2', undefined), [31, 'xxh128', 'xxh128', true, undefined])
  assert.deepEqual(await facts('3.2', 'auto'), [31, 'xxh128', 'xxh128', true, 'zstd'])
  assert.deepEqual(await facts('3.2', 'zlibx'), [31, 'xxh128', 'xxh128', true, 'zlibx'])
  assert.deepEqual(await facts('3.1', 'auto'), [31, 'md5', 'md5', true, 'zlib'])
  assert.deepEqual(await facts('3.0', 'auto'), [30, 'md5', 'md5', false, 'zlib'])
  assert.deepEqual(await facts('2.6', undefined), [29, 'md4-seeded', 'md4', true, undefined])
  assert.deepEqual(await facts('2.6', 'auto'), [29, 'md4-seeded', 'md4', true, 'zlib'])
  for (const compress of ['zstd', 'lz4', 'zlibx'] as const)
    assert.ok(!isPossible('3.1', { letters: '', numericIds: false, compress }))
  assert.ok(!isPossible('2.6', { letters: 'HAX', numericIds: false, compress: undefined }))
})

test('a version belongs to the latest releases that are not later', () => {
  const versions = {
    '2.6': ['2.6', '2.6.9'],
    '3.0': ['3', '3.0.9'],
    '3.1': ['3.1.3'],
    '3.2': ['3.2.0', '3.4.1', '3.10', '4'],
  }
  for (const [release, all] of Object.entries(versions))
    for (const version of all) assert.equal(stockRelease(version), release, version)
  for (const text of ['', '2.5.7', '1', 'rsync', '3.', '3.1-pre1', '9999999999'])
    assert.equal(stockRelease(text), undefined, text)
})
