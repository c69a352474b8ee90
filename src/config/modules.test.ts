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
  assert.deepEqual(
    [access.hosts, access.modules, access.fetchAllow],
    [{ allow: [], deny: [] }, [], undefined],
  )
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
    source: undefined,
    comment: 'for staff',
    list: false,
    authUsers: [
      { user: 'alice', admitted: true },
      { user: 'bob', admitted: true },
      { user: 'carol', admitted: false },
    ],
    secretsFile: '/etc/upserv/staff.secrets',
    hosts: { allow: ['10.0.0.0/8', '2001:db8::/32'], deny: ['0.0.0.0/0', '::/0'] },
    fetchAllow: undefined,
    maxConnections: 5,
    idleTimeoutMs: 90_000,
    refuseOptions: ['checksum'],
    include: ['*.txt'],
    exclude: ['/root/private'],
  })
  assert.equal(access.modules[1]!.list, undefined)
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
  [`${AUTH} = ["alice", "@wheel"]`, /module\[0\]\.auth_users: there is no group "@wheel"/],
  ['auth_users = ["cert:a b"]', /one entry for each user/],
  ['secrets_file = "/etc/s"\nauth_users = ["cert:xo-*"]', /a secrets_file alone asks nobody/],
  ['source = "nowhere"', /module\[0\]\.source: there is no source "nowhere"/],
  ['fetch_allow = "192.0.2.1"', /fetch_allow: those who may have builds fetched are a list/],
  [
    'fetch_allow = ["host.example.org x"]',
    /fetch_allow\[0\]: .*an address, a network or "\*" may stand here/,
  ],
  ['fetch_allow = ["alice:deny"]', /fetch_allow\[0\]: .*leave out who may not/],
  ['fetch_allow = ["@staf"]\n[groups]\nstaff = ["alice"]', /fetch_allow: .*did you mean "@staff"/],
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

test('groups, sources and who may have builds fetched', () => {
  const { access, fetchLimits } = load(`
budget = "20GB"
[groups]
staff = ["alice", "cert:laptop-?"]
[[source]]
name = "internal"
url = "https://builds.example.org/{build}"
[[module]]
source = "internal"
auth_users = ["@staff", "mallory:deny", "cert:xo-*:deny"]
secrets_file = "/etc/s"
fetch_allow = []
[fetch]
allow = ["*", "10.0.0.0/8", "@staff"]
bytes = "3GB"
`)
  assert.deepEqual(access.groups, { staff: [{ user: 'alice' }, { certificate: 'laptop-?' }] })
  assert.deepEqual(access.modules[0]!.authUsers, [
    { group: 'staff', admitted: true },
    { user: 'mallory', admitted: false },
    { certificate: 'xo-*', admitted: false },
  ])
  assert.deepEqual([access.modules[0]!.name, access.modules[0]!.source], ['*', 'internal'])
  assert.deepEqual(access.modules[0]!.fetchAllow, [])
  assert.deepEqual(access.fetchAllow, [{ anybody: true }, { network: '10.0.0.0/8' }, { group: 'staff' }])
  assert.deepEqual(fetchLimits, { perSource: 30, bytesPerSource: 10e9, bytes: 3e9 })
})

for (const [text, why] of [
  ['[groups]\na = ["@b"]', /groups\.a\[0\]: .*no groups/],
  ['[groups]\na = ["alice:deny"]', /groups\.a\[0\]: .*write ":deny" where the group is used/],
  ['[groups]\na = "alice"', /groups\.a: members are a list/],
  ['[groups]\n"a b" = []', /groups/],
  ['[fetch]\nallow = ["@a"]', /fetch\.allow: there is no group "@a"/],
  ['[limits]\nrate = 0', /limits\.rate/],
  ['[limits]\nipv6_source = 8', /limits\.ipv6_source/],
  ['[limits]\nrate_per_sesion = 1', /unknown key "limits\.rate_per_sesion"; did you mean "rate_per_session"/],
  ['[rsync]\nauth_digest_min = "crc32"', /rsync\.auth_digest_min/],
] as const) {
  test(`rules: refused: ${JSON.stringify(text)}`, () => assert.throws(() => load(`${text}\n`), why))
}
