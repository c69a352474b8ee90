import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fromHex, toHex } from '../../test/support/hex.ts'
import { Pipe } from '../../test/support/session.ts'
import { ConnectionLost, PeerError } from '../errors.ts'
import { ascii } from '../lib/bytes.ts'
import { Connection, type Duplex } from './connection.ts'
import { FRAME_SIZE, giveMemory, takeMemory } from './slabs.ts'
import { decodeI32 } from './wire/ints.ts'
import { decodeFrameHeader, FRAME_MAX, TAG } from './wire/mux.ts'

function open(now: () => number = () => 0): { pipe: Pipe; connection: Connection } {
  const pipe = new Pipe()
  return { pipe, connection: new Connection(pipe, now) }
}

const decodeLine = (connection: Connection): Promise<string> => connection.readUntil(0x0a, 10, 'line')

test('lines in, lines out', async () => {
  const { pipe, connection } = open()
  await connection.line('héllo')
  assert.equal(pipe.output.toString(), 'héllo\n')
  pipe.send('on')
  pipe.send('e\ntwo\n')
  assert.equal(await decodeLine(connection), 'one')
  assert.equal(await decodeLine(connection), 'two')
  assert.equal(connection.bytesRead, 8)
  assert.equal(connection.bytesWritten, 7)
})

for (const [name, pieces] of [
  ['at once', ['12345678901\n']],
  ['without its end', ['12345678901']],
  ['in pieces', ['12345', '67890', '1']],
] as const) {
  test(`a line that is too long is never right: ${name}`, async () => {
    const { pipe, connection } = open()
    for (const piece of pieces) pipe.send(piece)
    await assert.rejects(decodeLine(connection), PeerError)
  })
}

test('a line as long as it may be', async () => {
  const { pipe, connection } = open()
  pipe.send('1234567890\n')
  assert.equal(await decodeLine(connection), '1234567890')
})

test('what we said goes out before we wait', async () => {
  const { pipe, connection } = open()
  connection.out.string(ascii('question'))
  const answer = decodeLine(connection)
  assert.equal((await pipe.take(8)).toString(), 'question')
  pipe.send('x\n')
  assert.equal(await answer, 'x')
})

test('frames out: one for each flush, messages in between, nothing for nothing', async () => {
  const { pipe, connection } = open()
  connection.out.i32(0x12345678)
  await connection.startMuxOut()
  await connection.flush()
  connection.out.string(ascii('abc'))
  await connection.message(TAG.noSend, fromHex('01000000'))
  connection.out.u8(0xff)
  await connection.text(TAG.info, 'hi')
  await connection.keepAlive()
  await connection.flush()
  const expected = '78563412 03000007 616263 0400006d 01000000 01000007 ff 03000009 68690a 00000007'
  assert.equal(toHex(pipe.output), toHex(fromHex(expected)))
  assert.equal(connection.bytesWritten, pipe.output.length)
})

test('texts are cut to what every client takes', async () => {
  const { pipe, connection } = open()
  await connection.startMuxOut()
  await connection.text(TAG.error, 'x'.repeat(10_000))
  assert.equal(pipe.output.readUInt32LE(0) & 0xffffff, 4096)
})

test('flow waits until a frame is worth it', async () => {
  const { pipe, connection } = open()
  await connection.startMuxOut()
  connection.out.bytes(Buffer.alloc(FRAME_SIZE - 5))
  assert.equal(connection.flow(), undefined)
  connection.out.u8(0)
  await connection.flow()
  assert.equal(pipe.output.length, FRAME_SIZE)
  assert.equal(pipe.output.readUInt32LE(0), 0x07000000 | (FRAME_SIZE - 4))
})

for (const rate of [0, 2 ** 40]) {
  test(`what is longer than a frame can be goes out in several, at ${rate || 'any'} bytes a second`, async () => {
    const { pipe, connection } = open()
    await connection.startMuxOut()
    if (rate > 0) connection.limitBandwidth(rate)
    const large = Buffer.alloc(FRAME_MAX + 5, 'x')
    await connection.append(large)
    connection.out.bytes(large)
    await connection.flush()
    let bytes = 0
    for (let at = 0; at < pipe.output.length; ) {
      const { value, size } = decodeFrameHeader(pipe.output.subarray(at))!
      assert.equal(value.tag, TAG.data)
      bytes += value.length
      at += size + value.length
    }
    assert.equal(bytes, 2 * large.length)
  })
}

for (const rate of [0, 2 ** 40, 2 ** 20]) {
  test(`bytes are somebody else’s until the last of them is written, at ${rate || 'any'} bytes a second`, async () => {
    const bytes = Buffer.alloc(rate === 2 ** 20 ? 200_000 : FRAME_MAX + 5, 'x')
    let written = 0
    let isDone = false
    const door: Duplex = {
      read: async () => undefined,
      write: async (data, whenDone) => {
        assert.ok(!isDone)
        written += data.length
        whenDone?.()
      },
    }
    const connection = new Connection(door, () => performance.now())
    await connection.startMuxOut()
    if (rate > 0) connection.limitBandwidth(rate)
    await connection.append(bytes, () => {
      isDone = true
      assert.ok(written > bytes.length, `only ${written} bytes were written`)
    })
    assert.ok(isDone)
  })
}

test('memory of what has collected is used again when it was written, and not before', async () => {
  const held: { data: Uint8Array; whenDone: (() => void) | undefined }[] = []
  const door: Duplex = {
    read: async () => undefined,
    write: async (data, whenDone) => void held.push({ data, whenDone }),
  }
  const connection = new Connection(door, () => 0)
  for (const muxed of [false, true]) {
    if (muxed) await connection.startMuxOut()
    connection.out.bytes(Buffer.alloc(FRAME_SIZE, 'x'))
    await connection.flush()
    const { data, whenDone } = held.pop()!
    const other = takeMemory(FRAME_SIZE)
    assert.notEqual(other.buffer, data.buffer)
    whenDone!()
    const next = takeMemory(FRAME_SIZE)
    assert.equal(next.buffer, data.buffer)
    for (const each of [other, next]) giveMemory(each)
  }
})

const FRAMES_IN: readonly { name: string; hex: string[] }[] = [
  { name: 'one frame', hex: ['04000007 01000000'] },
  { name: 'cut anywhere', hex: ['04', '0000', '07 01', '00', '0000'] },
  { name: 'a frame for each byte', hex: ['01000007 01 01000007 00 01000007 00 01000007 00'] },
  { name: 'empty frames', hex: ['00000007 00000007 04000007 01000000 00000007'] },
  {
    name: 'messages in between',
    hex: ['02000007 0100 00000031 0400006b 00000000 03000009 616263 02000007 0000'],
  },
  { name: 'a tag that nobody knows', hex: ['020000ee ffff 04000007 01000000'] },
]
for (const { name, hex } of FRAMES_IN) {
  test(`frames in: ${name}`, async () => {
    const { pipe, connection } = open()
    connection.startMuxIn()
    for (const piece of hex) pipe.send(fromHex(piece))
    pipe.end()
    assert.equal(await connection.in.decode(decodeI32), 1)
    assert.equal(await connection.in.ended(), true)
  })
}

for (const { name, hex, error } of [
  { name: 'a tag below 0', hex: '04000006 01000000', error: PeerError },
  { name: 'a giant message', hex: 'ffffff09', error: PeerError },
  { name: 'the client gives up', hex: '0400005d 0b000000', error: ConnectionLost },
  { name: 'the end inside a frame', hex: '05000007 0000', error: ConnectionLost },
  { name: 'the end inside a header', hex: '0500', error: ConnectionLost },
  { name: 'the end inside a message', hex: '05000009 00', error: ConnectionLost },
]) {
  test(`frames in: ${name}`, async () => {
    const { pipe, connection } = open()
    connection.startMuxIn()
    pipe.send(fromHex(hex))
    pipe.end()
    await assert.rejects(connection.in.decode(decodeI32), error)
  })
}

test('outside of frames for a while, and back behind the last byte', async () => {
  const { pipe, connection } = open()
  connection.startMuxIn()
  pipe.send(fromHex('04000007 05000000 61620a 04000007 06000000'))
  assert.equal(await connection.in.decode(decodeI32), 5)
  const names = await connection.outsideFrames((raw) => raw.bytes(3))
  assert.equal(names.toString(), 'ab\n')
  assert.equal(await connection.in.decode(decodeI32), 6)
})

test('outside of frames only where a frame has ended', async () => {
  const { pipe, connection } = open()
  connection.startMuxIn()
  pipe.send(fromHex('05000007 05000000 ff'))
  await connection.in.decode(decodeI32)
  await assert.rejects(
    connection.outsideFrames((raw) => raw.bytes(1)),
    PeerError,
  )
})

// ---------------------------------------------------------------------------------------------------

test('the peer keeps us waiting while it says nothing or takes nothing, and not while we work', async () => {
  let clock = 1000
  const { pipe, connection } = open(() => clock)
  assert.equal(connection.waitingSince, undefined)
  const line = decodeLine(connection)
  await Promise.resolve()
  clock = 2000
  assert.equal(connection.waitingSince, 1000)
  await connection.keepAlive()
  assert.equal(connection.waitingSince, 1000, 'what the kernel takes is no sign of life')
  assert.equal(connection.lastWrite, 2000)
  pipe.send('x\n')
  await line
  assert.equal(connection.waitingSince, undefined)
  pipe.stuck = true
  const writing = connection.line('y')
  clock = 3000
  assert.equal(connection.waitingSince, 2000)
  await connection.keepAlive()
  pipe.destroy()
  await assert.rejects(writing, ConnectionLost)
})

test('at a limited rate a frame goes out in slices, whole and evenly', async () => {
  const rate = 40_000
  const began = performance.now()
  const { pipe, connection } = open(() => performance.now())
  await connection.startMuxOut()
  connection.limitBandwidth(rate)
  const payload = Buffer.from('0123456789'.repeat(1600))
  connection.out.bytes(payload)
  const steps: number[] = []
  const sending = connection.flush()
  while (pipe.output.length < payload.length + 4) {
    await pipe.take(0)
    // Nothing may come between the slices of a frame.
    await connection.keepAlive()
    if (steps.at(-1) !== pipe.output.length) steps.push(pipe.output.length)
    const fair = ((performance.now() - began) / 1000) * rate + rate / 5
    assert.ok(pipe.output.length <= fair, `${pipe.output.length} bytes are more than ${fair}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await sending
  const ms = performance.now() - began
  assert.ok(ms > 250, `16 kB at 40 kB a second took only ${ms} ms`)
  assert.ok(steps.length >= 4, `it moved in ${steps.length} steps`)
  assert.equal(toHex(pipe.output.subarray(0, 4)), '803e0007')
  assert.deepEqual(pipe.output.subarray(4), payload)
})

test('a connection that lingers: what has collected goes out a moment after the peer falls silent', async () => {
  const { pipe, connection } = open()
  connection.linger(true)
  connection.out.string(ascii('one'))
  const first = decodeLine(connection)
  pipe.send('x\n')
  assert.equal(await first, 'x')
  assert.equal(pipe.output.length, 0, 'the peer was quick')
  connection.out.string(ascii('two'))
  const second = decodeLine(connection)
  assert.equal((await pipe.take(6)).toString(), 'onetwo')
  pipe.send('y\n')
  assert.equal(await second, 'y')
})

test('a connection that lingers keeps nobody waiting for long who goes on asking', async () => {
  let now = 0
  const { pipe, connection } = open(() => now)
  connection.linger(true)
  connection.out.string(ascii('one'))
  now = 1000
  const line = decodeLine(connection)
  assert.equal(pipe.output.toString(), 'one', 'nothing went out for a second')
  pipe.send('x\n')
  assert.equal(await line, 'x')
})

test('a connection that lingers and breaks says so, and nothing goes out any more', async () => {
  const { pipe, connection } = open()
  connection.linger(true)
  connection.out.string(ascii('one'))
  const line = decodeLine(connection)
  pipe.end()
  await assert.rejects(line, ConnectionLost)
  await sleep(20)
  assert.equal(pipe.output.length, 0)
})

/** A peer that takes so many writes, and then nothing more. */
function breaking(takes: number): { door: Duplex; say: (bytes: string) => void; writes: () => number } {
  const input: Buffer[] = []
  let wake = (): void => {}
  let writes = 0
  const door: Duplex = {
    read: async () => {
      while (input.length === 0)
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      return input.shift()
    },
    write: async (_, whenDone) => {
      if (writes++ >= takes) throw new ConnectionLost('broken')
      whenDone?.()
    },
  }
  const say = (bytes: string): void => {
    input.push(Buffer.from(bytes))
    wake()
  }
  return { door, say, writes: () => writes }
}

test('a write that fails is told to whoever writes, in the middle of a frame too, and no more is written', async () => {
  const large = Buffer.alloc(FRAME_MAX + 5)
  for (const [takes, write] of [
    [0, (connection: Connection, done: () => void) => connection.append(large, done)],
    [2, (connection: Connection, done: () => void) => connection.append(large, done)],
    [0, (connection: Connection) => connection.message(TAG.info, Buffer.from('hi'))],
    [0, (connection: Connection) => connection.line('hi')],
    [0, (connection: Connection) => connection.keepAlive()],
  ] as const) {
    const { door, writes } = breaking(takes)
    const connection = new Connection(door, () => 0)
    await connection.startMuxOut()
    await assert.rejects(
      async () => write(connection, () => assert.fail('it may still be read')),
      ConnectionLost,
    )
    assert.equal(writes(), takes + 1)
  }
})

test('memory of what has collected is not used again when writing it failed: it may still be read', async () => {
  const { door } = breaking(0)
  const connection = new Connection(door, () => 0)
  connection.out.bytes(Buffer.alloc(FRAME_SIZE, 'x'))
  const { buffer } = connection.out.view()
  await assert.rejects(connection.flush(), ConnectionLost)
  const next = takeMemory(FRAME_SIZE)
  assert.notEqual(next.buffer, buffer)
  giveMemory(next)
})

test('a connection that lingers: whoever waits for the peer hears that what had collected could not be sent', async () => {
  const { door, say, writes } = breaking(0)
  const connection = new Connection(door, () => 0)
  connection.linger(true)
  connection.out.string(ascii('an answer'))
  const line = decodeLine(connection)
  for (let tries = 0; writes() === 0 && tries < 1000; tries++) await sleep(1)
  say('x\n')
  await assert.rejects(line, ConnectionLost)
})
