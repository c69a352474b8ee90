/** What child servers may have lie in memory for them. test/parent has more of what they may. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingMessage, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import type { Parent } from '../build/parent.ts'
import { Bandwidth } from '../lib/bandwidth.ts'
import { type ChildVisitor, parentDoor } from './parent.ts'

/** More than one source may have lie here, and than sockets take. */
const LARGE = 40 << 20

/** What is said before a manifest, or in its place. */
async function headOf(answer: IncomingMessage): Promise<string> {
  let head = ''
  while (!/"build"|"error"/.test(head)) head += String((await once(answer, 'data'))[0])
  return head.split('\0', 1)[0]!
}

test('children that waited together for manifests get no more of them than there is room for', async (t) => {
  const gate = Promise.withResolvers<void>()
  let asked = 0
  const describe = async (_id: string, _seals: unknown, _asker: unknown, say: (line: string) => void) => {
    asked++
    if (asked === 3) {
      say('wait')
      gate.resolve()
    }
    await gate.promise
    return { line: { sent: LARGE }, body: Buffer.alloc(LARGE) }
  }
  const visitor = {
    ...{ mayKnock: () => true, mustProve: () => false, mayHave: () => true },
    settings: () => ({ hides: [] }),
  }
  const bandwidth = new Bandwidth({})
  const door = parentDoor({
    parent: Promise.resolve({ describe } as unknown as Parent),
    visitor: () => visitor as unknown as ChildVisitor,
    source: () => 'one',
    pace: () => bandwidth.join({ source: 'one', network: 'one' }),
    signal: new AbortController().signal,
    onRequest: () => {},
    log: () => {},
  })
  const server = createServer(door).listen(0, '127.0.0.1')
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  using children = new DisposableStack()
  const ask = async (): Promise<IncomingMessage> => {
    const sent = request(`http://127.0.0.1:${port}/parent/v1/builds/1`, { method: 'POST', agent: false })
    children.defer(() => sent.destroy())
    const [response] = await once(sent.end('{"seals":[]}'), 'response')
    sent.on('error', () => {})
    return response as IncomingMessage
  }
  const answers: IncomingMessage[] = await Promise.all([ask(), ask(), ask()])
  const heads = await Promise.all(answers.map(headOf))
  const count = (what: RegExp): number => heads.filter((head) => what.test(head)).length
  assert.equal(count(/"build"/), 1, String(heads))
  assert.equal(count(/SERVER_BUSY/), 2, String(heads))
})
