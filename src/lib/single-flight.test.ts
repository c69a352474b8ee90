import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SingleFlight } from './single-flight.ts'

test('all who ask at the same time get one computation', async () => {
  const flight = new SingleFlight<string, number>()
  const gate = Promise.withResolvers<number>()
  let computed = 0
  const compute = (): Promise<number> => {
    computed++
    return gate.promise
  }
  const answers = [flight.run('a', compute), flight.run('a', compute), flight.run('a', compute)]
  assert.equal(flight.size, 1)
  gate.resolve(7)
  assert.deepEqual(await Promise.all(answers), [7, 7, 7])
  assert.equal(computed, 1)
  assert.equal(flight.size, 0)
})

test('different questions run side by side, and an answer is not kept', async () => {
  const flight = new SingleFlight<string, string>()
  const first = flight.run('a', async () => 'first')
  assert.equal(await flight.run('b', async () => 'other'), 'other')
  assert.equal(await first, 'first')
  assert.equal(await flight.run('a', async () => 'second'), 'second')
})

test('a failure goes to all who asked, and the next one tries again', async () => {
  const flight = new SingleFlight<string, number>()
  const failing = async (): Promise<number> => {
    throw new Error('no')
  }
  const answers = await Promise.allSettled([flight.run('a', failing), flight.run('a', failing)])
  assert.deepEqual(
    answers.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  assert.equal(await flight.run('a', async () => 1), 1)
})

test('who gives up leaves the others alone; when nobody is left the computation is told', async () => {
  const flight = new SingleFlight<string, number>()
  const gate = Promise.withResolvers<number>()
  let told = false
  const compute = (signal: AbortSignal): Promise<number> => {
    signal.addEventListener('abort', () => {
      told = true
      gate.reject(new Error('stopped'))
    })
    return gate.promise
  }
  const first = new AbortController()
  const second = new AbortController()
  const answers = [flight.run('a', compute, first.signal), flight.run('a', compute, second.signal)]
  const outcomes = Promise.allSettled(answers)
  first.abort(new Error('first left'))
  await assert.rejects(answers[0]!, /first left/)
  assert.equal(told, false)
  second.abort(new Error('second left'))
  await assert.rejects(answers[1]!, /second left/)
  assert.equal(told, true)
  await outcomes
  assert.equal(flight.size, 0)
})
