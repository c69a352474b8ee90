/**
 * One filter rule that has a pattern: which names it applies to. docs/rsync-protocol.md, section 5.4.
 */
import type { ByteString } from '../lib/bytes.ts'
import { compilePattern, isWild, type Pattern, type Work } from './wildmatch.ts'
import type { PatternRule } from './wire/filters.ts'

/** A name that rules are tried on. */
export interface Named {
  /** Relative to the transfer root. */
  readonly name: ByteString
  /** From the module's root. */
  readonly path: ByteString
  readonly isDirectory: boolean
}

export interface Rule {
  readonly include: boolean
  readonly negate: boolean
  readonly directoriesOnly: boolean
  /** Trying it may take a while. */
  readonly isLong: boolean
  /** What names must be equal to that the rule applies to, where that is all there is to it. */
  readonly literal: Literal | undefined
  test(name: ByteString, path: ByteString, isDirectory: boolean): boolean
}

export interface Literal {
  readonly subject: 'name' | 'path'
  /** The last components of the subject with so many slashes between them; undefined: all of it. */
  readonly slashes: number | undefined
  readonly text: string
}

export function applies(rule: Rule, { name, path, isDirectory }: Named): boolean {
  const matched = (!rule.directoriesOnly || isDirectory) && rule.test(name, path, isDirectory)
  return matched !== rule.negate
}

/** A pattern that is longer takes a while to be tried. */
const LONG_PATTERN = 64

/**
 * @param work is added to with each try of a wildcard.
 * @param base for a rule of a rule file: the path of its directory from the module's root, where a pattern
 *   with a leading slash is anchored. Without it that is the transfer root.
 */
export function compileRule(rule: PatternRule, work: Work, base?: ByteString): Rule {
  const { include, negate, fromModuleRoot } = rule
  let text = rule.pattern
  const directoriesOnly = text.length > 1 && text.endsWith('/')
  if (directoriesOnly) text = text.slice(0, -1) as ByteString
  const slashes = text.split('/').length - 1
  const anchored = text.startsWith('/')
  if (anchored) text = text.slice(1) as ByteString
  const how = { slashes, anchored, fromModuleRoot, base }
  return {
    ...{ include, negate, directoriesOnly, isLong: text.length > LONG_PATTERN },
    literal: negate || isWild(text) ? undefined : literalOf(text, how),
    test: compileTest(text, how, work),
  }
}

/** Where a pattern may match, and of what. */
interface How {
  slashes: number
  anchored: boolean
  fromModuleRoot: boolean
  base: ByteString | undefined
}

/** The same as `compileTest` of a pattern without wildcards, as something that can be looked up. */
function literalOf(text: ByteString, { slashes, anchored, fromModuleRoot, base }: How): Literal {
  const subject = fromModuleRoot ? 'path' : 'name'
  if (!anchored) return { subject, slashes, text }
  if (base === undefined || fromModuleRoot) return { subject, slashes: undefined, text }
  return { subject: 'path', slashes: undefined, text: below(base) + text }
}

/** The table of docs/rsync-protocol.md, section 5.4, one case after the other. */
function compileTest(
  text: ByteString,
  { slashes, anchored, fromModuleRoot, base }: How,
  work: Work,
): Rule['test'] {
  const wild = isWild(text)
  const doubleStar = text.includes('**')
  // Made when it is first needed: thousands of patterns at once would take a while.
  let compiled: Pattern | undefined
  const equals = (name: ByteString): boolean => {
    if (!wild) return name === text
    compiled ??= compilePattern(text, work)
    return compiled.matches(name)
  }
  // `dir/***` matches the directory itself, too.
  const alsoItself = text.endsWith('/***')
  const whole = (name: ByteString, isDirectory: boolean): boolean =>
    equals(name) || (alsoItself && isDirectory && equals(`${name}/` as ByteString))

  if (anchored && base !== undefined && !fromModuleRoot) {
    const above = below(base)
    return (_name, path, isDirectory) =>
      path.startsWith(above) && whole(path.slice(above.length) as ByteString, isDirectory)
  }
  const test = (subject: ByteString, isDirectory: boolean): boolean => {
    if (anchored) return whole(subject, isDirectory)
    if (slashes === 0 && !doubleStar) {
      return equals(subject.slice(subject.lastIndexOf('/') + 1) as ByteString)
    }
    if (!wild) return subject === text || subject.endsWith(`/${text}`)
    if (!doubleStar) return tailWith(subject, slashes, equals)
    if (whole(subject, isDirectory)) return true
    if (text.startsWith('**')) return whole(`/${subject}` as ByteString, isDirectory)
    for (let at = subject.indexOf('/'); at >= 0; at = subject.indexOf('/', at + 1)) {
      if (whole(subject.slice(at + 1) as ByteString, isDirectory)) return true
    }
    return false
  }
  return (name, path, isDirectory) => test(fromModuleRoot ? path : name, isDirectory)
}

/** What paths begin with that lie in a directory. */
function below(directory: ByteString): string {
  return directory === '' ? '' : `${directory}/`
}

/** Tests the last `slashes` + 1 components; false when there are fewer. */
function tailWith(name: ByteString, slashes: number, test: (tail: ByteString) => boolean): boolean {
  let at = name.length
  for (let n = 0; n <= slashes; n++) {
    at = name.lastIndexOf('/', at - 1)
    if (at < 0) return n === slashes && test(name)
  }
  return test(name.slice(at + 1) as ByteString)
}
