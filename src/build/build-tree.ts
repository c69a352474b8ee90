/**
 * What a client sees in the module of a build: `contents`, a file, and `root`, the build's tree.
 *
 * Node 0 is the module's directory, node 1 `contents`, and node 2 + i entry i of the manifest; so the
 * numbering of a manifest, whose order is rsync's own, carries over as it is.
 */
import { StoreCorrupt, StoreError } from '../errors.ts'
import { ascii, type ByteString } from '../lib/bytes.ts'
import type { Disk, DiskFile } from '../lib/disk.ts'
import { DIRECTORY, REGULAR } from '../lib/file-mode.ts'
import type { Content, KnownDigest, Tree, Xattr } from '../rsync/tree.ts'
import type { Manifest } from '../store/manifest.ts'
import type { BlobReader } from '../store/packs.ts'

const MODULE = 0
const CONTENTS = 1
/** Node of the manifest's entry 0. */
const FIRST = 2

/** What the tree needs from the store. */
export interface BlobSource {
  /** Where `contents` rests. */
  readonly disk: Disk
  openBlob(digest: Uint8Array): Promise<BlobReader>
  copyBlob(digest: Uint8Array, position: number, targets: readonly Uint8Array[]): Promise<void> | undefined
}

/** The file `contents` of a build, as it rests on disk. */
export interface ContentsFile {
  path: string
  size: number
  /** Seconds since 1970: when the build came in. */
  mtime: number
}

export class BuildTree implements Tree {
  readonly key: string
  readonly count: number
  readonly userNames: ReadonlyMap<number, ByteString>
  readonly groupNames: ReadonlyMap<number, ByteString>
  readonly #manifest: Manifest
  readonly #blobs: BlobSource
  readonly #contents: ContentsFile
  readonly #onSuspect: (digest: Uint8Array | undefined) => void

  /** @param onSuspect is told of a blob that may have rotted; undefined stands for the build's own files. */
  constructor(
    manifest: Manifest,
    blobs: BlobSource,
    contents: ContentsFile,
    onSuspect: (digest: Uint8Array | undefined) => void,
  ) {
    this.#onSuspect = onSuspect
    this.#manifest = manifest
    this.#blobs = blobs
    this.#contents = contents
    // The seal names the tree; `contents` may be upstream's own file and comes in at another time.
    this.key = `${manifest.seal}:${contents.size}:${contents.mtime}`
    this.count = manifest.count + FIRST
    this.userNames = manifest.userNames
    this.groupNames = manifest.groupNames
  }

  name(node: number): ByteString {
    if (node > FIRST) return this.#manifest.name(node - FIRST)
    return node === FIRST ? ROOT_NAME : node === CONTENTS ? CONTENTS_NAME : EMPTY
  }
  parent(node: number): number {
    return node > FIRST ? this.#manifest.parent(node - FIRST) + FIRST : MODULE
  }
  firstChild(node: number): number {
    if (node >= FIRST) return this.#manifest.firstChild(node - FIRST) + FIRST
    return CONTENTS
  }
  childCount(node: number): number {
    if (node >= FIRST) return this.#manifest.childCount(node - FIRST)
    return node === MODULE ? 2 : 0
  }
  child(directory: number, name: ByteString): number {
    if (directory >= FIRST) {
      const child = this.#manifest.child(directory - FIRST, name)
      return child < 0 ? -1 : child + FIRST
    }
    if (directory !== MODULE) return -1
    return name === ROOT_NAME ? FIRST : name === CONTENTS_NAME ? CONTENTS : -1
  }
  mode(node: number): number {
    if (node >= FIRST) return this.#manifest.mode(node - FIRST)
    return node === MODULE ? DIRECTORY | 0o755 : REGULAR | 0o644
  }
  uid(node: number): number {
    return node >= FIRST ? this.#manifest.uid(node - FIRST) : 0
  }
  gid(node: number): number {
    return node >= FIRST ? this.#manifest.gid(node - FIRST) : 0
  }
  size(node: number): number {
    if (node >= FIRST) return this.#manifest.size(node - FIRST)
    return node === CONTENTS ? this.#contents.size : 0
  }
  mtime(node: number): number {
    return node >= FIRST ? this.#manifest.mtime(node - FIRST) : this.#contents.mtime
  }
  mtimeNsec(node: number): number {
    return node >= FIRST ? this.#manifest.mtimeNsec(node - FIRST) : 0
  }
  major(node: number): number {
    return node >= FIRST ? this.#manifest.major(node - FIRST) : 0
  }
  minor(node: number): number {
    return node >= FIRST ? this.#manifest.minor(node - FIRST) : 0
  }
  linkTarget(node: number): ByteString {
    return node >= FIRST ? this.#manifest.linkTarget(node - FIRST) : EMPTY
  }
  linkGroup(node: number): number {
    return node >= FIRST ? this.#manifest.linkGroup(node - FIRST) : 0
  }
  xattrs(node: number): readonly Xattr[] {
    return node >= FIRST ? this.#manifest.xattrs(node - FIRST) : []
  }
  digest(node: number, kind: KnownDigest): Uint8Array | undefined {
    const blob = this.#blob(node)
    if (blob < 0) return undefined
    if (kind === 'sha256') return this.#manifest.blobDigest(blob)
    return kind === 'md5' ? this.#manifest.blobMd5(blob) : this.#manifest.blobXxh128(blob)
  }
  contentKey(node: number): string {
    const blob = this.#blob(node)
    return blob < 0 ? `${this.key}:${node}` : Buffer.from(this.#manifest.blobDigest(blob)).toString('latin1')
  }

  async open(node: number): Promise<Content> {
    if (node === CONTENTS) return openPlainFile(this.#blobs.disk, this.#contents)
    const blob = this.#blob(node)
    if (blob < 0) throw new StoreError(`node ${node} has no content`)
    if (this.#manifest.blobSize(blob) === 0) return NOTHING
    return new BlobContent(
      await this.#blobs.openBlob(this.#manifest.blobDigest(blob)),
      this.#manifest.blobSize(blob),
    )
  }

  copy(node: number, from: number, targets: readonly Uint8Array[]): Promise<void> | undefined {
    const blob = this.#blob(node)
    // An empty one is in no pack.
    if (blob >= 0 && this.#manifest.blobSize(blob) === 0) return undefined
    if (blob >= 0) return this.#blobs.copyBlob(this.#manifest.blobDigest(blob), from, targets)
    return this.#copyOpened(node, from, targets)
  }

  async #copyOpened(node: number, from: number, targets: readonly Uint8Array[]): Promise<void> {
    const content = await this.open(node)
    try {
      await content.read(targets, from)
    } finally {
      content.close()
    }
  }

  suspect(node: number): void {
    const blob = this.#blob(node)
    if (blob >= 0) this.#onSuspect(this.#manifest.blobDigest(blob))
    else if (node === CONTENTS) this.#onSuspect(undefined)
  }

  #blob(node: number): number {
    return node >= FIRST ? this.#manifest.blob(node - FIRST) : -1
  }
}

class BlobContent implements Content {
  readonly size: number
  readonly #reader: BlobReader

  constructor(reader: BlobReader, size: number) {
    this.#reader = reader
    this.size = size
    if (reader.size !== size) {
      reader.close()
      throw new StoreCorrupt(`a blob of ${size} bytes is stored with ${reader.size}`)
    }
  }
  get place(): { fd: number; offset: number } {
    return this.#reader.place
  }
  read(targets: readonly Uint8Array[], position: number): Promise<void> {
    return this.#reader.read(targets, position)
  }
  close(): void {
    this.#reader.close()
  }
}

/** An empty file rests nowhere. */
const NOTHING: Content = { size: 0, place: { fd: -1, offset: 0 }, read: async () => {}, close: () => {} }

async function openPlainFile(disk: Disk, { path, size }: ContentsFile): Promise<Content> {
  let file: DiskFile
  try {
    file = await disk.open(path, 'r')
  } catch (cause) {
    throw new StoreError(`${path} cannot be read: ${(cause as Error).message}`, { cause })
  }
  return {
    size,
    place: { fd: file.fd, offset: 0 },
    read: async (targets, position) => {
      const wanted = targets.reduce((sum, target) => sum + target.length, 0)
      const { bytesRead } = await file.readv(targets, position)
      if (bytesRead < wanted) throw new StoreCorrupt(`${path} is shorter than it was`)
    },
    close: () => void file.close().catch(() => {}),
  }
}

const EMPTY = ascii('')
const ROOT_NAME = ascii('root')
const CONTENTS_NAME = ascii('contents')
