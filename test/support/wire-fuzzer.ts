/**
 * The fuzzer of the wire, as a process of its own: `node wire-fuzzer.ts PROGRESS`, so that what brings a
 * process down (an exception that nobody catches, memory without end, a loop that never yields) is told by
 * whoever started it, from the number of the case that PROGRESS holds.
 *
 * One case in four is a recorded conversation or one of the corpus, damaged blindly; the others come from
 * the grammar. Prints a summary as JSON at the end. FUZZ_SECONDS, FUZZ_SEED and FUZZ_CASE are its settings;
 * FUZZ_KEEP names a folder for one small example of each way to end that is not there yet.
 */
import assert from 'node:assert/strict'
import { existsSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SessionReport, State } from '../../src/rsync/session.ts'
import { conversation, cut, ending, havoc, mutate, wireOf } from './conversations.ts'
import { corpus, recordings } from './corpus.ts'
import { ENOUGH, type FuzzSummary } from './fuzz-summary.ts'
import { HostileServer, STALL_MS, say } from './hostile.ts'
import { pick, type Random, randomOf, seedOfRun } from './random.ts'
import { vectorTrees } from './vectors.ts'

/**
 * Cases until memory has settled: code is compiled and pools are filled. What is kept for all clients, and what the
 * allocator keeps for threads, goes on filling for some 20,000; a campaign of minutes is measured from there on.
 */
const WARM_UP = Number(process.env.FUZZ_SECONDS ?? 15) > 120 ? 20_000 : 300
/** Longer ones make no handy examples. */
const MAX_KEPT = 2000

const seed = seedOfRun()
const oneCase = process.env.FUZZ_CASE ? Number(process.env.FUZZ_CASE) : undefined
const until = performance.now() + Number(process.env.FUZZ_SECONDS ?? 15) * 1000
const progress = openSync(process.argv[2]!, 'w')
const trees = vectorTrees()
const server = new HostileServer(trees)
const seeds = [...recordings(), ...corpus()].map(({ path }) => readFileSync(path))

const outcomes = new Map<SessionReport['outcome'], number>()
const ways = new Set<string>()
const states = new Set<State>()
const refusedIn = new Set<State>()
const summary = { seed, cases: 0, stalledMs: 0, baselineRss: 0 }
let failure: FuzzSummary['failure']

const more = (): boolean => performance.now() < until || summary.cases < ENOUGH
for (let number = oneCase ?? 0; more(); number++) {
  writeSync(progress, String(number).padEnd(12), 0)
  const random = randomOf(seed + number)
  const bytes = input(random)
  const pieces = cut(random, bytes)
  try {
    const outcome = await say(server, pieces, ending(random, pieces.length))
    const { report } = outcome
    outcomes.set(report.outcome, (outcomes.get(report.outcome) ?? 0) + 1)
    const way = wayOf(outcome.states, report)
    if (!ways.has(way)) keep(bytes, way)
    ways.add(way)
    for (const state of outcome.states) states.add(state)
    if (report.outcome === 'refused' || report.outcome === 'peer-error') refusedIn.add(lastOf(outcome.states))
    summary.stalledMs = Math.max(summary.stalledMs, outcome.stalledMs)
    assert.ok(outcome.stalledMs < STALL_MS, `nobody else had a turn for ${outcome.stalledMs} ms`)
  } catch (error) {
    const kept = join(tmpdir(), `fuzz-${seed}-${number}.client`)
    writeFileSync(kept, bytes)
    failure = { case: number, message: String((error as Error).stack), input: kept }
    break
  }
  summary.cases++
  if (number === (oneCase ?? 0) + WARM_UP) summary.baselineRss = peakRss()
  if (oneCase !== undefined) break
}

// Searches in threads are told to stop when their client is gone; they hold their file until then.
for (let i = 0; i < 500 && server.tree.opened > 0; i++)
  await new Promise((resolve) => setTimeout(resolve, 10))
const result: FuzzSummary = {
  ...summary,
  outcomes: Object.fromEntries(outcomes),
  ways: [...ways],
  states: [...states],
  refusedIn: [...refusedIn],
  peakRss: peakRss(),
  opened: server.tree.opened,
  ...(failure && { failure }),
}
await new Promise((resolve) => process.stdout.write(JSON.stringify(result), resolve))
// The session that failed may never end.
if (failure) process.exit(1)
await server.close()
for (const tree of Object.values(trees)) tree.close()

// ---------------------------------------------------------------------------------------------------

function input(random: Random): Buffer {
  if (random(4) === 0) return havoc(random, pick(random, seeds), pick(random, seeds))
  const talk = conversation(random)
  for (let times = random(4); times > 0 && talk.parts.length > 0; times--) mutate(random, talk)
  return wireOf(random, talk)
}

function peakRss(): number {
  return process.resourceUsage().maxRSS * 1024
}

function lastOf(states: ReadonlySet<State>): State {
  return [...states].at(-1) ?? 'greeting'
}

/** What tells one way to end from another: values and names in the error do not. */
function wayOf(states: ReadonlySet<State>, { outcome, error }: SessionReport): string {
  const what = String(error ?? '')
    .replace(/^\w+: (?:ERROR: )?/, '')
    .replace(/(the client has|no such kind of rule|does not go with).*/s, '$1')
    .replace(/the data of .*,/s, 'the data of something,')
    .replaceAll(/-?\d+|"[^"]*"|'[^']*'/g, '_')
  return `${outcome}--${lastOf(states)} ${what.slice(0, 60)}`
}

/** Writes an example of a way to end into the corpus: by its outcome, which a replay must have, too. */
function keep(bytes: Buffer, way: string): void {
  const folder = process.env.FUZZ_KEEP
  if (!folder || bytes.length > MAX_KEPT || way.startsWith('lost')) return
  const name = way
    .toLowerCase()
    .replaceAll(/[^a-z-]+/g, '-')
    .replace(/-$/, '')
  const path = join(folder, `${name}.client`)
  if (!existsSync(path)) writeFileSync(path, bytes)
}
