import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { constants, inflateRawSync, zstdDecompressSync } from 'node:zlib'
import { decodeLz4Block } from '../../test/support/lz4.ts'
import { MemoryTree, SharedMemoryTree } from '../../test/support/memory-tree.ts'
import { fc } from '../../test/support/property.ts'
import { memoryKept, Pipe } from '../../test/support/session.ts'
import { turnsDuring } from '../../test/support/turns.ts'
import { ConnectionLost, StoreError } from '../errors.ts'
import { Answers, mannerOf, type Question } from './answers.ts'
import { type CodecName, OFFERED_CODECS } from './codecs.ts'
import { Connection, type Duplex } from './connection.ts'
import type { Derived } from './derived.ts'
import { PIECE } from './framed-answers.ts'
import { FrameCursor } from './frames.ts'
import { FOR_ANSWER, giveMemory, Loan, takeMemory } from './slabs.ts'
import { sendAnswer } from './tokens.ts'
import type { Content } from './tree.ts'
import type { Answer, AnswerPart } from './wire/answers.ts'

const signal = new AbortController().signal
const NO_DATA = Buffer.alloc(0)

function contentOf(data: Buffer, failAt = Number.POSITIVE_INFINITY): Content {
  return {
    size: data.length,
    place: { fd: -1, offset: 0 },
    read: async (targets, position) => {
      let at = position
      for (const target of targets) {
        assert.ok(at + target.length <= data.length, 'asked for what is not there')
        if (at + target.length > failAt) throw new StoreError('the disk says no')
        target.set(data.subarray(at, at + target.length))
        at += target.length
      }
    },
    close: () => {},
  }
}

/** A run of literal bytes, or a block's number. */
type Step = { literal: number } | { block: number }

/** The one byte that a block holds. */
const byteOf = (block: number): Buffer => Buffer.of(block & 0xff)

/** The file that these steps make: literal bytes from the data, one after the other, and blocks of a byte each. */
function fileOf(data: Buffer, steps: readonly Step[]): Buffer {
  let position = 0
  return Buffer.concat(
    steps.map((step) => {
      if ('block' in step) return byteOf(step.block)
      position += step.literal
      return data.subarray(position - step.literal, position)
    }),
  )
}

test('a large file leaves others their turn, where nothing of it has to be waited for', async () => {
  const data = randomBytes(24 * PIECE)
  const tree = new SharedMemoryTree({
    mode: 0o40755,
    mtime: 0,
    children: { f: { mode: 0o100644, mtime: 0, data } },
  })
  const answers = new Answers({ derived: {} as Derived, kept: memoryKept() })
  const sink: Duplex = {
    read: async () => undefined,
    write: async (_, whenDone) => whenDone?.(),
  }
  const connection = new Connection(sink, () => 0)
  const rule = { name: 'md5', seed: 0, seedFirst: true } as const
  const manner = mannerOf(rule, false, { codec: 'lz4', level: undefined, effort: 'normal' })
  const question: Question = { tree, node: 1, fresh: false, sums: undefined, manner }
  const delivery = { connection, answers, question, content: undefined, frames: undefined, loan: undefined }
  const turns = await turnsDuring(async () => {
    const answer = await answers.find(question, signal)
    assert.equal(await sendAnswer({ ...delivery, signal }, answer), undefined)
    await connection.flush()
  })
  assert.ok(turns >= 3, `${turns} turns for others`)
  tree.close()
})

/** What goes over the wire for these steps. Reading fails from byte `failAt` on. */
async function send(
  data: Buffer,
  steps: readonly Step[],
  codec?: CodecName,
  failAt?: number,
): Promise<{ connection: Buffer; failed: boolean }> {
  const pipe = new Pipe()
  const connection = new Connection(pipe, () => 0)
  const tree = new MemoryTree({
    mode: 0o40755,
    mtime: 0,
    children: { f: { mode: 0o100644, mtime: 0, data: NO_DATA } },
  })
  const file = contentOf(fileOf(data, steps), failAt)
  tree.open = async () => file
  tree.size = () => file.size
  const delta = steps.map((step) => ('block' in step ? -step.block - 1 : step.literal))
  const derived = { delta: async () => delta } as unknown as Derived
  const answers = new Answers({ derived, kept: memoryKept() })
  const count = 1000
  const head = { count, blockLength: 1, strongLength: 2, remainder: 0 }
  const question: Question = {
    tree,
    node: 1,
    fresh: false,
    sums: { head, bytes: new Uint8Array(count * 6) },
    manner: mannerOf(
      { name: 'md5', seed: 0, seedFirst: true },
      false,
      codec && { codec, level: undefined, effort: 'normal' },
    ),
  }
  const answer = await answers.find(question, signal)
  const failure = await sendAnswer(
    { connection, answers, question, content: file, frames: undefined, loan: undefined, signal },
    answer,
  )
  await connection.flush()
  tree.close()
  return { connection: pipe.output, failed: failure !== undefined }
}

/** The receiver of an uncompressed stream. */
function receivePlain(connection: Buffer): (Buffer | number)[] {
  const got: (Buffer | number)[] = []
  for (let at = 0; ; ) {
    const token = connection.readInt32LE(at)
    at += 4
    if (token === 0) {
      assert.equal(at, connection.length)
      return got
    }
    if (token < 0) {
      got.push(-token - 1)
      continue
    }
    assert.ok(token <= 32_768, `${token} bytes in one piece: some releases refuse that`)
    got.push(connection.subarray(at, at + token))
    at += token
  }
}

/** The receiver of a compressed one: runs of literal data are inflated where a block or the end follows. */
function receiveCompressed(connection: Buffer, codec: CodecName): (Buffer | number)[] {
  const got: (Buffer | number)[] = []
  let run: Buffer[] = []
  let last = 0
  /** What the decoder of zlib and zlibx refers back to. */
  let window = NO_DATA
  const feed = (bytes: Buffer): void => {
    window = Buffer.concat([window, bytes]).subarray(-32_768)
  }
  const endRun = (): void => {
    if (run.length === 0) return
    if (codec === 'lz4') {
      got.push(...run.splice(0).map(decodeLz4Block))
      return
    }
    const data = Buffer.concat(run)
    run = []
    if (codec === 'zstd') {
      got.push(zstdDecompressSync(data))
      return
    }
    const dictionary = window.length > 0 ? { dictionary: window } : {}
    const whole = Buffer.concat([data, Buffer.from('0000ffff', 'hex')])
    const literal = inflateRawSync(whole, { finishFlush: constants.Z_SYNC_FLUSH, ...dictionary })
    got.push(literal)
    feed(literal)
  }
  const blocks = (first: number, further: number): void => {
    endRun()
    for (let k = first; k <= first + further; k++) {
      got.push(k)
      if (codec === 'zlib') feed(byteOf(k))
    }
    last = first + further
  }
  for (let at = 0; ; ) {
    const flag = connection[at++]!
    if (flag === 0) {
      endRun()
      assert.equal(at, connection.length)
      return got
    }
    if (flag >= 0xc0) {
      blocks(last + (flag & 0x3f), connection.readUInt16LE(at))
      at += 2
    } else if (flag >= 0x80) {
      blocks(last + (flag & 0x3f), 0)
    } else if (flag >= 0x40) {
      const length = ((flag & 0x3f) << 8) | connection[at++]!
      assert.ok(length > 0, 'an empty chunk')
      run.push(connection.subarray(at, at + length))
      at += length
    } else {
      blocks(connection.readInt32LE(at), flag === 0x21 ? connection.readUInt16LE(at + 4) : 0)
      at += flag === 0x21 ? 6 : 4
    }
  }
}

/** Joins pieces of literal data, so that how they were cut does not count. */
function joined(parts: readonly (Buffer | number)[]): (string | number)[] {
  const out: (string | number)[] = []
  for (const part of parts) {
    const before = out.at(-1)
    if (typeof part === 'number') out.push(part)
    else if (typeof before === 'string') out[out.length - 1] = before + part.toString('hex')
    else out.push(part.toString('hex'))
  }
  return out
}

function expected(data: Buffer, steps: readonly Step[]): (string | number)[] {
  let position = 0
  return steps.map((step) => {
    if ('block' in step) return step.block
    position += step.literal
    return data.subarray(position - step.literal, position).toString('hex')
  })
}

const CODECS = [undefined, ...OFFERED_CODECS] as const
const receive = (connection: Buffer, codec: CodecName | undefined): (string | number)[] =>
  joined(codec ? receiveCompressed(connection, codec) : receivePlain(connection))

for (const codec of CODECS) {
  const how = codec ?? 'plain'

  for (const size of [1, 4096, 4097, 32_767, 32_768, 32_769, 262_143, 262_144, 262_145, 1_000_000]) {
    test(`${how}: ${size} literal bytes, between blocks`, async () => {
      const data = randomBytes(size)
      const steps = [{ block: 3 }, { block: 4 }, { literal: size }, { block: 100 }]
      const { connection } = await send(data, steps, codec)
      assert.deepEqual(receive(connection, codec), expected(data, steps))
    })
  }

  test(`${how}: any mixture comes back`, async () => {
    const step = fc.oneof(
      fc.record({ literal: fc.integer({ min: 1, max: 3000 }) }),
      fc.record({ block: fc.nat(200) }),
    )
    const property = fc.asyncProperty(fc.array(step, { maxLength: 20 }), fc.nat(), async (all, seed) => {
      // Two runs of literal data never follow each other.
      const steps = all.filter((one, i) => 'block' in one || !('literal' in (all[i - 1] ?? {})))
      const length = steps.reduce((sum, one) => sum + ('literal' in one ? one.literal : 0), 0)
      const data = Buffer.alloc(length, `text number ${seed}, `)
      const { connection } = await send(data, steps, codec)
      assert.deepEqual(receive(connection, codec), expected(data, steps))
    })
    await fc.assert(property, { numRuns: 60 })
  })

  test(`${how}: a stream that ends at any byte is never taken for a whole one`, async () => {
    const data = Buffer.concat([Buffer.alloc(300, 'some text, '), randomBytes(100)])
    const steps = [
      { block: 7 },
      { literal: 150 },
      { block: 8 },
      { block: 9 },
      { block: 90_000 },
      { literal: 250 },
    ]
    const { connection } = await send(data, steps, codec)
    assert.deepEqual(receive(connection, codec), expected(data, steps))
    for (let at = 0; at < connection.length; at++) {
      assert.throws(() => receive(connection.subarray(0, at), codec), `cut at ${at}`)
    }
  })

  test(`${how}: nothing at all`, async () => {
    const { connection } = await send(NO_DATA, [], codec)
    assert.deepEqual(receive(connection, codec), [])
  })

  test(`${how}: where a read fails there are zeros, and it is told`, async () => {
    // What is compressed at a stretch is lost together.
    const data = Buffer.alloc(3 * PIECE, 'x')
    const failAt = 1.5 * PIECE
    const { connection, failed } = await send(data, [{ literal: data.length }], codec, failAt)
    assert.ok(failed)
    const [hex] = receive(connection, codec) as [string]
    assert.equal(hex.length, 2 * data.length, 'as many bytes as were announced')
    assert.ok(hex.startsWith('78'.repeat(1000)) && hex.endsWith('00'.repeat(1000)))
  })
}

test('memory of an answer goes back when the last who writes from it is done', async () => {
  const held: (() => void)[] = []
  const door: Duplex = {
    read: async () => undefined,
    // As a socket whose peer takes its time: there is room, but what it was given is not read yet.
    write: async (_, whenDone) => void (whenDone && held.push(whenDone)),
  }
  const connection = new Connection(door, () => 0)
  const loan = new Loan(FOR_ANSWER)
  const memory = loan.take(200_000)!
  const part = (start: number, end: number): AnswerPart => ({
    type: 'bytes',
    bytes: memory.subarray(start, end),
  })
  const answer: Answer = {
    ...{ complete: true, matched: 0, literal: 200_000 },
    parts: [part(0, 90_000), part(90_000, 90_010), part(90_010, 200_000)],
  }
  const delivery = { connection, loan, signal, content: undefined, frames: undefined }
  await sendAnswer({ ...delivery, answers: undefined as never, question: undefined as never }, answer)
  const other = takeMemory(200_000)
  loan.giveBack()
  assert.equal(held.length, 3, 'two parts as they are, and a few bytes between them')
  for (const [i, done] of held.entries()) {
    const next = takeMemory(200_000)
    assert.notEqual(next, memory, `before write ${i} is done`)
    done()
  }
  const free = Array.from({ length: 64 }, () => takeMemory(200_000))
  assert.ok(free.includes(memory))
  for (const each of [other, ...free]) giveMemory(each)
})

test('memory of a piece goes back when it is written, whether it stands by itself or in a frame', async () => {
  for (const type of ['piece', 'framed'] as const) {
    const held: (() => void)[] = []
    const door: Duplex = {
      read: async () => undefined,
      write: async (_, whenDone) => void (whenDone && held.push(whenDone)),
    }
    let memory: Buffer | undefined
    const lent = (take: (size: number) => Buffer): Buffer => {
      memory = take(150_000)
      return memory.subarray(0, 150_000)
    }
    const answers = {
      piece: (_question: unknown, _part: unknown, take: (size: number) => Buffer) => lent(take),
      framedPiece: (_part: unknown, take: (size: number) => Buffer) => lent(take),
    } as unknown as Answers
    const delivery = {
      ...{ connection: new Connection(door, () => 0), signal, loan: undefined, answers },
      ...{ content: undefined, frames: new FrameCursor(() => {}), question: undefined as never },
    }
    const part: AnswerPart = { type, from: 0, length: 150_000, last: true, history: 0, key: NO_DATA }
    await sendAnswer(delivery, { complete: true, matched: 0, literal: 150_000, parts: [part] })
    assert.equal(held.length, 1)
    const other = takeMemory(150_000)
    assert.notEqual(other, memory, `${type}: it is still being read`)
    held[0]!()
    assert.equal(takeMemory(150_000), memory, `${type}: nobody has it any more`)
    for (const each of [other, memory!]) giveMemory(each)
  }
})

test('memory of a piece whose writing broke is not used again: the system may still read it', async () => {
  for (const breaks of [true, false]) {
    const door: Duplex = {
      read: async () => undefined,
      write: async (_, whenDone) => {
        if (breaks) throw new ConnectionLost('gone')
        whenDone?.()
      },
    }
    let memory: Buffer | undefined
    const piece = (_question: unknown, _part: unknown, take: (size: number) => Buffer): Buffer => {
      memory = take(150_000)
      return memory.subarray(0, 150_000)
    }
    const delivery = {
      ...{ connection: new Connection(door, () => 0), signal, loan: undefined },
      ...{ content: undefined, frames: undefined, question: undefined as never },
      answers: { piece } as unknown as Answers,
    }
    const part = { type: 'piece', from: 0, length: 150_000, last: true, history: 0, key: NO_DATA } as const
    const sending = (async () =>
      sendAnswer(delivery, { complete: true, matched: 0, literal: 150_000, parts: [part] }))()
    if (breaks) await assert.rejects(sending, ConnectionLost)
    else await sending
    const free = Array.from({ length: 65 }, () => takeMemory(150_000))
    assert.equal(free.includes(memory!), !breaks)
    for (const each of free) giveMemory(each)
  }
})
