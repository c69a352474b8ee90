/**
 * Blocks of files in memory, shared by everybody who reads: fifty clients that ask for the same bytes at
 * about the same time cost one read and one copy in memory. The memory is taken once and used again, the
 * block used longest ago first: what comes and goes in large pieces keeps the garbage collector busy.
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
  /** Fills the targets, one after the other, from `position` on. @returns how many bytes there were. */
  read(targets: readonly Uint8Array[], position: number): Promise<number>
  /** The same at once, where that is quick; undefined where it is not. */
  readNow?(targets: readonly Uint8Array[], position: number): number | undefined
}

/** Large enough that a system call is worth it, small enough that a scattered reader wastes little. */
const BLOCK = 64 * 1024
/** Blocks read at a stretch: more once a reader goes from one to the next, and more for one who goes on. */
const READ_AHEAD = [1, 4, 16] as const
/** Blocks whose memory is taken at a time. */
const BLOCKS_TAKEN = 16
/** File offsets reach 2^20 blocks (64 GiB); the id takes the bits above. */
const BLOCKS_PER_FILE = 2 ** 20

/** A block that holds something. At the end of a file that still grows it may be short. */
interface Block {
  memory: Buffer
  length: number
}

export class BlockPool {
  /** In the order of use. */
  readonly #blocks = new Map<number, Block>()
  readonly #loading = new Map<number, Promise<void>>()
  readonly #free: Buffer[] = []
  /** Memory that was not taken yet. */
  #untaken: number

  /** @param bytes the most memory that blocks take. It is taken when it is needed. */
  constructor(bytes: number) {
    this.#untaken = Math.max(1, Math.floor(bytes / BLOCK))
  }

  /**
   * Copies what the file holds at `offset` into `target`: at once when it is in memory, ours or the system's, and
   * then there is nothing to wait for.
   * @throws RangeError when the file ends too early; what the file throws.
   */
  copy(file: BlockFile, offset: number, target: Uint8Array): Promise<void> | undefined {
    const done = this.#copyAtOnce(file, offset, target)
    return done === target.length ? undefined : this.#copyLater(file, offset, target, done)
  }

  /** The same if it can be done at once. @returns whether it was; nothing is done later. */
  copyNow(file: BlockFile, offset: number, target: Uint8Array): boolean {
    return this.#copyAtOnce(file, offset, target) === target.length
  }

  /** @returns how many bytes could be copied, from the first on. */
  #copyAtOnce(file: BlockFile, offset: number, target: Uint8Array): number {
    let done = this.#copyHeld(file, offset, target)
    while (done < target.length) {
      const number = Math.floor((offset + done) / BLOCK)
      const needed = Math.min(BLOCK, offset + target.length - number * BLOCK)
      if (!this.#fillNow(file, number, needed)) break
      done += this.#copyHeld(file, offset + done, target.subarray(done))
    }
    return done
  }

  /** Gives the memory of a file back. */
  forget(file: BlockFile): void {
    const first = file.id * BLOCKS_PER_FILE
    for (const [key, block] of this.#blocks) {
      if (key < first || key >= first + BLOCKS_PER_FILE) continue
      this.#blocks.delete(key)
      this.#free.push(block.memory)
    }
  }

  /** @returns how many bytes could be copied, from the first on. */
  #copyHeld(file: BlockFile, offset: number, target: Uint8Array): number {
    let done = 0
    while (done < target.length) {
      const number = Math.floor((offset + done) / BLOCK)
      const key = file.id * BLOCKS_PER_FILE + number
      const block = this.#blocks.get(key)
      const start = offset + done - number * BLOCK
      const end = Math.min(BLOCK, start + target.length - done)
      if (!block || block.length < end) return done
      this.#blocks.delete(key)
      this.#blocks.set(key, block)
      block.memory.copy(target, done, start, end)
      done += end - start
    }
    return done
  }

  async #copyLater(file: BlockFile, offset: number, target: Uint8Array, from: number): Promise<void> {
    for (let done = from; done < target.length; ) {
      const number = Math.floor((offset + done) / BLOCK)
      const end = Math.min((number + 1) * BLOCK, offset + target.length)
      const rest = target.subarray(done, end - offset)
      await this.#fill(file, number, end - number * BLOCK)
      // What was read may have had to make room again while we waited: then it is read once more, for us.
      if (this.#copyHeld(file, offset + done, rest) < rest.length) {
        const got = await file.read([rest], offset + done)
        if (got < rest.length) throw new RangeError(`a file ends before byte ${end}`)
      }
      done = end - offset
    }
  }

  /** Reads a block and some behind it at once. @returns whether so much of it is held now. */
  #fillNow(file: BlockFile, number: number, needed: number): boolean {
    const key = file.id * BLOCKS_PER_FILE + number
    if (!file.readNow || this.#loading.has(key)) return false
    const memory = this.#take(this.#readAhead(key))
    if (memory.length === 0) return false
    let got = 0
    try {
      got = file.readNow(memory, number * BLOCK) ?? 0
    } catch {
      // Who reads in a thread next hears what is wrong.
    }
    this.#enter(file, number, memory, got)
    return (this.#blocks.get(key)?.length ?? 0) >= needed
  }

  /** How many blocks to read from this one on: more for who goes on from the one before. */
  #readAhead(key: number): number {
    const goesOn = this.#blocks.has(key - 1) ? (this.#blocks.has(key - READ_AHEAD[1]) ? 2 : 1) : 0
    return READ_AHEAD[goesOn]
  }

  /** Reads a block, and some behind it. */
  async #fill(file: BlockFile, number: number, needed: number): Promise<void> {
    const key = file.id * BLOCKS_PER_FILE + number
    if ((this.#blocks.get(key)?.length ?? 0) >= needed) return
    const loading = this.#loading.get(key)
    if (loading) {
      // Who reads first hears of what goes wrong; we try it ourselves then.
      await loading.catch(() => {})
      return
    }
    const memory = this.#take(this.#readAhead(key))
    if (memory.length === 0) return
    const load = this.#readBlocks(file, number, memory)
    for (let i = 0; i < memory.length; i++) this.#loading.set(key + i, load)
    try {
      await load
    } finally {
      for (let i = 0; i < memory.length; i++) {
        if (this.#loading.get(key + i) === load) this.#loading.delete(key + i)
      }
    }
  }

  async #readBlocks(file: BlockFile, number: number, memory: readonly Buffer[]): Promise<void> {
    let got = 0
    try {
      got = await file.read(memory, number * BLOCK)
    } finally {
      this.#enter(file, number, memory, got)
    }
  }

  /** Makes blocks of what was read; memory that holds nothing new is free. */
  #enter(file: BlockFile, number: number, memory: readonly Buffer[], got: number): void {
    for (const [i, buffer] of memory.entries()) {
      const length = Math.min(BLOCK, got - i * BLOCK)
      const key = file.id * BLOCKS_PER_FILE + number + i
      const before = this.#blocks.get(key)
      if (length <= (before?.length ?? 0)) {
        this.#free.push(buffer)
        continue
      }
      if (before) this.#free.push(before.memory)
      this.#blocks.delete(key)
      this.#blocks.set(key, { memory: buffer, length })
    }
  }

  /** In large pieces: these come from the system, and leave no holes where small things come and go. */
  #takeMore(): void {
    const count = Math.min(BLOCKS_TAKEN, this.#untaken)
    this.#untaken -= count
    const memory = Buffer.allocUnsafeSlow(count * BLOCK)
    for (let i = 0; i < count; i++) this.#free.push(memory.subarray(i * BLOCK, (i + 1) * BLOCK))
  }

  /** Memory for so many blocks, or for fewer: that of the blocks used longest ago. */
  #take(count: number): Buffer[] {
    const memory: Buffer[] = []
    while (memory.length < count) {
      const buffer = this.#free.pop()
      if (buffer) {
        memory.push(buffer)
      } else if (this.#untaken > 0) {
        this.#takeMore()
      } else {
        const oldest = this.#blocks.entries().next().value
        if (!oldest) break
        this.#blocks.delete(oldest[0])
        memory.push(oldest[1].memory)
      }
    }
    return memory
  }
}
