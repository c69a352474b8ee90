import assert from 'node:assert/strict'
import { test } from 'node:test'
import { replacePart, table } from './markdown.ts'

test('a table lines up, and a row that is too short is filled', () => {
  assert.equal(
    table(['what', 'n'], [['update', '1'], ['poll']]),
    '| what   | n   |\n|--------|-----|\n| update | 1   |\n| poll   |     |\n',
  )
})

test('a part is replaced where it is, and the rest of the page stays', () => {
  const page = 'before\n<!-- run: begin -->\nold\n<!-- run: end -->\nafter\n'
  const expected = 'before\n<!-- run: begin -->\n\nnew $&\n\n<!-- run: end -->\nafter\n'
  assert.equal(replacePart(page, 'run', ' new $&\n'), expected)
  assert.equal(
    replacePart(replacePart(page, 'run', 'x'), 'run', 'new $&'),
    replacePart(page, 'run', 'new $&'),
  )
})

test('a part that the page does not have comes at its end', () => {
  assert.equal(
    replacePart('# Page\n', 'run', 'body'),
    '# Page\n\n<!-- run: begin -->\n\nbody\n\n<!-- run: end -->\n',
  )
})

test('a part without its end is not guessed', () => {
  assert.throws(() => replacePart('<!-- run: begin -->\n', 'run', ''), /without its end/)
})
