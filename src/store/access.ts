/**
 * When builds were accessed, in an order that no clock can upset.
 *
 * Each access gets a number, one more than any before. The file `accessed` of a build holds the number of
 * its last one and the time by the clock then, which its mtime repeats:
 *
 *     1042 1767225600000
 *
 * Eviction goes by the numbers, people read the time. A file whose mtime is another than it says was
 * touched by a person, who means the time: the build moves to where that time belongs among the others.
 */

export interface AccessMark {
  /** Greater is later. */
  sequence: number
  /** By the clock, in ms since 1970. */
  time: number
}

/** File systems keep times to the nanosecond, or to two seconds (FAT); nobody touches a file so soon. */
const SAME_TIME_MS = 2000
/** Longer than any mark. */
const MAX_MARK = 64

export function encodeAccess({ sequence, time }: AccessMark): Buffer {
  return Buffer.from(`${sequence} ${time}\n`)
}

/** Undefined for what is no mark, such as an empty file that somebody touched. */
export function decodeAccess(bytes: Uint8Array): AccessMark | undefined {
  if (bytes.length > MAX_MARK) return undefined
  const match = /^(\d{1,15}) (-?\d{1,16})\n$/.exec(Buffer.from(bytes).toString('latin1'))
  return match ? { sequence: Number(match[1]), time: Number(match[2]) } : undefined
}

/** Whether a person changed the mtime of a file with this mark. */
export function isTouched(mark: AccessMark, mtime: number): boolean {
  return Math.abs(mark.time - mtime) > SAME_TIME_MS
}

/**
 * The number for a build that somebody touched: behind the latest one that was accessed before that time,
 * ahead of the next. Times that lie in the future, by a clock that went wrong, count as now.
 */
export function placeTouched(mtime: number, others: Iterable<AccessMark>, now: number): number {
  const inOrder = [...others].sort((a, b) => a.sequence - b.sequence)
  const time = Math.min(mtime, now)
  const before = inOrder.findLastIndex((other) => Math.min(other.time, now) <= time)
  const low = before < 0 ? -1 : inOrder[before]!.sequence
  const high = inOrder[before + 1]?.sequence ?? low + 2
  return low + (high - low) / 2
}
