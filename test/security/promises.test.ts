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

/** The titles of the tests in a file, as they are written: in pieces, between which something is put in when it runs. */
function titlesOf(file: string): string[][] {
  const source = readFileSync(join(ROOT, file), 'utf8')
  const titles = source.matchAll(/(?<![.\w])test\(\s*(?:(['"])((?:\\.|(?!\1).)*)\1|`((?:\\.|[^`])*)`)/g)
  const faults = source.includes('test(FAULTS') ? Object.values(FAULTS).map(({ name }) => [name]) : []
  return [...titles]
    .map(([, , plain, template]) =>
      plain === undefined ? template!.split(/\$\{[^}]*\}/) : [plain.replaceAll(/\\(.)/g, '$1')],
    )
    .concat(faults)
}

/** Whether that is the title, or how one of its pieces begins. */
function isNamed(title: string[], name: string): boolean {
  const whole = new RegExp(`^${title.map((piece) => RegExp.escape(piece)).join('.+')}$`)
  return whole.test(name) || title.some((piece) => piece.trim().startsWith(name))
}

test('each promise of the threat model has a test that is there', () => {
  assert.ok(named.length > 40, `only ${named.length}`)
  for (const { file, name } of named) {
    assert.ok(existsSync(join(ROOT, file)), `${file} is not there`)
    assert.ok(
      name !== '' && titlesOf(file).some((title) => isNamed(title, name)),
      `${file} has no test "${name}"`,
    )
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
