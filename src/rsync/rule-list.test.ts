import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fc } from '../../test/support/property.ts'
import type { ByteString } from '../lib/bytes.ts'
import { applies, compileRule, type Named, type Rule } from './filter-rule.ts'
import { RuleList } from './rule-list.ts'

const component = fc.constantFrom('a', 'b', 'ab', 'a.b', 'x', 'a\\b')
const wildComponent = fc.constantFrom('*', '?', 'a*', '*.b', '[ab]', '**', '***')
const path = fc.array(component, { minLength: 1, maxLength: 5 }).map((parts) => parts.join('/') as ByteString)
const bases = fc.constantFrom(undefined, '' as ByteString, 'a' as ByteString, 'a/b' as ByteString)
const pattern = fc
  .tuple(
    fc.constantFrom('', '/'),
    fc.array(fc.oneof({ weight: 4, arbitrary: component }, { weight: 1, arbitrary: wildComponent }), {
      minLength: 1,
      maxLength: 4,
    }),
    fc.constantFrom('/', '', '//', '//a'),
  )
  .map(([before, parts, behind]) => (before + parts.join('/') + behind) as ByteString)
const rule: fc.Arbitrary<Rule> = fc
  .record({
    pattern,
    include: fc.boolean(),
    negate: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
    fromModuleRoot: fc.boolean(),
    base: bases,
  })
  .map(({ base, ...given }) => compileRule({ type: 'pattern', ...given }, { steps: 0 }, base))
const named: fc.Arbitrary<Named> = fc
  .record({ name: path, root: fc.constantFrom('', 'a/', 'x/b/'), isDirectory: fc.boolean() })
  .map(({ name, root, isDirectory }) => ({ name, path: (root + name) as ByteString, isDirectory }))

function listOf(rules: readonly Rule[]): RuleList {
  const list = new RuleList()
  for (const rule of rules) list.add(rule)
  return list
}

/** As the session goes through a list. */
function firstOf(list: RuleList, name: Named): number {
  const literal = list.firstLiteral(name)
  const tried = list.tried.find((place) => place < literal && applies(list.rules[place]!, name))
  return tried ?? Math.min(literal, list.rules.length)
}

test('the first rule that applies is the same as in the order of the rules', () => {
  fc.assert(
    fc.property(
      fc.array(rule, { maxLength: 40 }),
      fc.array(named, { minLength: 1, maxLength: 20 }),
      (rules, names) => {
        const list = listOf(rules)
        for (const name of names) {
          const first = rules.findIndex((rule) => applies(rule, name))
          assert.equal(firstOf(list, name), first < 0 ? rules.length : first)
        }
      },
    ),
    { numRuns: 1000 },
  )
})

test('literals that names are looked up for are tried no more, but those of absurd depth', () => {
  const literal = (text: string): Rule =>
    compileRule(
      { type: 'pattern', include: false, pattern: text as ByteString, negate: false, fromModuleRoot: false },
      { steps: 0 },
    )
  const rules = Array.from({ length: 20 }, (_, n) => literal(`a/${n}`))
  const list = listOf([...rules, literal('*'), literal('a/'.repeat(5000))])
  assert.deepEqual(list.tried, [20, 21])
  assert.equal(list.tables, 1)
})
