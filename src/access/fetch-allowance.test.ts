import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ALL_SOURCES, AT_ONCE, FetchAllowance, type FetchLimits } from './fetch-allowance.ts'

const HOUR_MS = 3_600_000

function setUp(limits: Partial<FetchLimits>) {
  const clock = { ms: 0 }
  const allowance = new FetchAllowance(
    { perSource: 0, bytesPerSource: 0, bytes: 0, ...limits },
    () => clock.ms,
  )
  /** A fetch from its beginning to its end. */
  const fetch = (source: string, receivedBytes = 0, absent = false): void =>
    allowance.begin(source).end({ receivedBytes, absent })
  const spent = (source: string, message: RegExp) =>
    assert.throws(() => fetch(source), { code: 'FETCHES_SPENT', message })
  return { clock, allowance, fetch, spent }
}

test('fetches: so many an hour for each source, and they come back one by one', () => {
  const { clock, fetch, spent } = setUp({ perSource: 6 })
  for (let i = 0; i < 6; i++) fetch('a')
  spent(
    'a',
    /not held here, and as much was fetched for your address as may be in an hour: try again in 10 minutes/,
  )
  fetch('b')
  clock.ms += HOUR_MS / 6
  fetch('a')
  spent('a', /in an hour/)
})

test('fetches: many sources together have a limit of their own', () => {
  const { fetch, spent } = setUp({ perSource: 1 })
  for (let i = 0; i < ALL_SOURCES; i++) fetch(`s${i}`)
  spent('another', /fetched for strangers/)
})

test('fetches: bytes are charged when they have come, and what was too much has to recover', () => {
  const { clock, fetch, spent } = setUp({ bytesPerSource: 1000, bytes: 4000 })
  fetch('a', 900)
  fetch('a', 1100) // there was something left, and nobody knew how large it was
  spent('a', /your address/)
  clock.ms += HOUR_MS
  spent('a', /your address/) // it owes for more than an hour
  clock.ms += HOUR_MS / 10
  fetch('a', 10)
  const all = setUp({ bytes: 4000 })
  all.fetch('a', 5000)
  all.spent('b', /strangers/)
})

test('fetches: what no source has costs a tenth', () => {
  const { fetch, spent } = setUp({ perSource: 3 })
  for (let i = 0; i < 15; i++) fetch('a', 0, true)
  fetch('a')
  spent('a', /your address/)
})

test('fetches: one source has not all places of the line', () => {
  const { allowance, fetch, spent } = setUp({ perSource: 100 })
  const running = Array.from({ length: AT_ONCE }, () => allowance.begin('a'))
  spent('a', /are being fetched for your address already: try again when these are done/)
  fetch('b')
  running[0]!.end({ receivedBytes: 1, absent: false })
  fetch('a')
})

test('fetches: other limits hold at once; the same ones forget nothing', () => {
  const { allowance, fetch, spent } = setUp({ perSource: 2 })
  fetch('a')
  fetch('a')
  allowance.change({ perSource: 2, bytesPerSource: 0, bytes: 0 })
  spent('a', /your address/)
  allowance.change({ perSource: 3, bytesPerSource: 0, bytes: 0 })
  fetch('a')
})
