/**
 * Names that an upstream shows: in the index of a directory, as web servers make one, or in a list that
 * somebody keeps (JSON or text). And patterns of names, in which `*` stands for any text. Pure.
 */
import { Parser } from 'htmlparser2'

/**
 * The names in a page, in its order.
 * - JSON: every string and every key of an object in it, wherever it stands.
 * - HTML: what links lead to, if it lies directly in `directory`; a slash at the end of a name is dropped.
 * - Otherwise: words. A line's `#` begins a comment.
 */
export function namesIn(text: string, directory: URL): string[] {
  const trimmed = text.trimStart()
  if (/^[[{"]/.test(trimmed)) {
    try {
      return stringsIn(JSON.parse(trimmed))
    } catch {
      // Text that begins like JSON.
    }
  }
  if (trimmed.startsWith('<')) return linksIn(text, directory)
  return text.split(/\r\n|\n|\r/).flatMap((line) =>
    line
      .replace(/(?:^|\s)#.*$/, '')
      .split(/[\s,;]+/)
      .filter(Boolean),
  )
}

function stringsIn(root: unknown): string[] {
  const strings: string[] = []
  // A list of what is still to be looked at: JSON may be deeper than the stack.
  const todo: unknown[] = [root]
  while (todo.length > 0) {
    const value = todo.pop()
    if (typeof value === 'string') strings.push(value.replace(/\/$/, ''))
    else if (typeof value === 'number') strings.push(String(value))
    else if (Array.isArray(value)) todo.push(...value.toReversed())
    else if (typeof value === 'object' && value !== null) {
      for (const [key, inner] of Object.entries(value).reverse()) todo.push(inner, key)
    }
  }
  return strings
}

function linksIn(text: string, directory: URL): string[] {
  const names: string[] = []
  const base = new URL('.', directory)
  const parser = new Parser({
    onopentag(tag, { href }) {
      const name = tag === 'a' && href !== undefined ? nameBelow(href, base) : undefined
      if (name !== undefined) names.push(name)
    },
  })
  parser.end(text)
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
