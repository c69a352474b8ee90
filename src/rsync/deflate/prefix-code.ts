/**
 * Prefix codes of bounded length: the best there are for how often each symbol occurs, by package-merge, and the
 * bits that RFC 1951 (section 3.2.2) gives to a code of such lengths.
 */
import { LITERALS } from './symbols.ts'

/** No code of deflate is longer. */
export const MOST_CODE_BITS = 15
/** Symbols of the largest alphabet. */
const MOST_SYMBOLS = LITERALS

/** The symbols that occur, rarest first: how often, and in the lower bits which. */
const sorted = new Float64Array(MOST_SYMBOLS)
const SYMBOLS_POWER = 512
/** Weights of a level, and of the one below it: each symbol, and each pair of what is below. */
let weights = new Float64Array(2 * MOST_SYMBOLS)
let below = new Float64Array(2 * MOST_SYMBOLS)
/** For each level, how many of its first entries are symbols. */
const symbolsAmong = new Uint16Array((MOST_CODE_BITS + 1) * (2 * MOST_SYMBOLS + 1))

/**
 * Finds the lengths with which all that occurs takes the fewest bits. What never occurs gets none.
 *
 * Each level holds every symbol and, as one, each two neighbours of the level below. Of the highest level the first
 * 2n - 2 entries are taken, of each lower one the pairs that were taken above: as often as a symbol is among them,
 * so long is its code.
 */
export function findLengths(counts: Uint32Array, lengths: Uint8Array, mostBits: number): void {
  let n = 0
  for (let symbol = 0; symbol < lengths.length; symbol++) {
    lengths[symbol] = 0
    const count = counts[symbol]!
    if (count > 0) sorted[n++] = count * SYMBOLS_POWER + symbol
  }
  if (n === 0) return
  const order = sorted.subarray(0, n).sort()
  if (n === 1) {
    lengths[order[0]! % SYMBOLS_POWER] = 1
    return
  }
  const stride = 2 * MOST_SYMBOLS + 1
  let size = 0
  for (let level = 0; level < mostBits; level++) {
    const pairs = size >> 1
    const row = level * stride
    let symbols = 0
    let pair = 0
    size = n + pairs
    symbolsAmong[row] = 0
    for (let at = 0; at < size; at++) {
      const weight = symbols < n ? Math.floor(order[symbols]! / SYMBOLS_POWER) : Number.POSITIVE_INFINITY
      const pairWeight = pair < pairs ? below[2 * pair]! + below[2 * pair + 1]! : Number.POSITIVE_INFINITY
      if (weight <= pairWeight) {
        weights[at] = weight
        symbols++
      } else {
        weights[at] = pairWeight
        pair++
      }
      symbolsAmong[row + at + 1] = symbols
    }
    const free = below
    below = weights
    weights = free
  }
  for (let level = mostBits - 1, taken = 2 * n - 2; level >= 0 && taken > 0; level--) {
    const symbols = symbolsAmong[level * stride + taken]!
    for (let i = 0; i < symbols; i++) lengths[order[i]! % SYMBOLS_POWER]!++
    taken = 2 * (taken - symbols)
  }
}

const firstOf = new Uint16Array(MOST_CODE_BITS + 2)

/** The code of each symbol, turned round: deflate writes a code from its highest bit on, all else from the lowest. */
export function findCodes(lengths: Uint8Array, codes: Uint16Array): void {
  firstOf.fill(0)
  for (let symbol = 0; symbol < lengths.length; symbol++) firstOf[lengths[symbol]! + 1]!++
  // Behind this, symbols without a code count as if they had one of no bits: they take no room.
  firstOf[1] = 0
  for (let bits = 1; bits <= MOST_CODE_BITS; bits++) {
    firstOf[bits + 1] = (firstOf[bits]! + firstOf[bits + 1]!) << 1
  }
  for (let symbol = 0; symbol < lengths.length; symbol++) {
    const length = lengths[symbol]!
    if (length > 0) codes[symbol] = reversed(firstOf[length]!++, length)
  }
}

function reversed(code: number, length: number): number {
  let rest = code
  let out = 0
  for (let i = 0; i < length; i++, rest >>= 1) out = (out << 1) | (rest & 1)
  return out
}
