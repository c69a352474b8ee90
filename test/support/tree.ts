/**
 * Trees to serve: one that holds every kind of entry that a system build can hold, with names and numbers
 * at the edges of what file systems allow, and the build that follows it.
 *
 * A tree is described first (a `TreeSpec`: plain data, the same on every run) and made on disk then, so
 * that the second build can be derived from the description of the first. What needs root (owners,
 * devices) is left out when we are not root.
 */
import { execFileSync } from 'node:child_process'
import { createCipheriv } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { ascii, type ByteString, compareBytes, toBuffer, utf8Bytes } from '../../src/lib/bytes.ts'
import { isRoot } from './scratch.ts'

interface Attributes {
  mode?: number
  uid?: number
  gid?: number
  /** Seconds since 1970. A fraction must be a multiple of 2^-9 s, so that a double holds it exactly. */
  mtime?: number
}

/** A file mostly of holes: `pieces` are written at their offsets. */
export interface SparseContent {
  size: number
  pieces: readonly { offset: number; bytes: Uint8Array }[]
}

export type TreeNode = Attributes &
  (
    | { type: 'directory' }
    | { type: 'file'; content: Uint8Array | SparseContent }
    | { type: 'symlink'; target: ByteString }
    | { type: 'hardlink'; target: ByteString }
    | { type: 'char-device' | 'block-device'; major: number; minor: number }
    | { type: 'fifo' }
  )

/** Path (no leading slash; '' is the root) to what is there. Parents must be present. */
export type TreeSpec = ReadonlyMap<ByteString, TreeNode>

const DEFAULT_MTIME = 1_195_776_000 // 2007-11-23
const NAMED_ID = 1 // "daemon" on Debian and most others
const NAMELESS_ID = 54_321
const WIDE_ID = 3_000_000_000 // needs all 32 bits, where older tools take 16 or 31

// ---------------------------------------------------------------------------------------------------
// Contents.

/** Bytes that do not compress, the same for the same seed. */
export function randomBytes(seed: number, size: number): Buffer {
  const key = Buffer.alloc(16)
  key.writeUInt32LE(seed)
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size))
}

/** Text that compresses well and holds no two equal lines. */
export function repetitiveText(lines: number): Buffer {
  let text = ''
  for (let n = 0; n < lines; n++) text += `line ${n}: the quick brown fox jumps over the lazy dog\n`
  return Buffer.from(text)
}

/** `content` with `insert` in place of `remove` bytes at `offset`. */
export function splice(content: Uint8Array, offset: number, remove: number, insert: Uint8Array): Buffer {
  return Buffer.concat([content.subarray(0, offset), insert, content.subarray(offset + remove)])
}

// ---------------------------------------------------------------------------------------------------
// The two builds.

/** Files of the first build that the second one edits block-wise: deltas must find most of them again. */
export const EDITED_FILES = ['data/random', 'data/text', 'data/five-megabytes'].map(utf8Bytes)

/** Same size and mtime in both builds, other content: `rsync -a` keeps the old one, `-c` sees it. */
export const SILENTLY_CHANGED = utf8Bytes('data/same-size-and-time')

/** One of every kind of entry. */
export function firstBuild(): TreeSpec {
  const tree = new SpecWriter()
  tree.directory('', { mode: 0o755, mtime: DEFAULT_MTIME - 5 })
  addContents(tree)
  addDirectories(tree)
  addSymlinks(tree)
  addSpecials(tree)
  addHardLinks(tree)
  addModesAndOwners(tree)
  addNames(tree)
  addTimes(tree)
  addWhatChangesType(tree)
  return tree.spec
}

function addContents(tree: SpecWriter): void {
  tree.directory('data')
  tree.file('data/empty', Buffer.alloc(0))
  tree.file('data/one-byte', Buffer.from('x'))
  tree.file('data/small', Buffer.from('a few bytes\n'))
  tree.file('data/random', randomBytes(1, 300_000))
  tree.file('data/text', repetitiveText(12_000))
  tree.file('data/five-megabytes', randomBytes(2, 5_000_000))
  tree.file('data/zeros', Buffer.alloc(200_000))
  tree.file('data/block-sized', randomBytes(3, 700)) // rsync's smallest block
  tree.file('data/block-and-one', randomBytes(4, 701))
  tree.file('data/same-as-small', Buffer.from('a few bytes\n'))
  tree.file('data/same-size-and-time', Buffer.from('content of build 1\n'))
  tree.file('data/grows', repetitiveText(2_000))
  tree.file('data/shrinks', repetitiveText(3_000))
  tree.file('data/becomes-empty', randomBytes(5, 40_000))
  tree.file('data/was-empty', Buffer.alloc(0))
  tree.file('data/removed', Buffer.from('gone in build 2\n'))
  tree.file('data/holes', {
    size: 3_000_000,
    pieces: [
      { offset: 0, bytes: Buffer.from('start') },
      { offset: 2_000_000, bytes: randomBytes(6, 5_000) },
    ],
  })
}

function addDirectories(tree: SpecWriter): void {
  tree.directory('dirs', { mtime: 1_000_000_001 })
  tree.directory('dirs/empty')
  tree.directory('dirs/private', { mode: 0o700 })
  tree.file('dirs/private/inside', Buffer.from('inside\n'))
  tree.directory('dirs/tmp', { mode: 0o1777 })
  tree.directory('dirs/group', { mode: 0o2775 })
  tree.directory('dirs/removed')
  tree.directory('dirs/removed/below')
  tree.file('dirs/removed/below/file', Buffer.from('gone in build 2\n'))
  let deep = 'dirs'
  for (let level = 1; level <= 20; level++) {
    deep += `/level-${level}`
    tree.directory(deep)
  }
  tree.file(`${deep}/bottom`, Buffer.from('bottom\n'))
  let long = 'dirs'
  for (let level = 0; level < 12; level++) {
    long += `/${String.fromCharCode(97 + level).repeat(246)}`
    tree.directory(long)
  }
  tree.file(`${long}/end of a path of about 3,000 bytes`, Buffer.from('far\n'))
}

function addSymlinks(tree: SpecWriter): void {
  tree.directory('links')
  tree.symlink('links/relative', '../data/small')
  tree.symlink('links/absolute', '/etc/passwd')
  tree.symlink('links/dangling', 'no/such/thing')
  tree.symlink('links/to-directory', '../dirs')
  tree.symlink('links/outside', '../../../../etc')
  tree.symlink('links/retargeted', 'one')
  tree.symlink('links/long', `${'0123456789/'.repeat(363)}tail`) // 3,997 bytes; Linux ends at 4,095
  tree.symlink('links/bytes', ascii('caf\xe9 \n \\ target'))
}

function addSpecials(tree: SpecWriter): void {
  tree.directory('specials')
  tree.add('specials/fifo', { type: 'fifo', mode: 0o622 })
  if (!isRoot) return
  tree.device('specials/null', 'char-device', 1, 3, { mode: 0o666 })
  tree.device('specials/sda', 'block-device', 8, 0, { mode: 0o660, gid: 6 })
  tree.device('specials/sda1', 'block-device', 8, 1, { mode: 0o660, gid: 6 })
  tree.device('specials/wide-minor', 'char-device', 10, 300)
  tree.device('specials/wide-both', 'block-device', 259, 70_000)
  tree.device('specials/renumbered', 'char-device', 4, 64)
}

/** Of files and symlinks: GNU tar writes the names of a device or FIFO as if each were its own. */
function addHardLinks(tree: SpecWriter): void {
  tree.directory('hard')
  tree.directory('hard/sub')
  tree.file('hard/original', randomBytes(7, 20_000))
  tree.hardlink('hard/second', 'hard/original')
  tree.hardlink('hard/sub/third', 'hard/original')
  tree.file('hard/will-part-a', Buffer.from('one inode in build 1\n'))
  tree.hardlink('hard/will-part-b', 'hard/will-part-a')
  tree.file('hard/will-join-a', Buffer.from('two inodes in build 1\n'))
  tree.file('hard/will-join-b', Buffer.from('two inodes in build 1\n'))
  tree.file('hard/edited-a', randomBytes(8, 50_000))
  tree.hardlink('hard/edited-b', 'hard/edited-a')
  tree.file('hard/empty-a', Buffer.alloc(0))
  tree.hardlink('hard/empty-b', 'hard/empty-a')
  tree.symlink('hard/symlink-a', 'original')
  tree.hardlink('hard/symlink-b', 'hard/symlink-a')
}

function addModesAndOwners(tree: SpecWriter): void {
  tree.directory('modes')
  for (const mode of [0o400, 0o444, 0o600, 0o644, 0o755, 0o777, 0o1644, 0o2755, 0o4755, 0o6711]) {
    tree.file(`modes/${mode.toString(8).padStart(4, '0')}`, Buffer.from(`#!/bin/sh\n# ${mode}\n`), { mode })
  }
  tree.file('modes/changes', Buffer.from('mode changes\n'), { mode: 0o644 })
  if (!isRoot) return
  tree.file('modes/0000', Buffer.from('no bits at all\n'), { mode: 0 })
  tree.directory('owners')
  tree.file('owners/named', Buffer.from('owner with a name\n'), { uid: NAMED_ID, gid: NAMED_ID })
  tree.file('owners/nameless', Buffer.from('owner with no name\n'), { uid: NAMELESS_ID, gid: NAMELESS_ID })
  tree.file('owners/wide', Buffer.from('beyond 16 bits\n'), { uid: 70_000, gid: 200_000 })
  tree.file('owners/wider', Buffer.from('beyond 31 bits\n'), { uid: WIDE_ID, gid: WIDE_ID })
  tree.file('owners/setuid', Buffer.from('setuid\n'), { mode: 0o4755, uid: NAMED_ID })
  tree.directory('owners/home', { mode: 0o700, uid: 1000, gid: 1000 })
  tree.file('owners/home/.profile', Buffer.from('\n'), { uid: 1000, gid: 1000 })
  tree.symlink('owners/link', 'named', { uid: NAMED_ID, gid: NAMELESS_ID })
  tree.file('owners/changes', Buffer.from('owner changes\n'))
}

function addNames(tree: SpecWriter): void {
  // biome-ignore format: a table of names
  const names = [
    'with space', 'two  spaces', ' leading', 'trailing ', 'new\nline', 'tab\there', 'back\\slash', 'back\\#012number',
    'ends-in\\', '*', 'a*b', 'what?', 'set[ab]', 'open[', '{a,b}', '-dash', '--delete', '+plus', '#hash', '~tilde',
    '.hidden', '..dots', '...', 'quo"te', "quo'te", '$HOME', '`cmd`', ';semicolon', 'colon:name', 'host::module',
    '@ERROR', 'naïve', '日本語', 'e\u0301', '\x01control', '\x7f', '!bang', '%41', 'a=b', 'foo', 'foo-bar', 'foo.', 'foo0',
  ]
  tree.directory('names')
  for (const name of names) {
    const path = utf8Bytes(`names/${name}`)
    if (name === 'foo') tree.directory(path)
    else tree.file(path, Buffer.from(`named ${name}\n`))
  }
  tree.file(ascii('names/latin1 caf\xe9'), Buffer.from('not UTF-8\n'))
  tree.file(ascii('names/\xff\xfe\x80'), Buffer.from('not UTF-8\n'))
  tree.file(`names/${'n'.repeat(255)}`, Buffer.from('longest name\n'))
  tree.file(`names/${'n'.repeat(254)}`, Buffer.from('second longest name\n'))
  tree.file('names/foo/x', Buffer.from('x\n'))
  tree.directory('names/foo.d')
  tree.file('names/foo.d/y', Buffer.from('y\n'))
  tree.directory('names/-dir')
  tree.file('names/-dir/-file', Buffer.from('-\n'))
}

function addTimes(tree: SpecWriter): void {
  tree.directory('times', { mtime: 1_600_000_000.5 })
  const times = {
    'before-1970': -86_400,
    'just-before-1970': -1,
    epoch: 0,
    'after-2038': 2_200_000_000,
    'after-2106': 4_400_000_000,
    'before-1970-with-fraction': -1_000_000.25,
    fraction: 1_195_776_000 + 1 / 2 + 1 / 512,
    'small-fraction': 1_195_776_000 + 1 / 512,
    'moves-on': 1_195_776_000,
    'y2038-edge': 2_147_483_647,
    'y2038-edge-and-one': 2_147_483_648,
  }
  for (const [name, mtime] of Object.entries(times)) {
    tree.file(`times/${name}`, Buffer.from(`${name}\n`), { mtime })
  }
  tree.symlink('times/symlink', 'fraction', { mtime: 1_111_111_111 })
}

function addWhatChangesType(tree: SpecWriter): void {
  tree.directory('types')
  tree.file('types/file-to-directory', Buffer.from('file\n'))
  tree.file('types/file-to-symlink', Buffer.from('file\n'))
  tree.symlink('types/symlink-to-file', 'nowhere')
  tree.symlink('types/symlink-to-directory', '../dirs')
  for (const name of ['directory-to-file', 'directory-to-symlink']) {
    tree.directory(`types/${name}`)
    tree.file(`types/${name}/content`, Buffer.from('content\n'))
  }
  tree.add('types/fifo-to-file', { type: 'fifo' })
  if (isRoot) tree.device('types/device-to-file', 'char-device', 1, 5)
}

/** The build after `first`: every way in which an entry can differ from the one before it. */
export function secondBuild(first: TreeSpec): TreeSpec {
  const tree = new SpecWriter(first)
  const later = DEFAULT_MTIME + 86_400
  const content = (path: string): Uint8Array => {
    const node = first.get(utf8Bytes(path))
    if (node?.type !== 'file' || !(node.content instanceof Uint8Array))
      throw new Error(`${path}: no such file`)
    return node.content
  }
  const edit = (path: string, offset: number, remove: number, insert: Uint8Array): void =>
    tree.file(path, splice(content(path), offset, remove, insert), { mtime: later })

  edit('data/random', 150_000, 0, randomBytes(20, 1_234)) // inserted
  edit('data/text', 200_000, 5_000, Buffer.alloc(0)) // deleted
  edit('data/five-megabytes', 2_500_000, 10_000, randomBytes(21, 10_000)) // overwritten in the middle
  edit('data/one-byte', 0, 1, Buffer.from('y'))
  edit('data/zeros', 100_000, 0, Buffer.from('not zero'))
  tree.file('data/same-size-and-time', Buffer.from('content of build 2\n'))
  edit('data/grows', content('data/grows').length, 0, randomBytes(22, 3_000))
  edit('data/shrinks', 60_000, content('data/shrinks').length - 60_000, Buffer.alloc(0))
  tree.file('data/becomes-empty', Buffer.alloc(0), { mtime: later })
  tree.file('data/was-empty', Buffer.from('no longer\n'), { mtime: later })
  tree.remove('data/removed')
  tree.file('data/added', randomBytes(23, 30_000), { mtime: later })

  tree.remove('dirs/removed')
  tree.directory('dirs/added', { mtime: later })
  tree.file('dirs/added/file', Buffer.from('new\n'), { mtime: later })
  tree.change('dirs/private', { mode: 0o750 })
  tree.change('dirs/empty', { mtime: later })

  tree.symlink('links/retargeted', 'two, and longer')
  tree.remove('links/dangling')
  tree.symlink('links/added', 'retargeted')

  tree.file('hard/will-part-b', Buffer.from('two inodes in build 2\n'), { mtime: later })
  tree.hardlink('hard/will-join-b', 'hard/will-join-a')
  tree.remove('hard/second')
  tree.hardlink('hard/sub/fourth', 'hard/original')
  edit('hard/edited-a', 25_000, 100, randomBytes(24, 100))

  tree.change('modes/changes', { mode: 0o4711 })
  tree.change('times/moves-on', { mtime: later })

  tree.replace('types/file-to-directory', { type: 'directory' })
  tree.file('types/file-to-directory/content', Buffer.from('content\n'))
  tree.replace('types/file-to-symlink', { type: 'symlink', target: ascii('../data/small') })
  tree.replace('types/symlink-to-file', { type: 'file', content: Buffer.from('file\n') })
  tree.replace('types/symlink-to-directory', { type: 'directory' })
  tree.replace('types/directory-to-file', { type: 'file', content: Buffer.from('file\n') })
  tree.replace('types/directory-to-symlink', { type: 'symlink', target: ascii('../dirs') })
  tree.replace('types/fifo-to-file', { type: 'file', content: Buffer.from('file\n') })

  if (isRoot) {
    tree.replace('types/device-to-file', { type: 'file', content: Buffer.from('file\n') })
    tree.change('owners/changes', { uid: NAMED_ID, gid: NAMELESS_ID })
    tree.change('owners/link', { uid: NAMELESS_ID })
    tree.device('specials/renumbered', 'char-device', 4, 65)
    tree.remove('specials/sda1')
    tree.device('specials/sda2', 'block-device', 8, 2)
  }
  return tree.spec
}

/** A file too long for 32 bits, cheap to make: almost all of it is holes. */
export function hugeSparseFile(size: number): SparseContent {
  return {
    size,
    pieces: [
      { offset: 0, bytes: Buffer.from('first bytes') },
      { offset: 2 ** 32 - 3, bytes: Buffer.from('across') },
      { offset: size - 10, bytes: Buffer.from('last bytes') },
    ],
  }
}

/** Collects a TreeSpec. Text paths are UTF-8; ByteStrings with other bytes pass `ascii()` first. */
export class SpecWriter {
  readonly #nodes: Map<ByteString, TreeNode>

  constructor(base: TreeSpec = new Map()) {
    this.#nodes = new Map(base)
  }

  get spec(): TreeSpec {
    return this.#nodes
  }

  add(path: string, node: TreeNode): void {
    this.#nodes.set(pathBytes(path), node)
  }

  directory(path: string, attributes: Attributes = {}): void {
    this.add(path, { type: 'directory', ...attributes })
  }

  file(path: string, content: Uint8Array | SparseContent, attributes: Attributes = {}): void {
    this.add(path, { type: 'file', content, ...attributes })
  }

  symlink(path: string, target: string, attributes: Attributes = {}): void {
    this.add(path, { type: 'symlink', target: pathBytes(target), ...attributes })
  }

  hardlink(path: string, target: string): void {
    this.add(path, { type: 'hardlink', target: pathBytes(target) })
  }

  device(
    path: string,
    type: 'char-device' | 'block-device',
    major: number,
    minor: number,
    attributes: Attributes = {},
  ): void {
    this.add(path, { type, major, minor, ...attributes })
  }

  /** Other attributes, same entry. */
  change(path: string, attributes: Attributes): void {
    const node = this.#nodes.get(pathBytes(path))
    if (!node) throw new Error(`${path}: nothing to change`)
    this.#nodes.set(pathBytes(path), { ...node, ...attributes })
  }

  /** Takes the entry away, and everything beneath it. */
  remove(path: string): void {
    const bytes = pathBytes(path)
    if (!this.#nodes.delete(bytes)) throw new Error(`${path}: nothing to remove`)
    for (const other of this.#nodes.keys()) if (other.startsWith(`${bytes}/`)) this.#nodes.delete(other)
  }

  replace(path: string, node: TreeNode): void {
    this.remove(path)
    this.add(path, node)
  }
}

/** UTF-8 for text; what already is one byte per character above 127 (from `ascii('\xe9')`) stays. */
function pathBytes(path: string): ByteString {
  return /^[\x00-\xff]*$/.test(path) ? (path as ByteString) : utf8Bytes(path)
}

// ---------------------------------------------------------------------------------------------------
// On disk.

/** Makes the tree at `dir`, which must not exist yet. */
export function makeTree(dir: string, spec: TreeSpec): void {
  const at = (path: ByteString): Buffer => Buffer.concat([Buffer.from(`${dir}/`), toBuffer(path)])
  const paths = [...spec.keys()].sort(compareBytes)
  const nodes = makeNodes(dir, spec)
  try {
    for (const path of paths) {
      const node = spec.get(path)!
      const place = at(path)
      if (node.type === 'directory') mkdirSync(place)
      else if (node.type === 'file') writeContent(place, node.content)
      else if (node.type === 'symlink') symlinkSync(toBuffer(node.target), place)
      else if (node.type !== 'hardlink') renameSync(nodes.pathOf(path), place)
    }
    for (const path of paths) {
      const node = spec.get(path)!
      if (node.type === 'hardlink') linkSync(at(node.target), at(path))
    }
  } finally {
    nodes.remove()
  }
  // Owners first, since chown clears setuid; times last, and of children before their parents.
  for (const path of paths.reverse()) {
    const node = spec.get(path)!
    if (node.type === 'hardlink') continue
    const place = at(path)
    if (isRoot) lchownSync(place, node.uid ?? 0, node.gid ?? 0)
    if (node.type !== 'symlink') chmodSync(place, node.mode ?? (node.type === 'directory' ? 0o755 : 0o644))
    const mtime = node.mtime ?? DEFAULT_MTIME
    const time = mtime < 0 ? new Date(mtime * 1000) : mtime // node takes a negative number for "now"
    lutimesSync(place, time, time)
  }
}

function writeContent(place: Buffer, content: Uint8Array | SparseContent): void {
  const file = openSync(place, 'wx')
  try {
    if (content instanceof Uint8Array) {
      writeSync(file, content)
    } else {
      ftruncateSync(file, content.size)
      for (const { offset, bytes } of content.pieces) writeSync(file, bytes, 0, bytes.length, offset)
    }
  } finally {
    closeSync(file)
  }
}

/**
 * FIFOs and devices under plain names beside the tree, to be renamed into place: node has no mknod, and
 * arguments of a program that is spawned cannot hold bytes which are not UTF-8.
 */
function makeNodes(dir: string, spec: TreeSpec): { pathOf(path: ByteString): string; remove(): void } {
  const parent = mkdtempSync(`${dir}.nodes-`)
  const names = new Map<ByteString, string>()
  let script = ''
  for (const [path, node] of spec) {
    const name = `n${names.size}`
    if (node.type === 'fifo') script += `mkfifo ${name}\n`
    else if (node.type === 'char-device') script += `mknod ${name} c ${node.major} ${node.minor}\n`
    else if (node.type === 'block-device') script += `mknod ${name} b ${node.major} ${node.minor}\n`
    else continue
    names.set(path, name)
  }
  if (script) execFileSync('sh', ['-e'], { input: script, cwd: parent })
  return {
    pathOf: (path) => join(parent, names.get(path)!),
    remove: () => rmSync(parent, { recursive: true }),
  }
}

/** A socket in an existing tree. Apart from the rest, because tar cannot carry sockets. */
export async function makeSocket(path: string): Promise<void> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(`${path}.new`, resolve))
  renameSync(`${path}.new`, path) // closing removes the name that was listened on
  await new Promise((resolve) => server.close(resolve))
  lutimesSync(path, DEFAULT_MTIME, DEFAULT_MTIME)
}
