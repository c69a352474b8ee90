/** docs/threat-model.md names a test for each promise: each is there, by its file and, where it says one, its name. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { FAULTS } from './weakenings.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const page = readFileSync(join(ROOT, 'docs/threat-model.md'), 'utf8')
const named = [...page.matchAll(/^\| .*\| `([^`]+\.test\.ts)`: ?(.*?) \|$/gm)].map(([, file, name]) => ({
  file: file!,
  name: name!,
}))

test('each promise of the threat model has a test that is there', () => {
  assert.ok(named.length > 25, `only ${named.length}`)
  for (const { file, name } of named) {
    assert.ok(existsSync(join(ROOT, file)), `${file} is not there`)
    const source =
      readFileSync(join(ROOT, file), 'utf8') +
      (file.endsWith('past-faults.test.ts') ? JSON.stringify(FAULTS) : '')
    assert.ok(name !== '' && source.includes(name), `${file} has no test "${name}"`)
    assert.match(source, /\btest(?:Attacks)?\(/, file)
  }
})

test('each promise is told with its test', () => {
  const promises = page.slice(page.indexOf('## What is promised'), page.indexOf('## What is not promised'))
  for (const row of promises.match(/^\| (?!promise).*$/gm) ?? [])
    if (!row.startsWith('|---')) assert.match(row, /`(?:test|src)\/\S+\.test\.ts`: ?.*\|$/, row)
})

test('each class of past faults is among the promises', () => {
  for (const { name } of Object.values(FAULTS)) assert.ok(page.includes(name), name)
})
