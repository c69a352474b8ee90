/** Attacks by filter rules: rules without end, patterns that explode, rule files of the build. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ByteString } from '../../src/lib/bytes.ts'
import { compilePattern } from '../../src/rsync/wildmatch.ts'
import {
  framed,
  HostileServer,
  NO_FILTERS,
  rule,
  start,
  testAttacks,
  text,
  worked,
} from '../support/hostile.ts'
import type { MemoryNode } from '../support/memory-tree.ts'

/** As many rules as are taken, all of them this one. */
const full = (characters: string): Buffer =>
  Buffer.concat(Array.from({ length: Math.floor((256 * 1024) / characters.length) }, () => rule(characters)))

testAttacks([
  {
    name: 'a rule of 2^31 bytes',
    says: () => [start('-r', '.', 'm/'), framed(Buffer.from('ffffff7f', 'hex'))],
    outcome: 'peer-error',
    error: /a rule of 2147483647 bytes/,
  },
  {
    name: 'a rule of less than no bytes',
    says: () => [start('-r', '.', 'm/'), framed(Buffer.from('ffffffff', 'hex'))],
    outcome: 'peer-error',
    error: /a rule of -1 bytes/,
  },
  {
    name: 'rules without end',
    says: () => [start('-r', '.', 'm/'), framed(full(`- ${'*a'.repeat(4095)}`), full('- a'))],
    outcome: 'peer-error',
    error: /bytes of rules/,
  },
  ...['**?*', '[', '[a-', '[[:alpha:]', '*[a]'].map((piece) => ({
    name: `as many rules as are taken, made of ${piece}`,
    says: () => [
      start('-r', '.', 'm/'),
      framed(full(`- ${piece.repeat(8188 / piece.length)}`), NO_FILTERS, Buffer.alloc(5)),
    ],
    outcome: 'done' as const,
    passes: 250,
  })),
  {
    name: 'more rules than are taken, of few bytes each',
    says: () => [start('-r', '.', 'm/'), framed(full('- a'))],
    outcome: 'peer-error',
    error: /more than 65536 rules/,
  },
  {
    name: 'per-directory rules, thousands of them',
    says: () => [start('-r', '.', 'm/'), framed(full(': .rules'), NO_FILTERS)],
    outcome: 'peer-error',
    error: /more than 64 per-directory rules/,
  },
  {
    name: 'per-directory rules and what clears them, over and over',
    says: () => {
      const clear = Buffer.concat([...Array.from({ length: 60 }, () => rule(': .rules')), rule('!')])
      return [
        start('-r', '.', 'm/'),
        framed(...Array.from({ length: 400 }, () => clear), NO_FILTERS, Buffer.alloc(5)),
      ]
    },
    outcome: 'done',
  },
  {
    name: 'control characters in a rule that is wrong',
    says: () => [start('-r', '.', 'm/'), framed(rule('?\x1b[2J\x07'))],
    outcome: 'peer-error',
    holds: ({ output }) =>
      assert.doesNotMatch(
        output.subarray(output.indexOf('no such kind')).toString('latin1').split('\n')[0]!,
        /[\x00-\x1f]/,
      ),
  },
])

// ---------------------------------------------------------------------------------------------------
// One long name, and rules that must all be tried on it: seconds of work, in slices.

const directory = (children: Record<string, MemoryNode>): MemoryNode => ({ mode: 0o040755, children })
let deep: MemoryNode = directory({ aaaaaaaaa: { mode: 0o100644, data: Buffer.alloc(0) } })
for (let i = 0; i < 20; i++) deep = directory({ aaaaaaaaa: deep })
testAttacks(
  ['?**?*?*?*?*?*[z]', '?**a*[z]'].map((pattern) => ({
    name: `many rules of ${pattern} on long paths`,
    says: () => [
      // One name: whatever the rules cost must be paid in slices within it.
      start('-R', '.', `m/${'aaaaaaaaa/'.repeat(20)}aaaaaaaaa`),
      framed(
        // A thirteenth of what is taken.
        ...Array.from({ length: Math.floor(20_000 / pattern.length) }, () => rule(`- ${pattern}`)),
        NO_FILTERS,
        Buffer.alloc(5),
      ),
    ],
    outcome: 'done' as const,
  })),
  new HostileServer({}, deep),
)

/** 15,000 rules: with those of four directories above they are too many. */
const SOME: MemoryNode = { mode: 0o100644, data: Buffer.alloc(30_000, 'y ') }
testAttacks(
  [
    {
      name: 'a rule file of the build that was never meant as one',
      says: () => [start('-r', '.', 'm/'), framed(rule(':- lines'), NO_FILTERS, Buffer.alloc(5))],
      outcome: 'peer-error',
      error: /more than 65536 rules in rule files, with "lines"/,
    },
    {
      name: 'a rule file of the build with as many words as fit',
      says: () => [start('-r', '.', 'm/'), framed(rule(':wn- letters'), NO_FILTERS)],
      outcome: 'peer-error',
      error: /more than 65536 rules in rule files, with "letters"/,
    },
    {
      name: 'a rule file of the build with as many rules as are taken',
      says: () => [start('-r', '.', 'm/'), framed(rule(':wn- most'), NO_FILTERS, Buffer.alloc(5))],
      outcome: 'done',
      passes: 250,
    },
    {
      name: 'one rule file of the build, asked for again and again',
      says: () => [
        start('-r', '.', 'm/'),
        framed(...Array.from({ length: 64 }, () => rule(':wn- some')), NO_FILTERS),
      ],
      outcome: 'peer-error',
      error: /more than 65536 rules in rule files, with "some"/,
    },
    {
      name: 'a rule file in each directory, each with what those above it say',
      says: () => [start('-r', '.', 'm/'), framed(rule(':w- some'), NO_FILTERS, Buffer.alloc(5))],
      outcome: 'peer-error',
      error: /more than 65536 rules in rule files, with "some"/,
    },
    {
      name: 'a rule file of the build that asks for the defaults, over and over',
      says: () => [start('-r', '.', 'm/'), framed(rule(':n defaults'), NO_FILTERS, Buffer.alloc(5))],
      outcome: 'done',
      passes: 100,
    },
    {
      name: 'a rule file of the build that is too large',
      says: () => [start('-r', '.', 'm/'), framed(rule(':- huge'), NO_FILTERS)],
      outcome: 'peer-error',
      error: /the rule file "huge" is too large/,
    },
    {
      name: 'a rule file of the build that is no rule file',
      says: () => [start('-r', '.', 'm/'), framed(rule(': huge'), rule(': binary'), NO_FILTERS)],
      outcome: 'peer-error',
    },
  ],
  new HostileServer(
    {},
    directory({
      lines: { mode: 0o100644, data: Buffer.alloc(1 << 20, '- x0\n') },
      letters: { mode: 0o100644, data: Buffer.alloc(1 << 20, 'y ') },
      most: { mode: 0o100644, data: Buffer.alloc(2 * 65_536, 'y ') },
      some: SOME,
      below: [1, 2, 3, 4].reduce((below) => directory({ some: SOME, below }), directory({ some: SOME })),
      defaults: { mode: 0o100644, data: Buffer.alloc(1_048_575, '-C\n') },
      huge: { mode: 0o100644, data: Buffer.alloc(2e6, 'x\n') },
      binary: { mode: 0o100644, data: Buffer.from('\x7fELF\x00\x01\x02') },
      sub: directory({ words: { mode: 0o100644, data: text('- a\n') } }),
    }),
  ),
)

// ---------------------------------------------------------------------------------------------------
// Patterns that make other matchers explode: no worse than the same bytes without stars, times the length
// of the name. They end in a set: what ends in a letter is told from most names by that.

/** What so many matches cost, in ms of our own time: the best of three, as garbage is collected in others. */
function cost(pattern: string, name: string, times: number): number {
  const compiled = compilePattern(pattern as ByteString)
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < 3; round++) {
    const began = worked()
    for (let i = 0; i < times; i++) compiled.matches(name as ByteString)
    best = Math.min(best, worked() - began)
  }
  return best
}

for (const pattern of [
  `${'*a'.repeat(30)}[b]`,
  `${'**a'.repeat(30)}[b]`,
  `${'a*'.repeat(60)}[b]`,
  `${'*?'.repeat(40)}[b]`,
  `${'**/'.repeat(20)}[b]`,
  `${'*[a-z]'.repeat(30)}[b]`,
  `**/${'*a'.repeat(10)}/**/${'*a'.repeat(10)}[b]`,
]) {
  test(`attack: ${pattern.slice(0, 24)}... on long names`, () => {
    const name = Array.from({ length: 8 }, () => 'a'.repeat(31)).join('/')
    // Linear work over the same bytes: one pass of literal bytes, of which the last is another.
    const baseline = cost(`${name.slice(0, -1)}[b]`, name, 20_000) / 20_000
    const each = cost(pattern, name, 200) / 200
    const ratio = each / Math.max(baseline, 0.0002)
    assert.ok(ratio < 2 * name.length, `${ratio.toFixed(0)} times a linear match`)
  })
}
