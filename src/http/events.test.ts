import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { Activity } from '../build/activity.ts'
import type { Operations } from '../build/operations.ts'
import type { FetchEnd } from '../history/fetch-record.ts'
import { BuildsView } from './builds-view.ts'
import { Events } from './events.ts'
import { OPERATORS_VIEW } from './view.ts'

/** Far more than the server keeps for one who does not read, and than the system does. */
const MANY = 2000

test('who watches and does not read costs little, is hung up on in the end, and keeps nobody else waiting', async (t) => {
  let now = 0
  const activity = new Activity()
  const operations = { activity: async () => ({}), list: async () => [] } as unknown as Operations
  const events = new Events(operations, activity, new BuildsView(operations, activity), () => now)
  const responses: ServerResponse[] = []
  const server = createServer((_, response) => {
    responses.push(response)
    events.watch(response, () => OPERATORS_VIEW)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const watch = async (): Promise<Socket> => {
    const count = responses.length
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
    socket.write('GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n')
    while (responses.length === count) await once(server, 'request')
    return socket
  }
  const sleeper = await watch()
  sleeper.pause()
  const reader = await watch()
  t.after(() => {
    events.close()
    sleeper.destroy()
    reader.destroy()
    server.close()
  })
  let read = 0
  reader.on('data', (piece) => {
    read += piece.length
  })
  assert.equal(events.watchers, 2)
  const [asleep, awake] = responses as [ServerResponse, ServerResponse]
  const end: FetchEnd = {
    ...{ id: '1', source: 's', url: '', began: '', ended: '', outcome: 'failed', code: '', receivedBytes: 0 },
    reason: 'x'.repeat(10_000),
  }
  for (let n = 0; n < MANY; n++) {
    activity.fetchEnded(end)
    if (awake.writableNeedDrain) await once(awake, 'drain')
  }
  // No more was kept for it than that bound and one event.
  assert.ok(asleep.writableLength < 600 * 1024, String(asleep.writableLength))
  assert.ok(read > 10_000 * (MANY / 2), String(read))
  assert.equal(events.watchers, 2)

  now += 29_000
  activity.fetchEnded(end)
  assert.equal(asleep.destroyed, false)
  now += 2000
  activity.fetchEnded(end)
  assert.equal(asleep.destroyed, true)
  if (events.watchers > 1) await once(asleep, 'close')
  assert.equal(events.watchers, 1)
  assert.equal(awake.destroyed, false)
})
