/**
 * Memory for frames that go out, used again and again: fresh memory costs a page fault for every 4 KiB and
 * hurries the garbage collector, which together is more than all else that sending a file takes.
 */

/** In-band bytes that are collected before they go out. */
export const FRAME_SIZE = 128 * 1024
/** What an item may add before it is looked whether the frame is full. */
export const FRAME_SLACK = 72 * 1024
const FRAME_MEMORY = FRAME_SIZE + FRAME_SLACK
/**
 * Sizes of memory: for a frame, and whatever small files need; for pieces of 1 MiB and what they are compressed to,
 * most of which is far smaller. With each, how many wait for their next use, for all connections together: some 4 MiB
 * of pieces.
 */
const CLASSES: readonly { size: number; most: number; free: Buffer[] }[] = [
  { size: FRAME_MEMORY, most: 64, free: [] },
  { size: 512 * 1024, most: 4, free: [] },
  { size: 1088 * 1024, most: 2, free: [] },
]
/** What is asked for below this stays with the ordinary allocator. */
const SMALL = 4 * 1024

/** Memory for at least so many bytes. */
export function takeMemory(size: number): Buffer {
  const fitting = size < SMALL ? undefined : CLASSES.find((one) => size <= one.size)
  if (!fitting) return Buffer.allocUnsafe(size)
  return fitting.free.pop() ?? Buffer.allocUnsafeSlow(fitting.size)
}

/** What is worth lending: memory is held for as long as the thing is used, whatever its size. */
export interface Lending {
  /** Less is given for good. */
  readonly least: number
  /** For more there is none. */
  readonly most: number
}

/** An answer is held until its whole file is sent. */
export const FOR_ANSWER: Lending = { least: 32 * 1024, most: FRAME_MEMORY }
/** A piece is only written. */
export const FOR_PIECE: Lending = { least: SMALL, most: Number.POSITIVE_INFINITY }

/** Memory for one thing, which goes back when the last of those who read it is done. */
export class Loan {
  readonly #lending: Lending
  #memory: Buffer | undefined
  /** The borrower is one. */
  #readers = 1

  constructor(lending: Lending) {
    this.#lending = lending
  }

  /** To be called once. */
  readonly take = (size: number): Buffer | undefined => {
    const { least, most } = this.#lending
    if (size > most) return undefined
    if (size < least) return Buffer.allocUnsafe(size)
    this.#memory = takeMemory(size)
    return this.#memory
  }

  /** One more reads it. @returns to be called when that one is done. */
  share(): () => void {
    this.#readers++
    return () => this.giveBack()
  }

  /** The borrower is done. */
  giveBack(): void {
    if (--this.#readers === 0 && this.#memory) giveMemory(this.#memory)
  }
}

/**
 * Memory of `size` bytes while `use` runs; nothing that it returns may lie in it. What fails may leave somebody behind
 * who still reads or writes it: then it is not used again.
 */
export async function withMemory<T>(size: number, use: (bytes: Buffer) => T | Promise<T>): Promise<T> {
  const memory = takeMemory(size)
  const result = await use(memory.subarray(0, size))
  giveMemory(memory)
  return result
}

/** Nobody reads or writes `memory` any more. Only what `takeMemory` gave is used again. */
export function giveMemory(memory: Buffer): void {
  const fitting = CLASSES.find(({ size }) => size === memory.length)
  if (fitting && fitting.free.length < fitting.most) fitting.free.push(memory)
}
