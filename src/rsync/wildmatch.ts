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

type Item =
  | { type: 'byte'; code: number }
  | { type: 'any' }
  | { type: 'set'; bits: Uint8Array }
  | { type: 'star' }
  | { type: 'double-star' }

const SLASH = 0x2f

export function compilePattern(source: ByteString): Pattern {
  const items = parse(source)
  return { matches: (text) => run(items, text) }
}

function run(items: readonly Item[], text: ByteString): boolean {
  let i = 0
  let t = 0
  let starItem = -1
  let starText = 0
  let doubleItem = -1
  let doubleText = 0
  let stoppedItem = -1
  let stoppedText = 0
  for (;;) {
    const item = items[i]
    if (item?.type === 'double-star') {
      doubleItem = ++i
      doubleText = t
      starItem = -1
      continue
    }
    if (item?.type === 'star') {
      starItem = ++i
      if (starItem === stoppedItem && t < stoppedText) t = stoppedText
      starText = t
      continue
    }
    if (t === text.length && item === undefined) return true
    if (item !== undefined && t < text.length && accepts(item, text.charCodeAt(t))) {
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
      return false
    }
  }
}

function accepts(item: Item, code: number): boolean {
  switch (item.type) {
    case 'byte':
      return item.code === code
    case 'any':
      return code !== SLASH
    case 'set':
      return item.bits[code] === 1
    default:
      return false
  }
}

function parse(source: ByteString): Item[] {
  const items: Item[] = []
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
      items.push({ type: stars > 1 ? 'double-star' : 'star' })
    } else if (c === '?') {
      items.push({ type: 'any' })
      i++
    } else if (c === '[') {
      const set = parseSet(source, i, tried)
      items.push(set ? { type: 'set', bits: set.bits } : { type: 'byte', code: c.charCodeAt(0) })
      i = set ? set.end : i + 1
    } else {
      if (c === '\\' && i + 1 < source.length) i++
      items.push({ type: 'byte', code: source.charCodeAt(i) })
      i++
    }
  }
  return items
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
  const bits = SET.fill(0)
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
const SET = new Uint8Array(256)

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
