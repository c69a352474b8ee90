import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { toHex } from '../../test/support/hex.ts'
import {
  type BlockSumRule,
  createBlockSum,
  DIGEST_LENGTH,
  type DigestName,
  digestNamed,
  fileDigest,
  OFFERED_DIGESTS,
  prepareBlockSum,
} from './digests.ts'

const HELLO = Buffer.from('hello')
const SEED = 0x12345678

/** docs/rsync-protocol.md, section 8.4: data `hello`, seed bytes 78 56 34 12. */
const BLOCK_SUMS: readonly (BlockSumRule & { sum: string })[] = [
  { name: 'md4-seeded', seed: SEED, seedFirst: false, sum: '034e6d10ba4bec94f3fef93c5d605a5a' },
  { name: 'md5', seed: SEED, seedFirst: true, sum: 'd4d331d866dc9b1ef0bf09eb7302fb5f' },
  { name: 'md5', seed: SEED, seedFirst: false, sum: 'ca37b2aa88a4247fe3f27ab882157746' },
  { name: 'md5', seed: 0, seedFirst: true, sum: '5d41402abc4b2a76b9719d911017c592' },
  { name: 'md5', seed: 0, seedFirst: false, sum: '5d41402abc4b2a76b9719d911017c592' },
  { name: 'xxh64', seed: SEED, seedFirst: true, sum: 'e22c29a2937706c3' },
  { name: 'xxh3', seed: SEED, seedFirst: true, sum: '4bf3a1e79906d2f6' },
  { name: 'xxh128', seed: SEED, seedFirst: true, sum: '1143336a265ebfdc3289ba84c7afdc30' },
  { name: 'xxh64', seed: -1, seedFirst: true, sum: '9818d2f01d36bf01' },
  { name: 'xxh64', seed: 0, seedFirst: true, sum: 'a36d9f887d82c726' },
  { name: 'none', seed: SEED, seedFirst: true, sum: '00' },
]
for (const { sum, ...rule } of BLOCK_SUMS) {
  test(`block sum: ${rule.name}, seed ${rule.seed}${rule.seedFirst ? '' : ' behind'}`, async () => {
    await prepareBlockSum(rule)
    const strongOf = createBlockSum(rule)
    assert.equal(toHex(strongOf(HELLO)), sum)
    assert.equal(toHex(strongOf(HELLO)), sum, 'a second time')
    assert.equal(strongOf(HELLO).length, DIGEST_LENGTH[rule.name])
  })
}

test('block sum: sha1 hashes the seed first, and none when it is 0', () => {
  const expected = createHash('sha1').update('78563412', 'hex').update(HELLO).digest('hex')
  assert.equal(toHex(createBlockSum({ name: 'sha1', seed: SEED, seedFirst: false })(HELLO)), expected)
  const plain = createHash('sha1').update(HELLO).digest('hex')
  assert.equal(toHex(createBlockSum({ name: 'sha1', seed: 0, seedFirst: true })(HELLO)), plain)
})

const FILE_DIGESTS: readonly { name: DigestName; seed: number; digest: string }[] = [
  { name: 'md4-seeded', seed: SEED, digest: 'e8686b8b4656aa142c766626b4960665' },
  { name: 'md5', seed: SEED, digest: '5d41402abc4b2a76b9719d911017c592' },
  { name: 'xxh64', seed: SEED, digest: 'a36d9f887d82c726' },
  { name: 'xxh64', seed: -1, digest: 'a36d9f887d82c726' },
  { name: 'xxh3', seed: SEED, digest: 'fddc625c55e85595' },
  { name: 'xxh128', seed: SEED, digest: '1838525eaacf79c77f3e1b07adc1e9b5' },
  { name: 'sha1', seed: SEED, digest: 'aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d' },
  { name: 'none', seed: SEED, digest: '00' },
]
for (const { name, seed, digest } of FILE_DIGESTS) {
  test(`file digest: ${name}, seed ${seed}`, () => {
    assert.equal(toHex(fileDigest(name, seed, [HELLO])), digest)
    const pieces = [HELLO.subarray(0, 2), new Uint8Array(0), HELLO.subarray(2)]
    assert.equal(toHex(fileDigest(name, seed, pieces)), digest, 'in pieces')
    assert.equal(fileDigest(name, seed, []).length, DIGEST_LENGTH[name])
  })
}

test('file digest: MD4 is that of RFC 1320', () => {
  for (const [text, digest] of [
    ['', '31d6cfe0d16ae931b73c59d7e0c089c0'],
    ['a', 'bde52cb31de33e46245e05fbdbd6fb24'],
    ['abc', 'a448017aaf21d8525fc10ae87aa6729d'],
    ['message digest', 'd9130a8164549fe818874806e1c7014b'],
    [
      '12345678901234567890123456789012345678901234567890123456789012345678901234567890',
      'e33b4ddc9c38f2199c3e7b164fcc0536',
    ],
  ] as const) {
    assert.equal(toHex(fileDigest('md4', 0, [Buffer.from(text)])), digest)
  }
})

test('file digest: legacy MD4 hashes the seed even when it is 0', () => {
  const plain = fileDigest('md4', 0, [Buffer.concat([Buffer.alloc(4), HELLO])])
  assert.deepEqual(fileDigest('md4-seeded', 0, [HELLO]), plain)
})

test('a file digest under way is not disturbed by block sums', async () => {
  const rule: BlockSumRule = { name: 'xxh128', seed: 0, seedFirst: true }
  const strongOf = createBlockSum(rule)
  const between = (function* () {
    yield HELLO.subarray(0, 2)
    strongOf(Buffer.from('another'))
    yield HELLO.subarray(2)
  })()
  assert.equal(toHex(fileDigest('xxh128', 0, between)), '1838525eaacf79c77f3e1b07adc1e9b5')
})

test('seeds that clients choose do not add up, and each still gives its own sums', async () => {
  const sums = new Set<string>()
  for (let seed = 1; seed <= 100; seed++) {
    const rule: BlockSumRule = { name: 'xxh64', seed, seedFirst: true }
    await prepareBlockSum(rule)
    sums.add(toHex(createBlockSum(rule)(HELLO)))
  }
  assert.equal(sums.size, 100)
  const rule: BlockSumRule = { name: 'xxh64', seed: 1, seedFirst: true }
  await prepareBlockSum(rule)
  assert.ok(sums.has(toHex(createBlockSum(rule)(HELLO))))
})

test('names', () => {
  for (const name of OFFERED_DIGESTS) assert.equal(digestNamed(name), name)
  assert.equal(digestNamed('xxhash'), 'xxh64')
  assert.equal(digestNamed('md4'), 'md4', 'for a client that insists')
  assert.ok(!(OFFERED_DIGESTS as readonly string[]).includes('md4'), 'nobody knows where its seed goes')
  assert.equal(digestNamed('md4-seeded'), undefined)
  assert.equal(digestNamed(''), undefined)
  assert.equal(digestNamed('toString'), undefined)
})
