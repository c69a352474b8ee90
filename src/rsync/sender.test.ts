/** Requests for data, answered to a client that plays its part: --append in all its ways, and what follows. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { fc } from '../../test/support/property.ts'
import { applyInPlace, sumsOf } from '../../test/support/receiver.ts'
import { memoryKept, Pipe, SEED } from '../../test/support/session.ts'
import { randomBytes } from '../../test/support/tree.ts'
import { PeerError } from '../errors.ts'
import { ByteWriter } from '../lib/byte-writer.ts'
import { ascii, type ByteString } from '../lib/bytes.ts'
import { Answers, type Question } from './answers.ts'
import { Connection, type Duplex } from './connection.ts'
import type { BlockSums, Delta } from './delta/match.ts'
import { Derived } from './derived.ts'
import { createBlockSum, DIGEST_LENGTH, type DigestName, fileDigest, prepareBlockSum } from './digests.ts'
import { noFigures } from './figures.ts'
import { END_OF_FRAME } from './frames.ts'
import type { Kept } from './kept.ts'
import { transfer } from './sender.ts'
import { type Agreement, COMPAT } from './setup.ts'
import { FRAME_SIZE, FRAME_SLACK, giveMemory, takeMemory } from './slabs.ts'
import { parseArguments } from './wire/arguments.ts'
import { decodeFrameHeader, TAG } from './wire/mux.ts'
import { NdxDecoder, NdxEncoder } from './wire/ndx.ts'
import { decodeSumHead, encodeSumHead } from './wire/sums.ts'

const derived = new Derived({ kept: memoryKept(), checksumSeed: SEED })
after(() => derived.close())

const TRANSFER = 0x8000
const BLOCK = 64

/** What the client has beside the file that it wants. */
interface Case {
  target: Buffer
  basis: Buffer
  protocol: number
  /** --append, or twice: --append-verify. */
  append: number
  digest: DigestName
}

/** One answer, as it came: how to rebuild the file, its literal bytes, and the digest to check it by. */
interface Answer {
  delta: Delta
  literals: Buffer
  digest: Buffer
}

async function run(
  { target, protocol, append, digest }: Case,
  requests: readonly [BlockSums, boolean][],
): Promise<Answer[]> {
  const tree = new MemoryTree({ mode: 0o040755, children: { f: { mode: 0o100644, data: target } } })
  const pipe = new Pipe()
  const connection = new Connection(pipe, () => 0)
  const words = ['--server', '--sender', '-r', ...Array.from({ length: append }, () => '--append'), '.', 'm/']
  const ndx = new NdxEncoder(protocol)
  const out = new ByteWriter()
  for (const [sums, withSums] of requests) {
    ndx.encode(out, 0)
    if (protocol >= 29) out.u16(TRANSFER)
    encodeSumHead(out, sums.head)
    for (let k = 0; withSums && k < sums.head.count; k++) {
      const length = sums.head.strongLength
      out.i32(sums.weak[k]! | 0)
      out.bytes(sums.strong.subarray(k * length, (k + 1) * length))
    }
  }
  for (let marks = protocol >= 31 ? 5 : protocol >= 29 ? 4 : 3; marks > 0; marks--) ndx.encode(out, -1)
  pipe.send(out.take())
  pipe.end()
  try {
    await serve(connection, tree, words, { protocol, transferDigest: digest, codec: undefined })
  } finally {
    tree.close()
  }
  const heard = new NdxDecoder(protocol)
  let bytes = pipe.output
  return requests.map(([sums]) => {
    const echo = heard.decode(bytes)
    assert.equal(echo?.value, 0)
    bytes = bytes.subarray(echo.size + (protocol >= 29 ? 2 : 0))
    assert.deepEqual(decodeSumHead(bytes, protocol)?.value, sums.head)
    const answer = readAnswer(bytes.subarray(16), DIGEST_LENGTH[digest])
    bytes = answer.rest
    return answer
  })
}

/** Answers requests for the files of the tree's root. */
async function serve(
  connection: Connection,
  tree: MemoryTree,
  words: readonly string[],
  agreed: Pick<Agreement, 'protocol' | 'transferDigest' | 'codec'>,
  answers = new Answers({ derived, kept: memoryKept() }),
  nodes?: readonly number[],
): Promise<void> {
  const places = Array.from({ length: tree.count - 1 }, (_, place) => place)
  await transfer({
    connection,
    tree,
    list: {
      count: places.length,
      nodes: Int32Array.from(nodes ?? places.map((place) => place + 1)),
      order: Uint32Array.from(places),
      totalSize: 0,
      notices: [],
      xattrChoice: { withRsyncOwn: false, kept: undefined },
      bytes: new Uint8Array(0),
      nameOf: () => ascii('f'),
    },
    options: parseArguments(words as ByteString[], undefined),
    agreement: {
      compat: COMPAT.checksumSeedFix,
      listDigest: agreed.transferDigest,
      seed: SEED,
      ...agreed,
    },
    derived,
    answers,
    listMs: { build: 0, send: 0 },
    figures: noFigures(),
    signal: new AbortController().signal,
  })
  await connection.flush()
}

function readAnswer(from: Buffer, digestLength: number): Answer & { rest: Buffer } {
  const delta: Delta = []
  const literals: Buffer[] = []
  let at = 0
  for (;;) {
    const token = from.readInt32LE(at)
    at += 4
    if (token === 0) break
    delta.push(token)
    if (token < 0) continue
    literals.push(from.subarray(at, at + token))
    at += token
  }
  const end = at + digestLength
  return {
    delta,
    literals: Buffer.concat(literals),
    digest: from.subarray(at, end),
    rest: from.subarray(end),
  }
}

/** Literal bytes at the places in the new file where a delta wants them. */
function spread({ delta, literals }: Answer, sums: BlockSums): Buffer {
  const { count, blockLength, remainder } = sums.head
  const parts: Buffer[] = []
  let taken = 0
  for (const step of delta) {
    const length = step > 0 ? step : -step === count && remainder > 0 ? remainder : blockLength
    parts.push(step > 0 ? literals.subarray(taken, taken + step) : Buffer.alloc(length))
    if (step > 0) taken += step
  }
  return Buffer.concat(parts)
}

test('--append: what the client has and the rest, or after a redo in place, give the file', async () => {
  const cases = fc
    .record({
      target: fc.uint8Array({ minLength: 1, maxLength: 1000 }).map((bytes) => Buffer.from(bytes)),
      /** How much of it the client has, or more than all. */
      has: fc.nat(1200),
      damagedAt: fc.option(fc.nat(1000), { nil: undefined }),
      append: fc.constantFrom(1, 2),
      how: fc.constantFrom(
        ...([
          [28, 'md4-seeded'],
          [29, 'md4-seeded'],
          [30, 'md5'],
          [31, 'md5'],
          [32, 'xxh128'],
          [32, 'sha1'],
        ] as const),
      ),
    })
    .map(({ target, has, damagedAt, append, how: [protocol, digest] }): Case => {
      const basis = Buffer.alloc(has, 0x55)
      target.copy(basis)
      if (damagedAt !== undefined && damagedAt < has) basis[damagedAt]! ^= 1
      return { target, basis, protocol, append, digest }
    })
  const property = fc.asyncProperty(cases, async (one) => {
    const { target, basis, protocol, append, digest } = one
    const rule = { name: digest, seed: SEED, seedFirst: true }
    await prepareBlockSum(rule)
    const strongOf = createBlockSum(rule)
    const have = sumsOf(basis, BLOCK, 8, strongOf)
    const kept = basis.subarray(0, target.length)
    // What comes of the first answer: the client keeps its bytes, whatever they are.
    const first = Buffer.concat([kept, target.subarray(kept.length)])
    const now = sumsOf(first, BLOCK, 8, strongOf)
    const [appended, redone] = await run(one, [
      [have, false],
      [now, true],
    ])
    assert.ok(appended && redone)
    assert.deepEqual(appended.literals, target.subarray(kept.length), 'the rest and nothing else')
    assert.ok(appended.delta.every((step) => step > 0))
    const tailOnly = append === 1 && protocol >= 30 && kept.length > 0
    const checked = tailOnly ? target.subarray(kept.length) : target
    assert.deepEqual(appended.digest, Buffer.from(fileDigest(digest, SEED, [checked])))
    // Asked for again it is a file as any other, written in place.
    assert.deepEqual(applyInPlace(redone.delta, first, spread(redone, now), BLOCK), target)
    assert.deepEqual(redone.digest, Buffer.from(fileDigest(digest, SEED, [target])))
  })
  await fc.assert(property, { numRuns: 300 })
})

test('answers that have to be worked out first go out as they come, however many are asked for at once', async () => {
  const FILES = 300
  const files = Array.from({ length: FILES }, (_, n) => [
    `f${String(n).padStart(3, '0')}`,
    { mode: 0o100644, data: randomBytes(n, 60_000) },
  ])
  const tree = new MemoryTree({ mode: 0o040755, children: Object.fromEntries(files) })
  const pipe = new Pipe()
  const connection = new Connection(pipe, () => 0)
  await connection.startMuxOut()
  const ndx = new NdxEncoder(31)
  const out = new ByteWriter()
  for (let place = 0; place < FILES; place++) {
    ndx.encode(out, place)
    out.u16(TRANSFER)
    encodeSumHead(out, { count: 0, blockLength: 0, strongLength: 0, remainder: 0 })
  }
  for (let marks = 5; marks > 0; marks--) ndx.encode(out, -1)
  pipe.send(out.take())
  pipe.end()
  const words = ['--server', '--sender', '-rz', '.', 'm/']
  await serve(connection, tree, words, { protocol: 31, transferDigest: 'md5', codec: 'zlib' })
  tree.close()
  let rest = pipe.output
  let bytes = 0
  while (rest.length > 0) {
    const { value, size } = decodeFrameHeader(rest)!
    assert.equal(value.tag, TAG.data)
    assert.ok(value.length <= FRAME_SIZE + FRAME_SLACK, `a frame of ${value.length} bytes`)
    bytes += value.length
    rest = rest.subarray(size + value.length)
  }
  assert.ok(bytes > FILES * 60_000, `${bytes} bytes`)
})

/** As a socket whose peer takes its time: there is room, but what it was given is read later. */
class SlowDoor implements Duplex {
  readonly #held: { data: Uint8Array; whenDone: (() => void) | undefined }[] = []
  readonly #input: Uint8Array[]
  /** What the peer has taken. */
  readonly taken: Buffer[] = []
  /** Of the large things that it was given. */
  readonly memory: ArrayBufferLike[] = []

  constructor(input: Uint8Array) {
    this.#input = [input]
  }

  read = async (): Promise<Uint8Array | undefined> => this.#input.shift()

  write = async (data: Uint8Array, whenDone?: () => void): Promise<void> => {
    spoilFreeMemory()
    this.#held.push({ data, whenDone })
    if (data.length > 100_000) this.memory.push(data.buffer)
  }

  /** The peer takes all that it was given. */
  take(): void {
    spoilFreeMemory()
    for (const { data, whenDone } of this.#held.splice(0)) {
      this.taken.push(Buffer.from(data))
      whenDone?.()
    }
  }
}

/** What nobody has may be used by anybody. */
function spoilFreeMemory(): void {
  const free = [5000, 100_000, 300_000, 2 ** 20].flatMap((size) =>
    Array.from({ length: 3 }, () => takeMemory(size)),
  )
  for (const each of free) giveMemory(each.fill(0xee))
}

test('memory that an answer lies in is nobody else’s until it is written, and used again then', async () => {
  const FILES = 4
  const basis = randomBytes(100, 200_000)
  // Literal data in runs of less than what an answer holds itself, and more in all than a record that is peeked at.
  const target = (n: number): Buffer => {
    const data = Buffer.from(basis)
    for (let at = 0; at + 15_000 < data.length; at += 20_000) data.set(randomBytes(n, 10_000), at)
    return data
  }
  const names = Array.from({ length: FILES }, (_, n) => `f${n}`)
  const files = names.map((name, n) => [name, { mode: 0o100644, data: target(n) }])
  const tree = new MemoryTree({ mode: 0o040755, children: Object.fromEntries(files) })
  const rule = { name: 'md5', seed: SEED, seedFirst: true } as const
  await prepareBlockSum(rule)
  const sums = sumsOf(basis, 1000, 8, createBlockSum(rule))
  const ndx = new NdxEncoder(31)
  const out = new ByteWriter()
  for (let place = 0; place < FILES; place++) {
    ndx.encode(out, place)
    out.u16(TRANSFER)
    encodeSumHead(out, sums.head)
    for (let k = 0; k < sums.head.count; k++) {
      out.i32(sums.weak[k]! | 0)
      out.bytes(sums.strong.subarray(k * 8, (k + 1) * 8))
    }
  }
  for (let marks = 5; marks > 0; marks--) ndx.encode(out, -1)
  const requests = out.take()
  const words = ['--server', '--sender', '-r', '.', 'm/']
  const agreed = { protocol: 31, transferDigest: 'md5', codec: undefined } as const
  // What is kept is read into memory that is lent; what is made for the first who asks is not.
  const answers = new Answers({ derived, kept: memoryKept() })
  const doors = [new SlowDoor(requests), new SlowDoor(requests), new SlowDoor(requests)]
  for (const door of doors) {
    await serve(new Connection(door, () => 0), tree, words, agreed, answers)
    door.take()
  }
  tree.close()
  const [first, second, third] = doors.map(({ taken }) => Buffer.concat(taken))
  assert.ok(first!.length > FILES * 100_000)
  assert.ok(second!.equals(first!), 'something else has been written into it')
  assert.ok(third!.equals(first!), 'something else has been written into it')
  const [, lent, again] = doors.map(({ memory }) => memory)
  assert.equal(new Set(lent).size, FILES)
  assert.ok(lent!.every(({ byteLength }) => byteLength === FRAME_SIZE + FRAME_SLACK))
  assert.equal(new Set([...lent!, ...again!]).size, FILES)
})

// ---------------------------------------------------------------------------------------------------
// What is asked of answers, and how often.

/** Works everything out, and notes what it was asked. */
class Noting extends Answers {
  readonly asked: Question[] = []
  left = 0

  override find(...args: Parameters<Answers['find']>): ReturnType<Answers['find']> {
    this.asked.push(args[0])
    return super.find(...args)
  }

  override leaveFrame(...args: Parameters<Answers['leaveFrame']>): void {
    this.left++
    super.leaveFrame(...args)
  }
}

/** Tells what was suspected. */
class SuspectedTree extends MemoryTree {
  readonly suspected: number[] = []

  suspect(node: number): void {
    this.suspected.push(node)
  }
}

interface Asking {
  place: number
  sums?: BlockSums
  /** What the client's basis is, when it is not the file itself. */
  basis?: number
  /** Only the head of the sums is sent, as with --append. */
  bare?: true
}

/** All that is said to a client that asks for data again and again. */
async function ask(
  tree: MemoryTree,
  answers: Answers,
  all: readonly Asking[],
  options: readonly string[] = [],
  codec?: Agreement['codec'],
  nodes?: readonly number[],
): Promise<Buffer> {
  const ndx = new NdxEncoder(31)
  const out = new ByteWriter()
  for (const { place, sums, basis, bare } of all) {
    ndx.encode(out, place)
    out.u16(basis === undefined ? TRANSFER : TRANSFER | BASIS_FOLLOWS)
    if (basis !== undefined) out.u8(basis)
    encodeSumHead(out, sums?.head ?? { count: 0, blockLength: 0, strongLength: 0, remainder: 0 })
    const { count, strongLength } = sums?.head ?? { count: 0, strongLength: 0 }
    for (let k = 0; k < count && !bare; k++) {
      out.i32(sums!.weak[k]! | 0)
      out.bytes(sums!.strong.subarray(k * strongLength, (k + 1) * strongLength))
    }
  }
  for (let marks = 5; marks > 0; marks--) ndx.encode(out, -1)
  const pipe = new Pipe()
  pipe.send(out.take())
  pipe.end()
  const words = ['--server', '--sender', '-r', ...options, '.', 'm/']
  const connection = new Connection(pipe, () => 0)
  await serve(connection, tree, words, { protocol: 31, transferDigest: 'md5', codec }, answers, nodes)
  return pipe.output
}

const BASIS_FOLLOWS = 0x0800
const FUZZY = 0x83
const RULE = { name: 'md5', seed: SEED, seedFirst: true } as const
const strongOf = createBlockSum(RULE)

function filesOf(...contents: Buffer[]): Record<string, { mode: number; data: Buffer }> {
  return Object.fromEntries(contents.map((data, n) => [`f${n}`, { mode: 0o100644, data }]))
}

test('sums of a length that no digest has, or too many of them, are read and not used', async () => {
  const data = randomBytes(7, 5000)
  const tree = new SuspectedTree({ mode: 0o040755, children: filesOf(data) })
  for (const { strongLength, count = 3, isUsed = false } of [
    { strongLength: 2, isUsed: true },
    { strongLength: 16, isUsed: true },
    { strongLength: 17 },
    { strongLength: 20 },
    { strongLength: 0 },
    { strongLength: 12, count: 2 ** 20, isUsed: true },
    { strongLength: 12, count: 2 ** 20 + 1 },
  ]) {
    const answers = new Noting({ derived, kept: memoryKept() })
    const head = { count, blockLength: 700, strongLength, remainder: 0 }
    const sums = { head, weak: new Uint32Array(count), strong: new Uint8Array(count * strongLength) }
    const output = await ask(tree, answers, [{ place: 0, sums }, { place: 0 }])
    assert.equal(answers.asked[0]!.sums !== undefined, isUsed, `${count} of ${strongLength} bytes`)
    // What follows them is understood.
    assert.ok(output.includes(data) && answers.asked.length === 2)
  }
  tree.close()
})

test('the second request is a redo, whether the first was answered at once or not; the third teaches nothing', async () => {
  const basis = randomBytes(8, 5000)
  const data = Buffer.concat([basis.subarray(0, 3000), randomBytes(9, 500), basis.subarray(3000)])
  const short = sumsOf(basis, 700, 2, strongOf)
  const whole = sumsOf(basis, 700, 16, strongOf)
  const kept = memoryKept()
  for (const isKnown of [false, true]) {
    const tree = new SuspectedTree({ mode: 0o040755, children: filesOf(data) }, 'a tree')
    const answers = new Noting({ derived, kept })
    const all = [short, whole, whole].map((sums) => ({ place: 0, sums }))
    await ask(tree, answers, all)
    assert.deepEqual(
      answers.asked.map(({ fresh, firstStrongLength }) => ({ fresh, firstStrongLength })),
      [
        ...(isKnown ? [] : [{ fresh: false, firstStrongLength: undefined }]),
        { fresh: true, firstStrongLength: 2 },
        { fresh: true, firstStrongLength: undefined },
      ],
    )
    assert.deepEqual(tree.suspected, [1, 1], 'what we have may be to blame')
    tree.close()
  }
  const tree = new SuspectedTree({ mode: 0o040755, children: filesOf(data) })
  // With --append it is the client's own part that was another.
  const answers = new Noting({ derived, kept })
  const again = { place: 0, sums: whole }
  await ask(tree, answers, [{ place: 0, sums: short, bare: true }, again, again], ['--append'])
  assert.deepEqual(
    answers.asked.map(({ fresh, firstStrongLength }) => ({ fresh, firstStrongLength })),
    Array(2).fill({ fresh: true, firstStrongLength: undefined }),
  )
  assert.deepEqual(tree.suspected, [])
  tree.close()
})

test('blocks are taken as if written over where the client writes in place, and only there', async () => {
  const basis = randomBytes(10, 5000)
  const tree = new MemoryTree({ mode: 0o040755, children: filesOf(randomBytes(11, 5000), basis) })
  const sums = sumsOf(basis, 700, 2, strongOf)
  const one = { place: 0, sums }
  for (const { options, all, inplace } of [
    { options: [], all: [one], inplace: [false] },
    { options: ['--inplace'], all: [one], inplace: [true] },
    // Of another file, which stays as it is.
    { options: ['--inplace'], all: [{ ...one, basis: FUZZY }], inplace: [false] },
    // A redo of what was appended.
    { options: ['--append'], all: [{ place: 1 }, { place: 1 }], inplace: [true] },
  ]) {
    const answers = new Noting({ derived, kept: memoryKept() })
    await ask(tree, answers, all, options)
    assert.deepEqual(
      answers.asked.map(({ manner }) => manner.inplace),
      inplace,
      options.join(' '),
    )
  }
  tree.close()
})

test('a file without literal data ends no frame, and each frame is left once the session ends', async () => {
  const basis = randomBytes(12, 7000)
  const tree = new MemoryTree({
    mode: 0o040755,
    children: filesOf(randomBytes(13, 5000), basis, randomBytes(14, 5000)),
  })
  const answers = new Noting({ derived, kept: memoryKept() })
  const all = [{ place: 0 }, { place: 1, sums: sumsOf(basis, 700, 8, strongOf) }, { place: 2 }]
  const output = await ask(tree, answers, all, ['-z'], 'zstd')
  assert.ok(!output.includes(END_OF_FRAME))
  assert.equal(answers.left, 1)
  assert.equal(answers.asked[0]!.frames!.state, undefined)
  tree.close()
})

test('what was kept of a frame and was of no use to a client is not told the next one', async () => {
  const data = randomBytes(15, 5000)
  const tree = new MemoryTree({ mode: 0o040755, children: filesOf(data) })
  const memory = memoryKept()
  await ask(tree, new Answers({ derived, kept: memory }), [{ place: 0 }], ['-z'], 'zstd')
  // As if it had been made of bytes that had rotted, for as long as nothing else takes its place.
  const mended = new Set<string>()
  const spoil = (key: Uint8Array, record: Uint8Array | undefined): Uint8Array | undefined =>
    record && !mended.has(String(key)) ? Uint8Array.from(record).fill(0x55, 2000, 2100) : record
  const kept: Kept = {
    get: (key) => spoil(key, memory.get(key) as Uint8Array | undefined),
    peek: (key) => spoil(key, memory.peek(key)),
    put: (key, bytes) => {
      mended.add(String(key))
      return memory.put(key, bytes)
    },
  }
  const holds = (output: Buffer): boolean => output.includes(data.subarray(0, 4500))
  const twice = [{ place: 0 }, { place: 0 }]
  for (const [all, isRight] of [
    [[{ place: 0 }], false],
    [twice, true],
    [[{ place: 0 }], true],
  ] as const)
    assert.equal(holds(await ask(tree, new Answers({ derived, kept }), all, ['-z'], 'zstd')), isRight)
  tree.close()
})

test('the data of a name that is not there, to be deleted, can not be asked for', async () => {
  const tree = new MemoryTree({ mode: 0o040755, children: filesOf(randomBytes(16, 100)) })
  const answers = new Noting({ derived, kept: memoryKept() })
  await assert.rejects(ask(tree, answers, [{ place: 0 }], [], undefined, [-1]), PeerError)
  assert.equal(answers.asked.length, 0)
  tree.close()
})
