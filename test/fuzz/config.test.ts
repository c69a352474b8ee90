/** Configurations that nobody wrote: read, or refused by a ConfigError that names no line of ours. */
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { configKeys, loadConfig } from '../../src/config/config.ts'
import { ConfigError } from '../../src/errors.ts'
import { campaign, kindOf } from '../support/campaign.ts'
import { makeScratch } from '../support/scratch.ts'

const EXAMPLES = resolve(import.meta.dirname, '../../examples')
const EVERYTHING = `budget = "1GB"
[rsync]
listen = ["[::]:8873"]
motd = """a
b"""
[[source]]
name = "a"
builds = '^(?<n>[0-9]+)$'
url = "http://h/{n:4}/{build}.tar"
checksum = "{url}.md5"
mirrors = ["http://m/{build}"]
users = { "1000" = 0, "*" = 1 }
[channels]
stable = "802"
[[module]]
name = "build-*"
hosts_allow = ["192.0.2.0/24", "2001:db8::/32"]
auth_users = ["a", "b:deny"]
secrets_file = "/nonexistent"
exclude = ["*.o", "/a/**"]
`
const WORDS = [
  ...configKeys().map((key) => `\n${key.replace(/^.*\./, '')} = `),
  ...['[', ']', '[[', '"', "'''", '\\u0000', '= {', '1e999', '-1', '0x', '9223372036854775808', 'nan', 'inf'],
  ...[
    '(?:',
    '(a+)+$',
    '{build}',
    '{',
    '*',
    'file:///',
    'upserv://',
    '::/0',
    '/999',
    '__proto__',
    'constructor',
    '\0',
    '\ufeff',
  ],
]

test('damaged configurations', async (t) => {
  using scratch = makeScratch('config')
  const config = join(scratch.path, 'upserv.toml')
  await campaign(t, {
    extension: 'toml',
    seeds: [
      Buffer.from(EVERYTHING),
      ...globSync(`${EXAMPLES}/*.toml`)
        .sort()
        .map((path) => readFileSync(path)),
    ],
    words: WORDS,
    check: (input) => {
      writeFileSync(config, input)
      try {
        loadConfig({ config, data: scratch.path } as Parameters<typeof loadConfig>[0], {})
        return 'read'
      } catch (error) {
        if (error instanceof ConfigError) return kindOf(error)
        throw error
      }
    },
    leastOutcomes: 20,
  })
})
