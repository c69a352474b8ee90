import assert from 'node:assert/strict'
import { test } from 'node:test'
import { timeIn, timeOfNumber } from './dates.ts'

const NOON = '2007-11-02T12:00:00.000Z'
const TIMES: [string, string | undefined][] = [
  ['2007-11-02T12:00:00.000Z', NOON],
  ['2007-11-02T12:00:00Z', NOON],
  ['2007-11-02T14:30:00+02:30', NOON],
  ['2007-11-02T08:00:00-0400', NOON],
  ['      02-Nov-2007 12:00             123456', NOON],
  ['2007-11-02 12:00  1.2M', NOON],
  ['2007-Nov-02 12:00:00', NOON],
  ['Fri, 02 Nov 2007 12:00:00 GMT', NOON],
  ['build of 2007-11-02', '2007-11-02T00:00:00.000Z'],
  ['29-Feb-2008 00:00', '2008-02-29T00:00:00.000Z'],
  // None that a calendar has.
  ['2007-02-29T12:00:00Z', undefined],
  ['2007-13-02 12:00', undefined],
  ['31-Apr-2007 12:00', undefined],
  ['02-Foo-2007 12:00', undefined],
  ['2007-11-02 25:00', undefined],
  ['2007-11-02 12:61', undefined],
  ['0000-00-00 00:00', undefined],
  ['9999-01-01 00:00', undefined],
  ['1969-12-31T23:59:59Z', undefined],
  ['12007-11-021 12:00', undefined],
  ['20071102', undefined],
  ['-', undefined],
  ['', undefined],
]
for (const [text, time] of TIMES)
  test(`time: ${JSON.stringify(text)}`, () => assert.equal(timeIn(text)?.toISOString(), time))

test('time: numbers', () => {
  for (const value of [1194004800, 1194004800_000]) assert.equal(timeOfNumber(value)?.toISOString(), NOON)
  for (const value of [0, -1, 1e30, Number.NaN, Number.POSITIVE_INFINITY])
    assert.equal(timeOfNumber(value), undefined)
})

test('time: a long text takes no longer for being hostile', () => {
  const began = performance.now()
  for (const piece of ['2', '2007-', '2007-11-02 12:00:', '02-Nov-', ' 1-Jan-20 '])
    timeIn(piece.repeat(100_000))
  assert.ok(performance.now() - began < 5000)
})
