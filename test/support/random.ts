/** Chance that can be repeated: everything random in a test comes from one seed, which a failure prints. */

/** A whole number from 0 up to, and not including, `below`. */
export type Random = (below: number) => number

/** CI tries the same cases each time: it judges a change, not the draw. Any number would do. */
const SEED_OF_CI = 20_261_129

/** The seed of this run. A new one each time, but in CI; FUZZ_SEED (or UPSERV_SEED) repeats one. */
export function seedOfRun(): number {
  const given = process.env.FUZZ_SEED ?? process.env.UPSERV_SEED
  if (given) return Number(given)
  return process.env.CI ? SEED_OF_CI : Math.floor(Math.random() * 1_000_000)
}

/** mulberry32: small, and the same everywhere. */
export function randomOf(seed: number): Random {
  let state = seed | 0
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

export function pick<T>(random: Random, from: readonly T[]): T {
  return from[random(from.length)]!
}

/** Up to `most` of them, any of them more than once. */
export function some<T>(random: Random, from: readonly T[], most: number): T[] {
  return Array.from({ length: random(most + 1) }, () => pick(random, from))
}

export function noise(random: Random, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => random(256)))
}
/** Mulberry32: small, and the same everywhere. Numbers from 0 to below 1. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/**
 * Seeds of rounds, for fuzzers that count their cases: one round, or as many as FUZZ_SECONDS take. The first has the
 * seed of the run, so that FUZZ_SEED repeats any of them.
 */
export function* rounds(first: number): Generator<number, void, undefined> {
  const until = performance.now() + Number(process.env.FUZZ_SECONDS ?? 0) * 1000
  let seed = first
  do yield seed++
  while (performance.now() < until)
}
