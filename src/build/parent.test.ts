/** What many children at once cost. test/parent has two servers that talk to each other. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { ANYBODY } from '../../test/support/asker.ts'
import type { Store } from '../store/store.ts'
import { Parent, type ParentParts } from './parent.ts'

/** A parent whose store gives no manifest before it is told to. */
function setUp() {
  const counted = { leases: 0, reading: 0 }
  const gate = Promise.withResolvers<void>()
  const lease = async () => {
    counted.leases++
    return { release: () => counted.leases-- }
  }
  const store = {
    info: async () => ({ contentsSha256: '', url: '' }),
    manifestBytes: async () => {
      counted.reading++
      await gate.promise
      return Buffer.alloc(1000)
    },
    contentsSize: async () => 0,
  }
  const parent = new Parent({
    store: store as unknown as Store,
    resolver: { lease },
  } as unknown as ParentParts)
  const said: string[] = []
  const describe = (signal = new AbortController().signal) =>
    parent.describe('1', [], ANYBODY, (line) => void said.push(line), signal)
  return { counted, said, describe, open: () => gate.resolve() }
}

test('manifests of many children are compressed a few at a time, each of them in its turn', async () => {
  const { counted, describe, open } = setUp()
  const gone = new AbortController()
  const all = Array.from({ length: 8 }, () => describe())
  const given = describe(gone.signal)
  await turn()
  assert.deepEqual(counted, { leases: 9, reading: 4 })
  gone.abort(new Error('the child is gone'))
  await assert.rejects(given, /the child is gone/)
  assert.equal(counted.leases, 8)
  open()
  const sent = await Promise.all(all)
  assert.deepEqual(new Set(sent.map(({ line }) => line.bytes)), new Set([1000]))
  assert.deepEqual(counted, { leases: 0, reading: 8 })
})

test('who waits for that hears of it', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const { said, describe, open } = setUp()
  const described = describe()
  t.mock.timers.tick(0)
  await turn()
  assert.deepEqual(said, [])
  t.mock.timers.tick(3000)
  open()
  await described
  t.mock.timers.tick(3000)
  assert.deepEqual(said, Array(2).fill('build-1: its description is made ready'))
})
