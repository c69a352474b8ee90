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
import { applies, compileRule, type Named, type Rule } from './filter-rule.ts'
import { RuleList } from './rule-list.ts'
import type { Tree } from './tree.ts'
import type { Work } from './wildmatch.ts'
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
/** The clock is looked at before a long pattern, and else once for so many rules: looking costs as much as a rule. */
const RULES_A_LOOK = 16
/** What a try of a rule takes, beside its pattern, and what looking a name up in a table does. */
const STEPS_A_TRY = 4
const STEPS_A_LOOKUP = 8
/**
 * Steps for one list: ten to twenty seconds. Three hundred rules such as `*.o` for half a million names are 1.2e9; one that
 * has many slashes to begin at takes more.
 */
const MOST_STEPS = 1.5e9

interface Merge extends DirMergeRule {
  /** Lines of the file end in NUL. */
  from0: boolean
}

/** Rules of the client that follow each other, or the place of what rule files say. */
type Step = { type: 'rules'; lists: readonly [RuleList] } | { type: 'merge'; slot: number }

/** A name that rules are tried on. */
interface Asked extends Named {
  readonly scope: FilterScope
  readonly pacer: Pacer
}

/** What holds inside one directory. */
export interface FilterScope {
  /** For each per-directory rule, what its files say: this directory's, then that of those above it. */
  readonly slots: readonly (readonly RuleList[])[]
  /** Rules in the scopes from the outermost to this one. */
  readonly size: number
}

export interface FilterOptions {
  /** As by -C. */
  cvsExclude?: boolean
  /**
   * Lines of rule files end in NUL. So it is with any --files-from, as --from0 comes with it: what most people's
   * rule files say is then one long rule.
   */
  from0?: boolean
  /** What trying rules on names may take, in all; see `MOST_STEPS`. */
  mostSteps?: number
}

export class Filters {
  readonly #steps: Step[] = []
  readonly #from0: boolean
  readonly #merges: Merge[] = []
  #hasDefaults = false
  readonly #attributes: Rule[] = []
  readonly #mostSteps: number
  readonly #work: Work = { steps: 0 }

  constructor(
    rules: readonly FilterRule[],
    { cvsExclude = false, from0 = false, mostSteps = MOST_STEPS }: FilterOptions = {},
  ) {
    this.#from0 = from0
    this.#mostSteps = mostSteps
    for (const rule of rules) this.#add(rule)
    if (cvsExclude) this.#addCvsRules()
  }

  /** The same, with rests: a client may send tens of thousands of rules. */
  static async of(rules: readonly FilterRule[], options: FilterOptions, pacer: Pacer): Promise<Filters> {
    const filters = new Filters([], { ...options, cvsExclude: false })
    for (const rule of rules) {
      if (pacer.due) await pacer.rest()
      filters.#add(rule)
    }
    if (options.cvsExclude) filters.#addCvsRules()
    return filters
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
    const slots: (readonly RuleList[])[] = []
    let { size } = outer
    for (const [slot, merge] of this.#merges.entries()) {
      const inherited = merge.noInherit ? [] : outer.slots[slot]!
      const counts = first === undefined || isSearched(merge, base, first)
      const node = counts ? tree.child(directory, merge.file) : -1
      const found =
        node < 0
          ? undefined
          : await readMergeFile(tree, node, merge, {
              base,
              room: MAX_FILTER_RULES - size,
              work: this.#work,
              pacer,
            })
      if (!found) {
        slots.push(inherited)
        continue
      }
      const { list, clears } = found
      size += list.rules.length
      slots.push([...(list.rules.length > 0 ? [list] : []), ...(clears ? [] : inherited)])
    }
    return { slots, size }
  }

  /**
   * Whether a name goes into the list. A promise when it rests between rules, as a client may send thousands
   * of costly ones; most often the answer is there at once.
   * @throws PeerError when all names so far and the rules were too many together.
   */
  keeps(
    name: ByteString,
    path: ByteString,
    isDirectory: boolean,
    scope: FilterScope,
    pacer: Pacer,
  ): Promise<boolean> | boolean {
    return this.#keepsFrom(0, 0, 0, { name, path, isDirectory, scope, pacer })
  }

  /** The same by the rules from one on: that of a step, of a list in it, and of those that are tried there. */
  #keepsFrom(
    firstStep: number,
    firstList: number,
    firstTried: number,
    asked: Asked,
  ): Promise<boolean> | boolean {
    const { scope, pacer } = asked
    let [fromList, fromTried] = [firstList, firstTried]
    let looked = 0
    for (let at = firstStep; at < this.#steps.length; at++) {
      const step = this.#steps[at]!
      const lists = step.type === 'rules' ? step.lists : scope.slots[step.slot]!
      for (let l = fromList; l < lists.length; l++) {
        if (++looked % RULES_A_LOOK === 0 && pacer.due) return this.#keepsRested(at, l, fromTried, asked)
        const { rules, tried, tables } = lists[l]!
        if (tables > 0) this.#count(tables * STEPS_A_LOOKUP)
        const literal = tables > 0 ? lists[l]!.firstLiteral(asked) : rules.length
        for (let i = fromTried; i < tried.length && tried[i]! < literal; i++) {
          const rule = rules[tried[i]!]!
          const looks = rule.isLong || ++looked % RULES_A_LOOK === 0
          if (looks && pacer.due) return this.#keepsRested(at, l, i, asked)
          this.#count(STEPS_A_TRY)
          if (applies(rule, asked)) return rule.include
        }
        if (literal < rules.length) return rules[literal]!.include
        fromTried = 0
      }
      fromList = 0
    }
    return true
  }

  /** Apart from the loop, whose variables no function may hold on to if it is to be fast. */
  async #keepsRested(
    firstStep: number,
    firstList: number,
    firstTried: number,
    asked: Asked,
  ): Promise<boolean> {
    await asked.pacer.rest()
    return this.#keepsFrom(firstStep, firstList, firstTried, asked)
  }

  /** Whether an extended attribute goes with its file. */
  async keepsAttribute(name: ByteString, pacer: Pacer): Promise<boolean> {
    const named = { name, path: name, isDirectory: false }
    for (const rule of this.#attributes) {
      if (pacer.due) await pacer.rest()
      this.#count(STEPS_A_TRY)
      if (applies(rule, named)) return rule.include
    }
    return true
  }

  /** Before something is done. @throws PeerError when names and rules are so many that nobody can have meant it. */
  #count(steps: number): void {
    this.#work.steps += steps
    if (this.#work.steps > this.#mostSteps) {
      throw new PeerError('filter', 'there are too many rules for so many names: use fewer with wildcards')
    }
  }

  #add(rule: FilterRule): void {
    switch (rule.type) {
      case 'pattern':
        this.#addRule(rule)
        break
      case 'attribute':
        this.#attributes.push(compileRule({ ...rule, type: 'pattern', fromModuleRoot: false }, this.#work))
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
        for (const text of CVS_DEFAULTS) this.#addRule(excludeRule(text))
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

  #addCvsRules(): void {
    this.#add(parseRule(ascii(':C '), false))
    this.#add({ type: 'cvs-defaults' })
  }

  #addRule(rule: PatternRule): void {
    const last = this.#steps.at(-1)
    const list = last?.type === 'rules' ? last.lists[0] : new RuleList()
    if (last?.type !== 'rules') this.#steps.push({ type: 'rules', lists: [list] })
    list.add(compileRule(rule, this.#work))
  }
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

interface FileRules {
  readonly list: RuleList
  /** What files above say counts no more. */
  readonly clears: boolean
}

interface Reading {
  /** The path of the file's directory from the module's root. */
  base: ByteString
  /** For so many rules. */
  room: number
  work: Work
  pacer: Pacer
}

/**
 * Rests between rules: a file may hold tens of thousands.
 * @returns undefined when it is no file.
 */
async function readMergeFile(
  tree: Tree,
  node: number,
  merge: Merge,
  { base, room, work, pacer }: Reading,
): Promise<FileRules | undefined> {
  if (!isRegularMode(tree.mode(node))) return undefined
  if (tree.size(node) > MAX_MERGE_FILE)
    throw new PeerError('filter', `the rule file "${merge.file}" is too large`)
  const content = await tree.open(node)
  const bytes = Buffer.alloc(content.size)
  try {
    await content.read([bytes], 0)
  } finally {
    content.close()
  }
  let list = new RuleList()
  let clears = false
  let withDefaults = false
  for (const text of rulesIn(bytes.toString('latin1'), merge)) {
    if (pacer.due) await pacer.rest()
    if (text === '!') {
      list = new RuleList()
      clears = true
      withDefaults = false
      continue
    }
    const rule = merge.bare ? bareRule(text, merge) : parseRule(text, false)
    if (rule.type === 'pattern') {
      const fromModuleRoot = rule.fromModuleRoot || merge.fromModuleRoot
      list.add(compileRule({ ...rule, fromModuleRoot }, work, base))
    } else if (rule.type === 'cvs-defaults' && !withDefaults) {
      // Once is enough: what they do not decide the first time they do not decide later.
      for (const text of CVS_DEFAULTS) list.add(compileRule(excludeRule(text), work, base))
      withDefaults = true
    }
    if (list.rules.length > room)
      throw new PeerError('filter', `more than ${MAX_FILTER_RULES} rules in rule files, with "${merge.file}"`)
  }
  return { list, clears }
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
