/**
 * Anything in any order, against a model that is a few sets of ids: builds come, are read, pinned, touched,
 * evicted and swept; the process is killed and the power cut, between two things or in the middle of one,
 * and in the middle of the start after it. Whatever was promised is there, whatever is there is whole.
 *
 * A failure prints the seed and the shortest order that fails. UPSERV_SEED repeats a run, UPSERV_LONG runs
 * for many minutes.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { BuildEvictor } from '../../src/build/evictor.ts'
import { NoRoom } from '../../src/errors.ts'
import { MemoryDisk } from '../support/memory-disk.ts'
import { randomFate } from '../support/power-cut.ts'
import { fc } from '../support/property.ts'
import { seedOfRun } from '../support/random.ts'
import {
  assertCounted,
  assertKeeps,
  BUILDS,
  IDS,
  Keeper,
  openStore,
  Promises,
} from '../support/store-model.ts'
import { WatchedDisk } from '../support/watched-disk.ts'

const LONG = process.env.UPSERV_LONG !== undefined
const SEED = seedOfRun()
const LIVES = LONG ? 5_000 : 60
const STEPS = 60

type Work =
  | { type: 'put' | 'remove' | 'pin' | 'unpin' | 'touch'; id: string }
  | { type: 'evict'; bytes: number }
  | { type: 'collect'; need: number }
  | { type: 'restart' }

interface Step {
  work: Work
  /** The process dies at this call of it, if it makes so many. */
  diesAt: number | undefined
  /** It is the power that goes. */
  powerCut: number | undefined
}

const id = fc.constantFrom(...IDS)
const work: fc.Arbitrary<Work> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ type: fc.constant('put' as const), id }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('remove' as const), id }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constantFrom('pin', 'unpin', 'touch'), id }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('evict' as const), bytes: fc.nat(6000) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('collect' as const),
      need: fc.constantFrom(0, Number.MAX_SAFE_INTEGER),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('restart' as const) }) },
)
const step: fc.Arbitrary<Step> = fc.record({
  work,
  diesAt: fc.option(fc.nat(40), { nil: undefined, freq: 2 }),
  powerCut: fc.option(fc.nat(1_000_000), { nil: undefined, freq: 2 }),
})

class Life {
  readonly promises = new Promises()
  #machine = new MemoryDisk()
  #keeper: Keeper | undefined
  /** Calls until the process dies. */
  #left = Number.POSITIVE_INFINITY

  async play({ work, diesAt, powerCut }: Step): Promise<void> {
    if (diesAt === undefined) {
      await this.#work(work)
    } else {
      this.#left = diesAt
      await this.#work(work).catch((error) => {
        if (this.#left >= 0) throw error
      })
      await this.#die(powerCut)
    }
    await this.#check()
  }

  async end(): Promise<void> {
    await this.#restart()
    await this.#check()
    await this.#keeper?.store.close()
  }

  async #work(work: Work): Promise<void> {
    const keeper = await this.#open()
    const { store } = keeper
    switch (work.type) {
      case 'put':
        if (!store.has(work.id)) await keeper.put(work.id)
        break
      case 'remove':
      case 'pin':
      case 'unpin':
        if (store.has(work.id)) await keeper[work.type](work.id)
        break
      case 'touch':
        if (store.has(work.id)) await store.touch(work.id)
        break
      case 'evict':
        await this.#evict(keeper, work.bytes)
        break
      case 'collect':
        await store.collect(work.need)
        assertCounted(store, this.#machine)
        break
      case 'restart':
        await this.#restart()
        await this.#open()
        break
    }
  }

  async #evict(keeper: Keeper, bytes: number): Promise<void> {
    const tenancy = {
      isLeased: () => false,
      removeUnleased: async (id: string) => {
        assert.ok(!this.promises.pinned.has(id), `${id} is pinned and was evicted`)
        await keeper.remove(id)
        return true
      },
    }
    const before = new Set(keeper.store.ids())
    try {
      await new BuildEvictor(keeper.store, tenancy).evict(bytes)
    } catch (error) {
      if (!(error instanceof NoRoom)) throw error
      assert.deepEqual(new Set(keeper.store.ids()), before, 'nothing is evicted in vain')
    }
  }

  async #open(): Promise<Keeper> {
    if (this.#keeper) return this.#keeper
    const disk = new WatchedDisk(this.#machine, () => (this.#left-- <= 0 ? { fails: 'EIO' } : undefined))
    const onProblem = (problem: Error): void => {
      if (this.#left >= 0) assert.fail(`the store complains: ${problem.message}`)
    }
    const store = await openStore(disk, { onProblem })
    const keeper = new Keeper(store, this.promises)
    keeper.settle()
    this.#keeper = keeper
    return keeper
  }

  async #restart(): Promise<void> {
    await this.#keeper?.store.close()
    this.#keeper = undefined
    await nextTurn()
    assert.deepEqual(this.#machine.openFiles, [], 'files were left open')
  }

  async #die(powerCut: number | undefined): Promise<void> {
    this.#left = -1
    const { store } = this.#keeper ?? {}
    this.#keeper = undefined
    // It is dead, so nothing of it may reach the disk that lives on.
    this.#machine =
      powerCut === undefined ? this.#machine.killed() : this.#machine.afterPowerCut(randomFate(powerCut))
    await store?.close().catch(() => {})
    this.#left = Number.POSITIVE_INFINITY
  }

  async #check(): Promise<void> {
    const keeper = await this.#open()
    await assertKeeps(keeper.store, this.promises)
  }
}

test(`anything in any order (UPSERV_SEED=${SEED})`, async (t) => {
  assert.ok(Object.keys(BUILDS).length >= 4)
  let steps = 0
  const property = fc.asyncProperty(
    fc.array(step, { minLength: 1, maxLength: STEPS, size: 'max' }),
    async (all) => {
      const life = new Life()
      for (const step of all) {
        steps++
        await life.play(step)
      }
      await life.end()
    },
  )
  await fc.assert(property, { seed: SEED, numRuns: LIVES, endOnFailure: false })
  t.diagnostic(`${steps} steps in ${LIVES} lives`)
})
