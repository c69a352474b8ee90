/**
 * From the path arguments of a request to nodes of the tree. docs/rsync-protocol.md, section 2.6.
 *
 * A client's path is only ever looked up in a virtual tree, component by component, so there is nothing
 * to escape to: `..` stops at the module's root and symbolic links lead to other nodes of the same tree.
 */

import { RefusedError } from '../errors.ts'
import { ascii, type ByteString, joinBytes, showBytes, splitBytes } from '../lib/bytes.ts'
import { isDirectoryMode, isSymlinkMode } from '../lib/file-mode.ts'
import type { Tree } from './tree.ts'
import { compilePattern, isWild } from './wildmatch.ts'

/** Chains of symbolic links longer than this are taken for loops, as by Linux. */
const MAX_LINK_HOPS = 40
/** The most arguments that patterns may expand to. */
const MAX_MATCHES = 1_000_000

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
  /** The argument ended in a slash (or named a module or "."): a directory's contents are meant. */
  contents: boolean
  /** Names from the root down to the entry, for the parents which -R implies; empty without -R. */
  implied: readonly ByteString[]
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
export function findSources(tree: Tree, request: PathRequest): SourcePath[] {
  const prefix = request.module
  let paths = request.paths.map((path) =>
    path.startsWith(prefix) ? (path.slice(prefix.length) as ByteString) : path,
  )
  if (!request.secluded) {
    // Clients before 3.2.4 may put several sources into one argument: "m/a m/b".
    paths = paths.flatMap((path) => path.split(` ${prefix}/`) as ByteString[])
  }
  if (paths.length === 0 && request.directoriesSent) paths = [ascii('')]
  const found: SourcePath[] = []
  for (const path of paths) {
    for (const expanded of expand(tree, sanitize(path, request.relative))) {
      if (found.length >= MAX_MATCHES)
        throw new RefusedError(`the patterns match more than ${MAX_MATCHES} names`)
      found.push(sourceFor(tree, expanded, request.relative))
    }
  }
  return found
}

/** One name of a --files-from list, relative to `base`. Names are not patterns. */
export function findListed(tree: Tree, base: ByteString, name: ByteString, relative: boolean): SourcePath {
  const clean = sanitize(name, relative)
  const rootPath = sanitize(base, false).path
  const source = sourceFor(tree, { ...clean, path: clean.path }, relative, rootPath)
  return source
}

/** The node at a path of the module, following symbolic links on the way (and at its end if `follow`). */
export function lookup(tree: Tree, path: ByteString, follow: boolean, start = 0): number {
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
  /** No leading slash, no empty or ".." component; '' for the root. With -R "." components remain. */
  path: ByteString
  trailingSlash: boolean
}

function sanitize(path: ByteString, relative: boolean): CleanPath {
  const parts: ByteString[] = []
  const components = splitBytes(path, '/')
  for (const component of components) {
    if (component === '') continue
    if (component === '.' && !(relative && !parts.includes(ascii('.')))) continue
    if (component === '..') {
      if (parts.length > 0 && parts[parts.length - 1] !== '.') parts.pop()
      continue
    }
    parts.push(component)
  }
  const last = components[components.length - 1]
  const trailingSlash = last === '' || last === '.' || last === '..'
  return { path: joinBytes(parts, '/'), trailingSlash }
}

function expand(tree: Tree, clean: CleanPath): CleanPath[] {
  if (!isWild(clean.path)) return [clean]
  let matches: { node: number; path: ByteString }[] = [{ node: 0, path: ascii('') }]
  for (const component of splitBytes(clean.path, '/')) {
    const pattern = isWild(component) ? compilePattern(component) : undefined
    const next: typeof matches = []
    for (const match of matches) {
      const directory = isSymlinkMode(tree.mode(match.node)) ? lookup(tree, match.path, true) : match.node
      if (directory < 0 || !isDirectoryMode(tree.mode(directory))) continue
      const join = (name: ByteString) => (match.path === '' ? name : (`${match.path}/${name}` as ByteString))
      if (component === '.') {
        next.push({ node: directory, path: join(component) })
        continue
      }
      if (!pattern) {
        const node = tree.child(directory, component)
        if (node >= 0) next.push({ node, path: join(component) })
        continue
      }
      const names: { node: number; name: ByteString }[] = []
      const first = tree.firstChild(directory)
      for (let node = first; node < first + tree.childCount(directory); node++) {
        const name = tree.name(node)
        if (pattern.matches(name)) names.push({ node, name })
      }
      // A shell would sort them so.
      names.sort((a, b) => (a.name < b.name ? -1 : 1))
      for (const { node, name } of names) next.push({ node, path: join(name) })
    }
    matches = next
    if (matches.length > MAX_MATCHES)
      throw new RefusedError(`the patterns match more than ${MAX_MATCHES} names`)
  }
  if (matches.length === 0) return [clean]
  return matches.map(({ path }) => ({ path, trailingSlash: clean.trailingSlash }))
}

function sourceFor(
  tree: Tree,
  clean: CleanPath,
  relative: boolean,
  base: ByteString = ascii(''),
): SourcePath {
  const join = (a: ByteString, b: ByteString) => (a === '' ? b : b === '' ? a : (`${a}/${b}` as ByteString))
  if (relative) {
    // A "." component divides the path into the root and the name.
    const dot = /(?:^|\/)\.(?:\/|$)/.exec(clean.path)
    const head = (dot ? clean.path.slice(0, dot.index) : '') as ByteString
    const name = (dot ? clean.path.slice(dot.index + dot[0].length) : clean.path) as ByteString
    const rootPath = join(base, head)
    const full = join(rootPath, name)
    const node = lookup(tree, full, clean.trailingSlash)
    const parts = name === '' ? [] : splitBytes(name, '/')
    return {
      shown: full,
      rootPath,
      name: name === '' ? ascii('.') : name,
      node,
      contents: clean.trailingSlash || name === '',
      implied: parts.slice(0, -1).map((_, i) => joinBytes(parts.slice(0, i + 1), '/')),
      dotFirst: dot !== null && head === '' && name !== '',
    }
  }
  const full = join(base, clean.path)
  const node = lookup(tree, full, clean.trailingSlash)
  if (clean.path === '' || (clean.trailingSlash && node >= 0 && isDirectoryMode(tree.mode(node)))) {
    return {
      shown: full,
      rootPath: full,
      name: ascii('.'),
      node,
      contents: true,
      implied: [],
      dotFirst: false,
    }
  }
  const slash = full.lastIndexOf('/')
  return {
    shown: full,
    rootPath: full.slice(0, Math.max(slash, 0)) as ByteString,
    name: full.slice(slash + 1) as ByteString,
    node,
    contents: false,
    implied: [],
    dotFirst: false,
  }
}

/** For messages: the path as a person would type it behind the module's name. */
export function showPath(module: string, path: ByteString): string {
  return path === '' ? module : `${module}/${showBytes(path)}`
}
