/**
 * Sends answers: kept bytes as they are, plain literal data from the store straight into the frame that goes
 * out. docs/rsync-protocol.md, section 8.6.
 */
import { StoreError } from '../errors.ts'
import type { ByteWriter } from '../lib/byte-writer.ts'
import { Pacer } from '../lib/pacer.ts'
import { type Answers, type FramedPart, type PiecePart, type Question, quickSqueeze } from './answers.ts'
import { MAX_PIECE } from './codecs.ts'
import type { Connection } from './connection.ts'
import { END_OF_FRAME, type FrameCursor } from './frames.ts'
import { FOR_PIECE, FRAME_SIZE, FRAME_SLACK, Loan } from './slabs.ts'
import type { Content, Tree } from './tree.ts'
import type { Answer, AnswerPart } from './wire/answers.ts'
import { blockLengthOf } from './wire/sums.ts'
import { BlockRuns, encodeChunks } from './wire/tokens.ts'

/** Plain literal data goes out in tokens of this size: some releases refuse larger ones. */
const LITERAL = 32 * 1024

export interface Delivery {
  connection: Connection
  answers: Answers
  question: Question
  /** Open, when the answer is said step by step, or has plain parts and the tree no shared memory. */
  content: Content | undefined
  /** Where the client is, when the answer goes on with a frame. */
  frames: FrameCursor | undefined
  /** The memory that the answer is in, when it was lent. */
  loan: Loan | undefined
  signal: AbortSignal
}

/**
 * Everything from behind the sum head to the digest. A promise only where something has to be waited for.
 * @returns what went wrong when some bytes could not be read. Zeros took their place, since their number was
 *   announced; the caller must make sure that the client does not believe them.
 * @throws the signal's reason.
 */
export function sendAnswer(delivery: Delivery, { parts }: Answer): Sending {
  if (isShort(parts)) {
    for (const part of parts) delivery.connection.out.bytes(part.bytes)
    return undefined
  }
  for (let i = 0; i < parts.length; i++) {
    const sending = sendPart(delivery, parts[i]!)
    if (sending) return sendRest(delivery, parts, i + 1, sending)
  }
  return undefined
}

/** Whether an answer is nothing but a few bytes: these are copied at once, as they may not last. */
function isShort(parts: readonly AnswerPart[]): parts is readonly Extract<AnswerPart, { type: 'bytes' }>[] {
  let size = 0
  for (const part of parts) {
    if (part.type !== 'bytes') return false
    size += part.bytes.length
  }
  return size <= FRAME_SLACK
}

/** Undefined: sent, and nothing went wrong. */
type Sending = Promise<StoreError | undefined> | undefined

async function sendRest(
  delivery: Delivery,
  parts: readonly AnswerPart[],
  next: number,
  sending: Sending,
): Promise<StoreError | undefined> {
  let failure = await sending
  // A client that takes all of it, and a codec that needs no thread, would leave nobody else a turn.
  const pacer = new Pacer(delivery.signal)
  for (let i = next; i < parts.length; i++) {
    if (pacer.due) await pacer.rest()
    failure = (await sendPart(delivery, parts[i]!)) ?? failure
  }
  return failure
}

function sendPart(delivery: Delivery, part: AnswerPart): Sending {
  if (part.type === 'bytes') return sendBytes(delivery, part.bytes)
  if (part.type === 'piece') return sendPiece(delivery, part)
  if (part.type === 'framed') return sendFramed(delivery, part)
  if (part.type === 'steps') return sendSteps(delivery, part.delta)
  return sendPlain(delivery, part.from, part.length)
}

function sendBytes({ connection, loan }: Delivery, bytes: Uint8Array): Sending {
  return connection.append(bytes, loan?.share()) as Sending
}

/** Whether a part of an answer is read from content that was opened for it. */
export function needsContent(tree: Tree, { type }: AnswerPart): boolean {
  return type === 'steps' || (type === 'plain' && !tree.copy)
}

/** Reads straight into the frame that goes out. */
function sendPlain(delivery: Delivery, start: number, length: number): Sending {
  for (let done = 0; done < length; ) {
    const batch = sendBatch(delivery, start + done, length - done)
    done += batch.length
    const waiting = batch.reading ?? delivery.connection.flow()
    if (waiting) return sendMore(delivery, batch, waiting, start + done, length - done)
  }
  return undefined
}

/** The rest of what `sendPlain` has begun, when a batch of it has to be waited for. */
async function sendMore(
  delivery: Delivery,
  begun: Batch,
  waiting: Promise<void>,
  start: number,
  length: number,
): Promise<StoreError | undefined> {
  const { connection, signal } = delivery
  // What waits for the client alone says what is wrong with it by itself.
  let failure = begun.reading ? await orZeros(begun.reading, begun.targets) : void (await waiting)
  await connection.flow()
  signal.throwIfAborted()
  for (let done = 0; done < length; ) {
    const batch = sendBatch(delivery, start + done, length - done)
    done += batch.length
    if (batch.reading) failure = (await orZeros(batch.reading, batch.targets)) ?? failure
    const flowing = connection.flow()
    if (flowing) await flowing
    signal.throwIfAborted()
  }
  return failure
}

/** Tokens that begin to be read into the frame: as many as there is room for, and one at least. */
interface Batch {
  readonly length: number
  readonly targets: readonly Uint8Array[]
  /** Undefined: it is done. */
  readonly reading: Promise<void> | undefined
}

function sendBatch(delivery: Delivery, start: number, most: number): Batch {
  const { out } = delivery.connection
  const room = Math.max(LITERAL, FRAME_SIZE - out.length)
  const length = Math.min(most, Math.floor(room / LITERAL) * LITERAL)
  const targets = placeTokens(out, length)
  return { length, targets, reading: read(delivery, targets, start) }
}

/** The heads of so much literal data. @returns where the data belongs: places that don't move any more. */
function placeTokens(out: ByteWriter, length: number): Buffer[] {
  const targets: Buffer[] = []
  const whole = out.space(length + 4 * Math.ceil(length / LITERAL))
  for (let filled = 0, at = 0; filled < length; ) {
    const piece = Math.min(LITERAL, length - filled)
    whole.writeInt32LE(piece, at)
    targets.push(whole.subarray(at + 4, at + 4 + piece))
    at += 4 + piece
    filled += piece
  }
  return targets
}

/** Blocks and literal data of an answer that has too many of them to be put together first. */
async function sendSteps(delivery: Delivery, delta: readonly number[]): Promise<StoreError | undefined> {
  const { connection, question, signal } = delivery
  const { out } = connection
  const squeeze = quickSqueeze(question.manner.compression)
  const runs = new BlockRuns()
  const pacer = new Pacer(signal)
  let failure: StoreError | undefined
  let position = 0
  for (const step of delta) {
    if (pacer.due) await pacer.rest()
    if (step < 0) {
      if (squeeze) runs.add(out, -step - 1)
      else out.i32(step)
      position += blockLengthOf(question.sums!.head, -step - 1)
      await connection.flow()
      continue
    }
    if (squeeze) {
      runs.flush(out)
      for (let done = 0; done < step; ) {
        const piece = Buffer.allocUnsafe(Math.min(MAX_PIECE, step - done))
        failure = (await orZeros(read(delivery, [piece], position + done), [piece])) ?? failure
        done += piece.length
        for (const part of await squeeze(piece, done === step)) encodeChunks(out, part)
        await connection.flow()
      }
    } else {
      failure = (await sendPlain(delivery, position, step)) ?? failure
    }
    position += step
  }
  if (squeeze) runs.end(out)
  else out.i32(0)
  return failure
}

async function sendPiece(
  { connection, answers, question, signal }: Delivery,
  part: PiecePart,
): Promise<StoreError | undefined> {
  let bytes: Uint8Array
  let failure: StoreError | undefined
  const loan = new Loan(FOR_PIECE)
  try {
    const found = answers.piece(question, part, loan.take, signal)
    bytes = found instanceof Promise ? await found : found
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
    failure = error
    bytes = await answers.zeros(question, part)
  }
  await connection.append(bytes, loan.share())
  loan.giveBack()
  signal.throwIfAborted()
  return failure
}

/** A piece of a frame; where it is not kept any more the frame ends, and the rest of the file goes by itself. */
async function sendFramed(delivery: Delivery, part: FramedPart): Promise<StoreError | undefined> {
  const { connection, answers, question, signal } = delivery
  const frames = delivery.frames!
  const loan = new Loan(FOR_PIECE)
  const bytes = frames.isLost ? undefined : await answers.framedPiece(part, loan.take)
  if (!bytes) {
    if (frames.isOpen) connection.out.bytes(END_OF_FRAME)
    frames.lose()
    return sendPiece(delivery, answers.loosePiece(question, part))
  }
  frames.opened()
  await connection.append(bytes, loan.share())
  loan.giveBack()
  signal.throwIfAborted()
  return undefined
}

/** Fills the targets; at once when the bytes are in memory. */
function read(
  { question: { tree, node }, content }: Delivery,
  targets: readonly Uint8Array[],
  position: number,
): Promise<void> | undefined {
  return content ? content.read(targets, position) : tree.copy!(node, position, targets)
}

/** What goes wrong with the store while that is waited for; the targets are zeros then. */
async function orZeros(
  waiting: Promise<void> | undefined,
  targets: readonly Uint8Array[],
): Promise<StoreError | undefined> {
  try {
    await waiting
    return undefined
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
    for (const target of targets) target.fill(0)
    return error
  }
}
