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
