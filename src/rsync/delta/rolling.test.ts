import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fc } from '../../../test/support/property.ts'
import { weakSum } from './match.ts'
import { Rolling } from './rolling.ts'

/** What `scan` does: every sum is worked out anew, and looked up in the set that the filter was made of. */
function scanSlowly(
  bytes: Uint8Array,
  at: number,
  stop: number,
  block: number,
  known: ReadonlySet<number>,
): number {
  for (; at <= stop; at++) if (known.has(weakSum(bytes, at, at + block))) return at
  return -1
}

test('sum, scan and step: any bytes, any block length, any filter', () => {
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 3000 })
  fc.assert(
    fc.property(bytes, fc.nat(), fc.array(fc.nat(), { maxLength: 3 }), (data, blockSeed, hits) => {
      const block = 1 + (blockSeed % data.length)
      const stop = data.length - block
      const rolling = Rolling.create(data.length, 20)
      rolling.window.set(data)
      const known = new Set(hits.map((hit) => weakSum(data, hit % (stop + 1), (hit % (stop + 1)) + block)))
      for (const weak of known) rolling.admit(weak)
      rolling.sum(0, block)
      assert.equal(rolling.weak, weakSum(data, 0, block))
      for (let at = 0; at <= stop; ) {
        const expected = scanSlowly(data, at, stop, block, known)
        const found = rolling.scan(at, stop, block)
        // The filter may let a stranger through, but never misses one that it knows.
        if (found >= 0) assert.equal(rolling.weak, weakSum(data, found, found + block))
        if (expected < 0 && found < 0) return
        assert.ok(found >= 0 && (expected < 0 || found <= expected), `${found}, not ${expected}`)
        if (found === stop) return
        rolling.step(found, block)
        assert.equal(rolling.weak, weakSum(data, found + 1, found + 1 + block))
        at = found + 1
      }
    }),
  )
})

test('a stranger is stopped by the filter nearly always', () => {
  const data = Uint8Array.from({ length: 200_000 }, (_, i) => Math.imul(i * i, 0x85ebca6b) >>> 24)
  const rolling = Rolling.create(data.length, 20)
  rolling.window.set(data)
  for (let i = 0; i < 1000; i++) rolling.admit(Math.imul(i, 0xc2b2ae35) >>> 0)
  rolling.sum(0, 700)
  let passed = 0
  for (let at = 0; ; at++) {
    at = rolling.scan(at, data.length - 700, 700)
    if (at < 0 || at === data.length - 700) break
    passed++
    rolling.step(at, 700)
  }
  assert.ok(passed < 1000, `${passed} of 200,000 passed`)
})

test('large windows and filters, one after the other', () => {
  for (const [size, bits] of [
    [100, 10],
    [20_000_000, 21],
    [3_000_000, 12],
    [100, 10],
  ] as const) {
    const rolling = Rolling.create(size, bits)
    assert.equal(rolling.window.length, size)
    rolling.window.fill(1)
    rolling.sum(0, 100)
    assert.equal(rolling.scan(0, size - 100, 100), -1)
    rolling.admit(rolling.weak)
    rolling.sum(0, 100)
    assert.equal(rolling.scan(0, size - 100, 100), 0)
  }
})
