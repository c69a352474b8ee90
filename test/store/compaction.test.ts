/** Compaction: what is dead stays within its bound, whatever came and went; nobody who waits is kept by it. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { Throttle } from '../../src/lib/throttle.ts'
import { Store, type StoreOptions } from '../../src/store/store.ts'
import { seedOfRun } from '../support/random.ts'
import { publishBuild, readBuild, type TestEntry, temporaryDirectory } from '../support/trees.ts'

const BOUND = { share: 0.1, floor: 60_000 }

async function openStore(t: TestContext, options: StoreOptions) {
  const directory = temporaryDirectory()
  const store = await Store.open(directory.path, {
    onProblem: (problem) => assert.fail(problem),
    ...options,
  })
  t.after(async () => {
    await store.close()
    directory.remove()
  })
  return store
}

/** Numbers below `n`, the same ones for the same seed. */
function randomNumbers(seed: number): (n: number) => number {
  let state = seed
  return (n) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
}

test('dead bytes stay within their bound through a long life of builds that share and leave', async (t) => {
  const seed = seedOfRun()
  t.diagnostic(`UPSERV_SEED=${seed}`)
  const random = randomNumbers(seed)
  const store = await openStore(t, { deadBound: BOUND })
  const held = new Map<string, TestEntry[]>()
  let worst = 0
  for (let step = 0; step < 150; step++) {
    if (held.size > 2 && random(held.size) > 4) {
      const id = [...held.keys()][random(held.size)]!
      held.delete(id)
      await store.remove(id)
    } else {
      // Of a pool of contents, so that builds share some of what they have.
      const files = new Set(Array.from({ length: 1 + random(12) }, () => random(60)))
      const entries = [...files].map((n) => ({ path: `f${n}`, content: `${n}-`.repeat(300 + n * 150) }))
      held.set(`b${step}`, entries)
      await publishBuild(store, `b${step}`, entries)
    }
    await store.compact()
    const dead = await store.deadBytes()
    const bound = Math.max(BOUND.floor, BOUND.share * store.packs.bytes)
    assert.ok(dead <= bound, `step ${step}: ${dead} bytes are dead, ${bound} may be`)
    worst = Math.max(worst, dead)
  }
  assert.ok(worst > BOUND.floor / 2, 'nothing is copied for a few bytes')
  for (const [id, entries] of held) assert.equal((await readBuild(store, id)).size, entries.length)
})

/** Two builds, of which what stays lies scattered among what goes: all of it has to be copied. */
async function halfDead(store: Store): Promise<void> {
  const entries = Array.from({ length: 20 }, (_, n) => ({ path: `f${n}`, content: `${n}`.repeat(20_000) }))
  await publishBuild(store, 'all', entries)
  await publishBuild(
    store,
    'some',
    entries.filter((_, n) => n % 4 !== 0),
  )
}

test('it takes its time, but not while somebody waits for the turn', async (t) => {
  const waits: number[] = []
  const slow = Promise.withResolvers<void>()
  const background = new Throttle({
    rate: () => 1_000_000,
    sleep: async (ms) => {
      waits.push(ms)
      await slow.promise
    },
  })
  const store = await openStore(t, { deadBound: BOUND, background })
  await halfDead(store)
  await store.remove('all')
  const compacting = store.compact()
  while (waits.length === 0) await new Promise((resolve) => setImmediate(resolve))
  assert.ok((await store.deadBytes()) > BOUND.floor)
  // It holds the turn at this moment. Who comes now waits for the piece at hand, and for no other nap.
  const publishing = publishBuild(store, 'next', [{ path: 'x', content: 'x' }])
  while (store.turnsWaiting === 0) await new Promise((resolve) => setImmediate(resolve))
  slow.resolve()
  await publishing
  assert.equal(waits.length, 1)
  await compacting
  assert.ok((await store.deadBytes()) <= BOUND.floor)
})

test('what a publish under way has brought is not dead, though nobody needs it yet', async (t) => {
  const measured: Promise<number>[] = []
  const store: Store = await openStore(t, {
    step: (name) => {
      if (name.startsWith('publish: ')) measured.push(store.deadBytes())
    },
  })
  await publishBuild(store, 'a', [{ path: 'x', content: 'x'.repeat(100_000) }])
  await publishBuild(store, 'b', [{ path: 'y', content: 'y'.repeat(100_000) }])
  const dead = await Promise.all(measured)
  assert.ok(dead.length > 6)
  assert.deepEqual(new Set(dead), new Set([0]))
  // Nor does it hide what is dead later, however it ended.
  await assert.rejects(
    publishBuild(store, 'a', [{ path: 'z', content: 'z'.repeat(100_000) }]),
    /held already/,
  )
  await store.remove('b')
  assert.ok((await store.deadBytes()) > 100_000)
})

test('small stores are left alone', async (t) => {
  const store = await openStore(t, {})
  await halfDead(store)
  await store.remove('all')
  await store.compact()
  assert.ok((await store.deadBytes()) > 100_000, 'below the floor nothing is rewritten')
})
