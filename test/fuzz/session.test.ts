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

const SECONDS = Number(process.env.FUZZ_SECONDS ?? 60)
const FUZZER = fileURLToPath(new URL('../support/wire-fuzzer.ts', import.meta.url))
/** What peak memory may grow by, between the first cases and the last one. */
const MAX_GROWTH = 300e6
/** Objects on the heap; a leak of a few kilobytes for each conversation runs into it. */
const MAX_HEAP_MB = 256
/** For what hangs without a turn for anybody: a machine that is very busy takes minutes. */
const PATIENCE_S = 600
/** A session that begins its turn is ended there by its server alone. */
const NEVER_REFUSED: readonly State[] = ['turn', 'closed']
/** Code that must have run for each file, in percent: what is left out are our own bugs, mostly. */
const REACHED: Readonly<Record<string, number>> = {
  'session.ts': 90,
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

test(`damaged conversations, for ${SECONDS} s`, { timeout: (SECONDS + PATIENCE_S) * 1000 }, async (t) => {
  using scratch = makeScratch('fuzz')
  const progress = join(scratch.path, 'progress')
  const seed = seedOfRun()
  t.diagnostic(`FUZZ_SEED=${seed}`)
  const { code, stdout, stderr } = await run(
    process.execPath,
    [`--max-old-space-size=${MAX_HEAP_MB}`, FUZZER, progress],
    {
      env: {
        ...process.env,
        FUZZ_SEED: String(seed),
        FUZZ_SECONDS: String(SECONDS),
        NODE_V8_COVERAGE: join(scratch.path, 'coverage'),
      },
      timeoutMs: (SECONDS + PATIENCE_S - 20) * 1000,
    },
  ).catch((error) => {
    throw new Error(`it hangs: ${repeat(seed, lastCase(progress))}`, { cause: error })
  })
  if (stdout === '') assert.fail(`it died (${code}): ${repeat(seed, lastCase(progress))}\n${stderr}`)
  const summary: FuzzSummary = JSON.parse(stdout)
  const { cases, outcomes, failure, peakRss, baselineRss } = summary
  if (failure) {
    assert.fail(
      `${repeat(seed, failure.case)}\nits bytes are in ${failure.input}: move them to test/fuzz/corpus ` +
        `when it is mended\n${failure.message}`,
    )
  }
  assert.equal(stderr, '')
  assert.equal(code, 0, repeat(seed, lastCase(progress)))
  const grown = peakRss - baselineRss
  t.diagnostic(`${cases} conversations; others waited ${summary.stalledMs.toFixed(0)} ms at most`)
  t.diagnostic(`peak memory ${(peakRss / 1e6).toFixed(0)} MB, ${(grown / 1e6).toFixed(0)} MB of it later on`)
  t.diagnostic(`outcomes: ${Object.entries(outcomes).map(([name, count]) => `${name} ${count}`)}`)
  t.diagnostic(`${summary.ways} ways to end`)
  assert.equal(summary.opened, 0, 'files are still open')
  if (process.env.FUZZ_CASE) return
  assert.ok(cases >= ENOUGH, `only ${cases} conversations`)
  assert.ok(grown < MAX_GROWTH, `${grown} bytes more in memory`)

  const covered = coverageOf(join(scratch.path, 'coverage'), 'src/rsync/')
  for (const { file, percent, missing } of covered) {
    t.diagnostic(`${file}: ${percent.toFixed(1)} %${missing.length > 0 ? `, not ${missing.join(' ')}` : ''}`)
  }
  for (const outcome of ['done', 'listed', 'refused', 'peer-error', 'lost']) {
    assert.ok((outcomes[outcome] ?? 0) > cases / 200, `too few sessions end as "${outcome}"`)
  }
  const all = Object.keys(NEXT) as State[]
  assert.deepEqual(
    all.filter((state) => state !== 'closed' && !summary.states.includes(state)),
    [],
    'states never reached',
  )
  assert.deepEqual(
    all.filter((state) => !NEVER_REFUSED.includes(state) && !summary.refusedIn.includes(state)),
    [],
    'never refused in',
  )
  assert.ok(summary.ways > 60, `only ${summary.ways} ways to end`)
  for (const [file, least] of Object.entries(REACHED)) {
    const found = covered.find((one) => one.file === file)
    assert.ok(found, `${file} was never loaded`)
    assert.ok(found.percent >= least, `only ${found.percent.toFixed(1)} % of ${file} was reached`)
  }
})

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
