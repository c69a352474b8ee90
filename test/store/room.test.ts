/** The worker thread's side of the budget: asks, sleeps, and goes on with the answer. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { type RoomAnswer, RoomDesk, type RoomQuestion } from '../../src/store/room.ts'

/** Runs `body` with a `room` in a worker thread; returns what it returned, or the error's message. */
async function inWorker(desk: RoomDesk, body: string): Promise<unknown> {
  const url = new URL('../../src/store/room.ts', import.meta.url).href
  const code = `
    const { parentPort, workerData } = require('node:worker_threads')
    import(${JSON.stringify(url)}).then(({ RoomClient }) => {
      const room = new RoomClient(workerData)
      const run = () => { ${body} }
      let result
      try { result = run() } catch (error) { result = error.name + ': ' + error.message }
      parentPort.postMessage(result)
    })`
  const worker = new Worker(code, { eval: true, workerData: desk.memory })
  const [result] = await once(worker, 'message')
  await worker.terminate()
  return result
}

test('claims are granted in large pieces, and a refusal brings its message', async () => {
  const questions: RoomQuestion[] = []
  const desk = new RoomDesk(async (question): Promise<RoomAnswer> => {
    questions.push(question)
    await new Promise((resolve) => setImmediate(resolve))
    if (question.type === 'disk-full') return { granted: 1 }
    const refusal = { refusal: 'build 803 is too large – sorry', hint: 'Raise `budget`.' }
    return question.bytes > 1000 ? refusal : { granted: 100 }
  })
  const result = await inWorker(
    desk,
    `for (let i = 0; i < 10; i++) room.claim(10)
     room.giveBack(50)
     room.claim(50)
     const full = room.diskFull()
     room.claim(1)
     try { room.claim(5000) } catch (error) { return [full, error.name, error.message, error.hint] }`,
  )
  desk.close()
  assert.deepEqual(result, [true, 'NoRoom', 'build 803 is too large – sorry', 'Raise `budget`.'])
  assert.deepEqual(questions, [
    { type: 'grant', bytes: 10 },
    { type: 'disk-full' },
    { type: 'grant', bytes: 1 },
    { type: 'grant', bytes: 4901 },
  ])
})

test('an error on our side is a refusal, not a thread that sleeps for ever', async () => {
  const desk = new RoomDesk(async () => {
    throw new Error('the disk is on fire')
  })
  assert.equal(await inWorker(desk, 'room.claim(1)'), 'NoRoom: the disk is on fire')
  desk.close()
})

test('closing wakes a thread that waits', async () => {
  const asked = Promise.withResolvers<void>()
  const desk = new RoomDesk(async () => {
    asked.resolve()
    return await new Promise<RoomAnswer>(() => {})
  })
  const result = inWorker(desk, 'room.claim(1)')
  await asked.promise
  desk.close()
  assert.equal(await result, 'NoRoom: the fetch was given up')
})
