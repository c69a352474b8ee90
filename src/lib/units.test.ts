import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatDuration, formatSize, parseSize } from './units.ts'

const SIZES: readonly [string, number | undefined][] = [
  ['16GB', 16e9],
  ['16 gb', 16e9],
  ['1.5 GiB', 1.5 * 2 ** 30],
  ['4096', 4096],
  [' 12 B ', 12],
  ['3k', 3000],
  ['2Ti', 2 * 2 ** 40],
  ['0', 0],
  ['', undefined],
  ['GB', undefined],
  ['-1', undefined],
  ['1 XB', undefined],
  ['1e3', undefined],
  ['1.', undefined],
  ['9999999 TB', undefined],
]
for (const [text, bytes] of SIZES) {
  test(`parseSize: "${text}"`, () => assert.equal(parseSize(text), bytes))
}

const FORMATTED: readonly [number, string][] = [
  [0, '0 B'],
  [12, '12 B'],
  [999, '999 B'],
  [999.4, '999 B'],
  [1000, '1 kB'],
  [1234, '1.23 kB'],
  [99_940, '99.9 kB'],
  [99_960, '100 kB'],
  [999_499, '999 kB'],
  [999_500, '1 MB'],
  [532e6, '532 MB'],
  [1.44e9, '1.44 GB'],
  [16e9, '16 GB'],
  [2e18, '2000 PB'],
]
for (const [bytes, text] of FORMATTED) {
  test(`formatSize: ${bytes}`, () => assert.equal(formatSize(bytes), text))
}

const DURATIONS: readonly [number, string][] = [
  [-5, '0 s'],
  [0, '0 s'],
  [8400, '8 s'],
  [59_499, '59 s'],
  [59_500, '1 min'],
  [250_000, '4 min 10 s'],
  [3_600_000, '1 h'],
  [7_500_000, '2 h 5 min'],
]
for (const [ms, text] of DURATIONS) {
  test(`formatDuration: ${ms} ms`, () => assert.equal(formatDuration(ms), text))
}
