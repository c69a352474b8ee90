/** Blocks that are taken for each other: equal in their weak sums, and in the first two bytes of their strong ones. */
import { randomBytes } from './tree.ts'

const TRIPLES = 26
const SHORT = 2

/** @returns two blocks that differ, as long as a stock client's smallest. */
export function chanceTwins(
  seed: number,
  length: number,
  strongOf: (block: Uint8Array) => Uint8Array,
): [Buffer, Buffer] {
  // Far enough from both ends of a byte for what is done below.
  const one = randomBytes(seed, length).map((byte) => 20 + (byte % 64)) as Buffer
  const wanted = Buffer.from(strongOf(one)).readUInt16LE(0)
  const other = Buffer.from(one)
  for (let mask = 1; mask < 2 ** TRIPLES; mask++) {
    // Gray code: one triple changes with each step. (+1, -2, +1) leaves both halves of a weak sum as they are.
    const triple = 31 - Math.clz32(mask & -mask)
    const sign = other[3 * triple] === one[3 * triple] ? 1 : -1
    for (const [i, change] of [1, -2, 1].entries()) other[3 * triple + i]! += sign * change
    if (Buffer.from(strongOf(other).subarray(0, SHORT)).readUInt16LE(0) === wanted) return [one, other]
  }
  throw new Error('no twin was found')
}
