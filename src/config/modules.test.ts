/** [[module]] tables and the rules of [rsync]: what is taken, and what is refused with which words. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { type Config, loadConfig } from './config.ts'

const directory = mkdtempSync(join(tmpdir(), 'upserv-config-'))
after(() => rmSync(directory, { recursive: true }))

function load(text: string): Config {
  const config = join(directory, 'upserv.toml')
  writeFileSync(config, text)
  return loadConfig({ config }, {})
}

test('modules: nothing is asked of anybody by default', () => {
  const { access, rsync } = load('')
  assert.deepEqual(access, { hosts: { allow: [], deny: [] }, modules: [] })
  assert.deepEqual(
    [rsync.maxConnections, rsync.waitingLine, rsync.maxHandshakes, rsync.maxPerSource],
    [200, 1000, 4000, 0],
  )
})

test('modules: every key', () => {
  const { access } = load(`
[rsync]
hosts_deny = ["192.0.2.0/24"]

[[module]]
name            = "build-staff-*"
comment         = "for staff"
list            = false
auth_users      = ["alice", "bob:ro", "carol:deny"]
secrets_file    = "/etc/upserv/staff.secrets"
hosts_allow     = ["10.0.0.0/8", "2001:db8::/32"]
hosts_deny      = ["0.0.0.0/0", "::/0"]
max_connections = 5
timeout         = 90
refuse_options  = ["checksum"]
include         = ["*.txt"]
exclude         = ["/root/private"]

[[module]]
name = "*"
`)
  assert.deepEqual(access.hosts, { allow: [], deny: ['192.0.2.0/24'] })
  assert.deepEqual(access.modules[0], {
    name: 'build-staff-*',
    comment: 'for staff',
    list: false,
    authUsers: [
      { user: 'alice', admitted: true },
      { user: 'bob', admitted: true },
      { user: 'carol', admitted: false },
    ],
    secretsFile: '/etc/upserv/staff.secrets',
    hosts: { allow: ['10.0.0.0/8', '2001:db8::/32'], deny: ['0.0.0.0/0', '::/0'] },
    maxConnections: 5,
    idleTimeoutMs: 90_000,
    refuseOptions: ['checksum'],
    include: ['*.txt'],
    exclude: ['/root/private'],
  })
  assert.equal(access.modules[1]!.list, true)
})

const AUTH = 'secrets_file = "/etc/s"\nauth_users'
for (const [text, why] of [
  ['auth_users = ["alice"]', /secrets_file: auth_users need one/],
  ['secrets_file = "/etc/s"', /auth_users: a secrets_file alone asks nobody/],
  ['secrets_file = "s"\nauth_users = ["alice"]', /secrets_file: .*absolute/],
  [`${AUTH} = []`, /auth_users: an empty list would let nobody in/],
  [`${AUTH} = "alice"`, /auth_users: users are a list/],
  [`${AUTH} = "alice, bob"`, /auth_users: users are a list/],
  [`${AUTH} = ["alice, bob"]`, /auth_users\[0\]: .*one entry for each user/],
  [`${AUTH} = ["alice", "@wheel"]`, /auth_users\[1\]: "@wheel": groups are not supported/],
  [`${AUTH} = ["alice:rw"]`, /nobody can write to a build/],
  [`${AUTH} = ["alice", "alice:deny"]`, /auth_users: a user is named for the second time/],
  [`${AUTH} = [["alice"]]`, /auth_users\[0\]: users are texts/],
  ['hosts_allow = "192.0.2.1"', /hosts_allow: addresses and networks are a list/],
  ['hosts_deny = ["evil.example.org"]', /hosts_deny\[0\]: .*fails open when it does not resolve/],
  ['hosts_deny = ["192.0.2.0/24 10.0.0.1"]', /hosts_deny\[0\]/],
  ['refuse_options = ["--checksum"]', /refuse_options\[0\]: .*did you mean "checksum"/],
  ['refuse_options = ["cheksum"]', /did you mean "checksum"/],
  ['exclude = ["- *.o"]', /exclude\[0\]: .*write the pattern alone/],
  ['exclude = "*.o"', /exclude: patterns are a list/],
  ['include = ["*.o"]', /exclude: include alone hides nothing/],
  ['max_connections = 0', /max_connections/],
  ['timeout = 0', /timeout/],
  ['hosts_alow = []', /unknown key "module\[0\].hosts_alow"; did you mean "hosts_allow"/],
  ['name = "a/b"', /module/],
] as const) {
  test(`modules: refused: ${text.split('\n').at(-1)}`, () => {
    const name = text.startsWith('name') ? '' : 'name = "m"\n'
    assert.throws(
      () => load(`[[module]]\n${name}${text}\n`),
      (error: Error) => {
        assert.equal(error.name, 'ConfigError')
        assert.match(error.message, why)
        return true
      },
    )
  })
}

test('modules: a table needs a name, and [rsync] takes no names of hosts', () => {
  assert.throws(() => load('[[module]]\nlist = true\n'), /module\[0\]\.name/)
  assert.throws(
    () => load('[rsync]\nhosts_deny = ["evil.example.org"]\n'),
    /rsync\.hosts_deny\[0\]: .*names are not taken/,
  )
})
