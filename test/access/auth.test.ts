/** Passwords: the real client at every protocol, and a client played by hand with every list of digests. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { md4 } from 'hash-wasm'
import { Attempts } from '../../src/access/attempts.ts'
import { Policy } from '../../src/access/policy.ts'
import { MemoryTree } from '../support/memory-tree.ts'
import { RawClient } from '../support/raw-client.ts'
import { PROTOCOLS, rsyncEnds, rsyncSucceeds } from '../support/rsync.ts'
import { makeScratch, type Scratch } from '../support/scratch.ts'
import { FixedModules, listen, sessionContext, type TestPort } from '../support/session.ts'

const PASSWORD = 'sesame, "open" \xe4'

let scratch: Scratch
let tree: MemoryTree
let port: TestPort
let modules: FixedModules
before(async () => {
  scratch = makeScratch('auth')
  const secrets = join(scratch.path, 'secrets')
  const text = `# users\nalice:${PASSWORD}\nbob:other\nmallory:evil\n`
  writeFileSync(secrets, Buffer.from(text, 'latin1'), { mode: 0o600 })
  tree = new MemoryTree({
    mode: 0o040755,
    children: { hi: { mode: 0o100644, data: Buffer.from('hello\n') } },
  })
  const rules = {
    comment: undefined,
    list: true,
    hosts: { allow: [], deny: [] },
    maxConnections: undefined,
    idleTimeoutMs: undefined,
    refuseOptions: [],
    include: [],
    exclude: [],
  }
  const problems: string[] = []
  const policy = new Policy(
    {
      hosts: { allow: [], deny: [] },
      modules: [
        {
          ...rules,
          name: 'staff',
          secretsFile: secrets,
          authUsers: [
            { user: 'alice', admitted: true },
            { user: 'mallory', admitted: false },
          ],
        },
        {
          ...rules,
          name: 'broken',
          secretsFile: join(scratch.path, 'missing'),
          authUsers: [{ user: 'alice', admitted: true }],
        },
      ],
    },
    (problem) => problems.push(problem),
    // Dozens of wrong passwords from one address: that they are slowed down is for limits.test.ts to show.
    { attempts: new Attempts({ free: { name: 1000, source: 1000, network: 1000 } }) },
  )
  assert.equal(problems.length, 1)
  modules = new FixedModules({ staff: tree, broken: tree, open: tree })
  port = await listen(sessionContext({}, { modules, visitor: (client) => policy.visitor(client) }))
})
after(async () => {
  await port[Symbol.asyncDispose]()
  tree.close()
  scratch[Symbol.dispose]()
})

const url = (module: string, user = 'alice'): string => `rsync://${user}@127.0.0.1:${port.port}/${module}/`
let places = 0
function place(): string {
  const path = join(scratch.path, `client-${++places}`)
  mkdirSync(path)
  return path
}
function passwordFile(password: string): string {
  const path = join(place(), 'password')
  writeFileSync(path, Buffer.from(`${password}\n`, 'latin1'), { mode: 0o600 })
  return path
}

for (const protocol of PROTOCOLS) {
  describe(`protocol ${protocol}`, { concurrency: 2 }, () => {
    test(`protocol ${protocol}: --password-file`, async () => {
      const to = place()
      const args = ['-a', `--password-file=${passwordFile(PASSWORD)}`, url('staff'), to]
      await rsyncSucceeds(args, { protocol })
      assert.equal(readFileSync(join(to, 'hi'), 'utf8'), 'hello\n')
      assert.ok(port.reports.some(({ user, module }) => user === 'alice' && module === 'staff'))
    })

    for (const { name, user, password } of [
      { name: 'a wrong password', user: 'alice', password: 'Sesame' },
      { name: 'an unknown user', user: 'eve', password: PASSWORD },
      { name: 'a user of the file who is not on the list', user: 'bob', password: 'other' },
      { name: 'a denied user', user: 'mallory', password: 'evil' },
    ]) {
      test(`protocol ${protocol}: RSYNC_PASSWORD, ${name}`, async () => {
        const { stderr } = await rsyncEnds(5, ['-a', url('staff', user), place()], {
          protocol,
          env: { RSYNC_PASSWORD: password },
        })
        assert.match(stderr, /^@ERROR: auth failed on module staff$/m)
      })
    }

    test(`protocol ${protocol}: without secrets nobody gets in; without rules everybody`, async () => {
      const env = { RSYNC_PASSWORD: PASSWORD }
      const { stderr } = await rsyncEnds(5, ['-a', url('broken'), place()], { protocol, env })
      assert.match(stderr, /^@ERROR: auth failed on module broken$/m)
      await rsyncSucceeds(['-a', url('open'), place()], { protocol })
    })
  })
}

test('a module that needs a password is listed', async () => {
  const { stdout } = await rsyncSucceeds([`rsync://127.0.0.1:${port.port}/`])
  assert.match(stdout, /^staff\s/m)
})

const base64 = (sum: Uint8Array): string => Buffer.from(sum).toString('base64').replaceAll('=', '')
const password = Buffer.from(PASSWORD, 'latin1')
const byCrypto = (name: string) => async (challenge: string) =>
  base64(createHash(name).update(password).update(challenge).digest())
const byMd4 = (head: string) => async (challenge: string) =>
  base64(Buffer.from(await md4(Buffer.concat([Buffer.from(head), password, Buffer.from(challenge)])), 'hex'))

for (const { greeting, respond } of [
  { greeting: '@RSYNCD: 32.0 sha512', respond: byCrypto('sha512') },
  { greeting: '@RSYNCD: 32.0 sha256 sha1', respond: byCrypto('sha256') },
  { greeting: '@RSYNCD: 31.0 sha1 md5 md4', respond: byCrypto('sha1') },
  { greeting: '@RSYNCD: 32.0 whirlpool md5', respond: byCrypto('md5') },
  { greeting: '@RSYNCD: 32.0 md4', respond: byMd4('') },
  { greeting: '@RSYNCD: 27.0 md4', respond: byMd4('') },
  { greeting: '@RSYNCD: 31.0', respond: byCrypto('md5') },
  { greeting: '@RSYNCD: 30.0', respond: byCrypto('md5') },
  { greeting: '@RSYNCD: 29', respond: byMd4('\0\0\0\0') },
  { greeting: '@RSYNCD: 27', respond: byMd4('\0\0\0\0') },
]) {
  test(`by hand: ${greeting}`, async () => {
    using client = await RawClient.open(port.port)
    client.send(`${greeting}\nstaff\n`)
    const [, challenge] = /^@RSYNCD: AUTHREQD (\S{16,})$/.exec(await client.line()) ?? []
    assert.ok(challenge)
    client.send(`alice ${await respond(challenge)}\n`)
    assert.equal(await client.line(), '@RSYNCD: OK')
  })
}

test('by hand: no digest in common', async () => {
  using client = await RawClient.open(port.port)
  client.send('@RSYNCD: 32.0 whirlpool\nstaff\n')
  assert.match(await client.line(), /^@ERROR: .*daemon-auth checksums: sha512 sha256 sha1 md5 md4$/)
})

test('by hand: a response that was good once is good for nothing', async () => {
  const answers: string[] = []
  for (let i = 0; i < 2; i++) {
    using client = await RawClient.open(port.port)
    client.send('@RSYNCD: 31.0 sha512\nstaff\n')
    const challenge = (await client.line()).split(' ')[2]!
    answers.push(await byCrypto('sha512')(challenge))
    client.send(`alice ${answers[0]}\n`)
    assert.equal(await client.line(), i === 0 ? '@RSYNCD: OK' : '@ERROR: auth failed on module staff')
  }
})

for (const answer of [
  '',
  ' ',
  'alice',
  'alice ',
  ' abc',
  'alice  abc',
  'alice \0',
  '\xff\xfe \xff',
  '-',
  '#list',
]) {
  test(`by hand: an answer that is none: ${JSON.stringify(answer)}`, async () => {
    using client = await RawClient.open(port.port)
    client.send(`@RSYNCD: 31.0 sha512\nstaff\n`)
    await client.line()
    client.send(`${answer}\n`)
    assert.equal(await client.line(), '@ERROR: auth failed on module staff')
    assert.equal(modules.held, 0, 'nothing was made ready for who was not let in')
  })
}
