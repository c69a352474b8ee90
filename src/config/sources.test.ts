/** [[source]] tables and --source: what they may be called. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { loadConfig } from './config.ts'

const directory = mkdtempSync(join(tmpdir(), 'upserv-config-'))
after(() => rmSync(directory, { recursive: true }))

test('no source is called as what is brought by hand is: its builds are looked for elsewhere', () => {
  const config = join(directory, 'upserv.toml')
  writeFileSync(config, '[[source]]\nname = "import"\nurl = "http://upstream/{build}.tar"\n')
  assert.throws(
    () => loadConfig({ config }, {}),
    /name: "import" is what builds come from that are brought by hand/,
  )
  writeFileSync(config, '')
  const { sources } = loadConfig(
    { config, source: ['http://import/{build}', 'http://import/{build}.tar'] },
    {},
  )
  assert.deepEqual(
    sources.map(({ name }) => name),
    ['import-2', 'import-3'],
  )
})
