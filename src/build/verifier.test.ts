import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLogger } from '../lib/log.ts'
import type { Store } from '../store/store.ts'
import type { Catalog } from './catalog.ts'
import type { Fetches } from './fetch.ts'
import { Verifier } from './verifier.ts'

/** A verifier, what it read, and a gate before each answer. */
function setUp(rotten: ReadonlySet<number> = new Set()) {
  const checked: number[] = []
  const files: string[] = []
  const clock = { now: 0 }
  const open = Promise.withResolvers<void>()
  const store = {
    has: () => true,
    checkFiles: async (id: string) => void files.push(id),
    checkBlob: async (digest: Uint8Array, signal: AbortSignal) => {
      const aborted = new Promise<never>((_, reject) =>
        signal.addEventListener('abort', () => reject(signal.reason)),
      )
      await Promise.race([open.promise, aborted])
      checked.push(digest[0]! * 256 + digest[1]!)
      return !rotten.has(digest[0]! * 256 + digest[1]!)
    },
  }
  const log = createLogger()
  log.level = 'silent'
  const verifier = new Verifier({
    store: store as unknown as Store,
    catalog: {} as Catalog,
    fetches: {} as Fetches,
    log,
    now: () => clock.now,
  })
  const suspect = (n: number) => verifier.suspect('1', Uint8Array.of(n >> 8, n & 255))
  return { verifier, suspect, checked, files, clock, answer: () => open.resolve() }
}

test('verifier: what many suspect is read once, one after the other', async () => {
  const { verifier, suspect, checked, files, answer } = setUp()
  for (const n of [1, 2, 1, 2, 3, 1]) suspect(n)
  for (let i = 0; i < 3; i++) verifier.suspect('1', undefined)
  assert.deepEqual(checked, [], 'nobody waits')
  answer()
  await verifier.idle()
  assert.deepEqual([checked, files], [[1, 2, 3], ['1']])
})

test('verifier: what was right is believed for ten minutes; what was rotten is not', async () => {
  const { verifier, suspect, checked, clock, answer } = setUp(new Set([7]))
  answer()
  const ask = async (n: number) => {
    suspect(n)
    await verifier.idle()
  }
  for (const n of [1, 1, 7, 7]) await ask(n)
  clock.now = 599_999
  await ask(1)
  assert.deepEqual(checked, [1, 7, 7])
  clock.now = 600_000
  await ask(1)
  assert.deepEqual(checked, [1, 7, 7, 1])
})

test('verifier: clients cannot make the line longer than it may be', async () => {
  const { verifier, suspect, checked, answer } = setUp()
  for (let n = 0; n < 5000; n++) suspect(n)
  answer()
  await verifier.idle()
  assert.equal(checked.length, 1000)
  suspect(4000)
  await verifier.idle()
  assert.equal(checked.at(-1), 4000, 'once it is shorter others are looked at')
})

test('verifier: closing stops it, and nothing is taken on any more', async () => {
  const { verifier, suspect, checked } = setUp()
  for (const n of [1, 2, 3]) suspect(n)
  await verifier.close()
  suspect(4)
  await verifier.idle()
  assert.deepEqual(checked, [])
})
