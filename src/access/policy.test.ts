import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { FetchAllowance } from './fetch-allowance.ts'
import type { Identity } from './identity.ts'
import { type ModuleRules, Policy, type Proof } from './policy.ts'
import type { FetchRule } from './users.ts'

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

// ---------------------------------------------------------------------------------------------------
// Groups, certificates, sources

const with_ = (address: string, ...devices: string[]): Identity => ({ address, devices, tls: true })
const groups = {
  staff: [{ user: 'alice' }, { certificate: 'laptop-?' }],
  interns: [{ user: 'bob' }, { certificate: 'laptop-9' }],
}
const inGroups = new Policy(
  {
    hosts: { allow: [], deny: [] },
    groups,
    modules: [
      rules('build-staff', { authUsers: [{ group: 'staff', admitted: true }], secretsFile: staff }),
      rules('build-grown-up', {
        authUsers: [
          { group: 'staff', admitted: true },
          { user: 'bob', admitted: true },
          { group: 'interns', admitted: false },
        ],
        secretsFile: staff,
      }),
      rules('build-fleet', { list: undefined, authUsers: [{ certificate: 'xo-*', admitted: true }] }),
      rules('build-nobody', { authUsers: [{ group: 'gone', admitted: true }], secretsFile: staff }),
      rules('build-all-but', {
        authUsers: [
          { user: 'alice', admitted: true },
          { certificate: '*', admitted: true },
          { group: 'gone', admitted: false },
        ],
        secretsFile: staff,
      }),
      rules('build-lost', { source: 'gone' }),
      rules('*', { source: 'internal', list: undefined, hosts: { allow: ['10.0.0.0/8'], deny: [] } }),
    ],
  },
  (problem) => assert.fail(problem),
  {
    supplies: (source, module) => (source === 'internal' ? /^build-i-/.test(module) : undefined),
  },
)
/** What a client with these names in its certificate, or one who says these words, gets of a module. */
const gets = (module: string, who: Identity, user?: string, password?: string): 'all' | 'nothing' => {
  const visitor = inGroups.visitor(who)
  if (!visitor.mayKnock([module])) return 'nothing'
  if (!visitor.mustProve([module])) return 'all'
  return user !== undefined && visitor.prove([module], proof(user, password ?? '')) ? 'all' : 'nothing'
}

test('policy: a group is its members, by password or by certificate', () => {
  const far = from('192.0.2.1')
  assert.equal(gets('build-staff', far, 'alice', 'sesame'), 'all')
  assert.equal(gets('build-staff', far, 'alice', 'wrong'), 'nothing')
  assert.equal(gets('build-staff', far, 'bob', 'other'), 'nothing', 'of another group')
  assert.equal(gets('build-staff', with_('192.0.2.1', 'laptop-1')), 'all', 'without a password')
  assert.equal(gets('build-staff', with_('192.0.2.1', 'laptop-10')), 'nothing')
  assert.equal(gets('build-staff', with_('192.0.2.1', 'laptop-10'), 'alice', 'sesame'), 'all')
  assert.equal(gets('build-staff', with_('192.0.2.1', 'other', 'laptop-1')), 'all', 'any of its names')
})

test('policy: who is denied by one entry is not admitted by another', () => {
  assert.equal(gets('build-grown-up', from('192.0.2.1'), 'alice', 'sesame'), 'all')
  assert.equal(gets('build-grown-up', from('192.0.2.1'), 'bob', 'other'), 'nothing')
  assert.equal(gets('build-grown-up', with_('192.0.2.1', 'laptop-8')), 'all')
  assert.equal(gets('build-grown-up', with_('192.0.2.1', 'laptop-9')), 'nothing')
  assert.equal(gets('build-grown-up', with_('192.0.2.1', 'laptop-9'), 'alice', 'sesame'), 'nothing')
})

test('policy: where only certificates are named, nobody is asked for a password', () => {
  assert.equal(gets('build-fleet', with_('192.0.2.1', 'xo-4')), 'all')
  for (const who of [from('192.0.2.1'), with_('192.0.2.1', 'laptop-1')]) {
    assert.equal(inGroups.visitor(who).mayKnock(['build-fleet']), false)
    assert.equal(inGroups.visitor(who).mayHear('build-fleet'), false)
  }
  assert.ok(inGroups.visitor(with_('192.0.2.1', 'xo-4')).listing('build-fleet'))
})

test('policy: a rule that names an unknown group or source lets nobody in', () => {
  for (const [module, who] of [
    ['build-nobody', from('192.0.2.1')],
    ['build-nobody', with_('192.0.2.1', 'laptop-1')],
    ['build-all-but', from('192.0.2.1')],
    ['build-all-but', with_('192.0.2.1', 'laptop-1')],
    ['build-lost', from('10.0.0.1')],
  ] as const) {
    assert.equal(gets(module, who, 'alice', 'sesame'), 'nothing', module)
    assert.equal(inGroups.visitor(who).mayHave(module), false)
  }
})

test('policy: a table for a source holds for what that could supply, and for nothing else', () => {
  const near = inGroups.visitor(from('10.1.2.3'))
  const far = inGroups.visitor(from('192.0.2.1'))
  assert.deepEqual([near.mayHave('build-i-7'), far.mayHave('build-i-7')], [true, false])
  assert.deepEqual([near.mayHave('build-7'), far.mayHave('build-7')], [true, true])
  assert.deepEqual([near.mayHave('builds'), far.mayHave('builds')], [true, true])
  assert.deepEqual([near.mayHearOf('internal'), far.mayHearOf('internal')], [true, false])
  assert.deepEqual([near.mayHearOf('other'), far.mayHearOf('other')], [true, true])
})

test('policy: what nobody listed is shown to who may have it; list = true tells of it', () => {
  const policy = policyOf(
    rules('build-quiet', { list: undefined, authUsers: users('alice'), secretsFile: staff }),
    rules('build-told', { list: true, authUsers: users('alice'), secretsFile: staff }),
    rules('build-hidden', { list: false }),
  )
  const visitor = policy.visitor(from('192.0.2.1'))
  const shown = () =>
    ['build-quiet', 'build-told', 'build-hidden', 'build-1'].filter((name) => visitor.listing(name))
  assert.deepEqual(shown(), ['build-told', 'build-1'])
  assert.ok(visitor.prove(['build-quiet'], proof('alice', 'sesame')))
  assert.deepEqual(shown(), ['build-quiet', 'build-told', 'build-1'])
})

test('policy: where nobody asks for a password, one proves nothing', async () => {
  const visitor = policyOf(
    rules('build-1'),
    rules('build-staff', { authUsers: users('alice'), secretsFile: staff }),
  ).visitor(from('192.0.2.1'))
  assert.ok(visitor.prove(['build-1'], proof('alice', 'no idea')))
  assert.equal(visitor.mayHave('build-staff'), false)
  assert.equal(await visitor.introduce(proof('alice', 'no idea')), false)
  assert.equal(visitor.mayHave('build-staff'), false)
  assert.equal(await visitor.introduce(proof('alice', 'sesame')), true)
  assert.equal(visitor.mayHave('build-staff'), true)
})

test('policy: who has the same standing may have the same', () => {
  const standing = (who: Identity): string => inGroups.visitor(who).standing
  assert.equal(standing(from('192.0.2.1')), standing(from('198.51.100.1')))
  assert.notEqual(standing(from('192.0.2.1')), standing(from('10.0.0.1')))
  assert.notEqual(standing(from('192.0.2.1')), standing(with_('192.0.2.1', 'xo-1')))
})

// ---------------------------------------------------------------------------------------------------
// The right to have builds fetched

function fetching(fetchAllow: readonly FetchRule[] | undefined, changes: Partial<ModuleRules> = {}) {
  const began: string[] = []
  const policy = new Policy(
    {
      hosts: { allow: [], deny: [] },
      groups,
      ...(fetchAllow ? { fetchAllow } : {}),
      modules: [rules('build-x', { ...changes })],
    },
    (problem) => assert.fail(problem),
    {
      fetches: new (class extends FetchAllowance {
        override begin(source: string) {
          began.push(source)
          return super.begin(source)
        }
      })({ perSource: 5, bytesPerSource: 0, bytes: 0 }),
    },
  )
  /** 'free', 'counted' or 'refused'. */
  const how = (who: Identity, modules = ['build-x'], said?: Proof): string => {
    const visitor = policy.visitor(who)
    if (said) assert.ok(visitor.prove(modules, said))
    began.length = 0
    try {
      visitor.beginFetch(modules).end({ receivedBytes: 0, absent: true })
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'ACCESS_DENIED')
      return 'refused'
    }
    return began.length > 0 ? 'counted' : 'free'
  }
  return how
}

test('policy: fetching is a right of its own', () => {
  const far = from('192.0.2.1')
  assert.equal(fetching(undefined)(far), 'counted', 'out of the box anybody may, and is counted')
  assert.equal(fetching([])(far), 'refused')
  const listed = fetching([{ network: '10.0.0.0/8' }, { group: 'staff' }])
  assert.equal(listed(far), 'refused')
  assert.equal(listed(from(undefined)), 'refused', 'nobody knows where it comes from')
  assert.equal(listed(from('10.0.0.1')), 'free')
  assert.equal(listed(with_('192.0.2.1', 'laptop-1')), 'free')
  assert.equal(listed(with_('192.0.2.1', 'tablet-1')), 'refused')
  const both = fetching([{ network: '10.0.0.0/8' }, { anybody: true }])
  assert.deepEqual([both(from('10.0.0.1')), both(far)], ['free', 'counted'])
  assert.equal(both(with_('192.0.2.1', 'tablet-1')), 'free', 'it has shown who it is')
  assert.equal(fetching([{ group: 'gone' }])(with_('10.0.0.1', 'laptop-1')), 'refused')
})

test('policy: a table may say otherwise, and a user counts once the password was right', () => {
  const how = fetching([{ anybody: true }], {
    fetchAllow: [{ user: 'alice' }],
    authUsers: users('alice', 'bob'),
    secretsFile: staff,
  })
  const far = from('192.0.2.1')
  assert.equal(how(far), 'refused')
  assert.equal(how(far, ['build-x'], proof('alice', 'sesame')), 'free')
  assert.equal(how(far, ['build-x'], proof('bob', 'other')), 'refused')
  assert.equal(how(far, ['build-y']), 'counted')
  assert.equal(how(far, ['channel-x', 'build-x']), 'refused', 'a channel is no way around it')
})

test('policy: limits of who comes have names of their own', () => {
  const prefixes = { ipv4Network: 24, ipv6Source: 64, ipv6Network: 48 }
  const policy = new Policy(
    {
      hosts: { allow: [], deny: [] },
      modules: [rules('build-staff', { authUsers: users('alice'), secretsFile: staff, maxConnections: 9 })],
      limits: {
        ...{ transfersPerSource: 3, transfersPerUser: 2 },
        ...{ waitingPerSource: 4, waitingPerNetwork: 6, waitingPerUser: 5 },
        prefixes,
      },
    },
    (problem) => assert.fail(problem),
  )
  const visitor = policy.visitor(from('2001:db8::7'))
  const source = { name: '\0source 2001:db8:0:0::/64', most: 3, waiting: 4, of: 'of this address' }
  const network = {
    ...{ name: '\0network 2001:db8:0::/48', most: Number.POSITIVE_INFINITY, waiting: 6 },
    of: 'of this network',
  }
  assert.deepEqual(visitor.settings(['build-1']).limits, [source, network])
  assert.ok(visitor.prove(['build-staff'], proof('alice', 'sesame')))
  const user = { name: '\0user alice', most: 2, waiting: 5, of: 'of this user' }
  assert.deepEqual(visitor.settings(['build-staff']).limits, [
    { name: 'build-staff', most: 9 },
    ...[user, source, network],
  ])
})
