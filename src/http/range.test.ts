import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseRange } from './range.ts'

const CASES: { header: string | undefined; size: number; range: ReturnType<typeof parseRange> }[] = [
  { header: undefined, size: 10, range: undefined },
  { header: 'bytes=0-3', size: 10, range: { from: 0, end: 4 } },
  { header: 'bytes=4-', size: 10, range: { from: 4, end: 10 } },
  { header: 'bytes=-3', size: 10, range: { from: 7, end: 10 } },
  { header: 'bytes=-30', size: 10, range: { from: 0, end: 10 } },
  { header: 'bytes=9-100', size: 10, range: { from: 9, end: 10 } },
  { header: 'bytes=10-', size: 10, range: 'none' },
  { header: 'bytes=0-', size: 0, range: 'none' },
  { header: 'bytes=-0', size: 10, range: 'none' },
  { header: 'bytes=5-4', size: 10, range: undefined },
  { header: 'bytes=0-1,3-4', size: 10, range: undefined },
  { header: 'bytes=-', size: 10, range: undefined },
  { header: 'lines=0-1', size: 10, range: undefined },
  { header: 'bytes=99999999999999999999-', size: 10, range: undefined },
]

for (const { header, size, range } of CASES)
  test(`range ${header} of ${size}`, () => assert.deepEqual(parseRange(header, size), range))
