/** Threads that start from the program's files when those are of another version than the process. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { setEnvironmentData, Worker } from 'node:worker_threads'
import { Piscina } from 'piscina'

const WORDS = /^the program was replaced: version 0\.0\.0 runs, and its files are those of \d/
const file = (path: string): string => fileURLToPath(new URL(`../../src/${path}.ts`, import.meta.url))

// As a process of that version would start them.
setEnvironmentData('upserv version', '0.0.0')

test('replaced: no fetch is begun, and whoever waits for it hears why', async () => {
  const worker = new Worker(file('build/fetch-worker'), { workerData: {} })
  const [{ type, error }] = await once(worker, 'message')
  assert.deepEqual([type, error.code], ['failed', 'PROGRAM_REPLACED'])
  assert.match(error.message, WORDS)
  assert.match(error.hint, /upserv handover/)
})

test('replaced: the history is not touched', async () => {
  const worker = new Worker(file('history/history-worker'), { workerData: { file: '/nowhere/x.db' } })
  const [error] = await once(worker, 'error')
  assert.match(error.message, WORDS)
})

test('replaced: nothing is derived', async () => {
  await using delta = new Piscina({ filename: file('rsync/delta/worker'), maxThreads: 1 })
  const { error } = await delta.run({})
  assert.equal(error.code, 'PROGRAM_REPLACED')
  await using refine = new Piscina({ filename: file('rsync/refine-worker'), maxThreads: 1 })
  await assert.rejects(refine.run({}), { message: WORDS })
})
