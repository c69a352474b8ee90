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
import { type Answers, type Manner, mannerOf, type Question } from './answers.ts'
import type { Connection } from './connection.ts'
import type { Derived } from './derived.ts'
import { DIGEST_LENGTH } from './digests.ts'
import { type Had, noteFile, type TransferFigures } from './figures.ts'
import type { PreparedList } from './lists.ts'
import { type Agreement, blockSumRule, COMPAT } from './setup.ts'
import { parseSkipList } from './skip-compress.ts'
import { sendAnswer } from './tokens.ts'
import type { Content, Tree, Xattr } from './tree.ts'
import type { Answer } from './wire/answers.ts'
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
} from './wire/ints.ts'
import { TAG } from './wire/mux.ts'
import { NDX_DEL_STATS, NDX_DONE, NdxDecoder, NdxEncoder } from './wire/ndx.ts'
import { basisLength, decodeSumHead, encodeSumHead, type RawSums, type SumHead } from './wire/sums.ts'
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
/** What is read of a file to see that it can be read: it brings the rest of a small one into memory. */
const PROBE = new Uint8Array(1)
/** Linux's own limit on a path, for names of alternative basis files. */
const MAX_NAME = 4096

export interface TransferContext {
  connection: Connection
  tree: Tree
  list: PreparedList
  options: TransferOptions
  agreement: Agreement
  derived: Derived
  answers: Answers
  /** Milliseconds it took to build and to send the list, for the statistics. */
  listMs: { build: number; send: number }
  figures: TransferFigures
  signal: AbortSignal
}

/** One request, as it came. */
interface Item {
  ndx: number
  node: number
  /** In the order of transmission. */
  place: number
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
  readonly #pacer: Pacer
  readonly #skipsCompression: ((name: ByteString) => boolean) | undefined
  readonly #manners: { inplace: boolean; least: boolean; manner: Manner }[] = []
  #ioError = 0
  #ioErrorTold = 0

  constructor(context: TransferContext) {
    this.#context = context
    this.#protocol = context.agreement.protocol
    this.#ndxIn = new NdxDecoder(this.#protocol)
    this.#ndxOut = new NdxEncoder(this.#protocol)
    this.#sentOnce = new Uint8Array(context.list.count)
    this.#pacer = new Pacer(context.signal)
    const { skipCompress } = context.options
    this.#skipsCompression = skipCompress === undefined ? undefined : parseSkipList(skipCompress)
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
      // One piece of input may hold thousands of tiny requests.
      if (this.#pacer.due) await this.#pacer.rest()
      const ndx = await connection.in.decode((bytes) => this.#ndxIn.decode(bytes))
      if (this.#protocol !== 29 || ndx !== list.count) return ndx
      const iflags = await connection.in.decode(decodeU16)
      if (iflags !== ITEM.isNew) throw new PeerError('ndx', `${ndx} of ${list.count}`)
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
      throw new PeerError(
        'ndx',
        `asks for the data of ${showBytes(this.#nameOf(item))}, which is no regular file`,
      )
    }
    const head = await connection.in.decode((bytes) => decodeSumHead(bytes, this.#protocol))
    const again = this.#sentOnce[item.place] === 1
    const appending = options.append > 0 && !again
    // A client that appends asks again when its own part was another; all others when ours was.
    if (again && options.append === 0) tree.suspect?.(item.node)
    this.#sentOnce[item.place] = 1
    const sums = appending ? undefined : await this.#readSums(head)
    signal.throwIfAborted()

    await this.#sendFile(item, head, sums, appending, again)
  }

  /** All of a request but its sums. */
  async #readItem(ndx: number): Promise<Item> {
    const { connection, list, options, agreement } = this.#context
    const input = connection.in
    if (ndx < 0 || ndx >= list.count) throw new PeerError('ndx', `${ndx} of ${list.count}`)
    const place = list.order[ndx]!
    const { figures } = this.#context
    if (place >= figures.position) figures.position = place + 1
    const item: Item = {
      ndx,
      node: list.nodes[place]!,
      place,
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
  async #readSums(head: SumHead): Promise<RawSums | undefined> {
    if (head.count === 0) return undefined
    const { connection, agreement } = this.#context
    const size = head.count * (4 + head.strongLength)
    const usable = head.strongLength > 0 && head.strongLength <= DIGEST_LENGTH[agreement.transferDigest]
    if (usable && size <= MAX_SUM_BYTES) return { head, bytes: await connection.in.bytes(size) }
    await connection.in.discard(size)
    return undefined
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

  #nameOf({ place }: Item): ByteString {
    return this.#context.list.nameOf(place)
  }

  /** The attributes of an entry, in the order that numbers them. */
  #xattrsOf({ node }: Item): readonly Xattr[] {
    const { tree, list } = this.#context
    return node < 0 ? [] : sentXattrs(tree.xattrs(node), list.xattrChoice)
  }

  async #sendFile(
    item: Item,
    head: SumHead,
    sums: RawSums | undefined,
    appending: boolean,
    again: boolean,
  ): Promise<void> {
    const { connection, tree, answers, figures, signal } = this.#context
    const from = appending ? Math.min(basisLength(head), tree.size(item.node)) : 0
    const manner = this.#mannerOf(item)
    // Who asks again could not use what was sent: what is kept may have been made from bytes that had rotted.
    const question: Question = { tree, node: item.node, sums, manner, fresh: again, tally: figures }

    // What is worked out first, as it may take a while and fail: how to send the file, and its digest.
    let answer: Answer
    let digest: Uint8Array
    let content: Content | undefined
    try {
      answer = appending ? answers.tail(question, from) : await answers.find(question, signal)
      digest = await this.#digestOf(item, from)
      content = await this.#openFor(item, answer)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      await this.#cannotSend(item, error)
      return
    }

    tree.sent?.(item.node)
    this.#echo(item)
    encodeSumHead(connection.out, head)
    const failure = await sendAnswer({ connection, answers, question, content, signal }, answer).finally(() =>
      content?.close(),
    )
    const { matched, literal } = answer
    noteFile(figures, { had: this.#hadOf(item, head, sums), matched, literal }, () =>
      showBytes(this.#nameOf(item)),
    )
    if (failure) {
      tree.suspect?.(item.node)
      // The client must not take the zeros for the file: this digest is wrong on purpose.
      connection.out.bytes(Uint8Array.from(digest, (byte) => byte ^ 0xff))
      this.#ioError |= 1
      await connection.text(
        TAG.errorXfer,
        `upserv: error while reading "${showBytes(this.#nameOf(item))}": ${failure.message}`,
      )
      return
    }
    connection.out.bytes(digest)
    figures.files++
  }

  #hadOf({ iflags }: Item, { count }: SumHead, sums: RawSums | undefined): Had {
    if (sums) return 'blocks'
    if (count > 0) return 'too-many-blocks'
    // Before protocol 29 nobody says whether there is such a file.
    return this.#protocol < 29 || iflags & ITEM.isNew ? 'nothing' : 'no-sums'
  }

  /** Makes sure that what the answer reads from the tree can be read, before anything is promised. */
  async #openFor({ node }: Item, answer: Answer): Promise<Content | undefined> {
    const { tree } = this.#context
    if (answer.parts.some((part) => part.type === 'steps')) return tree.open(node)
    const plain = answer.parts.find((part) => part.type === 'plain')
    if (!plain) return undefined
    if (!tree.copy) return tree.open(node)
    await tree.copy(node, plain.from, PROBE)
    return undefined
  }

  /** One of a few, made when the first file needs it. */
  #mannerOf(item: Item): Manner {
    const inplace = this.#writesInPlace(item)
    const least = this.#skipsCompression?.(this.#nameOf(item)) ?? false
    const known = this.#manners.find((manner) => manner.inplace === inplace && manner.least === least)
    if (known) return known.manner
    const { agreement, options } = this.#context
    const { codec } = agreement
    const effort = least ? 'least' : 'normal'
    const compression = codec && ({ codec, level: options.compressLevel, effort } as const)
    const manner = mannerOf(blockSumRule(agreement), inplace, compression)
    this.#manners.push({ inplace, least, manner })
    return manner
  }

  /** Of the whole file, or of what is appended where the client checks only that. */
  #digestOf({ node }: Item, from: number): Uint8Array | Promise<Uint8Array> {
    const { tree, agreement, options, derived, signal } = this.#context
    const { transferDigest, seed } = agreement
    return options.append === 1 && this.#protocol >= 30 && from > 0
      ? derived.tailDigest(tree, node, from, transferDigest, seed, signal)
      : derived.digest(tree, node, transferDigest, seed, signal)
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
    await connection.text(
      TAG.errorXfer,
      `upserv: cannot send "${showBytes(this.#nameOf(item))}": ${error.message}`,
    )
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
