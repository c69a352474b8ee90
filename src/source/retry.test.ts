import assert from 'node:assert/strict'
import test from 'node:test'
import { UpstreamUnreachable } from '../errors.ts'
import { limitsFor, SOURCE_LIMITS } from './limits.ts'
import { backoff, Retries, Transient } from './retry.ts'
import type { SourceEvent } from './source.ts'

function setup(attempts: number, signal = new AbortController().signal) {
  const waits: number[] = []
  const events: SourceEvent[] = []
  const retries = new Retries({
    what: 'http://h/a',
    attempts,
    limits: SOURCE_LIMITS,
    clock: { now: () => 0, random: () => 1, sleep: async (ms) => void waits.push(ms) },
    signal,
    onEvent: (event) => events.push(event),
  })
  return { retries, waits, events }
}

test('backoff doubles up to its cap, and chance takes up to half of it', () => {
  const full = [1, 2, 3, 4, 5, 6, 7].map((n) => backoff(n, SOURCE_LIMITS, 1))
  assert.deepEqual(full, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000])
  assert.equal(backoff(1, SOURCE_LIMITS, 0), 500)
  assert.equal(backoff(500, SOURCE_LIMITS, 0), 15_000)
})

test('gives up after so many attempts in a row, with the last reason', async () => {
  const { retries, waits, events } = setup(3)
  let calls = 0
  const failure = await retries
    .run(async () => {
      throw new Transient(`reason ${++calls}`)
    })
    .catch((error: unknown) => error)
  assert.ok(failure instanceof UpstreamUnreachable)
  assert.equal(failure.message, 'http://h/a: reason 3 (3 attempts)')
  assert.equal(calls, 3)
  assert.deepEqual(waits, [1000, 2000])
  assert.deepEqual(events[1], { type: 'retry', attempt: 2, of: 3, waitMs: 2000, reason: 'reason 2' })
})

test('progress starts the count again', async () => {
  const { retries, waits } = setup(3)
  for (let i = 0; i < 10; i++) {
    await retries.after(new Transient('cut'))
    assert.equal(retries.progressed(SOURCE_LIMITS.slowBytes), true)
  }
  assert.deepEqual(waits, Array(10).fill(1000))
})

test('a byte now and then is no progress', async () => {
  const { retries, waits } = setup(3)
  const trickling = async () => {
    for (let i = 0; i < 10; i++) {
      assert.equal(retries.progressed(1), false)
      await retries.after(new Transient('cut'))
    }
  }
  await assert.rejects(trickling, { code: 'SOURCE_UNREACHABLE' })
  assert.deepEqual(waits, [1000, 2000])
})

test('the upstream may say how long to wait, within reason', async () => {
  const { retries, waits } = setup(5)
  await retries.after(new Transient('busy', { retryAfterMs: 7000 }))
  await retries.after(new Transient('busy', { retryAfterMs: 0 }))
  assert.deepEqual(waits, [7000, 0])
  await assert.rejects(retries.after(new Transient('busy', { retryAfterMs: 3_600_000 })), {
    code: 'SOURCE_UNREACHABLE',
    message: 'http://h/a: busy, and asks to come back in 1 h',
  })
})

test('what is not transient is thrown at once, and so is an abort', async () => {
  const controller = new AbortController()
  const { retries, waits } = setup(5, controller.signal)
  const bug = new TypeError('bug')
  await assert.rejects(
    retries.run(() => Promise.reject(bug)),
    bug,
  )
  const reason = new Error('enough')
  controller.abort(reason)
  await assert.rejects(retries.after(new Transient('cut')), reason)
  assert.deepEqual(waits, [])
})

test('a source may be more patient or less: what is slow is the same rate', () => {
  assert.deepEqual(limitsFor({}), SOURCE_LIMITS)
  for (const stallMs of [3_000, 30_000, 300_000]) {
    const limits = limitsFor({ stallMs, attempts: 3 })
    assert.equal(limits.headersMs, stallMs)
    assert.equal(limits.slowBytes / limits.slowMs, SOURCE_LIMITS.slowBytes / SOURCE_LIMITS.slowMs)
    assert.deepEqual([limits.attemptsToStart, limits.attemptsToResume], [3, 3])
  }
})
