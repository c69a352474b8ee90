/**
 * Writing a block in whichever of the three forms is smallest (RFC 1951, section 3.2.3): stored, with the fixed
 * codes, or with codes of its own, which are told in front of it by their lengths (3.2.7).
 */
import type { BitWriter } from './bit-writer.ts'
import { DISTANCE_SHIFT, LENGTH_MASK, SYMBOL_MASK, SYMBOL_SHIFT } from './matches.ts'
import { findCodes, findLengths, MOST_CODE_BITS } from './prefix-code.ts'
import {
  DISTANCES,
  distanceBase,
  distanceExtra,
  END_OF_BLOCK,
  FIRST_LENGTH,
  LITERALS,
  lengthBase,
  lengthExtra,
  lengthSymbol,
  TALLY_EXTRA,
} from './symbols.ts'

/** Two bits say what kind a block is, behind the one that says whether it is the last: here, none ever is. */
const STORED = 0b00_0
const FIXED = 0b01_0
const DYNAMIC = 0b10_0
/** The most bytes of a stored block: 16 bits say how many. */
const MOST_STORED = 0xffff

/** The most bits of a code in which lengths are told. */
const MOST_LENGTH_BITS = 7

const fixedLiterals = new Uint8Array(288)
fixedLiterals.fill(8, 0, 144)
fixedLiterals.fill(9, 144, 256)
fixedLiterals.fill(7, 256, 280)
fixedLiterals.fill(8, 280)
const fixedDistances = new Uint8Array(32).fill(5)
const fixedLiteralCodes = new Uint16Array(288)
const fixedDistanceCodes = new Uint16Array(32)
findCodes(fixedLiterals, fixedLiteralCodes)
findCodes(fixedDistances, fixedDistanceCodes)

const literalCounts = new Uint32Array(LITERALS)
const distanceCounts = new Uint32Array(DISTANCES)
const countsWithTwo = new Uint32Array(DISTANCES)
const literalLengths = new Uint8Array(LITERALS)
const distanceLengths = new Uint8Array(DISTANCES)
const literalCodes = new Uint16Array(LITERALS)
const distanceCodes = new Uint16Array(DISTANCES)

/** A part of a segment that becomes a block. */
export interface Block {
  text: Uint8Array
  /** Positions in `text`. */
  from: number
  to: number
  /** What begins at each position; `choices[0]` is for that of `base`. */
  choices: Int32Array
  base: number
  tally: Uint32Array
}

export function writeBlock(out: BitWriter, block: Block): void {
  const { tally } = block
  literalCounts.set(tally.subarray(0, LITERALS))
  distanceCounts.set(tally.subarray(LITERALS, TALLY_EXTRA))
  findLengths(literalCounts, literalLengths, MOST_CODE_BITS)
  findDistanceLengths()
  const anyBits = 3 + tally[TALLY_EXTRA]!
  const fixedBits = anyBits + bitsOf(literalCounts, fixedLiterals) + bitsOf(distanceCounts, fixedDistances)
  const ownBits = anyBits + bitsOf(literalCounts, literalLengths) + bitsOf(distanceCounts, distanceLengths)
  const dynamicBits = ownBits + describeCodes()
  const storedBits = storedBitsOf(out, block.to - block.from)
  if (storedBits <= fixedBits && storedBits <= dynamicBits) {
    writeStored(out, block.text.subarray(block.from, block.to))
  } else if (fixedBits <= dynamicBits) {
    out.put(FIXED, 3)
    writeSymbols(out, block, fixedLiterals, fixedLiteralCodes, fixedDistances, fixedDistanceCodes)
  } else {
    out.put(DYNAMIC, 3)
    writeDescription(out)
    findCodes(literalLengths, literalCodes)
    findCodes(distanceLengths, distanceCodes)
    writeSymbols(out, block, literalLengths, literalCodes, distanceLengths, distanceCodes)
  }
}

/** Decoders before zlib 1.2.1.1 want a distance code even where none is used, and some others want two. */
function findDistanceLengths(): void {
  countsWithTwo.set(distanceCounts)
  for (let symbol = 0, used = usedOf(countsWithTwo); used < 2; symbol++) {
    if (countsWithTwo[symbol] !== 0) continue
    countsWithTwo[symbol] = 1
    used++
  }
  findLengths(countsWithTwo, distanceLengths, MOST_CODE_BITS)
}

function bitsOf(counts: Uint32Array, lengths: Uint8Array): number {
  let bits = 0
  for (let symbol = 0; symbol < counts.length; symbol++) bits += counts[symbol]! * lengths[symbol]!
  return bits
}

function usedOf(counts: Uint32Array): number {
  let used = 0
  for (const count of counts) if (count > 0) used++
  return used
}

/** How many bits it takes to store so many bytes. */
function storedBitsOf(out: BitWriter, size: number): number {
  const header = 3 + (-(out.bits + 3) & 7) + 32
  const further = Math.max(0, Math.ceil(size / MOST_STORED) - 1)
  return header + further * 40 + size * 8
}

/** In as many blocks as it takes: no bytes take one as well. */
export function writeStored(out: BitWriter, bytes: Uint8Array): void {
  let at = 0
  do {
    const part = bytes.subarray(at, at + MOST_STORED)
    out.put(STORED, 3)
    out.align()
    out.put(part.length, 16)
    out.put(~part.length & 0xffff, 16)
    out.bytes(part)
    at += part.length
  } while (at < bytes.length)
}

function writeSymbols(
  out: BitWriter,
  { text, from, to, choices, base }: Block,
  literals: Uint8Array,
  literalCode: Uint16Array,
  distances: Uint8Array,
  distanceCode: Uint16Array,
): void {
  for (let at = from; at < to; ) {
    const choice = choices[at - base]!
    if (choice === 0) {
      const byte = text[at]!
      out.put(literalCode[byte]!, literals[byte]!)
      at++
      continue
    }
    const length = choice & LENGTH_MASK
    const group = lengthSymbol[length]!
    out.put(literalCode[FIRST_LENGTH + group]!, literals[FIRST_LENGTH + group]!)
    out.put(length - lengthBase[group]!, lengthExtra[group]!)
    const symbol = (choice >> SYMBOL_SHIFT) & SYMBOL_MASK
    out.put(distanceCode[symbol]!, distances[symbol]!)
    out.put((choice >> DISTANCE_SHIFT) + 1 - distanceBase[symbol]!, distanceExtra[symbol]!)
    at += length
  }
  out.put(literalCode[END_OF_BLOCK]!, literals[END_OF_BLOCK]!)
}

// ---------------------------------------------------------------------------------------------------
// The lengths of the codes, told in codes of their own

const REPEAT = 16
const ZEROS = 17
const MANY_ZEROS = 18
const LENGTH_SYMBOLS = 19
/** Behind each of the symbols above. */
const REPEAT_BITS = new Uint8Array(LENGTH_SYMBOLS)
REPEAT_BITS[REPEAT] = 2
REPEAT_BITS[ZEROS] = 3
REPEAT_BITS[MANY_ZEROS] = 7
/** In this order the lengths of these codes are told: those at the end are often none. */
const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15] as const
const FEWEST_LITERALS = 257
const FEWEST_DISTANCES = 1
const FEWEST_ORDERED = 4
/** Each round finds the best way at the costs of the one before. */
const ROUNDS = 4

const sequence = new Uint8Array(LITERALS + DISTANCES)
/** For each place of the sequence: the symbol with which its best way to the end begins, and how many it stands for. */
const wayBits = new Uint32Array(sequence.length + 1)
const waySymbol = new Uint8Array(sequence.length)
const wayCount = new Uint8Array(sequence.length)
const told = new Uint32Array(LENGTH_SYMBOLS)
const toldLengths = new Uint8Array(LENGTH_SYMBOLS)
const toldCodes = new Uint16Array(LENGTH_SYMBOLS)
const toldCosts = new Uint8Array(LENGTH_SYMBOLS)
let literalsTold = 0
let distancesTold = 0
let orderTold = 0

/** Finds how to tell the lengths of both codes in the fewest bits. @returns how many. */
function describeCodes(): number {
  literalsTold = LITERALS
  while (literalsTold > FEWEST_LITERALS && literalLengths[literalsTold - 1] === 0) literalsTold--
  distancesTold = DISTANCES
  while (distancesTold > FEWEST_DISTANCES && distanceLengths[distancesTold - 1] === 0) distancesTold--
  sequence.set(literalLengths.subarray(0, literalsTold))
  sequence.set(distanceLengths.subarray(0, distancesTold), literalsTold)
  const size = literalsTold + distancesTold
  toldCosts.fill(4)
  let bits = 0
  for (let round = 0; round < ROUNDS; round++) {
    findWay(size)
    told.fill(0)
    for (let at = 0; at < size; at += wayCount[at]!) told[waySymbol[at]!]!++
    // A code of a single symbol is incomplete, which decoders refuse here.
    if (usedOf(told) === 1) told[told[0] === 0 ? 0 : 1] = 1
    findLengths(told, toldLengths, MOST_LENGTH_BITS)
    orderTold = LENGTH_SYMBOLS
    while (orderTold > FEWEST_ORDERED && toldLengths[ORDER[orderTold - 1]!] === 0) orderTold--
    bits = 5 + 5 + 4 + 3 * orderTold + bitsOf(told, toldLengths) + bitsOf(told, REPEAT_BITS)
    for (let symbol = 0; symbol < LENGTH_SYMBOLS; symbol++)
      toldCosts[symbol] = toldLengths[symbol] || MOST_LENGTH_BITS
  }
  return bits
}

function findWay(size: number): void {
  wayBits[size] = 0
  /** How many equal lengths follow each other from here on. */
  let run = 0
  for (let at = size - 1; at >= 0; at--) {
    const length = sequence[at]!
    run = at + 1 < size && sequence[at + 1] === length ? run + 1 : 1
    wayBits[at] = toldCosts[length]! + wayBits[at + 1]!
    waySymbol[at] = length
    wayCount[at] = 1
    if (length === 0) {
      tryWay(at, ZEROS, 3, Math.min(run, 10))
      tryWay(at, MANY_ZEROS, 11, Math.min(run, 138))
    }
    if (at > 0 && sequence[at - 1] === length) tryWay(at, REPEAT, 3, Math.min(run, 6))
  }
}

function tryWay(at: number, symbol: number, fewest: number, most: number): void {
  const cost = toldCosts[symbol]! + REPEAT_BITS[symbol]!
  for (let count = fewest; count <= most; count++) {
    const bits = cost + wayBits[at + count]!
    if (bits >= wayBits[at]!) continue
    wayBits[at] = bits
    waySymbol[at] = symbol
    wayCount[at] = count
  }
}

function writeDescription(out: BitWriter): void {
  out.put(literalsTold - FEWEST_LITERALS, 5)
  out.put(distancesTold - FEWEST_DISTANCES, 5)
  out.put(orderTold - FEWEST_ORDERED, 4)
  for (let i = 0; i < orderTold; i++) out.put(toldLengths[ORDER[i]!]!, 3)
  findCodes(toldLengths, toldCodes)
  for (let at = 0; at < literalsTold + distancesTold; at += wayCount[at]!) {
    const symbol = waySymbol[at]!
    out.put(toldCodes[symbol]!, toldLengths[symbol]!)
    if (symbol >= REPEAT) {
      const fewest = symbol === MANY_ZEROS ? 11 : 3
      out.put(wayCount[at]! - fewest, REPEAT_BITS[symbol]!)
    }
  }
}
