import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { fc } from '../../test/support/property.ts'
import { Pacer, pacedSort, pacedUpdate } from './pacer.ts'

test('pacedSort: any numbers come out sorted and equal ones keep their order', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(50), { minLength: 0, maxLength: 9000, size: 'max' }), async (keys) => {
      const order = Uint32Array.from(keys, (_, i) => i)
      const sorted = await pacedSort(order, (a, b) => keys[a]! - keys[b]!, new Pacer())
      const expected = keys.map((_, i) => i).sort((a, b) => keys[a]! - keys[b]! || a - b)
      assert.deepEqual([...sorted], expected)
    }),
    { numRuns: 30 },
  )
})

test('pacedUpdate: the digest of the whole, and others run in between', async (t) => {
  const bytes = Buffer.alloc(2 ** 21 + 1, 'what is long')
  let [clock, turns] = [0, 0]
  t.mock.method(performance, 'now', () => (clock += 100))
  const count = (): void => {
    turns++
    immediate = setImmediate(count)
  }
  let immediate = setImmediate(count)
  for (const length of [0, 1, 2 ** 18, bytes.length]) {
    const hash = createHash('sha256')
    await pacedUpdate(hash, bytes.subarray(0, length))
    assert.equal(
      hash.digest('hex'),
      createHash('sha256').update(bytes.subarray(0, length)).digest('hex'),
      `${length}`,
    )
  }
  clearImmediate(immediate)
  assert.ok(turns >= 8, `others had ${turns} turns`)
})

test('Pacer: others run while long work goes on', async () => {
  const pacer = new Pacer()
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  const until = performance.now() + 200
  while (performance.now() < until) if (pacer.due) await pacer.rest()
  clearInterval(timer)
  assert.ok(turns >= 3, `others had ${turns} turns`)
})

test('Pacer: an aborted signal ends the work at the next rest', async () => {
  const abort = new AbortController()
  const pacer = new Pacer(abort.signal)
  abort.abort(new Error('enough'))
  await assert.rejects(pacer.rest(), /enough/)
})
