import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  asBuffer,
  type ByteString,
  byteString,
  compareBytes,
  joinBytes,
  showBytes,
  showJson,
  showText,
  splitBytes,
  toBuffer,
  utf8Bytes,
} from './bytes.ts'

test('every byte survives the way into a ByteString and back', () => {
  const all = Uint8Array.from({ length: 256 }, (_, i) => i)
  const bytes = byteString(all)
  assert.equal(bytes.length, 256)
  assert.deepEqual(toBuffer(bytes), Buffer.from(all))
  assert.deepEqual(toBuffer(byteString(all, 200, 203)), Buffer.from([200, 201, 202]))
})

test('text becomes its UTF-8 bytes', () => {
  assert.equal(utf8Bytes('é'), 'Ã©')
  assert.deepEqual(toBuffer(utf8Bytes('é→')), Buffer.from('é→'))
})

test('joins and splits stay in bytes', () => {
  const parts = splitBytes(utf8Bytes('a/é/b'), '/')
  assert.deepEqual(parts, ['a', 'Ã©', 'b'])
  assert.equal(joinBytes(parts, '/'), utf8Bytes('a/é/b'))
})

test('compares as memcmp does', () => {
  const sorted = ['', '\x00', '-', 'a', 'a\x00', 'aa', 'b', '\x7f', '\x80', '\xff'] as ByteString[]
  for (let i = 0; i < sorted.length; i++) {
    for (let j = 0; j < sorted.length; j++) {
      assert.equal(compareBytes(sorted[i]!, sorted[j]!), Math.sign(i - j))
      const asMemcmp = Buffer.compare(toBuffer(sorted[i]!), toBuffer(sorted[j]!))
      assert.equal(compareBytes(sorted[i]!, sorted[j]!), asMemcmp)
    }
  }
})

const SHOWN = [
  { name: 'plain text', bytes: 'etc/passwd', shown: 'etc/passwd' },
  { name: 'UTF-8', bytes: utf8Bytes('Grüße →'), shown: 'Grüße →' },
  { name: 'bytes that are no UTF-8', bytes: 'caf\xe9', shown: 'caf\\xe9' },
  { name: 'a line break that would forge a log line', bytes: 'a\nb\r\tc', shown: 'a\\nb\\x0d\\tc' },
  { name: 'an escape sequence for a terminal', bytes: '\x1b[2J\x07\x7f', shown: '\\x1b[2J\\x07\\x7f' },
  { name: 'C1 controls', bytes: utf8Bytes('\u009b'), shown: '\\x9b' },
  { name: 'marks that turn the direction of text', bytes: utf8Bytes('a\u202eb'), shown: 'a\\u202eb' },
  { name: 'a backslash', bytes: 'a\\n', shown: 'a\\\\n' },
]
for (const { name, bytes, shown } of SHOWN) {
  test(`showBytes: ${name}`, () => assert.equal(showBytes(bytes as ByteString), shown))
}

test('showText leaves what showBytes has shown as it is, and everything that is not for a terminal to obey', () => {
  for (const { bytes, shown } of SHOWN) assert.equal(showText(shown), shown, bytes)
  assert.equal(
    showText('a\x1b]0;b\x07\r\n\tc\u009b\u202e\u2028é\\'),
    'a\\x1b]0;b\\x07\\x0d\\n\\tc\\x9b\\u202e\\u2028é\\',
  )
})

test('showJson says the same as JSON does, and nothing that is for a terminal to obey', () => {
  const value = { 'a\u202e': ['\x1b[2J\x7f', 'm\u009b\u0085\u2028\u2066', 'é\\"\n', 1, null], b: {} }
  const shown = showJson(value)
  assert.deepEqual(JSON.parse(shown), value)
  assert.match(shown, /^[^\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+$/)
  assert.match(shown, /^\{\n {2}"a\\u202e": \[\n {4}"\\u001b\[2J\\u007f",\n {4}"m\\u009b/)
})

test('showBytes cuts what is long', () => {
  assert.equal(showBytes('x'.repeat(300) as ByteString), `${'x'.repeat(200)}...`)
  assert.equal(showBytes('abc' as ByteString, 3), 'abc')
  assert.equal(showBytes('abcd' as ByteString, 3), 'abc...')
})

test('asBuffer shares the memory', () => {
  const data = new Uint8Array([1, 2, 3, 4]).subarray(1, 3)
  asBuffer(data)[0] = 9
  assert.equal(data[0], 9)
  assert.equal(asBuffer(data).length, 2)
})
