/**
 * Whatever a client says, a session ends as one of its documented outcomes, soon after the client has
 * nothing more to say, in bounded memory and without keeping others from their turn.
 *
 * First come the conversations of the corpus, then new ones for a while, in a process of their own
 * (test/support/wire-fuzzer.ts). FUZZ_SECONDS says for how long at least (script/fuzz): on a slow machine it
 * takes longer until enough were tried. FUZZ_SEED repeats a run and FUZZ_CASE one conversation of it. What was reached is measured: damage that no longer gets past the
 * greeting would prove nothing.
 */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { NEXT, type State } from '../../src/rsync/session.ts'
import { corpus } from '../support/corpus.ts'
import { coverageOf } from '../support/coverage.ts'
import { ENOUGH, type FuzzSummary } from '../support/fuzz-summary.ts'
import { asSocket, byteByByte, HostileServer, STALL_MS, say, text } from '../support/hostile.ts'
import { run } from '../support/processes.ts'
import { noise, randomOf, seedOfRun } from '../support/random.ts'
import { makeScratch } from '../support/scratch.ts'
import { vectorTrees } from '../support/vectors.ts'

const SECONDS = Number(process.env.FUZZ_SECONDS ?? 10)
const FUZZER = fileURLToPath(new URL('../support/wire-fuzzer.ts', import.meta.url))
/**
 * What peak memory may grow by, between the first cases and the last one: a search may take 50 MB for a delta, twice
 * while it changes threads, beside 16 MiB of sums, and garbage of the cases before.
 */
const MAX_GROWTH = 450e6
/** Objects on the heap; a leak of a few kilobytes for each conversation runs into it. */
const MAX_HEAP_MB = 256
/** For what hangs without a turn for anybody: a machine that is very busy takes minutes. */
const PATIENCE_S = 600
/**
 * What one seed reaches is chance, and a busy machine gets through few cases: a run that misses something goes
 * on with other seeds before that counts.
 */
const MOST_ROUNDS = 4
/** More than a round has cases: each has a seed of its own. */
const SEEDS_APART = 1_000_000
const LEAST_WAYS = 60
const FUZZED = 'src/rsync/'
/** A session that begins its turn is ended there by its server alone. */
const NEVER_REFUSED: readonly State[] = ['turn', 'closed']
/** Code that must have run for each file, in percent: what is left out are our own bugs, mostly. */
const REACHED: Readonly<Record<string, number>> = {
  // What goes on in another process: test/handover.
  'session.ts': 85,
  'sender.ts': 90,
  'setup.ts': 90,
  'flist.ts': 90,
  'paths.ts': 90,
  'files-from.ts': 75,
  'filters.ts': 90,
  'wire/arguments.ts': 90,
  'wire/filters.ts': 90,
  'wire/greeting.ts': 85,
  'wire/mux.ts': 90,
  'wire/ndx.ts': 85,
  'wire/sums.ts': 85,
  'wire/xattrs.ts': 80,
  'wire/tokens.ts': 85,
}

const trees = vectorTrees()
const server = new HostileServer(trees)
after(async () => {
  await server.close()
  for (const tree of Object.values(trees)) tree.close()
})

for (const { name, path } of corpus()) {
  test(`corpus: ${name}`, async () => {
    const bytes = readFileSync(path)
    const expected = name.split('--')[0]
    const { report, stalledMs } = await say(server, asSocket(bytes))
    assert.equal(report.outcome, expected, String(report.error))
    assert.ok(stalledMs < STALL_MS, `nobody else had a turn for ${stalledMs} ms`)
    const bitByBit = await say(server, byteByByte(bytes))
    assert.equal(bitByBit.report.outcome, expected, `byte by byte: ${bitByBit.report.error}`)
  })
}

test(`damaged conversations, for ${SECONDS} s`, {
  timeout: MOST_ROUNDS * (SECONDS + PATIENCE_S) * 1000,
}, async (t) => {
  using scratch = makeScratch('fuzz')
  const first = seedOfRun()
  const reached = new Reached(join(scratch.path, 'coverage'))
  let missing: string[] = []
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const seed = first + round * SEEDS_APART
    t.diagnostic(`FUZZ_SEED=${seed}`)
    const summary = await fuzz(seed, join(scratch.path, 'progress'), reached.folder)
    const { cases, outcomes, peakRss, baselineRss } = summary
    const grown = peakRss - baselineRss
    t.diagnostic(`${cases} conversations; others waited ${summary.stalledMs.toFixed(0)} ms at most`)
    t.diagnostic(
      `peak memory ${(peakRss / 1e6).toFixed(0)} MB, ${(grown / 1e6).toFixed(0)} MB of it later on`,
    )
    t.diagnostic(`outcomes: ${Object.entries(outcomes).map(([name, count]) => `${name} ${count}`)}`)
    t.diagnostic(`${summary.ways.length} ways to end`)
    assert.equal(summary.opened, 0, 'files are still open')
    if (process.env.FUZZ_CASE) return
    assert.ok(cases >= ENOUGH, `only ${cases} conversations`)
    assert.ok(grown < MAX_GROWTH, `${grown} bytes more in memory`)
    reached.add(summary)
    missing = reached.missing()
    if (missing.length === 0) break
    t.diagnostic(`not reached so far: ${missing.join('; ')}`)
  }
  for (const line of reached.coverage()) t.diagnostic(line)
  assert.deepEqual(missing, [], 'never reached')
})

/** Runs the fuzzer once. @throws when a conversation did what none may do. */
async function fuzz(seed: number, progress: string, coverage: string): Promise<FuzzSummary> {
  const { code, stdout, stderr } = await run(
    process.execPath,
    [`--max-old-space-size=${MAX_HEAP_MB}`, FUZZER, progress],
    {
      env: {
        ...process.env,
        FUZZ_SEED: String(seed),
        FUZZ_SECONDS: String(SECONDS),
        NODE_V8_COVERAGE: coverage,
      },
      timeoutMs: (SECONDS + PATIENCE_S - 20) * 1000,
    },
  ).catch((error) => {
    throw new Error(`it hangs: ${repeat(seed, lastCase(progress))}`, { cause: error })
  })
  if (stdout === '') assert.fail(`it died (${code}): ${repeat(seed, lastCase(progress))}\n${stderr}`)
  const summary: FuzzSummary = JSON.parse(stdout)
  const { failure } = summary
  if (failure) {
    assert.fail(
      `${repeat(seed, failure.case)}\nits bytes are in ${failure.input}: move them to test/fuzz/corpus ` +
        `when it is mended\n${failure.message}`,
    )
  }
  assert.equal(stderr, '')
  assert.equal(code, 0, repeat(seed, lastCase(progress)))
  return summary
}

/** What all rounds together have reached, and what they should have. */
class Reached {
  readonly folder: string
  readonly #states = new Set<State>()
  readonly #refusedIn = new Set<State>()
  readonly #ways = new Set<string>()
  readonly #outcomes = new Map<string, number>()
  #cases = 0

  /** @param folder where each round leaves its report of coverage. */
  constructor(folder: string) {
    this.folder = folder
  }

  add({ cases, outcomes, states, refusedIn, ways }: FuzzSummary): void {
    this.#cases += cases
    for (const state of states) this.#states.add(state)
    for (const state of refusedIn) this.#refusedIn.add(state)
    for (const way of ways) this.#ways.add(way)
    for (const [name, count] of Object.entries(outcomes))
      this.#outcomes.set(name, (this.#outcomes.get(name) ?? 0) + count)
  }

  /** A line for each thing that should have been reached and was not. */
  missing(): string[] {
    const missing: string[] = []
    for (const name of ['done', 'listed', 'refused', 'peer-error', 'lost']) {
      if ((this.#outcomes.get(name) ?? 0) <= this.#cases / 200)
        missing.push(`too few sessions end as "${name}"`)
    }
    for (const state of Object.keys(NEXT) as State[]) {
      if (state !== 'closed' && !this.#states.has(state)) missing.push(`state "${state}"`)
      if (!NEVER_REFUSED.includes(state) && !this.#refusedIn.has(state))
        missing.push(`a refusal in state "${state}"`)
    }
    if (this.#ways.size <= LEAST_WAYS) missing.push(`only ${this.#ways.size} ways to end`)
    const covered = coverageOf(this.folder, FUZZED)
    for (const [file, least] of Object.entries(REACHED)) {
      const percent = covered.find((one) => one.file === file)?.percent ?? 0
      if (percent < least) missing.push(`${percent.toFixed(1)} % of ${file}`)
    }
    return missing
  }

  coverage(): string[] {
    return coverageOf(this.folder, FUZZED).map(
      ({ file, percent, missing }) =>
        `${file}: ${percent.toFixed(1)} %${missing.length > 0 ? `, not ${missing.join(' ')}` : ''}`,
    )
  }
}

function repeat(seed: number, number: number): string {
  return `FUZZ_SEED=${seed} FUZZ_CASE=${number} script/fuzz session`
}

function lastCase(progress: string): number {
  return globSync(progress).length > 0 ? Number(readFileSync(progress, 'utf8')) : 0
}

test('any bytes at all', async () => {
  const random = randomOf(seedOfRun())
  for (let i = 0; i < 300; i++) {
    const { report } = await say(server, asSocket(noise(random, random(2000))))
    assert.ok(['peer-error', 'lost'].includes(report.outcome))
  }
  const { report } = await say(server, [text('')])
  assert.equal(report.outcome, 'lost')
})
