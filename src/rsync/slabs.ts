/**
 * Memory for frames that go out, used again and again: fresh memory costs a page fault for every 4 KiB and
 * hurries the garbage collector, which together is more than all else that sending a file takes.
 */

/** In-band bytes that are collected before they go out. */
export const FRAME_SIZE = 128 * 1024
/** A frame, and what an item adds before it is looked whether the frame is full. */
const SLAB = FRAME_SIZE + 40 * 1024
/** What is asked for below this stays with the ordinary allocator. */
const SMALL = 4 * 1024
/** Slabs that wait for their next use, for all connections together. */
const MAX_FREE = 64

const free: Buffer[] = []

/** Memory for at least so many bytes. */
export function takeMemory(size: number): Buffer {
  if (size < SMALL || size > SLAB) return Buffer.allocUnsafe(size)
  return free.pop() ?? Buffer.allocUnsafeSlow(SLAB)
}

/** Nobody reads or writes `memory` any more. */
export function giveMemory(memory: Buffer): void {
  if (memory.length === SLAB && free.length < MAX_FREE) free.push(memory)
}
