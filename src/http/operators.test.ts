/** Sessions of browsers: how they begin and end, and what a change by one of them must bring along. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { makeScratch } from '../../test/support/scratch.ts'
import {
  type Asking,
  IDLE_MS,
  LONGEST_MS,
  MAX_SESSIONS,
  Operators,
  OVERLAP_MS,
  RENEW_MS,
} from './operators.ts'

const TOKEN = 'a-token-that-is-long-enough'
const OWN = { 'x-upserv': 'page', host: 'upserv.example:8730' }

function setUp(t: TestContext) {
  const scratch = makeScratch('operators')
  t.after(() => scratch[Symbol.dispose]())
  const file = join(scratch.path, 'token')
  writeFileSync(file, `${TOKEN}\n`, { mode: 0o600 })
  const clock = { ms: 0 }
  const operators = new Operators(file, () => clock.ms)
  const asking = (headers: Asking['headers'] = {}, tls = false): Asking => ({
    headers,
    tls,
    judge: async (isGood) => isGood(),
  })
  const login = async (token = TOKEN, headers: Asking['headers'] = OWN, tls = false): Promise<string> =>
    (await operators.login(token, asking(headers, tls))).cookie
  const isOperator = async (cookie: string, tls = false): Promise<boolean> =>
    (await operators.identify(asking({ cookie: cookie.split(';')[0] }, tls))) !== undefined
  return { file, clock, operators, asking, login, isOperator }
}

test('session: the cookie is for this server alone, and no script reads it', async (t) => {
  const { login, isOperator } = setUp(t)
  const cookie = await login()
  assert.match(cookie, /^upserv_session=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict; Max-Age=43200$/)
  assert.equal(await isOperator(cookie), true)
  const secure = await login(TOKEN, OWN, true)
  assert.match(
    secure,
    /^__Host-upserv_session=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict; Max-Age=43200; Secure$/,
  )
  assert.equal(await isOperator(secure, true), true)
  assert.equal(await isOperator(secure.replace('__Host-', '')), true, 'the value is what counts')
  assert.equal(await isOperator(cookie, true), false, 'one that came in the open is none with TLS')
})

test('session: a wrong token begins none, nor does an invented value', async (t) => {
  const { operators, login, isOperator } = setUp(t)
  await assert.rejects(login('another-token-of-some-length'), { code: 'TOKEN_MISSING' })
  for (const value of ['', 'x', 'A'.repeat(43), 'undefined', `${'A'.repeat(42)}=`])
    assert.equal(await isOperator(`upserv_session=${value}`), false)
  assert.equal(operators.sessions, 0)
})

test('session: a login gives another value, and ends what was there', async (t) => {
  const { operators, login, isOperator } = setUp(t)
  const first = await login()
  const second = await login(TOKEN, { ...OWN, cookie: first.split(';')[0] })
  assert.notEqual(second, first)
  assert.equal(await isOperator(first), false, 'nobody plants a session')
  assert.equal(await isOperator(second), true)
  assert.equal(operators.sessions, 1)
})

test('session: it ends unused, and after a while in any case', async (t) => {
  const { clock, login, isOperator } = setUp(t)
  const idle = await login()
  const used = await login()
  for (let at = 0; at < LONGEST_MS - IDLE_MS; at += IDLE_MS / 2) {
    clock.ms += IDLE_MS / 2
    assert.equal(await isOperator(used), true)
  }
  assert.equal(await isOperator(idle), false)
  clock.ms += IDLE_MS - 1
  assert.equal(await isOperator(used), true)
  clock.ms += IDLE_MS
  assert.equal(await isOperator(used), false)
})

test('session: its value changes now and then, and the one before is good for a moment', async (t) => {
  const { clock, operators, asking, login, isOperator } = setUp(t)
  const first = await login()
  const withFirst = asking({ cookie: first.split(';')[0] })
  assert.equal(operators.renew(withFirst), undefined)
  clock.ms += RENEW_MS
  const second = operators.renew(withFirst)
  assert.ok(second && second !== first)
  assert.deepEqual([await isOperator(first), await isOperator(second)], [true, true])
  assert.equal(operators.renew(withFirst), undefined, 'not again for a request that was on its way')
  clock.ms += OVERLAP_MS
  assert.deepEqual([await isOperator(first), await isOperator(second)], [false, true])
})

test('session: a logout ends it, another token ends all', async (t) => {
  const { file, operators, asking, login, isOperator } = setUp(t)
  const [one, two] = [await login(), await login()]
  assert.match(operators.logout(asking({ cookie: one.split(';')[0] })), /^upserv_session=; .*Max-Age=0$/)
  assert.deepEqual([await isOperator(one), await isOperator(two)], [false, true])
  const identified = await operators.identify(asking({ cookie: two.split(';')[0] }))
  const program = await operators.identify(asking({ authorization: `Bearer ${TOKEN}` }))
  assert.ok(identified && operators.isLive(identified) && program && operators.isLive(program))
  writeFileSync(file, 'another-token-altogether\n')
  assert.ok(!operators.isLive(identified) && !operators.isLive(program))
  assert.equal(await isOperator(two), false)
  writeFileSync(file, 'short\n')
  await assert.rejects(login(), { code: 'TOKEN_MISSING' })
})

test('session: so many at a time', async (t) => {
  const { operators, login, isOperator } = setUp(t)
  const first = await login()
  const second = await login()
  assert.equal(await isOperator(first), true)
  for (let i = 0; i < MAX_SESSIONS - 1; i++) await login()
  assert.equal(operators.sessions, MAX_SESSIONS)
  assert.deepEqual([await isOperator(first), await isOperator(second)], [true, false])
})

for (const { name, headers, good } of [
  {
    name: 'our page',
    headers: { ...OWN, 'sec-fetch-site': 'same-origin', origin: 'http://upserv.example:8730' },
    good: true,
  },
  { name: 'behind a proxy with TLS', headers: { ...OWN, origin: 'https://upserv.example:8730' }, good: true },
  { name: 'a program that has logged in', headers: OWN, good: true },
  { name: 'without the header', headers: { host: OWN.host, 'sec-fetch-site': 'same-origin' }, good: false },
  { name: "another site's page", headers: { ...OWN, 'sec-fetch-site': 'cross-site' }, good: false },
  { name: 'a page of another port', headers: { ...OWN, 'sec-fetch-site': 'same-site' }, good: false },
  { name: 'a link that somebody clicked', headers: { ...OWN, 'sec-fetch-site': 'none' }, good: false },
  { name: 'an origin of elsewhere', headers: { ...OWN, origin: 'http://evil.example' }, good: false },
  { name: 'an origin that nobody tells', headers: { ...OWN, origin: 'null' }, good: false },
]) {
  test(`a change by session: ${name} ${good ? 'may' : 'may not'}`, async (t) => {
    const { operators, asking, login } = setUp(t)
    const cookie = (await login()).split(';')[0]!
    const change = operators.require(asking({ ...headers, cookie }), true)
    if (good) assert.equal((await change).by, 'session')
    else await assert.rejects(change, { code: 'CROSS_SITE' })
    const login2 = login(TOKEN, headers)
    if (good) assert.ok(await login2)
    else await assert.rejects(login2, { code: 'CROSS_SITE' })
    // What only looks is kept from others by the browser, and what brings the token can't be another's page.
    assert.equal((await operators.require(asking({ ...headers, cookie }), false)).by, 'session')
    const bearer = asking({ ...headers, authorization: `Bearer ${TOKEN}` })
    assert.equal((await operators.require(bearer, true)).by, 'token')
  })
}

test('guesses of the token are judged by who slows them down', async (t) => {
  const { operators, asking } = setUp(t)
  let judged = 0
  const slowed: Asking = {
    ...asking({ ...OWN, authorization: 'Bearer a-guess-of-the-token' }),
    judge: async () => {
      judged++
      throw new Error('slowed')
    },
  }
  await assert.rejects(operators.identify(slowed), /slowed/)
  await assert.rejects(operators.login(TOKEN, slowed), /slowed/)
  assert.equal(judged, 2)
})
