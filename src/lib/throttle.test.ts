import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Throttle } from './throttle.ts'

function setUp(rate: () => number) {
  let time = 1000
  const naps: number[] = []
  const throttle = new Throttle({
    rate,
    now: () => time,
    sleep: async (ms) => {
      naps.push(ms)
      time += ms
    },
  })
  return { throttle, naps, pass: (ms: number) => (time += ms), now: () => time }
}

test('throttle: so many bytes take so long, and a rate that changes holds from then on', async () => {
  let rate = 1000
  const { throttle, naps, now } = setUp(() => rate)
  await throttle.spend(500)
  await throttle.spend(250)
  rate = 100
  await throttle.spend(50)
  assert.deepEqual(naps, [500, 250, 500])
  assert.equal(now(), 2250)
})

test('throttle: time that passed without spending is not saved up, but counts against what was spent', async () => {
  const { throttle, naps, pass } = setUp(() => 1000)
  pass(10_000)
  await throttle.spend(100)
  pass(60)
  await throttle.spend(100)
  assert.deepEqual(naps, [100, 100])
})

test('throttle: crumbs add up', async () => {
  const { throttle, naps } = setUp(() => 1000)
  for (let i = 0; i < 8; i++) await throttle.spend(0.25)
  assert.deepEqual(naps, [1, 1])
})

test('throttle: without a bound nobody sleeps; who gives up is not kept', async () => {
  const { throttle, naps } = setUp(() => Number.POSITIVE_INFINITY)
  await throttle.spend(1e12)
  assert.deepEqual(naps, [])
  const real = new Throttle({ rate: () => 1 })
  const abort = new AbortController()
  const spending = real.spend(1000, abort.signal)
  abort.abort(new Error('enough'))
  await assert.rejects(spending, /enough/)
})
