import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { NoRoom } from '../errors.ts'
import { Budget, type Evictor } from './budget.ts'

const GB = 1e9

/** A store of so many bytes, some of which cannot be evicted, and what was asked of the evictor. */
function setUp(options: { limit: number; stored: number; held: number; diskFree?: number }) {
  const world = {
    stored: options.stored,
    held: options.held,
    diskFree: options.diskFree ?? 1e15,
    evictions: [] as number[],
  }
  const evictor: Evictor = {
    heldBytes: async () => world.held,
    evict: async (bytes) => {
      if (world.stored - bytes < world.held) throw new NoRoom(`${bytes} cannot be freed`)
      world.evictions.push(bytes)
      world.stored -= bytes
      world.diskFree += bytes
    },
  }
  const budget = new Budget({
    limit: options.limit,
    path: '/',
    stored: () => world.stored,
    evictor,
    diskFree: async () => world.diskFree,
  })
  return { world, budget }
}
const nothing = new Uint8Array(0)

test('budget: within it nothing is asked of anybody', async () => {
  const { world, budget } = setUp({ limit: 16 * GB, stored: 4 * GB, held: 0 })
  const room = budget.openRoom('a')
  await room.reserve(5 * GB)
  assert.equal(budget.reserved, 5 * GB)
  await room.settle(5 * GB, nothing)
  room.close()
  assert.equal(budget.reserved, 0)
  assert.deepEqual(world.evictions, [])
})

test('budget: a file that can never fit is refused at once, with the numbers', async () => {
  const { world, budget } = setUp({ limit: 16 * GB, stored: 15 * GB, held: 0 })
  const room = budget.openRoom('803')
  await assert.rejects(room.reserve(100 * GB), (error: Error) => {
    assert.ok(error instanceof NoRoom)
    assert.equal(error.message, 'build 803 needs at least 100 GB; the budget is 16 GB')
    return true
  })
  assert.deepEqual(world.evictions, [])
  room.close()
})

test('budget: a need that reads like the budget says how much it is more', async () => {
  const { budget } = setUp({ limit: 200e6, stored: 0, held: 0 })
  const room = budget.openRoom('803')
  await assert.rejects(room.reserve(200e6 + 12_000), {
    message: 'build 803 needs at least 12 kB more than there can be; the budget is 200 MB',
  })
  room.close()
})

test('budget: what a thread did not use is free again', async () => {
  const { budget } = setUp({ limit: 1 * GB, stored: 0, held: 0 })
  const room = budget.openRoom('a')
  await room.reserve(1000)
  assert.equal(budget.reserved, 64 * 2 ** 20)
  room.wrote(900)
  assert.equal(budget.reserved, 900)
  room.close()
})

test('budget: beyond what eviction could free is refused, and nothing is evicted in vain', async () => {
  const { world, budget } = setUp({ limit: 16 * GB, stored: 15 * GB, held: 12 * GB })
  const room = budget.openRoom('803')
  await room.reserve(4 * GB)
  await assert.rejects(room.reserve(GB), (error: Error) => {
    assert.equal(
      error.message,
      'build 803 needs at least 5 GB; the budget is 16 GB, of which 12 GB are sticky or in use',
    )
    return true
  })
  assert.deepEqual(world.evictions, [])
  room.close()
})

test('budget: what went beyond is evicted when it is complete, no byte more', async () => {
  const { world, budget } = setUp({ limit: 16 * GB, stored: 15 * GB, held: 0 })
  const room = budget.openRoom('803')
  await room.reserve(4 * GB)
  assert.deepEqual(world.evictions, [])
  await room.settle(3.5 * GB, nothing)
  assert.deepEqual(world.evictions, [2.5 * GB])
  room.close()
})

test('budget: cache and spools count', async () => {
  const { budget } = setUp({ limit: 16 * GB, stored: 10 * GB, held: 10 * GB })
  budget.charge('cache', 5 * GB)
  budget.charge('cache', 2 * GB)
  assert.equal(budget.used, 12 * GB)
})

test('budget: a second fetch that must go beyond waits for the first, and then goes', async () => {
  const { world, budget } = setUp({ limit: 16 * GB, stored: 15 * GB, held: 0 })
  const [first, second] = [budget.openRoom('1'), budget.openRoom('2')]
  await first.reserve(4 * GB)
  let going = false
  const waiting = second.reserve(4 * GB).then(() => {
    going = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(going, false)
  assert.equal(second.waitsFor, '1')
  await first.settle(4 * GB, nothing)
  world.stored += 4 * GB
  first.close()
  await waiting
  assert.equal(going, true)
  assert.equal(second.waitsFor, undefined)
  second.close()
})

test('budget: a fetch that is given up while it waits is refused', async () => {
  const { budget } = setUp({ limit: 16 * GB, stored: 15 * GB, held: 0 })
  const [first, second] = [budget.openRoom('1'), budget.openRoom('2')]
  await first.reserve(4 * GB)
  const waiting = second.reserve(4 * GB)
  second.close()
  first.close()
  await assert.rejects(waiting, /given up/)
})

test('budget: what others have reserved cannot be promised twice', async () => {
  const { budget } = setUp({ limit: 16 * GB, stored: 0, held: 0 })
  const [first, second] = [budget.openRoom('1'), budget.openRoom('2')]
  await first.reserve(10 * GB)
  await assert.rejects(second.reserve(7 * GB), /10 GB are reserved for other fetches/)
  first.close()
  await second.reserve(7 * GB)
  second.close()
})

test('budget: a full disk evicts at once, and refuses when that does not help', async () => {
  const { world, budget } = setUp({ limit: 1000 * GB, stored: 10 * GB, held: 5 * GB, diskFree: 2 * GB })
  const room = budget.openRoom('a')
  await room.reserve(3 * GB)
  assert.equal(world.evictions.length, 1)
  assert.ok(world.diskFree >= 3 * GB)
  await assert.rejects(room.reserve(50 * GB), NoRoom)
  assert.equal(budget.reserved, 3 * GB, 'a refused claim is not kept')
  room.close()
})

test('budget: enforce brings a directory that is too large within the budget', async () => {
  const { world, budget } = setUp({ limit: 16 * GB, stored: 20 * GB, held: 0 })
  await budget.enforce()
  assert.deepEqual(world.evictions, [4 * GB])
})

/** An evictor that takes its time, and what it was asked for. A build has so many bytes: less does not go. */
function setUpSlow(options: { limit: number; stored: number; diskFree: number; buildBytes: number }) {
  const world = { stored: options.stored, diskFree: options.diskFree, evictions: [] as number[] }
  const budget = new Budget({
    limit: options.limit,
    path: '/',
    stored: () => world.stored,
    evictor: {
      heldBytes: async () => 0,
      evict: async (bytes) => {
        world.evictions.push(bytes)
        await new Promise((resolve) => setImmediate(resolve))
        const freed = Math.max(bytes, options.buildBytes)
        world.stored -= freed
        world.diskFree += freed
      },
    },
    diskFree: async () => world.diskFree,
  })
  return { world, budget }
}

test('budget: what is too much is evicted once, however many find out at the same time', async () => {
  const { world, budget } = setUpSlow({ limit: 16 * GB, stored: 20 * GB, diskFree: 1e15, buildBytes: 1 })
  await Promise.all([budget.enforce(), budget.enforce(), budget.enforce()])
  assert.deepEqual(world.evictions, [4 * GB])
})

test('budget: a disk that is short is made room on once for all who find out at the same time', async () => {
  const { world, budget } = setUpSlow({
    limit: 1000 * GB,
    stored: 10 * GB,
    diskFree: 60e6,
    buildBytes: 300e6,
  })
  const rooms = ['1', '2', '3'].map((id) => budget.openRoom(id))
  await Promise.all(rooms.map((room) => room.reserve(8e6)))
  assert.equal(world.evictions.length, 1)
  for (const room of rooms) room.close()
})

test('budget: what does not fit in the end is refused with need and budget', async () => {
  const { world, budget } = setUp({ limit: 16 * GB, stored: 15 * GB, held: 0 })
  const room = budget.openRoom('803')
  await room.reserve(4 * GB)
  world.held = 14 * GB
  await assert.rejects(room.settle(4 * GB, nothing), (error: Error) => {
    assert.ok(error instanceof NoRoom)
    assert.equal(
      error.message,
      'build 803 needs at least 4 GB; the budget is 16 GB, of which 14 GB are sticky or in use',
    )
    return true
  })
  room.close()
})

test('budget: on a small disk what fits is taken, though the reserve cannot be had', async () => {
  const { world, budget } = setUp({ limit: 1 * GB, stored: 20e6, held: 15e6, diskFree: 10e6 })
  const room = budget.openRoom('a')
  await room.reserve(8e6)
  assert.deepEqual(world.evictions, [], 'nothing is evicted for the reserve alone if that cannot be met')
  await room.reserve(13e6)
  assert.deepEqual(world.evictions, [3e6], 'what is needed is')
  await assert.rejects(room.reserve(30e6), NoRoom)
  room.close()
})

/** What a thread is told that asks since its disk is full. */
async function askOfFullDisk(budget: Budget): Promise<boolean | string> {
  const room = budget.openRoom('a')
  const url = new URL('./room.ts', import.meta.url).href
  const code = `
    const { parentPort, workerData } = require('node:worker_threads')
    import(${JSON.stringify(url)}).then(({ RoomClient }) => {
      const room = new RoomClient(workerData)
      try { parentPort.postMessage(room.diskFull()) } catch (error) { parentPort.postMessage(error.message) }
    })`
  const worker = new Worker(code, { eval: true, workerData: room.memory })
  const [answer] = await once(worker, 'message')
  await worker.terminate()
  room.close()
  return answer
}

test('budget: a disk that refuses a write is made room on, whatever it says is free', async () => {
  const { world, budget } = setUp({ limit: 16 * GB, stored: 5 * GB, held: 0 })
  assert.equal(await askOfFullDisk(budget), true)
  assert.deepEqual(world.evictions, [64 * 2 ** 20])
  // Less than a grant's worth may go: something does.
  world.held = world.stored - 10e6
  assert.equal(await askOfFullDisk(budget), true)
  assert.deepEqual(world.evictions.slice(1), [1])
  world.held = world.stored
  assert.match(String(await askOfFullDisk(budget)), /the disk is full, and nothing is left/)
})
