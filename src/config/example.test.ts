/** examples/upserv.toml has every key, with its default where it has one; and what it shows can be used. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parse } from 'smol-toml'
import { makeScratch } from '../../test/support/scratch.ts'
import { configKeys, loadConfig } from './config.ts'

const EXAMPLE = fileURLToPath(new URL('../../examples/upserv.toml', import.meta.url))
const text = readFileSync(EXAMPLE, 'utf8')
/** With what stands behind a "#" as well, where that is a key or a table. */
const whole = text.replaceAll(/^# (?=\w+ *= |\[)/gm, '')

function load(toml: string) {
  using scratch = makeScratch('example')
  const config = join(scratch.path, 'upserv.toml')
  writeFileSync(config, toml)
  return loadConfig({ config }, {})
}

test('the example has every key, each once', () => {
  const keys = Object.entries(parse(whole)).flatMap(([name, value]) => {
    const table = Array.isArray(value) && typeof value[0] === 'object' ? value[0] : value
    const isTable = typeof table === 'object' && !Array.isArray(table) && !(table instanceof Date)
    if (!isTable || name === 'channels' || name === 'groups') return [name]
    return Object.keys(table as object).map((key) => `${name}.${key}`)
  })
  assert.deepEqual(keys.sort(), configKeys().sort())
})

test('the example as it is says nothing but defaults', () => {
  assert.deepEqual(load(text), load(''))
})

test('what the example shows behind "#" can be used', () => {
  const { sources, access } = load(whole)
  assert.equal(sources[0]!.name, 'releases')
  assert.equal(access.modules[0]!.authUsers.length, 4)
})

test('each line of the example that sets a key says what it is for', () => {
  const keys = text.split('\n').filter((line) => /^(?:# )?\w+ *= /.test(line))
  // An example of a channel and of a group explain themselves.
  for (const line of keys) assert.match(line, /[^#].*\S +# \S|^# (?:stable|staff) = /, line)
})
