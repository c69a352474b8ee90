/**
 * A disk that fails at one call, for every call that each of the store's works makes, in every way that
 * disks fail. Whoever asked hears of it in our words; nothing that was promised is lost; nothing stays
 * open; and once the disk works again, so does the store, in the same process and after a kill -9.
 *
 * UPSERV_LONG plays every way of failing at every call; otherwise each call fails in a few ways, drawn
 * with UPSERV_SEED.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { BuildEvictor } from '../../src/build/evictor.ts'
import { runFetchJob } from '../../src/build/fetch-job.ts'
import { UpservError } from '../../src/errors.ts'
import { generateContents } from '../../src/store/contents.ts'
import { MemoryDisk } from '../support/memory-disk.ts'
import { FATES } from '../support/power-cut.ts'
import { seededRandom, seedOfRun } from '../support/random.ts'
import {
  assertCounted,
  assertIntact,
  assertKeeps,
  assertSurvived,
  BUILDS,
  Keeper,
  openStore,
  Promises,
} from '../support/store-model.ts'
import { END_MARKER, tarHeader } from '../support/tar-builder.ts'
import { buildInfo, ENDLESS_ROOM, readBuild, temporaryDirectory } from '../support/trees.ts'
import { changesDisk, type DiskCall, type Verdict, WatchedDisk } from '../support/watched-disk.ts'

const LONG = process.env.UPSERV_LONG !== undefined
const SEED = seedOfRun()
/** In how many ways each call fails in the short form. */
const WAYS_EACH = 2
const ALL = Number.MAX_SAFE_INTEGER

/** What the disk does from the chosen call on: `since` counts calls, 0 is the chosen one. */
interface Way {
  name: string
  verdict: (call: DiskCall, since: number) => Verdict
}

const once = (name: string, verdict: Verdict): Way => ({
  name,
  verdict: (_, since) => (since === 0 ? verdict : undefined),
})
/** Calls that can still be made on a disk that takes nothing more. */
const FREES: ReadonlySet<string> = new Set(['unlink', 'rmdir', 'sync', 'utimes', 'truncate'])

const WAYS: readonly Way[] = [
  once('EIO', { fails: 'EIO' }),
  once('EIO although it was done', { fails: 'EIO', afterwards: true }),
  once('EMFILE', { fails: 'EMFILE' }),
  once('EACCES', { fails: 'EACCES' }),
  once('a short write', 'short'),
  {
    name: 'a disk that is full from here on',
    verdict: (call) => (changesDisk(call) && !FREES.has(call.name) ? { fails: 'ENOSPC' } : undefined),
  },
  {
    name: 'a quota that is used up from here on',
    verdict: (call) => (changesDisk(call) && !FREES.has(call.name) ? { fails: 'EDQUOT' } : undefined),
  },
  {
    name: 'a disk that is read-only from here on',
    verdict: (call) => (changesDisk(call) && call.name !== 'sync' ? { fails: 'EROFS' } : undefined),
  },
  { name: 'a disk that is gone from here on', verdict: () => ({ fails: 'EIO' }) },
]

const scratch = temporaryDirectory()
after(() => scratch.remove())
const ARCHIVE = join(scratch.path, 'c.tar')
writeFileSync(
  ARCHIVE,
  Buffer.concat([
    ...BUILDS.c!.flatMap(({ path, content = '' }) => {
      const padding = Buffer.alloc(-content.length & 511)
      return [
        tarHeader({ name: path, size: content.length, mtime: 1_000_000_000 }),
        Buffer.from(content),
        padding,
      ]
    }),
    END_MARKER,
  ]),
)

/** What the store is asked to do, and may be asked again. */
const WORKS: readonly { name: string; work: (keeper: Keeper) => Promise<void> }[] = [
  { name: 'fetching', work: (keeper) => fetchC(keeper) },
  { name: 'publishing', work: (keeper) => (keeper.store.has('d') ? Promise.resolve() : keeper.put('d')) },
  {
    name: 'evicting',
    work: async (keeper) => {
      if (!keeper.store.has('a')) return
      const evictor = new BuildEvictor(keeper.store, {
        isLeased: () => false,
        removeUnleased: async (id) => {
          await keeper.remove(id)
          return true
        },
      })
      await evictor.evict(3000)
    },
  },
  { name: 'removing', work: (keeper) => (keeper.store.has('a') ? keeper.remove('a') : Promise.resolve()) },
  { name: 'compacting', work: async ({ store }) => void (await store.collect(ALL)) },
  { name: 'pinning', work: (keeper) => keeper.pin('a') },
  { name: 'unpinning', work: (keeper) => keeper.unpin('b') },
  { name: 'touching', work: ({ store }) => store.touch('a') },
  {
    name: 'verifying',
    work: async ({ store }) => void (await store.verify(undefined, () => {}, new AbortController().signal)),
  },
  { name: 'reading', work: async ({ store }) => void (await readBuild(store, 'a')) },
]

/** As a fetch does it, without its thread and its budget. */
async function fetchC({ store, promises }: Keeper): Promise<void> {
  if (store.has('c')) return
  promises.open.add('c')
  const source = {
    name: 'import',
    builds: '^.+$',
    url: pathToFileURL(ARCHIVE).href,
    checksum: undefined,
    contents: undefined,
  }
  const staging = await store.beginIngest('c')
  let used = false
  try {
    const job = {
      id: 'c',
      sources: [source],
      paces: [],
      spentMs: [],
      rests: {},
      directory: staging.directory,
      spool: store.paths.spool('c'),
      held: [],
      alone: false,
      known: staging.known.data,
      most: { bytes: Number.POSITIVE_INFINITY, storedBytes: 0, because: '' },
    }
    const { ingest } = await runFetchJob(
      job,
      ENDLESS_ROOM,
      () => {},
      new AbortController().signal,
      async () => undefined,
      store.disk,
    )
    used = true
    await store.publish(staging, ingest, generateContents, buildInfo('c'))
  } finally {
    if (!used) await store.discardIngest(staging)
  }
  promises.open.delete('c')
  promises.held.add('c')
}

/** Holds a and b, the latter pinned, and what is left of d and c. */
async function prepare(): Promise<{ disk: MemoryDisk; promises: Promises }> {
  const disk = new MemoryDisk()
  const keeper = new Keeper(await openStore(disk), new Promises())
  await keeper.put('d')
  await keeper.put('a')
  await keeper.put('b')
  await keeper.pin('b')
  await keeper.remove('d')
  await keeper.store.close()
  // As if all of it had been a while ago.
  return { disk: disk.afterPowerCut(FATES[1]!), promises: keeper.promises }
}

/** Runs `work` with a disk that fails at call `at`; returns how many calls it made. */
async function failAt(
  from: { disk: MemoryDisk; promises: Promises },
  work: (keeper: Keeper) => Promise<void>,
  at: number,
  way: Way,
): Promise<number> {
  const disk = from.disk.killed()
  let calls = 0
  let failing = false
  const problems: string[] = []
  const watched = new WatchedDisk(disk, (call) => {
    if (!failing) return undefined
    const since = calls++ - at
    return since >= 0 ? way.verdict(call, since) : undefined
  })
  const store = await openStore(watched, {
    // Long enough ago for an access to be worth noting.
    now: () => new Date(Date.now() + 3_600_000),
    onProblem: ({ message }) => {
      if (failing) problems.push(message)
      else assert.fail(message)
    },
  })
  await store.leftoversGone()
  await store.marked()
  const keeper = new Keeper(store, new Promises(from.promises))
  failing = true
  try {
    await work(keeper)
  } catch (error) {
    assert.ok(error instanceof UpservError, `it is told as ${(error as Error).stack}`)
  }
  failing = false
  const left = disk.killed()
  const promised = new Promises(keeper.promises)

  // The disk works again: so does the store.
  await assertKeeps(store, keeper.promises)
  await work(keeper)
  await assertKeeps(store, keeper.promises)
  await store.collect(ALL)
  assertCounted(store, disk)
  await assertKeeps(store, keeper.promises)
  await store.close()
  await nextTurn()
  assert.deepEqual(disk.openFiles, [], 'files were left open')
  await assertIntact(disk, keeper.promises)

  // Or it had been killed right then, or the power had gone.
  await assertIntact(left.afterPowerCut(FATES[0]!), promised)
  await assertSurvived(left, promised)
  return calls
}

/** Opens a store with a disk that fails at call `at`; returns how many calls that made. */
async function failAtOpening(
  from: { disk: MemoryDisk; promises: Promises },
  at: number,
  way: Way,
): Promise<number> {
  const disk = from.disk.killed()
  let calls = 0
  let failing = true
  const watched = new WatchedDisk(disk, (call) => {
    const since = failing ? calls++ - at : -1
    return since >= 0 ? way.verdict(call, since) : undefined
  })
  try {
    const store = await openStore(watched, { onProblem: () => {} })
    try {
      await store.leftoversGone()
      await store.marked()
      for (const id of store.ids()) await store.damage(id)
    } finally {
      failing = false
      await store.close()
    }
  } catch (error) {
    assert.ok(error instanceof UpservError, `it is told as ${(error as Error).stack}`)
  }
  failing = false
  await nextTurn()
  assert.deepEqual(disk.openFiles, [], 'files were left open')
  // The next start finds what had been there, also when the power goes right now.
  await assertIntact(disk.afterPowerCut(FATES[0]!), from.promises)
  await assertIntact(disk, from.promises)
  return calls
}

describe(`a disk that fails at any call (UPSERV_SEED=${SEED})`, async () => {
  const random = seededRandom(SEED)
  const prepared = await prepare()
  const cases = WORKS.map(({ name, work }) => ({
    name,
    fail: (at: number, way: Way) => failAt(prepared, work, at, way),
  }))
  cases.push({ name: 'opening', fail: (at, way) => failAtOpening(prepared, at, way) })
  for (const { name, fail } of cases) {
    test(name, async (t) => {
      const calls = await fail(Number.POSITIVE_INFINITY, WAYS[0]!)
      const broken: string[] = []
      let runs = 0
      for (let at = 0; at < calls; at++) {
        const ways = LONG
          ? WAYS
          : Array.from({ length: WAYS_EACH }, () => WAYS[Math.floor(random() * WAYS.length)]!)
        for (const way of ways) {
          runs++
          await fail(at, way).catch((error: Error) => {
            broken.push(`call ${at} of ${calls}, ${way.name}: ${error.stack}`)
          })
        }
      }
      t.diagnostic(`${calls} calls, ${runs} runs`)
      assert.ok(calls > 0)
      assert.deepEqual(broken.length, 0, `${broken.length} of ${runs}: ${broken.join('\n\n')}`)
    })
  }
})
