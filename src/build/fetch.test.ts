import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLogger } from '../lib/log.ts'
import type { Budget } from '../store/budget.ts'
import type { Store } from '../store/store.ts'
import type { Catalog } from './catalog.ts'
import { Fetches } from './fetch.ts'

test('a build that became whole before its repair began is not fetched', async () => {
  const lease = { id: '1', release: () => {} }
  const log = createLogger()
  log.level = 'silent'
  const fetches = new Fetches({
    store: { has: () => true, damage: async () => undefined } as unknown as Store,
    catalog: { lease: () => lease } as unknown as Catalog,
    budget: {} as Budget,
    sources: [
      { name: 'm', builds: '^.+$', url: 'file:///{build}', checksum: undefined, contents: undefined },
    ],
    log,
  })
  assert.equal(await fetches.repair('1', () => {}, new AbortController().signal), lease)
  assert.deepEqual(fetches.status(), [])
})
