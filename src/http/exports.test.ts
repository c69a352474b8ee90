import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Activity } from '../build/activity.ts'
import type { Operations } from '../build/operations.ts'
import { createLogger } from '../lib/log.ts'
import { apiRoutes } from './api.ts'
import { BuildsView } from './builds-view.ts'
import { OPERATORS_VIEW } from './view.ts'

test('few export at a time, however slowly they read', async () => {
  const operations = {
    history: async () => ({ records: [], next: null }),
  } as Partial<Operations> as Operations
  const routes = apiRoutes({
    operations,
    builds: new BuildsView(operations, new Activity()),
    log: createLogger(),
    signal: new AbortController().signal,
  })
  const ways = ['exportHistoryCsv', 'exportHistoryJson'].map((id) => routes.find((route) => route.id === id)!)
  const begin = async (n: number): Promise<AsyncIterator<string>> => {
    const asked = { params: {}, query: {}, body: {}, view: OPERATORS_VIEW }
    const { file } = await ways[n % 2]!.run(asked, new AbortController().signal)
    const content = file!.content[Symbol.asyncIterator]()
    assert.notEqual((await content.next()).value, '')
    return content
  }
  const slow: AsyncIterator<string>[] = []
  for (let n = 0; n < 8; n++) slow.push(await begin(n))
  for (let n = 0; n < 2; n++) await assert.rejects(begin(n), { status: 503 })
  await slow.pop()!.return!()
  slow.push(await begin(0))
  await assert.rejects(begin(0), { status: 503 })
})
