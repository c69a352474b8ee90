/**
 * Matches by chance. A client first sends its strong sums cut so short that about one large file in a thousand
 * is put together wrongly; it notices by the file's digest and asks again, with whole sums. A server that draws
 * a seed for each connection is wrong about another file each time. Ours keeps its seed and its answers, so it
 * would be wrong about the same file for a whole fleet: it learns from the first client that asks again.
 *
 * Whole sums are a client's word, and one may lie to make answers to others longer. So its word counts only where
 * chance could have done it, and for a few blocks of what is found anew each time: lies don't add up.
 */
import { asBuffer } from '../../lib/bytes.ts'
import { blockLengthOf, type RawSums, type SumHead } from '../wire/sums.ts'
import type { Delta } from './match.ts'

/** Of a weak sum so many bits are worth something, as stock clients reckon (docs/rsync-protocol.md, 8.3). */
const WEAK_BITS = 24
/** Less likely than that, to the power of two: nothing that a fleet will ever see. */
const LEAST_LIKELY = -16
/** A match by chance seldom changes more than what is next to it; where more differs, nothing is learned. */
const MOST_DOUBTFUL = 32
/** Where data is patterned, weak sums are often equal, and chance comes more than once: two blocks of libgs, say. */
const MOST_BY_CHANCE = 8
/** As long as stock clients make them from protocol 30 on. Longer ones are too much to hash in between. */
const LONGEST = 2 ** 17

/** Whether a search by these sums is at all likely to have taken a block for another. */
export function chanceIsLikely(head: SumHead, size: number): boolean {
  if (head.blockLength > LONGEST) return false
  const tries = Math.log2(Math.max(1, size)) + Math.log2(Math.max(1, head.count))
  return tries - (WEAK_BITS + 8 * head.strongLength) >= LEAST_LIKELY
}

/**
 * Whether `found`, by sums cut short, holds a few matches by chance and is else as good as `exact`, which was found
 * by the whole ones.
 * @param whole the sums that `exact` was found by.
 * @param read bytes of the new file.
 */
export async function hasChanceMatches(
  found: Delta,
  exact: Delta,
  whole: RawSums,
  strongOf: (block: Uint8Array) => Uint8Array,
  read: (position: number, length: number) => Promise<Uint8Array>,
): Promise<boolean> {
  const { head, bytes } = whole
  const sure = new Map<number, number>()
  for (const { block, position } of matchesOf(exact, head)) sure.set(position, block)
  const doubtful: Match[] = []
  for (const match of matchesOf(found, head)) {
    if (sure.get(match.position) !== match.block) doubtful.push(match)
    if (doubtful.length > MOST_DOUBTFUL) return false
  }
  let wrong = 0
  for (const { block, position } of doubtful) {
    const data = await read(position, blockLengthOf(head, block))
    const at = block * (4 + head.strongLength) + 4
    const theirs = bytes.subarray(at, at + head.strongLength)
    if (!asBuffer(strongOf(data)).subarray(0, head.strongLength).equals(theirs)) wrong++
  }
  return wrong >= 1 && wrong <= MOST_BY_CHANCE
}

interface Match {
  readonly block: number
  readonly position: number
}

function* matchesOf(delta: Delta, head: SumHead): Generator<Match> {
  let position = 0
  for (const step of delta) {
    if (step < 0) yield { block: -step - 1, position }
    position += step < 0 ? blockLengthOf(head, -step - 1) : step
  }
}
