/**
 * How an answer is kept: what the server says about one file, from behind the echoed sum head to the last
 * byte of the digest. All of that is the same for every client that asks the same question
 * (docs/rsync-protocol.md, section 11). Not of the wire itself, but of bytes that go there.
 *
 *     version   u8
 *     complete  u8       1 when nothing can be made smaller by more work
 *     matched   varlong  bytes of the file that are blocks of the basis
 *     literal   varlong  all others
 *     parts:
 *       0x01 length bytes          goes out as it is
 *       0x02 from length           this range of the file as plain literal tokens
 *       0x03 from length last history key
 *                                  this range compressed: the record under the key, or worked out again; history
 *                                  says how many bytes before it the client's decoder has
 *       0x04 from length key       this range, compressed in a frame that goes on: the record under the key
 *
 * Lengths and offsets are LEB128 of up to 53 bits.
 */
import { ByteWriter } from '../../lib/byte-writer.ts'

export type AnswerPart =
  | { type: 'bytes'; bytes: Uint8Array }
  | { type: 'plain'; from: number; length: number }
  | { type: 'piece'; from: number; length: number; last: boolean; history: number; key: Uint8Array }
  /** Of a frame that goes on over several files (frames.ts). */
  | { type: 'framed'; from: number; length: number; key: Uint8Array }
  /** The numbers of a delta (delta/match.ts), to be said one after the other. Such an answer is not kept. */
  | { type: 'steps'; delta: readonly number[] }

export interface Answer {
  complete: boolean
  matched: number
  literal: number
  parts: readonly AnswerPart[]
}

const VERSION = 2
const BYTES = 0x01
const PLAIN = 0x02
const PIECE = 0x03
const FRAMED = 0x04
const PIECE_KEY = 16
/** Of an answer, or one of its parts, but for bytes that go out as they are: four numbers, a key, and more. */
const MOST_HEAD = 50

/** @param head goes before it. */
export function encodeAnswer(answer: Answer, head: Uint8Array = new Uint8Array()): Buffer {
  let size = head.length + MOST_HEAD
  for (const part of answer.parts) size += MOST_HEAD + (part.type === 'bytes' ? part.bytes.length : 0)
  const out = new ByteWriter(size)
  out.bytes(head)
  out.u8(VERSION)
  out.u8(answer.complete ? 1 : 0)
  putLeb(out, answer.matched)
  putLeb(out, answer.literal)
  for (const part of answer.parts) {
    if (part.type === 'steps') throw new Error('an answer that is said step by step is not kept')
    if (part.type === 'bytes') {
      out.u8(BYTES)
      putLeb(out, part.bytes.length)
      out.bytes(part.bytes)
      continue
    }
    out.u8(part.type === 'plain' ? PLAIN : part.type === 'piece' ? PIECE : FRAMED)
    putLeb(out, part.from)
    putLeb(out, part.length)
    if (part.type === 'plain') continue
    if (part.type === 'piece') {
      out.u8(part.last ? 1 : 0)
      putLeb(out, part.history)
    }
    out.bytes(part.key.subarray(0, PIECE_KEY))
  }
  return out.detach(0).bytes
}

/** Undefined for what another version kept: it is worked out again. The bytes were checked by their keeper. */
export function decodeAnswer(record: Uint8Array): Answer | undefined {
  if (record[0] !== VERSION) return undefined
  const reader = new Reader(record, 2)
  const complete = record[1] === 1
  const matched = reader.leb()
  const literal = reader.leb()
  const parts: AnswerPart[] = []
  while (reader.at < record.length) {
    const type = reader.u8()
    if (type === BYTES) {
      parts.push({ type: 'bytes', bytes: reader.bytes(reader.leb()) })
    } else if (type === PLAIN) {
      parts.push({ type: 'plain', from: reader.leb(), length: reader.leb() })
    } else if (type === PIECE) {
      const from = reader.leb()
      const length = reader.leb()
      const last = reader.u8() === 1
      const history = reader.leb()
      parts.push({ type: 'piece', from, length, last, history, key: reader.bytes(PIECE_KEY) })
    } else if (type === FRAMED) {
      parts.push({ type: 'framed', from: reader.leb(), length: reader.leb(), key: reader.bytes(PIECE_KEY) })
    } else {
      return undefined
    }
  }
  return reader.at === record.length ? { complete, matched, literal, parts } : undefined
}

function putLeb(out: ByteWriter, value: number): void {
  let rest = value
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) out.u8((rest % 0x80) | 0x80)
  out.u8(rest)
}

class Reader {
  readonly #bytes: Uint8Array
  at: number

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes
    this.at = at
  }

  u8(): number {
    return this.#bytes[this.at++] ?? 0
  }

  leb(): number {
    let value = 0
    for (let factor = 1; ; factor *= 0x80) {
      const byte = this.u8()
      value += (byte & 0x7f) * factor
      if (byte < 0x80) return value
    }
  }

  bytes(length: number): Uint8Array {
    this.at += length
    return this.#bytes.subarray(this.at - length, this.at)
  }
}
