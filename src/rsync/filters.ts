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
import {
  type DirMergeRule,
  type FilterRule,
  MAX_FILTER_RULES,
  type PatternRule,
  parseRule,
} from './wire/filters.ts'

/** A rule file inside a build that is larger than this is refused. */
const MAX_MERGE_FILE = 1 << 20
/** Each of these rules is looked up in every single directory; people write one or two. */
const MAX_MERGES = 64
/** The clock is looked at before a pattern that is longer, and else once for so many rules: looking costs as much as a rule. */
const LONG_PATTERN = 64
const RULES_A_LOOK = 16

interface Merge extends DirMergeRule {
  /** Lines of the file end in NUL. */
  from0: boolean
}

interface Rule {
  include: boolean
  negate: boolean
  directoriesOnly: boolean
  /** Trying it may take a while. */
  isLong: boolean
  /** `name` is relative to the transfer root; `path` to the module's root. */
  test(name: ByteString, path: ByteString, isDirectory: boolean): boolean
}

type Step = { type: 'rule'; rules: readonly [Rule] } | { type: 'merge'; slot: number }

/** A name that rules are tried on. */
interface Asked {
  readonly name: ByteString
  readonly path: ByteString
  readonly isDirectory: boolean
  readonly scope: FilterScope
  readonly pacer: Pacer
}

/** What holds inside one directory. */
export interface FilterScope {
  /** For each per-directory rule, the rules that its files gave so far. */
  readonly slots: readonly (readonly Rule[])[]
  /** Rules in the scopes from the outermost to this one: those that it shares with the one around it count once. */
  readonly size: number
}

export class Filters {
  readonly #steps: Step[] = []
  readonly #from0: boolean
  readonly #merges: Merge[] = []
  #hasDefaults = false
  readonly #attributes: Rule[] = []

  /**
   * @param from0 lines of rule files end in NUL. So it is with any --files-from, as --from0 comes with it: what
   *   most people's rule files say is then one long rule.
   */
  constructor(rules: readonly FilterRule[], cvsExclude = false, from0 = false) {
    this.#from0 = from0
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

  /**
   * The client has rules for extended attributes: they decide alone then, and attributes of the system, which
   * else stay here, are like others.
   */
  get hasAttributeRules(): boolean {
    return this.#attributes.length > 0
  }

  /** The scope outside of any directory. */
  outermost(): FilterScope {
    return { slots: this.#merges.map(() => []), size: 0 }
  }

  /**
   * The scope inside `directory`, whose rule files are read from the tree.
   * @param base path of the directory from the module's root: where patterns with a leading slash in its
   *   rule files are anchored.
   * @param first the path of the directory that the transfer begins with, when this one lies above it: where
   *   only rules count whose file is searched for there.
   * @throws PeerError when the rule files on the way to here have too many rules, which must all stay in memory.
   */
  async enter(
    tree: Tree,
    directory: number,
    base: ByteString,
    outer: FilterScope,
    pacer: Pacer,
    first?: ByteString,
  ): Promise<FilterScope> {
    const slots: (readonly Rule[])[] = []
    let { size } = outer
    for (const [slot, merge] of this.#merges.entries()) {
      const inherited = merge.noInherit ? [] : outer.slots[slot]!
      const counts = first === undefined || isSearched(merge, base, first)
      const node = counts ? tree.child(directory, merge.file) : -1
      if (node < 0) {
        slots.push(inherited)
        continue
      }
      const rules = await readMergeFile(tree, node, merge, base, inherited, MAX_FILTER_RULES - size, pacer)
      if (rules !== inherited) size += rules.length
      slots.push(rules)
    }
    return { slots, size }
  }

  /**
   * Whether a name goes into the list. A promise when it rests between rules, as a client may send thousands
   * of costly ones; most often the answer is there at once.
   */
  keeps(
    name: ByteString,
    path: ByteString,
    isDirectory: boolean,
    scope: FilterScope,
    pacer: Pacer,
  ): Promise<boolean> | boolean {
    return this.#keepsFrom(0, 0, { name, path, isDirectory, scope, pacer })
  }

  /** The same by the rules from one on: that of a step, and the place in it if it is a rule file's. */
  #keepsFrom(firstStep: number, firstRule: number, asked: Asked): Promise<boolean> | boolean {
    const { name, path, isDirectory, scope, pacer } = asked
    let from = firstRule
    let tried = 0
    for (let at = firstStep; at < this.#steps.length; at++) {
      const step = this.#steps[at]!
      const rules = step.type === 'rule' ? step.rules : scope.slots[step.slot]!
      for (let i = from; i < rules.length; i++) {
        const rule = rules[i]!
        const looks = rule.isLong || ++tried % RULES_A_LOOK === 0
        if (looks && pacer.due) return this.#keepsRested(at, i, asked)
        if (applies(rule, name, path, isDirectory)) return rule.include
      }
      from = 0
    }
    return true
  }

  /** Whether an extended attribute goes with its file. */
  async keepsAttribute(name: ByteString, pacer: Pacer): Promise<boolean> {
    for (const rule of this.#attributes) {
      if (pacer.due) await pacer.rest()
      if (applies(rule, name, name, false)) return rule.include
    }
    return true
  }

  /** Apart from the loop, whose variables no function may hold on to if it is to be fast. */
  async #keepsRested(firstStep: number, firstRule: number, asked: Asked): Promise<boolean> {
    await asked.pacer.rest()
    return this.#keepsFrom(firstStep, firstRule, asked)
  }

  #add(rule: FilterRule): void {
    switch (rule.type) {
      case 'pattern':
        this.#steps.push({ type: 'rule', rules: [compileRule(rule)] })
        break
      case 'attribute':
        this.#attributes.push(compileRule({ ...rule, type: 'pattern', fromModuleRoot: false }))
        break
      case 'dir-merge':
        if (this.#merges.length >= MAX_MERGES)
          throw new PeerError('filter', `more than ${MAX_MERGES} per-directory rules`)
        this.#steps.push({ type: 'merge', slot: this.#merges.push({ ...rule, from0: this.#from0 }) - 1 })
        break
      case 'cvs-defaults':
        // Once is enough: what they do not decide the first time they do not decide later.
        if (this.#hasDefaults) break
        this.#hasDefaults = true
        for (const text of CVS_DEFAULTS) {
          this.#steps.push({ type: 'rule', rules: [compileRule(excludeRule(text))] })
        }
        break
      case 'clear':
        this.#steps.length = 0
        this.#merges.length = 0
        this.#attributes.length = 0
        this.#hasDefaults = false
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
    isLong: text.length > LONG_PATTERN,
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

/** Whether rules from the directory at `base`, above the `first` one of the transfer, count. */
function isSearched({ searchedFrom }: DirMergeRule, base: ByteString, first: ByteString): boolean {
  if (searchedFrom === undefined) return false
  const start: string[] = searchedFrom.startsWith('/') ? [] : first.split('/')
  for (const component of searchedFrom.split('/')) {
    if (component === '..') start.pop()
    else if (component !== '' && component !== '.') start.push(component)
  }
  return `/${base}/`.startsWith(start.length === 0 ? '/' : `/${start.join('/')}/`)
}

/**
 * Rests between rules: a file may hold tens of thousands.
 * @param room for so many rules, inherited ones among them.
 */
async function readMergeFile(
  tree: Tree,
  node: number,
  merge: Merge,
  base: ByteString,
  inherited: readonly Rule[],
  room: number,
  pacer: Pacer,
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
  let own: Rule[] = []
  let parents = inherited
  let withDefaults = false
  for (const text of rulesIn(bytes.toString('latin1'), merge)) {
    if (pacer.due) await pacer.rest()
    if (text === '!') {
      own = []
      parents = []
      withDefaults = false
      continue
    }
    const rule = merge.bare ? bareRule(text, merge) : parseRule(text, false)
    if (rule.type === 'pattern') {
      own.push(compileRule({ ...rule, fromModuleRoot: rule.fromModuleRoot || merge.fromModuleRoot }, base))
    } else if (rule.type === 'cvs-defaults' && !withDefaults) {
      // Once is enough: what they do not decide the first time they do not decide later.
      own.push(...CVS_DEFAULTS.map((t) => compileRule(excludeRule(t), base)))
      withDefaults = true
    }
    if (own.length > 0 && own.length + parents.length > room)
      throw new PeerError('filter', `more than ${MAX_FILTER_RULES} rules in rule files, with "${merge.file}"`)
  }
  return own.length === 0 ? parents : [...own, ...parents]
}

/** The rules of a file, one after the other: words between ASCII's white space, or lines but for comments. */
function* rulesIn(text: string, { words, from0 }: Merge): Generator<ByteString> {
  for (const [piece] of text.matchAll(words ? /[^ \t-\r]+/g : from0 ? /[^\0]+/g : /[^\n]+/g)) {
    const rule = words || !piece.endsWith('\r') ? piece : piece.slice(0, -1)
    if (rule !== '' && (words || !/^[#;]/.test(rule))) yield rule as ByteString
  }
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
