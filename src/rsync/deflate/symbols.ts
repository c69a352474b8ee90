/**
 * What deflate's symbols stand for (RFC 1951, section 3.2.5): bytes, the end of a block, lengths and distances.
 * Lengths and distances share their symbols in groups, of which extra bits pick one.
 */

export const MIN_MATCH = 3
export const MAX_MATCH = 258
export const MAX_DISTANCE = 32768

export const END_OF_BLOCK = 256
/** The first symbol that is a length. */
export const FIRST_LENGTH = 257
/** Bytes, the end of a block and lengths. */
export const LITERALS = 286
export const DISTANCES = 30

/**
 * A tally: how often each symbol occurs in a block or in a part of one, first those of LITERALS, then those of
 * DISTANCES; and last, how many extra bits they bring.
 */
export const TALLY = LITERALS + DISTANCES + 1
export const TALLY_EXTRA = TALLY - 1

/** Of each length symbol: how many extra bits follow it, and the first length that it stands for. */
export const lengthExtra = new Uint8Array(LITERALS - FIRST_LENGTH)
export const lengthBase = new Uint16Array(LITERALS - FIRST_LENGTH)
/** The symbol of each length, less FIRST_LENGTH. */
export const lengthSymbol = new Uint8Array(MAX_MATCH + 1)

/** Of each distance symbol, the same. */
export const distanceExtra = new Uint8Array(DISTANCES)
export const distanceBase = new Uint16Array(DISTANCES)
/** Up to this distance each has an entry of its own in the table; those beyond share one with 127 others. */
const NEAR = 256
const distanceSymbols = new Uint8Array(NEAR + MAX_DISTANCE / 128)

/** The symbol of a distance. */
export function distanceSymbol(distance: number): number {
  return distanceSymbols[distance <= NEAR ? distance - 1 : NEAR + ((distance - 1) >> 7)]!
}

for (let symbol = 0, base = MIN_MATCH; symbol < lengthExtra.length - 1; symbol++) {
  const extra = symbol < 8 ? 0 : (symbol >> 2) - 1
  lengthExtra[symbol] = extra
  lengthBase[symbol] = base
  lengthSymbol.fill(symbol, base, base + (1 << extra))
  base += 1 << extra
}
// The longest has a symbol to itself, though the one before would reach it.
lengthBase[lengthExtra.length - 1] = MAX_MATCH
lengthSymbol[MAX_MATCH] = lengthExtra.length - 1

for (let symbol = 0, base = 1; symbol < DISTANCES; symbol++) {
  const extra = symbol < 4 ? 0 : (symbol >> 1) - 1
  distanceExtra[symbol] = extra
  distanceBase[symbol] = base
  for (let distance = base; distance < base + (1 << extra); distance += distance <= NEAR ? 1 : 128) {
    distanceSymbols[distance <= NEAR ? distance - 1 : NEAR + ((distance - 1) >> 7)] = symbol
  }
  base += 1 << extra
}
