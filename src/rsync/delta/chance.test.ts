import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { test } from 'node:test'
import { chanceTwins } from '../../../test/support/chance.ts'
import { sumsOf } from '../../../test/support/receiver.ts'
import { randomBytes, splice } from '../../../test/support/tree.ts'
import type { RawSums } from '../wire/sums.ts'
import { chanceIsLikely, hasChanceMatches } from './chance.ts'
import { type Delta, matchBlocks, weakSum } from './match.ts'

const BLOCK = 700
const strongOf = (block: Uint8Array): Uint8Array => hash('md5', block, 'buffer')
const [twin, other] = chanceTwins(1, BLOCK, strongOf)
const basis = splice(randomBytes(2, 300_000), 100 * BLOCK, BLOCK, twin)
/** The same, with the other twin where the first one was. */
const file = splice(basis, 100 * BLOCK, BLOCK, other)

function search(from: Buffer, to: Buffer, strongLength: number): Delta {
  const source = {
    size: to.length,
    read: (target: Uint8Array, at: number) => target.set(to.subarray(at, at + target.length)),
  }
  return matchBlocks(source, sumsOf(from, BLOCK, strongLength, strongOf), strongOf, false)
}

function wholeSums(of: Buffer): RawSums {
  const { head, weak, strong } = sumsOf(of, BLOCK, 16, strongOf)
  const bytes = Buffer.alloc(head.count * 20)
  for (let k = 0; k < head.count; k++) {
    bytes.writeUInt32LE(weak[k]!, k * 20)
    bytes.set(strong.subarray(k * 16, k * 16 + 16), k * 20 + 4)
  }
  return { head, bytes }
}

function judged(whole: RawSums, found: Delta, exact: Delta, to = file): Promise<boolean> {
  return hasChanceMatches(found, exact, whole, strongOf, async (at, length) => to.subarray(at, at + length))
}

test('twins are what they are said to be', () => {
  assert.ok(!twin.equals(other))
  assert.equal(weakSum(twin, 0, BLOCK), weakSum(other, 0, BLOCK))
  assert.deepEqual(strongOf(twin).subarray(0, 2), strongOf(other).subarray(0, 2))
})

test('a block that was taken for another is seen', async () => {
  const [found, exact] = [search(basis, file, 2), search(basis, file, 16)]
  assert.ok(!found.some((step) => step > 0), 'short sums find every block')
  assert.deepEqual(
    exact.filter((step) => step > 0),
    [BLOCK],
  )
  assert.equal(await judged(wholeSums(basis), found, exact), true)
})

test('chance may come more than once where data is patterned', async () => {
  const twice = splice(file, 300 * BLOCK, BLOCK, other)
  const [found, exact] = [search(basis, twice, 2), search(basis, twice, 16)]
  assert.equal(found.filter((step) => step === -101).length, 2)
  assert.equal(await judged(wholeSums(basis), found, exact, twice), true)
})

test('the same by both sums is no chance, nor is a true match that whole sums place elsewhere', async () => {
  const exact = search(basis, file, 16)
  assert.equal(await judged(wholeSums(basis), exact, exact), false)
  const blank = Buffer.alloc(10 * BLOCK)
  const [first, second] = [Array(10).fill(-1), Array(10).fill(-2)]
  assert.equal(await judged(wholeSums(blank), first, second, blank), false)
})

test('whole sums of nothing that was found are a lie, or of another basis: they count for nothing', async () => {
  const whole = wholeSums(basis)
  for (const lies of [9, 17, 40, 400]) {
    const bytes = Buffer.from(whole.bytes)
    for (let k = 0; k < lies; k++) bytes[k * 20 + 19]! ^= 1
    const exact = [lies * BLOCK, ...search(basis, basis, 16).slice(lies)]
    assert.equal(await judged({ ...whole, bytes }, search(basis, basis, 2), exact, basis), false, `${lies}`)
  }
})

test('chance is likely for what is large and has short sums', () => {
  const head = { count: 429, blockLength: BLOCK, strongLength: 2, remainder: 0 }
  assert.equal(chanceIsLikely(head, 300_000), true)
  assert.equal(chanceIsLikely({ ...head, strongLength: 4 }, 300_000), false)
  assert.equal(chanceIsLikely({ ...head, count: 10 }, 7_000), false)
  assert.equal(chanceIsLikely({ ...head, count: 0 }, 0), false)
})
