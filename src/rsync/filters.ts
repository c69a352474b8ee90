/**
 * Which names the client wants to see: its filter rules, applied to the virtual tree.
 * docs/rsync-protocol.md, sections 5.3 to 5.6.
 *
 * Rules are tried in order and the first that matches decides; what no rule matches is kept. A
 * per-directory rule file takes the place of its rule: what the current directory's file says comes
 * first, then what its parents' files say.
 */
import { PeerError } from '../errors.ts'
import { ascii, type ByteString } from '../lib/bytes.ts'
import { isRegularMode } from '../lib/file-mode.ts'
import type { Pacer } from '../lib/pacer.ts'
import type { Tree } from './tree.ts'
import { compilePattern, isWild, type Pattern } from './wildmatch.ts'
import { type DirMergeRule, type FilterRule, type PatternRule, parseRule } from './wire/filters.ts'

/** A rule file inside a build that is larger than this is refused. */
const MAX_MERGE_FILE = 1 << 20
/** Each of these rules is looked up in every single directory; people write one or two. */
const MAX_MERGES = 64

interface Rule {
  include: boolean
  negate: boolean
  directoriesOnly: boolean
  /** `name` is relative to the transfer root; `path` to the module's root. */
  test(name: ByteString, path: ByteString, isDirectory: boolean): boolean
}

type Step = { type: 'rule'; rule: Rule } | { type: 'merge'; slot: number }

/** What holds inside one directory: for each per-directory rule, the rules that its files gave so far. */
export type FilterScope = readonly (readonly Rule[])[]

export class Filters {
  readonly #steps: Step[] = []
  readonly #merges: DirMergeRule[] = []

  constructor(rules: readonly FilterRule[], cvsExclude = false) {
    for (const rule of rules) this.#add(rule)
    if (cvsExclude) {
      this.#add(parseRule(ascii(':C '), false))
      this.#add({ type: 'cvs-defaults' })
    }
  }

  /** No rule at all: every name is kept. */
  get isEmpty(): boolean {
    return this.#steps.length === 0
  }

  /** True when directories must be entered by `enter`, as their rule files count. */
  get hasMergeFiles(): boolean {
    return this.#merges.length > 0
  }

  /** The scope outside of any directory. */
  outermost(): FilterScope {
    return this.#merges.map(() => [])
  }

  /**
   * The scope inside `directory`, whose rule files are read from the tree.
   * @param base path of the directory from the module's root: where patterns with a leading slash in its
   *   rule files are anchored.
   * @param onlyRooted the directory lies above the transfer root, where only rules with a leading slash
   *   in the name of their file count.
   */
  async enter(
    tree: Tree,
    directory: number,
    base: ByteString,
    outer: FilterScope,
    onlyRooted = false,
  ): Promise<FilterScope> {
    const scope: (readonly Rule[])[] = []
    for (const [slot, merge] of this.#merges.entries()) {
      const inherited = merge.noInherit ? [] : outer[slot]!
      const node = onlyRooted && !merge.fromModuleRoot ? -1 : tree.child(directory, merge.file)
      scope.push(node < 0 ? inherited : await readMergeFile(tree, node, merge, base, inherited))
    }
    return scope
  }

  /** Whether a name goes into the list. Rests between rules: a client may send thousands of costly ones. */
  async keeps(
    name: ByteString,
    path: ByteString,
    isDirectory: boolean,
    scope: FilterScope,
    pacer: Pacer,
  ): Promise<boolean> {
    for (const step of this.#steps) {
      if (pacer.due) await pacer.rest()
      if (step.type === 'rule') {
        if (applies(step.rule, name, path, isDirectory)) return step.rule.include
      } else {
        for (const rule of scope[step.slot]!) {
          if (pacer.due) await pacer.rest()
          if (applies(rule, name, path, isDirectory)) return rule.include
        }
      }
    }
    return true
  }

  #add(rule: FilterRule): void {
    switch (rule.type) {
      case 'pattern':
        this.#steps.push({ type: 'rule', rule: compileRule(rule) })
        break
      case 'dir-merge':
        if (this.#merges.length >= MAX_MERGES)
          throw new PeerError('filter', `more than ${MAX_MERGES} per-directory rules`)
        this.#steps.push({ type: 'merge', slot: this.#merges.push(rule) - 1 })
        break
      case 'cvs-defaults':
        for (const text of CVS_DEFAULTS) {
          this.#steps.push({ type: 'rule', rule: compileRule(excludeRule(text)) })
        }
        break
      case 'clear':
        this.#steps.length = 0
        this.#merges.length = 0
        break
      case 'ignored':
        break
    }
  }
}

function applies(rule: Rule, name: ByteString, path: ByteString, isDirectory: boolean): boolean {
  const matched = (!rule.directoriesOnly || isDirectory) && rule.test(name, path, isDirectory)
  return matched !== rule.negate
}

/**
 * @param base for a rule of a rule file: the path of its directory from the module's root, where a pattern
 *   with a leading slash is anchored. Without it that is the transfer root.
 */
function compileRule(rule: PatternRule, base?: ByteString): Rule {
  let text = rule.pattern
  const directoriesOnly = text.length > 1 && text.endsWith('/')
  if (directoriesOnly) text = text.slice(0, -1) as ByteString
  const slashes = text.split('/').length - 1
  const anchored = text.startsWith('/')
  if (anchored) text = text.slice(1) as ByteString
  return {
    include: rule.include,
    negate: rule.negate,
    directoriesOnly,
    test: compileTest(text, { slashes, anchored, fromModuleRoot: rule.fromModuleRoot, base }),
  }
}

/** The table of docs/rsync-protocol.md, section 5.4, one case after the other. */
function compileTest(
  text: ByteString,
  how: { slashes: number; anchored: boolean; fromModuleRoot: boolean; base: ByteString | undefined },
): Rule['test'] {
  const { slashes, anchored, fromModuleRoot, base } = how
  const wild = isWild(text)
  const doubleStar = text.includes('**')
  // Made when it is first needed: thousands of patterns at once would take a while.
  let compiled: Pattern | undefined
  const equals = (name: ByteString): boolean => {
    if (!wild) return name === text
    compiled ??= compilePattern(text)
    return compiled.matches(name)
  }
  // `dir/***` matches the directory itself, too.
  const alsoItself = text.endsWith('/***')
  const whole = (name: ByteString, isDirectory: boolean): boolean =>
    equals(name) || (alsoItself && isDirectory && equals(`${name}/` as ByteString))

  if (anchored && base !== undefined && !fromModuleRoot) {
    const above = base === '' ? '' : `${base}/`
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

/** Tests the last `slashes` + 1 components; false when there are fewer. */
function tailWith(name: ByteString, slashes: number, test: (tail: ByteString) => boolean): boolean {
  let at = name.length
  for (let n = 0; n <= slashes; n++) {
    at = name.lastIndexOf('/', at - 1)
    if (at < 0) return n === slashes && test(name)
  }
  return test(name.slice(at + 1) as ByteString)
}

async function readMergeFile(
  tree: Tree,
  node: number,
  merge: DirMergeRule,
  base: ByteString,
  inherited: readonly Rule[],
): Promise<readonly Rule[]> {
  if (!isRegularMode(tree.mode(node))) return inherited
  if (tree.size(node) > MAX_MERGE_FILE)
    throw new PeerError('filter', `the rule file "${merge.file}" is too large`)
  const content = await tree.open(node)
  const bytes = Buffer.alloc(content.size)
  try {
    await content.read([bytes], 0)
  } finally {
    content.close()
  }
  const text = bytes.toString('latin1') as ByteString
  const words = merge.words ? text.split(/\s+/) : text.split(/\r?\n/).filter((line) => !/^[#;]/.test(line))
  let own: Rule[] = []
  let parents = inherited
  for (const word of words as ByteString[]) {
    if (word === '') continue
    if (word === '!') {
      own = []
      parents = []
      continue
    }
    const rule = merge.bare ? bareRule(word, merge) : parseRule(word, false)
    if (rule.type === 'pattern') own.push(compileRule(rule, base))
    else if (rule.type === 'cvs-defaults')
      own.push(...CVS_DEFAULTS.map((t) => compileRule(excludeRule(t), base)))
  }
  return own.length === 0 ? parents : [...own, ...parents]
}

function bareRule(text: ByteString, merge: DirMergeRule): PatternRule {
  return {
    type: 'pattern',
    include: merge.bare === 'include',
    pattern: text,
    negate: merge.negate,
    fromModuleRoot: false,
  }
}

function excludeRule(text: string): PatternRule {
  return { type: 'pattern', include: false, pattern: ascii(text), negate: false, fromModuleRoot: false }
}

/** docs/rsync-protocol.md, section 5.6. */
const CVS_DEFAULTS = (
  'RCS SCCS CVS CVS.adm RCSLOG cvslog.* tags TAGS .make.state .nse_depinfo *~ #* .#* ,* _$* *$ *.old *.bak ' +
  '*.BAK *.orig *.rej .del-* *.a *.olb *.o *.obj *.so *.exe *.Z *.elc *.ln core .svn/ .git/ .hg/ .bzr/'
).split(' ')
