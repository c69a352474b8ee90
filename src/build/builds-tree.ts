/**
 * The module `builds`: a directory for each held build, and in it what the build's own module holds.
 *
 * Node 0 is the module's directory, nodes 1 to n those of the builds. A build is opened, and held from then
 * on, when somebody first looks into its directory; only then do its nodes get their numbers, in a row
 * behind all that are known. So who lists the builds opens none, and who syncs one opens that one.
 */
import { randomUUID } from 'node:crypto'
import { RefusedError } from '../errors.ts'
import { ascii, type ByteString, compareBytes } from '../lib/bytes.ts'
import { DIRECTORY } from '../lib/file-mode.ts'
import type { Content, KnownDigest, Tree, Xattr } from '../rsync/tree.ts'

/**
 * A session's builds may have so many nodes together, which is some 300 MB of manifests and file list. A
 * single build may have any number.
 */
const MAX_NODES = 1_000_000

/** A build, before anybody has looked into it. */
export interface ShownBuild {
  readonly id: string
  /** Seconds since 1970: when it came in. */
  readonly mtime: number
}

/** A build's own tree, held until it is released. */
export interface HeldTree {
  readonly tree: Tree
  /** The content of a file is asked for. */
  onAccess(): void
  release(): void
}

/** A build that was looked into. */
interface Part extends HeldTree {
  /** Node of its directory, which is node 0 of its own tree. */
  readonly directory: number
  /** What must be added to the number of any other node of its own tree. */
  readonly shift: number
}

export interface BuildsTreeOptions {
  builds: Iterable<ShownBuild>
  /** @throws StoreError when the build has just left, or can't be read. */
  open(id: string): Promise<HeldTree>
  maxNodes?: number
}

export class BuildsTree implements Tree {
  /** Numbers are given as they are needed, so no two of these trees are alike. */
  readonly key = randomUUID()
  readonly #builds: readonly ShownBuild[]
  readonly #directories: ReadonlyMap<string, number>
  readonly #open: (id: string) => Promise<HeldTree>
  readonly #maxNodes: number
  readonly #mtime: number
  /** By `shift`, as they were opened. */
  readonly #parts: Part[] = []
  readonly #partOf = new Map<number, Part>()
  #count: number
  /** The part that was asked last: most often it is asked again. */
  #recent: Part | undefined
  readonly #accessed = new Set<Part>()

  constructor({ builds, open, maxNodes = MAX_NODES }: BuildsTreeOptions) {
    const sortKey = ({ id }: ShownBuild) => `${id}/` as ByteString
    this.#builds = [...builds].sort((a, b) => compareBytes(sortKey(a), sortKey(b)))
    this.#directories = new Map(this.#builds.map(({ id }, i) => [id, i + 1]))
    this.#mtime = this.#builds.reduce((latest, { mtime }) => Math.max(latest, mtime), 0)
    this.#count = this.#builds.length + 1
    this.#open = open
    this.#maxNodes = maxNodes
  }

  /** Lets go of all builds that were looked into. */
  release(): void {
    for (const part of this.#parts) part.release()
  }

  get count(): number {
    return this.#count
  }

  /**
   * Names of the builds that were looked into. A number to which they give different names has none: it
   * then travels as a number, which is right for each of them.
   */
  get userNames(): ReadonlyMap<number, ByteString> {
    return mergedNames(this.#parts.map(({ tree }) => tree.userNames))
  }
  get groupNames(): ReadonlyMap<number, ByteString> {
    return mergedNames(this.#parts.map(({ tree }) => tree.groupNames))
  }

  enter(directory: number): Promise<void> | undefined {
    const build = this.#builds[directory - 1]
    return build === undefined || this.#partOf.has(directory) ? undefined : this.#add(directory, build)
  }

  async #add(directory: number, { id }: ShownBuild): Promise<void> {
    const held = await this.#open(id)
    // The build's node 0 has a number already.
    const added = held.tree.count - 1
    if (this.#parts.length > 0 && this.#count + added > this.#maxNodes) {
      held.release()
      throw new RefusedError(
        `ERROR: the request looks into builds of more than ${this.#maxNodes} files together`,
        4,
        { hint: `Ask for one after the other, as in builds/${id}/.` },
      )
    }
    const part = { ...held, directory, shift: this.#count - 1 }
    this.#parts.push(part)
    this.#partOf.set(directory, part)
    this.#count += added
  }

  name(node: number): ByteString {
    const part = this.#part(node)
    return part ? part.tree.name(node - part.shift) : ascii(this.#builds[node - 1]?.id ?? '')
  }
  parent(node: number): number {
    const part = this.#part(node)
    const parent = part?.tree.parent(node - part.shift) ?? 0
    return part ? (parent === 0 ? part.directory : parent + part.shift) : 0
  }
  firstChild(node: number): number {
    const part = this.#partWithin(node)
    return part ? part.tree.firstChild(local(part, node)) + part.shift : 1
  }
  childCount(node: number): number {
    const part = this.#partWithin(node)
    return part ? part.tree.childCount(local(part, node)) : this.#builds.length
  }
  child(directory: number, name: ByteString): number {
    const part = this.#partWithin(directory)
    if (!part) return this.#directories.get(name) ?? -1
    const child = part.tree.child(local(part, directory), name)
    return child < 0 ? -1 : child + part.shift
  }
  mode(node: number): number {
    const part = this.#part(node)
    return part ? part.tree.mode(node - part.shift) : DIRECTORY | 0o755
  }
  uid(node: number): number {
    const part = this.#part(node)
    return part ? part.tree.uid(node - part.shift) : 0
  }
  gid(node: number): number {
    const part = this.#part(node)
    return part ? part.tree.gid(node - part.shift) : 0
  }
  size(node: number): number {
    const part = this.#part(node)
    return part ? part.tree.size(node - part.shift) : 0
  }
  mtime(node: number): number {
    const part = this.#part(node)
    return part ? part.tree.mtime(node - part.shift) : (this.#builds[node - 1]?.mtime ?? this.#mtime)
  }
  mtimeNsec(node: number): number {
    const part = this.#part(node)
    return part ? part.tree.mtimeNsec(node - part.shift) : 0
  }
  major(node: number): number {
    const part = this.#part(node)
    return part ? part.tree.major(node - part.shift) : 0
  }
  minor(node: number): number {
    const part = this.#part(node)
    return part ? part.tree.minor(node - part.shift) : 0
  }
  linkTarget(node: number): ByteString {
    const part = this.#part(node)
    return part ? part.tree.linkTarget(node - part.shift) : ascii('')
  }
  /** A build has fewer groups than nodes, so shifted ones of two builds never meet. */
  linkGroup(node: number): number {
    const part = this.#part(node)
    const group = part?.tree.linkGroup(node - part.shift) ?? 0
    return part && group !== 0 ? group + part.shift : 0
  }
  xattrs(node: number): readonly Xattr[] {
    const part = this.#part(node)
    return part ? part.tree.xattrs(node - part.shift) : []
  }
  digest(node: number, kind: KnownDigest): Uint8Array | undefined {
    const part = this.#part(node)
    return part?.tree.digest(node - part.shift, kind)
  }
  contentKey(node: number): string {
    const part = this.#part(node)
    return part ? part.tree.contentKey(node - part.shift) : `${this.key}:${node}`
  }
  async open(node: number): Promise<Content> {
    const part = this.#part(node)
    if (!part) throw new Error(`node ${node} is a directory`)
    this.#noteAccess(part)
    return part.tree.open(node - part.shift)
  }
  sent(node: number): void {
    const part = this.#part(node)
    if (part) this.#noteAccess(part)
  }

  /** Once for a session: a mark on disk for every file would cost more than sending it. */
  #noteAccess(part: Part): void {
    if (this.#accessed.has(part)) return
    this.#accessed.add(part)
    part.onAccess()
  }

  /** The build that a node lies in; undefined for the module's directory and those of the builds. */
  #part(node: number): Part | undefined {
    if (node <= this.#builds.length) return undefined
    const recent = this.#recent
    if (recent && node > recent.shift && node - recent.shift < recent.tree.count) return recent
    let low = 0
    for (let high = this.#parts.length; high - low > 1; ) {
      const middle = (low + high) >>> 1
      if (node > this.#parts[middle]!.shift) low = middle
      else high = middle
    }
    this.#recent = this.#parts[low]!
    return this.#recent
  }

  /** The build whose directory this is, or that the node lies in; undefined for the module's directory. */
  #partWithin(node: number): Part | undefined {
    if (node === 0) return undefined
    const part = this.#partOf.get(node) ?? this.#part(node)
    if (!part) throw new Error(`node ${node} was not entered`)
    return part
  }
}

/** The node's number in the build's own tree. */
function local(part: Part, node: number): number {
  return node === part.directory ? 0 : node - part.shift
}

function mergedNames(parts: readonly ReadonlyMap<number, ByteString>[]): Map<number, ByteString> {
  const merged = new Map<number, ByteString>()
  const contested = new Set<number>()
  for (const names of parts) {
    for (const [id, name] of names) {
      if ((merged.get(id) ?? name) !== name) contested.add(id)
      merged.set(id, name)
    }
  }
  for (const id of contested) merged.delete(id)
  return merged
}
