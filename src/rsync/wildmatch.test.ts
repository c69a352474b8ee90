import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fc } from '../../test/support/property.ts'
import type { ByteString } from '../lib/bytes.ts'
import { compilePattern, isWild } from './wildmatch.ts'

const matches = (pattern: string, text: string): boolean =>
  compilePattern(pattern as ByteString).matches(text as ByteString)

/** docs/rsync-protocol.md, section 5.4. */
const TABLE: readonly { pattern: string; yes: string[]; no: string[] }[] = [
  { pattern: '', yes: [''], no: ['a'] },
  { pattern: 'foo', yes: ['foo'], no: ['', 'fo', 'fooo', 'Foo'] },
  { pattern: '*', yes: ['', 'a', '.hidden', '\xff'], no: ['a/b', '/'] },
  { pattern: '**', yes: ['', 'a', 'a/b', '/'], no: [] },
  { pattern: '***', yes: ['', 'a/b'], no: [] },
  { pattern: '?', yes: ['a', '*', '\x80'], no: ['', 'ab', '/'] },
  { pattern: '??', yes: ['ab'], no: ['a', 'abc'] },
  { pattern: '*.o', yes: ['.o', 'a.o', 'a.o.o'], no: ['a.oo', 'd/a.o', 'o'] },
  { pattern: 'a*', yes: ['a', 'ab'], no: ['b', 'a/b', 'ab/c'] },
  { pattern: '*a*b*', yes: ['ab', 'xaxbx', 'aab'], no: ['ba', 'a/b'] },
  { pattern: 'a/*/b', yes: ['a/x/b', 'a//b'], no: ['a/b', 'a/x/y/b'] },
  { pattern: 'a/**/b', yes: ['a/x/b', 'a/x/y/b', 'a//b'], no: ['a/b', 'a/xb'] },
  { pattern: 'a**b', yes: ['ab', 'a/x/b', 'axxb'], no: ['abc'] },
  { pattern: '**/b', yes: ['/b', 'a/b', 'a/c/b'], no: ['b', 'ab'] },
  { pattern: 'a/**', yes: ['a/', 'a/b', 'a/b/c'], no: ['a', 'ab'] },
  { pattern: '**a*', yes: ['a', 'x/a', 'x/ab'], no: ['x', 'a/b', 'x/a/b'] },
  { pattern: '*/**x', yes: ['a/x', 'a/b/x', '/x'], no: ['x', 'a/y'] },
  { pattern: '**a*b/c', yes: ['x/a1b/c', 'a/ab/c', 'a/x/ab/c'], no: ['a/b/c', 'ab/d'] },
  { pattern: '[abc]', yes: ['a', 'b', 'c'], no: ['d', '', 'ab', '[abc]'] },
  { pattern: '[a-c]x', yes: ['ax', 'cx'], no: ['dx', '-x'] },
  { pattern: '[!a-c]', yes: ['d', '-'], no: ['a', 'b', '/', ''] },
  { pattern: '[^a]', yes: ['b', '^'], no: ['a', '/'] },
  { pattern: '[]a]', yes: [']', 'a'], no: ['b', ']a'] },
  { pattern: '[!]a]', yes: ['b'], no: [']', 'a'] },
  { pattern: '[a-]', yes: ['a', '-'], no: ['b'] },
  { pattern: '[-a]', yes: ['a', '-'], no: ['b'] },
  { pattern: '[c-a]', yes: [], no: ['a', 'b', 'c', '-'] },
  { pattern: '[\\]]', yes: [']'], no: ['\\'] },
  { pattern: '[\\a-\\c]', yes: ['a', 'b', 'c'], no: ['\\'] },
  { pattern: '[a/]', yes: ['a'], no: ['/'] },
  { pattern: '[\x80-\xff]', yes: ['\x80', '\xff'], no: ['\x7f'] },
  { pattern: '[[:digit:]]', yes: ['0', '9'], no: ['a', ':', '['] },
  { pattern: '[![:space:]x]', yes: ['a'], no: [' ', '\t', 'x'] },
  { pattern: '[[:alpha:]_][[:alnum:]_]', yes: ['a1', '_x'], no: ['1a'] },
  { pattern: '[[:upper:][:digit:]]', yes: ['A', '7'], no: ['a'] },
  { pattern: '[[:print:]]', yes: ['a', ' '], no: ['\x07', '\xe9'] },
  { pattern: '[[:xdigit:]-]', yes: ['f', 'F', '-'], no: ['g'] },
  { pattern: '[abc', yes: ['[abc'], no: ['a'] },
  { pattern: '[', yes: ['['], no: [''] },
  { pattern: 'br\\[a\\]ck', yes: ['br[a]ck'], no: ['brack', 'br\\[a\\]ck'] },
  { pattern: '\\*', yes: ['*'], no: ['a', '\\*'] },
  { pattern: '\\\\*', yes: ['\\', '\\a'], no: ['a'] },
  { pattern: 'a\\', yes: ['a\\'], no: ['a'] },
  { pattern: '\\a?', yes: ['ab'], no: ['\\ab'] },
]
for (const { pattern, yes, no } of TABLE) {
  test(`wildmatch: ${pattern}`, () => {
    for (const text of yes) assert.ok(matches(pattern, text), `should match ${JSON.stringify(text)}`)
    for (const text of no) assert.ok(!matches(pattern, text), `should not match ${JSON.stringify(text)}`)
  })
}

for (const [text, wild] of [
  ['', false],
  ['a/b', false],
  ['back\\slash', false],
  [']', false],
  ['*', true],
  ['a?', true],
  ['[', true],
] as const) {
  test(`isWild: ${JSON.stringify(text)}`, () => assert.equal(isWild(text as ByteString), wild))
}

/** The definition, word for word, and as slow as it pleases. */
function naive(pattern: string, text: string): boolean {
  const rest = (n: number): string => pattern.slice(n)
  if (pattern === '') return text === ''
  if (pattern.startsWith('**')) {
    const behind = pattern.replace(/^\*+/, '')
    for (let n = 0; n <= text.length; n++) if (naive(behind, text.slice(n))) return true
    return false
  }
  if (pattern[0] === '*') {
    for (let n = 0; n <= text.length; n++) {
      if (naive(rest(1), text.slice(n))) return true
      if (text[n] === '/') return false
    }
    return false
  }
  if (text === '') return false
  if (pattern[0] === '?') return text[0] !== '/' && naive(rest(1), text.slice(1))
  if (pattern.startsWith('[ab]')) return 'ab'.includes(text[0]!) && naive(rest(4), text.slice(1))
  if (pattern.startsWith('[!a]')) return !'a/'.includes(text[0]!) && naive(rest(4), text.slice(1))
  if (pattern[0] === '\\' && pattern.length > 1)
    return text[0] === pattern[1] && naive(rest(2), text.slice(1))
  return pattern[0] === text[0] && naive(rest(1), text.slice(1))
}

test('the matcher agrees with the plain definition', () => {
  const part = fc.constantFrom('a', 'a', 'b', '/', '*', '*', '**', '?', '[ab]', '[!a]', '\\a', '\\*')
  const patterns = fc.array(part, { maxLength: 9 }).map((parts) => parts.join(''))
  const texts = fc
    .array(fc.constantFrom('a', 'a', 'b', '/', '*'), { maxLength: 10 })
    .map((parts) => parts.join(''))
  const property = fc.property(patterns, texts, (pattern, text) => {
    assert.equal(matches(pattern, text), naive(pattern, text))
  })
  fc.assert(property, { numRuns: 20_000 })
})

/** Patterns that send a backtracking matcher round for ever, over the longest path there is. They end in a set: what ends in a
 * letter is told from most texts by that. */
const NASTY: readonly { pattern: string; text: string }[] = [
  { pattern: `${'*a'.repeat(2000)}[b]`, text: 'a'.repeat(4096) },
  { pattern: `${'**a'.repeat(2000)}[b]`, text: 'a'.repeat(4096) },
  { pattern: `**b*${'b'.repeat(2000)}[c]`, text: 'b'.repeat(4096) },
  { pattern: `**b*${'b'.repeat(1000)}[c]`, text: `${'b'.repeat(2000)}/`.repeat(2) },
  { pattern: `**?*?${'b'.repeat(20)}[c]`, text: `${'b'.repeat(40)}/`.repeat(100) },
  { pattern: `${'**/*b'.repeat(500)}[c]`, text: `${'b'.repeat(7)}/`.repeat(512) },
  { pattern: `${'*?'.repeat(2000)}[b]`, text: 'a'.repeat(4096) },
]
for (const { pattern, text } of NASTY) {
  test(`bounded work: ${pattern.slice(0, 20)} over ${text.slice(0, 10)}...`, () => {
    const work = { steps: 0 }
    assert.equal(compilePattern(pattern as ByteString, work).matches(text as ByteString), false)
    assert.ok(work.steps > text.length, `${work.steps} steps: it was told without trying`)
    assert.ok(work.steps < pattern.length * text.length, `${work.steps} steps`)
  })
}
