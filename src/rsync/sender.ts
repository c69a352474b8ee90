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
import { type Answers, isWorkedOut, type Manner, mannerOf, type Question } from './answers.ts'
import type { Connection } from './connection.ts'
import type { Derived } from './derived.ts'
import { DIGEST_LENGTH } from './digests.ts'
import { countFile, type Had, rememberFile, type TransferFigures } from './figures.ts'
import { isFramed } from './framed-answers.ts'
import { END_OF_FRAME, type FrameCursor, type FrameStep } from './frames.ts'
import type { PreparedList } from './lists.ts'
import { type Agreement, blockSumRule, COMPAT } from './setup.ts'
import { parseSkipList } from './skip-compress.ts'
import { FOR_ANSWER, Loan } from './slabs.ts'
import { needsContent, sendAnswer } from './tokens.ts'
import type { Content, Tree, Xattr } from './tree.ts'
import type { Answer, AnswerPart } from './wire/answers.ts'
import type { TransferOptions } from './wire/arguments.ts'
import { decodeVarint, encodeLongint, encodeVarint, encodeVarlong } from './wire/ints.ts'
import { TAG } from './wire/mux.ts'
import { NDX_DEL_STATS, NDX_DONE, NdxEncoder } from './wire/ndx.ts'
import {
  BASIS_SELF,
  encodeEcho,
  type ItemRequest,
  isOfNewFile,
  type Request,
  RequestDecoder,
} from './wire/requests.ts'
import {
  basisLength,
  decodeSumHead,
  encodeSumHead,
  MAX_SUM_BYTES,
  type RawSums,
  type SumHead,
  sumBytes,
} from './wire/sums.ts'
import { encodeXattrValues, readXattrRequest, sentXattrs } from './wire/xattrs.ts'

/** What is read of a file to see that it can be read: it brings the rest of a small one into memory. */
const PROBE = [new Uint8Array(1)]

/** In `#sentOnce`; what is more is a length, of 20 bytes at most. */
const SENT = 1

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

/** A request, and whom it is about. */
interface Item {
  readonly request: ItemRequest
  readonly node: number
  /** In the order of transmission. */
  readonly place: number
}

/** How a request for data stands to those before it. */
interface Occasion {
  readonly appending: boolean
  readonly again: boolean
  /** When sums came with the first request: the length of their strong ones. */
  readonly firstStrongLength: number | undefined
}

/** All that is needed to answer a request for data. */
interface Ready {
  readonly item: Item
  readonly head: SumHead
  readonly question: Question
  readonly answer: Answer
  readonly digest: Uint8Array
  /** Open, where the answer is read from it. Whoever opened it closes it. */
  readonly content: Content | undefined
  /** The memory that the answer lies in, when it is borrowed. */
  readonly loan: Loan | undefined
  readonly xattrNumbers: readonly number[] | undefined
}

/** Serves requests until the client has said goodbye, or has gone after it got everything. */
export async function transfer(context: TransferContext): Promise<void> {
  await new Transfer(context).run()
}

class Transfer {
  readonly #context: TransferContext
  readonly #protocol: number
  readonly #decoder: RequestDecoder
  readonly #decode = (bytes: Uint8Array) => this.#decoder.decode(bytes)
  readonly #ndxOut: NdxEncoder
  #sent: Uint8Array | undefined
  readonly #pacer: Pacer
  readonly #skipsCompression: ((name: ByteString) => boolean) | undefined
  readonly #manners: { inplace: boolean; least: boolean; manner: Manner }[] = []
  /** Of clients whose codec has frames that hold several files. */
  readonly #frames: FrameCursor | undefined
  #ioError = 0
  #ioErrorTold = 0

  constructor(context: TransferContext) {
    this.#context = context
    const { agreement, list, options } = context
    this.#protocol = agreement.protocol
    const linksToo = this.#protocol < 31 || (agreement.compat & COMPAT.avoidXattrOptimisation) !== 0
    this.#decoder = new RequestDecoder({
      protocol: this.#protocol,
      count: list.count,
      xattrs: options.xattrs === 0 ? 'none' : linksToo ? 'all' : 'not-of-links',
      dryRun: options.dryRun,
    })
    this.#ndxOut = new NdxEncoder(this.#protocol)
    this.#pacer = new Pacer(context.signal)
    this.#skipsCompression =
      options.skipCompress === undefined ? undefined : parseSkipList(options.skipCompress)
    this.#frames = agreement.codec === 'zstd' ? context.answers.openFrames() : undefined
  }

  async run(): Promise<void> {
    try {
      await this.#serveAll()
    } finally {
      if (this.#frames) this.#context.answers.leaveFrame(this.#frames)
    }
  }

  async #serveAll(): Promise<void> {
    const { connection } = this.#context
    const phases = this.#protocol >= 29 ? 2 : 1
    for (let phase = 0; ; ) {
      const request = this.#nextRequest() ?? (await this.#awaitRequest())
      // Behind anything else the client waits for us.
      connection.linger(request.type === 'item')
      if (request.type === 'item') {
        // Most items of an update are answered from memory: those wait for nothing.
        const waiting = this.#serve(request)
        if (waiting) await waiting
        const flowing = connection.flow()
        if (flowing) await flowing
      } else if (request.type === 'done') {
        if (++phase > phases) break
        if (phase === phases) await this.#tellErrors()
        this.#ndxOut.encode(connection.out, NDX_DONE)
      } else if (request.type === 'deletions') {
        await this.#echoDeletions()
      }
    }
    this.#ndxOut.encode(connection.out, NDX_DONE)
    this.#statistics()
    await connection.flush()
    await this.#goodbye()
  }

  /** The next request when it is there, and others need not have a turn first. */
  #nextRequest(): Request | undefined {
    // One piece of input may hold thousands of tiny requests.
    return this.#pacer.due ? undefined : this.#context.connection.in.tryDecode(this.#decode)
  }

  async #awaitRequest(): Promise<Request> {
    const { connection, signal } = this.#context
    if (this.#pacer.due) await this.#pacer.rest()
    const request = await connection.in.decode(this.#decode)
    signal.throwIfAborted()
    return request
  }

  /** Answers a request. A promise only where something has to be waited for. */
  #serve(request: ItemRequest): Promise<void> | undefined {
    const { list, tree, figures } = this.#context
    const place = list.order[request.ndx]!
    const item: Item = { request, node: list.nodes[place]!, place }
    if (place >= figures.position) figures.position = place + 1
    if (request.wantsData && (item.node < 0 || !isRegularMode(tree.mode(item.node)))) {
      throw new PeerError(
        'ndx',
        `asks for the data of ${showBytes(this.#nameOf(item))}, which is no regular file`,
      )
    }
    if (request.asksXattrs) return this.#serveWithXattrs(item)
    if (!request.head) {
      this.#echo(item)
      return undefined
    }
    const ready = this.#findAtOnce(item, request.head)
    return ready ? this.#deliver(ready) : this.#sendLater(item, request.head)
  }

  /** Numbers of attributes come before the rest of the request. */
  async #serveWithXattrs(item: Item): Promise<void> {
    const input = this.#context.connection.in
    const numbers = await readXattrRequest(input, this.#xattrsOf(item).length)
    if (!item.request.wantsData) return this.#echo(item, numbers)
    await this.#sendLater(item, await input.decode((bytes) => decodeSumHead(bytes, this.#protocol)), numbers)
  }

  /**
   * Of places whose data was sent once: SENT, and the length of the strong sums. A second request is a redo. Made for
   * the first request: most clients of a fleet ask for nothing.
   */
  get #sentOnce(): Uint8Array {
    this.#sent ??= new Uint8Array(this.#context.list.count)
    return this.#sent
  }

  async #sendLater(item: Item, head: SumHead, xattrNumbers?: readonly number[]): Promise<void> {
    const { options, tree, answers, signal } = this.#context
    const before = this.#sentOnce[item.place]!
    const again = before > 0
    const appending = options.append > 0 && !again
    // A client that appends asks again when its own part was another; all others when ours was.
    if (again && options.append === 0) tree.suspect?.(item.node)
    const useless = again ? this.#frames?.takeSent(item.place) : undefined
    if (useless) answers.forget(useless)
    // Learned from once: whoever asks on and on has nothing new to say.
    this.#sentOnce[item.place] = SENT + (again || head.count === 0 ? 0 : head.strongLength)
    const sums = appending ? undefined : await this.#readSums(head)
    signal.throwIfAborted()
    const firstStrongLength = before > SENT && options.append === 0 ? before - SENT : undefined
    await this.#sendFile(item, head, sums, { appending, again, firstStrongLength }, xattrNumbers)
  }

  /**
   * All that is needed to answer a first request for data, when it is in memory; then its sums are read, too.
   * Undefined when something has to be waited for: then nothing is.
   */
  #findAtOnce(item: Item, head: SumHead): Ready | undefined {
    const { connection, tree, options, answers, derived, agreement, figures } = this.#context
    const { node } = item
    const size = sumBytes(head)
    if (this.#sentOnce[item.place]! > 0 || options.append > 0) return undefined
    if (size > connection.in.available || !this.#isUsable(head)) return undefined
    const digest = derived.knownDigest(tree, node, agreement.transferDigest, agreement.seed)
    if (!digest) return undefined
    const sums = head.count === 0 ? undefined : { head, bytes: connection.in.peek(size) }
    const manner = this.#mannerOf(item)
    const question: Question = { tree, node, sums, manner, fresh: false, frames: this.#framesFor(manner) }
    const answer = answers.atHand(question)
    if (!answer?.parts.every((part) => isAtHand(tree, node, part))) return undefined
    connection.in.skip(size)
    this.#sentOnce[item.place] = SENT + (head.count > 0 ? head.strongLength : 0)
    if (isWorkedOut(question)) figures.reused++
    const none = undefined
    return { item, head, question, answer, digest, content: none, loan: none, xattrNumbers: none }
  }

  /** The sums behind a head; undefined when there are none, or none that we take. */
  async #readSums(head: SumHead): Promise<RawSums | undefined> {
    const { connection } = this.#context
    if (head.count === 0) return undefined
    if (this.#isUsable(head)) return { head, bytes: await connection.in.bytes(sumBytes(head)) }
    await connection.in.discard(sumBytes(head))
    return undefined
  }

  /** Whether a head announces no sums, or some that can be used and are not too many. */
  #isUsable(head: SumHead): boolean {
    const { count, strongLength } = head
    if (count === 0) return true
    const longest = DIGEST_LENGTH[this.#context.agreement.transferDigest]
    return strongLength > 0 && strongLength <= longest && sumBytes(head) <= MAX_SUM_BYTES
  }

  /** The echo that precedes every answer: what was asked, and the attribute values that were asked for. */
  #echo(item: Item, xattrNumbers?: readonly number[]): void {
    const { out } = this.#context.connection
    encodeEcho(out, this.#ndxOut, this.#protocol, item.request)
    if (xattrNumbers) encodeXattrValues(out, xattrNumbers, this.#xattrsOf(item))
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
    { appending, again, firstStrongLength }: Occasion,
    xattrNumbers: readonly number[] | undefined,
  ): Promise<void> {
    const { tree, answers, figures, signal } = this.#context
    const from = appending ? Math.min(basisLength(head), tree.size(item.node)) : 0
    const manner = this.#mannerOf(item)
    // Who asks again could not use what was sent: what is kept may have been made from bytes that had rotted.
    const frames = again || appending ? undefined : this.#framesFor(manner)
    const question: Question = {
      ...{ tree, node: item.node, sums, manner, fresh: again, firstStrongLength, frames },
      tally: figures,
    }

    // What is worked out first, as it may take a while and fail: how to send the file, and its digest.
    let ready: Ready
    const loan = new Loan(FOR_ANSWER)
    try {
      const answer = appending
        ? answers.tail(question, from)
        : await answers.find(question, signal, loan.take)
      const digest = await this.#digestOf(item, from)
      const content = await this.#openFor(item, answer)
      ready = { item, head, question, answer, digest, content, loan, xattrNumbers }
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      await this.#cannotSend(item, error)
      return
    }
    try {
      await this.#deliver(ready)
      loan.giveBack()
    } finally {
      ready.content?.close()
    }
  }

  /** Says all of an answer. A promise only where something has to be waited for. */
  #deliver(ready: Ready): Promise<void> | undefined {
    const { connection, tree, answers, signal } = this.#context
    const { item, head, question, answer, content, loan, xattrNumbers } = ready
    const { frames } = question
    tree.sent?.(item.node)
    this.#echo(item, xattrNumbers)
    encodeSumHead(connection.out, head)
    const step = isFramed(answer) ? answer.step : undefined
    this.#endFrame(answer, step)
    // While the sums are there.
    const file = step?.quality === 'quick' ? answers.framedFile(question) : undefined
    const sending = sendAnswer({ connection, answers, question, content, frames, loan, signal }, answer)
    if (!sending) {
      if (step) frames?.advance(item.place, step, file)
      return this.#finish(ready, undefined)
    }
    return sending.then((failure) => {
      if (step) frames?.advance(item.place, step, file)
      return this.#finish(ready, failure)
    })
  }

  /** What does not go on with the frame that is open needs its end. */
  #endFrame({ literal }: Answer, step: FrameStep | undefined): void {
    if (!this.#frames?.isOpen || literal === 0 || (step && !step.begins)) return
    this.#context.connection.out.bytes(END_OF_FRAME)
    this.#context.answers.leaveFrame(this.#frames)
  }

  #finish(
    { item, head, question, answer, digest }: Ready,
    failure: StoreError | undefined,
  ): Promise<void> | undefined {
    const { connection, figures, tree } = this.#context
    const had = this.#hadOf(item, head, question.sums)
    if (countFile(figures, had, answer.matched, answer.literal)) {
      const name = showBytes(this.#nameOf(item))
      rememberFile(figures, { name, had, matchedBytes: answer.matched, literalBytes: answer.literal })
    }
    if (!failure) {
      connection.out.bytes(digest)
      figures.files++
      return undefined
    }
    tree.suspect?.(item.node)
    // The client must not take the zeros for the file: this digest is wrong on purpose.
    connection.out.bytes(Uint8Array.from(digest, (byte) => byte ^ 0xff))
    this.#ioError |= 1
    return connection.text(
      TAG.errorXfer,
      `upserv: error while reading "${showBytes(this.#nameOf(item))}": ${failure.message}`,
    )
  }

  #hadOf({ request }: Item, { count }: SumHead, sums: RawSums | undefined): Had {
    if (sums) return 'blocks'
    if (count > 0) return 'too-many-blocks'
    // Before protocol 29 nobody says whether there is such a file.
    return this.#protocol < 29 || isOfNewFile(request) ? 'nothing' : 'no-sums'
  }

  /** Makes sure that what the answer reads from the tree can be read, before anything is promised. */
  async #openFor({ node }: Item, answer: Answer): Promise<Content | undefined> {
    const { tree } = this.#context
    if (answer.parts.some((part) => needsContent(tree, part))) return tree.open(node)
    const plain = answer.parts.find((part) => part.type === 'plain')
    if (plain) await tree.copy!(node, plain.from, PROBE)
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

  /** Where the client is in its frames, for what goes into one. */
  #framesFor({ compression }: Manner): FrameCursor | undefined {
    return compression?.effort === 'normal' ? this.#frames : undefined
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
    if (this.#protocol < 29) return !options.backup
    return (item.request.basisType ?? BASIS_SELF) === BASIS_SELF
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
      payload.writeInt32LE(item.request.ndx)
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
      let request = await this.#awaitRequest()
      while (request.type === 'deletions' || request.type === 'keep-alive') {
        if (request.type === 'deletions') await this.#echoDeletions()
        request = await this.#awaitRequest()
      }
      if (request.type !== 'done') throw new PeerError('ndx', 'a request instead of the goodbye')
      if (this.#protocol < 31) return
      this.#ndxOut.encode(connection.out, NDX_DONE)
      await connection.flush()
      await this.#awaitRequest()
    } catch (error) {
      if (!(error instanceof ConnectionLost)) throw error
    }
  }
}

/** Whether a part of an answer can be sent without waiting for anything but the client. */
function isAtHand(tree: Tree, node: number, part: AnswerPart): boolean {
  if (part.type === 'bytes') return true
  if (part.type !== 'plain' || needsContent(tree, part)) return false
  const reading = tree.copy!(node, part.from, PROBE)
  // Who waits for it hears what goes wrong.
  reading?.catch(() => {})
  return reading === undefined
}
