/**
 * Finds the client's blocks in the new file: rsync's algorithm, bounded. docs/rsync-protocol.md, 8.5.
 *
 * At each offset of the new file a rolling weak sum of the next block's length is looked up among the
 * client's blocks; a hit is confirmed by the strong sum. What no block covers becomes literal data. Any
 * mixture that rebuilds the file is right, so every limit here costs bytes at most, never correctness.
 *
 * Plain functions over numbers and arrays, so that a worker thread runs them as they are. The innermost loop
 * is rolling.ts.
 */
import type { SumHead } from '../wire/sums.ts'
import { Rolling } from './rolling.ts'

/** What a client sent about the file that it has. */
export interface BlockSums {
  head: SumHead
  /** Weak sum of each block. */
  weak: Uint32Array
  /** Strong sums, `head.strongLength` bytes each. */
  strong: Uint8Array
}

/** The new file. */
export interface MatchSource {
  readonly size: number
  /** Fills `target` from `position` on. */
  read(target: Uint8Array, position: number): void
}

/**
 * How to rebuild the file, in order: a positive number is so many literal bytes, a negative one, -(k+1),
 * is block k of the basis. (The numbers of the uncompressed token stream.)
 */
export type Delta = number[]

/**
 * Blocks with the same weak sum that are tried at one offset. Images full of blocks that differ but have
 * one weak sum would otherwise be searched for hours.
 */
const MAX_CANDIDATES = 1024
/**
 * For each byte of the new file so many bytes may be hashed, or blocks looked at, in vain; then the search
 * ends. Sums made up so that weak ones are right where strong ones are not would otherwise cost the hash of
 * a whole block at every single offset.
 */
const VAIN_WORK = 32
/** What a strong sum costs beside its bytes, in bytes. */
const HASH_CALL = 512
/** Blocks of equal sums are kept once; only so far down a chain is looked for an equal one. */
const EQUAL_SEARCH_DEPTH = 16
/** Bytes of the new file held in memory beyond one block. */
const WINDOW = 1 << 20

/** The weak sum of a block: bytes count as signed, as rsync sums them. Section 8.4. */
export function weakSum(data: Uint8Array, start: number, end: number): number {
  let s1 = 0
  let s2 = 0
  for (let i = start; i < end; i++) {
    s1 = (s1 + ((data[i]! << 24) >> 24)) | 0
    s2 = (s2 + s1) | 0
  }
  return ((s1 & 0xffff) | (s2 << 16)) >>> 0
}

/**
 * @param strongOf strong sum of a block, at least `sums.head.strongLength` bytes.
 * @param inplace the client overwrites its basis while it receives: a block may only be used where its
 *   old place has not been written over yet (section 8.7).
 */
export function matchBlocks(
  source: MatchSource,
  sums: BlockSums,
  strongOf: (block: Uint8Array) => Uint8Array,
  inplace: boolean,
): Delta {
  const { head } = sums
  const block = head.blockLength
  const last = head.count - 1
  const fullBlocks = head.remainder > 0 ? last : head.count
  const { size } = source
  const delta: Delta = []
  const surviving = inplace ? new Surviving(head) : undefined
  let literalFrom = 0
  let position = 0

  const emit = (k: number, at: number, length: number): void => {
    if (at > literalFrom) delta.push(at - literalFrom)
    delta.push(-(k + 1))
    surviving?.matched(k, at)
    position = at + length
    literalFrom = position
  }

  if (fullBlocks > 0 && size >= block) {
    const rolling = Rolling.create(Math.min(size, WINDOW + 2 * block), filterBits(fullBlocks))
    const table = new BlockTable(sums, fullBlocks, surviving, VAIN_WORK * size, rolling)
    const window = new Window(source, block, rolling.window)
    let expected = -1
    while (position + block <= size && !table.exhausted) {
      window.cover(position)
      const { bytes, base } = window
      // Everything that the window holds is tried before more is read.
      const stop = Math.min(window.end, size) - block - base
      let at = position - base
      let found = -1
      rolling.sum(at, block)
      for (;;) {
        at = rolling.scan(at, stop, block)
        if (at < 0) break
        found = table.find(rolling.weak, bytes, at, expected, base + at, strongOf)
        // The byte that would enter next is not in the window: what comes is summed anew.
        if (found >= 0 || table.exhausted || at === stop) break
        rolling.step(at++, block)
      }
      if (found >= 0) {
        emit(found, base + at, block)
        expected = found + 1
      } else {
        position = base + (at < 0 ? stop : at) + 1
      }
    }
  }

  // A shorter last block can only be the tail of the file.
  const tail = size - head.remainder
  if (head.remainder > 0 && tail >= literalFrom && surviving?.holds(last, tail) !== false) {
    const bytes = new Uint8Array(head.remainder)
    source.read(bytes, tail)
    if (weakSum(bytes, 0, bytes.length) === sums.weak[last] && sameStrong(sums, last, strongOf(bytes))) {
      emit(last, tail, head.remainder)
    }
  }
  if (size > literalFrom) delta.push(size - literalFrom)
  return delta
}

/** So large that few sums pass which no block has, and small enough for the processor's caches. */
function filterBits(blocks: number): number {
  return Math.min(23, Math.max(10, Math.ceil(Math.log2(blocks * 128))))
}

/** A part of the source in memory, moving forward. */
class Window {
  readonly #source: MatchSource
  readonly #block: number
  readonly bytes: Uint8Array
  /** Position in the source of the first and behind the last byte held. */
  base = 0
  end = 0

  /** @param bytes the memory; room for more than one block, unless the source is smaller. */
  constructor(source: MatchSource, block: number, bytes: Uint8Array) {
    this.#source = source
    this.#block = block
    this.bytes = bytes
  }

  /** Makes sure that the block at `position` is held; reads as much more as there is room for. */
  cover(position: number): void {
    if (position >= this.base && position + this.#block <= this.end) return
    const kept = Math.max(0, this.end - position)
    if (kept > 0) this.bytes.copyWithin(0, position - this.base, this.end - this.base)
    this.base = position
    const from = position + kept
    const more = Math.min(this.bytes.length - kept, this.#source.size - from)
    this.#source.read(this.bytes.subarray(kept, kept + more), from)
    this.end = from + more
  }
}

/**
 * Which blocks of a basis that is being written over are still whole (section 8.7): those that begin at
 * or behind the place written to, and those that were matched at exactly their own place before, where
 * they were left as they are.
 */
class Surviving {
  readonly #blockLength: number
  readonly #kept: Uint8Array

  constructor(head: SumHead) {
    this.#blockLength = head.blockLength
    this.#kept = new Uint8Array(head.count)
  }

  holds(block: number, position: number): boolean {
    return block * this.#blockLength >= position || this.#kept[block] === 1
  }

  matched(block: number, position: number): void {
    if (block * this.#blockLength === position) this.#kept[block] = 1
  }
}

/** The client's full-length blocks by weak sum. */
class BlockTable {
  readonly #sums: BlockSums
  readonly #surviving: Surviving | undefined
  readonly #heads: Int32Array
  readonly #next: Int32Array
  readonly #shift: number
  /** What may still be done in vain. */
  #patience: number

  constructor(
    sums: BlockSums,
    count: number,
    surviving: Surviving | undefined,
    patience: number,
    rolling: Rolling,
  ) {
    this.#sums = sums
    this.#surviving = surviving
    this.#patience = patience
    const bits = Math.min(22, Math.ceil(Math.log2(count * 2 + 2)))
    this.#shift = 32 - bits
    this.#heads = new Int32Array(2 ** bits).fill(-1)
    this.#next = new Int32Array(count).fill(-1)
    // Backwards, so that each chain runs from the first block to the last.
    for (let k = count - 1; k >= 0; k--) {
      const slot = this.#slot(sums.weak[k]!)
      // In place, blocks of equal sums differ in where they may be used.
      if (!surviving) this.#dropEqual(slot, k)
      this.#next[k] = this.#heads[slot]!
      this.#heads[slot] = k
      rolling.admit(sums.weak[k]!)
    }
  }

  get exhausted(): boolean {
    return this.#patience < 0
  }

  /** The block that equals the bytes at `at`, or -1. `expected` is tried first, for long runs. */
  find(
    weak: number,
    bytes: Uint8Array,
    at: number,
    expected: number,
    position: number,
    strongOf: (block: Uint8Array) => Uint8Array,
  ): number {
    const sums = this.#sums
    const length = sums.head.blockLength
    const head = this.#heads[this.#slot(weak)]!
    // Nearly always a stranger that the filter let through: no more than this is spent on it.
    if (head < 0) return -1
    let strong: Uint8Array | undefined
    const equals = (k: number): boolean => {
      if (sums.weak[k] !== weak || this.#surviving?.holds(k, position) === false) return false
      strong ??= strongOf(bytes.subarray(at, at + length))
      return sameStrong(sums, k, strong)
    }
    if (this.#surviving) {
      const own = position / length
      if (Number.isInteger(own) && own < this.#next.length && equals(own)) return own
    }
    if (expected >= 0 && expected < this.#next.length && equals(expected)) return expected
    let k = head
    for (let tried = 0; k >= 0 && tried < MAX_CANDIDATES; tried++) {
      if (equals(k)) return k
      this.#patience--
      k = this.#next[k]!
    }
    if (strong) this.#patience -= length + HASH_CALL
    return -1
  }

  #slot(weak: number): number {
    return Math.imul(weak, 0x9e3779b1) >>> this.#shift
  }

  /** Unlinks a later block whose sums equal those of `k`, so that chains of equal blocks stay short. */
  #dropEqual(slot: number, k: number): void {
    const { weak, strong, head } = this.#sums
    let previous = -1
    let depth = 0
    for (
      let j = this.#heads[slot]!;
      j >= 0 && depth < EQUAL_SEARCH_DEPTH;
      previous = j, j = this.#next[j]!, depth++
    ) {
      if (weak[j] !== weak[k]) continue
      const theirs = strong.subarray(k * head.strongLength, (k + 1) * head.strongLength)
      if (!sameStrong(this.#sums, j, theirs)) continue
      if (previous < 0) this.#heads[slot] = this.#next[j]!
      else this.#next[previous] = this.#next[j]!
      return
    }
  }
}

function sameStrong(sums: BlockSums, k: number, strong: Uint8Array): boolean {
  const length = sums.head.strongLength
  const start = k * length
  for (let i = 0; i < length; i++) {
    if (sums.strong[start + i] !== strong[i]) return false
  }
  return true
}
