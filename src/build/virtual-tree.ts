/**
 * A directory of small files that exist nowhere but in memory, as a Tree: what a module shows when it tells
 * of builds rather than holding one.
 */
import { hash, randomUUID } from 'node:crypto'
import { ascii, type ByteString, byteString, compareBytes } from '../lib/bytes.ts'
import { DIRECTORY, REGULAR } from '../lib/file-mode.ts'
import { fileDigest } from '../rsync/digests.ts'
import type { Content, KnownDigest, Tree, Xattr } from '../rsync/tree.ts'

export interface VirtualFile {
  readonly name: ByteString
  readonly content: Uint8Array
  /** Seconds since 1970. */
  readonly mtime: number
}

const ROOT = 0
/** Node of the first file. */
const FIRST = 1

export class VirtualTree implements Tree {
  readonly key = randomUUID()
  readonly userNames: ReadonlyMap<number, ByteString> = new Map()
  readonly groupNames: ReadonlyMap<number, ByteString> = new Map()
  readonly #files: readonly VirtualFile[]
  readonly #nodes: ReadonlyMap<ByteString, number>
  readonly #mtime: number

  /** @param mtime of the directory. */
  constructor(files: Iterable<VirtualFile>, mtime: number) {
    this.#files = [...files].sort((a, b) => compareBytes(a.name, b.name))
    this.#nodes = new Map(this.#files.map(({ name }, i) => [name, i + FIRST]))
    this.#mtime = mtime
  }

  get count(): number {
    return this.#files.length + FIRST
  }
  name(node: number): ByteString {
    return this.#file(node)?.name ?? EMPTY
  }
  parent(): number {
    return ROOT
  }
  firstChild(): number {
    return FIRST
  }
  childCount(node: number): number {
    return node === ROOT ? this.#files.length : 0
  }
  child(directory: number, name: ByteString): number {
    return directory === ROOT ? (this.#nodes.get(name) ?? -1) : -1
  }
  mode(node: number): number {
    return node === ROOT ? DIRECTORY | 0o755 : REGULAR | 0o644
  }
  uid(): number {
    return 0
  }
  gid(): number {
    return 0
  }
  size(node: number): number {
    return this.#file(node)?.content.length ?? 0
  }
  mtime(node: number): number {
    return this.#file(node)?.mtime ?? this.#mtime
  }
  mtimeNsec(): number {
    return 0
  }
  major(): number {
    return 0
  }
  minor(): number {
    return 0
  }
  linkTarget(): ByteString {
    return EMPTY
  }
  linkGroup(): number {
    return 0
  }
  xattrs(): readonly Xattr[] {
    return []
  }
  /** As quickly worked out as looked up, and most files are never asked for theirs. */
  digest(node: number, kind: KnownDigest): Uint8Array | undefined {
    const file = this.#file(node)
    if (!file) return undefined
    return kind === 'sha256' ? hash('sha256', file.content, 'buffer') : fileDigest(kind, 0, [file.content])
  }
  contentKey(node: number): string {
    return byteString(hash('sha256', this.#file(node)?.content ?? NOTHING, 'buffer'))
  }
  async open(node: number): Promise<Content> {
    return new MemoryContent(this.#file(node)?.content ?? NOTHING)
  }

  #file(node: number): VirtualFile | undefined {
    return this.#files[node - FIRST]
  }
}

class MemoryContent implements Content {
  readonly place: Uint8Array

  constructor(bytes: Uint8Array) {
    this.place = bytes
  }
  get size(): number {
    return this.place.length
  }
  async read(targets: Uint8Array[], position: number): Promise<void> {
    let at = position
    for (const target of targets) {
      target.set(this.place.subarray(at, at + target.length))
      at += target.length
    }
  }
  close(): void {}
}

const EMPTY = ascii('')
const NOTHING = new Uint8Array(0)
