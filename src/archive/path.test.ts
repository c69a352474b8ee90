import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ArchiveError } from '../errors.ts'
import { ascii, type ByteString } from '../lib/bytes.ts'
import { canonicalPath, checkSymlinkTarget } from './path.ts'

const LONG = 'c'.repeat(255)
/** 15 components of 255 bytes and one of 254: 4094 and the slashes make it 4095 exactly. */
const LONGEST = [...Array(15).fill(LONG), 'c'.repeat(255)].join('/')

const CANONICAL = [
  ['a', 'a'],
  ['a/b', 'a/b'],
  ['./a/b', 'a/b'],
  ['././a', 'a'],
  ['a/', 'a'],
  ['a//b', 'a/b'],
  ['a/./b/.', 'a/b'],
  ['.', ''],
  ['./', ''],
  ['..a', '..a'],
  ['a/...', 'a/...'],
  ['.hidden', '.hidden'],
  ['a\nb \\', 'a\nb \\'],
  ['\xff\x80', '\xff\x80'],
  [`./${LONG}`, LONG],
  [LONGEST, LONGEST],
] as const

for (const [raw, path] of CANONICAL) {
  test(`path: ${JSON.stringify(raw.slice(0, 30))}`, () => {
    assert.equal(canonicalPath(ascii(raw)), path)
    assert.equal(canonicalPath(ascii(path === '' ? '.' : path)), path, 'the canonical form stays as it is')
  })
}

const REFUSED: readonly (readonly [string, RegExp])[] = [
  ['', /is empty/],
  ['/', /an absolute path/],
  ['/etc/passwd', /"\/etc\/passwd", which is an absolute path/],
  ['//a', /an absolute path/],
  ['..', /leaves the tree/],
  ['../a', /"\.\.\/a", which leaves the tree/],
  ['a/../b', /leaves the tree/],
  ['a/..', /leaves the tree/],
  ['./..', /leaves the tree/],
  ['a\0b', /"a\\x00b", which holds a NUL byte/],
  [`${LONG}c`, /a component of more than 255 bytes/],
  [`a/${LONG}c/b`, /a component of more than 255 bytes/],
  [`${LONGEST}/c`, /has 4097 bytes, more than 4095/],
]

for (const [raw, message] of REFUSED) {
  test(`path refused: ${JSON.stringify(raw.slice(0, 30))}`, () => {
    const isRefusal = (error: unknown) => error instanceof ArchiveError && message.test(error.message)
    assert.throws(() => canonicalPath(ascii(raw)), isRefusal)
    assert.throws(() => canonicalPath(ascii(raw), ascii('link')), /the hard link "link" points at/)
  })
}

test('symlink targets are kept as they are', () => {
  for (const target of ['a', '/etc', '../..', 'a//b/./', '\xff\n', 'x'.repeat(4095)] as ByteString[]) {
    assert.equal(checkSymlinkTarget(target, ascii('link')), target)
  }
})

test('symlink targets that no file system could hold are refused', () => {
  for (const target of ['', 'a\0b', 'x'.repeat(4096)] as ByteString[]) {
    assert.throws(() => checkSymlinkTarget(target, ascii('link')), /the symlink "link" has/)
  }
})
