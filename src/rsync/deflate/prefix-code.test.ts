import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fc } from '../../../test/support/property.ts'
import { findCodes, findLengths, MOST_CODE_BITS } from './prefix-code.ts'

function lengthsOf(counts: readonly number[], mostBits: number): number[] {
  const lengths = new Uint8Array(counts.length)
  findLengths(Uint32Array.from(counts), lengths, mostBits)
  return [...lengths]
}

const bitsOf = (counts: readonly number[], lengths: readonly number[]): number =>
  counts.reduce((sum, count, symbol) => sum + count * lengths[symbol]!, 0)

/** Huffman's own way, which knows no longest code: the two rarest become one, again and again. */
function bitsOfUnbounded(counts: readonly number[]): number {
  const trees = counts.filter((count) => count > 0)
  let bits = trees.length === 1 ? trees[0]! : 0
  while (trees.length > 1) {
    trees.sort((a, b) => b - a)
    const joined = trees.pop()! + trees.pop()!
    bits += joined
    trees.push(joined)
  }
  return bits
}

// biome-ignore format: a table
const ROWS: readonly { name: string; counts: number[]; mostBits: number; lengths: number[] }[] = [
  { name: 'nothing', counts: [0, 0], mostBits: 15, lengths: [0, 0] },
  { name: 'one symbol', counts: [0, 9], mostBits: 15, lengths: [0, 1] },
  { name: 'two symbols', counts: [1, 0, 9], mostBits: 15, lengths: [1, 0, 1] },
  { name: 'as RFC 1951 has it', counts: [3, 3, 3, 3, 3, 5, 2, 2], mostBits: 15, lengths: [3, 3, 3, 3, 3, 2, 4, 4] },
  { name: 'Fibonacci, as long as it wants to be', counts: [1, 1, 2, 3, 5, 8], mostBits: 5, lengths: [5, 5, 4, 3, 2, 1] },
  { name: 'steeper, cut by one bit', counts: [1, 1, 2, 3, 6, 12], mostBits: 4, lengths: [4, 4, 4, 4, 2, 1] },
  { name: 'Fibonacci, as short as can be', counts: [1, 1, 2, 3, 5, 8], mostBits: 3, lengths: [3, 3, 3, 3, 2, 2] },
]
for (const { name, counts, mostBits, lengths } of ROWS) {
  test(`lengths of codes: ${name}`, () => assert.deepEqual(lengthsOf(counts, mostBits), lengths))
}

test('lengths of codes: any counts have complete codes, no longer than they may be, and no better ones', () => {
  const counts = fc.array(fc.oneof(fc.constant(0), fc.nat(20), fc.nat(200_000)), { maxLength: 286 })
  fc.assert(
    fc.property(counts, (counts) => {
      const lengths = lengthsOf(counts, MOST_CODE_BITS)
      const used = lengths.filter((length) => length > 0)
      assert.ok(counts.every((count, symbol) => count > 0 === lengths[symbol]! > 0))
      assert.ok(used.every((length) => length <= MOST_CODE_BITS))
      if (used.length > 1)
        assert.equal(
          used.reduce((sum, length) => sum + 2 ** -length, 0),
          1,
        )
      const bits = bitsOf(counts, lengths)
      const unbounded = bitsOfUnbounded(counts)
      // Below the bound it is Huffman's code; at the bound it can't be better.
      if (used.every((length) => length < MOST_CODE_BITS)) assert.equal(bits, unbounded)
      assert.ok(bits >= unbounded)
    }),
    { numRuns: 200 },
  )
})

test('codes: as RFC 1951 has them, turned round', () => {
  const codes = new Uint16Array(8)
  findCodes(Uint8Array.of(3, 3, 3, 3, 3, 2, 4, 4), codes)
  const written = (code: number, length: number) => code.toString(2).padStart(length, '0')
  assert.deepEqual(
    [...codes].map((code, symbol) => written(code, [3, 3, 3, 3, 3, 2, 4, 4][symbol]!)),
    // 010, 011, 100, 101, 110, 00, 1110, 1111
    ['010', '110', '001', '101', '011', '00', '0111', '1111'],
  )
})
