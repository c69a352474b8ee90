/**
 * From the path arguments of a request to nodes of the tree. docs/rsync-protocol.md, section 2.6.
 *
 * A client's path is only ever looked up in a virtual tree, component by component, so there is nothing
 * to escape to: `..` stops at the module's root and symbolic links lead to other nodes of the same tree.
 */

import { RefusedError } from '../errors.ts'
import { ascii, type ByteString, compareBytes, joinBytes, showBytes, splitBytes } from '../lib/bytes.ts'
import { isDirectoryMode, isSymlinkMode } from '../lib/file-mode.ts'
import { Pacer } from '../lib/pacer.ts'
import type { Tree } from './tree.ts'
import { compilePattern, isWild, type Pattern } from './wildmatch.ts'

/** Chains of symbolic links longer than this are taken for loops, as by Linux. */
const MAX_LINK_HOPS = 40
/** The most arguments that the patterns of a request may expand to, and the most names that they may look at. */
const MAX_MATCHES = 250_000
const MAX_LOOKED = 20_000_000
/** Names have 255 bytes at most: nobody needs a longer pattern for one, and it takes time to read. */
const MAX_PATTERN = 4096

/** One thing to send. */
export interface SourcePath {
  /** As the client will see it in messages: the path inside the module. */
  shown: ByteString
  /** The directory that names in the list are relative to, and its path from the module's root. */
  rootPath: ByteString
  /** The entry's name in the list: '.' for a directory whose contents are meant. */
  name: ByteString
  /** -1 when there is no such thing. */
  node: number
  /** Of what is not there: not even the directory that it would be in, which is `rootPath`. */
  directoryMissing: boolean
  /** The argument ended in a slash (or named a module or "."): a directory's contents are meant. */
  contents: boolean
  /** A relative name that starts with "./": one "." entry comes first. */
  dotFirst: boolean
}

export interface PathRequest {
  module: ByteString
  paths: readonly ByteString[]
  relative: boolean
  secluded: boolean
  /** Without any path the module's root is meant, if directories are sent at all. */
  directoriesSent: boolean
}

/** The sources that a request names, patterns expanded, in the order of the arguments. */
export async function findSources(
  tree: Tree,
  request: PathRequest,
  signal: AbortSignal,
): Promise<SourcePath[]> {
  let paths = pathsInModule(request)
  if (paths.length === 0 && request.directoriesSent) paths = [ascii('')]
  const pacer = new Pacer(signal)
  const search = new PatternSearch(tree, pacer)
  const found: SourcePath[] = []
  for (const path of paths) {
    const clean = sanitize(path, request.relative)
    const expanded = isWild(clean.path) ? await search.expand(clean) : [clean]
    for (const one of expanded) {
      if (pacer.due) await pacer.rest()
      found.push(await sourceFor(tree, one, request.relative))
    }
  }
  return found
}

/** The arguments without the module's name, so that equal ones mean the same in whatever module. */
export function pathsInModule({
  module: prefix,
  paths,
  secluded,
}: Pick<PathRequest, 'module' | 'paths' | 'secluded'>): ByteString[] {
  const inside = paths.map((path) =>
    path.startsWith(prefix) ? (path.slice(prefix.length) as ByteString) : path,
  )
  // Clients before 3.2.4 may put several sources into one argument: "m/a m/b".
  return secluded ? inside : inside.flatMap((path) => path.split(` ${prefix}/`) as ByteString[])
}

/** A directory that names of a --files-from list are relative to, as `findListed` takes it. */
export function cleanBase(base: ByteString): ByteString {
  return sanitize(base, false).path
}

/** One name of a --files-from list, relative to `base` (from `cleanBase`). Names are not patterns. */
export function findListed(
  tree: Tree,
  base: ByteString,
  name: ByteString,
  relative: boolean,
): Promise<SourcePath> {
  const clean = sanitize(name.replace(/^\/+/, '') as ByteString, relative)
  return sourceFor(tree, clean, relative, base)
}

/**
 * The node at a path of the module, following symbolic links on the way (and at its end if `follow`).
 * -1 when there is none.
 */
export async function lookup(tree: Tree, path: ByteString, follow: boolean, start = 0): Promise<number> {
  let hops = 0
  let node = start
  const todo = splitBytes(path, '/').reverse()
  while (todo.length > 0) {
    const component = todo.pop()!
    if (component === '' || component === '.') continue
    if (component === '..') {
      node = tree.parent(node)
      continue
    }
    if (!isDirectoryMode(tree.mode(node))) return -1
    await tree.enter?.(node)
    const child = tree.child(node, component)
    if (child < 0) return -1
    const last = todo.every((c) => c === '')
    const isLink = isSymlinkMode(tree.mode(child))
    if (!isLink || (last && !follow && todo.length === 0)) {
      node = child
      continue
    }
    if (++hops > MAX_LINK_HOPS) return -1
    const target = tree.linkTarget(child)
    if (target.startsWith('/')) node = 0
    todo.push(...splitBytes(target, '/').reverse())
  }
  return node
}

interface CleanPath {
  /** No leading slash, no empty, "." or ".." component; '' for the root. */
  path: ByteString
  trailingSlash: boolean
  /** With -R: how many components stand before the one "/./" that divides root and name. */
  rootDepth: number
  /** With -R: the name starts with "./". */
  dotFirst: boolean
}

/**
 * With -R the first "." between two slashes divides. One at the very start or end does not: rsync looks for
 * "/./", and an argument begins with the slash behind its module, while a name of a list has none.
 */
function sanitize(path: ByteString, relative: boolean): CleanPath {
  const parts: ByteString[] = []
  const components = splitBytes(path, '/')
  const last = components.length - 1
  let divider = -1
  let rootDepth = 0
  for (const [at, component] of components.entries()) {
    if (component === '.') {
      if (!relative || divider >= 0 || at === 0 || at === last) continue
      divider = at
      rootDepth = parts.length
    } else if (component === '..') {
      if (parts.length > rootDepth) parts.pop()
    } else if (component !== '') {
      parts.push(component)
    }
  }
  const start = components.findIndex((component, at) => at > divider && component !== '')
  return {
    path: joinBytes(parts, '/'),
    trailingSlash: ['', '.', '..'].includes(components[last]!),
    rootDepth,
    dotFirst: relative && components[start] === '.' && (divider >= 0 || components[0] === '.'),
  }
}

/** Expands the patterns of one request, within bounds for all of them together. */
class PatternSearch {
  readonly #tree: Tree
  readonly #pacer: Pacer
  #looked = 0
  #matched = 0

  constructor(tree: Tree, pacer: Pacer) {
    this.#tree = tree
    this.#pacer = pacer
  }

  /** Component by component; a path without any match stands for itself, and is then missing. */
  async expand(clean: CleanPath): Promise<CleanPath[]> {
    let matches: ByteString[] = [ascii('')]
    for (const component of splitBytes(clean.path, '/')) {
      const isPattern = isWild(component) && component.length <= MAX_PATTERN
      const pattern = isPattern ? compilePattern(component) : undefined
      const next: ByteString[] = []
      for (const path of matches) {
        if (this.#pacer.due) await this.#pacer.rest()
        const directory = await lookup(this.#tree, path, true)
        if (directory < 0 || !isDirectoryMode(this.#tree.mode(directory))) continue
        for (const name of await this.#namesIn(directory, component, pattern)) {
          next.push(path === '' ? name : (`${path}/${name}` as ByteString))
        }
        if (this.#matched + next.length > MAX_MATCHES) throw tooMany(`match more than ${MAX_MATCHES} names`)
      }
      matches = next
    }
    this.#matched += matches.length
    if (matches.length === 0) return [clean]
    return matches.map((path) => ({ ...clean, path }))
  }

  /** The names that a component stands for, sorted as a shell would. */
  async #namesIn(
    directory: number,
    component: ByteString,
    pattern: Pattern | undefined,
  ): Promise<ByteString[]> {
    const tree = this.#tree
    await tree.enter?.(directory)
    if (!pattern) return tree.child(directory, component) >= 0 ? [component] : []
    const names: ByteString[] = []
    const first = tree.firstChild(directory)
    const count = tree.childCount(directory)
    this.#looked += count
    if (this.#looked > MAX_LOOKED) throw tooMany(`look at more than ${MAX_LOOKED} names`)
    for (let node = first; node < first + count; node++) {
      if (this.#pacer.due) await this.#pacer.rest()
      const name = tree.name(node)
      if (pattern.matches(name)) names.push(name)
    }
    return names.sort(compareBytes)
  }
}

function tooMany(what: string): RefusedError {
  return new RefusedError(`ERROR: the patterns of this request ${what}`, 4)
}

async function sourceFor(
  tree: Tree,
  clean: CleanPath,
  relative: boolean,
  base: ByteString = ascii(''),
): Promise<SourcePath> {
  const { path, trailingSlash } = clean
  const shown = joinPaths(base, path)
  const node = await find(tree, shown, trailingSlash, relative)
  const contents = path === '' || trailingSlash
  if (relative) {
    const parts = splitBytes(path, '/')
    const name = joinBytes(parts.slice(clean.rootDepth), '/')
    const rootPath = joinPaths(base, joinBytes(parts.slice(0, clean.rootDepth), '/'))
    const directoryMissing = node < 0 && !(await isDirectoryAt(tree, rootPath))
    const dotFirst = clean.dotFirst && name !== ''
    return {
      shown,
      rootPath,
      name: name === '' ? ascii('.') : name,
      node,
      directoryMissing,
      contents: contents || name === '',
      dotFirst,
    }
  }
  const slash = shown.lastIndexOf('/')
  const rootPath = contents ? shown : (shown.slice(0, Math.max(slash, 0)) as ByteString)
  const name = contents ? ascii('.') : (shown.slice(slash + 1) as ByteString)
  const directoryMissing = node < 0 && !(await isDirectoryAt(tree, rootPath))
  return { shown, rootPath, name, node, directoryMissing, contents, dotFirst: false }
}

function joinPaths(a: ByteString, b: ByteString): ByteString {
  return a === '' ? b : b === '' ? a : (`${a}/${b}` as ByteString)
}

async function isDirectoryAt(tree: Tree, path: ByteString): Promise<boolean> {
  const node = await lookup(tree, path, true)
  return node >= 0 && isDirectoryMode(tree.mode(node))
}

/**
 * What an argument names. With a slash behind it only a directory will do, or a link to one; with -R the slash
 * does not count where there is none.
 */
async function find(
  tree: Tree,
  path: ByteString,
  trailingSlash: boolean,
  relative: boolean,
): Promise<number> {
  if (!trailingSlash) return lookup(tree, path, false)
  const node = await lookup(tree, path, true)
  if (node >= 0 && isDirectoryMode(tree.mode(node))) return node
  return relative ? lookup(tree, path, false) : -1
}

/** For messages: the path as a person would type it behind the module's name. */
export function showPath(module: string, path: ByteString): string {
  return path === '' ? module : `${module}/${showBytes(path)}`
}
