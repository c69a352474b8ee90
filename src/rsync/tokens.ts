/**
 * Sends answers: kept bytes as they are, plain literal data from the store straight into the frame that goes
 * out. docs/rsync-protocol.md, section 8.6.
 */
import { StoreError } from '../errors.ts'
import { Pacer } from '../lib/pacer.ts'
import { type Answers, type PiecePart, type Question, quickSqueeze } from './answers.ts'
import { MAX_PIECE } from './codecs.ts'
import type { Connection } from './connection.ts'
import { FRAME_SIZE } from './slabs.ts'
import type { Content } from './tree.ts'
import type { Answer } from './wire/answers.ts'
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
  signal: AbortSignal
}

/**
 * Everything from behind the sum head to the digest.
 * @returns what went wrong when some bytes could not be read. Zeros took their place, since their number was
 *   announced; the caller must make sure that the client does not believe them.
 * @throws the signal's reason.
 */
export async function sendAnswer(delivery: Delivery, answer: Answer): Promise<StoreError | undefined> {
  let failure: StoreError | undefined
  for (const part of answer.parts) {
    if (part.type === 'bytes') await delivery.connection.append(part.bytes)
    else if (part.type === 'piece') failure = (await sendPiece(delivery, part)) ?? failure
    else if (part.type === 'steps') failure = (await sendSteps(delivery, part.delta)) ?? failure
    else failure = (await sendPlain(delivery, part.from, part.length)) ?? failure
  }
  return failure
}

async function sendPlain(delivery: Delivery, start: number, length: number): Promise<StoreError | undefined> {
  return delivery.question.tree.copy
    ? sendShared(delivery, start, length)
    : sendOpened(delivery, start, length)
}

/** Copies from memory that all clients share: those who ask for the same content cost one read. */
async function sendShared(
  { connection, question, signal }: Delivery,
  start: number,
  length: number,
): Promise<StoreError | undefined> {
  const { tree, node } = question
  const { out } = connection
  let failure: StoreError | undefined
  for (let done = 0; done < length; ) {
    const piece = Math.min(LITERAL, length - done)
    out.i32(piece)
    const target = out.space(piece)
    try {
      const copying = tree.copy!(node, start + done, target)
      if (copying) await copying
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      failure = error
      target.fill(0)
    }
    done += piece
    const flowing = connection.flow()
    if (flowing) {
      await flowing
      signal.throwIfAborted()
    }
  }
  return failure
}

/** Reads straight into the frame that goes out. */
async function sendOpened(
  { connection, content, signal }: Delivery,
  start: number,
  length: number,
): Promise<StoreError | undefined> {
  const { out } = connection
  let failure: StoreError | undefined
  for (let done = 0; done < length; ) {
    const room = Math.max(LITERAL, FRAME_SIZE - out.length)
    const batch = Math.min(length - done, Math.floor(room / LITERAL) * LITERAL)
    const targets: Buffer[] = []
    // One piece of memory for the whole batch: the places of its parts don't move any more.
    const whole = out.space(batch + 4 * Math.ceil(batch / LITERAL))
    for (let filled = 0, at = 0; filled < batch; ) {
      const piece = Math.min(LITERAL, batch - filled)
      whole.writeInt32LE(piece, at)
      targets.push(whole.subarray(at + 4, at + 4 + piece))
      at += 4 + piece
      filled += piece
    }
    failure = (await readOrZero(content!, targets, start + done)) ?? failure
    done += batch
    await connection.flow()
    signal.throwIfAborted()
  }
  return failure
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
        failure = (await readOrZero(delivery.content!, [piece], position + done)) ?? failure
        done += piece.length
        for (const part of await squeeze(piece, done === step)) encodeChunks(out, part)
        await connection.flow()
      }
    } else {
      failure = (await sendOpened(delivery, position, step)) ?? failure
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
  try {
    const found = answers.piece(question, part, signal)
    bytes = found instanceof Promise ? await found : found
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
    failure = error
    bytes = await answers.zeros(question, part)
  }
  await connection.append(bytes)
  signal.throwIfAborted()
  return failure
}

async function readOrZero(
  content: Content,
  targets: Uint8Array[],
  position: number,
): Promise<StoreError | undefined> {
  try {
    await content.read(targets, position)
    return undefined
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
    for (const target of targets) target.fill(0)
    return error
  }
}
