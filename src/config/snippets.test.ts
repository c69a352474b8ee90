/**
 * What pages and examples show of upserv.toml can be used: by itself, and at the end of the file that packages install.
 * What belongs elsewhere in that file says so.
 */
import assert from 'node:assert/strict'
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parse } from 'smol-toml'
import { makeScratch } from '../../test/support/scratch.ts'
import { loadConfig } from './config.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const INSTALLED = read('examples/upserv.toml')

function load(toml: string): void {
  using scratch = makeScratch('snippets')
  const config = join(scratch.path, 'upserv.toml')
  writeFileSync(config, toml)
  loadConfig({ config }, {})
}

/** Whether it would do anything but add: TOML takes a table once, and keys of no table above all tables. */
function isEdited(toml: string): boolean {
  const there = Object.keys(parse(INSTALLED))
  return !/^\s*(?:#.*\s+)*\[/.test(toml) || Object.keys(parse(toml)).some((name) => there.includes(name))
}

let shown = 0
for (const page of globSync('{README.md,docs/*.md,man/*.md}', { cwd: ROOT }).sort()) {
  const text = read(page)
  for (const { index, 1: toml = '' } of text.matchAll(/^```toml\n([\s\S]*?)^```$/gm)) {
    shown++
    test(`${page}, line ${text.slice(0, index).split('\n').length}`, () => {
      load(toml)
      if (!isEdited(toml)) return load(INSTALLED + toml)
      const paragraph = text.slice(0, index).trimEnd().split('\n\n').at(-1)!
      assert.match(
        paragraph,
        /above the first table|\bedit/,
        'the paragraph before it does not say where it belongs',
      )
    })
  }
  const appended = [...text.matchAll(/^cat >>\/etc\/upserv\/upserv\.toml <<'EOF'\n([\s\S]*?)^EOF$/gm)]
  if (appended.length === 0) continue
  shown++
  test(`${page}: what is appended to upserv.toml, one after the other`, () => {
    let file = INSTALLED
    for (const [, toml = ''] of appended) {
      file += toml
      load(file)
    }
  })
}

for (const example of globSync('examples/*.toml', { cwd: ROOT }))
  test(example, () => {
    load(read(example))
    if (read(example) !== INSTALLED) load(INSTALLED + read(example))
  })

test('they were found', () => assert.ok(shown > 8, `${shown}`))
