import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeAccess, encodeAccess, isTouched, placeTouched } from './access.ts'

test('access: a mark is read back, and nothing else is taken for one', () => {
  const mark = { sequence: 1042, time: 1_767_225_600_000 }
  assert.equal(encodeAccess(mark).toString(), '1042 1767225600000\n')
  assert.deepEqual(decodeAccess(encodeAccess(mark)), mark)
  assert.deepEqual(decodeAccess(encodeAccess({ sequence: 1, time: -5 })), { sequence: 1, time: -5 })
  for (const text of [
    '',
    '\n',
    '1042',
    '1042 17672256',
    'x 1\n',
    '1 1\n2 2\n',
    `${'1'.repeat(99)} 1\n`,
    '-1 5\n',
  ])
    assert.equal(decodeAccess(Buffer.from(text)), undefined, JSON.stringify(text))
})

test('access: small differences of an mtime are the file system', () => {
  const mark = { sequence: 1, time: 1_000_001 }
  for (const mtime of [1_000_001, 1_000_000.5, 1_000_000, 999_000])
    assert.equal(isTouched(mark, mtime), false)
  for (const mtime of [1_010_000, 0]) assert.equal(isTouched(mark, mtime), true)
})

const NOW = 1000
const OTHERS = [
  { sequence: 10, time: 100 },
  { sequence: 20, time: 300 },
  // The clock was ahead, and was set right.
  { sequence: 30, time: 9000 },
  { sequence: 40, time: 500 },
]
const PLACES = [
  { name: 'before all', mtime: 50, between: [Number.NEGATIVE_INFINITY, 10] },
  { name: 'among the others', mtime: 200, between: [10, 20] },
  { name: 'behind what a clock ahead has marked', mtime: 600, between: [40, Number.POSITIVE_INFINITY] },
  { name: 'now', mtime: NOW, between: [40, Number.POSITIVE_INFINITY] },
  { name: 'in the future', mtime: 99_999, between: [40, Number.POSITIVE_INFINITY] },
]
for (const { name, mtime, between } of PLACES) {
  test(`access: a build that somebody touched: ${name}`, () => {
    const place = placeTouched(mtime, OTHERS.toReversed(), NOW)
    assert.ok(place > between[0]! && place < between[1]!, `${place}`)
  })
}

test('access: the only build that there is has a place', () => {
  assert.ok(Number.isFinite(placeTouched(5, [], NOW)))
})
