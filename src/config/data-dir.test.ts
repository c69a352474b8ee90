/** Commands find the server that runs by a configuration that is wrong by now. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeScratch } from '../../test/support/scratch.ts'
import { ConfigError } from '../errors.ts'
import { dataDirOf } from './config.ts'

const USUAL = '/var/lib/upserv'
for (const { name, toml, dataDir } of [
  { name: 'right', toml: 'budget = "1GB"\ndata_dir = "/srv"\n', dataDir: '/srv' },
  { name: 'that does not say', toml: '[rsync]\nlisten = []\n', dataDir: USUAL },
  { name: 'with an unknown key', toml: 'bugdet = 1\ndata_dir = "/srv"\n', dataDir: '/srv' },
  { name: 'where it is no path', toml: 'data_dir = 7\n', dataDir: USUAL },
  { name: 'that is no TOML behind it', toml: 'data_dir = "/srv"\n\n[rsync\nlisten\n', dataDir: '/srv' },
  { name: 'that is no TOML before it', toml: '= 7\ndata_dir = "/srv"\n', dataDir: USUAL },
  {
    name: 'with what is never closed',
    toml: 'data_dir = "/srv"\n[rsync]\nlisten = [\n"a",\n"b"\n',
    dataDir: '/srv',
  },
  { name: 'that is empty', toml: '', dataDir: USUAL },
])
  test(`the data directory, by a file ${name}`, () => {
    using scratch = makeScratch('data-dir')
    const config = join(scratch.path, 'upserv.toml')
    writeFileSync(config, toml)
    assert.equal(dataDirOf({ config }, {}), dataDir)
    // Who says it elsewhere needs no file.
    assert.equal(dataDirOf({ config, data: '/flag' }, { UPSERV_DIR: '/env' }), '/flag')
    assert.equal(dataDirOf({ config }, { UPSERV_DIR: '/env' }), '/env')
  })

test('the data directory, by a file that is not there', () => {
  assert.throws(() => dataDirOf({ config: '/nonexistent/upserv.toml' }, {}), ConfigError)
})
