/**
 * Lists: the file list of a request as bytes ready to go out, made for the first client that asks and kept
 * for the rest. A fleet asks for the same list thousands of times: then it costs a look-up and a write.
 *
 * What shapes a list is the tree, the protocol, what was agreed on, nearly every option, the filters and the
 * paths; the key is a hash of all of them. Lists of trees that are numbered as they are looked into, and
 * lists of names that a client sends, are made each time.
 */
import { hash } from 'node:crypto'
import { StoreError } from '../errors.ts'
import { asBuffer, type ByteString } from '../lib/bytes.ts'
import { isRegularMode } from '../lib/file-mode.ts'
import { Pacer } from '../lib/pacer.ts'
import { SingleFlight } from '../lib/single-flight.ts'
import { type Derived, recordedDigest } from './derived.ts'
import { DIGEST_LENGTH, type DigestName } from './digests.ts'
import { Filters } from './filters.ts'
import { buildFileList, encodeFileList, type FileList, ioErrorOf, type ListNotice } from './flist.ts'
import type { Kept } from './kept.ts'
import { pathsInModule, type SourcePath } from './paths.ts'
import { type Agreement, COMPAT } from './setup.ts'
import type { Tree } from './tree.ts'
import type { TransferOptions } from './wire/arguments.ts'
import type { FilterRule } from './wire/filters.ts'
import type { XattrChoice } from './wire/xattrs.ts'

export interface ListRequest {
  tree: Tree
  /** As the client names it in its paths. */
  module: ByteString
  options: TransferOptions
  rules: readonly FilterRule[]
  agreement: Agreement
  /** What the client names, with what has to be read from it for that. */
  sources: () => Promise<Iterable<SourcePath> | AsyncIterable<SourcePath>>
}

/** A list that can be sent, by as many sessions as like to. */
export interface PreparedList {
  /** Entries. */
  readonly count: number
  /** Node of each entry in the order of transmission; -1 for an argument to delete. */
  readonly nodes: Int32Array
  /** Index on the wire -> place in the order of transmission. */
  readonly order: Uint32Array
  /** Bytes of all regular files and symlinks. */
  readonly totalSize: number
  readonly notices: readonly ListNotice[]
  /** Which extended attributes it tells of. */
  readonly xattrChoice: XattrChoice
  /** What goes over the wire. */
  readonly bytes: Uint8Array
  /** The name of an entry, relative to the transfer root. */
  nameOf(place: number): ByteString
}

/**
 * A list apart from the tree that it was made of: that one holds a whole manifest, and is the business of whoever
 * looks after manifests. Trees of one key number their nodes alike, so the names are read from the asker's own.
 */
interface KnownList extends Omit<PreparedList, 'nameOf'> {
  /** Node of the directory that the names begin at. */
  readonly base: number
}

/** Bytes of lists in memory: some twenty of a system of 40,000 entries. */
const MEMORY = 32 * 2 ** 20
/** What a list takes beside its bytes: objects, buffers, its key. */
const LIST_OVERHEAD = 4 * 1024
const NOTICE_BYTES = 300
/** A list is kept in parts of this size. */
const PART = 2 ** 20
/** Parts that are put in a row: half of what the cache lets wait for the disk. Others put things as well. */
const PARTS_AT_ONCE = 8
/** How often a part is put that is refused, each time when all that waited before it is on the disk. */
const MOST_TRIES = 20
/** Bytes of lists that may be on their way to where they are kept: each of them is one more copy in memory. */
const MOST_KEEPING = 64 * 2 ** 20
/** Changes whenever the meaning of a key or of what is kept does. */
const FORMAT = 3
/** Protocol 32 changed nothing about lists. */
const LATEST_SHAPE = 31
const HEAD_BYTES = 20

/**
 * Options that say nothing about the list: how data goes out, and when; what an agreement was made of; paths with
 * the name of a module, which may be a channel's.
 */
const OTHER_OPTIONS: ReadonlySet<string> = new Set<keyof TransferOptions>([
  'append',
  'backup',
  'bandwidth',
  'checksumChoice',
  'checksumSeed',
  'compress',
  'compressChoice',
  'compressLevel',
  'dryRun',
  'info',
  'inplace',
  'paths',
  'secluded',
  'skipCompress',
  'timeout',
])

/** What is kept of a list as JSON. */
interface Told {
  notices: readonly ListNotice[]
  /** Extended attributes that the client's rules keep. */
  attributes: readonly ByteString[] | undefined
}

export class Lists {
  readonly #derived: Derived
  readonly #kept: Kept
  readonly #preparing = new SingleFlight<string, PreparedList | KnownList>()
  /** In the order of use. */
  readonly #recent = new Map<string, KnownList>()
  #recentBytes = 0
  readonly #keeping = new Set<Promise<void>>()
  #keepingBytes = 0

  constructor(derived: Derived, kept: Kept) {
    this.#derived = derived
    this.#kept = kept
  }

  /** @throws what finding the paths and making the list throw; the signal's reason. */
  async prepare(request: ListRequest, signal: AbortSignal): Promise<PreparedList> {
    const { tree, options } = request
    if (tree.enter || options.filesFrom !== undefined) return (await this.#make(request, signal)).prepared
    const key = keyOf(request)
    const name = key.toString('latin1')
    const recent = this.#recent.get(name)
    if (recent) {
      this.#recent.delete(name)
      this.#recent.set(name, recent)
      return withNames(recent, tree)
    }
    const found = await this.#preparing.run(
      name,
      async (stop) => {
        const known = await this.#load(key, options)
        if (known) return this.#remember(name, known)
        const { prepared, lasting } = await this.#make(request, stop)
        if (!lasting) return prepared
        this.#keep(key, lasting)
        return this.#remember(name, lasting)
      },
      signal,
    )
    return 'nameOf' in found ? found : withNames(found, tree)
  }

  /** Resolves when what has been made so far is kept. */
  async keepAll(): Promise<void> {
    while (this.#keeping.size > 0) await Promise.all(this.#keeping)
  }

  /** @returns `lasting` where the next who asks can be given the same. */
  async #make(
    request: ListRequest,
    signal: AbortSignal,
  ): Promise<{ prepared: PreparedList; lasting: KnownList | undefined }> {
    const { tree, options, rules, agreement } = request
    const { protocol, compat, listDigest } = agreement
    const { cvsExclude, from0 } = options
    const filters = await Filters.of(rules, { cvsExclude, from0 }, new Pacer(signal))
    const list = await buildFileList(
      tree,
      await request.sources(),
      filters,
      { ...options, protocol, unsorted: options.iconv !== undefined },
      signal,
    )
    const checksum = options.checksum ? await this.#digests(tree, list, listDigest, signal) : undefined
    const kept = options.xattrs > 0 ? await keptXattrs(tree, list, filters, signal) : undefined
    const xattrChoice: XattrChoice = { withRsyncOwn: options.xattrs > 1, kept }
    const chunks: Uint8Array[] = []
    const encoding = encodeFileList(list, tree, {
      ...options,
      protocol,
      varintFlags: (compat & COMPAT.varintFlags) !== 0,
      safeEnd: protocol >= 31 || (compat & COMPAT.safeFlist) !== 0,
      id0Names: (compat & COMPAT.id0Names) !== 0,
      xattrChoice: options.xattrs > 0 ? xattrChoice : undefined,
      checksumLength: options.checksum ? DIGEST_LENGTH[listDigest] : 0,
      checksum: checksum?.of,
      ioError: ioErrorOf(list.notices, options.ignoreErrors),
    })
    for await (const chunk of encoding) {
      chunks.push(chunk)
      signal.throwIfAborted()
    }
    const { names, base, order, totalSize, notices } = list
    const count = names.length
    const nodes = Int32Array.from(list.nodes)
    const bytes = joined(chunks)
    const known: KnownList = { count, nodes, order, totalSize, notices, xattrChoice, bytes, base }
    // A file that could not be read has no digest in this list, but may have one in the next.
    const isWhole =
      checksum?.complete !== false && !notices.some(({ type }) => type === 'unreadable-directory')
    return {
      prepared: { ...known, nameOf: (place) => names[place]! },
      lasting: isWhole && base >= 0 ? known : undefined,
    }
  }

  /**
   * The -c digest of each regular file. What the manifest has not is worked out before the list begins, so
   * that encoding never waits. A file that can't be read has none: the client asks for it, and is told then.
   */
  async #digests(
    tree: Tree,
    list: FileList,
    name: DigestName,
    signal: AbortSignal,
  ): Promise<{ of: (node: number) => Uint8Array | undefined; complete: boolean }> {
    const workedOut = new Map<number, Uint8Array>()
    const pacer = new Pacer(signal)
    let complete = true
    for (const node of list.nodes) {
      if (pacer.due) await pacer.rest()
      if (node < 0 || !isRegularMode(tree.mode(node)) || recordedDigest(tree, node, name)) continue
      try {
        const digest = this.#derived.digest(tree, node, name, 0, signal)
        workedOut.set(node, digest instanceof Promise ? await digest : digest)
      } catch (error) {
        if (!(error instanceof StoreError)) throw error
        complete = false
      }
    }
    return { of: (node) => recordedDigest(tree, node, name) ?? workedOut.get(node), complete }
  }

  #remember(name: string, list: KnownList): KnownList {
    this.#recent.set(name, list)
    this.#recentBytes += memoryOf(list)
    for (const [oldest, old] of this.#recent) {
      if (this.#recentBytes <= MEMORY) break
      this.#recent.delete(oldest)
      this.#recentBytes -= memoryOf(old)
    }
    return list
  }

  // Kept as: u32 count, i32 base, f64 total size, u32 bytes of what was told as JSON; this; nodes; order; bytes.

  #keep(
    key: Uint8Array,
    { count, nodes, order, totalSize, notices, xattrChoice, bytes, base }: KnownList,
  ): void {
    const { kept } = xattrChoice
    const telling: Told = { notices, attributes: kept && [...kept] }
    const told = Buffer.from(JSON.stringify(telling), 'latin1')
    const head = Buffer.alloc(HEAD_BYTES)
    head.writeUInt32LE(count, 0)
    head.writeInt32LE(base, 4)
    head.writeDoubleLE(totalSize, 8)
    head.writeUInt32LE(told.length, 16)
    const whole = Buffer.concat([head, told, bytesOf(nodes), bytesOf(order), bytes])
    if (this.#keepingBytes > 0 && this.#keepingBytes + whole.length > MOST_KEEPING) return
    this.#keepingBytes += whole.length
    const keeping = this.#putParts(key, whole).finally(() => {
      this.#keepingBytes -= whole.length
      this.#keeping.delete(keeping)
    })
    this.#keeping.add(keeping)
  }

  async #putParts(key: Uint8Array, whole: Uint8Array): Promise<void> {
    const parts = Math.ceil(whole.length / PART)
    // The first part is found first, and says how many there are: it comes last.
    for (let i = parts - 1, atOnce = 0; i >= 0; i--, atOnce++) {
      if (atOnce === PARTS_AT_ONCE) {
        await this.#kept.ready
        atOnce = 0
      }
      const number = Buffer.alloc(4)
      number.writeUInt32LE(parts)
      const part = Buffer.concat([number, whole.subarray(i * PART, (i + 1) * PART)])
      // What others have put may take all the room that there is.
      for (let tries = 1; !this.#kept.put(partKey(key, i), part); tries++) {
        // The other parts would be of no use.
        if (tries === MOST_TRIES) return
        await this.#kept.ready
      }
    }
  }

  async #load(key: Uint8Array, options: TransferOptions): Promise<KnownList | undefined> {
    const all: Uint8Array[] = []
    for (let i = 0, parts = 1; i < parts; i++) {
      const kept = await this.#kept.get(partKey(key, i))
      if (!kept) return undefined
      const part = asBuffer(kept)
      parts = part.readUInt32LE(0)
      all.push(part.subarray(4))
    }
    const whole = Buffer.concat(all)
    const count = whole.readUInt32LE(0)
    const base = whole.readInt32LE(4)
    const totalSize = whole.readDoubleLE(8)
    let at = HEAD_BYTES + whole.readUInt32LE(16)
    const { notices, attributes }: Told = JSON.parse(whole.toString('latin1', HEAD_BYTES, at))
    const nodes = new Int32Array(count)
    bytesOf(nodes).set(whole.subarray(at, at + 4 * count))
    at += 4 * count
    const order = new Uint32Array(count)
    bytesOf(order).set(whole.subarray(at, at + 4 * count))
    at += 4 * count
    const bytes = Uint8Array.from(whole.subarray(at))
    const xattrChoice = { withRsyncOwn: options.xattrs > 1, kept: attributes && new Set(attributes) }
    return { count, nodes, order, totalSize, notices, xattrChoice, bytes, base }
  }
}

/** Names of extended attributes that the client's rules keep; undefined where it has none. */
async function keptXattrs(
  tree: Tree,
  list: FileList,
  filters: Filters,
  signal: AbortSignal,
): Promise<Set<ByteString> | undefined> {
  if (!filters.hasAttributeRules) return undefined
  const seen = new Set<ByteString>()
  const kept = new Set<ByteString>()
  const pacer = new Pacer(signal)
  for (const node of list.nodes) {
    if (pacer.due) await pacer.rest()
    for (const { name } of node < 0 ? [] : tree.xattrs(node)) {
      if (seen.has(name)) continue
      seen.add(name)
      if (await filters.keepsAttribute(name, pacer)) kept.add(name)
    }
  }
  return kept
}

/** Names are read off the tree: they would take several times the memory of all else. */
function withNames(list: KnownList, tree: Tree): PreparedList {
  const { nodes, base } = list
  const nameOf = (place: number): ByteString => {
    let node = nodes[place]!
    if (node === base) return '.' as ByteString
    let name: string = tree.name(node)
    for (node = tree.parent(node); node !== base; node = tree.parent(node))
      name = `${tree.name(node)}/${name}`
    return name as ByteString
  }
  return { ...list, nameOf }
}

function keyOf({ tree, module, options, rules, agreement }: ListRequest): Buffer {
  const { protocol, compat, listDigest } = agreement
  const shape = Math.min(protocol, LATEST_SHAPE)
  const digest = options.checksum ? listDigest : ''
  const shaping = Object.entries(options).filter(([name]) => !OTHER_OPTIONS.has(name))
  const paths = pathsInModule({ ...options, module })
  const text = JSON.stringify([FORMAT, tree.key, shape, compat, digest, paths, shaping, rules])
  return hash('sha256', Buffer.from(`list:${text}`), 'buffer')
}

function partKey(key: Uint8Array, part: number): Uint8Array {
  const number = Buffer.alloc(4)
  number.writeUInt32LE(part)
  return hash('sha256', Buffer.concat([key, number]), 'buffer')
}

/** In memory of its own, as it stays: a short one would keep a whole piece of Node's pool from being freed. */
function joined(chunks: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.length
  }
  return bytes
}

function memoryOf({ bytes, count, notices }: KnownList): number {
  return LIST_OVERHEAD + bytes.length + 8 * count + NOTICE_BYTES * notices.length
}

function bytesOf(words: Int32Array | Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
}
