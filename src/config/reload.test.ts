import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeScratch } from '../../test/support/scratch.ts'
import { type Config, loadConfig } from './config.ts'
import { restartKeys } from './reload.ts'

function parse(toml: string): Config {
  using scratch = makeScratch('reload')
  const config = join(scratch.path, 'upserv.toml')
  writeFileSync(config, toml)
  return loadConfig({ config }, {})
}

const CASES: { name: string; toml: string; keys: string[] }[] = [
  { name: 'nothing', toml: '', keys: [] },
  { name: 'an address', toml: '[rsync]\nlisten = ":8873"\n', keys: ['rsync.listen'] },
  {
    name: 'the directory',
    toml: 'data_dir = "/srv"\n[http]\nlisten = []\n',
    keys: ['data_dir', 'http.listen'],
  },
  {
    name: 'HTTP and history',
    toml: '[http]\ntoken_file = "/etc/upserv/token"\n[history]\ndays = 1\n',
    keys: ['http.token_file', 'history.days'],
  },
  {
    name: 'what is taken over',
    toml: 'budget = "1GB"\nshutdown_timeout = 5\nevict_channels = true\n[rsync]\nmax_connections = 3\nidle_timeout = 9\n[channels]\na = "1"\n',
    keys: [],
  },
]
for (const { name, toml, keys } of CASES) {
  test(`what needs a restart: ${name}`, () => assert.deepEqual(restartKeys(parse(''), parse(toml)), keys))
}
