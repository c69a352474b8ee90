/**
 * --skip-compress: which files a client knows to be compressed already.
 *
 * The stock server takes the list and compresses as ever, since its streams can't change their level. Ours
 * can. What it has by default is not taken over: a list that counts "ts" among videos costs a device on a
 * slow line more than it saves here.
 */
import type { ByteString } from '../lib/bytes.ts'

/** More than anybody has kinds of files; each is looked at for every file. */
const MAX_SUFFIXES = 256
/** File systems have no longer names. */
const MAX_SUFFIX_LENGTH = 255

/** One suffix: the characters that may stand at each of its places. */
type Suffix = readonly string[]

/**
 * Tells whether a file is to be compressed as little as possible.
 * @param list suffixes without their dot, separated by slashes; [xyz] is any one of the three.
 */
export function parseSkipList(list: ByteString | undefined): (name: ByteString) => boolean {
  const suffixes = (list ?? '')
    .toLowerCase()
    .split('/', MAX_SUFFIXES)
    .filter((text) => text !== '')
    .map(parseSuffix)
    .filter((suffix) => suffix.length <= MAX_SUFFIX_LENGTH)
  if (suffixes.length === 0) return () => false
  return (name) => {
    const lower = name.slice(-MAX_SUFFIX_LENGTH - 1).toLowerCase()
    return suffixes.some((suffix) => endsWith(lower, suffix))
  }
}

function parseSuffix(text: string): Suffix {
  const places: string[] = []
  /** No set is closed behind it: a row of `[` is not searched to its end from each of them. */
  const lastClose = text.lastIndexOf(']')
  for (let at = 0; at < text.length; at++) {
    const end = text[at] === '[' && at < lastClose ? text.indexOf(']', at) : -1
    // Each character once, so that a set is never longer than there are characters.
    places.push(end < 0 ? text[at]! : [...new Set(text.slice(at + 1, end))].join(''))
    if (end >= 0) at = end
  }
  return places
}

function endsWith(name: string, suffix: Suffix): boolean {
  const start = name.length - suffix.length
  return name[start - 1] === '.' && suffix.every((allowed, i) => allowed.includes(name[start + i]!))
}
