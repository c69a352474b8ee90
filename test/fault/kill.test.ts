/**
 * kill -9 at random moments of fetch, ingest, publish and evict. Each start after it serves every build
 * that had been visible, intact, and none half made; incoming/ is empty again; the lock is free.
 *
 * Moments are drawn evenly over the time that the work takes, or right behind a change that the test sees
 * on disk: a pack or a build that appears, a build that leaves. UPSERV_SEED repeats a run as far as clocks
 * allow, UPSERV_KILLS says how often.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, watch } from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { SPOOL_SUFFIX } from '../../src/store/paths.ts'
import { buildsOnDisk, bytesOnDisk, Mirror } from '../support/mirror.ts'
import { seededRandom, seedOfRun } from '../support/random.ts'
import { rsyncEnds } from '../support/rsync.ts'
import { randomBytes, SpecWriter, type TreeSpec } from '../support/tree.ts'
import type { Upserv } from '../support/upserv.ts'

const KILLS = Number(process.env.UPSERV_KILLS ?? (process.env.UPSERV_LONG ? 500 : 10))
const SEED = seedOfRun()

const IDS = ['1', '2', '3', '4', '5', '6', '7', '8']
const SUFFIXES = ['tar.gz', 'tar.zst', 'tar.xz'] as const
const FILE_BYTES = 30_000
/** Of each build: half of its files are its own, the others it shares with its neighbours. */
const FILES = 40
/** Four of the builds fit, so that each fetch that comes to its end evicts. */
const BUDGET = 3_400_000
const FILL = 4
/** A download takes about a third of a second. */
const RATE = '3m'
/** A fetch takes about so long, its thread's start included, when nothing else runs. */
const WORK_MS = 1_500
/** Longest wait for a change on disk. */
const CHANGE_MS = 10_000
/** Every so often all held builds are synced and compared, otherwise one. */
const FULL_CHECK_EVERY = 10

/** Of the directory's own files. */
const SMALL_CHANGE = 20_000

/** When the axe falls. */
const MOMENTS = ['any time', 'incoming', 'packs', 'builds', 'removed'] as const

/** Two servers die side by side: each spends much of its time waiting. */
const CHAINS = 2

describe(`kill -9 at ${KILLS} random moments (UPSERV_SEED=${SEED})`, { concurrency: CHAINS }, () => {
  for (let chain = 0; chain < CHAINS; chain++) {
    const kills = Math.ceil(KILLS / CHAINS)
    test(`${kills} of them`, { timeout: 60_000 + kills * 20_000 }, (t) =>
      killAgainAndAgain(t, kills, SEED + chain),
    )
  }
})

async function killAgainAndAgain(t: TestContext, kills: number, seed: number): Promise<void> {
  const random = seededRandom(seed)
  const pick = <T>(choices: readonly T[]): T => choices[Math.floor(random() * choices.length)]!
  await using mirror = new Mirror()
  for (const [n, id] of IDS.entries()) await mirror.publish(id, neighbourTree(n), { suffix: pick(SUFFIXES) })
  await mirror.startNginx(RATE)
  const start = (): Promise<Upserv> => mirror.startUpserv({ budget: `${BUDGET}` })

  const contents = new Map<string, string>()
  const struck: Record<string, number> = {}
  let [came, left] = [0, 0]
  /** What had been held at the start of the round before. */
  let held: string[] = []
  for (let round = 0; round < kills; round++) {
    const before = round === 0 ? [] : buildsOnDisk(mirror.data)
    const upserv = await start()
    try {
      // What was visible when it died is what it serves now: no more, no less.
      assert.deepEqual(await listed(upserv), before)
      // Those that it died over are the likeliest to be damaged.
      const few = [
        ...new Set([
          ...before.filter((id) => !held.includes(id)),
          ...(before.length > 0 ? [pick(before)] : []),
        ]),
      ]
      await check(mirror, upserv, before, contents, round % FULL_CHECK_EVERY === 0 ? before : few)
      if (round === 0) for (const id of IDS.slice(0, FILL)) await mirror.assertServes(upserv, id)
      const moment = await strike(mirror, upserv, random, pick)
      struck[moment] = (struck[moment] ?? 0) + 1
    } catch (error) {
      t.diagnostic(`in round ${round}: ${upserv.process.stderr}`)
      throw error
    }
    held = before
    const after = buildsOnDisk(mirror.data)
    if (round > 0) came += after.filter((id) => !before.includes(id)).length
    left += before.filter((id) => !after.includes(id)).length
  }
  t.diagnostic(`struck at ${JSON.stringify(struck)}; ${came} builds came and ${left} left meanwhile`)
  assert.ok(came > kills / 10 && left > kills / 10, 'too little happens for the test to mean something')

  // At the end everything works as if nothing had been.
  const upserv = await start()
  for (const id of IDS) await mirror.assertServes(upserv, id)
  assert.deepEqual(mirror.incoming(), [])
  await upserv.stop()
  assert.ok(bytesOnDisk(mirror.data) <= BUDGET + SMALL_CHANGE, `${bytesOnDisk(mirror.data)} bytes`)
  assert.doesNotMatch(upserv.process.stderr, /"level":(?:50|60)/)
}

/** Starts work, waits for a moment and kills. */
async function strike(
  mirror: Mirror,
  upserv: Upserv,
  random: () => number,
  pick: <T>(choices: readonly T[]) => T,
): Promise<string> {
  const held = buildsOnDisk(mirror.data)
  const missing = IDS.filter((id) => !held.includes(id))
  const clients = [pick(missing), pick(missing)].map((id) => mirror.client(upserv, id).client)
  const moment = pick(MOMENTS)
  if (moment === 'any time') await sleep(random() * WORK_MS)
  else if (moment === 'removed') await changeIn(mirror, 'incoming', (name) => name.endsWith('.removed'))
  else await changeIn(mirror, moment, () => true)
  // Right behind it, or a little later: syncs and renames are quick.
  if (moment !== 'any time') await sleep(random() < 0.5 ? 0 : random() * 30)
  await upserv.kill9()
  for (const client of clients) {
    client.kill()
    await client.ended
  }
  return moment
}

/** Waits until something changes in a directory of the data directory, for a while. */
async function changeIn(mirror: Mirror, directory: string, which: (name: string) => boolean): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, CHANGE_MS)
  const watcher = watch(join(mirror.data, directory), (_, name) => {
    if (which(name ?? '')) resolve()
  })
  await promise
  watcher.close()
  clearTimeout(timer)
}

/** Every held build by its `contents`, some by a sync of everything. */
async function check(
  mirror: Mirror,
  upserv: Upserv,
  held: readonly string[],
  contents: Map<string, string>,
  synced: readonly string[],
): Promise<void> {
  for (const id of held) {
    const names = readdirSync(join(mirror.data, 'builds', id)).sort()
    assert.deepEqual(names, ['accessed', 'build.json', 'contents', 'manifest'], `build ${id}`)
    const text = readFileSync(join(mirror.data, 'builds', id, 'contents'), 'latin1')
    assert.equal(text, contents.get(id) ?? text, `the contents of build ${id} are not what they were`)
    contents.set(id, text)
  }
  for (const id of synced) await mirror.assertServes(upserv, id)
  const leftovers = readdirSync(join(mirror.data, 'incoming')).filter((name) => !name.endsWith(SPOOL_SUFFIX))
  assert.deepEqual(leftovers, [], 'incoming/ was not cleaned')
}

/** What a device sees. */
async function listed(upserv: Upserv): Promise<string[]> {
  const { stdout } = await rsyncEnds(0, [`${upserv.url}/`])
  return [...stdout.matchAll(/^build-(\S+)/gm)].map(([, id]) => id!).sort()
}

/** Half of the files of build n are also in build n + 1, so that packs are shared and partly dead. */
function neighbourTree(n: number): TreeSpec {
  const tree = new SpecWriter()
  tree.directory('')
  tree.directory('usr')
  for (let i = 0; i < FILES; i++) {
    tree.file(`usr/file-${i}`, randomBytes((n * FILES) / 2 + i + 1, FILE_BYTES))
  }
  tree.file('version', Buffer.from(`${n}\n`))
  tree.symlink('current', 'version')
  tree.hardlink('usr/hard', 'usr/file-0')
  return tree.spec
}
