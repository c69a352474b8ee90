/**
 * A tree without the names that a module hides.
 *
 * Everything that a client can do with names ends in the tree: lists, arguments, patterns, --files-from,
 * links that are followed, rule files in directories. So this is the one place where a name that the module
 * hides does not exist, whatever rules the client brings. What lies in a hidden directory is hidden with it.
 *
 * Directories are numbered as they are entered, in the order of the tree behind.
 */
import { randomUUID } from 'node:crypto'
import { type ByteString, joinBytes, utf8Bytes } from '../lib/bytes.ts'
import { isDirectoryMode } from '../lib/file-mode.ts'
import { Pacer } from '../lib/pacer.ts'
import { Filters } from './filters.ts'
import type { Content, KnownDigest, Tree, Xattr } from './tree.ts'
import { type FilterRule, MAX_RULE_BYTES } from './wire/filters.ts'

/** Patterns as in --include and --exclude, anchored at the module's root; who is included is not excluded. */
export interface Hides {
  readonly include: readonly string[]
  readonly exclude: readonly string[]
}

/** Why `text` is no pattern; undefined when it is one. */
export function whyNoPattern(text: string): string | undefined {
  if (text === '' || text === '/') return 'a pattern names something'
  if (/^(?:[-+:.] |!$)/.test(text)) return `"${text}": write the pattern alone, without "- " or "+ "`
  if (/[\x00\n]/.test(text) || utf8Bytes(text).length > MAX_RULE_BYTES) return 'this is no pattern'
  // What the author wanted hidden would be shown.
  if (/(?:^|\/)\.{0,2}(?:\/|$)/.test(text.replace(/^\//, '').replace(/\/$/, ''))) {
    return `"${text}" matches nothing: no path has "//", "." or ".." in it`
  }
  return undefined
}

export class HiddenTree implements Tree {
  /** Of this session alone: nodes are numbered as it goes. */
  readonly key = `hidden:${randomUUID()}`
  readonly #behind: Tree
  readonly #filters: readonly Filters[]
  readonly #hidesAt: ((directory: ByteString) => readonly Hides[]) | undefined
  /** By directory of the root: what `hidesAt` says. */
  readonly #filtersAt = new Map<string, readonly Filters[]>()
  readonly #pacer: Pacer
  /** For each of our nodes: the one behind, our parent, our first child (-1 until entered), how many. */
  readonly #nodes: number[] = [0]
  readonly #parents: number[] = [0]
  readonly #first: number[] = [-1]
  readonly #counts: number[] = [0]

  /**
   * @param hides names are hidden if any of these hides them.
   * @param hidesAt the same for what lies in a directory of the root, where patterns are then anchored.
   */
  constructor(
    behind: Tree,
    hides: readonly Hides[],
    signal: AbortSignal,
    hidesAt?: (directory: ByteString) => readonly Hides[],
  ) {
    this.#behind = behind
    this.#filters = hides.map(compile)
    this.#hidesAt = hidesAt
    this.#pacer = new Pacer(signal)
  }

  get count(): number {
    return this.#nodes.length
  }
  get userNames(): ReadonlyMap<number, ByteString> {
    return this.#behind.userNames
  }
  get groupNames(): ReadonlyMap<number, ByteString> {
    return this.#behind.groupNames
  }

  enter(directory: number): Promise<void> | undefined {
    return this.#first[directory]! < 0 ? this.#number(directory) : undefined
  }

  name(node: number): ByteString {
    return this.#behind.name(this.#at(node))
  }
  parent(node: number): number {
    return this.#parents[node]!
  }
  firstChild(node: number): number {
    return Math.max(0, this.#first[node]!)
  }
  childCount(node: number): number {
    return this.#counts[node]!
  }
  child(directory: number, name: ByteString): number {
    const behind = this.#behind.child(this.#at(directory), name)
    if (behind < 0) return -1
    // Numbers rise with those behind, so the one that is looked for is found by halving.
    let low = this.firstChild(directory)
    let high = low + this.childCount(directory)
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#at(middle) < behind) low = middle + 1
      else high = middle
    }
    return low < this.firstChild(directory) + this.childCount(directory) && this.#at(low) === behind
      ? low
      : -1
  }
  mode(node: number): number {
    return this.#behind.mode(this.#at(node))
  }
  uid(node: number): number {
    return this.#behind.uid(this.#at(node))
  }
  gid(node: number): number {
    return this.#behind.gid(this.#at(node))
  }
  size(node: number): number {
    return this.#behind.size(this.#at(node))
  }
  mtime(node: number): number {
    return this.#behind.mtime(this.#at(node))
  }
  mtimeNsec(node: number): number {
    return this.#behind.mtimeNsec(this.#at(node))
  }
  major(node: number): number {
    return this.#behind.major(this.#at(node))
  }
  minor(node: number): number {
    return this.#behind.minor(this.#at(node))
  }
  linkTarget(node: number): ByteString {
    return this.#behind.linkTarget(this.#at(node))
  }
  linkGroup(node: number): number {
    return this.#behind.linkGroup(this.#at(node))
  }
  xattrs(node: number): readonly Xattr[] {
    return this.#behind.xattrs(this.#at(node))
  }
  digest(node: number, kind: KnownDigest): Uint8Array | undefined {
    return this.#behind.digest(this.#at(node), kind)
  }
  contentKey(node: number): string {
    return this.#behind.contentKey(this.#at(node))
  }
  get copy(): Tree['copy'] {
    const behind = this.#behind
    return behind.copy && ((node, from, targets) => behind.copy!(this.#at(node), from, targets))
  }
  open(node: number): Promise<Content> {
    return this.#behind.open(this.#at(node))
  }
  sent(node: number): void {
    this.#behind.sent?.(this.#at(node))
  }
  suspect(node: number): void {
    this.#behind.suspect?.(this.#at(node))
  }

  #at(node: number): number {
    return this.#nodes[node]!
  }

  /** Gives a number to each child that is not hidden. */
  async #number(directory: number): Promise<void> {
    const behind = this.#behind
    const from = this.#at(directory)
    await behind.enter?.(from)
    const path = this.#pathOf(directory)
    const visible: number[] = []
    const first = behind.firstChild(from)
    for (let child = first; child < first + behind.childCount(from); child++) {
      if (this.#pacer.due) await this.#pacer.rest()
      const name = behind.name(child)
      const full = path === '' ? name : (`${path}/${name}` as ByteString)
      const isDirectory = isDirectoryMode(behind.mode(child))
      const inside = this.#inside(full)
      const isHidden =
        !(await this.#keep(this.#filters, full, isDirectory)) ||
        (inside !== undefined && !(await this.#keep(inside.filters, inside.path, isDirectory)))
      if (!isHidden) visible.push(child)
    }
    if (this.#first[directory]! >= 0) return // somebody else was faster
    this.#first[directory] = this.#nodes.length
    this.#counts[directory] = visible.length
    for (const child of visible) {
      this.#nodes.push(child)
      this.#parents.push(directory)
      this.#first.push(-1)
      this.#counts.push(0)
    }
  }

  /** For what lies in a directory of the root: the path from there, and what holds there. */
  #inside(path: ByteString): { filters: readonly Filters[]; path: ByteString } | undefined {
    const slash = path.indexOf('/')
    if (!this.#hidesAt || slash < 0) return undefined
    const directory = path.slice(0, slash) as ByteString
    const filters = this.#filtersAt.get(directory) ?? this.#hidesAt(directory).map(compile)
    this.#filtersAt.set(directory, filters)
    return { filters, path: path.slice(slash + 1) as ByteString }
  }

  async #keep(all: readonly Filters[], path: ByteString, isDirectory: boolean): Promise<boolean> {
    for (const filters of all) {
      if (!(await filters.keeps(path, path, isDirectory, filters.outermost(), this.#pacer))) return false
    }
    return true
  }

  #pathOf(node: number): ByteString {
    const names: ByteString[] = []
    for (let at = node; at !== 0; at = this.parent(at)) names.push(this.name(at))
    return joinBytes(names.reverse(), '/')
  }
}

function compile({ include, exclude }: Hides): Filters {
  const rules = [...include.map((p) => rule(true, p)), ...exclude.map((p) => rule(false, p))]
  // Those are the operator's, who knows what they cost.
  return new Filters(rules, { mostSteps: Number.POSITIVE_INFINITY })
}

function rule(include: boolean, pattern: string): FilterRule {
  return { type: 'pattern', include, pattern: utf8Bytes(pattern), negate: false, fromModuleRoot: false }
}
