/**
 * Names that an upstream shows: in the index of a directory, as web servers make one, or in a list that
 * somebody keeps (JSON or text). And patterns of names, in which `*` stands for any text. Pure, but for its pauses.
 */
import type { Pacer } from '../lib/pacer.ts'
import { timeIn, timeOfNumber } from './dates.ts'
import { htmlparser } from './late-libraries.ts'

/** A name, and when what it names was last changed; undefined where that is not told. */
export interface ListedName {
  readonly name: string
  readonly changed: Date | undefined
}

/** How far a page is read. */
export interface NamesOptions {
  /** More names than these are not looked for. */
  most: number
  /** A page is a matter of milliseconds, or of a second: others get their turn. */
  pacer: Pacer
}

/** A page is parsed a piece at a time. */
const PIECE = 32 << 10
/** Lines of a text; one that is very long is cut between two words, if it has any. */
const LINES = /[^\r\n]{1,32768}(?![^\s,;])|[^\r\n]{1,32768}/g
/** What stands between one link and the next, as far as it is looked at for a time. */
const MAX_BESIDE = 400
/** In a list of JSON: what a key that says when is called. */
const TIME_KEY =
  /^(?:m?time|date|timestamp|(?:last_?)?modified|(?:created|updated|published)(?:_?at|_?on)?)$/i

/**
 * The names in a page, in its order, with the times that stand beside them.
 * - JSON: every string and every key of an object in it, wherever it stands. A time is what an object has beside
 *   its texts, under a key that says so, or what a name is the key of.
 * - HTML: what links lead to, if it lies directly in `directory`; a slash at the end of a name is dropped. A time
 *   stands behind its link.
 * - Otherwise: words. A line's `#` begins a comment. A time stands in the same line.
 */
export async function namesIn(text: string, directory: URL, options: NamesOptions): Promise<ListedName[]> {
  const trimmed = text.trimStart()
  if (/^[[{"]/.test(trimmed)) {
    try {
      return await stringsIn(JSON.parse(trimmed), options)
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
      // Text that begins like JSON.
    }
  }
  return trimmed.startsWith('<') ? await linksIn(text, directory, options) : await wordsIn(text, options)
}

async function wordsIn(text: string, { most, pacer }: NamesOptions): Promise<ListedName[]> {
  const names: ListedName[] = []
  for (const [line] of text.matchAll(LINES)) {
    if (pacer.due) await pacer.rest()
    const words = line
      .replace(/(?:^|\s)#.*$/, '')
      .split(/[\s,;]+/)
      .filter(Boolean)
    const changed = words.length > 1 ? timeIn(line) : undefined
    for (const name of words) names.push({ name, changed })
    if (names.length > most) break
  }
  return names
}

async function stringsIn(root: unknown, { most, pacer }: NamesOptions): Promise<ListedName[]> {
  const names: ListedName[] = []
  // A list of what is still to be looked at: JSON may be deeper than the stack.
  const todo: { value: unknown; changed?: Date | undefined }[] = [{ value: root }]
  while (todo.length > 0 && names.length <= most) {
    if (pacer.due) await pacer.rest()
    const { value, changed } = todo.pop()!
    if (typeof value === 'string') names.push({ name: value.replace(/\/$/, ''), changed })
    else if (typeof value === 'number') names.push({ name: String(value), changed })
    else if (Array.isArray(value)) for (const inner of value.toReversed()) todo.push({ value: inner })
    else if (typeof value === 'object' && value !== null) {
      const own = timeOfObject(value)
      for (const [key, inner] of Object.entries(value).reverse())
        todo.push({ value: inner, changed: own }, { value: key, changed: timeOfValue(inner) })
    }
  }
  return names
}

/** What an object says of when. */
function timeOfObject(object: object): Date | undefined {
  for (const [key, value] of Object.entries(object)) {
    if (!TIME_KEY.test(key)) continue
    const time = typeof value === 'number' ? timeOfNumber(value) : timeOfText(value)
    if (time) return time
  }
  return undefined
}

/** What a name is the key of may be its time, or say it. */
function timeOfValue(value: unknown): Date | undefined {
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
  return isObject ? timeOfObject(value) : timeOfText(value)
}

function timeOfText(value: unknown): Date | undefined {
  return typeof value === 'string' && value.length < MAX_BESIDE ? timeIn(value) : undefined
}

async function linksIn(text: string, directory: URL, { most, pacer }: NamesOptions): Promise<ListedName[]> {
  const names: { name: string; changed: Date | undefined }[] = []
  const base = new URL('.', directory)
  let last: (typeof names)[number] | undefined
  /** What stands behind the last link; undefined within one. */
  let beside: string | undefined
  const dateLast = (): void => {
    if (last && beside) last.changed ??= timeIn(beside)
    last = undefined
    beside = undefined
  }
  const { Parser } = await htmlparser()
  const parser = new Parser({
    onopentag(tag, { href, datetime }) {
      if (tag === 'time' && last && datetime !== undefined) last.changed ??= timeOfText(datetime)
      if (tag !== 'a' || href === undefined) return
      dateLast()
      const name = nameBelow(href, base)
      if (name === undefined) return
      last = { name, changed: undefined }
      names.push(last)
    },
    ontext(part) {
      if (beside !== undefined && beside.length < MAX_BESIDE) beside += part.slice(0, MAX_BESIDE)
    },
    onclosetag(tag) {
      if (tag === 'a') beside = ''
    },
  })
  for (let at = 0; at < text.length && names.length <= most; at += PIECE) {
    parser.write(text.slice(at, at + PIECE))
    if (pacer.due) await pacer.rest()
  }
  parser.end()
  dateLast()
  return names
}

/** The name of what a link leads to, if it lies directly in the directory. */
function nameBelow(href: string, directory: URL): string | undefined {
  if (!URL.canParse(href, directory)) return undefined
  const url = new URL(href, directory)
  // A query sorts the page in another way; it is no file.
  if (url.origin !== directory.origin || url.search !== '' || !url.pathname.startsWith(directory.pathname))
    return undefined
  const rest = url.pathname.slice(directory.pathname.length).replace(/\/$/, '')
  if (rest === '' || rest.includes('/')) return undefined
  try {
    const name = decodeURIComponent(rest)
    return name.includes('/') ? undefined : name
  } catch {
    return undefined
  }
}

/** Endings of what lies beside an archive and is none. */
const BESIDE = /\.(?:md5|sha1|sha256|sha512|asc|sig|gpg|minisig|zsync|torrent)$/i

/** A name with `*` as a pattern, each star a group. A star does not take a name that begins with a dot, nor a slash. */
export function starPattern(name: string): RegExp {
  const parts = name.split('*').map((part) => part.replace(/[\\^$.+?()[\]{}|]/g, '\\$&'))
  return new RegExp(`^${name.startsWith('*') ? '(?!\\.)' : ''}${parts.join('([^/]*)')}$`, 's')
}

/**
 * What a pattern's stars stand for in the one that is meant among these names: the last as a person would
 * sort them, numbers by their value, so the latest of those with a date. What lies beside archives is passed
 * over, unless the pattern asks for it.
 */
export function latestMatch(
  pattern: string,
  names: Iterable<string>,
): { name: string; stars: string[] } | undefined {
  const matches = starPattern(pattern)
  const wantsBeside = BESIDE.test(pattern)
  let latest: { name: string; stars: string[] } | undefined
  for (const name of names) {
    const match = matches.exec(name)
    if (!match || (!wantsBeside && BESIDE.test(name))) continue
    if (!latest || NATURAL.compare(name, latest.name) > 0) latest = { name, stars: match.slice(1) }
  }
  return latest
}

const NATURAL = new Intl.Collator('en', { numeric: true })
