import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ByteString } from '../lib/bytes.ts'
import { escapeBytes } from './contents.ts'

const CASES = [
  { name: 'plain', bytes: 'usr/lib/libc.so.6', escaped: 'usr/lib/libc.so.6' },
  { name: 'blank and newline', bytes: 'a b\nc', escaped: 'a\\040b\\012c' },
  { name: 'backslash', bytes: 'a\\b', escaped: 'a\\134b' },
  { name: 'comment and assignment', bytes: '#a=b', escaped: '\\043a\\075b' },
  { name: 'patterns', bytes: '[*?]', escaped: '\\133\\052\\077\\135' },
  { name: 'not UTF-8', bytes: '\xff\x00', escaped: '\\377\\000' },
  { name: 'UTF-8', bytes: '\xc3\xa9', escaped: '\\303\\251' },
]
for (const { name, bytes, escaped } of CASES) {
  test(`contents: escapes ${name}`, () => {
    assert.equal(escapeBytes(bytes as ByteString), escaped)
    const back = escaped.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)))
    assert.equal(back, bytes)
  })
}
