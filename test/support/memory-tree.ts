/** A Tree made of a plain description, for tests of the protocol alone. Contents rest in one temporary file. */
import { hash, randomUUID } from 'node:crypto'
import { closeSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ascii, type ByteString, utf8Bytes } from '../../src/lib/bytes.ts'
import { fileDigest } from '../../src/rsync/digests.ts'
import type { Content, KnownDigest, Tree, Xattr } from '../../src/rsync/tree.ts'

export interface MemoryNode {
  mode: number
  uid?: number
  gid?: number
  mtime?: number
  mtimeNsec?: number
  data?: Uint8Array
  target?: string
  major?: number
  minor?: number
  link?: number
  xattrs?: Xattr[]
  children?: Record<string, MemoryNode>
}

interface Row extends MemoryNode {
  name: ByteString
  parent: number
  first: number
  count: number
  offset: number
  /** Made when it is first needed. */
  byName?: Map<ByteString, number>
}

export class MemoryTree implements Tree {
  readonly key: string
  readonly userNames = new Map([[0, ascii('root')]])
  readonly groupNames = new Map([[0, ascii('root')]])
  readonly #rows: Row[] = []
  readonly #fd: number
  #end = 0

  /** @param key trees of one description may have one key. */
  constructor(root: MemoryNode, key: string = randomUUID()) {
    this.key = key
    const path = join(tmpdir(), `memory-tree-${randomUUID()}`)
    this.#fd = openSync(path, 'w+')
    rmSync(path)
    this.#push('', root, 0)
    this.#fill(0)
  }

  close(): void {
    closeSync(this.#fd)
  }

  get count(): number {
    return this.#rows.length
  }
  name = (n: number): ByteString => this.#rows[n]!.name
  parent = (n: number): number => this.#rows[n]!.parent
  firstChild = (n: number): number => this.#rows[n]!.first
  childCount = (n: number): number => this.#rows[n]!.count
  child(directory: number, name: ByteString): number {
    const row = this.#rows[directory]!
    row.byName ??= new Map(
      Array.from({ length: row.count }, (_, i) => [this.name(row.first + i), row.first + i]),
    )
    return row.byName.get(name) ?? -1
  }
  mode = (n: number): number => this.#rows[n]!.mode
  uid = (n: number): number => this.#rows[n]!.uid ?? 0
  gid = (n: number): number => this.#rows[n]!.gid ?? 0
  size = (n: number): number => this.#rows[n]!.data?.length ?? this.#rows[n]!.target?.length ?? 0
  mtime = (n: number): number => this.#rows[n]!.mtime ?? 1_700_000_000
  mtimeNsec = (n: number): number => this.#rows[n]!.mtimeNsec ?? 0
  major = (n: number): number => this.#rows[n]!.major ?? 0
  minor = (n: number): number => this.#rows[n]!.minor ?? 0
  linkTarget = (n: number): ByteString => utf8Bytes(this.#rows[n]!.target ?? '')
  linkGroup = (n: number): number => this.#rows[n]!.link ?? 0
  xattrs = (n: number): readonly Xattr[] => this.#rows[n]!.xattrs ?? []
  digest = (n: number, kind: KnownDigest): Uint8Array | undefined =>
    kind === 'sha256'
      ? hash('sha256', this.#rows[n]!.data ?? new Uint8Array(), 'buffer')
      : fileDigest(kind, 0, [this.#rows[n]!.data ?? new Uint8Array()])
  contentKey = (n: number): string => `${this.key}:${n}`

  async open(n: number): Promise<Content> {
    const { offset, data } = this.#rows[n]!
    const fd = this.#fd
    return {
      size: data?.length ?? 0,
      place: { fd, offset },
      read: async (targets, position) => this.readNow(n, position, targets),
      close: () => {},
    }
  }

  protected readNow(n: number, position: number, targets: readonly Uint8Array[]): void {
    let at = this.#rows[n]!.offset + position
    for (const target of targets) at += readSync(this.#fd, target, 0, target.length, at)
  }

  #push(name: string, node: MemoryNode, parent: number): void {
    this.#rows.push({ ...node, name: utf8Bytes(name), parent, first: 0, count: 0, offset: this.#end })
    if (node.data) this.#end += writeSync(this.#fd, node.data, 0, node.data.length, this.#end)
  }

  #fill(at: number): void {
    const row = this.#rows[at]!
    const isDir = (node: MemoryNode): boolean => (node.mode & 0o170000) === 0o040000
    const children = Object.entries(row.children ?? {}).map(([name, node]) => ({
      name,
      node,
      key: utf8Bytes(isDir(node) ? `\x01${name}/` : `\x00${name}`),
    }))
    children.sort((a, b) => (a.key < b.key ? -1 : 1))
    row.first = this.#rows.length
    row.count = children.length
    for (const { name, node } of children) this.#push(name, node, at)
    for (let i = 0; i < children.length; i++) if (isDir(children[i]!.node)) this.#fill(row.first + i)
  }
}

/** As a store's tree: what is in memory is had at once. */
export class SharedMemoryTree extends MemoryTree {
  copy(node: number, from: number, targets: readonly Uint8Array[]): undefined {
    this.readNow(node, from, targets)
  }
}
