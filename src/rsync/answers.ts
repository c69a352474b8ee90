/**
 * Answers: what is said about one file, worked out for the first client that asks and kept for the rest.
 *
 * A question is which content is wanted, which blocks the client has, and how bytes are to be compressed.
 * The answer, from behind the echoed sum head to the digest, depends on nothing else
 * (docs/rsync-protocol.md, section 11), so its key is a hash of the question. Answers with little literal
 * data hold it; longer literal runs are cut into pieces that are kept one by one, under a key of their own,
 * since other questions contain the same ones.
 *
 * The first client waits only for a quick compression. Behind its back the refiner (refiner.ts) compresses
 * again, as hard as it can be done, and what it makes takes the place of what was kept.
 */
import { hash } from 'node:crypto'
import { StoreError } from '../errors.ts'
import { Pacer } from '../lib/pacer.ts'
import { SingleFlight } from '../lib/single-flight.ts'
import {
  type CodecName,
  canRefine,
  createCompressor,
  DEFLATE_WINDOW,
  type Effort,
  type FrameCompressor,
  historyOf,
  MOST_FED,
} from './codecs.ts'
import { chanceIsLikely, hasChanceMatches } from './delta/chance.ts'
import type { BlockSums, Delta } from './delta/match.ts'
import type { Derived } from './derived.ts'
import { type BlockSumRule, createBlockSum, prepareBlockSum } from './digests.ts'
import type { AnswerTally } from './figures.ts'
import {
  belongsInFrame,
  FramedAnswers,
  type FramedQuestion,
  isFramed,
  MOST_INLINE,
  MOST_STEPS,
  PIECE,
  quickFrames,
} from './framed-answers.ts'
import { FrameCursor, type FramedFile, frameKey, type Quality } from './frames.ts'
import type { Kept, TakeMemory } from './kept.ts'
import { Parts, type Read, withReader } from './parts.ts'
import { RecentAnswers } from './recent-answers.ts'
import { withMemory } from './slabs.ts'
import { isNumbered, type Tree } from './tree.ts'
import { type Answer, type AnswerPart, decodeAnswer, encodeAnswer } from './wire/answers.ts'
import { i32At } from './wire/ints.ts'
import { blockLengthOf, cutSums, type RawSums } from './wire/sums.ts'
import { BlockRuns, chunksSize, encodeChunks, writeChunks } from './wire/tokens.ts'

/** How literal bytes go out. */
export interface Compression {
  codec: CodecName
  /** The client's wish for a level. It holds for what is compressed while it waits. */
  level: number | undefined
  effort: Effort
}

/** What of a question is the same for nearly all files of a session. */
export interface Manner {
  /** Two manners of one name are equal, but for the level. */
  readonly name: string
  readonly rule: BlockSumRule
  readonly inplace: boolean
  readonly compression: Compression | undefined
  /** The same without compression: one search for all codecs. */
  readonly plain: Manner | undefined
}

export function mannerOf(rule: BlockSumRule, inplace: boolean, compression: Compression | undefined): Manner {
  // The level is no part of it: what is kept was compressed at one client's, or at the best.
  const how = compression ? `${compression.codec}:${compression.effort}` : 'plain'
  const name = `${how}:${rule.name}:${rule.seed}:${rule.seedFirst}:${inplace}`
  const plain = compression && mannerOf(rule, inplace, undefined)
  return { name, rule, inplace, compression, plain }
}

export interface Question {
  tree: Tree
  node: number
  /** The client's blocks, as they came. Undefined: it has nothing. */
  sums: RawSums | undefined
  manner: Manner
  /** The same sums with their strong ones whole, where they are known: what is found by them is no chance. */
  wholeSums?: RawSums | undefined
  /** What is kept was of no use to this client: it is worked out anew, and takes the place of what is kept. */
  fresh: boolean
  /** Of a fresh question: the length of the strong sums by which the client asked first. */
  firstStrongLength?: number | undefined
  /** Where the client is in frames that hold several files; undefined: what is compressed stands by itself. */
  frames?: FrameCursor | undefined
  /** Told by `find` how the answer was had. */
  tally?: AnswerTally | undefined
}

/** Whether an answer has to be worked out at all: otherwise the content itself goes out. */
export function isWorkedOut({ sums, manner }: Question): boolean {
  return sums !== undefined || manner.compression !== undefined
}

/** What is asked of one file, in whatever manner. */
export type Asked = Pick<Question, 'tree' | 'node' | 'sums' | 'wholeSums'>

/** What became of an answer that nobody waits for. */
export interface Prepared {
  /** What goes out behind the sum head, but for the digest. */
  bytes: number
  /** Whether the next who asks finds all of it. It may be too large to be kept, or there is no room. */
  ready: boolean
  /** Something had to be worked out. */
  isNew: boolean
}

/** How literal data is compressed: quickly, or as well as can be. */
export type Squeeze = (
  bytes: Uint8Array,
  last: boolean,
  history?: Uint8Array,
) => Promise<readonly Uint8Array[]> | readonly Uint8Array[]

/** Plain literal data that an answer holds itself: more is read straight from the store. */
const MOST_INLINE_PLAIN = 16 * 1024
/** And in all: what is larger than a record is not kept, and each client would hold a copy of its own. */
const MOST_INLINE_IN_ALL = 3 * 2 ** 20
/** [piece] The first byte of a record says how well it is compressed. */
const QUICK = 0
const BEST = 1
/** Changes whenever the meaning of a key or a record does. */
const FORMAT = 2

export interface AnswersOptions {
  derived: Derived
  kept: Kept
  /** Told what was compressed quickly, so that it can be done better. */
  onQuick?: (job: RefineJob) => void
}

/** Something to compress better. */
export type RefineJob =
  | { type: 'answer'; key: Uint8Array; question: Question }
  | { type: 'piece'; key: Uint8Array; tree: Tree; node: number; part: PiecePart; codec: CodecName }
  | { type: 'frame'; key: Uint8Array; files: readonly FramedFile[] }

export type PiecePart = Extract<AnswerPart, { type: 'piece' }>
export type FramedPart = Extract<AnswerPart, { type: 'framed' }>

export class Answers {
  readonly #derived: Derived
  readonly #kept: Kept
  readonly #onQuick: (job: RefineJob) => void
  readonly #recent = new RecentAnswers()
  readonly #framed: FramedAnswers
  readonly #working = new SingleFlight<string, Answer>()
  readonly #compressing = new SingleFlight<string, Uint8Array>()

  constructor({ derived, kept, onQuick = () => {} }: AnswersOptions) {
    this.#derived = derived
    this.#kept = kept
    this.#framed = new FramedAnswers(kept)
    this.#onQuick = onQuick
  }

  /**
   * The answer, when it is at hand. If it is nothing but bytes, these may be overwritten by the next call of this:
   * they are copied at once, or not at all.
   */
  atHand(question: Question): Answer | undefined {
    const recent = this.#recentOf(question)
    if (recent || question.fresh) return recent
    const { frames } = question
    const key = keyOf(question)
    const framed = frames && this.#framed.atHand(key, frames.state)
    if (framed) return framed
    const record = this.#kept.peek(key)
    if (!record) return undefined
    const answer = decodeAnswer(record)
    // What may yet be made better goes the long way, on which that is seen to.
    if (!answer?.complete || (frames && belongsInFrame(answer.literal))) return undefined
    this.#addRecent(question, answer)
    return answer.parts.every(({ type }) => type === 'bytes') ? answer : decodeAnswer(Uint8Array.from(record))
  }

  #recentOf({ tree, node, sums, manner, fresh, frames }: Question): Answer | undefined {
    if (!sums && !manner.compression) return wholePlain(tree, node)
    if (fresh || !isNumbered(tree)) return undefined
    const recent = this.#recent.find(tree, manner, node, sums)
    return recent && frames && belongsInFrame(recent.literal) ? undefined : recent
  }

  #addRecent({ tree, node, sums, manner }: Question, answer: Answer): void {
    if (isNumbered(tree)) this.#recent.add(tree, manner, node, sums, answer)
  }

  /**
   * @param take gives memory for an answer that is not compressed, which is used or not; parts of the answer lie in it.
   * @throws StoreError when the content can't be read; the signal's reason.
   */
  find(question: Question, signal: AbortSignal, take?: TakeMemory): Answer | Promise<Answer> {
    const { tally } = question
    const recent = this.#recentOf(question)
    if (recent) {
      if (tally && isWorkedOut(question)) tally.reused++
      return recent
    }
    const key = keyOf(question)
    if (question.fresh) return this.#workOut(question, key, signal)
    if (question.frames) return this.#findFramed(question, key, question.frames, signal)
    // Who refines an answer keeps keys that lie in it.
    const record = this.#kept.get(key, question.manner.compression ? undefined : take)
    if (record instanceof Promise) return this.#findLater(question, key, record, signal)
    return this.#known(question, key, record) ?? this.#workOut(question, key, signal)
  }

  /** For one session, whose client's decoder goes through frames. */
  openFrames(): FrameCursor {
    return new FrameCursor((files) => {
      this.#onQuick({ type: 'frame', key: frameKey('best', files[0]!.question), files })
    })
  }

  /**
   * The client does not go on with the frame that it is in.
   * @param leads the quality of what is compressed for it: others go on with what is compressed for themselves.
   */
  leaveFrame(frames: FrameCursor, leads: Quality = 'quick'): void {
    if (frames.state?.quality === leads) this.#framed.leave(frames.state)
    frames.leave()
  }

  /** What it takes to compress a file better that is in a frame. */
  framedFile(question: Question): FramedFile {
    const { tree, node, sums, manner } = question
    const plain = sums && keyOf({ ...question, manner: manner.plain! })
    return { tree, node, head: sums?.head, question: keyOf(question), plain }
  }

  /** The bytes of a piece as they go out; undefined when they are not kept any more. */
  framedPiece(
    { key }: FramedPart,
    take: TakeMemory,
  ): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    return this.#kept.get(key, take)
  }

  /** The same data as a piece that stands by itself. */
  loosePiece({ tree, node, manner }: Question, { from, length }: FramedPart): PiecePart {
    const range = { from, length, last: true, history: 0 }
    return { type: 'piece', ...range, key: pieceKey(tree, node, range, manner.compression!) }
  }

  /** What was kept under this key was of no use to a client. */
  forget(key: Uint8Array): void {
    this.#kept.put(key, NOTHING)
  }

  /** What lies behind the first `from` bytes, for --append. Only its pieces are kept. */
  tail({ tree, node, manner }: Question, from: number): Answer {
    const parts = new Parts()
    const length = tree.size(node) - from
    if (manner.compression) {
      addPieces(parts, { tree, node }, from, length, manner.compression, from)
      new BlockRuns().end(parts.out)
    } else {
      if (length > 0) parts.add({ type: 'plain', from, length })
      parts.out.i32(0)
    }
    return { complete: true, matched: 0, literal: length, parts: parts.finish() }
  }

  /**
   * The bytes of a piece as they go out.
   * @param take gives memory for them, which is used or not.
   * @throws as `find` does.
   */
  piece(
    question: Question,
    part: PiecePart,
    take: TakeMemory,
    signal: AbortSignal,
  ): Uint8Array | Promise<Uint8Array> {
    if (question.fresh) return this.#compressPiece(question, part, signal)
    const record = this.#kept.get(part.key, take)
    if (record instanceof Promise) {
      return record.then(
        (kept) => this.#knownPiece(question, part, kept) ?? this.#compressPiece(question, part, signal),
      )
    }
    return this.#knownPiece(question, part, record) ?? this.#compressPiece(question, part, signal)
  }

  /** What takes the place of a piece that can't be read: as many zeros. */
  async zeros({ manner }: Question, part: PiecePart): Promise<Uint8Array> {
    const zeros = Buffer.alloc(part.length)
    const squeezed = await squeezeInSteps(zeros, part.last, manner.compression!, undefined)
    return encodePiece(QUICK, squeezed).subarray(1)
  }

  /**
   * Gets ready what clients of these manners, whose sums are all made by one rule, will be told: one search does
   * for all.
   * @param best how to compress as well as can be; undefined: quickly, and what can be done better is told.
   * @throws as `find` does.
   */
  async prepare(
    asked: Asked,
    manners: readonly Manner[],
    best: ((codec: CodecName) => Squeeze) | undefined,
    signal: AbortSignal,
  ): Promise<Prepared[]> {
    const prepared: Prepared[] = []
    let searching: Promise<Delta | undefined> | undefined
    for (const manner of manners) {
      const question: Question = { ...asked, manner, fresh: false }
      const search = (sums: RawSums): Promise<Delta | undefined> => {
        searching ??= this.#search(question, sums, signal)
        return searching
      }
      prepared.push(await this.#prepare(question, search, best, signal))
    }
    return prepared
  }

  /**
   * As `prepare`, of files in the order in which a client asks for them, for a codec whose frames hold several.
   * @param best compresses as well as can be; undefined: quickly, and what can be done better is told.
   */
  async prepareFramed(
    question: Question & { frames: FrameCursor },
    place: number,
    best: { frame: () => FrameCompressor; squeeze: (codec: CodecName) => Squeeze } | undefined,
    signal: AbortSignal,
  ): Promise<Prepared> {
    const { frames } = question
    const tally = { searched: 0, prepared: 0, reused: 0 }
    const manner = best ? ({ quality: 'best', create: best.frame } as const) : quickFrames(undefined)
    const asked = this.#askedOf(question, keyOf(question), tally)
    const answer = await this.#framed.find(asked, frames.state, manner, signal)
    if (!isFramed(answer)) {
      // As a session does before data that is in no frame, or in one of its own.
      if (answer.literal > 0) this.leaveFrame(frames, manner.quality)
      const search = (sums: RawSums) => this.#search(question, sums, signal)
      return this.#prepare({ ...question, frames: undefined }, search, best?.squeeze, signal)
    }
    if (answer.step.begins) this.leaveFrame(frames, manner.quality)
    frames.advance(place, answer.step, best ? undefined : this.framedFile(question))
    await this.#kept.ready
    const prepared = { bytes: 0, ready: true, isNew: tally.searched + tally.prepared > 0 }
    prepared.ready = (await this.#kept.get(answer.step.key)) !== undefined
    for (const part of answer.parts) {
      if (part.type === 'bytes') prepared.bytes += part.bytes.length
      if (part.type !== 'framed') continue
      const piece = await this.#kept.get(part.key)
      prepared.bytes += piece?.length ?? part.length
      prepared.ready &&= piece !== undefined
    }
    return prepared
  }

  /** Compresses the files of a frame anew, and keeps what comes of it. For the refiner. */
  async refineFrame(
    files: readonly FramedFile[],
    create: () => FrameCompressor,
    signal: AbortSignal,
  ): Promise<void> {
    const asked = ({ tree, node, head, question, plain }: FramedFile): FramedQuestion => {
      const delta = async (): Promise<Delta> => {
        if (!plain) return wholeOf(tree, node)
        const record = await this.#kept.get(plain)
        const answer = record && decodeAnswer(record)
        if (!answer) throw new StoreError('what a search led to is not kept any more')
        return deltaOf(answer)
      }
      return {
        tree,
        node,
        head,
        key: question,
        whole: async () => undefined,
        delta,
        isCurrent: async (used) => isSame(used, await delta()),
        compose: async () => {
          throw new StoreError('a file has changed')
        },
      }
    }
    await this.#framed.refine(files, asked, { quality: 'best', create }, signal)
  }

  /**
   * Works an answer out anew with `squeeze`, and keeps it. For the refiner.
   * @param delta undefined: as it was found for whoever asked first, whatever the codec.
   */
  async refine(
    question: Question,
    delta: Delta | undefined,
    squeeze: Squeeze | undefined,
    signal: AbortSignal,
  ): Promise<Answer> {
    const { tree, node, manner } = question
    const ofAll = { ...question, fresh: false }
    const steps = delta ?? (manner.plain ? await this.#deltaOf(ofAll, signal) : wholeOf(tree, node))
    const answer = await compose(question, steps, squeeze, true)
    // Mended meanwhile: then somebody has asked, or soon will, whose answer is made better in its turn.
    if (!delta && manner.plain && !isSame(await this.#deltaOf(ofAll, signal), steps)) return answer
    if (answer.complete) this.#kept.put(keyOf(question), encodeAnswer(answer))
    return answer
  }

  /** Compresses a piece anew, and keeps it. For the refiner. */
  async refinePiece(job: Extract<RefineJob, { type: 'piece' }>, squeeze: Squeeze): Promise<void> {
    const squeezed = await withReader(job.tree, job.node, (read) =>
      withPiece(read, job.part, (bytes, history) => squeeze(bytes, job.part.last, history)),
    )
    this.#kept.put(job.key, encodePiece(BEST, squeezed))
  }

  async #findLater(
    question: Question,
    key: Uint8Array,
    record: Promise<Uint8Array | undefined>,
    signal: AbortSignal,
  ): Promise<Answer> {
    return this.#known(question, key, await record) ?? this.#workOut(question, key, signal)
  }

  async #findFramed(
    question: Question,
    key: Uint8Array,
    { state }: FrameCursor,
    signal: AbortSignal,
  ): Promise<Answer> {
    const { tally, manner } = question
    const had = { searched: 0, prepared: 0, reused: 0 }
    const asked = this.#askedOf(question, key, had)
    try {
      return await this.#framed.find(asked, state, quickFrames(manner.compression?.level), signal)
    } finally {
      if (tally) tally[had.searched > 0 ? 'searched' : had.prepared > 0 ? 'prepared' : 'reused']++
    }
  }

  /** @param tally told whether something had to be worked out. */
  #askedOf(question: Question, key: Uint8Array, tally: AnswerTally): FramedQuestion {
    const { tree, node, sums } = question
    return {
      tree,
      node,
      head: sums?.head,
      key,
      whole: async () => {
        const record = await this.#kept.get(key)
        const literal = record && decodeAnswer(record)?.literal
        if (literal === undefined || belongsInFrame(literal)) return undefined
        return this.#known({ ...question, tally: undefined }, key, record)
      },
      delta: (stop) => {
        tally[sums ? 'searched' : 'prepared']++
        return this.#deltaOf(question, stop)
      },
      compose: async (delta) =>
        delta.length > MOST_STEPS ? stepByStep(question, delta) : this.#compose(question, key, delta),
    }
  }

  #known(question: Question, key: Uint8Array, record: Uint8Array | undefined): Answer | undefined {
    if (!record) return undefined
    const answer = decodeAnswer(record)
    if (!answer) return undefined
    this.#addRecent(question, answer)
    if (question.tally) question.tally.reused++
    if (!answer.complete) this.#onQuick({ type: 'answer', key, question })
    return answer
  }

  #workOut(question: Question, key: Uint8Array, signal: AbortSignal): Promise<Answer> {
    const { sums, tally } = question
    let isFirst = false
    const answer = this.#working.run(
      Buffer.from(key).toString('latin1'),
      async (stop) => {
        isFirst = true
        const { compression } = question.manner
        const delta = await (compression
          ? this.#deltaOf(question, stop)
          : sums && this.#search(question, sums, stop))
        if (question.firstStrongLength) await this.#reconsider(question, delta, stop)
        if (delta && delta.length > MOST_STEPS) return stepByStep(question, delta)
        return this.#compose(question, key, delta)
      },
      signal,
    )
    if (tally) tally[!isFirst ? 'reused' : sums ? 'searched' : 'prepared']++
    return answer
  }

  /**
   * A client has asked again, by whole sums: works out anew what those are told who ask as it did first.
   * @param exact what was found by its whole sums.
   */
  async #reconsider(question: Question, exact: Delta | undefined, signal: AbortSignal): Promise<void> {
    const { tree, node, manner, sums: whole, firstStrongLength = 0 } = question
    // What is written over while it is read has other blocks by now.
    if (!whole || firstStrongLength >= whole.head.strongLength || manner.inplace) return
    const sums = await cutSums(whole, firstStrongLength, new Pacer(signal))
    const first: Question = { ...question, sums, fresh: false, firstStrongLength: undefined }
    const key = keyOf(first)
    if (manner.compression) {
      // Comes of the plain answer, which was reconsidered before.
      for (const from of ['best', 'quick'] as const) this.forget(frameKey(from, key))
      return this.forget(key)
    }
    if (!exact || exact.length > MOST_STEPS) return this.forget(key)
    let delta = await this.#search(first, sums, signal)
    if (!delta || delta.length > MOST_STEPS) return this.forget(key)
    if (chanceIsLikely(sums.head, tree.size(node))) {
      await prepareBlockSum(manner.rule)
      const strongOf = createBlockSum(manner.rule)
      const isChance = await withReader(tree, node, (read) =>
        hasChanceMatches(delta!, exact, whole, strongOf, async (position, length) => {
          const bytes = Buffer.allocUnsafe(length)
          await read([bytes], position)
          return bytes
        }),
      )
      if (isChance) delta = exact
    }
    await this.#compose(first, key, delta)
  }

  async #compose(question: Question, key: Uint8Array, delta: Delta | undefined): Promise<Answer> {
    const { tree, node, manner } = question
    const answer = await compose(question, delta ?? wholeOf(tree, node), quickSqueeze(manner.compression))
    this.#kept.put(key, encodeAnswer(answer))
    if (isNumbered(tree)) this.#recent.remove(tree, manner, node)
    // What the search led to is kept with the plain answer: by then it may have been mended.
    if (!answer.complete)
      this.#onQuick({ type: 'answer', key, question: { ...question, wholeSums: undefined } })
    return answer
  }

  async #prepare(
    question: Question,
    search: (sums: RawSums) => Promise<Delta | undefined>,
    best: ((codec: CodecName) => Squeeze) | undefined,
    signal: AbortSignal,
  ): Promise<Prepared> {
    const { tree, node, sums, manner } = question
    const { compression } = manner
    if (!isWorkedOut(question)) return { bytes: tree.size(node), ready: true, isNew: false }
    const refine = compression && canRefine(compression.codec, compression.effort) ? best : undefined
    const squeeze = refine ? refine(compression!.codec) : quickSqueeze(compression)
    const key = keyOf(question)
    const kept = await this.#kept.get(key)
    let answer = kept && decodeAnswer(kept)
    const prepared = { bytes: 0, ready: true, isNew: !answer || (best !== undefined && !answer.complete) }
    if (!answer || prepared.isNew) {
      const delta = sums && (await search(sums))
      if (delta && delta.length > MOST_STEPS) {
        const { literal } = figuresOf(question, delta)
        return { bytes: literal + 4 * delta.length, ready: false, isNew: true }
      }
      answer = best
        ? await this.refine(question, delta, squeeze, signal)
        : await this.#compose(question, key, delta)
      await this.#kept.ready
      prepared.ready = (await this.#kept.get(key)) !== undefined
    }
    for (const part of answer.parts) {
      signal.throwIfAborted()
      if (part.type === 'bytes') prepared.bytes += part.bytes.length
      else if (part.type === 'plain') prepared.bytes += part.length
      else if (part.type === 'piece') {
        const piece = await this.#preparePiece(question, part, refine && squeeze, signal)
        prepared.bytes += piece.bytes
        prepared.ready &&= piece.ready
        prepared.isNew ||= piece.isNew
      }
    }
    return prepared
  }

  async #preparePiece(
    question: Question,
    part: PiecePart,
    refine: Squeeze | undefined,
    signal: AbortSignal,
  ): Promise<Prepared> {
    const { tree, node, manner } = question
    let record = await this.#kept.get(part.key)
    const isNew = !record || (refine !== undefined && record[0] === QUICK)
    if (isNew) {
      const job = {
        type: 'piece',
        key: part.key,
        tree,
        node,
        part,
        codec: manner.compression!.codec,
      } as const
      await (refine ? this.refinePiece(job, refine) : this.#compressPiece(question, part, signal))
      await this.#kept.ready
      record = await this.#kept.get(part.key)
    }
    return { bytes: record ? record.length - 1 : part.length, ready: record !== undefined, isNew }
  }

  /** How to make the file of what the client has: as it was found for whoever asked first, whatever the codec. */
  async #deltaOf(question: Question, signal: AbortSignal): Promise<Delta> {
    const { tree, node, sums, manner } = question
    if (!sums) return wholeOf(tree, node)
    const plain = { ...question, manner: manner.plain!, frames: undefined, tally: undefined }
    return deltaOf(await this.find(plain, signal))
  }

  async #search(
    { tree, node, manner, wholeSums }: Question,
    sums: RawSums,
    signal: AbortSignal,
  ): Promise<Delta | undefined> {
    const parsed = await parseSums(wholeSums ?? sums, new Pacer(signal))
    return this.#derived.delta(tree, node, parsed, manner.rule, manner.inplace, signal)
  }

  #knownPiece(
    { tree, node, manner }: Question,
    part: PiecePart,
    record: Uint8Array | undefined,
  ): Uint8Array | undefined {
    if (!record) return undefined
    const { codec, effort } = manner.compression!
    if (record[0] === QUICK && canRefine(codec, effort))
      this.#onQuick({ type: 'piece', key: part.key, tree, node, part, codec })
    return record.subarray(1)
  }

  async #compressPiece(
    { tree, node, manner }: Question,
    part: PiecePart,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const { codec, effort } = manner.compression!
    const record = await this.#compressing.run(
      Buffer.from(part.key).toString('latin1'),
      async () => {
        const squeezed = await withReader(tree, node, (read) =>
          withPiece(read, part, (bytes, history) =>
            squeezeInSteps(bytes, part.last, manner.compression!, history),
          ),
        )
        const encoded = encodePiece(QUICK, squeezed)
        this.#kept.put(part.key, encoded)
        if (canRefine(codec, effort)) this.#onQuick({ type: 'piece', key: part.key, tree, node, part, codec })
        return encoded
      },
      signal,
    )
    return record.subarray(1)
  }
}

// -----------------------------------------------------------------------------------------------------
// Composing

/**
 * @param squeeze undefined for plain tokens.
 * @param best what it makes can't be made smaller.
 */
async function compose(
  question: Question,
  delta: Delta,
  squeeze: Squeeze | undefined,
  best = false,
): Promise<Answer> {
  const { tree, node, sums, manner } = question
  const figures = figuresOf(question, delta)
  const { literal } = figures
  if (!squeeze) return { ...figures, complete: true, parts: await composePlain(tree, node, delta, sums) }
  const inline = literal <= MOST_INLINE
  const compression = manner.compression!
  const parts = await composeCompressed(question, delta, inline ? squeeze : undefined, compression)
  // Pieces are refined by themselves.
  const complete = best || !inline || literal === 0 || !canRefine(compression.codec, compression.effort)
  return { ...figures, complete, parts }
}

async function composePlain(
  tree: Tree,
  node: number,
  delta: Delta,
  sums: RawSums | undefined,
): Promise<AnswerPart[]> {
  const parts = new Parts()
  let position = 0
  let inlined = 0
  const pacer = new Pacer()
  const hasInline = delta.some((step) => step > 0 && step <= MOST_INLINE_PLAIN)
  await withReaderIf(hasInline, tree, node, async (read) => {
    for (const step of delta) {
      if (pacer.due) await pacer.rest()
      if (step < 0) {
        parts.out.i32(step)
        position += blockLengthOf(sums!.head, -step - 1)
        continue
      }
      if (step <= MOST_INLINE_PLAIN && inlined + step <= MOST_INLINE_IN_ALL) {
        inlined += step
        parts.out.i32(step)
        await read!([parts.out.space(step)], position)
      } else {
        parts.add({ type: 'plain', from: position, length: step })
      }
      position += step
    }
  })
  parts.out.i32(0)
  return parts.finish()
}

/** @param squeeze undefined when literal data goes into pieces of its own. */
async function composeCompressed(
  { tree, node, sums }: Question,
  delta: Delta,
  squeeze: Squeeze | undefined,
  compression: Compression,
): Promise<AnswerPart[]> {
  const parts = new Parts()
  const runs = new BlockRuns()
  const { codec } = compression
  let position = 0
  /** Behind the last block that not every client feeds into its window. */
  let knownFrom = 0
  await withReaderIf(squeeze !== undefined, tree, node, async (read) => {
    const pacer = new Pacer()
    for (const step of delta) {
      if (pacer.due) await pacer.rest()
      if (step < 0) {
        runs.add(parts.out, -step - 1)
        const length = blockLengthOf(sums!.head, -step - 1)
        position += length
        if (length > MOST_FED) knownFrom = position
        continue
      }
      runs.flush(parts.out)
      if (squeeze) {
        const run = { from: position, length: step, history: historyOf(codec, position, position, knownFrom) }
        const squeezed = await withPiece(read!, run, (bytes, history) => squeeze(bytes, true, history))
        for (const part of squeezed) encodeChunks(parts.out, part)
      } else {
        addPieces(parts, { tree, node }, position, step, compression, knownFrom)
      }
      position += step
    }
  })
  runs.end(parts.out)
  return parts.finish()
}

/**
 * A literal run, cut into pieces.
 * @param knownFrom see `historyOf`.
 */
function addPieces(
  parts: Parts,
  { tree, node }: Pick<Question, 'tree' | 'node'>,
  start: number,
  size: number,
  compression: Compression,
  knownFrom: number,
): void {
  for (let done = 0; done < size; done += PIECE) {
    const from = start + done
    const length = Math.min(PIECE, size - done)
    const last = done + length === size
    const history = historyOf(compression.codec, from, start, knownFrom)
    const range = { from, length, last, history }
    parts.add({ type: 'piece', ...range, key: pieceKey(tree, node, range, compression) })
  }
}

function figuresOf({ tree, node }: Question, delta: Delta): { matched: number; literal: number } {
  let literal = 0
  for (const step of delta) if (step > 0) literal += step
  return { matched: tree.size(node) - literal, literal }
}

/** An answer that is not kept. */
function stepByStep(question: Question, delta: Delta): Answer {
  return { complete: true, ...figuresOf(question, delta), parts: [{ type: 'steps', delta }] }
}

/** The whole content as plain literal tokens: nothing is worked out for that. */
function wholePlain(tree: Tree, node: number): Answer {
  const size = tree.size(node)
  const parts: AnswerPart[] = size > 0 ? [{ type: 'plain', from: 0, length: size }] : []
  return { complete: true, matched: 0, literal: size, parts: [...parts, { type: 'bytes', bytes: END }] }
}

const END = new Uint8Array(4)
/** A record that no answer is decoded from. */
const NOTHING = new Uint8Array(1)

/** What was found by the search that led to a plain answer. */
function deltaOf({ parts }: Answer): Delta {
  const delta: number[] = []
  for (const part of parts) {
    if (part.type === 'steps') return [...part.delta]
    if (part.type === 'plain') delta.push(part.length)
    if (part.type !== 'bytes') continue
    for (let at = 0; at < part.bytes.length; ) {
      const token = i32At(part.bytes, at)
      if (token !== 0) delta.push(token)
      at += 4 + Math.max(0, token)
    }
  }
  return delta
}

function isSame(one: Delta, other: Delta): boolean {
  return one.length === other.length && one.every((step, i) => step === other[i])
}

function wholeOf(tree: Tree, node: number): Delta {
  const size = tree.size(node)
  return size > 0 ? [size] : []
}

export function quickSqueeze(compression: Compression | undefined): Squeeze | undefined {
  if (!compression) return undefined
  const compressor = createCompressor(compression.codec, compression.level, compression.effort)
  return (bytes, last, history) => compressor.compress(bytes, last, history)
}

/** As arrays of which a worker thread needs no copy. */
async function parseSums({ head, bytes }: RawSums, pacer: Pacer): Promise<BlockSums> {
  const { count, strongLength } = head
  const weak = new Uint32Array(new SharedArrayBuffer(count * 4))
  const strong = new Uint8Array(new SharedArrayBuffer(count * strongLength))
  for (let k = 0, at = 0; k < count; k++, at += 4 + strongLength) {
    if (pacer.due) await pacer.rest()
    weak[k] = i32At(bytes, at)
    for (let i = 0; i < strongLength; i++) strong[k * strongLength + i] = bytes[at + 4 + i]!
  }
  return { head, weak, strong }
}

/** In steps that each are a moment's work for a thread. */
async function squeezeInSteps(
  bytes: Uint8Array,
  last: boolean,
  compression: Compression,
  history: Uint8Array | undefined,
): Promise<Uint8Array[]> {
  const { most, compress } = createCompressor(compression.codec, compression.level, compression.effort)
  const all: Uint8Array[] = []
  for (let at = 0; at < bytes.length; at += most) {
    const end = Math.min(bytes.length, at + most)
    const before = at === 0 ? history : bytes.subarray(Math.max(0, at - DEFLATE_WINDOW), at)
    all.push(...(await compress(bytes.subarray(at, end), last && end === bytes.length, before)))
  }
  return all
}

function encodePiece(quality: number, squeezed: readonly Uint8Array[]): Buffer {
  const record = Buffer.allocUnsafe(1 + chunksSize(squeezed))
  record[0] = quality
  writeChunks(record.subarray(1), squeezed)
  return record
}

/** Nothing that comes of it may lie in what was read. */
function withPiece<T>(
  read: Read,
  { from, length, history }: Pick<PiecePart, 'from' | 'length' | 'history'>,
  use: (bytes: Uint8Array, history: Uint8Array) => T | Promise<T>,
): Promise<T> {
  return withMemory(history + length, async (whole) => {
    await read([whole], from - history)
    return use(whole.subarray(history), whole.subarray(0, history))
  })
}

async function withReaderIf(
  needed: boolean,
  tree: Tree,
  node: number,
  use: (read: Read | undefined) => Promise<void>,
): Promise<void> {
  await (needed ? withReader(tree, node, use) : use(undefined))
}

// -----------------------------------------------------------------------------------------------------
// Keys

/** Most questions are put together here. */
const scratch = Buffer.allocUnsafeSlow(8 * 1024)

function keyOf({ tree, node, sums, manner }: Question): Uint8Array {
  const blocks = sums ? Object.values(sums.head).join(':') : ''
  const text = `answer:${FORMAT}:${manner.name}:${blocks}:${tree.contentKey(node)}`
  const size = text.length + (sums?.bytes.length ?? 0)
  const whole = size <= scratch.length ? scratch.subarray(0, size) : Buffer.allocUnsafe(size)
  whole.write(text, 'latin1')
  if (sums) whole.set(sums.bytes, text.length)
  return hash('sha256', whole, 'buffer')
}

function pieceKey(
  tree: Tree,
  node: number,
  { from, length, last, history }: Omit<PiecePart, 'type' | 'key'>,
  { codec, effort }: Compression,
): Uint8Array {
  const range = `${from}:${length}:${last}:${history}`
  const text = `piece:${FORMAT}:${codec}:${effort}:${range}:${tree.contentKey(node)}`
  return hash('sha256', Buffer.from(text, 'latin1'), 'buffer').subarray(0, 16)
}
