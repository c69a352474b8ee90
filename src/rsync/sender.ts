/**
 * The transfer: requests in, file data out, through all phases to the goodbye.
 * docs/rsync-protocol.md, sections 8 and 9.
 *
 * Items are answered in the order in which they come. What the client may say, and how often, is bounded:
 * numbers are checked before memory is taken.
 */

import { ConnectionLost, PeerError, StoreError } from '../errors.ts'
import { type ByteString, showBytes } from '../lib/bytes.ts'
import { isRegularMode } from '../lib/file-mode.ts'
import { Pacer } from '../lib/pacer.ts'
import { type Compressor, createCompressor } from './codecs.ts'
import type { Connection } from './connection.ts'
import type { BlockSums, Delta } from './delta/match.ts'
import type { Derived } from './derived.ts'
import { DIGEST_LENGTH } from './digests.ts'
import type { FileList } from './flist.ts'
import { type Agreement, COMPAT } from './setup.ts'
import { createTokenWriter } from './tokens.ts'
import type { Content, Tree, Xattr } from './tree.ts'
import type { TransferOptions } from './wire/arguments.ts'
import {
  decodeU8,
  decodeU16,
  decodeVarint,
  decodeVstring,
  encodeLongint,
  encodeVarint,
  encodeVarlong,
  encodeVstring,
  i32At,
} from './wire/ints.ts'
import { TAG } from './wire/mux.ts'
import { NDX_DEL_STATS, NDX_DONE, NdxDecoder, NdxEncoder } from './wire/ndx.ts'
import { basisLength, decodeSumHead, encodeSumHead, type SumHead } from './wire/sums.ts'
import { encodeXattrValues, readXattrRequest, sentXattrs } from './wire/xattrs.ts'

/** [iflags] Section 8.1: those that matter to a sender. */
const ITEM = {
  xattrs: 0x0100,
  basisType: 0x0800,
  xname: 0x1000,
  isNew: 0x2000,
  localChange: 0x4000,
  transfer: 0x8000,
} as const
/** The destination file itself: the basis unless the client says otherwise. */
const BASIS_SELF = 0x80
/**
 * The most bytes of block sums taken into memory for one file. A client with more (a basis of several 100 GB,
 * or tiny blocks forced by -B) gets that file whole, which is always right.
 */
const MAX_SUM_BYTES = 16 * 1024 * 1024
/** Linux's own limit on a path, for names of alternative basis files. */
const MAX_NAME = 4096

/** What one transfer amounted to. */
export interface TransferFigures {
  files: number
  matchedBytes: number
  literalBytes: number
}

export interface TransferContext {
  connection: Connection
  tree: Tree
  list: FileList
  options: TransferOptions
  agreement: Agreement
  derived: Derived
  /** Milliseconds it took to build and to send the list, for the statistics. */
  listMs: { build: number; send: number }
  figures: TransferFigures
  signal: AbortSignal
}

/** One request, as it came. */
interface Item {
  ndx: number
  node: number
  name: ByteString
  iflags: number
  basisType: number
  xname: ByteString | undefined
  xattrNumbers: number[] | undefined
}

/** Serves requests until the client has said goodbye, or has gone after it got everything. */
export async function transfer(context: TransferContext): Promise<void> {
  await new Transfer(context).run()
}

class Transfer {
  readonly #context: TransferContext
  readonly #protocol: number
  readonly #ndxIn: NdxDecoder
  readonly #ndxOut: NdxEncoder
  /** Places whose data was sent once: a second request is a redo. */
  readonly #sentOnce: Uint8Array
  readonly #compressor: Compressor | undefined
  #ioError = 0
  #ioErrorTold = 0

  constructor(context: TransferContext) {
    this.#context = context
    this.#protocol = context.agreement.protocol
    this.#ndxIn = new NdxDecoder(this.#protocol)
    this.#ndxOut = new NdxEncoder(this.#protocol)
    this.#sentOnce = new Uint8Array(context.list.names.length)
    const { codec } = context.agreement
    this.#compressor = codec && createCompressor(codec, context.options.compressLevel)
  }

  async run(): Promise<void> {
    const { connection, signal } = this.#context
    const phases = this.#protocol >= 29 ? 2 : 1
    for (let phase = 0; ; ) {
      const ndx = await this.#readNdx()
      signal.throwIfAborted()
      if (ndx === NDX_DONE) {
        if (++phase > phases) break
        if (phase === phases) await this.#tellErrors()
        this.#ndxOut.encode(connection.out, NDX_DONE)
      } else if (ndx === NDX_DEL_STATS && this.#protocol >= 31) {
        await this.#echoDeletions()
      } else {
        await this.#item(ndx)
        await connection.flow()
      }
    }
    this.#ndxOut.encode(connection.out, NDX_DONE)
    this.#statistics()
    await connection.flush()
    await this.#goodbye()
  }

  /** The next index or mark. Keep-alives of protocol 29 (an index just beyond the list) are passed over. */
  async #readNdx(): Promise<number> {
    const { connection, list } = this.#context
    for (;;) {
      const ndx = await connection.in.decode((bytes) => this.#ndxIn.decode(bytes))
      if (this.#protocol !== 29 || ndx !== list.names.length) return ndx
      const iflags = await connection.in.decode(decodeU16)
      if (iflags !== ITEM.isNew) throw new PeerError('ndx', `${ndx} of ${list.names.length}`)
    }
  }

  async #item(ndx: number): Promise<void> {
    const item = await this.#readItem(ndx)
    const { connection, options, tree, signal } = this.#context
    const wantsData = this.#protocol < 29 || (item.iflags & ITEM.transfer) !== 0
    if (!wantsData || options.dryRun) {
      this.#echo(item)
      return
    }
    if (item.node < 0 || !isRegularMode(tree.mode(item.node))) {
      throw new PeerError('ndx', `asks for the data of ${showBytes(item.name)}, which is no regular file`)
    }
    const head = await connection.in.decode((bytes) => decodeSumHead(bytes, this.#protocol))
    const place = this.#context.list.order[item.ndx]!
    const appending = options.append > 0 && this.#sentOnce[place] === 0
    // A client that appends asks again when its own part was another; all others when ours was.
    if (this.#sentOnce[place] === 1 && options.append === 0) tree.suspect?.(item.node)
    this.#sentOnce[place] = 1
    const sums = appending ? undefined : await this.#readSums(head)
    signal.throwIfAborted()

    let content: Content
    try {
      content = await tree.open(item.node)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      await this.#cannotSend(item, error)
      return
    }
    try {
      await this.#sendFile(item, head, sums, content, appending)
    } finally {
      content.close()
    }
  }

  /** All of a request but its sums. */
  async #readItem(ndx: number): Promise<Item> {
    const { connection, list, options, agreement } = this.#context
    const input = connection.in
    if (ndx < 0 || ndx >= list.names.length) throw new PeerError('ndx', `${ndx} of ${list.names.length}`)
    const place = list.order[ndx]!
    const item: Item = {
      ndx,
      node: list.nodes[place]!,
      name: list.names[place]!,
      iflags: ITEM.transfer,
      basisType: BASIS_SELF,
      xname: undefined,
      xattrNumbers: undefined,
    }
    if (this.#protocol < 29) return item
    item.iflags = await input.decode(decodeU16)
    if (item.iflags & ITEM.basisType) item.basisType = await input.decode(decodeU8)
    if (item.iflags & ITEM.xname) item.xname = await input.decode((bytes) => decodeVstring(bytes, MAX_NAME))
    const linkOptimised =
      this.#protocol >= 31 &&
      (agreement.compat & COMPAT.avoidXattrOptimisation) === 0 &&
      (item.iflags & ITEM.xname) !== 0 &&
      (item.iflags & ITEM.localChange) !== 0
    if (options.xattrs > 0 && item.iflags & ITEM.xattrs && !options.dryRun && !linkOptimised) {
      item.xattrNumbers = await readXattrRequest(input, this.#xattrsOf(item).length)
    }
    return item
  }

  /** The sums behind a head; undefined when there are none, or more than we take. */
  async #readSums(head: SumHead): Promise<BlockSums | undefined> {
    if (head.count === 0) return undefined
    const { connection, agreement } = this.#context
    const each = 4 + head.strongLength
    const usable = head.strongLength > 0 && head.strongLength <= DIGEST_LENGTH[agreement.transferDigest]
    if (!usable || head.count * each > MAX_SUM_BYTES) {
      await connection.in.discard(head.count * each)
      return undefined
    }
    const bytes = await connection.in.bytes(head.count * each)
    // Shared memory, so that a worker thread gets them without a copy.
    const weak = new Uint32Array(new SharedArrayBuffer(head.count * 4))
    const strong = new Uint8Array(new SharedArrayBuffer(head.count * head.strongLength))
    const pacer = new Pacer(this.#context.signal)
    for (let k = 0, at = 0; k < head.count; k++, at += each) {
      if (pacer.due) await pacer.rest()
      weak[k] = i32At(bytes, at)
      strong.set(bytes.subarray(at + 4, at + each), k * head.strongLength)
    }
    return { head, weak, strong }
  }

  /** The echo that precedes every answer: what was asked, and the attribute values that were asked for. */
  #echo(item: Item): void {
    const { out } = this.#context.connection
    this.#ndxOut.encode(out, item.ndx)
    if (this.#protocol < 29) return
    out.u16(item.iflags)
    if (item.iflags & ITEM.basisType) out.u8(item.basisType)
    if (item.xname !== undefined) encodeVstring(out, item.xname)
    if (item.xattrNumbers) encodeXattrValues(out, item.xattrNumbers, this.#xattrsOf(item))
  }

  /** The attributes of an entry, in the order that numbers them. */
  #xattrsOf({ node }: Item): readonly Xattr[] {
    const { tree, options } = this.#context
    return node < 0 ? [] : sentXattrs(tree.xattrs(node), options.xattrs > 1)
  }

  async #sendFile(
    item: Item,
    head: SumHead,
    sums: BlockSums | undefined,
    content: Content,
    appending: boolean,
  ): Promise<void> {
    const { connection, tree, options, agreement, derived, figures, signal } = this.#context
    const { transferDigest, seed } = agreement
    const from = appending ? Math.min(basisLength(head), content.size) : 0

    // What is worked out first, as it may take a while and fail: how to send the file, and its digest.
    let delta: Delta
    let digest: Uint8Array
    try {
      const whole = content.size > from ? [content.size - from] : []
      delta = (sums && (await this.#search(item, sums))) ?? whole
      digest =
        appending && options.append === 1 && this.#protocol >= 30 && from > 0
          ? await derived.tailDigest(tree, item.node, from, transferDigest, seed, signal)
          : await derived.digest(tree, item.node, transferDigest, seed, signal)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      await this.#cannotSend(item, error)
      return
    }

    this.#echo(item)
    encodeSumHead(connection.out, head)
    const tokens = createTokenWriter(connection, content, this.#compressor, signal)
    let position = from
    for (const step of delta) {
      if (step > 0) {
        await tokens.literal(position, step)
        position += step
        figures.literalBytes += step
      } else {
        tokens.block(-step - 1)
        const length = -step === head.count && head.remainder > 0 ? head.remainder : head.blockLength
        position += length
        figures.matchedBytes += length
        await connection.flow()
      }
    }
    tokens.end()
    const { failure } = tokens
    if (failure) {
      tree.suspect?.(item.node)
      // The client must not take the zeros for the file: this digest is wrong on purpose.
      connection.out.bytes(Uint8Array.from(digest, (byte) => byte ^ 0xff))
      this.#ioError |= 1
      await connection.text(
        TAG.errorXfer,
        `upserv: error while reading "${showBytes(item.name)}": ${failure.message}`,
      )
      return
    }
    connection.out.bytes(digest)
    figures.files++
  }

  #search(item: Item, sums: BlockSums): Promise<Delta | undefined> {
    const { tree, agreement, derived, signal } = this.#context
    const seedFirst = (agreement.compat & COMPAT.checksumSeedFix) !== 0
    const rule = { name: agreement.transferDigest, seed: agreement.seed, seedFirst }
    return derived.delta(tree, item.node, sums, rule, this.#writesInPlace(item), signal)
  }

  /** Whether the client overwrites its basis while it receives (section 8.7). */
  #writesInPlace(item: Item): boolean {
    const { options } = this.#context
    if (!options.inplace && options.append === 0) return false
    return this.#protocol >= 29 ? item.basisType === BASIS_SELF : !options.backup
  }

  /** Section 8.11: the client learns why, leaves the file as it is and exits with 23. */
  async #cannotSend(item: Item, error: StoreError): Promise<void> {
    const { connection, tree } = this.#context
    this.#ioError |= 1
    tree.suspect?.(item.node)
    await connection.text(TAG.errorXfer, `upserv: cannot send "${showBytes(item.name)}": ${error.message}`)
    if (this.#protocol >= 30) {
      const payload = Buffer.alloc(4)
      payload.writeInt32LE(item.ndx)
      await connection.message(TAG.noSend, payload)
    }
  }

  async #tellErrors(): Promise<void> {
    if (this.#protocol < 30 || this.#ioError === this.#ioErrorTold) return
    const payload = Buffer.alloc(4)
    payload.writeInt32LE(this.#ioError)
    await this.#context.connection.message(TAG.ioError, payload)
    this.#ioErrorTold = this.#ioError
  }

  /** Deletion statistics come back as they went: the client prints what it hears. */
  async #echoDeletions(): Promise<void> {
    const { connection } = this.#context
    const counts: number[] = []
    for (let i = 0; i < 5; i++) counts.push(await connection.in.decode(decodeVarint))
    this.#ndxOut.encode(connection.out, NDX_DEL_STATS)
    for (const count of counts) encodeVarint(connection.out, count)
  }

  #statistics(): void {
    const { connection, list, listMs } = this.#context
    const put = (value: number) =>
      this.#protocol < 30 ? encodeLongint(connection.out, value) : encodeVarlong(connection.out, value, 3)
    put(connection.bytesRead)
    put(connection.bytesWritten + connection.out.length)
    put(list.totalSize)
    if (this.#protocol >= 29) {
      put(listMs.build)
      put(listMs.send)
    }
  }

  /** A client that got everything may also just go. */
  async #goodbye(): Promise<void> {
    const { connection } = this.#context
    try {
      let ndx = await this.#readNdx()
      while (ndx === NDX_DEL_STATS && this.#protocol >= 31) {
        await this.#echoDeletions()
        ndx = await this.#readNdx()
      }
      if (ndx !== NDX_DONE) throw new PeerError('ndx', `${ndx} instead of the goodbye`)
      if (this.#protocol < 31) return
      this.#ndxOut.encode(connection.out, NDX_DONE)
      await connection.flush()
      await this.#readNdx()
    } catch (error) {
      if (!(error instanceof ConnectionLost)) throw error
    }
  }
}
