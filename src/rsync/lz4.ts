/**
 * LZ4 blocks, as the lz4 codec sends them: compression alone, of pieces that stand for themselves.
 *
 * The block format is public (github.com/lz4/lz4, doc/lz4_Block_format.md): a row of sequences, each a
 * token, literal bytes, and a match told by its distance; the last sequence has literals only. Its end
 * rules hold: the last 5 bytes are literals, and no match begins within the last 12 bytes.
 *
 * The search is greedy, with one candidate for each hash, and strides on where nothing matches. It takes
 * some 50 microseconds for a piece, so it runs where it is called.
 */

/** The largest piece: positions in it are kept in 16 bits, and every distance then fits the format. */
export const MAX_LZ4_SOURCE = 0xffff

const MIN_MATCH = 4
/** The last bytes of a block are literals. */
const LAST_LITERALS = 5
/** No match begins so close to the end. */
const MATCH_LIMIT = 12
/** A length that fills its half of the token goes on in bytes behind it. */
const NIBBLE = 15
const HASH_BITS = 12
/** 2^32 over the golden ratio: spreads what 4 bytes say over the upper bits. */
const HASH_FACTOR = 0x9e3779b1
/** After 2^6 misses in a row every second byte is tried, then every third, and so on. */
const SKIP_SHIFT = 6
/** Literal runs up to this length are copied byte by byte. */
const SHORT_RUN = 32

/** Where a hash was met last, plus one; 0 for never. Filled anew for each piece. */
const lastSeen = new Uint16Array(1 << HASH_BITS)

/** The most bytes that a piece of this size takes when nothing in it repeats. */
export function lz4Bound(size: number): number {
  return size + Math.floor(size / 255) + 16
}

/** One complete block. */
export function compressLz4Block(source: Uint8Array): Uint8Array {
  if (source.length > MAX_LZ4_SOURCE) throw new RangeError(`a piece of ${source.length} bytes`)
  const target = Buffer.allocUnsafe(lz4Bound(source.length))
  const lastMatchStart = source.length - MATCH_LIMIT
  const matchEnd = source.length - LAST_LITERALS
  lastSeen.fill(0)
  let written = 0
  let anchor = 0
  let misses = 1 << SKIP_SHIFT
  for (let at = 0; at <= lastMatchStart; ) {
    const here = u32(source, at)
    const hash = Math.imul(here, HASH_FACTOR) >>> (32 - HASH_BITS)
    const candidate = lastSeen[hash]! - 1
    lastSeen[hash] = at + 1
    if (candidate < 0 || u32(source, candidate) !== here) {
      at += misses++ >> SKIP_SHIFT
      continue
    }
    misses = 1 << SKIP_SHIFT
    let end = at + MIN_MATCH
    for (let from = candidate + MIN_MATCH; end < matchEnd && source[from] === source[end]; from++) end++
    written = putSequence(target, written, source, anchor, at, at - candidate, end - at)
    at = end
    anchor = end
  }
  return target.subarray(0, putSequence(target, written, source, anchor, source.length, 0, 0))
}

/**
 * Literals and the match behind them.
 * @param distance 0 for the last sequence, which has no match.
 */
function putSequence(
  target: Buffer,
  start: number,
  source: Uint8Array,
  literalStart: number,
  literalEnd: number,
  distance: number,
  matchLength: number,
): number {
  const literals = literalEnd - literalStart
  const beyond = distance === 0 ? 0 : matchLength - MIN_MATCH
  let at = start
  target[at++] = (Math.min(literals, NIBBLE) << 4) | Math.min(beyond, NIBBLE)
  at = putLength(target, at, literals)
  // Most runs are a few bytes long: a loop is done before a view of them would be made.
  if (literals > SHORT_RUN) {
    target.set(source.subarray(literalStart, literalEnd), at)
    at += literals
  } else {
    for (let from = literalStart; from < literalEnd; from++) target[at++] = source[from]!
  }
  if (distance === 0) return at
  target[at++] = distance & 0xff
  target[at++] = distance >> 8
  return putLength(target, at, beyond)
}

/** What of a length its half of the token does not hold. */
function putLength(target: Buffer, start: number, length: number): number {
  if (length < NIBBLE) return start
  let at = start
  let rest = length - NIBBLE
  for (; rest >= 255; rest -= 255) target[at++] = 255
  target[at++] = rest
  return at
}

function u32(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
}
