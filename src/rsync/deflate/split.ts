/**
 * Where blocks begin. Neighbouring parts become one block as long as it saves more to tell their codes once than it
 * costs to have the same codes for both.
 */
import { DISTANCES, END_OF_BLOCK, LITERALS, TALLY, TALLY_EXTRA } from './symbols.ts'

/**
 * About how many bits it takes to tell a block's codes: for any, for each symbol that has one, for each whose code is
 * not as long as the one before, and for each gap. Fitted to blocks of programs and text.
 */
const ANY_BITS = 180
const SYMBOL_BITS = 0.7
const CHANGE_BITS = 2.5
const GAP_BITS = 3

export class Splitter {
  /** Of each part that begins a block, where the next one begins. */
  readonly #next: Int32Array
  readonly #bits: Float64Array
  /** What it saves to make a block and the one behind it one. */
  readonly #saved: Float64Array
  readonly #both = new Uint32Array(TALLY)

  constructor(mostParts: number) {
    this.#next = new Int32Array(mostParts)
    this.#bits = new Float64Array(mostParts)
    this.#saved = new Float64Array(mostParts)
  }

  /**
   * @param tallies of all parts. That of a part which begins a block becomes the block's.
   * @returns these parts.
   */
  split(tallies: Uint32Array, parts: number): number[] {
    const next = this.#next
    for (let part = 0; part < parts; part++) {
      next[part] = part + 1
      this.#bits[part] = bitsOf(tallies, part * TALLY)
    }
    for (let part = 0; part < parts; part++) this.#look(tallies, part, parts)
    while (this.#join(tallies, parts)) {}
    const begins: number[] = []
    for (let part = 0; part < parts; part = next[part]!) {
      begins.push(part)
      tallies[part * TALLY + END_OF_BLOCK] = 1
    }
    return begins
  }

  /** Joins the two that save most by it. @returns false when none do. */
  #join(tallies: Uint32Array, parts: number): boolean {
    const next = this.#next
    const saved = this.#saved
    let most = 0
    let best = -1
    let bestBefore = -1
    for (let part = 0, before = -1; part < parts; before = part, part = next[part]!) {
      if (saved[part]! <= most) continue
      most = saved[part]!
      best = part
      bestBefore = before
    }
    if (best < 0) return false
    const other = next[best]!
    for (let i = 0; i < TALLY; i++) tallies[best * TALLY + i]! += tallies[other * TALLY + i]!
    this.#bits[best]! += this.#bits[other]! - most
    next[best] = next[other]!
    this.#look(tallies, best, parts)
    if (bestBefore >= 0) this.#look(tallies, bestBefore, parts)
    return true
  }

  /** Finds what it saves to join a block with the one behind it. */
  #look(tallies: Uint32Array, part: number, parts: number): void {
    const other = this.#next[part]!
    const both = this.#both
    this.#saved[part] = 0
    if (other >= parts) return
    for (let i = 0; i < TALLY; i++) both[i] = tallies[part * TALLY + i]! + tallies[other * TALLY + i]!
    this.#saved[part] = this.#bits[part]! + this.#bits[other]! - bitsOf(both, 0)
  }
}

/** About how many bits a block of these symbols takes. */
function bitsOf(tallies: Uint32Array, at: number): number {
  const literals = codeBitsOf(tallies, at, at + LITERALS, 1)
  const distances = codeBitsOf(tallies, at + LITERALS, at + LITERALS + DISTANCES, 0)
  return ANY_BITS + literals + distances + tallies[at + TALLY_EXTRA]!
}

/** @param uncounted symbols that occur beside those that were counted. */
function codeBitsOf(tallies: Uint32Array, from: number, to: number, uncounted: number): number {
  let total = uncounted
  for (let i = from; i < to; i++) total += tallies[i]!
  if (total === 0) return 0
  const whole = log2(total)
  let bits = uncounted * whole
  let before = 0
  for (let i = from; i < to; i++) {
    const count = tallies[i]!
    if (count === 0) {
      if (before !== 0) bits += GAP_BITS
      before = 0
      continue
    }
    const each = whole - log2(count)
    const length = (each + 0.5) | 0 || 1
    bits += count * each + SYMBOL_BITS
    if (length !== before) bits += CHANGE_BITS
    before = length
  }
  return bits
}

/** Most counts are small. */
const logs = Float64Array.from({ length: 1024 }, (_, x) => Math.log2(x))

function log2(x: number): number {
  return x < logs.length ? logs[x]! : Math.log2(x)
}
