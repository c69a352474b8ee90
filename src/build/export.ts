/**
 * A build's tree for those without rsync: files by their paths, as a tar archive, as a list in JSON. All of it
 * is made as it is read, so that a slow reader costs no memory.
 *
 * Whoever reads a whole file gets bytes that were compared with the digest of when the build came in: what
 * has rotted ends in an error before its last bytes are handed out.
 */
import { createHash } from 'node:crypto'
import { encodeTarHeader, TAR_END, tarPadding } from '../archive/tar-write.ts'
import { StoreCorrupt } from '../errors.ts'
import { ascii, type ByteString, showBytes, splitBytes, toBuffer } from '../lib/bytes.ts'
import {
  BLOCK_DEVICE,
  CHAR_DEVICE,
  DIRECTORY,
  FIFO,
  isDeviceMode,
  isDirectoryMode,
  isRegularMode,
  isSymlinkMode,
  PERMISSION_MASK,
  REGULAR,
  SYMLINK,
  TYPE_MASK,
  typeOfMode,
} from '../lib/file-mode.ts'
import { Pacer } from '../lib/pacer.ts'
import type { Tree } from '../rsync/tree.ts'

/** What is read of a file at a time. */
const PIECE = 256 * 1024
/** Small pieces are handed out together, once they are so many bytes. */
const GATHERED = 64 * 1024
/** As many as Linux follows. */
const MAX_LINKS = 40
const TAR_TYPES: Record<number, string> = {
  [REGULAR]: '0',
  [SYMLINK]: '2',
  [CHAR_DEVICE]: '3',
  [BLOCK_DEVICE]: '4',
  [DIRECTORY]: '5',
  [FIFO]: '6',
}

/** The name of an entry's type, from its mode. */
export function typeNameOf(mode: number): string {
  return typeOfMode(mode) ?? 'unknown'
}

/**
 * The node that a path leads to, from `root` on, which symlinks do not lead out of: their absolute targets
 * begin there. @returns -1 when there is none.
 */
export async function findNode(tree: Tree, root: number, path: ByteString): Promise<number> {
  let node = root
  let links = 0
  const rest = splitBytes(path, '/').reverse()
  while (rest.length > 0) {
    const name = rest.pop()!
    if (name === '' || name === '.') continue
    if (!isDirectoryMode(tree.mode(node))) return -1
    if (name === '..') {
      if (node !== root) node = tree.parent(node)
      continue
    }
    await tree.enter?.(node)
    const child = tree.child(node, name)
    if (child < 0) return -1
    if (!isSymlinkMode(tree.mode(child))) {
      node = child
      continue
    }
    if (++links > MAX_LINKS) return -1
    const target = tree.linkTarget(child)
    if (target.startsWith('/')) node = root
    rest.push(...splitBytes(target, '/').reverse())
  }
  return node
}

/** Stretches of a regular file. The whole of it is compared with its digest. @throws StoreError */
export async function* contentOf(
  tree: Tree,
  node: number,
  from = 0,
  end = tree.size(node),
): AsyncGenerator<Buffer> {
  const size = tree.size(node)
  const expected = from === 0 && end === size ? tree.digest(node, 'sha256') : undefined
  const actual = expected && createHash('sha256')
  const content = await tree.open(node)
  try {
    for (let at = from; at < end; ) {
      const piece = Buffer.allocUnsafe(Math.min(PIECE, end - at))
      await content.read([piece], at)
      at += piece.length
      actual?.update(piece)
      if (at === end && actual && !actual.digest().equals(expected!))
        throw new StoreCorrupt(`"${showBytes(tree.name(node))}" is not what it was`)
      yield piece
    }
  } catch (error) {
    tree.suspect?.(node)
    throw error
  } finally {
    content.close()
  }
}

interface Visited {
  node: number
  /** Relative to where the walk began; '' there. */
  path: ByteString
}

/** Every entry from a node on, each directory before what is in it. */
async function* walk(tree: Tree, root: number, pacer: Pacer): AsyncGenerator<Visited> {
  const stack: Visited[] = [{ node: root, path: ascii('') }]
  for (let here = stack.pop(); here; here = stack.pop()) {
    if (pacer.due) await pacer.rest()
    yield here
    const { node, path } = here
    if (!isDirectoryMode(tree.mode(node))) continue
    await tree.enter?.(node)
    const first = tree.firstChild(node)
    for (let child = first + tree.childCount(node) - 1; child >= first; child--) {
      const name = tree.name(child)
      stack.push({ node: child, path: path === '' ? name : (`${path}/${name}` as ByteString) })
    }
  }
}

/** A tar archive of all that lies below `root`. @throws StoreError; the signal's reason. */
export async function* tarOf(tree: Tree, root: number, signal: AbortSignal): AsyncGenerator<Buffer> {
  yield* gathered(tarPieces(tree, root, new Pacer(signal)))
}

async function* tarPieces(tree: Tree, root: number, pacer: Pacer): AsyncGenerator<Buffer> {
  const firstNames = new Map<number, ByteString>()
  for await (const { node, path } of walk(tree, root, pacer)) {
    const mode = tree.mode(node)
    const type = TAR_TYPES[mode & TYPE_MASK]
    if (type === undefined) continue // sockets: tar has no word for them
    const group = tree.linkGroup(node)
    const first = group === 0 ? undefined : firstNames.get(group)
    const place = path === '' ? ascii('.') : (`./${path}` as ByteString)
    if (group !== 0 && first === undefined) firstNames.set(group, place)
    const isFile = isRegularMode(mode) && first === undefined
    yield encodeTarHeader({
      path: place,
      type: first === undefined ? type : '1',
      mode: mode & PERMISSION_MASK,
      uid: tree.uid(node),
      gid: tree.gid(node),
      userName: tree.userNames.get(tree.uid(node)) ?? ascii(''),
      groupName: tree.groupNames.get(tree.gid(node)) ?? ascii(''),
      size: isFile ? tree.size(node) : 0,
      mtime: tree.mtime(node),
      mtimeNsec: tree.mtimeNsec(node),
      target: first ?? (isSymlinkMode(mode) ? tree.linkTarget(node) : ascii('')),
      major: tree.major(node),
      minor: tree.minor(node),
      xattrs: first === undefined ? tree.xattrs(node) : [],
    })
    if (!isFile) continue
    yield* contentOf(tree, node)
    yield tarPadding(tree.size(node))
  }
  yield TAR_END
}

/** A list of all that lies below `root`, as the text of a JSON object. @throws the signal's reason. */
export async function* manifestJsonOf(
  tree: Tree,
  root: number,
  id: string,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  yield* gathered(manifestPieces(tree, root, id, new Pacer(signal)))
}

async function* manifestPieces(tree: Tree, root: number, id: string, pacer: Pacer): AsyncGenerator<Buffer> {
  yield Buffer.from(`{"build":${JSON.stringify(id)},"entries":[`)
  let separator = '\n'
  for await (const { node, path } of walk(tree, root, pacer)) {
    yield Buffer.from(separator + JSON.stringify(describe(tree, node, path)))
    separator = ',\n'
  }
  yield Buffer.from('\n]}\n')
}

function describe(tree: Tree, node: number, path: ByteString): Record<string, unknown> {
  const mode = tree.mode(node)
  const uid = tree.uid(node)
  const gid = tree.gid(node)
  const sha256 = isRegularMode(mode) ? tree.digest(node, 'sha256') : undefined
  const device = isDeviceMode(mode)
  const name = (names: ReadonlyMap<number, ByteString>, number: number): string | undefined => {
    const known = names.get(number)
    return known && showBytes(known)
  }
  return {
    ...text('path', path === '' ? ascii('.') : path),
    type: typeNameOf(mode),
    mode: (mode & PERMISSION_MASK).toString(8).padStart(4, '0'),
    uid,
    gid,
    user: name(tree.userNames, uid),
    group: name(tree.groupNames, gid),
    mtime: tree.mtime(node),
    mtimeNsec: tree.mtimeNsec(node) || undefined,
    size: isRegularMode(mode) ? tree.size(node) : undefined,
    sha256: sha256 && Buffer.from(sha256).toString('hex'),
    ...(isSymlinkMode(mode) ? text('target', tree.linkTarget(node)) : {}),
    ...(device ? { major: tree.major(node), minor: tree.minor(node) } : {}),
    linkGroup: tree.linkGroup(node) || undefined,
    xattrs: xattrsOf(tree, node),
  }
}

/** Names are bytes. Those that are no UTF-8 go as base64, under a key of their own. */
function text(key: string, bytes: ByteString): Record<string, string> {
  const buffer = toBuffer(bytes)
  const decoded = buffer.toString('utf8')
  return Buffer.from(decoded).equals(buffer)
    ? { [key]: decoded }
    : { [`${key}Base64`]: buffer.toString('base64') }
}

function xattrsOf(tree: Tree, node: number): Record<string, string> | undefined {
  const xattrs = tree.xattrs(node)
  if (xattrs.length === 0) return undefined
  return Object.fromEntries(
    xattrs.map(({ name, value }) => [showBytes(name), Buffer.from(value).toString('base64')]),
  )
}

/** Puts small pieces together, as each that is handed out costs a turn of the event loop. */
async function* gathered(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let waiting: Buffer[] = []
  let bytes = 0
  for await (const piece of pieces) {
    waiting.push(piece)
    bytes += piece.length
    if (bytes < GATHERED) continue
    yield Buffer.concat(waiting)
    waiting = []
    bytes = 0
  }
  if (bytes > 0) yield Buffer.concat(waiting)
}
