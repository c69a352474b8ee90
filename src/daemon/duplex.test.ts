import assert from 'node:assert/strict'
import { PassThrough, Writable } from 'node:stream'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { ConnectionLost } from '../errors.ts'
import { StreamDuplex } from './duplex.ts'

function stalledDuplex() {
  const input = new PassThrough()
  const output = new PassThrough({ highWaterMark: 1 })
  return { input, output, duplex: new StreamDuplex(input, output) }
}

test('two writers that wait for room are both woken when there is some', async () => {
  const { output, duplex } = stalledDuplex()
  const both = Promise.all([duplex.write(Buffer.from('first')), duplex.write(Buffer.from('second'))])
  output.resume()
  await both
})

test('two writers that wait for room both hear that the connection broke', async () => {
  const { output, duplex } = stalledDuplex()
  const both = [duplex.write(Buffer.from('first')), duplex.write(Buffer.from('second'))]
  output.destroy()
  for (const write of both) await assert.rejects(write, ConnectionLost)
})

test('a reader that waits hears of the end, and of a broken connection', async () => {
  const ended = stalledDuplex()
  const reading = ended.duplex.read()
  ended.input.end()
  assert.equal(await reading, undefined)

  const broken = stalledDuplex()
  const failing = broken.duplex.read()
  broken.input.destroy(new Error('reset'))
  await assert.rejects(failing, ConnectionLost)
})

/** What is wrong with a write, and when that is said. */
const FAILURES = [
  { name: 'at once', fail: (taken: (error: Error) => void) => taken(new Error('EPIPE')) },
  { name: 'later', fail: (taken: (error: Error) => void) => setImmediate(taken, new Error('EPIPE')) },
] as const
for (const { name, fail } of FAILURES) {
  test(`a write that fails ${name} breaks the connection, and its memory is not given back`, async () => {
    for (const highWaterMark of [1, 1000]) {
      const output = new Writable({ highWaterMark, write: (_, __, taken) => fail(taken) })
      const input = new PassThrough()
      const duplex = new StreamDuplex(input, output)
      let given = 0
      const reading = assert.rejects(duplex.read(), ConnectionLost)
      // Who does not wait for room hears of it by his next write.
      const first = duplex.write(Buffer.alloc(10), () => given++)
      if (highWaterMark === 1 || output.errored) await assert.rejects(first, isBroken)
      else await first
      await reading
      await turn()
      await assert.rejects(
        duplex.write(Buffer.alloc(10), () => given++),
        isBroken,
      )
      // What had come before can still be read.
      input.write('last words')
      assert.equal(String(await duplex.read()), 'last words')
      await assert.rejects(duplex.read(), ConnectionLost)
      await turn()
      assert.equal(given, 0)
      await duplex.close()
      assert.ok(input.destroyed && output.destroyed)
    }
  })
}

/** The reason is told, whoever hears of it. */
function isBroken(error: unknown): boolean {
  return error instanceof ConnectionLost && /EPIPE/.test(String(error.cause))
}

test('what waits behind a write that fails is not given back, either', async () => {
  let fail: ((error: Error) => void) | undefined
  const output = new Writable({
    write: (_, __, taken) => {
      fail = taken
    },
  })
  const duplex = new StreamDuplex(new PassThrough(), output)
  let given = 0
  await duplex.write(Buffer.alloc(10), () => given++)
  await duplex.write(Buffer.alloc(10), () => given++)
  fail!(new Error('EPIPE'))
  await assert.rejects(duplex.read(), ConnectionLost)
  await turn()
  assert.equal(given, 0)
})

test('memory that the other side has taken is given back at once, and only once', async () => {
  let waiting: (() => void) | undefined
  let takesAtOnce = true
  const output = new Writable({
    write(_, __, taken) {
      if (takesAtOnce) taken()
      else waiting = taken
    },
  })
  const duplex = new StreamDuplex(new PassThrough(), output)
  let given = 0
  await duplex.write(Buffer.alloc(10), () => given++)
  assert.equal(given, 1)
  takesAtOnce = false
  await duplex.write(Buffer.alloc(10), () => given++)
  assert.equal(given, 1, 'it is still being read')
  waiting!()
  await turn()
  assert.equal(given, 2)
})
