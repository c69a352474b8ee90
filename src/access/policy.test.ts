import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { Identity } from './identity.ts'
import { type ModuleRules, Policy, type Proof } from './policy.ts'

const directory = mkdtempSync(join(tmpdir(), 'upserv-policy-'))
after(() => rmSync(directory, { recursive: true }))
const secrets = (name: string, text: string): string => {
  writeFileSync(join(directory, name), text, { mode: 0o600 })
  return join(directory, name)
}
const staff = secrets('staff', 'alice:sesame\nbob:other\nmallory:evil\nghost:boo\n')
const pupils = secrets('pupils', 'alice:sesame\nbob:not-the-same\n')

const rules = (name: string, changes: Partial<ModuleRules> = {}): ModuleRules => ({
  name,
  comment: undefined,
  list: true,
  authUsers: [],
  secretsFile: undefined,
  hosts: { allow: [], deny: [] },
  maxConnections: undefined,
  idleTimeoutMs: undefined,
  refuseOptions: [],
  include: [],
  exclude: [],
  ...changes,
})
const from = (address: string | undefined): Identity => ({ address, devices: [], tls: false })
const users = (...names: string[]) =>
  names.map((name) => ({ user: name.replace('!', ''), admitted: !name.startsWith('!') }))
const policyOf = (...modules: ModuleRules[]): Policy =>
  new Policy({ hosts: { allow: [], deny: ['198.51.100.0/24'] }, modules }, (problem) => assert.fail(problem))

/** As from a client that knows this password. Counts how often it was compared. */
function proof(user: string, password: string): Proof & { compared: number } {
  const said = {
    user,
    compared: 0,
    provenBy: (candidate: Uint8Array) => {
      said.compared++
      return Buffer.from(candidate).toString() === password
    },
  }
  return said
}

const school = policyOf(
  rules('build-80?', { comment: 'the eighties' }),
  rules('build-secret*', { list: false }),
  rules('build-staff*', { authUsers: users('alice', 'bob', '!mallory'), secretsFile: staff }),
  rules('build-pupil*', { authUsers: users('alice', 'bob'), secretsFile: pupils }),
  rules('build-inside', { hosts: { allow: ['10.0.0.0/8'], deny: [] } }),
  rules('build-part', { exclude: ['/root/private'], include: ['*.txt'], refuseOptions: ['checksum'] }),
  rules('channel-*', { exclude: ['/contents'], maxConnections: 2, idleTimeoutMs: 5000 }),
  rules('build-*', { maxConnections: 7, idleTimeoutMs: 9000 }),
)

test('policy: the first table that matches holds; what none matches is for everybody', () => {
  const visitor = school.visitor(from('192.0.2.1'))
  assert.deepEqual(visitor.listing('build-802'), { comment: 'the eighties' })
  assert.deepEqual(visitor.listing('build-8022'), { comment: undefined })
  assert.deepEqual(visitor.settings(['build-802']).limits, [])
  assert.deepEqual(visitor.settings(['build-8022']).limits, [{ name: 'build-*', most: 7 }])
  assert.deepEqual(visitor.settings(['builds']), {
    limits: [],
    idleTimeoutMs: undefined,
    refuseOptions: [],
    hides: [],
  })
})

test('policy: a name is a name: dots and brackets in a table are no patterns', () => {
  const policy = policyOf(rules('build-1.0+[x]', { list: false }))
  assert.equal(policy.visitor(from('192.0.2.1')).listing('build-1.0+[x]'), undefined)
  for (const other of [
    'build-1x0+[x]',
    'build-1.00x',
    'xbuild-1.0+[x]',
    'build-1.0+[x]y',
    'build-1.0+[x]\n',
  ]) {
    assert.ok(policy.visitor(from('192.0.2.1')).listing(other), other)
  }
})

test('policy: names that no table can be fooled by', () => {
  // Whatever a client puts into a name, the table that a `*` reaches holds.
  for (const name of ['build-staff\nx', 'build-staff\x00', 'build-staff\xff', 'build-staff ']) {
    assert.equal(school.visitor(from('192.0.2.1')).mustProve([name]), true, JSON.stringify(name))
  }
})

test('policy: what the listing shows', () => {
  const near = school.visitor(from('10.1.2.3'))
  const far = school.visitor(from('192.0.2.1'))
  assert.equal(far.listing('build-secret-1'), undefined, 'list = false')
  assert.ok(far.listing('build-staff-1'), 'one that needs a password is shown')
  assert.ok(near.listing('build-inside'))
  assert.equal(far.listing('build-inside'), undefined, 'one that is not for this host is not shown')
  assert.equal(
    school.visitor(from('198.51.100.1')).listing('build-1'),
    undefined,
    'nothing for who is denied',
  )
  assert.equal(school.visitor(from(undefined)).listing('build-1'), undefined, 'nor for who has no address')
})

test('policy: the rules of the server and those of every module must admit', () => {
  assert.ok(school.visitor(from('10.0.0.1')).mayKnock(['channel-x', 'build-inside']))
  assert.ok(!school.visitor(from('192.0.2.1')).mayKnock(['channel-x', 'build-inside']))
  assert.ok(!school.visitor(from('198.51.100.9')).mayKnock(['build-1']))
})

for (const { user, password, good } of [
  { user: 'alice', password: 'sesame', good: true },
  { user: 'alice', password: 'Sesame', good: false },
  { user: 'alice', password: '', good: false },
  { user: 'mallory', password: 'evil', good: false }, // denied
  { user: 'ghost', password: 'boo', good: false }, // has a password, and is on no list
  { user: 'nobody', password: 'x', good: false },
  { user: '', password: '', good: false },
  { user: '__proto__', password: 'x', good: false },
]) {
  test(`policy: user "${user}" with "${password}" ${good ? 'gets in' : 'does not get in'}, compared once`, () => {
    const visitor = school.visitor(from('192.0.2.1'))
    const said = proof(user, password)
    assert.equal(visitor.mustProve(['build-staff-1']), true)
    assert.equal(visitor.prove(['build-staff-1'], said), good)
    assert.equal(said.compared, 1, 'an unknown user must cost what a wrong password costs')
    assert.equal(visitor.mayHave('build-staff-2'), good)
  })
}

test('policy: a channel needs what its build needs', () => {
  const both = ['build-staff-1', 'build-pupil-1']
  assert.ok(school.visitor(from('192.0.2.1')).prove(both, proof('alice', 'sesame')))
  assert.ok(!school.visitor(from('192.0.2.1')).prove(both, proof('bob', 'other')), 'another password there')
  assert.equal(school.visitor(from('192.0.2.1')).mustProve(['channel-x', 'build-staff-1']), true)
  assert.equal(school.visitor(from('192.0.2.1')).mustProve(['channel-x', 'build-1']), false)
  assert.deepEqual(school.visitor(from('192.0.2.1')).settings(['channel-x', 'build-1']), {
    limits: [
      { name: 'channel-*', most: 2 },
      { name: 'build-*', most: 7 },
    ],
    idleTimeoutMs: 5000,
    refuseOptions: [],
    hides: [rules('channel-*', { exclude: ['/contents'], maxConnections: 2, idleTimeoutMs: 5000 })],
  })
})

test('policy: what a module shows of others', () => {
  const anybody = school.visitor(from('192.0.2.1'))
  assert.equal(anybody.mayHave('build-1'), true)
  assert.equal(anybody.mayHave('build-secret-1'), true, 'not listed is not forbidden')
  assert.equal(anybody.mayHave('build-staff-1'), false)
  assert.equal(anybody.mayHave('build-inside'), false)
  assert.equal(anybody.mayHave('build-part'), true, 'what it hides is hidden by the session')
  const bob = school.visitor(from('10.0.0.1'))
  assert.ok(bob.prove(['build-staff-1'], proof('bob', 'other')))
  assert.equal(bob.mayHave('build-staff-2'), true)
  assert.equal(bob.mayHave('build-pupil-1'), false, 'his password there is another one')
  assert.equal(bob.mayHave('build-inside'), true)
})

test('policy: secrets that can not be used let nobody in', () => {
  const problems: string[] = []
  const policy = new Policy(
    {
      hosts: { allow: [], deny: [] },
      modules: [rules('*', { authUsers: users('alice'), secretsFile: join(directory, 'none') })],
    },
    (problem) => problems.push(problem),
  )
  assert.match(problems[0]!, /ENOENT/, 'known before anybody comes')
  const said = proof('alice', '')
  assert.equal(policy.visitor(from('192.0.2.1')).prove(['build-1'], said), false)
  assert.equal(said.compared, 1)
})
