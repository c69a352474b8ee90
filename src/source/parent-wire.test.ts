import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  decodeBlobRequest,
  encodeBlobRequest,
  MAX_WANTED,
  type Sized,
  SPAN_BYTES,
  spansOf,
} from './parent-wire.ts'

const digest = (n: number): Uint8Array => new Uint8Array(32).fill(n)

test('a request for blobs is read as it was written, and nothing that is cut', () => {
  const request = {
    base: '801',
    from: SPAN_BYTES,
    wanted: [
      { digest: digest(1), base: digest(9) },
      { digest: digest(2), base: undefined },
    ],
  }
  const body = encodeBlobRequest(request)
  const read = decodeBlobRequest(body)
  assert.deepEqual(
    {
      ...read,
      wanted: read?.wanted.map(({ digest, base }) => ({
        digest: Uint8Array.from(digest),
        base: base && Uint8Array.from(base),
      })),
    },
    request,
  )
  const whole = [body.length - 64]
  for (let length = 0; length < body.length; length++)
    if (!whole.includes(length)) assert.equal(decodeBlobRequest(body.subarray(0, length)), undefined)
})

const REFUSED = [
  { what: 'no line', body: Buffer.alloc(64, 7) },
  { what: 'no blobs', body: Buffer.from('{"base":null,"from":0}\n') },
  {
    what: 'a start within a span',
    body: Buffer.concat([Buffer.from('{"base":null,"from":1}\n'), Buffer.alloc(64)]),
  },
  {
    what: 'a start before the first',
    body: Buffer.concat([Buffer.from('{"base":null,"from":-4194304}\n'), Buffer.alloc(64)]),
  },
  { what: 'a line that is not JSON', body: Buffer.concat([Buffer.from('{base}\n'), Buffer.alloc(64)]) },
  {
    what: 'too many',
    body: Buffer.concat([Buffer.from('{"base":null,"from":0}\n'), Buffer.alloc(64 * (MAX_WANTED + 1))]),
  },
]
for (const { what, body } of REFUSED)
  test(`a request with ${what} is refused`, () => assert.equal(decodeBlobRequest(body), undefined))

const S = SPAN_BYTES
const CUTS: {
  what: string
  blobs: Sized[]
  from?: number
  spans: [first: number, count: number, offset: number, bytes: number, dictionary?: [number, number]][]
}[] = [
  {
    what: 'small ones come together',
    blobs: [
      { size: 5, baseSize: 0 },
      { size: 7, baseSize: 0 },
    ],
    spans: [[0, 2, 0, 12]],
  },
  {
    what: 'as many as fit',
    blobs: [
      { size: S - 1, baseSize: 0 },
      { size: 1, baseSize: 0 },
      { size: 1, baseSize: 0 },
    ],
    spans: [
      [0, 2, 0, S],
      [2, 1, 0, 1],
    ],
  },
  {
    what: 'one with an earlier version by itself',
    blobs: [
      { size: 1, baseSize: 0 },
      { size: 10, baseSize: 20 },
      { size: 1, baseSize: 0 },
    ],
    spans: [
      [0, 1, 0, 1],
      [1, 1, 0, 10, [0, 20]],
      [2, 1, 0, 1],
    ],
  },
  {
    what: 'a large one in pieces',
    blobs: [{ size: 2 * S + 1, baseSize: 0 }],
    spans: [
      [0, 1, 0, S],
      [0, 1, S, S],
      [0, 1, 2 * S, 1],
    ],
  },
  {
    what: 'the rest of a large one',
    blobs: [{ size: 2 * S + 1, baseSize: 0 }],
    from: 2 * S,
    spans: [[0, 1, 2 * S, 1]],
  },
  {
    what: 'pieces beside those of the earlier version',
    blobs: [{ size: 2 * S, baseSize: S }],
    spans: [
      [0, 1, 0, S, [0, S]],
      [0, 1, S, S, [S - (1 << 20), 1 << 20]],
    ],
  },
]
for (const { what, blobs, from = 0, spans } of CUTS)
  test(`spans: ${what}`, () => {
    const expected = spans.map(([first, count, offset, bytes, dictionary]) => ({
      first,
      count,
      offset,
      bytes,
      dictionary: dictionary && { offset: dictionary[0], bytes: dictionary[1] },
    }))
    assert.deepEqual([...spansOf(blobs, from)], expected)
  })
