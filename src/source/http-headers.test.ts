import assert from 'node:assert/strict'
import test from 'node:test'
import {
  isSameVersion,
  parseContentRange,
  parseRetryAfter,
  strongValidator,
  versionOf,
} from './http-headers.ts'

const RANGES = [
  { text: 'bytes 5-9/10', range: { start: 5, end: 9, total: 10 } },
  { text: 'Bytes 0-0/1', range: { start: 0, end: 0, total: 1 } },
  { text: ' bytes 5-9/* ', range: { start: 5, end: 9, total: undefined } },
  {
    text: 'bytes 5-9007199254740990/9007199254740991',
    range: { start: 5, end: 2 ** 53 - 2, total: 2 ** 53 - 1 },
  },
  { text: 'bytes 5-9999999999999998/9999999999999999', range: undefined },
  { text: 'bytes */10', range: undefined },
  { text: 'bytes 9-5/10', range: undefined },
  { text: 'bytes 5-10/10', range: undefined },
  { text: 'bytes -5-9/10', range: undefined },
  { text: 'bytes=5-9/10', range: undefined },
  { text: 'bytes 5-9', range: undefined },
  { text: 'items 5-9/10', range: undefined },
  { text: '', range: undefined },
  { text: undefined, range: undefined },
]
for (const { text, range } of RANGES)
  test(`Content-Range: ${text}`, () => assert.deepEqual(parseContentRange(text), range))

const NOW = Date.parse('Sun, 22 Nov 2026 12:00:00 GMT')
const AFTER = [
  { text: '0', ms: 0 },
  { text: '120', ms: 120_000 },
  { text: 'Sun, 22 Nov 2026 12:01:00 GMT', ms: 60_000 },
  { text: 'Sun, 22 Nov 2026 11:00:00 GMT', ms: 0 },
  { text: '-1', ms: undefined },
  { text: '1.5', ms: undefined },
  { text: 'soon', ms: undefined },
  { text: '', ms: undefined },
  { text: undefined, ms: undefined },
]
for (const { text, ms } of AFTER)
  test(`Retry-After: ${text}`, () => assert.equal(parseRetryAfter(text, NOW), ms))

const DATE = 'Sun, 22 Nov 2026 12:00:00 GMT'
const OLD = 'Sat, 21 Nov 2026 12:00:00 GMT'
const VALIDATORS = [
  { name: 'strong ETag', headers: { etag: '"a"', 'last-modified': OLD, date: DATE }, validator: '"a"' },
  {
    name: 'weak ETag and a date',
    headers: { etag: 'W/"a"', 'last-modified': OLD, date: DATE },
    validator: OLD,
  },
  { name: 'weak ETag', headers: { etag: 'W/"a"' }, validator: undefined },
  { name: 'date only', headers: { 'last-modified': OLD, date: DATE }, validator: OLD },
  { name: 'date of this very second', headers: { 'last-modified': DATE, date: DATE }, validator: undefined },
  { name: 'date without a clock', headers: { 'last-modified': OLD }, validator: undefined },
  { name: 'no date at all', headers: { 'last-modified': 'today', date: DATE }, validator: undefined },
  { name: 'unquoted ETag', headers: { etag: 'a' }, validator: undefined },
  { name: 'ETag with a quote inside', headers: { etag: '"a"b"' }, validator: undefined },
  { name: 'empty ETag', headers: { etag: '""' }, validator: '""' },
  { name: 'nothing', headers: {}, validator: undefined },
]
for (const { name, headers, validator } of VALIDATORS)
  test(`validator: ${name}`, () => assert.equal(strongValidator(versionOf(headers)), validator))

const version = (etag: string | undefined, lastModified: string | undefined, size: number | undefined) => ({
  etag,
  lastModified,
  size,
})
const SAME = [
  { name: 'ETag', a: version('"a"', undefined, 5), b: version('"a"', undefined, 5), same: true },
  { name: 'ETag decides', a: version('"a"', OLD, 5), b: version('"b"', OLD, 5), same: false },
  { name: 'other size', a: version('"a"', OLD, 5), b: version('"a"', OLD, 6), same: false },
  { name: 'size unknown in one', a: version('"a"', OLD, 5), b: version('"a"', OLD, undefined), same: false },
  {
    name: 'size unknown in both',
    a: version('"a"', OLD, undefined),
    b: version('"a"', OLD, undefined),
    same: true,
  },
  { name: 'weak ETags', a: version('W/"a"', undefined, 5), b: version('W/"a"', undefined, 5), same: false },
  { name: 'date', a: version(undefined, OLD, 5), b: version('W/"a"', OLD, 5), same: true },
  { name: 'other date', a: version(undefined, OLD, 5), b: version(undefined, DATE, 5), same: false },
  {
    name: 'nothing to tell by',
    a: version(undefined, undefined, 5),
    b: version(undefined, undefined, 5),
    same: false,
  },
]
for (const { name, a, b, same } of SAME)
  test(`same version: ${name}`, () => {
    assert.equal(isSameVersion(a, b), same)
    assert.equal(isSameVersion(b, a), same)
  })
