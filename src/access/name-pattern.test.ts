import assert from 'node:assert/strict'
import { test } from 'node:test'
import { matchesName } from './name-pattern.ts'

for (const [pattern, matching, others] of [
  ['build-1', ['build-1'], ['', 'build-', 'build-11', 'xbuild-1', 'Build-1', 'build-1\n']],
  ['*', ['', 'x', '\n', '*'], []],
  ['build-*', ['build-', 'build-x', 'build-\n', 'build-*'], ['build', 'xbuild-']],
  ['*-1', ['-1', 'a-1', 'a-1-1', '-1-1'], ['', '1', '-1a', 'a-1-']],
  ['a*b*c', ['abc', 'aXbYc', 'abbcc', 'abcbc', 'aabbc'], ['ac', 'acb', 'abcX', 'Xabc']],
  ['a**b', ['ab', 'axb'], ['a', 'b', 'abx']],
  ['build-80?', ['build-801', 'build-80?', 'build-80\n'], ['build-80', 'build-8011']],
  ['?*?', ['ab', 'abc'], ['', 'a']],
  ['*?', ['a', 'ab'], ['']],
  ['1.0+[x]|(y)^$\\', ['1.0+[x]|(y)^$\\'], ['1x0+[x]|(y)^$\\', '1.0+x|(y)^$\\', '1.00']],
  ['', [''], ['x']],
] as const) {
  test(`names: "${pattern}"`, () => {
    for (const name of matching) assert.equal(matchesName(pattern, name), true, JSON.stringify(name))
    for (const name of others) assert.equal(matchesName(pattern, name), false, JSON.stringify(name))
  })
}

test('names: those of up to five letters match as by trying every way', () => {
  const slow = (pattern: string, name: string): boolean => {
    if (pattern === '') return name === ''
    if (pattern[0] === '*') {
      return slow(pattern.slice(1), name) || (name !== '' && slow(pattern, name.slice(1)))
    }
    return (
      name !== '' && (pattern[0] === '?' || pattern[0] === name[0]) && slow(pattern.slice(1), name.slice(1))
    )
  }
  const words = (letters: string, length: number): string[] =>
    length === 0
      ? ['']
      : words(letters, length - 1).flatMap((word) => [word, ...[...letters].map((letter) => word + letter)])
  const names = [...new Set(words('ab', 5))]
  for (const pattern of new Set(words('ab*?', 4))) {
    for (const name of names) {
      assert.equal(matchesName(pattern, name), slow(pattern, name), `${pattern} and ${name}`)
    }
  }
})

test('a name that a client made to be costly: rows of what many stars look for', { timeout: 20_000 }, () => {
  // Every way that there is would take longer than the world is old.
  assert.equal(matchesName(`${'*-'.repeat(20)}x`, '-'.repeat(4096)), false)
  assert.equal(matchesName(`${'*-'.repeat(20)}*`, '-'.repeat(4096)), true)
})
