import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { eachAtOnce } from './at-once.ts'

test('each item once, and no more at a time than asked for', async () => {
  const seen: number[] = []
  let now = 0
  let most = 0
  await eachAtOnce([1, 2, 3, 4, 5, 6, 7], 3, async (item) => {
    most = Math.max(most, ++now)
    await nextTurn()
    seen.push(item)
    now--
  })
  assert.deepEqual(seen.sort(), [1, 2, 3, 4, 5, 6, 7])
  assert.equal(most, 3)
  await eachAtOnce([], 3, () => assert.fail())
})

test('one that fails fails all, and nothing is begun or under way any more when it does', async () => {
  const begun: number[] = []
  let now = 0
  const work = async (item: number): Promise<void> => {
    begun.push(item)
    now++
    try {
      await nextTurn()
      if (item === 2) throw new Error('two')
      await nextTurn()
    } finally {
      now--
    }
  }
  await assert.rejects(eachAtOnce([1, 2, 3, 4, 5], 3, work), /two/)
  assert.equal(now, 0)
  assert.deepEqual(begun, [1, 2, 3])
})
