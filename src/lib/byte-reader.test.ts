import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConnectionLost } from '../errors.ts'
import { ByteReader, type Decoded } from './byte-reader.ts'

/** A reader over these pieces, and how many of them it has pulled. */
function readerOf(pieces: readonly string[]): { reader: ByteReader; pulled: () => number } {
  let at = 0
  const reader = new ByteReader(async () => {
    const piece = pieces[at++]
    return piece === undefined ? undefined : Buffer.from(piece)
  })
  return { reader, pulled: () => at }
}

/** A line up to its end. */
function line(bytes: Uint8Array): Decoded<string> | undefined {
  const end = bytes.indexOf(0x0a)
  return end < 0 ? undefined : { value: Buffer.from(bytes.subarray(0, end)).toString(), size: end + 1 }
}

for (const pieces of [
  ['one\ntwo\nrest'],
  ['one\nt', 'wo\nre', 'st'],
  [...'one\ntwo\nrest'],
  ['', 'one\n', '', 'two\nrest'],
]) {
  test(`decodes the same however it is cut: ${JSON.stringify(pieces)}`, async () => {
    const { reader } = readerOf(pieces)
    assert.equal(await reader.decode(line), 'one')
    assert.equal(await reader.decode(line), 'two')
    assert.equal(reader.consumed, 8)
    assert.equal((await reader.bytes(4)).toString(), 'rest')
    assert.equal(await reader.ended(), true)
    assert.equal(await reader.some(), undefined)
  })
}

test('pulls nothing before it is needed', async () => {
  const { reader, pulled } = readerOf(['one\ntwo\n', 'three\n'])
  assert.equal(pulled(), 0)
  assert.equal(reader.tryDecode(line), undefined)
  await reader.decode(line)
  assert.equal(reader.available, 4)
  assert.equal(reader.tryDecode(line), 'two')
  assert.equal(reader.tryDecode(line), undefined)
  assert.equal(pulled(), 1)
})

test('bytes gives memory of its own', async () => {
  const piece = Buffer.from('abcd')
  const reader = new ByteReader(async () => piece)
  const got = await reader.bytes(2)
  piece.fill('x')
  assert.equal(got.toString(), 'ab')
})

test('bytes and discard cross pieces', async () => {
  const { reader } = readerOf(['ab', 'cd', 'ef'])
  assert.equal((await reader.bytes(3)).toString(), 'abc')
  await reader.discard(2)
  assert.equal(reader.consumed, 5)
  assert.equal((await reader.some())?.toString(), 'f')
  assert.equal((await reader.bytes(0)).length, 0)
})

test('some gives at most what was asked for', async () => {
  const { reader } = readerOf(['abcdef'])
  assert.equal((await reader.some(4))?.toString(), 'abcd')
  assert.equal((await reader.some(4))?.toString(), 'ef')
  assert.equal(await reader.some(4), undefined)
})

for (const pieces of [['one\n\ntwo\nrest'], ['one', '\n\nt', 'wo\nre', 'st'], [...'one\n\ntwo\nrest']]) {
  test(`until stops at the terminator however it is cut: ${JSON.stringify(pieces)}`, async () => {
    const { reader } = readerOf(pieces)
    for (const expected of ['one', '', 'two'])
      assert.equal((await reader.until(0x0a, 3))?.toString(), expected)
    assert.equal(reader.consumed, 9)
    assert.equal((await reader.bytes(4)).toString(), 'rest')
  })
}

for (const pieces of [['four\n'], [...'four\n'], ['four'], ['fou', 'r']]) {
  test(`until takes no more than its limit: ${JSON.stringify(pieces)}`, async () => {
    assert.equal(await readerOf(pieces).reader.until(0x0a, 3), undefined)
  })
}

const WAITS: Record<string, (reader: ByteReader) => Promise<unknown>> = {
  decode: (reader) => reader.decode(line),
  bytes: (reader) => reader.bytes(4),
  discard: (reader) => reader.discard(4),
  until: (reader) => reader.until(0x0a, 4),
}
for (const [name, wait] of Object.entries(WAITS)) {
  test(`an end in mid-sentence is a lost connection: ${name}`, async () => {
    const { reader } = readerOf(['abc'])
    await assert.rejects(wait(reader), ConnectionLost)
  })
}

test('a decoder that throws has taken nothing', async () => {
  const { reader } = readerOf(['abc'])
  await assert.rejects(
    reader.decode(() => {
      throw new Error('never right')
    }),
    /never right/,
  )
  assert.equal(reader.consumed, 0)
  assert.equal((await reader.bytes(3)).toString(), 'abc')
})
