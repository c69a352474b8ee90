import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Slices } from './slices.ts'

/** Each of a crowd works for so long, by a clock that nothing else moves. */
async function crowd(count: number, workMs: number): Promise<{ order: number[]; longest: number }> {
  let clock = 0
  const slices = new Slices(() => clock)
  const order: number[] = []
  let [before, longest, over] = [0, 0, false]
  const others = (async () => {
    while (!over) {
      longest = Math.max(longest, clock - before)
      before = clock
      await nextTurn()
    }
  })()
  const one = async (number: number): Promise<void> => {
    await slices.turn()
    clock += workMs
    order.push(number)
  }
  await Promise.all(Array.from({ length: count }, (_, number) => one(number)))
  over = true
  await others
  return { order, longest }
}

test('slices: a few that come at once need not wait', () => {
  const slices = new Slices(() => 0)
  for (let i = 0; i < 10; i++) assert.equal(slices.turn(), undefined)
})

test('slices: of a crowd each comes, in order, and others have their turns in between', async () => {
  const { order, longest } = await crowd(1000, 1)
  assert.deepEqual(
    order,
    Array.from({ length: 1000 }, (_, i) => i),
  )
  // A slice of 8 ms, and the work that goes past its end.
  assert.ok(longest <= 10, `others waited for ${longest} ms of work`)
})

test('slices: one whose work is longer than a slice has one for itself', async () => {
  const { longest } = await crowd(20, 30)
  assert.ok(longest <= 60, `others waited for ${longest} ms of work`)
})
