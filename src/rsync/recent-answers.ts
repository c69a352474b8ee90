/**
 * Small answers in memory, found by comparing the client's sums with those that led to them. For most files
 * of an update (same content, other time) that is all there is to do: no key to hash, nothing to read.
 *
 * Sums and answers lie side by side in large pieces of memory, so that tens of thousands of them are nothing to
 * the garbage collector. There are two generations: what is found in the old one moves to the young one, and
 * when that is full the old one is forgotten as a whole.
 */
import { asBuffer } from '../lib/bytes.ts'
import type { Tree } from './tree.ts'
import { type Answer, decodeAnswer, encodeAnswer } from './wire/answers.ts'
import type { RawSums } from './wire/sums.ts'

/** What one generation takes, at most, with its tables. */
const GENERATION = 8 * 2 ** 20
/** Memory is taken in pieces of this size. */
const CHUNK = 512 * 1024
/** Larger questions and answers are kept elsewhere: what a fleet asks for in one round must fit. */
const MOST = 2 * 1024
/** Bases of one file that a fleet has: with more of them, those asked for last are kept. */
const VARIANTS = 4
/** Sums up to this length are compared faster by hand than by a call into C++. */
const SHORT = 48

export class RecentAnswers {
  #young = new Generation()
  #old = new Generation()
  /** Changes whenever a table comes or goes. */
  #version = 0
  /** Tables of the session that a manner belongs to, found once. */
  readonly #tables = new WeakMap<object, Tables>()

  /**
   * @param manner the object stands for its name, as long as it is asked of one tree.
   * @param tree its nodes must keep their numbers: see `isNumbered`.
   */
  find(tree: Tree, manner: { name: string }, node: number, sums: RawSums | undefined): Answer | undefined {
    const { young, old } = this.#tablesOf(tree, manner)
    const found = young && this.#young.find(young, node, sums)
    if (found) return decodeAnswer(found)
    const record = old && this.#old.find(old, node, sums)
    if (!record) return undefined
    this.#keep(tree, manner, node, sums, record)
    return decodeAnswer(record)
  }

  /** Takes a complete answer, unless it is large. */
  add(tree: Tree, manner: { name: string }, node: number, sums: RawSums | undefined, answer: Answer): void {
    if (!answer.complete || (sums?.bytes.length ?? 0) + leastSize(answer) > MOST) return
    const { young } = this.#tablesOf(tree, manner)
    if (young && this.#young.find(young, node, sums)) return
    this.#keep(tree, manner, node, sums, encodeAnswer(answer))
  }

  /** Bytes that are taken for all of it. */
  get memory(): number {
    return this.#young.bytes + this.#old.bytes
  }

  /** Forgets what was said about a file: something else is right now. */
  remove(tree: Tree, manner: { name: string }, node: number): void {
    const { young, old } = this.#tablesOf(tree, manner)
    for (const table of [young, old]) if (table) table[node] = NONE
  }

  #keep(
    tree: Tree,
    manner: { name: string },
    node: number,
    sums: RawSums | undefined,
    record: Uint8Array,
  ): void {
    if ((sums?.bytes.length ?? 0) + record.length > MOST) return
    const key = keyOf(tree, manner)
    const isNew = !this.#young.tables.has(key)
    const hasRoom = this.#young.add(key, tree.count, node, sums, record)
    if (!hasRoom) {
      this.#old = this.#young
      this.#young = new Generation()
      this.#young.add(key, tree.count, node, sums, record)
    }
    if (isNew || !hasRoom) this.#version++
  }

  #tablesOf(tree: Tree, manner: { name: string }): Tables {
    const known = this.#tables.get(manner)
    if (known?.tree === tree && known.version === this.#version) return known
    const key = keyOf(tree, manner)
    const [young, old] = [this.#young, this.#old].map(({ tables }) => tables.get(key))
    const tables = { tree, version: this.#version, young, old }
    this.#tables.set(manner, tables)
    return tables
  }
}

/** What an answer takes at least when it is encoded; one that is said step by step can't be. */
function leastSize({ parts }: Answer): number {
  let size = 0
  for (const part of parts)
    size += part.type === 'bytes' ? part.bytes.length : part.type === 'steps' ? MOST + 1 : 1
  return size
}

function keyOf(tree: Tree, manner: { name: string }): string {
  return `${manner.name}\0${tree.key}`
}

interface Tables {
  readonly tree: Tree
  readonly version: number
  readonly young: Table | undefined
  readonly old: Table | undefined
}

/** For each node where its latest entry is, or NONE. */
type Table = Int32Array

const NONE = -1
// An entry: where the next one of the same node is, bytes of sums and of the answer, the sum head; then these.
const [NEXT, SUMS, ANSWER, COUNT, BLOCK, STRONG, REMAINDER, HEADER] = [0, 4, 8, 12, 16, 20, 24, 28]

class Generation {
  readonly tables = new Map<string, Table>()
  readonly #chunks: Buffer[] = []
  /** Of the last chunk. */
  #used = CHUNK
  /** What chunks and tables take. */
  bytes = 0

  /** The answer's bytes: they stay as they are, and hold a chunk. */
  find(table: Table, node: number, sums: RawSums | undefined): Uint8Array | undefined {
    for (let at = table[node]!; at !== NONE; ) {
      const chunk = this.#chunks[Math.floor(at / CHUNK)]!
      const start = at % CHUNK
      if (isOf(chunk, start, sums)) {
        const answer = start + HEADER + chunk.readInt32LE(start + SUMS)
        return chunk.subarray(answer, answer + chunk.readInt32LE(start + ANSWER))
      }
      at = chunk.readInt32LE(start + NEXT)
    }
    return undefined
  }

  /** @returns false when there is no room. */
  add(key: string, nodes: number, node: number, sums: RawSums | undefined, answer: Uint8Array): boolean {
    const length = sums?.bytes.length ?? 0
    const size = HEADER + length + answer.length
    let table = this.tables.get(key)
    const more = (table ? 0 : 4 * nodes) + (this.#used + size > CHUNK ? CHUNK : 0)
    // A single table may be larger than a generation: then nothing of that tree is kept.
    if (this.bytes + more > GENERATION) return 4 * nodes > GENERATION / 2
    this.bytes += more
    if (!table) {
      table = new Int32Array(nodes).fill(NONE)
      this.tables.set(key, table)
    }
    if (this.#used + size > CHUNK) {
      this.#chunks.push(Buffer.allocUnsafeSlow(CHUNK))
      this.#used = 0
    }
    const chunk = this.#chunks.at(-1)!
    const start = this.#used
    this.#used += size
    chunk.writeInt32LE(table[node]!, start + NEXT)
    chunk.writeInt32LE(length, start + SUMS)
    chunk.writeInt32LE(answer.length, start + ANSWER)
    chunk.writeInt32LE(sums?.head.count ?? 0, start + COUNT)
    chunk.writeInt32LE(sums?.head.blockLength ?? 0, start + BLOCK)
    chunk.writeInt32LE(sums?.head.strongLength ?? 0, start + STRONG)
    chunk.writeInt32LE(sums?.head.remainder ?? 0, start + REMAINDER)
    if (sums) chunk.set(sums.bytes, start + HEADER)
    chunk.set(answer, start + HEADER + length)
    table[node] = (this.#chunks.length - 1) * CHUNK + start
    this.#cut(table[node]!)
    return true
  }

  /** Lets go of the entries behind the first few of a chain. */
  #cut(first: number): void {
    let at = first
    for (let passed = 1; at !== NONE; passed++) {
      const chunk = this.#chunks[Math.floor(at / CHUNK)]!
      const next = chunk.readInt32LE((at % CHUNK) + NEXT)
      if (passed === VARIANTS) chunk.writeInt32LE(NONE, (at % CHUNK) + NEXT)
      at = passed === VARIANTS ? NONE : next
    }
  }
}

/** Whether the entry at `start` is of these sums. */
function isOf(chunk: Buffer, start: number, sums: RawSums | undefined): boolean {
  if (!sums) return chunk.readInt32LE(start + COUNT) === 0
  const { head, bytes } = sums
  if (
    chunk.readInt32LE(start + SUMS) !== bytes.length ||
    chunk.readInt32LE(start + COUNT) !== head.count ||
    chunk.readInt32LE(start + BLOCK) !== head.blockLength ||
    chunk.readInt32LE(start + STRONG) !== head.strongLength ||
    chunk.readInt32LE(start + REMAINDER) !== head.remainder
  )
    return false
  const from = start + HEADER
  if (bytes.length > SHORT)
    return chunk.compare(asBuffer(bytes), 0, bytes.length, from, from + bytes.length) === 0
  for (let i = 0; i < bytes.length; i++) if (chunk[from + i] !== bytes[i]) return false
  return true
}
