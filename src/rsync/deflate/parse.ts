/**
 * Parsing: which matches are taken, so that all that is written takes the fewest bits at given costs of its symbols.
 */
import { DISTANCE_SHIFT, LENGTH_MASK, type MatchFinder, SYMBOL_MASK, SYMBOL_SHIFT } from './matches.ts'
import { findLengths, MOST_CODE_BITS } from './prefix-code.ts'
import {
  DISTANCES,
  distanceExtra,
  FIRST_LENGTH,
  LITERALS,
  lengthExtra,
  lengthSymbol,
  MAX_MATCH,
  MIN_MATCH,
  TALLY,
  TALLY_EXTRA,
} from './symbols.ts'

/** Costs are in parts of a bit. */
const BIT = 64
/** Before anything is known of costs: a match of three bytes from farther away is not worth it. */
const NEAR = 4096

/**
 * What costs follow from: how often symbols occur, as if a symbol might take a part of a bit, or the lengths of the
 * codes that they would have. The one leads on better; the other is what a block takes in the end.
 */
export type Costs = 'counts' | 'codes'

export class Parser {
  /** What begins at each position, if anything does: 0 is a byte, all else a match. */
  readonly choices: Int32Array
  /** The least that it takes from a position to the end of the segment. */
  readonly #least: Int32Array
  readonly #lengths = new Uint8Array(LITERALS)
  /** Of all symbols but distances. */
  readonly #literalCosts = new Int32Array(LITERALS)
  readonly #distanceCosts = new Int32Array(DISTANCES)
  readonly #lengthCosts = new Int32Array(MAX_MATCH + 1)

  constructor(mostPositions: number) {
    this.choices = new Int32Array(mostPositions)
    this.#least = new Int32Array(mostPositions + 1)
  }

  /** For a start: takes the longest match, unless a longer one begins at the next position. */
  parseLazily({ found, begins }: MatchFinder, size: number): void {
    const { choices } = this
    choices.fill(0, 0, size)
    for (let at = 0; at < size; ) {
      const end = begins[at + 1]!
      const match = end > begins[at]! ? found[end - 1]! : 0
      const length = Math.min(match & LENGTH_MASK, size - at)
      const nextEnd = at + 1 < size ? begins[at + 2]! : end
      const nextLength = nextEnd > end ? found[nextEnd - 1]! & LENGTH_MASK : 0
      const isDear = length === MIN_MATCH && match >> DISTANCE_SHIFT >= NEAR
      if (length < MIN_MATCH || nextLength > length || isDear) {
        at++
      } else {
        choices[at] = (match & ~LENGTH_MASK) | length
        at += length
      }
    }
  }

  /** Before the blocks of a segment are parsed, the last one first. */
  begin(size: number): void {
    this.#least[size] = 0
  }

  /** What a block's symbols cost, going by what it was made of before. */
  setCosts(tally: Uint32Array, costs: Costs): void {
    this.#fillCosts(tally.subarray(0, LITERALS), this.#literalCosts, costs)
    this.#fillCosts(tally.subarray(LITERALS, LITERALS + DISTANCES), this.#distanceCosts, costs)
    for (let symbol = 0; symbol < DISTANCES; symbol++) {
      this.#distanceCosts[symbol]! += distanceExtra[symbol]! * BIT
    }
    for (let length = MIN_MATCH; length <= MAX_MATCH; length++) {
      const symbol = lengthSymbol[length]!
      this.#lengthCosts[length] = this.#literalCosts[FIRST_LENGTH + symbol]! + lengthExtra[symbol]! * BIT
    }
  }

  /** What has not occurred costs a bit more than the rarest that has. */
  #fillCosts(counts: Uint32Array, costs: Int32Array, from: Costs): void {
    if (from === 'codes') {
      const lengths = this.#lengths.subarray(0, counts.length)
      findLengths(counts, lengths, MOST_CODE_BITS)
      let longest = 0
      for (const length of lengths) if (length > longest) longest = length
      for (let symbol = 0; symbol < costs.length; symbol++) {
        costs[symbol] = (lengths[symbol] || longest + 1) * BIT
      }
    } else {
      let total = 1
      for (const count of counts) total += count
      for (let symbol = 0; symbol < costs.length; symbol++) {
        costs[symbol] = Math.round(Math.log2(total / (counts[symbol] || 0.5)) * BIT)
      }
    }
  }

  /**
   * Parses a block whose costs are set, from its end to its beginning.
   * @param base where the segment, of `size` bytes, begins in `text`.
   * @param from a position in the segment, as `to` is.
   */
  parse(
    text: Uint8Array,
    base: number,
    size: number,
    from: number,
    to: number,
    { found, begins }: MatchFinder,
  ): void {
    const { choices } = this
    const least = this.#least
    const literalCosts = this.#literalCosts
    const lengthCosts = this.#lengthCosts
    const distanceCosts = this.#distanceCosts
    for (let at = to - 1; at >= from; at--) {
      let best = least[at + 1]! + literalCosts[text[base + at]!]!
      let choice = 0
      let length = MIN_MATCH
      const end = begins[at + 1]!
      for (let m = begins[at]!; m < end; m++) {
        const match = found[m]!
        const distanceCost = distanceCosts[(match >> SYMBOL_SHIFT) & SYMBOL_MASK]!
        let longest = match & LENGTH_MASK
        if (longest > size - at) longest = size - at
        for (; length <= longest; length++) {
          const cost = distanceCost + lengthCosts[length]! + least[at + length]!
          if (cost < best) {
            best = cost
            choice = (match & ~LENGTH_MASK) | length
          }
        }
      }
      least[at] = best
      choices[at] = choice
    }
  }

  /**
   * Counts what the segment is made of.
   * @param tallies one after the other, for parts of `partSize` bytes each.
   */
  tally(text: Uint8Array, base: number, size: number, partSize: number, tallies: Uint32Array): void {
    const { choices } = this
    tallies.fill(0, 0, Math.ceil(size / partSize) * TALLY)
    let part = 0
    let partEnd = partSize
    for (let at = 0; at < size; ) {
      while (at >= partEnd) {
        part += TALLY
        partEnd += partSize
      }
      const choice = choices[at]!
      if (choice === 0) {
        tallies[part + text[base + at]!]!++
        at++
        continue
      }
      const length = choice & LENGTH_MASK
      const symbol = lengthSymbol[length]!
      const distance = (choice >> SYMBOL_SHIFT) & SYMBOL_MASK
      tallies[part + FIRST_LENGTH + symbol]!++
      tallies[part + LITERALS + distance]!++
      tallies[part + TALLY_EXTRA]! += lengthExtra[symbol]! + distanceExtra[distance]!
      at += length
    }
  }
}
