/**
 * Small answers in memory, found by comparing the client's sums with those that led to them. For most files
 * of an update (same content, other time) that is all there is to do: no key to hash, nothing to read.
 */
import { asBuffer } from '../lib/bytes.ts'
import type { Answer } from './wire/answers.ts'
import type { RawSums } from './wire/sums.ts'

/** What all entries together take, at most. */
const MEMORY = 12 * 2 ** 20
/** An entry beside its sums and its answer's bytes: objects, and the maps' own. */
const ENTRY = 400
/** Larger questions and answers are kept elsewhere. */
const MOST = 4096
/** Bases of one file that a fleet has: more of them take each other's place. */
const VARIANTS = 4

interface Entry {
  sums: RawSums | undefined
  answer: Answer
}

export class RecentAnswers {
  /** By what is the same for all files of a session, then by content; those made last at the end. */
  readonly #manners = new Map<string, Map<string, Entry[]>>()
  #bytes = 0

  find(manner: string, content: string, sums: RawSums | undefined): Answer | undefined {
    return this.#manners
      .get(manner)
      ?.get(content)
      ?.find((entry) => isSame(entry.sums, sums))?.answer
  }

  /** Takes a complete answer, unless it is large. */
  add(manner: string, content: string, sums: RawSums | undefined, answer: Answer): void {
    const size = sizeOf({ sums, answer })
    if (size > MOST || !answer.complete || this.find(manner, content, sums)) return
    if (this.#bytes + size > MEMORY) this.#forget()
    const contents = this.#manners.get(manner) ?? new Map<string, Entry[]>()
    this.#manners.set(manner, contents)
    const entries = contents.get(content) ?? []
    contents.set(content, entries)
    if (entries.push({ sums, answer }) > VARIANTS) this.#bytes -= sizeOf(entries.shift()!)
    this.#bytes += size
  }

  /** Forgets what was said about a content: something else is right now. */
  remove(manner: string, content: string): void {
    const contents = this.#manners.get(manner)
    for (const entry of contents?.get(content) ?? []) this.#bytes -= sizeOf(entry)
    contents?.delete(content)
  }

  /** All of them: what a fleet still asks for is back after one client. */
  #forget(): void {
    this.#manners.clear()
    this.#bytes = 0
  }
}

function isSame(a: RawSums | undefined, b: RawSums | undefined): boolean {
  if (!a || !b) return a === b
  return (
    a.bytes.length === b.bytes.length &&
    a.head.count === b.head.count &&
    a.head.blockLength === b.head.blockLength &&
    a.head.remainder === b.head.remainder &&
    a.head.strongLength === b.head.strongLength &&
    asBuffer(a.bytes).equals(b.bytes)
  )
}

function sizeOf({ sums, answer }: Entry): number {
  let size = ENTRY + (sums?.bytes.length ?? 0)
  for (const part of answer.parts) size += part.type === 'bytes' ? part.bytes.length : 100
  return size
}
