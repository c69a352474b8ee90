/** The worker thread's side of the budget: asks, sleeps, and goes on with the answer. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { type RoomAnswer, RoomDesk, type RoomQuestion } from '../../src/store/room.ts'

/** For a thread that must not sleep for ever. */
const PATIENCE_MS = 20_000

/** Runs `body` with a `room`, and `abort` of its fetch, in a worker thread; returns what it returned, or the error's message. */
async function inWorker(desk: RoomDesk, body: string): Promise<unknown> {
  const url = new URL('../../src/store/room.ts', import.meta.url).href
  const code = `
    const { parentPort, workerData } = require('node:worker_threads')
    import(${JSON.stringify(url)}).then(({ RoomClient }) => {
      const abort = new AbortController()
      const room = new RoomClient(workerData, abort)
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
  const { desk, asked } = deskWithoutAnswer()
  const result = inWorker(desk, 'room.claim(1)')
  await asked
  desk.close()
  assert.match(String(await result), /^AbortError: /)
})

test('a thread whose fetch is given up knows that it was no refusal, and does not wait again', {
  timeout: PATIENCE_MS,
}, async () => {
  const { desk, asked } = deskWithoutAnswer()
  const result = inWorker(
    desk,
    `const heard = []
     for (const ask of [() => room.claim(1), () => room.diskFull()])
       try { ask() } catch (error) { heard.push(error === abort.signal.reason) }
     return heard`,
  )
  await asked
  desk.abandon()
  assert.deepEqual(await result, [true, true])
  desk.close()
})

/** As when another fetch has to end first. */
function deskWithoutAnswer(): { desk: RoomDesk; asked: Promise<void> } {
  const { promise: asked, resolve: setAsked } = Promise.withResolvers<void>()
  const desk = new RoomDesk(async () => {
    setAsked()
    return await new Promise<RoomAnswer>(() => {})
  })
  return { desk, asked }
}
