import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Operations, VerifyProgress } from '../build/operations.ts'
import { connectControl, listenControl, remoteOperations } from './control.ts'

test('control: a verification tells how it goes, and ends when who asked for it has gone', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'upserv-control-'))
  const path = join(directory, 'sock')
  const stopped = Promise.withResolvers<void>()
  const asked: unknown[] = []
  const verify: Operations['verify'] = async (id, options, onProgress, signal) => {
    asked.push(id, options.repair)
    onProgress({ type: 'checked', bytes: 1, totalBytes: 2, rottenBlobs: 0 })
    if (id === '1') return { blobs: 1, bytes: 2, rottenBlobs: 0, damaged: [] }
    await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    throw new Error('never')
  }
  const door = await listenControl(path, {
    operations: Promise.resolve({ verify } as Operations),
    reload: async () => [],
    handOver: async () => ({ pid: 1, version: '1', sessions: 0 }),
    rsync: () => {},
    onRequest: (running) => void running.catch(() => stopped.resolve()),
  })
  t.after(() => {
    door.close()
    door.hangUp()
    rmSync(directory, { recursive: true })
  })
  const remote = remoteOperations(async () => (await connectControl(path))!)

  const seen: VerifyProgress[] = []
  const report = await remote.verify(
    '1',
    { repair: true },
    (progress) => seen.push(progress),
    new AbortController().signal,
  )
  assert.equal(report.bytes, 2)
  assert.deepEqual(seen, [{ type: 'checked', bytes: 1, totalBytes: 2, rottenBlobs: 0 }])

  const abort = new AbortController()
  const onProgress = (): void => abort.abort(new Error('I have to go'))
  await assert.rejects(remote.verify(undefined, { repair: false }, onProgress, abort.signal), /I have to go/)
  await stopped.promise
  assert.deepEqual(asked, ['1', true, undefined, false])
})

for (const { name, answers } of [
  { name: 'before it has read the request', answers: '' },
  { name: 'in the middle of an answer', answers: '{"type":"resu' },
])
  test(`control: a server that ends ${name} is told of in plain words`, async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'upserv-control-'))
    const path = join(directory, 'sock')
    const server = createServer({ pauseOnConnect: true }).listen(path)
    t.after(() => {
      server.close()
      rmSync(directory, { recursive: true })
    })
    await once(server, 'listening')
    const accepted = once(server, 'connection')
    const asked = remoteOperations(async () => (await connectControl(path))!).status()
    const [socket] = (await accepted) as [Socket]
    if (answers === '') {
      for (let i = 0; i < 10; i++) await nextTurn()
      socket.destroy()
    } else {
      await once(socket.resume(), 'data')
      socket.end(answers)
    }
    await assert.rejects(asked, {
      code: 'COMMAND_REFUSED',
      message: 'the server ended before it answered',
    })
  })
