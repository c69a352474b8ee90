import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Attempts, FORGET_MS, FREE_FAILURES, MAX_REMEMBERED, MAX_WAIT_MS, SLOW_MS } from './attempts.ts'

/** A clock that stands still but for who sleeps by it: whoever sleeps longest has the last word. */
function setUp() {
  const clock = { ms: 1e6 }
  const slept: number[] = []
  const attempts = new Attempts({
    now: () => clock.ms,
    sleep: async (ms) => {
      slept.push(ms)
    },
  })
  const from = (source: string, network = source) => ({ source, network })
  const fail = (source: string, name: string, network?: string) =>
    attempts.judge(from(source, network), name, () => false)
  const refused = async (work: Promise<unknown>) => assert.rejects(work, { code: 'LOGINS_SLOWED' })
  return { clock, slept, attempts, from, fail, refused }
}

test('attempts: a few failures are free, then each waits, then they are refused unjudged', async () => {
  const { attempts, slept, fail, from, refused } = setUp()
  for (let i = 0; i < FREE_FAILURES.name; i++) assert.equal(await fail('a', 'alice'), false)
  assert.deepEqual(slept, [])
  const many = MAX_WAIT_MS / SLOW_MS + 1
  for (let i = 0; i < many; i++) await fail('a', 'alice')
  assert.deepEqual(
    slept,
    Array.from({ length: many - 1 }, (_, i) => (i + 1) * SLOW_MS),
  )
  let judged = false
  await refused(
    attempts.judge(from('a'), 'alice', () => {
      judged = true
      return true
    }),
  )
  assert.equal(judged, false, 'a guess that is not waited for must tell nothing')
})

test('attempts: many at once are no faster than one after the other', async () => {
  const { slept, fail } = setUp()
  const outcomes = await Promise.allSettled(Array.from({ length: 200 }, () => fail('a', 'alice')))
  const judged = outcomes.filter(({ status }) => status === 'fulfilled').length
  assert.ok(judged <= FREE_FAILURES.name + MAX_WAIT_MS / SLOW_MS + 1 || judged === 200, String(judged))
  // Those who came in the same turn were all on their way; a second crowd is not let through.
  const second = await Promise.allSettled(Array.from({ length: 200 }, () => fail('a', 'alice')))
  assert.ok(second.filter(({ status }) => status === 'fulfilled').length <= MAX_WAIT_MS / SLOW_MS + 1)
  assert.ok(slept.every((ms) => ms <= MAX_WAIT_MS))
})

test('attempts: the right password is taken after a pause, and clears its own name alone', async () => {
  const { attempts, clock, slept, fail, from } = setUp()
  for (let i = 0; i <= FREE_FAILURES.name; i++) await fail('a', 'alice')
  clock.ms += FORGET_MS / FREE_FAILURES.name + 1
  assert.equal(await attempts.judge(from('a'), 'alice', () => true), true)
  for (let i = 0; i < FREE_FAILURES.name; i++) await fail('a', 'alice')
  assert.equal(slept.length, 0)
})

test('attempts: others behind the same address are not slowed by one name, nor by a device that asks every minute', async () => {
  const { attempts, clock, slept, fail, from } = setUp()
  for (let i = 0; i < FREE_FAILURES.name * 2; i++) await fail('a', 'alice').catch(() => {})
  slept.length = 0
  assert.equal(await attempts.judge(from('a'), 'bob', () => true), true)
  for (let i = 0; i < 600; i++) {
    clock.ms += 60_000
    assert.equal(await fail('b', 'misconfigured'), false)
  }
  // One in a minute is half of what is forgotten in it.
  assert.deepEqual(slept, [])
})

test('attempts: other names do not help, nor other addresses of one network', async () => {
  const { fail, refused, slept } = setUp()
  for (let i = 0; i < FREE_FAILURES.source; i++) await fail('a', `user-${i}`)
  assert.deepEqual(slept, [])
  for (let i = 0; i < MAX_WAIT_MS / SLOW_MS + 1; i++) await fail('a', `other-${i}`)
  await refused(fail('a', 'one more'))
  const spread = setUp()
  for (let i = 0; i < FREE_FAILURES.network; i++)
    await spread.fail(`2001:db8:0:${i}::/64`, 'alice', '2001:db8::/48')
  assert.deepEqual(spread.slept, [])
  for (let i = 0; i < MAX_WAIT_MS / SLOW_MS + 1; i++)
    await spread.fail(`2001:db8:1:${i}::/64`, 'alice', '2001:db8::/48')
  await spread.refused(spread.fail('2001:db8:2:1::/64', 'alice', '2001:db8::/48'))
  assert.equal(await spread.fail('192.0.2.1', 'alice', '192.0.2.0/24'), false)
})

test('attempts: memory is bounded, whatever names and addresses come', async () => {
  const { attempts, fail } = setUp()
  for (let i = 0; i < MAX_REMEMBERED; i++) await fail(`s${i}`, 'x'.repeat(1000), `n${i}`)
  assert.equal(attempts.remembered, MAX_REMEMBERED)
})
