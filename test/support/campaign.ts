/**
 * A campaign of a fuzzer: inputs by chance for FUZZ_SECONDS, each of which must come out in one of the ways that are
 * meant. FUZZ_SEED and FUZZ_CASE repeat one; an input that comes out otherwise is left in a file, and moves to
 * test/fuzz/corpus when it is mended: what is there is tried first, as it is, and damaged further. FUZZ_KEEP names a
 * folder for small examples of outcomes that nothing there has yet.
 */
import { existsSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { CORPUS } from './corpus.ts'
import { noise, pick, type Random, randomOf, seedOfRun } from './random.ts'

/** Enough for CI, where each commit has its own seed. */
const SECONDS = Number(process.env.FUZZ_SECONDS ?? 5)
/** One input takes this long at most, of the thread's own time. */
const MOST_MS = 5000
/** Examples that are kept: every run tries them all. */
const KEPT = { most: 12, bytes: 4000 }

export interface Campaign {
  /** Files of the corpus end in this. */
  readonly extension: string
  /** Well-formed inputs. */
  readonly seeds: readonly Buffer[]
  /** Words that mean something there. */
  readonly words: readonly string[]
  /** Makes damage pass the first check, as by a checksum that is put right. */
  mend?(input: Buffer, random: Random): Buffer
  /** @returns how it came out, without values; throws when that is none of the ways that are meant. */
  check(input: Buffer): Promise<string> | string
  /** So many kinds of outcome there must be, or the fuzzer sees nothing. */
  readonly leastOutcomes: number
}

export async function campaign(t: TestContext, plan: Campaign): Promise<void> {
  const seed = seedOfRun()
  t.diagnostic(`FUZZ_SEED=${seed}`)
  const kept: Buffer[] = globSync(`${CORPUS}*.${plan.extension}`)
    .sort()
    .map((path) => readFileSync(path))
  const seeds = [...plan.seeds, ...kept]
  const outcomes = new Set<string>()
  const keptOutcomes = new Set<string>()
  const latest = join(tmpdir(), `fuzz-${process.pid}-latest.${plan.extension}`)
  const run = async (input: Buffer, number: number | undefined, which = String(number)): Promise<void> => {
    // For what brings the process down.
    writeFileSync(latest, input)
    const began = performance.now()
    try {
      const outcome = await plan.check(input)
      if (number !== undefined && !outcomes.has(outcome) && !keptOutcomes.has(outcome))
        keep(input, outcome, plan.extension)
      // What was kept says nothing of what the fuzzer still sees.
      if (kept.includes(input)) keptOutcomes.add(outcome)
      else outcomes.add(outcome)
    } catch (error) {
      const path = join(tmpdir(), `fuzz-${seed}-${which}.${plan.extension}`)
      writeFileSync(path, input)
      throw new Error(
        `FUZZ_SEED=${seed} FUZZ_CASE=${which}: its bytes are in ${path}\n${(error as Error).stack}`,
        { cause: error },
      )
    }
    const ms = performance.now() - began
    if (ms > MOST_MS) t.diagnostic(`case ${which} took ${ms.toFixed(0)} ms`)
  }
  for (const [i, input] of seeds.entries()) await run(input, undefined, `seed-${i}`)
  const until = performance.now() + SECONDS * 1000
  const one = process.env.FUZZ_CASE === undefined ? undefined : Number(process.env.FUZZ_CASE)
  let cases = 0
  for (let number = one ?? 0; performance.now() < until; number++, cases++) {
    const random = randomOf(seed + number)
    const damaged = damage(random, pick(random, seeds), pick(random, seeds), plan.words)
    await run(plan.mend && random(4) > 0 ? plan.mend(damaged, random) : damaged, number)
    if (one !== undefined) return
  }
  rmSync(latest)
  t.diagnostic(`${cases} cases, ${outcomes.size} kinds of outcome`)
  if (outcomes.size < plan.leastOutcomes)
    throw new Error(`only ${outcomes.size} kinds of outcome: ${[...outcomes].join('; ')}`)
}

/** Where one is kept by its outcome, what comes out like it is not kept again. */
function keep(input: Buffer, outcome: string, extension: string): void {
  const folder = process.env.FUZZ_KEEP
  if (!folder || input.length > KEPT.bytes || globSync(`${folder}/*.${extension}`).length >= KEPT.most) return
  const name = outcome
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '')
    .slice(0, 70)
  const path = join(folder, `${name}.${extension}`)
  if (!existsSync(path)) writeFileSync(path, input)
}

/** Some of: bytes that are others, pieces cut out, doubled or of another seed, words, numbers at their edges. */
function damage(random: Random, from: Buffer, other: Buffer, words: readonly string[]): Buffer {
  let bytes = Buffer.from(from)
  for (let times = 1 + random(4); times > 0; times--) {
    const at = random(bytes.length + 1)
    const length = random(1 << random(10))
    const put = (piece: Uint8Array, instead = 0): void => {
      bytes = Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at + instead)])
    }
    switch (random(8)) {
      case 0:
        if (bytes.length > 0) bytes[at % bytes.length] = random(256)
        break
      case 1:
        if (bytes.length > 0) bytes[at % bytes.length]! ^= 1 << random(8)
        break
      case 2:
        put(Buffer.of(), length)
        break
      case 3:
        put(bytes.subarray(at, at + length))
        break
      case 4: {
        const there = random(other.length + 1)
        put(other.subarray(there, there + length), random(2) * length)
        break
      }
      case 5:
        put(Buffer.from(pick(random, words), 'latin1'), random(2) * length)
        break
      case 6:
        put(noise(random, Math.min(length, 40)), random(2) * length)
        break
      default: {
        const edge = pick(random, ['00000000', 'ffffffff', 'ffffff7f', '00000080', '01000000', 'ffff0000'])
        put(Buffer.from(edge, 'hex'), 4)
      }
    }
  }
  return random(6) === 0 ? bytes.subarray(0, random(bytes.length + 1)) : bytes
}

/** An error's message without its values. */
export function kindOf(error: unknown): string {
  const { name, message } = error as Error
  return `${name}: ${message
    .split('\n')[0]!
    .replaceAll(/"[^"]*"|'[^']*'|-?\d[\d.,]*|\S*[\\/]\S*/g, '_')
    .slice(0, 70)}`
}
