/**
 * Deflate (RFC 1951) for what is compressed once and sent often: 4 to 7 % smaller than at zlib's best level, at two or
 * three megabytes a second (docs/adr/0011-own-deflate.md).
 *
 * A piece is taken in segments of a few hundred KiB. All matches of a segment are found first (matches.ts). Then it is
 * parsed several times (parse.ts): each time the cheapest way through all matches is taken, at the costs that follow
 * from the time before. Where what it is made of changes, a new block begins (split.ts), with costs of its own.
 * In the end each block is written in the smallest of its forms (block.ts).
 */
import { BitWriter } from './deflate/bit-writer.ts'
import { writeBlock, writeStored } from './deflate/block.ts'
import { LENGTH_MASK, MatchFinder } from './deflate/matches.ts'
import { type Costs, Parser } from './deflate/parse.ts'
import { Splitter } from './deflate/split.ts'
import { MAX_DISTANCE, TALLY } from './deflate/symbols.ts'

/** The most of a piece that is worked on at a time: somewhat more than 256 KiB, which then is one segment. */
const MOST_SEGMENT = 288 * 1024
/** A block begins where one of these does. */
const PART = 512
/** What costs follow from, each time that a segment is parsed. Three times more would gain 0.02 %. */
const PASSES: readonly Costs[] = ['counts', 'counts', 'counts', 'codes', 'codes']

/** What working on a segment takes: 14 MB. */
class Desk {
  readonly finder = new MatchFinder(MOST_SEGMENT)
  readonly parser = new Parser(MOST_SEGMENT)
  readonly splitter = new Splitter(Math.ceil(MOST_SEGMENT / PART))
  readonly tallies = new Uint32Array(Math.ceil(MOST_SEGMENT / PART) * TALLY)

  /** Of a block that begins with this part. */
  tallyOf(part: number): Uint32Array {
    return this.tallies.subarray(part * TALLY, (part + 1) * TALLY)
  }
}

/** Had with the first piece that a thread compresses, and kept for the next. */
let desk: Desk | undefined

/**
 * Compresses a piece of a stream that goes on: the last block is an empty stored one (`00 00 FF FF`), as zlib writes
 * it at a sync flush.
 * @param history what the decoder has before the piece; of it, the last 32 KiB count.
 */
export function deflate(piece: Uint8Array, history: Uint8Array = new Uint8Array(0)): Uint8Array {
  desk ??= new Desk()
  const known = history.subarray(Math.max(0, history.length - MAX_DISTANCE))
  const text = new Uint8Array(known.length + piece.length)
  text.set(known)
  text.set(piece, known.length)
  // No block takes more than if it were stored, and few are smaller than a part.
  const out = new BitWriter(piece.length + (piece.length >> 5) + 1024)
  desk.finder.reset()
  desk.finder.skip(text, 0, known.length)
  const size = Math.ceil(piece.length / Math.ceil(piece.length / MOST_SEGMENT))
  for (let at = known.length; at < text.length; ) {
    at = writeSegment(out, desk, text, at, Math.min(text.length, at + size))
  }
  writeStored(out, new Uint8Array(0))
  return out.take()
}

/** @returns where it ended: at `most`, or before it. */
function writeSegment(out: BitWriter, desk: Desk, text: Uint8Array, from: number, most: number): number {
  const { finder, parser } = desk
  const to = finder.find(text, from, most)
  const size = to - from
  parser.parseLazily(finder, size)
  let blocks = split(desk, text, from, size)
  for (const costs of PASSES) {
    parser.begin(size)
    for (const { part, begin, end } of blocks.toReversed()) {
      parser.setCosts(desk.tallyOf(part), costs)
      parser.parse(text, from, size, begin, end, finder)
    }
    blocks = split(desk, text, from, size)
  }
  const { choices } = parser
  let at = 0
  for (const { part, end } of blocks) {
    const begin = at
    while (at < end) at += choices[at] === 0 ? 1 : choices[at]! & LENGTH_MASK
    const block = { text, from: from + begin, to: from + at, choices, base: from, tally: desk.tallyOf(part) }
    if (at > begin) writeBlock(out, block)
  }
  return to
}

/** A block of a segment. The last match of the one before may reach into it. */
interface Span {
  part: number
  begin: number
  end: number
}

/** Finds where blocks begin, going by how the segment is parsed. */
function split({ parser, splitter, tallies }: Desk, text: Uint8Array, from: number, size: number): Span[] {
  const parts = Math.ceil(size / PART)
  parser.tally(text, from, size, PART, tallies)
  const begins = splitter.split(tallies, parts)
  return begins.map((part, i) => {
    const end = Math.min(size, (begins[i + 1] ?? parts) * PART)
    return { part, begin: part * PART, end }
  })
}
