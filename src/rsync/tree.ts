/**
 * What the sender asks of whoever has files: an immutable tree of numbered nodes, and their content.
 *
 * Node 0 is the module's root directory. The children of a directory are numbered in a row, in rsync's
 * own order (docs/rsync-protocol.md, section 6.9, protocol 29 and later): first what is no directory, by
 * the bytes of the name; then directories, by the bytes of name + '/'. A node of a tree never changes, so
 * what is derived from it may be kept under the tree's key.
 *
 * A tree may get to know its nodes while it is looked at: then it has `enter`, and whoever is about to look
 * at a directory's children waits for that first.
 */
import type { ByteString } from '../lib/bytes.ts'

/** Digests that a tree may know of a file without reading it. */
export type KnownDigest = 'md5' | 'xxh128' | 'sha256'

export interface Xattr {
  /** Full name, "user.foo". */
  name: ByteString
  value: Uint8Array
}

export interface Tree {
  /** Names this content for ever: two trees of equal key are equal in every node. */
  readonly key: string
  /** Number of nodes that are known by now. */
  readonly count: number
  readonly userNames: ReadonlyMap<number, ByteString>
  readonly groupNames: ReadonlyMap<number, ByteString>

  /** One path component; the root's is ''. */
  name(node: number): ByteString
  /**
   * Gets ready what lies in a directory; waited for before `firstChild`, `childCount` and `child` are asked.
   * Undefined, or no such function: it is ready.
   * @throws StoreError when what lies there can't be had.
   */
  enter?(directory: number): Promise<void> | undefined

  /** The root is its own parent. */
  parent(node: number): number
  firstChild(node: number): number
  childCount(node: number): number
  /** The child of that name, or -1. */
  child(directory: number, name: ByteString): number

  /** Type and permissions, the 16 bits of Unix. */
  mode(node: number): number
  uid(node: number): number
  gid(node: number): number
  /** Bytes; for a symlink those of its target. */
  size(node: number): number
  /** Whole seconds since 1970, may be negative. */
  mtime(node: number): number
  /** Nanoseconds above `mtime`. */
  mtimeNsec(node: number): number
  major(node: number): number
  minor(node: number): number
  linkTarget(node: number): ByteString
  /** 0, or a number that all names of one hard-linked file share. */
  linkGroup(node: number): number
  xattrs(node: number): readonly Xattr[]

  /** A regular file's digest in the wire's layout, as computed when the build came in; else undefined. */
  digest(node: number, kind: KnownDigest): Uint8Array | undefined
  /** Names the content of a regular file: equal keys, equal bytes. */
  contentKey(node: number): string
  /** Told when content goes out to a client, also where nobody needs to open it for that. */
  sent?(node: number): void
  /**
   * Fills the buffers, one after the other, with a regular file's content: at once when it is in memory. A tree
   * that does not have this has its content opened.
   * @throws StoreError
   */
  copy?(node: number, from: number, targets: readonly Uint8Array[]): Promise<void> | undefined
  /** @throws StoreError when the content can't be read. */
  open(node: number): Promise<Content>
  /** The content of a regular file may not be what it was: it could not be read, or a client refused it. */
  suspect?(node: number): void
}

/** The bytes of one regular file. Whoever opens it closes it. */
export interface Content {
  readonly size: number
  /**
   * Fills the buffers, one after the other, with the bytes from `position` on; all of them, unless an
   * error is thrown. The caller asks for nothing beyond `size`.
   */
  read(targets: readonly Uint8Array[], position: number): Promise<void>
  /**
   * Where the bytes rest, so that a worker thread can read them by itself while this content is open: an
   * open file descriptor of this process, and the offset of the first byte. Small content may rest in
   * memory: then this is all of it.
   */
  readonly place: { fd: number; offset: number } | Uint8Array
  close(): void
}

/** Whether a tree's nodes are numbered once and for all, so that what was worked out can be found by them. */
export function isNumbered(tree: Tree): boolean {
  return tree.enter === undefined
}
