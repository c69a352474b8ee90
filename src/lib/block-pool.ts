/**
 * Blocks of files in memory, shared by everybody who reads: fifty clients that ask for the same bytes at
 * about the same time cost one read and one copy in memory. Bounded; the block used longest ago goes first.
 */

let lastId = 0

/** A name for a file of a pool. */
export function nextFileId(): number {
  return ++lastId
}

/** A file that blocks are read from. Its bytes never change, but more may be appended. */
export interface BlockFile {
  /** From `nextFileId`: unlike that of any other file, for as long as the process lives. */
  readonly id: number
  /** Fills as much of `target` as there is from `position` on; resolves with the number of bytes. */
  read(target: Uint8Array, position: number): Promise<number>
}

/** Large enough that a system call is worth it, small enough that a scattered reader wastes little. */
const BLOCK = 64 * 1024
/** Blocks read at a stretch: more once a reader goes from one to the next, and more for one who goes on. */
const READ_AHEAD = [1, 4, 16] as const
const MOST_AHEAD = 16
/** File offsets reach 2^20 blocks (64 GiB); the id takes the bits above. */
const BLOCKS_PER_FILE = 2 ** 20

export class BlockPool {
  readonly #most: number
  /** In the order of use. A block at the end of a file that still grows may be short. */
  readonly #blocks = new Map<number, Buffer>()
  readonly #loading = new Map<number, Promise<void>>()

  /** @param bytes the most that blocks take in memory. */
  constructor(bytes: number) {
    this.#most = Math.max(MOST_AHEAD, Math.floor(bytes / BLOCK))
  }

  /**
   * The bytes from `offset` on as slices that must not be changed; at once when all of them are in memory.
   * @throws RangeError when the file ends before them; what the file throws.
   */
  read(file: BlockFile, offset: number, length: number): Uint8Array[] | Promise<Uint8Array[]> {
    return this.#held(file, offset, length) ?? this.#load(file, offset, length)
  }

  /** Gives the memory of a file back. */
  forget(file: BlockFile): void {
    const first = file.id * BLOCKS_PER_FILE
    for (const key of this.#blocks.keys()) {
      if (key >= first && key < first + BLOCKS_PER_FILE) this.#blocks.delete(key)
    }
  }

  /** All slices, or undefined when one is missing. */
  #held(file: BlockFile, offset: number, length: number): Uint8Array[] | undefined {
    const slices: Uint8Array[] = []
    for (let at = offset; at < offset + length; ) {
      const number = Math.floor(at / BLOCK)
      const key = file.id * BLOCKS_PER_FILE + number
      const block = this.#blocks.get(key)
      const start = at - number * BLOCK
      const end = Math.min(BLOCK, start + offset + length - at)
      if (!block || block.length < end) return undefined
      this.#blocks.delete(key)
      this.#blocks.set(key, block)
      slices.push(block.subarray(start, end))
      at += end - start
    }
    return slices
  }

  /** Block by block, so that a long range needs no more memory than the slices that are handed out. */
  async #load(file: BlockFile, offset: number, length: number): Promise<Uint8Array[]> {
    const slices: Uint8Array[] = []
    for (let at = offset; at < offset + length; ) {
      const number = Math.floor(at / BLOCK)
      const end = Math.min((number + 1) * BLOCK, offset + length)
      let piece = this.#held(file, at, end - at)
      if (!piece) {
        await this.#fill(file, number, end - number * BLOCK)
        piece = this.#held(file, at, end - at)
        if (!piece) throw new RangeError(`a file ends before byte ${end}`)
      }
      slices.push(...piece)
      at = end
    }
    return slices
  }

  /** Reads a block, and some behind it for who goes on from the one before. */
  async #fill(file: BlockFile, number: number, needed: number): Promise<void> {
    const key = file.id * BLOCKS_PER_FILE + number
    const loading = this.#loading.get(key)
    if (loading) {
      await loading
      if ((this.#blocks.get(key)?.length ?? 0) >= needed) return
    }
    const goesOn = this.#blocks.has(key - 1) ? (this.#blocks.has(key - READ_AHEAD[1]) ? 2 : 1) : 0
    const count = READ_AHEAD[goesOn]
    const load = this.#readBlocks(file, number, count)
    for (let i = 0; i < count; i++) this.#loading.set(key + i, load)
    try {
      await load
    } finally {
      for (let i = 0; i < count; i++) if (this.#loading.get(key + i) === load) this.#loading.delete(key + i)
    }
  }

  async #readBlocks(file: BlockFile, number: number, count: number): Promise<void> {
    const buffer = Buffer.allocUnsafeSlow(count * BLOCK)
    const got = await file.read(buffer, number * BLOCK)
    for (let i = 0; i < count && i * BLOCK < got; i++) {
      const key = file.id * BLOCKS_PER_FILE + number + i
      this.#blocks.delete(key)
      this.#blocks.set(key, buffer.subarray(i * BLOCK, Math.min((i + 1) * BLOCK, got)))
    }
    for (const key of this.#blocks.keys()) {
      if (this.#blocks.size <= this.#most) break
      this.#blocks.delete(key)
    }
  }
}
