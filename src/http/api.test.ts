import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Activity } from '../build/activity.ts'
import type { Operations } from '../build/operations.ts'
import { Doorstep } from '../doorstep/doorstep.ts'
import { createLogger } from '../lib/log.ts'
import { USUAL_PREFIXES } from '../lib/peer.ts'
import { type ApiParts, apiRoutes } from './api.ts'
import { BuildsView } from './builds-view.ts'
import { Http, type HttpParts } from './server.ts'
import { makeTokenFile, readToken } from './token.ts'
import { OPERATORS_VIEW } from './view.ts'

/** How long who asked may read nothing. */
const IDLE_MS = 300

const routesFor = (operations: Partial<Operations>, examine: ApiParts['examine'] = async () => []) =>
  apiRoutes({
    operations: operations as Operations,
    reload: async () => [],
    examine,
    live: () => [],
    builds: new BuildsView(operations as Operations, new Activity()),
    log: createLogger(),
    signal: new AbortController().signal,
  })

test('the server looks at itself once at a time, for all who ask meanwhile', async () => {
  let looks = 0
  const gates: (() => void)[] = []
  const routes = routesFor({}, async () => {
    const says = `look ${++looks}`
    await new Promise<void>((resolve) => gates.push(resolve))
    return [{ verdict: 'ok', about: 'clock', says }]
  })
  const { run } = routes.find(({ id }) => id === 'examine')!
  const asked = { params: {}, query: {}, body: {}, view: OPERATORS_VIEW }
  const ask = () => run(asked, new AbortController().signal)
  const both = [ask(), ask()]
  assert.equal(gates.length, 1)
  gates[0]!()
  const expected = (says: string) => ({
    status: 200,
    body: { items: [{ verdict: 'ok', about: 'clock', says, hint: null }] },
  })
  assert.deepEqual(await Promise.all(both), [expected('look 1'), expected('look 1')])
  const later = ask()
  gates[1]!()
  assert.deepEqual(await later, expected('look 2'))
})

test('few export at a time, however slowly they read', async () => {
  const routes = routesFor({ history: async () => ({ records: [], next: null }) })
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

test('who asks for an export and does not read it is hung up on', async () => {
  let pages = 0
  // Without end.
  const operations = {
    history: async () => ({ records: [{ id: ++pages, reason: 'x'.repeat(100_000) }], next: pages }),
  } as unknown as Operations
  const directory = mkdtempSync(join(tmpdir(), 'upserv-exports-'))
  const tokenFile = join(directory, 'token')
  makeTokenFile(tokenFile)
  const authorization = `Bearer ${readToken(tokenFile)}`
  const http = await Http.create({
    operations,
    reload: async () => [],
    examine: async () => [],
    activity: new Activity(),
    log: createLogger(),
    idleMs: () => IDLE_MS,
    names: [],
    children: () => false,
    limits: () => ({ perSource: 0, prefixes: USUAL_PREFIXES }),
    tokenFile,
    judgeGuess: async (_, isGood) => isGood(),
    isServing: () => true,
    isStopping: () => false,
    onChange: () => {},
  } as Partial<HttpParts> as HttpParts)
  const { port } = new URL(
    await http.listen({ host: '127.0.0.1', port: 0 }, new Doorstep({ tls: undefined, isProxy: () => false })),
  )
  const socket = connect(Number(port), '127.0.0.1')
  try {
    socket.pause()
    socket.write(
      `GET /api/v1/history.json HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: ${authorization}\r\n\r\n`,
    )
    while (pages < 2) await sleep(5)
    http.close()
    // It waits for requests under way: this one would last for ever.
    await http.finished()
    assert.ok(pages < 1000, String(pages))
  } finally {
    socket.destroy()
    rmSync(directory, { recursive: true })
  }
})
