/**
 * Answers whose literal data is in a zstd frame that goes on over several files: found where somebody came the
 * same way before, or else compressed on from there. What a frame is and where it ends: frames.ts.
 *
 * Compressors under way belong to the state that they stand at and not to a session: whoever is there goes on with
 * one. A few are kept; where there is none, the next file begins a new frame.
 */
import { randomBytes } from 'node:crypto'
import { StoreError } from '../errors.ts'
import { SingleFlight } from '../lib/single-flight.ts'
import { createFrame, type FrameCompressor, FrameLost } from './codecs.ts'
import type { Delta } from './delta/match.ts'
import {
  decodeFramed,
  encodeFramed,
  endsFrame,
  type FramedAnswer,
  type FramedFile,
  type FrameState,
  framedPieceKey,
  frameKey,
  MOST_FRAMED,
  type Quality,
  stepOf,
} from './frames.ts'
import type { Kept } from './kept.ts'
import { Parts, withReader } from './parts.ts'
import { withMemory } from './slabs.ts'
import type { Tree } from './tree.ts'
import type { Answer, AnswerPart } from './wire/answers.ts'
import { blockLengthOf, type SumHead } from './wire/sums.ts'
import { BlockRuns, chunksSize, encodeChunks, writeChunks } from './wire/tokens.ts'

/** What is asked of one file. */
export interface FramedQuestion {
  readonly tree: Tree
  readonly node: number
  /** Of the client's sums; undefined when it has none. */
  readonly head: SumHead | undefined
  /** The question's own (`keyOf` in answers.ts). */
  readonly key: Uint8Array
  /** What is kept for this question whatever the state: no literal data, or too much. */
  whole(): Promise<Answer | undefined>
  /** How to make the file from the client's blocks. */
  delta(signal: AbortSignal): Promise<Delta>
  /** Whether that is still what is kept, where nobody is told the answer who would notice that it is not. */
  isCurrent?(delta: Delta): Promise<boolean>
  /** Keeps and returns what is said whatever the state. */
  compose(delta: Delta): Promise<Answer>
}

/** How to compress where nothing is found. */
export interface FrameManner {
  readonly quality: Quality
  readonly create: () => FrameCompressor
}

export function quickFrames(level: number | undefined): FrameManner {
  return { quality: 'quick', create: () => createFrame(level) }
}

/** Answers with more literal data than that refer to pieces of it. */
export const MOST_INLINE = 64 * 1024
/** Literal data is cut into pieces of this size: what one client may take in memory at a time. */
export const PIECE = 2 ** 20
/**
 * Steps of a delta that are put together to an answer. With more of them (blocks of a few bytes, forced by -B)
 * the answer would take many times the memory of the delta: it is said step by step and not kept.
 */
export const MOST_STEPS = 10_000

export function isFramed(answer: Answer): answer is FramedAnswer {
  return 'step' in answer
}

/** Whether literal data of that amount goes into a frame that others share. */
export function belongsInFrame(literal: number): boolean {
  return literal > 0 && literal <= MOST_FRAMED
}

export class FramedAnswers {
  readonly #kept: Kept
  readonly #composing = new SingleFlight<string, Answer>()
  /** Apart: clients that come by the dozen don't put out what is compressed behind their backs. */
  readonly #underWay = { quick: new FramesUnderWay(), best: new FramesUnderWay() }

  constructor(kept: Kept) {
    this.#kept = kept
  }

  /** As `Answers.atHand`. @param question its key. */
  atHand(question: Uint8Array, state: FrameState | undefined): FramedAnswer | undefined {
    const from = state ?? 'best'
    const key = frameKey(from, question)
    const record = this.#kept.peek(key)
    const answer = record && decodeFramed(record, key, from)
    if (!answer?.parts.every(({ type }) => type === 'bytes'))
      return answer && decodeFramed(Uint8Array.from(record!), key, from)
    return answer
  }

  /** @throws as `Answers.find`. */
  async find(
    asked: FramedQuestion,
    state: FrameState | undefined,
    { quality, create }: FrameManner,
    signal: AbortSignal,
  ): Promise<Answer> {
    // Whoever waits does not go on with what is compressed as well as can be, nor the other way round.
    const isNext = state?.quality === quality
    // Another one came here a moment before: to begin a frame beside his would lead us other ways up to its end.
    const isUnderWay = (): boolean => isNext && this.#composing.has(nameOf(frameKey(state, asked.key)))
    if (isNext && isUnderWay()) return this.#compose(asked, state, create, signal)
    const found =
      (state ? await this.#known(asked, state) : await this.#beginning(asked, quality)) ??
      (await asked.whole())
    if (found) return found
    if (isNext && (this.#underWay[quality].has(state) || isUnderWay()))
      return this.#compose(asked, state, create, signal)
    const another = state && (await this.#beginning(asked, quality))
    return another ?? this.#compose(asked, quality, create, signal)
  }

  /** Compresses the files of a frame anew, and keeps what comes of it. */
  async refine(
    files: readonly FramedFile[],
    questionOf: (file: FramedFile) => FramedQuestion,
    manner: FrameManner,
    signal: AbortSignal,
  ): Promise<void> {
    let state: FrameState | undefined
    try {
      for (const file of files) {
        const answer = await this.find(questionOf(file), state, manner, signal)
        state = isFramed(answer) ? answer.step.next : state
        await this.#kept.ready
      }
    } finally {
      this.leave(state)
    }
  }

  /** Whoever leads a frame does not go on from there. */
  leave(state: FrameState | undefined): void {
    if (state) this.#underWay[state.quality].take(state)?.close()
  }

  async #known(
    { key: question }: FramedQuestion,
    from: FrameState | Quality,
  ): Promise<FramedAnswer | undefined> {
    const key = frameKey(from, question)
    const record = await this.#kept.get(key)
    return record && decodeFramed(record, key, from)
  }

  async #beginning(asked: FramedQuestion, quality: Quality): Promise<FramedAnswer | undefined> {
    const best = await this.#known(asked, 'best')
    return best ?? (quality === 'quick' ? this.#known(asked, 'quick') : undefined)
  }

  #compose(
    asked: FramedQuestion,
    from: FrameState | Quality,
    create: () => FrameCompressor,
    signal: AbortSignal,
  ): Promise<Answer> {
    const key = frameKey(from, asked.key)
    return this.#composing.run(
      nameOf(key),
      async (stop) => {
        const delta = await asked.delta(stop)
        let literal = 0
        for (const step of delta) if (step > 0) literal += step
        if (!belongsInFrame(literal) || delta.length > MOST_STEPS) return asked.compose(delta)
        const frame = typeof from === 'string' ? create() : this.#underWay[from.quality].take(from)
        // Somebody else went on with it meanwhile.
        if (!frame) return this.#compose(asked, (from as FrameState).quality, create, stop)
        const id = randomBytes(16)
        const before = typeof from === 'string' ? 0 : from.literal
        const ends = endsFrame(before + literal, asked.tree.contentKey(asked.node))
        try {
          const parts = await this.#write(asked, delta, literal, { frame, ends, id }, stop)
          if ((await asked.isCurrent?.(delta)) === false)
            throw new StoreError('another client has learned better meanwhile')
          const answer = { complete: true, matched: asked.tree.size(asked.node) - literal, literal, parts }
          this.#kept.put(key, encodeFramed(id, ends, answer))
          const step = stepOf(key, from, id, literal, ends)
          if (step.next) this.#underWay[step.quality].put(step.next, frame)
          else frame.close()
          return { ...answer, step }
        } catch (error) {
          frame.close()
          // Nothing of it has gone out, and nobody will find what was kept of it.
          if (error instanceof FrameLost && typeof from !== 'string')
            return this.#compose(asked, from.quality, create, stop)
          throw error
        }
      },
      signal,
    )
  }

  async #write(
    { tree, node, head }: FramedQuestion,
    delta: Delta,
    literal: number,
    { frame, ends, id }: { frame: FrameCompressor; ends: boolean; id: Uint8Array },
    stop: AbortSignal,
  ): Promise<AnswerPart[]> {
    const parts = new Parts()
    const runs = new BlockRuns()
    let position = 0
    let rest = literal
    let pieces = 0
    await withReader(tree, node, async (read) => {
      for (const step of delta) {
        if (step < 0) {
          runs.add(parts.out, -step - 1)
          position += blockLengthOf(head!, -step - 1)
          continue
        }
        runs.flush(parts.out)
        for (let done = 0; done < step; done += PIECE) {
          stop.throwIfAborted()
          const from = position + done
          const length = Math.min(PIECE, step - done)
          rest -= length
          const data = await withMemory(length, async (bytes) => {
            await read([bytes], from)
            return frame.add(bytes, ends && rest === 0)
          })
          if (literal <= MOST_INLINE) {
            for (const part of data) encodeChunks(parts.out, part)
            continue
          }
          const key = framedPieceKey(id, pieces++)
          await withMemory(chunksSize(data), (chunks) => {
            writeChunks(chunks, data)
            this.#kept.put(key, chunks)
          })
          parts.add({ type: 'framed', from, length, key })
        }
        position += step
      }
    })
    runs.end(parts.out)
    return parts.finish()
  }
}

/** Compressors that wait for the next file: a few MB of memory each. */
const MOST_UNDER_WAY = 8

class FramesUnderWay {
  readonly #frames = new Map<string, FrameCompressor>()

  has({ id }: FrameState): boolean {
    return this.#frames.has(nameOf(id))
  }

  /** Hands it over: nobody else finds it then. */
  take({ id }: FrameState): FrameCompressor | undefined {
    const name = nameOf(id)
    const frame = this.#frames.get(name)
    this.#frames.delete(name)
    return frame
  }

  put({ id }: FrameState, frame: FrameCompressor): void {
    this.#frames.set(nameOf(id), frame)
    if (this.#frames.size <= MOST_UNDER_WAY) return
    const [oldest, other] = this.#frames.entries().next().value!
    this.#frames.delete(oldest)
    other.close()
  }
}

function nameOf(id: Uint8Array): string {
  return Buffer.from(id).toString('latin1')
}
