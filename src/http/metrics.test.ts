/** Who asks for /metrics at the same time as others. What it says: test/http/metrics.test.ts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Activity } from '../build/activity.ts'
import type { Operations, Status } from '../build/operations.ts'
import { BuildsView } from './builds-view.ts'
import { createMetrics } from './metrics.ts'
import { OPERATORS_VIEW, type View } from './view.ts'

const STATUS: Status = {
  ...{ version: '1', pid: 1, dataDir: '/data', listening: [], tlsListening: [], httpUrls: [] },
  ...{ uptimeSeconds: 1, budgetBytes: 1000, usedBytes: 0, damaged: [], sessions: 0, inLine: 0, fetches: [] },
  usage: { builds: 0, cache: 0, downloads: 0, history: 0, other: 0 },
  builds: 7,
}
const VISITORS_VIEW: View = {
  ...OPERATORS_VIEW,
  ...{ standing: 'visitor', isOperator: false, status: (status) => ({ ...status, builds: 2 }) },
}

test('who asks at the same time gets what is for them, made once for all who may see the same', async () => {
  let asked = 0
  const operations = {
    status: async () => {
      asked++
      return STATUS
    },
    list: async () => [],
  } as Partial<Operations> as Operations
  const activity = new Activity()
  const builds = new BuildsView(operations, activity)
  const metrics = createMetrics({ operations, activity, builds, watchers: () => 0 })
  const views = Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? OPERATORS_VIEW : VISITORS_VIEW))
  const texts = await Promise.all(views.map(metrics))
  const held = texts.map(({ text }) => Number(/^upserv_builds_held (\d+)$/m.exec(text)?.[1]))
  assert.deepEqual(
    held,
    views.map(({ isOperator }) => (isOperator ? 7 : 2)),
  )
  assert.equal(asked, 2)
  await metrics(OPERATORS_VIEW)
  assert.equal(asked, 3, 'what was made before is not told to those who come later')
})
