import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SharedRecords } from './shared-records.ts'

const MINUTE = 60_000

/** Asks as the cache does. @returns whether it had to be read. */
function ask(records: SharedRecords, id: number, length = 100): boolean {
  if (records.find(id)) return false
  records.share(id, length, records.ask(id, length), (memory) => memory.fill(id))
  return true
}

test('records stay up to a limit, and what does not fit sends none of them away', () => {
  const records = new SharedRecords(1000, () => 0)
  for (let round = 0; round < 2; round++) for (let id = 0; id < 20; id++) records.ask(id, 100)
  for (let id = 0; id < 20; id++) ask(records, id)
  assert.equal(records.staying, 1000)
  for (let round = 0; round < 3; round++)
    for (let id = 0; id < 10; id++) assert.deepEqual(records.find(id), new Uint8Array(100).fill(id))
  records.close()
})

test('what was asked for once does not stay, and what is asked for again does', () => {
  const records = new SharedRecords(1000, () => 0)
  const read = (memory: Buffer): Buffer => memory.fill(7)
  assert.ok(!records.ask(1, 100))
  records.share(1, 100, false, read)
  assert.equal(records.staying, 0)
  // Later, when nobody has it any more.
  assert.ok(records.ask(1, 100))
  records.share(1, 100, true, read)
  assert.equal(records.staying, 100)
  records.close()
})

test('what nobody asks for any more is given up', (context) => {
  let now = 0
  context.mock.timers.enable({ apis: ['setInterval'] })
  const pass = (ms: number): void => {
    now += ms
    context.mock.timers.tick(ms)
  }
  const records = new SharedRecords(1000, () => now)
  for (const id of [1, 2]) {
    records.ask(id, 100)
    assert.ok(ask(records, id))
  }
  assert.equal(records.staying, 200)
  pass(MINUTE)
  assert.ok(!ask(records, 1))
  pass(MINUTE / 2)
  assert.equal(records.staying, 100, 'the other one is gone')
  pass(2 * MINUTE)
  assert.equal(records.staying, 0)
  // Whoever comes now is one of a kind again.
  assert.ok(!records.ask(1, 100))
  records.close()
})

test('a record that several wait for is read once, and one that can’t be read is not held', async () => {
  const records = new SharedRecords(1000)
  let reads = 0
  const read = async (): Promise<undefined> => {
    reads++
    await Promise.resolve()
    return undefined
  }
  const first = records.share(1, 100, true, read)
  const second = records.find(1)
  assert.deepEqual(await Promise.all([first, second]), [undefined, undefined])
  assert.equal(reads, 1)
  assert.equal(records.find(1), undefined)
  assert.equal(records.staying, 0)
  records.close()
})

test('records that are gone make room at once, also one that is just being read', async () => {
  const records = new SharedRecords(300, () => 0)
  for (let id = 10; id < 13; id++) {
    records.ask(id, 100)
    assert.ok(ask(records, id))
  }
  assert.equal(records.staying, 300)
  records.forget(11, 12)
  assert.equal(records.staying, 200)
  assert.equal(records.find(11), undefined)
  for (const id of [10, 12]) assert.deepEqual(records.find(id), new Uint8Array(100).fill(id))

  const gate = Promise.withResolvers<void>()
  const reading = records.share(13, 100, true, async (memory) => {
    await gate.promise
    return memory.fill(13)
  })
  records.ask(14, 100)
  records.forget(13, 15)
  assert.equal(records.find(13), undefined)
  gate.resolve()
  assert.deepEqual(await reading, Buffer.alloc(100, 13), 'who has begun to read it gets it')
  assert.equal(records.staying, 200)
  assert.ok(!records.ask(14, 100), 'nobody has asked for what is of that name now')
  records.close()
})

test('a record that is read anew under the name of one that is gone is not forgotten with it', async () => {
  const records = new SharedRecords(300, () => 0)
  const [old, young] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const share = (gate: Promise<void>) =>
    records.share(1, 100, true, async (memory) => {
      await gate
      return memory
    })
  const first = share(old.promise)
  records.forget(1, 2)
  const second = share(young.promise)
  old.resolve()
  await first
  assert.equal(records.find(1), second)
  young.resolve()
  await second
  assert.equal(records.staying, 100)
  records.close()
})
