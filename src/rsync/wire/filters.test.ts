import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PeerError } from '../../errors.ts'
import type { ByteString } from '../../lib/bytes.ts'
import { type DirMergeRule, type FilterRule, type PatternRule, parseRule } from './filters.ts'

const pattern = (include: boolean, text: string, more: Partial<PatternRule> = {}): FilterRule => ({
  type: 'pattern',
  include,
  pattern: text as ByteString,
  negate: false,
  fromModuleRoot: false,
  ...more,
})
const include = (text: string, more?: Partial<PatternRule>): FilterRule => pattern(true, text, more)
const exclude = (text: string, more?: Partial<PatternRule>): FilterRule => pattern(false, text, more)
const merge = (file: string, more: Partial<DirMergeRule> = {}): FilterRule => ({
  type: 'dir-merge',
  file: file as ByteString,
  searchedFrom: undefined,
  fromModuleRoot: false,
  noInherit: false,
  words: false,
  bare: undefined,
  negate: false,
  ...more,
})
const attribute = (include: boolean, text: string, negate = false): FilterRule => ({
  type: 'attribute',
  include,
  pattern: text as ByteString,
  negate,
})
const IGNORED: FilterRule = { type: 'ignored' }

/** docs/rsync-protocol.md, sections 5.2 and 5.3, protocol 29 and later. */
const RULES: readonly [string, FilterRule][] = [
  ['- *.o', exclude('*.o')],
  ['+ */', include('*/')],
  ['-_*.o', exclude('*.o')],
  ['- a b', exclude('a b')],
  ['-  a', exclude(' a')],
  ['- a ', exclude('a ')],
  ['- # no comment', exclude('# no comment')],
  ['exclude *.o', exclude('*.o')],
  ['include,s a', include('a')],
  ['exclude_a', exclude('a')],
  ['-,! a', exclude('a', { negate: true })],
  ['-! a', exclude('a', { negate: true })],
  ['-/ /etc/passwd', exclude('/etc/passwd', { fromModuleRoot: true })],
  ['-!/ a', exclude('a', { negate: true, fromModuleRoot: true })],
  ['-p .~tmp~/', exclude('.~tmp~/')],
  ['-s a', exclude('a')],
  ['+s a', include('a')],
  ['-sr a', exclude('a')],
  ['H a', exclude('a')],
  ['hide a', exclude('a')],
  ['S a', include('a')],
  ['show a', include('a')],
  // What concerns the receiving side.
  ['-r a', IGNORED],
  ['+r a', IGNORED],
  ['P a', IGNORED],
  ['protect a', IGNORED],
  ['R a', IGNORED],
  ['risk a', IGNORED],
  ['-xr user.*', IGNORED],
  [':r .rules', IGNORED],
  [':x .rules', IGNORED],
  // Names of extended attributes.
  ['-x user.*', attribute(false, 'user.*')],
  ['-xs user.*', attribute(false, 'user.*')],
  ['+x user.*', attribute(true, 'user.*')],
  ['-x! user.*', attribute(false, 'user.*', true)],
  // Per-directory files.
  [': .rsync-filter', merge('.rsync-filter')],
  [': /.rsync-filter', merge('.rsync-filter', { searchedFrom: '/' as ByteString })],
  [': /a/b/.rules', merge('.rules', { searchedFrom: '/a/b/' as ByteString })],
  ['dir-merge ../.rules', merge('.rules', { searchedFrom: '../' as ByteString })],
  [':/ .rules', merge('.rules', { fromModuleRoot: true })],
  ['dir-merge .rules', merge('.rules')],
  [':n .rules', merge('.rules', { noInherit: true })],
  [':w .rules', merge('.rules', { words: true })],
  [':- .rules', merge('.rules', { bare: 'exclude' })],
  [':+ .rules', merge('.rules', { bare: 'include' })],
  [':! .rules', merge('.rules', { negate: true })],
  [':e .rules', merge('.rules')],
  [':C', merge('.cvsignore', { noInherit: true, words: true, bare: 'exclude' })],
  [':C .ignore', merge('.ignore', { noInherit: true, words: true, bare: 'exclude' })],
  ['. .rules', merge('.rules')],
  // The rest.
  ['!', { type: 'clear' }],
  ['clear', { type: 'clear' }],
  ['-C', { type: 'cvs-defaults' }],
  ['-C ', { type: 'cvs-defaults' }],
]

for (const [text, rule] of RULES) {
  test(`rule: ${text}`, () => assert.deepEqual(parseRule(text as ByteString, false), rule))
}

const NEVER_RIGHT = [
  '',
  ' ',
  'a',
  '*.o',
  'x a',
  '-',
  '- ',
  '+ ',
  '-e a',
  '-q a',
  '-*.o',
  'excludes a',
  ':',
  ': ',
  ': /',
  ': a/',
  ':x a/',
  ':q .rules',
  '!r',
  'H',
]
for (const text of NEVER_RIGHT) {
  test(`never right: ${JSON.stringify(text)}`, () => {
    assert.throws(() => parseRule(text as ByteString, false), PeerError)
  })
}

/** Protocol 28 and older. */
const OLD_RULES: readonly [string, FilterRule][] = [
  ['*.o', exclude('*.o')],
  ['- *.o', exclude('*.o')],
  ['+ *.o', include('*.o')],
  ['- - a', exclude('- a')],
  ['- + a', exclude('+ a')],
  ['-a', exclude('-a')],
  ['H a', exclude('H a')],
  [': .rules', exclude(': .rules')],
  ['!', { type: 'clear' }],
  ['!a', exclude('!a')],
]
for (const [text, rule] of OLD_RULES) {
  test(`old rule: ${text}`, () => assert.deepEqual(parseRule(text as ByteString, true), rule))
}

for (const text of ['', '+ ', '- ']) {
  test(`old rule, never right: ${JSON.stringify(text)}`, () => {
    assert.throws(() => parseRule(text as ByteString, true), PeerError)
  })
}

test('a bad rule is shown so that it can do no harm', () => {
  assert.throws(() => parseRule('\x1b[2Jx' as ByteString, false), /\\x1b\[2Jx/)
})
