/** Repeatable randomness: measurements of two days must have had the same data. */

/** Numbers in [0, 1) from a seed: mulberry32, which is small and even enough for test data. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** One seed from several numbers: file 17 of build 3 has a sequence of its own. */
export function seedOf(...numbers: readonly number[]): number {
  let hash = 0x811c9dc5 // FNV-1a's start and prime
  for (const number of numbers) {
    hash = Math.imul(hash ^ number, 0x01000193)
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d)
  }
  return hash >>> 0
}
