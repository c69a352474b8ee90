import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { decodeLz4Block } from '../../test/support/lz4.ts'
import { fc } from '../../test/support/property.ts'
import { compressLz4Block, lz4Bound, MAX_LZ4_SOURCE } from './lz4.ts'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

// biome-ignore format: a table
const BLOCKS: readonly { name: string; source: Uint8Array | string; block: string }[] = [
  { name: 'nothing', source: '', block: '00' },
  { name: 'one byte', source: 'x', block: '1078' },
  { name: 'as many literals as a token holds', source: 'abcdefghijklmn', block: `e0${hex(Buffer.from('abcdefghijklmn'))}` },
  { name: 'one more', source: 'abcdefghijklmno', block: `f000${hex(Buffer.from('abcdefghijklmno'))}` },
  { name: 'too short for a match', source: 'a'.repeat(12), block: `c0${'61'.repeat(12)}` },
  { name: 'the shortest that has one', source: 'a'.repeat(13), block: '1361010050'.concat('61'.repeat(5)) },
  { name: 'a match whose length needs a byte', source: 'a'.repeat(25), block: `1f61010000${'50'}${'61'.repeat(5)}` },
  { name: 'a match whose length needs two', source: 'a'.repeat(25 + 255), block: `1f610100ff00${'50'}${'61'.repeat(5)}` },
]
for (const { name, source, block } of BLOCKS) {
  test(`lz4 block: ${name}`, () => {
    const bytes = typeof source === 'string' ? Buffer.from(source) : source
    assert.equal(hex(compressLz4Block(bytes)), block)
    assert.deepEqual(decodeLz4Block(Buffer.from(block, 'hex')), Buffer.from(bytes))
  })
}

test('lz4 block: any bytes come back, and never take more than the bound', () => {
  const repetitive = fc
    .array(fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 400 })), {
      maxLength: 20,
    })
    .map((runs) => Buffer.concat(runs.flatMap(([word, times]) => Array<Uint8Array>(times).fill(word))))
    .map((bytes) => bytes.subarray(0, MAX_LZ4_SOURCE))
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 5000 }), repetitive), (source) => {
      const block = compressLz4Block(source)
      assert.ok(block.length <= lz4Bound(source.length))
      assert.deepEqual(decodeLz4Block(block), Buffer.from(source))
    }),
    { numRuns: 500 },
  )
})

test('lz4 block: the largest piece, of what repeats only at its far ends and of what never repeats', () => {
  const far = randomBytes(MAX_LZ4_SOURCE)
  far.copy(far, MAX_LZ4_SOURCE - 1000, 0, 1000)
  for (const source of [far, randomBytes(MAX_LZ4_SOURCE), Buffer.alloc(MAX_LZ4_SOURCE)]) {
    assert.deepEqual(decodeLz4Block(compressLz4Block(source)), source)
  }
  assert.ok(compressLz4Block(Buffer.alloc(MAX_LZ4_SOURCE)).length < 300)
  assert.throws(() => compressLz4Block(Buffer.alloc(MAX_LZ4_SOURCE + 1)), RangeError)
})

test('lz4 block: pieces do not see each other', () => {
  const source = Buffer.from('the same words as before, '.repeat(100))
  const alone = compressLz4Block(source)
  compressLz4Block(randomBytes(30_000))
  assert.deepEqual(compressLz4Block(source), alone)
})
