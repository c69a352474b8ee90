/**
 * Frames: zstd goes on over several files, so that a file may refer back to those before it. The stock server has
 * one stream for each session; ours has one for each stretch of a few MB, and what it says about a file in such a
 * stretch is kept for everybody who comes the same way.
 *
 * Where a client's decoder stands is named by a *state*. Between two frames it is nowhere. The key of what is said
 * next is made of the state and the question (answers.ts), and leads to a new state, whose name was drawn when
 * this was compressed: blocks of a frame can be decoded only behind those with which they were made, so what was
 * made anew in between is not found from there any more.
 *
 * Where a frame ends depends on the contents alone. So devices that differ in some file are together again
 * behind the end of that frame; until then they begin one of their own.
 */
import { hash } from 'node:crypto'
import type { Tree } from './tree.ts'
import { type Answer, decodeAnswer, encodeAnswer } from './wire/answers.ts'
import type { SumHead } from './wire/sums.ts'

/** 'quick': compressed while a client waited. 'best': as well as can be. */
export type Quality = 'quick' | 'best'

/** A client's decoder is in an open frame. */
export interface FrameState {
  readonly id: Uint8Array
  readonly quality: Quality
  /** Literal bytes of the frame so far. */
  readonly literal: number
}

/** What an answer does with the frame. */
export interface FrameStep {
  /** What the answer is kept under. */
  readonly key: Uint8Array
  readonly quality: Quality
  /** It begins a frame: one that is open has to be ended before it. */
  readonly begins: boolean
  /** Undefined: the frame ends with it. */
  readonly next: FrameState | undefined
}

export interface FramedAnswer extends Answer {
  readonly step: FrameStep
}

/** A file of a frame that can be compressed better: all it takes to find what was said about it. */
export interface FramedFile {
  readonly tree: Tree
  readonly node: number
  /** Of the client's sums; undefined when it has none. */
  readonly head: SumHead | undefined
  /** Of the question (`keyOf`). */
  readonly question: Uint8Array
  /** What the search led to is kept under this; undefined when there was none. */
  readonly plain: Uint8Array | undefined
}

/** Literal data of a larger file is cut into pieces that each are a frame of their own. */
export const MOST_FRAMED = 8 * 2 ** 20
/** A frame may end when it has so much literal data: at about every eighth file. */
const FRAME_LEAST = 3 * 2 ** 20
/** With so much it ends: then it is as large as a window. */
const FRAME_MOST = 8 * 2 ** 20
/** Files that are compressed better in one go: there may be any number of tiny ones in a frame. */
const MOST_FILES = 4096
const ID = 16
const VERSION = 1
const FORMAT = 2
/** As a state's name, where no frame is open: what is found there goes on as well as can be, or quickly. */
const BEGINNING = { quick: beginning('quick'), best: beginning('best') }

function beginning(quality: Quality): Uint8Array {
  return hash('sha256', `frame:${FORMAT}:${quality}`, 'buffer').subarray(0, ID)
}

/** Ends an open frame: an empty block that says that it is the last, as a chunk (docs/rsync-protocol.md, 8.6). */
export const END_OF_FRAME = Uint8Array.of(0x40, 3, 1, 0, 0)

/** Whether a frame ends behind a file. */
export function endsFrame(literal: number, contentKey: string): boolean {
  if (literal < FRAME_LEAST) return false
  return literal >= FRAME_MOST || hash('sha256', contentKey, 'buffer')[0]! % 8 === 0
}

/**
 * What an answer is kept under, to a question that is asked in a state: a hash and a state's name in one. Names are
 * drawn at random and nobody is told them, so no question can be made up that comes to the key of another.
 */
export function frameKey(from: FrameState | Quality, question: Uint8Array): Uint8Array {
  const where = typeof from === 'string' ? BEGINNING[from] : from.id
  const key = Buffer.allocUnsafe(ID)
  for (let i = 0; i < ID; i++) key[i] = question[i]! ^ where[i]!
  return key
}

/** What a piece of literal data of a framed answer is kept under. */
export function framedPieceKey(id: Uint8Array, number: number): Uint8Array {
  return hash('sha256', Buffer.concat([id, Buffer.from(`:${number}`)]), 'buffer').subarray(0, ID)
}

/**
 *     version u8, ends u8, id 16 bytes, answer (wire/answers.ts)
 */
export function encodeFramed(id: Uint8Array, ends: boolean, answer: Answer): Buffer {
  return encodeAnswer(answer, Uint8Array.of(VERSION, ends ? 1 : 0, ...id))
}

/** Undefined for what is no such record: it is worked out again. The bytes were checked by their keeper. */
export function decodeFramed(
  record: Uint8Array,
  key: Uint8Array,
  from: FrameState | Quality,
): FramedAnswer | undefined {
  if (record[0] !== VERSION) return undefined
  const answer = decodeAnswer(record.subarray(2 + ID))
  if (!answer) return undefined
  // The bytes may not last longer than the answer is at hand.
  const id = new Uint8Array(record.subarray(2, 2 + ID))
  return { ...answer, step: stepOf(key, from, id, answer.literal, record[1] === 1) }
}

export function stepOf(
  key: Uint8Array,
  from: FrameState | Quality,
  id: Uint8Array,
  literal: number,
  ends: boolean,
): FrameStep {
  const begins = typeof from === 'string'
  const quality = begins ? from : from.quality
  const before = begins ? 0 : from.literal
  const next = ends ? undefined : { id, quality, literal: before + literal }
  return { key, quality, begins, next }
}

/** What is remembered of a session's way through frames. */
export class FrameCursor {
  #state: FrameState | undefined
  #isOpen = false
  #isLost = false
  #files: FramedFile[] = []
  readonly #onQuick: (files: readonly FramedFile[]) => void
  readonly #sent = new SentKeys()

  /** @param onQuick told the files of a frame that was compressed quickly. */
  constructor(onQuick: (files: readonly FramedFile[]) => void) {
    this.#onQuick = onQuick
  }

  get state(): FrameState | undefined {
    return this.#state
  }

  /** The client's decoder expects more of a frame. */
  get isOpen(): boolean {
    return this.#isOpen
  }

  /** The rest of this answer can't go on with the frame. */
  get isLost(): boolean {
    return this.#isLost
  }

  /** Data of a frame goes out. */
  opened(): void {
    this.#isOpen = true
  }

  /** A piece of it is not kept any more; the frame that is open was ended. */
  lose(): void {
    this.#isOpen = false
    this.#isLost = true
  }

  /** The frame was ended early, or is: what the client gets next begins a new one. */
  leave(): void {
    this.#isOpen = false
    this.#state = undefined
    this.#tell()
  }

  /**
   * A framed answer has been said.
   * @param file undefined for what nobody needs to compress better.
   */
  advance(place: number, { key, quality, next }: FrameStep, file: FramedFile | undefined): void {
    this.#sent.add(place, key)
    if (file && quality === 'quick') this.#files.push(file)
    if (this.#files.length >= MOST_FILES) this.#tell()
    this.#state = this.#isLost ? undefined : next
    this.#isOpen = this.#state !== undefined
    this.#isLost = false
    if (!this.#state) this.#tell()
  }

  /** What was last said about a place was kept under this. Told once. */
  takeSent(place: number): Uint8Array | undefined {
    return this.#sent.take(place)
  }

  #tell(): void {
    if (this.#files.length === 0) return
    this.#onQuick(this.#files)
    this.#files = []
  }
}

const NO_PLACE = 0xffffffff

/** Keys by place, side by side in memory: there may be tens of thousands. Each is found once. */
class SentKeys {
  static readonly #ROW = 4 + ID
  #rows = Buffer.alloc(0)
  #count = 0

  add(place: number, key: Uint8Array): void {
    const at = this.#count++ * SentKeys.#ROW
    if (at === this.#rows.length) {
      const larger = Buffer.alloc(Math.max(64 * SentKeys.#ROW, 2 * at))
      larger.set(this.#rows)
      this.#rows = larger
    }
    this.#rows.writeUInt32LE(place, at)
    this.#rows.set(key, at + 4)
  }

  take(place: number): Uint8Array | undefined {
    for (let row = this.#count - 1; row >= 0; row--) {
      const at = row * SentKeys.#ROW
      if (this.#rows.readUInt32LE(at) !== place) continue
      this.#rows.writeUInt32LE(NO_PLACE, at)
      return this.#rows.subarray(at + 4, at + SentKeys.#ROW)
    }
    return undefined
  }
}
