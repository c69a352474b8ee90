/**
 * Shell patterns over byte strings: `*` any run without `/`, `**` any run, `?` one byte but `/`, `[...]`
 * one byte of a set, `\c` the byte c. docs/rsync-protocol.md, section 5.4.
 *
 * Patterns come from clients, so matching must not explode: instead of regular expressions, a matcher
 * that on a mismatch goes back only to the last `*`, and where that one is stopped by a `/`, to the last
 * `**`. Earlier stars need no second try: whatever they could take more, a later one can take as well.
 * Nor does a `*` that was stopped try the same places again when it is reached from a later start, so the
 * work is bounded by the length of the pattern times that of the text.
 */
import type { ByteString } from '../lib/bytes.ts'

/** True when a path component or pattern is to be taken as a pattern at all. */
export function isWild(text: ByteString): boolean {
  return /[*?[]/.test(text)
}

export interface Pattern {
  matches(text: ByteString): boolean
}

/** What matching has taken, in steps of three to eight nanoseconds. */
export interface Work {
  steps: number
}
/** What it takes to compare the ends. */
const STEPS_A_MATCH = 4

/** What an item of a pattern is when it is not the byte with that code. Sets have the numbers from `SET` down. */
const [END, ANY, STAR, DOUBLE_STAR, SET] = [-1, -2, -3, -4, -5]
const SLASH = 0x2f

interface Items {
  readonly codes: Int32Array
  readonly sets: readonly Uint8Array[]
}

/** @param work is added to with each match. */
export function compilePattern(source: ByteString, work: Work = { steps: 0 }): Pattern {
  const items = parse(source)
  // Most names fail by what is literal at the ends, which is compared in no time.
  const head = /^[^*?[\\]*/.exec(source)![0]
  const tail = literalTail(source)
  return {
    matches: (text) => {
      work.steps += STEPS_A_MATCH
      return text.startsWith(head) && text.endsWith(tail) && run(items, text, work)
    },
  }
}

/** Behind the last character that may mean something else. (A regular expression would begin at each character.) */
function literalTail(source: string): string {
  let at = source.length
  while (at > 0 && !'*?[]\\'.includes(source[at - 1]!)) at--
  return source.slice(at)
}

function run({ codes, sets }: Items, text: string, work: Work): boolean {
  let i = 0
  let t = 0
  let starItem = -1
  let starText = 0
  let doubleItem = -1
  let doubleText = 0
  let stoppedItem = -1
  let stoppedText = 0
  for (let steps = 1; ; steps++) {
    const item = i < codes.length ? codes[i]! : END
    if (item === DOUBLE_STAR) {
      doubleItem = ++i
      doubleText = t
      starItem = -1
      continue
    }
    if (item === STAR) {
      starItem = ++i
      if (starItem === stoppedItem && t < stoppedText) t = stoppedText
      starText = t
      continue
    }
    if (t === text.length && item === END) {
      work.steps += steps
      return true
    }
    if (item !== END && t < text.length && accepts(item, text.charCodeAt(t), sets)) {
      i++
      t++
      continue
    }
    if (starItem >= 0 && starText < text.length && text.charCodeAt(starText) !== SLASH) {
      t = ++starText
      i = starItem
    } else if (doubleItem >= 0 && doubleText < text.length) {
      if (starItem >= 0) {
        stoppedItem = starItem
        stoppedText = starText
      }
      t = ++doubleText
      i = doubleItem
      starItem = -1
    } else {
      work.steps += steps
      return false
    }
  }
}

function accepts(item: number, code: number, sets: readonly Uint8Array[]): boolean {
  if (item >= 0) return item === code
  if (item === ANY) return code !== SLASH
  return sets[SET - item]![code] === 1
}

function parse(source: ByteString): Items {
  const codes: number[] = []
  const sets: Uint8Array[] = []
  const tried = new Uint8Array(source.includes('[') ? source.length : 0)
  let i = 0
  while (i < source.length) {
    const c = source[i]!
    if (c === '*') {
      let stars = 0
      while (source[i] === '*') {
        stars++
        i++
      }
      codes.push(stars > 1 ? DOUBLE_STAR : STAR)
    } else if (c === '?') {
      codes.push(ANY)
      i++
    } else if (c === '[') {
      const set = parseSet(source, i, tried)
      codes.push(set ? SET - (sets.push(set.bits) - 1) : c.charCodeAt(0))
      i = set ? set.end : i + 1
    } else {
      if (c === '\\' && i + 1 < source.length) i++
      codes.push(source.charCodeAt(i))
      i++
    }
  }
  return { codes: Int32Array.from(codes), sets }
}

/**
 * `[...]` from `start` on; undefined when it is never closed.
 * @param tried where sets that were never closed had their members: a set that comes to one of those is not
 *   closed either. Without it a row of `[` would be read to its end from each of them.
 */
function parseSet(
  source: ByteString,
  start: number,
  tried: Uint8Array,
): { bits: Uint8Array; end: number } | undefined {
  const bits = MEMBERS.fill(0)
  let i = start + 1
  const negated = source[i] === '!' || source[i] === '^'
  if (negated) i++
  let first = true
  for (; i < source.length; first = false) {
    if (source[i] === ']' && !first) {
      if (negated) for (let code = 0; code < 256; code++) bits[code] = bits[code]! ^ 1
      bits[SLASH] = 0
      return { bits: bits.slice(), end: i + 1 }
    }
    if (!first && tried[i] === 1) return undefined
    if (!first) tried[i] = 1
    const named = source[i + 1] === ':' && /^\[:([a-z]+):\]/.exec(source.slice(i, i + 16))
    const ofClass = named && CLASSES[named[1]!]
    if (named && ofClass) {
      for (let code = 0; code < 128; code++) if (ofClass.test(String.fromCharCode(code))) bits[code] = 1
      i += named[0].length
      continue
    }
    if (source[i] === '\\' && i + 1 < source.length) i++
    const low = source.charCodeAt(i++)
    let high = low
    if (source[i] === '-' && i + 1 < source.length && source[i + 1] !== ']') {
      i++
      if (source[i] === '\\' && i + 1 < source.length) i++
      high = source.charCodeAt(i++)
    }
    for (let code = low; code <= high; code++) bits[code] = 1
  }
  return undefined
}

/** The set that is being parsed: most that are never closed need no memory of their own. */
const MEMBERS = new Uint8Array(256)

const CLASSES: Record<string, RegExp> = {
  alnum: /[A-Za-z0-9]/,
  alpha: /[A-Za-z]/,
  blank: /[ \t]/,
  cntrl: /[\x00-\x1f\x7f]/,
  digit: /[0-9]/,
  graph: /[\x21-\x7e]/,
  lower: /[a-z]/,
  print: /[\x20-\x7e]/,
  punct: /[!-/:-@[-`{-~]/,
  space: /[ \t\n\v\f\r]/,
  upper: /[A-Z]/,
  xdigit: /[0-9A-Fa-f]/,
}
