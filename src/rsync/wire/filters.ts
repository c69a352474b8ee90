/**
 * One filter rule as it stands on the wire or in a per-directory file. docs/rsync-protocol.md, section 5.3.
 */
import { PeerError } from '../../errors.ts'
import { ascii, type ByteString, showBytes } from '../../lib/bytes.ts'

/** A pattern that includes or excludes names on the sending side. */
export interface PatternRule {
  type: 'pattern'
  include: boolean
  pattern: ByteString
  /** `!`: the rule applies to what does not match. */
  negate: boolean
  /** `/`: the pattern is matched against the path from the module's root. */
  fromModuleRoot: boolean
}

/** `x`: names of extended attributes that travel, or don't. */
export interface AttributeRule {
  type: 'attribute'
  include: boolean
  pattern: ByteString
  negate: boolean
}

/** A file of rules that is read in each directory. */
export interface DirMergeRule {
  type: 'dir-merge'
  file: ByteString
  /**
   * What stands before the file's name, such as "/" or "/filters/" or "../". Directories above the transfer
   * are read, too, from there on; undefined: none.
   */
  searchedFrom: ByteString | undefined
  /** `/`: so are all patterns of the file. */
  fromModuleRoot: boolean
  /** `n`: subdirectories don't inherit what the file says. */
  noInherit: boolean
  /** `w`: rules are separated by any white space, not by lines. */
  words: boolean
  /** `-` or `+`: each line is a bare pattern of that kind. */
  bare: 'include' | 'exclude' | undefined
  /** `!`: what the file's bare patterns say applies to what does not match. */
  negate: boolean
}

export type FilterRule =
  | PatternRule
  | AttributeRule
  | DirMergeRule
  | { type: 'clear' }
  /** The default rules of CVS, in place of a pattern. */
  | { type: 'cvs-defaults' }
  /** The rule concerns the receiving side alone. */
  | { type: 'ignored' }

/** A rule text is never longer than this; clients' own limit is near it. */
export const MAX_RULE_BYTES = 8192
/** All rules together: most with wildcards are tried on every name, so they cost time more than memory. */
export const MAX_FILTER_BYTES = 256 * 1024
/** Each takes some 700 bytes of memory, however short. */
export const MAX_FILTER_RULES = 65_536

/**
 * @param oldStyle protocol 28 and older: `+ ` or `- ` or a bare pattern, which excludes.
 * @throws PeerError for a rule that can't be understood: sending what a client wants hidden is no answer.
 */
export function parseRule(text: ByteString, oldStyle: boolean): FilterRule {
  if (oldStyle) {
    if (text === '!') return { type: 'clear' }
    if (text.startsWith('+ ')) return pattern(true, text.slice(2) as ByteString)
    if (text.startsWith('- ')) return pattern(false, text.slice(2) as ByteString)
    return pattern(false, text)
  }
  const long = /^(exclude|include|hide|show|protect|risk|dir-merge|merge|clear)(?=[ ,_]|$)/.exec(text)
  const kind = long ? SHORT_KIND[long[1]!]! : text[0]
  if (!kind || !'-+HSPR:.!'.includes(kind)) throw bad(text, 'no such kind of rule')
  let at = long ? long[1]!.length : 1
  if (text[at] === ',') at++
  let modifiers = ''
  while (at < text.length && text[at] !== ' ' && text[at] !== '_') modifiers += text[at++]
  const argument = text.slice(at + 1) as ByteString
  const allowed = kind === ':' || kind === '.' ? '/!srpxCnwe-+' : kind === '!' ? '' : '/!srpxC'
  for (const modifier of modifiers) {
    if (!allowed.includes(modifier)) throw bad(text, `"${modifier}" does not go with "${kind}"`)
  }
  const has = (modifier: string): boolean => modifiers.includes(modifier)

  const receiverOnly = kind === 'P' || kind === 'R' || (has('r') && !has('s'))
  if (receiverOnly) return { type: 'ignored' }
  if (kind === '!') return { type: 'clear' }
  if (kind === ':' || kind === '.') {
    const cvs = has('C')
    const named = argument === '' && cvs ? ascii('.cvsignore') : argument
    const slash = named.lastIndexOf('/')
    const file = named.slice(slash + 1) as ByteString
    if (file === '') throw bad(text, 'a per-directory rule needs the name of a file')
    // None of a file's rules would be about names of files.
    if (has('x')) return { type: 'ignored' }
    return {
      type: 'dir-merge',
      file,
      searchedFrom: slash < 0 ? undefined : (named.slice(0, slash + 1) as ByteString),
      fromModuleRoot: has('/'),
      noInherit: cvs || has('n'),
      words: cvs || has('w'),
      bare: cvs || has('-') ? 'exclude' : has('+') ? 'include' : undefined,
      negate: has('!'),
    }
  }
  if (argument === '') {
    if (kind === '-' && has('C')) return { type: 'cvs-defaults' }
    throw bad(text, 'the pattern is missing')
  }
  const include = kind === '+' || kind === 'S'
  const negate = has('!')
  if (has('x')) return { type: 'attribute', include, pattern: argument, negate }
  return { type: 'pattern', include, pattern: argument, negate, fromModuleRoot: has('/') }
}

function pattern(include: boolean, text: ByteString): FilterRule {
  if (text === '') throw new PeerError('filter', 'an empty pattern')
  return { type: 'pattern', include, pattern: text, negate: false, fromModuleRoot: false }
}

function bad(text: ByteString, why: string): PeerError {
  return new PeerError('filter', `${why}: ${showBytes(text)}`)
}

const SHORT_KIND: Record<string, string> = {
  exclude: '-',
  include: '+',
  hide: 'H',
  show: 'S',
  protect: 'P',
  risk: 'R',
  'dir-merge': ':',
  merge: '.',
  clear: '!',
}
