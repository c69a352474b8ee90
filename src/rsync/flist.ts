/**
 * The file list of one request: which names are sent, in which order, and under which index the client
 * will ask for them. docs/rsync-protocol.md, sections 6.1 and 6.8 to 6.11.
 *
 * Two orders matter. Transmission order is that of the source arguments, and for each directory its own
 * entry, then all its children, then the contents of each child. Afterwards both sides sort, and every
 * later index means a place in the sorted list. A tree's nodes are numbered in sorted order already, so
 * for one source the walk yields both orders at once.
 */

import { RefusedError, StoreError } from '../errors.ts'
import { ByteWriter } from '../lib/byte-writer.ts'
import { ascii, type ByteString, joinBytes, splitBytes } from '../lib/bytes.ts'
import { DIRECTORY, isDirectoryMode, isSymlinkMode, REGULAR, SYMLINK, TYPE_MASK } from '../lib/file-mode.ts'
import { Pacer, pacedSort } from '../lib/pacer.ts'
import type { FilterScope, Filters } from './filters.ts'
import { lookup, type SourcePath } from './paths.ts'
import type { Tree } from './tree.ts'
import { AclEncoder } from './wire/acls.ts'
import { encodeIdList, FLAG, FlistEncoder, type FlistEntry, type FlistFormat } from './wire/flist.ts'
import { type XattrChoice, XattrEncoder } from './wire/xattrs.ts'

/**
 * A list may hold each entry of the tree so often, and so many more: overlapping arguments and followed
 * links name files again, but a request that goes beyond means harm.
 */
const MAX_REPEATS = 8
const MAX_EXTRA = 100_000
/** What is not there may have long names. */
const MAX_NOTICE_BYTES = 64 * 1024 * 1024
/** Bytes of encoded list handed on at a time. */
const CHUNK = 64 * 1024

export interface ListOptions {
  protocol: number
  recurse: boolean
  dirs: boolean
  relative: boolean
  impliedDirs: boolean
  copyLinks: boolean
  copyDirlinks: boolean
  copyUnsafeLinks: boolean
  missingArgs: 'report' | 'ignore' | 'delete'
  /** --iconv: indices mean transmission order. */
  unsorted: boolean
}

/** Something to tell the client beside the list. */
export interface ListNotice {
  type: 'missing' | 'missing-directory' | 'skipped-directory' | 'broken-link' | 'unreadable-directory'
  /** Inside the module; of a skipped directory its name in the list. */
  path: ByteString
  /** Why a directory can't be read. */
  reason?: string
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
  /** Bytes of all regular files and symlinks. */
  readonly totalSize: number
  readonly notices: readonly ListNotice[]
  /** The directory that all names are paths from, as the tree has them; -1 where some are not. */
  readonly base: number
}

/** The io_error that goes into a list: bit 0 keeps the client from deleting what it might have wanted. */
export function ioErrorOf(notices: readonly ListNotice[], ignoreErrors: boolean): number {
  if (ignoreErrors) return 0
  // A missing argument exits with 23 by the text alone, and what it stands for may be deleted. What a
  // directory holds that can't be found must not be, nor a broken link that is left out.
  return notices.some(({ type }) => type !== 'missing' && type !== 'skipped-directory') ? 1 : 0
}

/**
 * The list that a request gets.
 * @throws RefusedError when it would be longer than any honest request makes it.
 */
export async function buildFileList(
  tree: Tree,
  sources: Iterable<SourcePath> | AsyncIterable<SourcePath>,
  filters: Filters,
  options: ListOptions,
  signal: AbortSignal,
): Promise<FileList> {
  const builder = new ListBuilder(tree, filters, options, new Pacer(signal))
  for await (const source of sources) await builder.add(source)
  return builder.finish()
}

/** A directory whose own entry is in the list and whose children are not yet. */
interface OpenDirectory {
  node: number
  name: ByteString
  /** Of its own entry. */
  place: number
  scope: FilterScope
  /** Directories that followed links led away from, on the way here. */
  ancestors: readonly number[]
}

class ListBuilder {
  readonly #tree: Tree
  readonly #filters: Filters
  readonly #options: ListOptions
  readonly #pacer: Pacer
  readonly #names: ByteString[] = []
  readonly #nodes: number[] = []
  readonly #flags: number[] = []
  readonly #notices: ListNotice[] = []
  #noticeBytes = 0
  /** Places in sorted order, for as long as the walk yields it for free. */
  readonly #sorted: number[] = []
  #inOrder: boolean
  #sources = 0
  #base = -1
  #totalSize = 0
  readonly #impliedSent = new Set<ByteString>()

  constructor(tree: Tree, filters: Filters, options: ListOptions, pacer: Pacer) {
    this.#tree = tree
    this.#filters = filters
    this.#options = options
    this.#pacer = pacer
    this.#inOrder = options.protocol >= 29 && !options.relative
  }

  async add(source: SourcePath): Promise<void> {
    if (++this.#sources > 1) this.#inOrder = false
    this.#base = this.#sources === 1 ? baseOf(this.#tree, source, this.#options) : -1
    if (this.#pacer.due) await this.#pacer.rest()
    const tree = this.#tree
    const { recurse, dirs } = this.#options
    const node = this.#mayFollow(source.node)
      ? await this.#follow(source.node, source, source.name)
      : source.node
    if (node < 0) {
      this.#missing(source)
      return
    }
    await this.#addImplied(source)

    const isDir = isDirectory(tree, node)
    // What is named itself is not up to rule files.
    const outermost = this.#filters.outermost()
    if (source.name !== '.' && !(await this.#keeps(source, source.name, isDir, outermost))) return
    if (isDir && !recurse && !dirs) {
      this.#notice({ type: 'skipped-directory', path: source.name })
      return
    }
    const withContents = isDir && (recurse || source.contents)
    const flags = isDir ? (withContents ? FLAG.topDir : FLAG.noContentDir) : 0
    const place = this.#addEntry(source.name, node, flags)
    if (!withContents) {
      this.#sorted.push(place)
      return
    }
    const scope = await this.#scopeOf(source)
    await this.#walk(source, { node, name: source.name, place, scope, ancestors: [] })
  }

  async finish(): Promise<FileList> {
    const names = this.#names
    const order = this.#options.unsorted
      ? Uint32Array.from(names, (_, i) => i)
      : this.#inOrder
        ? Uint32Array.from(this.#sorted)
        : await sortedOrder(this.#tree, names, this.#nodes, this.#options.protocol, this.#pacer)
    const totalSize = this.#totalSize
    return {
      names,
      nodes: this.#nodes,
      flags: this.#flags,
      order,
      totalSize,
      notices: this.#notices,
      base: this.#base,
    }
  }

  /** Depth first, by a stack: each directory's children in one go, then what lies below each of them. */
  async #walk(source: SourcePath, top: OpenDirectory): Promise<void> {
    const tree = this.#tree
    const stack = [top]
    while (stack.length > 0) {
      const directory = stack.pop()!
      this.#sorted.push(directory.place)
      if (!(await this.#enter(source, directory))) continue
      const base = directory.name === '.' ? ascii('') : directory.name
      const scope = this.#filters.hasMergeFiles
        ? await this.#filters.enter(
            tree,
            directory.node,
            pathOf(source, directory.name),
            directory.scope,
            this.#pacer,
          )
        : directory.scope
      const first = tree.firstChild(directory.node)
      const below: OpenDirectory[] = []
      for (let child = first; child < first + tree.childCount(directory.node); child++) {
        if (this.#pacer.due) await this.#pacer.rest()
        const name = joinNames(base, tree.name(child))
        const node = this.#mayFollow(child) ? await this.#follow(child, source, name) : child
        if (node < 0) {
          this.#notice({ type: 'broken-link', path: pathOf(source, name) })
          continue
        }
        const isDir = isDirectory(tree, node)
        // Waited for only where there is something to wait for: this is the hot loop.
        const keeps = this.#keeps(source, name, isDir, scope)
        if (typeof keeps === 'boolean' ? !keeps : !(await keeps)) continue
        const descends = isDir && this.#options.recurse
        const place = this.#addEntry(name, node, isDir && !descends ? FLAG.noContentDir : 0)
        if (!descends) {
          this.#sorted.push(place)
        } else if (node === child) {
          below.push({ node, name, place, scope, ancestors: directory.ancestors })
        } else {
          // A followed link sorts among the directories, but its node does not lie there.
          this.#inOrder = false
          const ancestors = [...directory.ancestors, directory.node]
          if (!isWithin(tree, ancestors, node)) below.push({ node, name, place, scope, ancestors })
        }
      }
      for (let i = below.length - 1; i >= 0; i--) stack.push(below[i]!)
    }
  }

  /** False when what lies in the directory can't be had: the client is told, and deletes nothing for it. */
  async #enter(source: SourcePath, { node, name }: OpenDirectory): Promise<boolean> {
    try {
      await this.#tree.enter?.(node)
      return true
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#notice({ type: 'unreadable-directory', path: pathOf(source, name), reason: error.message })
      return false
    }
  }

  #addEntry(name: ByteString, node: number, flags: number): number {
    this.#checkLength()
    if (node >= 0) {
      const type = this.#tree.mode(node) & TYPE_MASK
      if (type === REGULAR || type === SYMLINK) this.#totalSize += this.#tree.size(node)
    }
    this.#names.push(name)
    this.#flags.push(flags)
    return this.#nodes.push(node) - 1
  }

  #notice(notice: ListNotice): void {
    this.#checkLength()
    this.#noticeBytes += notice.path.length
    if (this.#noticeBytes > MAX_NOTICE_BYTES)
      throw new RefusedError('ERROR: the request names too much that is not there', 4)
    this.#notices.push(notice)
  }

  /** Before it grows by one. */
  #checkLength(): void {
    const most = this.#tree.count * MAX_REPEATS + MAX_EXTRA
    if (this.#names.length + this.#notices.length < most) return
    throw new RefusedError(`ERROR: the request names more than ${most} files, far more than there are`, 4)
  }

  #missing(source: SourcePath): void {
    if (source.directoryMissing) {
      // Whatever is to become of names that are not there: of a whole directory rsync always tells.
      this.#notice({ type: 'missing-directory', path: source.rootPath })
      return
    }
    if (this.#options.missingArgs === 'delete') this.#sorted.push(this.#addEntry(source.name, -1, 0))
    else if (this.#options.missingArgs === 'report') this.#notice({ type: 'missing', path: source.shown })
  }

  /** The parents that -R implies, each once, followed through links and never filtered. */
  async #addImplied(source: SourcePath): Promise<void> {
    const { relative, impliedDirs, protocol } = this.#options
    const parents = relative && (impliedDirs || protocol >= 30) ? parentsOf(source.name) : []
    for (const name of source.dotFirst ? [ascii('.'), ...parents] : parents) {
      if (this.#impliedSent.has(name)) continue
      this.#impliedSent.add(name)
      const node = await lookup(this.#tree, pathOf(source, name), true)
      if (node >= 0) this.#addEntry(name, node, FLAG.topDir | FLAG.noContentDir)
    }
  }

  /**
   * The scope that a source lies in. The first directory of its name is entered first, and then each below it;
   * those above count only for rules that search there.
   */
  async #scopeOf(source: SourcePath): Promise<FilterScope> {
    let scope = this.#filters.outermost()
    if (!this.#filters.hasMergeFiles) return scope
    const tree = this.#tree
    const first = pathOf(source, (source.name.split('/', 1)[0] ?? '') as ByteString)
    const path = pathOf(source, source.name)
    const parts = path === '' ? [] : splitBytes(path, '/')
    let node = 0
    for (const [depth, part] of parts.entries()) {
      await tree.enter?.(node)
      const base = joinBytes(parts.slice(0, depth), '/')
      const isAbove = base.length < first.length
      scope = await this.#filters.enter(tree, node, base, scope, this.#pacer, isAbove ? first : undefined)
      node = tree.child(node, part)
      if (node < 0) break
    }
    return scope
  }

  #keeps(
    source: SourcePath,
    name: ByteString,
    isDir: boolean,
    scope: FilterScope,
  ): Promise<boolean> | boolean {
    return this.#filters.isEmpty || this.#filters.keeps(name, pathOf(source, name), isDir, scope, this.#pacer)
  }

  /** Whether this is a symbolic link, and the options let some of them be followed. */
  #mayFollow(node: number): boolean {
    const { copyLinks, copyDirlinks, copyUnsafeLinks } = this.#options
    return (copyLinks || copyDirlinks || copyUnsafeLinks) && node >= 0 && isSymlinkMode(this.#tree.mode(node))
  }

  /** Where a symbolic link leads if the options say so; -1 when that is nowhere. */
  async #follow(node: number, source: SourcePath, name: ByteString): Promise<number> {
    const tree = this.#tree
    const { copyLinks, copyDirlinks, copyUnsafeLinks } = this.#options
    const always = copyLinks || (copyUnsafeLinks && isUnsafe(tree.linkTarget(node), name))
    if (!always && !copyDirlinks) return node
    const end = await lookup(tree, pathOf(source, name), true)
    return always || (end >= 0 && isDirectory(tree, end)) ? end : node
  }
}

/** The directory that the names below a source are paths from, where they are those of the tree. */
function baseOf(tree: Tree, { name, node }: SourcePath, options: ListOptions): number {
  const { relative, copyLinks, copyDirlinks, copyUnsafeLinks } = options
  if (relative || copyLinks || copyDirlinks || copyUnsafeLinks || node < 0) return -1
  return name === '.' ? node : name.includes('/') ? -1 : tree.parent(node)
}

function joinNames(base: ByteString, name: ByteString): ByteString {
  return base === '' ? name : (`${base}/${name}` as ByteString)
}

/** The directories above a name, from the top down. */
function* parentsOf(name: ByteString): Generator<ByteString> {
  for (let at = name.indexOf('/'); at >= 0; at = name.indexOf('/', at + 1)) {
    yield name.slice(0, at) as ByteString
  }
}

/** The path inside the module of a name in the list. */
function pathOf(source: SourcePath, name: ByteString): ByteString {
  return name === '.' ? source.rootPath : joinNames(source.rootPath, name)
}

function isDirectory(tree: Tree, node: number): boolean {
  return isDirectoryMode(tree.mode(node))
}

/** True when `target` is one of the directories or lies above one of them: descending would never end. */
function isWithin(tree: Tree, directories: readonly number[], target: number): boolean {
  for (const start of directories) {
    for (let node = start; ; node = tree.parent(node)) {
      if (node === target) return true
      if (node === tree.parent(node)) break
    }
  }
  return false
}

/**
 * A link is unsafe when it is absolute or leads above the transfer root.
 * @param name of the link, relative to the transfer root.
 */
function isUnsafe(linkTarget: ByteString, name: ByteString): boolean {
  if (linkTarget === '' || linkTarget.startsWith('/')) return true
  let depth = splitBytes(name, '/').length - 1
  for (const part of splitBytes(linkTarget, '/')) {
    if (part === '..') depth--
    else if (part !== '' && part !== '.') depth++
    if (depth < 0) return true
  }
  return false
}

/**
 * Both sides' order. From 29 on: files before directories at each level, directories by name + '/'.
 * Before: by the plain bytes of the full name. Names that come twice keep their order.
 */
async function sortedOrder(
  tree: Tree,
  names: readonly ByteString[],
  nodes: readonly number[],
  protocol: number,
  pacer: Pacer,
): Promise<Uint32Array> {
  const keys: string[] = []
  for (const [i, name] of names.entries()) {
    if (pacer.due) await pacer.rest()
    keys.push(protocol < 29 ? name : sortKey(name, nodes[i]! >= 0 && isDirectory(tree, nodes[i]!)))
  }
  const order = Uint32Array.from(names, (_, i) => i)
  return pacedSort(order, (a, b) => (keys[a]! < keys[b]! ? -1 : keys[a]! > keys[b]! ? 1 : a - b), pacer)
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
  /** Undefined without -X. */
  xattrChoice: XattrChoice | undefined
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
  const pacer = new Pacer()
  const out = new ByteWriter(CHUNK + 8192)
  const encoder = new FlistEncoder(options)
  const xattrs = options.xattrChoice && new XattrEncoder(options.xattrChoice)
  const acls = options.acls ? new AclEncoder() : undefined
  const firstOfGroup = new Map<number, number>()
  const users = new Set<number>()
  const groups = new Set<number>()

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
    const attributes = node < 0 ? [] : tree.xattrs(node)
    if (type === REGULAR) entry.checksum = options.checksum?.(node)
    encoder.entry(out, entry)
    if (options.owner) users.add(entry.uid)
    if (options.group) groups.add(entry.gid)
    if (acls && type !== SYMLINK) acls.encode(out, entry.mode, type === DIRECTORY, attributes)
    xattrs?.encode(out, attributes)
    if (out.length >= CHUNK) yield out.take()
    if (pacer.due) await pacer.rest()
  }
  encoder.end(out, options.ioError)
  if (!options.numericIds) {
    for (const id of acls?.users ?? []) users.add(id)
    for (const id of acls?.groups ?? []) groups.add(id)
    if (options.owner || acls) encodeIdList(out, namesOf(users, tree.userNames), options)
    if (options.group || acls) encodeIdList(out, namesOf(groups, tree.groupNames), options)
  }
  if (options.protocol < 30) out.i32(options.ioError)
  yield out.take()
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
