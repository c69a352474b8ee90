import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WaitingLine } from './waiting-line.ts'

const never = new AbortController().signal

test('so many enter at once; the others wait in order and hear their place', async () => {
  const line = new WaitingLine(2)
  const places: number[] = []
  const first = await line.enter(never, () => assert.fail('nobody is ahead'))
  const second = await line.enter(never, () => assert.fail('nobody is ahead'))
  let entered = ''
  const third = line
    .enter(never, (ahead) => places.push(ahead))
    .then((leave) => {
      entered += '3'
      return leave
    })
  const fourth = line
    .enter(never, () => {})
    .then((leave) => {
      entered += '4'
      return leave
    })
  assert.equal(line.length, 2)
  assert.equal(places.at(-1), 2)
  second()
  const leaveThird = await third
  assert.equal(entered, '3')
  first()
  const leaveFourth = await fourth
  assert.equal(entered, '34')
  assert.equal(line.length, 0)
  leaveThird()
  leaveFourth()
  ;(await line.enter(never, () => assert.fail('all have left')))()
})

test('who gives up leaves the line; who is called up just then hands on', async () => {
  const line = new WaitingLine(1)
  const leave = await line.enter(never, () => {})
  const abort = new AbortController()
  const impatient = line.enter(abort.signal, () => {})
  const other = line.enter(never, () => {})
  abort.abort(new Error('enough'))
  await assert.rejects(impatient, /enough/)
  assert.equal(line.length, 1)

  const late = new AbortController()
  const calledUp = line.enter(late.signal, () => {})
  leave()
  ;(await other)()
  // The place is handed over and the signal aborts before anybody had a turn.
  late.abort(new Error('too late'))
  await calledUp.then(
    (leaveAgain) => leaveAgain(),
    () => {},
  )
  ;(await line.enter(never, () => {}))()
})
