/**
 * The file list of one request: which names are sent, in which order, and under which index the client
 * will ask for them. docs/rsync-protocol.md, sections 6.1 and 6.8 to 6.11.
 *
 * Two orders matter. Transmission order is that of the source arguments, and for each directory its own
 * entry, then all its children, then the contents of each child. Afterwards both sides sort, and every
 * later index means a place in the sorted list. A tree's nodes are numbered in sorted order already, so
 * for one source the walk yields both orders at once.
 */

import { setImmediate as nextTurn } from 'node:timers/promises'
import { ByteWriter } from '../lib/byte-writer.ts'
import { ascii, type ByteString, splitBytes } from '../lib/bytes.ts'
import { DIRECTORY, isDirectoryMode, isSymlinkMode, REGULAR, SYMLINK, TYPE_MASK } from '../lib/file-mode.ts'
import type { FilterScope, Filters } from './filters.ts'
import { lookup, type SourcePath } from './paths.ts'
import type { Tree } from './tree.ts'
import { encodeIdList, FLAG, FlistEncoder, type FlistEntry, type FlistFormat } from './wire/flist.ts'
import { XattrEncoder } from './wire/xattrs.ts'

/** Entries handled before other sessions get a turn: a few milliseconds of work. */
const ENTRIES_PER_TURN = 2000
/** Bytes of encoded list handed on at a time. */
const CHUNK = 64 * 1024

export interface ListOptions {
  protocol: number
  recurse: boolean
  dirs: boolean
  relative: boolean
  impliedDirs: boolean
  oneFileSystem: boolean
  copyLinks: boolean
  copyDirlinks: boolean
  copyUnsafeLinks: boolean
  missingArgs: 'report' | 'ignore' | 'delete'
  /** --iconv: indices mean transmission order. */
  unsorted: boolean
}

/** Something to tell the client beside the list. */
export interface ListNotice {
  type: 'missing' | 'skipped-directory' | 'broken-link'
  path: ByteString
}

/** A finished list. Never changed afterwards, so many sessions may share it. */
export interface FileList {
  /** Names in transmission order, relative to the transfer root. */
  readonly names: readonly ByteString[]
  /** Node of each; -1 for an argument to delete. */
  readonly nodes: readonly number[]
  /** Bits of FLAG for directories. */
  readonly flags: readonly number[]
  /** Index on the wire -> place in transmission order. */
  readonly order: Uint32Array
  readonly notices: readonly ListNotice[]
}

export async function buildFileList(
  tree: Tree,
  sources: readonly SourcePath[],
  filters: Filters,
  options: ListOptions,
  signal: AbortSignal,
): Promise<FileList> {
  const names: ByteString[] = []
  const nodes: number[] = []
  const flags: number[] = []
  const notices: ListNotice[] = []
  /** Places in sorted order, as long as one source gives it for free. */
  const sorted: number[] = []
  let inOrder = sources.length === 1 && options.protocol >= 29 && !options.relative
  const impliedSent = new Set<ByteString>()

  const add = (name: ByteString, node: number, entryFlags: number): number => {
    names.push(name)
    flags.push(entryFlags)
    return nodes.push(node) - 1
  }

  /** Follows a symbolic link where the options say so; -1 when it then leads nowhere. */
  const target = (node: number, path: ByteString): number => {
    if (!isSymlinkMode(tree.mode(node))) return node
    const follow =
      options.copyLinks ||
      options.copyDirlinks ||
      (options.copyUnsafeLinks && isUnsafe(tree.linkTarget(node), path))
    if (!follow) return node
    const end = lookup(tree, path, true)
    if (options.copyLinks || (options.copyUnsafeLinks && isUnsafe(tree.linkTarget(node), path))) return end
    return end >= 0 && isDirectory(tree, end) ? end : node
  }

  for (const source of sources) {
    const fullPath = (name: ByteString): ByteString =>
      source.rootPath === ''
        ? name
        : name === '.'
          ? source.rootPath
          : (`${source.rootPath}/${name}` as ByteString)
    const node = source.node < 0 ? -1 : target(source.node, fullPath(source.name))
    if (node < 0) {
      if (options.missingArgs === 'delete') add(source.name, -1, 0)
      else if (options.missingArgs === 'report') notices.push({ type: 'missing', path: source.shown })
      continue
    }
    if (source.dotFirst && !impliedSent.has(ascii('.'))) {
      impliedSent.add(ascii('.'))
      add(ascii('.'), lookup(tree, source.rootPath, true), FLAG.topDir | FLAG.noContentDir)
    }
    if (options.relative && (options.impliedDirs || options.protocol >= 30)) {
      for (const parent of source.implied) {
        if (impliedSent.has(parent)) continue
        impliedSent.add(parent)
        const parentNode = lookup(tree, fullPath(parent), true)
        if (parentNode >= 0) add(parent, parentNode, FLAG.topDir | FLAG.noContentDir)
      }
    }

    let scope = filters.outermost()
    if (filters.hasMergeFiles) scope = await scopeAbove(tree, source, filters, scope)
    const isDir = isDirectory(tree, node)
    if (
      source.name !== '.' &&
      !filters.isEmpty &&
      !filters.keeps(source.name, fullPath(source.name), isDir, scope)
    ) {
      continue
    }
    const withContents = isDir && (options.recurse || (options.dirs && source.contents))
    if (isDir && !options.recurse && !options.dirs) {
      notices.push({ type: 'skipped-directory', path: source.shown })
      continue
    }
    const top = add(source.name, node, isDir ? (withContents ? FLAG.topDir : FLAG.noContentDir) : 0)
    if (!withContents) {
      sorted.push(top)
      continue
    }

    // The walk: a stack of directories whose entries are already in the list and whose children are not.
    const stack: {
      node: number
      name: ByteString
      place: number
      scope: FilterScope
      ancestors?: readonly number[]
    }[] = [{ node, name: source.name, place: top, scope }]
    let turn = ENTRIES_PER_TURN
    while (stack.length > 0) {
      const directory = stack.pop()!
      sorted.push(directory.place)
      const prefix = directory.name === '.' ? '' : `${directory.name}/`
      const inside = filters.hasMergeFiles
        ? await filters.enter(
            tree,
            directory.node,
            directory.name === '.' ? ascii('') : directory.name,
            directory.scope,
          )
        : directory.scope
      const first = tree.firstChild(directory.node)
      const count = tree.childCount(directory.node)
      const subdirectories: typeof stack = []
      for (let child = first; child < first + count; child++) {
        const name = (prefix + tree.name(child)) as ByteString
        const at = target(child, fullPath(name))
        if (at < 0) {
          notices.push({ type: 'broken-link', path: fullPath(name) })
          continue
        }
        const childIsDir = isDirectory(tree, at)
        if (!filters.isEmpty && !filters.keeps(name, fullPath(name), childIsDir, inside)) continue
        const descends = childIsDir && options.recurse
        const place = add(name, at, childIsDir && !descends ? FLAG.noContentDir : 0)
        if (at !== child && childIsDir) inOrder = false // a followed link sorts among the directories
        if (!descends) {
          sorted.push(place)
          continue
        }
        const ancestors =
          at === child ? directory.ancestors : [...(directory.ancestors ?? []), directory.node]
        if (at !== child && isWithin(tree, directory.node, at, ancestors ?? [])) continue // a link to its own parent
        subdirectories.push({ node: at, name, place, scope: inside, ...(ancestors ? { ancestors } : {}) })
      }
      for (let i = subdirectories.length - 1; i >= 0; i--) stack.push(subdirectories[i]!)
      turn -= count
      if (turn <= 0) {
        turn = ENTRIES_PER_TURN
        await nextTurn()
        signal.throwIfAborted()
      }
    }
  }

  const order = options.unsorted
    ? Uint32Array.from(names, (_, i) => i)
    : inOrder
      ? Uint32Array.from(sorted)
      : sortedOrder(tree, names, nodes, options.protocol)
  return { names, nodes, flags, order, notices }
}

function isDirectory(tree: Tree, node: number): boolean {
  return isDirectoryMode(tree.mode(node))
}

/** True when `target` is `directory`, lies above it, or is one of the directories that links led through. */
function isWithin(tree: Tree, directory: number, target: number, ancestors: readonly number[]): boolean {
  for (const start of [directory, ...ancestors]) {
    for (let node = start; ; node = tree.parent(node)) {
      if (node === target) return true
      if (node === tree.parent(node)) break
    }
  }
  return false
}

/** A link is unsafe when it is absolute or leads above the top of the transfer. */
function isUnsafe(linkTarget: ByteString, path: ByteString): boolean {
  if (linkTarget === '' || linkTarget.startsWith('/')) return true
  let depth = splitBytes(path, '/').length - 1
  for (const part of splitBytes(linkTarget, '/')) {
    if (part === '..') depth--
    else if (part !== '' && part !== '.') depth++
    if (depth < 0) return true
  }
  return false
}

/** Rule files in the parents of the transfer root, for rules that ask for them by a leading slash. */
async function scopeAbove(
  tree: Tree,
  source: SourcePath,
  filters: Filters,
  outermost: FilterScope,
): Promise<FilterScope> {
  let scope = outermost
  const parts = source.rootPath === '' ? [] : splitBytes(source.rootPath, '/')
  const stop = source.name === '.' ? parts.length : parts.length + 1
  let node = 0
  for (let i = 0; i < stop; i++) {
    scope = await filters.enter(tree, node, ascii(''), scope, i < parts.length)
    const next = parts[i] === undefined ? -1 : tree.child(node, parts[i]!)
    if (next < 0) break
    node = next
  }
  return scope
}

/**
 * Both sides' order. From 29 on: files before directories at each level, directories by name + '/'.
 * Before: by the plain bytes of the full name. Names that come twice keep their order.
 */
function sortedOrder(
  tree: Tree,
  names: readonly ByteString[],
  nodes: readonly number[],
  protocol: number,
): Uint32Array {
  const keys =
    protocol < 29
      ? names
      : names.map((name, i) => sortKey(name, nodes[i]! >= 0 && isDirectory(tree, nodes[i]!)))
  const order = Uint32Array.from(names, (_, i) => i)
  return order.sort((a, b) => (keys[a]! < keys[b]! ? -1 : keys[a]! > keys[b]! ? 1 : a - b))
}

/**
 * A string whose plain order is rsync's: each directory component as "\x01name/", a final other one as
 * "\x00name". As no name holds a slash, none of these is a prefix of a different one.
 */
function sortKey(name: ByteString, isDir: boolean): string {
  if (name === '.') return ''
  const slash = name.lastIndexOf('/')
  const parents = slash < 0 ? '' : `\x01${name.slice(0, slash).replaceAll('/', '/\x01')}/`
  return isDir ? `${parents}\x01${name.slice(slash + 1)}/` : `${parents}\x00${name.slice(slash + 1)}`
}

export interface EncodeOptions extends FlistFormat {
  numericIds: boolean
  id0Names: boolean
  acls: boolean
  /** 0, 1 for -X, 2 for -XX. */
  xattrs: number
  /** -c digests of regular files. */
  checksum: ((node: number) => Uint8Array | undefined) | undefined
  ioError: number
}

/** The list as it goes over the wire, with the id lists behind it. */
export async function* encodeFileList(
  list: FileList,
  tree: Tree,
  options: EncodeOptions,
): AsyncGenerator<Buffer> {
  const out = new ByteWriter(CHUNK + 8192)
  const encoder = new FlistEncoder(options)
  const xattrs = options.xattrs > 0 ? new XattrEncoder(options.xattrs > 1) : undefined
  const firstOfGroup = new Map<number, number>()
  const users = new Set<number>()
  const groups = new Set<number>()
  let accessAcls = 0
  let defaultAcls = 0

  for (let place = 0; place < list.names.length; place++) {
    const node = list.nodes[place]!
    const entry =
      node < 0
        ? deletedEntry(list.names[place]!)
        : entryOf(tree, node, list.names[place]!, list.flags[place]!)
    if (options.hardLinks && node >= 0) {
      if (entry.linkGroup !== 0) {
        const first = firstOfGroup.get(entry.linkGroup)
        if (first === undefined) firstOfGroup.set(entry.linkGroup, place)
        else entry.linkFirst = first
      } else if (options.protocol === 27) {
        entry.linkGroup = LONE_GROUPS + place
      }
    }
    const type = entry.mode & TYPE_MASK
    if (type === REGULAR) entry.checksum = options.checksum?.(node)
    encoder.entry(out, entry)
    if (options.owner) users.add(entry.uid)
    if (options.group) groups.add(entry.gid)
    if (options.acls && type !== SYMLINK && node >= 0) {
      // No more than the mode says: the literal once, then "as before".
      encodeTrivialAcl(out, accessAcls++)
      if (type === DIRECTORY) encodeTrivialAcl(out, defaultAcls++)
    }
    if (xattrs && node >= 0) xattrs.encode(out, tree.xattrs(node))
    if (out.length >= CHUNK) yield out.take()
    if (place % ENTRIES_PER_TURN === ENTRIES_PER_TURN - 1) await nextTurn()
  }
  encoder.end(out, options.ioError)
  if (!options.numericIds) {
    if (options.owner || options.acls) encodeIdList(out, namesOf(users, tree.userNames), options)
    if (options.group || options.acls) encodeIdList(out, namesOf(groups, tree.groupNames), options)
  }
  if (options.protocol < 30) out.i32(options.ioError)
  yield out.take()
}

function encodeTrivialAcl(out: ByteWriter, sentBefore: number): void {
  if (sentBefore === 0) out.u16(0)
  else out.u8(1)
}

function entryOf(tree: Tree, node: number, name: ByteString, directoryFlags: number): FlistEntry {
  const mode = tree.mode(node)
  return {
    name,
    mode,
    size: tree.size(node),
    mtime: tree.mtime(node),
    mtimeNsec: tree.mtimeNsec(node),
    uid: tree.uid(node),
    gid: tree.gid(node),
    major: tree.major(node),
    minor: tree.minor(node),
    linkTarget: (mode & TYPE_MASK) === SYMLINK ? tree.linkTarget(node) : EMPTY,
    directoryFlags,
    linkGroup: tree.linkGroup(node),
    linkFirst: -1,
    checksum: undefined,
  }
}

/** Tells the client to delete what an argument named that does not exist. */
function deletedEntry(name: ByteString): FlistEntry {
  return {
    name,
    mode: 0,
    size: 0,
    mtime: 0,
    mtimeNsec: 0,
    uid: 0,
    gid: 0,
    major: 0,
    minor: 0,
    linkTarget: EMPTY,
    directoryFlags: 0,
    linkGroup: 0,
    linkFirst: -1,
    checksum: undefined,
  }
}

function namesOf(ids: ReadonlySet<number>, names: ReadonlyMap<number, ByteString>): Map<number, ByteString> {
  const found = new Map<number, ByteString>()
  for (const id of ids) {
    const name = names.get(id)
    if (name !== undefined) found.set(id, name)
  }
  return found
}

const EMPTY = ascii('')
/** Above every number that a tree gives to a group of linked names. */
const LONE_GROUPS = 2 ** 31
