/**
 * A power cut at every call of a store's life, in every way that a file system may take it: what was
 * promised is there, what is there is whole. Then the same without each of the fsyncs in turn: each must
 * turn out to be needed, or it would not be there, or this test would be worth nothing.
 *
 * UPSERV_SEED repeats a run, UPSERV_LONG plays many more of the fates that are drawn at random.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { StoreError } from '../../src/errors.ts'
import type { Disk } from '../../src/lib/disk.ts'
import type { MemoryDisk } from '../support/memory-disk.ts'
import { BrokenPromise, cutPower, FATES, fateLacking, momentsOf, randomFate } from '../support/power-cut.ts'
import { seedOfRun } from '../support/random.ts'
import { assertIntact, assertSurvived, Keeper, openStore, Promises } from '../support/store-model.ts'
import { WatchedDisk } from '../support/watched-disk.ts'

const SEED = seedOfRun()
/** For each moment. */
const RANDOM_FATES = process.env.UPSERV_LONG ? 200 : 2
/** Every so often it is also seen whether the store still works, not only whether it holds what it did. */
const THOROUGH_EVERY = process.env.UPSERV_LONG ? 1 : 8
/** Until the lack of an fsync shows; it mostly does without any. */
const FATES_TO_FIND = 20
/** There are hardly ever more changes of names that are not synced yet. */
const MOST_CHANGES = 24
const ALL = Number.MAX_SAFE_INTEGER

/** A store's life: all that changes the directory, from before it exists. Now and then it is killed. */
async function live(disk: Disk, machine: MemoryDisk, promises: Promises): Promise<void> {
  let keeper = new Keeper(await openStore(disk), promises)
  await keeper.put('a')
  await keeper.pin('a')
  await keeper.put('b')
  await keeper.store.touch('b')
  await keeper.unpin('a')
  await keeper.remove('a')
  await keeper.store.collect(ALL)
  await keeper.put('c')
  await keeper.store.close()
  keeper = new Keeper(await openStore(disk), promises)
  await keeper.remove('b')
  await keeper.put('d')
  await keeper.store.collect()
  await keeper.put('a')
  await keeper.remove('d')
  await keeper.store.collect(ALL)
  await keeper.store.close()

  await killBefore(disk, machine, promises, 'name of a build that left', (keeper) => keeper.remove('c'))
  keeper = new Keeper(await openStore(disk), promises)
  keeper.settle()
  await keeper.store.collect(ALL)
  await keeper.store.close()
  await killBefore(disk, machine, promises, 'names of adopted packs', (keeper) => keeper.put('b'))
  keeper = new Keeper(await openStore(disk), promises)
  keeper.settle()
  await keeper.put('b')
  await keeper.store.close()

  await failAt(disk, promises, 'name of a build that left', (keeper) => keeper.remove('b'))
  await failAt(disk, promises, 'name of a new build', (keeper) => keeper.put('d'))
}

/** A store whose disk rots: of one build a blob, of another its own files. Each is found and made whole. */
async function decay(disk: Disk, machine: MemoryDisk, promises: Promises): Promise<void> {
  const keeper = new Keeper(await openStore(disk, { onProblem: () => {} }), promises)
  const { store } = keeper
  await keeper.put('a')
  await keeper.put('b')
  await keeper.decay('b', () => {
    const { index } = store.packs
    const row = index.find(createHash('sha256').update('b'.repeat(2000)).digest())
    machine.rot(store.packs.get(index.pack(row))!.path, index.offset(row) + 1000)
  })
  await keeper.decay('a', () => machine.rot(join(store.paths.build('a').directory, 'contents'), 5))
  await keeper.repair('b')
  await keeper.repair('a')
  await keeper.decay('a', () => machine.rot(join(store.paths.build('a').directory, 'contents'), 5))
  await keeper.repairPinned('a')
  await store.collect(ALL)
  await store.close()
}

const LIVES = [live, decay]

/** Does something that fails, since the fsync of that reason does, once; then goes on with the same store. */
async function failAt(
  disk: Disk,
  promises: Promises,
  why: string,
  work: (keeper: Keeper) => Promise<void>,
): Promise<void> {
  let failed = false
  const failing = new WatchedDisk(disk, (call) => {
    if (failed || call.why !== why) return undefined
    failed = true
    return { fails: 'EIO' }
  })
  const keeper = new Keeper(await openStore(failing), promises)
  await assert.rejects(work(keeper), StoreError)
  assert.ok(failed)
  await keeper.store.collect(ALL)
  await keeper.store.close()
}

/** Does something with a store that is killed before the fsync of that reason. */
async function killBefore(
  disk: Disk,
  machine: MemoryDisk,
  promises: Promises,
  why: string,
  work: (keeper: Keeper) => Promise<void>,
): Promise<void> {
  let dead = false
  const mortal = new WatchedDisk(disk, (call) => {
    dead ||= call.why === why
    return dead ? { fails: 'EIO' } : undefined
  })
  const store = await openStore(mortal, { onProblem: () => {} })
  await work(new Keeper(store, promises)).catch(() => {})
  assert.ok(dead)
  await store.close().catch(() => {})
  machine.kill()
}

const fatesOf = (count: number) => (moment: number) => [
  ...FATES,
  ...Array.from({ length: count }, (_, i) => randomFate(SEED + moment * 1000 + i)),
]

async function momentsOfLife(life: typeof live, without?: string) {
  const promises = new Promises()
  const options = without === undefined ? {} : { without }
  return await momentsOf(
    (disk, machine) => life(disk, machine, promises),
    () => new Promises(promises),
    options,
  )
}

describe(`power cuts (UPSERV_SEED=${SEED})`, () => {
  test('at every call: what was promised is there, what is there is whole', async (t) => {
    const moments = (await Promise.all(LIVES.map((life) => momentsOfLife(life)))).flatMap((of) => of.moments)
    let count = 0
    const check: typeof assertIntact = (disk, promises) =>
      count++ % THOROUGH_EVERY === 0 ? assertSurvived(disk, promises) : assertIntact(disk, promises)
    const checked = await cutPower(moments, fatesOf(RANDOM_FATES), check)
    t.diagnostic(`${checked} different disks after a power cut at ${moments.length} moments`)
    assert.ok(moments.length > 100 && checked > 500, 'too little happens for the test to mean something')
  })

  test('no fsync can be left out', async (t) => {
    /** Each reason, and the first life that knows it. */
    const reasons = new Map<string, typeof live>()
    for (const life of LIVES.toReversed())
      for (const { name, why } of (await momentsOfLife(life)).calls)
        if (name === 'sync') reasons.set(why!, life)
    assert.ok(reasons.has('damaged') && reasons.has('untrusted'))
    for (const [why, life] of reasons) {
      const { moments } = await momentsOfLife(life, why)
      const search = async () => {
        // Most show with one of the first few.
        const lacking = Array.from({ length: MOST_CHANGES }, (_, change) => fateLacking(change))
        const random = Array.from({ length: FATES_TO_FIND }, (_, i) => randomFate(SEED + i))
        for (const fate of [...FATES, ...lacking, ...random])
          await cutPower(moments, () => [fate], assertIntact)
      }
      const found = await search().then(
        () => undefined,
        (error: Error) => error,
      )
      assert.ok(found instanceof BrokenPromise, `nothing breaks without the fsync of "${why}": ${found}`)
      t.diagnostic(`without "${why}": ${found.message}`)
    }
  })
})
