import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { after, test } from 'node:test'
import { zstdDecompressSync } from 'node:zlib'
import { chanceTwins } from '../../test/support/chance.ts'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { sumsOf } from '../../test/support/receiver.ts'
import { memoryKept, SEED } from '../../test/support/session.ts'
import { randomBytes, splice } from '../../test/support/tree.ts'
import { StoreError } from '../errors.ts'
import { Answers, type Compression, mannerOf, type Question, type RefineJob } from './answers.ts'
import { type CodecName, createBestFrame, squeezeBest } from './codecs.ts'
import { Derived } from './derived.ts'
import { createBlockSum } from './digests.ts'
import { isFramed, PIECE } from './framed-answers.ts'
import type { FrameCursor } from './frames.ts'
import type { Kept } from './kept.ts'
import { Refiner } from './refiner.ts'
import type { Content } from './tree.ts'
import type { Answer, AnswerPart } from './wire/answers.ts'
import type { RawSums } from './wire/sums.ts'

const signal = new AbortController().signal
const derived = new Derived({ kept: memoryKept(), checksumSeed: SEED })
after(() => derived.close())

/** The largest record that the cache takes. */
const LARGEST_KEPT = 4 * 2 ** 20
const RULE = { name: 'md5', seed: SEED, seedFirst: true } as const
const ZSTD: Compression = { codec: 'zstd', level: undefined, effort: 'normal' }
const text = Buffer.from(Array.from({ length: 9000 }, (_, i) => `line ${i * i} of a text\n`).join(''))
const older = text
const newer = splice(text, 50_000, 30, randomBytes(7, 500))

/** A tree of one file that counts how often it is opened, and can be told to refuse. */
class CountingTree extends MemoryTree {
  opened = 0
  broken = false

  override open(node: number): Promise<Content> {
    this.opened++
    return this.broken ? Promise.reject(new StoreError('the disk says no')) : super.open(node)
  }
}

function treeOf(data: Buffer): CountingTree {
  return new CountingTree({ mode: 0o40755, children: { f: { mode: 0o100644, mtime: 0, data } } })
}

/** What a client with this basis sends. */
function rawSums(basis: Buffer, blockLength = 700, strongLength = 2): RawSums {
  const { head, weak, strong } = sumsOf(basis, blockLength, strongLength, createBlockSum(RULE))
  const bytes = Buffer.alloc(head.count * (4 + head.strongLength))
  for (let k = 0; k < head.count; k++) {
    const at = k * (4 + head.strongLength)
    bytes.writeUInt32LE(weak[k]!, at)
    bytes.set(strong.subarray(k * head.strongLength, (k + 1) * head.strongLength), at + 4)
  }
  return { head, bytes }
}

function question(
  tree: CountingTree,
  changes: Partial<Question> & { compression?: Compression } = {},
): Question {
  const { compression, ...rest } = changes
  return {
    tree,
    node: 1,
    sums: rawSums(older),
    manner: mannerOf(RULE, false, compression),
    fresh: false,
    ...rest,
  }
}

async function bytesOf(answers: Answers, asked: Question, answer: Answer): Promise<Buffer> {
  const all: Uint8Array[] = []
  for (const part of answer.parts) {
    if (part.type === 'bytes') all.push(part.bytes)
    else if (part.type === 'piece') all.push(await answers.piece(asked, part, Buffer.allocUnsafe, signal))
  }
  return Buffer.concat(all)
}

/** Millions of bytes are compared by their hash. */
const summaryOf = (part: AnswerPart): unknown => (part.type === 'bytes' ? hash('sha256', part.bytes) : part)

/** What a client makes of literal data without a block in between. */
function decoded(chunks: Buffer): Buffer {
  const data: Buffer[] = []
  for (let at = 0; chunks[at] !== 0; ) {
    const length = chunks.readUInt16BE(at) & 0x3fff
    data.push(chunks.subarray(at + 2, at + 2 + length))
    at += 2 + length
  }
  return zstdDecompressSync(Buffer.concat(data))
}

for (const compression of [undefined, ZSTD, { ...ZSTD, codec: 'zlib' as const }]) {
  const how = compression?.codec ?? 'plain'

  test(`${how}: the second who asks gets the same, and nothing is opened for it, also after a restart`, async () => {
    const kept = memoryKept()
    const tree = treeOf(newer)
    const asked = question(tree, compression ? { compression } : {})
    const answers = new Answers({ derived, kept })
    const first = await bytesOf(answers, asked, await answers.find(asked, signal))
    assert.ok(tree.opened > 0)
    tree.broken = true
    const again = await answers.find(question(tree, compression ? { compression } : {}), signal)
    assert.deepEqual(await bytesOf(answers, asked, again), first)
    const restarted = new Answers({ derived, kept })
    const later = await restarted.find(asked, signal)
    assert.deepEqual(await bytesOf(restarted, asked, later), first)
    assert.equal(later.matched + later.literal, newer.length)
    tree.close()
  })
}

test('what is at hand is a whole answer, once nothing can be made smaller, and nothing is read for it', async () => {
  const tree = treeOf(newer)
  for (const compression of [undefined, ZSTD]) {
    const kept = memoryKept()
    const asked = question(tree, compression ? { compression } : {})
    const first = new Answers({ derived, kept })
    assert.equal(first.atHand(asked), undefined)
    const answer = await first.find(asked, signal)
    if (compression) {
      assert.equal(new Answers({ derived, kept }).atHand(asked), undefined, 'it is yet to be compressed well')
      await first.refine(asked, undefined, (bytes, last) => squeezeBest('zstd', bytes, last), signal)
    }
    const opened = tree.opened
    const later = new Answers({ derived, kept })
    const found = later.atHand(asked)
    assert.ok(found)
    const whole = Buffer.concat(
      found.parts.map((part) => (part.type === 'bytes' ? part.bytes : fail(part.type))),
    )
    assert.equal(tree.opened, opened)
    assert.deepEqual(whole, await bytesOf(later, asked, await later.find(asked, signal)))
    assert.equal(found.literal, answer.literal)
    assert.equal(later.atHand({ ...asked, fresh: true }), undefined)
    // Whose codec has frames that hold several files gets it in one of those.
    if (compression) assert.equal(later.atHand({ ...asked, frames: later.openFrames() }), undefined)
  }
  tree.close()
})

function fail(what: string): never {
  assert.fail(what)
}

test('every difference in the question is another answer', async () => {
  const kept = new Map<string, Uint8Array>()
  const store: Kept = {
    get: (key) => kept.get(Buffer.from(key).toString('hex')),
    peek: () => undefined,
    put: (key, bytes) => kept.set(Buffer.from(key).toString('hex'), Uint8Array.from(bytes)) === kept,
  }
  const [tree, other] = [treeOf(newer), treeOf(splice(newer, 3, 1, Buffer.from('#')))]
  const answers = new Answers({ derived, kept: store })
  const rules = [
    RULE,
    { ...RULE, seed: 1 },
    { ...RULE, seedFirst: false },
    { ...RULE, name: 'sha1' as const },
  ]
  const questions = [
    ...rules.map((rule) => question(tree, { manner: mannerOf(rule, false, undefined) })),
    question(tree, { manner: mannerOf(RULE, true, undefined) }),
    question(other),
    question(tree, { sums: rawSums(older, 800) }),
    question(tree, { sums: rawSums(splice(older, 100, 1, Buffer.from('~'))) }),
    question(tree, { compression: ZSTD }),
    question(tree, { compression: { ...ZSTD, effort: 'least' } }),
    question(tree, { compression: { ...ZSTD, codec: 'zlibx' } }),
    question(tree, { compression: ZSTD, sums: undefined }),
  ]
  for (const [i, asked] of questions.entries()) {
    await answers.find(asked, signal)
    assert.equal(kept.size, i + 1, `question ${i} found the answer to another one`)
  }
  for (const asked of questions) await answers.find(asked, signal)
  assert.equal(kept.size, questions.length)
  tree.close()
  other.close()
})

test('who asks again gets it worked out anew, and so does everybody after', async () => {
  const kept = memoryKept()
  const tree = treeOf(newer)
  const answers = new Answers({ derived, kept })
  const right = await bytesOf(answers, question(tree), await answers.find(question(tree), signal))
  // As if it had been made of bytes that had rotted: the next process finds this.
  const poisoned: Kept = {
    peek: () => undefined,
    get: (key) => {
      const record = kept.get(key) as Uint8Array | undefined
      return record && Uint8Array.from(record, (byte, i) => (i === record.length - 10 ? byte ^ 1 : byte))
    },
    put: (key, bytes) => kept.put(key, bytes),
  }
  const served = new Answers({ derived, kept: poisoned })
  assert.notDeepEqual(await bytesOf(served, question(tree), await served.find(question(tree), signal)), right)
  const asked = question(tree, { fresh: true })
  assert.deepEqual(await bytesOf(served, asked, await served.find(asked, signal)), right)
  tree.close()
})

test('a content of several pieces: each is kept, and one that is lost is made again', async () => {
  const data = Buffer.concat(Array.from({ length: 60 }, () => text)).subarray(0, 2.5 * PIECE)
  const tree = treeOf(data)
  const forgetful = new Map<string, Uint8Array>()
  const kept: Kept = {
    get: (key) => forgetful.get(Buffer.from(key).toString('hex')),
    peek: () => undefined,
    put: (key, bytes) =>
      forgetful.set(Buffer.from(key).toString('hex'), Uint8Array.from(bytes)) === forgetful,
  }
  const answers = new Answers({ derived, kept })
  const asked = question(tree, { compression: ZSTD, sums: undefined })
  const answer = await answers.find(asked, signal)
  assert.equal(answer.parts.filter(({ type }) => type === 'piece').length, 3)
  for (let time = 0; time < 2; time++) {
    assert.deepEqual(decoded(await bytesOf(answers, asked, answer)), data)
    const pieces = [...forgetful].filter(([, bytes]) => bytes[0] === 0)
    assert.equal(pieces.length, 3)
    for (const [key] of pieces) forgetful.delete(key)
  }
  tree.close()
})

test('compressed again, as hard as it can be: smaller, and found by the next who asks', async () => {
  for (const data of [newer, Buffer.concat([text, text, randomBytes(3, 10_000), text])]) {
    const kept = memoryKept()
    const tree = treeOf(data)
    const jobs: RefineJob[] = []
    const answers = new Answers({ derived, kept, onQuick: (job) => jobs.push(job) })
    const asked = question(tree, { compression: { ...ZSTD, level: 1 }, sums: undefined })
    const quick = await bytesOf(answers, asked, await answers.find(asked, signal))
    assert.ok(jobs.length > 0)
    for (const job of jobs.splice(0)) {
      const squeeze = (bytes: Uint8Array, last: boolean) => squeezeBest('zstd', bytes, last)
      assert.ok(job.type !== 'frame')
      if (job.type === 'piece') await answers.refinePiece(job, squeeze)
      else await answers.refine(job.question, undefined, squeeze, signal)
    }
    const restarted = new Answers({ derived, kept, onQuick: (job) => jobs.push(job) })
    const best = await bytesOf(restarted, asked, await restarted.find(asked, signal))
    assert.ok(best.length < 0.95 * quick.length, `${best.length} of ${quick.length} bytes`)
    assert.equal(jobs.length, 0, 'nothing is left to be done')
    tree.close()
  }
})

test('the refiner does what it is given, in a thread of its own, and comes to an end', async () => {
  const kept = memoryKept()
  const tree = treeOf(newer)
  const refiner = new Refiner((problem) => assert.fail(problem))
  const answers = new Answers({ derived, kept, onQuick: (job) => refiner.add(job) })
  refiner.serve(answers)
  const asked = question(tree, { compression: { ...ZSTD, level: 1 }, sums: undefined })
  const quick = await bytesOf(answers, asked, await answers.find(asked, signal))
  await refiner.idle()
  assert.equal(refiner.waiting, 0)
  const best = await bytesOf(answers, asked, await answers.find(asked, signal))
  assert.ok(best.length < quick.length)
  // What can't be read any more is given up without a word.
  tree.broken = true
  refiner.add({ type: 'answer', key: Buffer.from('x'), question: asked })
  await refiner.idle()
  await refiner.close()
  tree.close()
})

test('what is prepared is what clients are told: by one search, as well as can be, and all of it kept', async () => {
  const kept = memoryKept()
  const literal = Buffer.concat([older, Buffer.from(randomBytes(9, PIECE + 1000).toString('hex'))])
  const tree = treeOf(literal)
  let searches = 0
  const counting = new (class extends Derived {
    override delta(...args: Parameters<Derived['delta']>): ReturnType<Derived['delta']> {
      searches++
      return super.delta(...args)
    }
  })({ kept, checksumSeed: SEED })
  const codecs = [undefined, 'zstd', 'zlib', 'lz4'] as const
  const manners = codecs.map((codec) => mannerOf(RULE, false, codec && { ...ZSTD, codec }))
  const best = (codec: CodecName) => async (bytes: Uint8Array, last: boolean) =>
    squeezeBest(codec, bytes, last)
  const prepare = (how: typeof best | undefined, jobs: RefineJob[] = []) => {
    const answers = new Answers({ derived: counting, kept, onQuick: (job) => jobs.push(job) })
    return answers.prepare({ tree, node: 1, sums: rawSums(older) }, manners, how, signal)
  }

  const jobs: RefineJob[] = []
  const quick = await prepare(undefined, jobs)
  assert.equal(searches, 1)
  assert.ok(jobs.length > 0 && quick.every(({ ready, isNew }) => ready && isNew))
  const good = await prepare(best)
  assert.deepEqual(
    good.map(({ isNew, ready }) => ({ isNew, ready })),
    codecs.map((codec) => ({ isNew: codec === 'zstd' || codec === 'zlib', ready: true })),
  )
  assert.ok(good[1]!.bytes < quick[1]!.bytes)
  assert.deepEqual(
    await prepare(best),
    good.map((one) => ({ ...one, isNew: false })),
  )
  assert.equal(searches, 1, 'an answer that refers to pieces does not change with them')

  tree.broken = true
  for (const [i, codec] of codecs.entries()) {
    const asked = question(tree, codec ? { compression: { ...ZSTD, codec } } : {})
    const answers = new Answers({
      derived: counting,
      kept,
      onQuick: () => assert.fail('it is as good as it gets'),
    })
    const answer = await answers.find(asked, signal)
    const plain = answer.parts.reduce((sum, part) => sum + (part.type === 'plain' ? part.length : 0), 0)
    assert.equal((await bytesOf(answers, asked, answer)).length + plain, good[i]!.bytes, `${codec}`)
  }
  tree.close()
})

test('where the whole sums are known no block is taken for another, whoever asks by short ones', async () => {
  const [twin, other] = chanceTwins(11, 700, createBlockSum(RULE))
  const [basis, data] = [twin, other].map((block) => splice(older, 7000, 700, block)) as [Buffer, Buffer]
  const tree = treeOf(data)
  const manners = [mannerOf(RULE, false, undefined)]
  const [sums, wholeSums] = [rawSums(basis), rawSums(basis, 700, 16)]
  for (const [known, literal] of [
    [undefined, 0],
    [wholeSums, 700],
  ] as const) {
    const answers = new Answers({ derived, kept: memoryKept() })
    await answers.prepare({ tree, node: 1, sums, wholeSums: known }, manners, undefined, signal)
    assert.equal((await answers.find(question(tree, { sums }), signal)).literal, literal)
  }
  tree.close()
})

for (const isDone of [false, true]) {
  test(`a frame that is compressed better ${isDone ? 'before' : 'while'} a client asks again does not bring back what misled it`, async () => {
    const [twin, other] = chanceTwins(11, 700, createBlockSum(RULE))
    const [basis, data] = [twin, other].map((block) => splice(newer, 7000, 700, block)) as [Buffer, Buffer]
    const changed = splice(data, 70_000, 0, randomBytes(12, 300))
    const tree = treeOf(changed)
    const jobs: RefineJob[] = []
    const answers = new Answers({ derived, kept: memoryKept(), onQuick: (job) => jobs.push(job) })
    const asks = (): Question & { frames: FrameCursor } => ({
      ...question(tree, { compression: ZSTD, sums: rawSums(basis) }),
      frames: answers.openFrames(),
    })
    /** As a session does. @returns literal bytes of the answer. */
    const tell = async (asked: ReturnType<typeof asks>): Promise<number> => {
      const answer = await answers.find(asked, signal)
      assert.ok(isFramed(answer))
      const { step } = answer
      asked.frames.advance(0, step, step.quality === 'quick' ? answers.framedFile(asked) : undefined)
      answers.leaveFrame(asked.frames)
      return answer.literal
    }
    const first = asks()
    const misled = await tell(first)
    const [job] = jobs.splice(0)
    assert.ok(job?.type === 'frame')

    const [begun, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const refining = answers.refineFrame(
      job.files,
      () => {
        const frame = createBestFrame()
        return {
          add: async (bytes, last) => {
            begun.resolve()
            await gate.promise
            return frame.add(bytes, last)
          },
          close: () => frame.close(),
        }
      },
      signal,
    )
    await begun.promise
    if (isDone) {
      gate.resolve()
      await refining
    }
    answers.forget(first.frames.takeSent(0)!)
    const again = { ...first, frames: undefined, fresh: true, firstStrongLength: 2 }
    const right = await answers.find({ ...again, sums: rawSums(basis, 700, 16) }, signal)
    assert.ok(right.literal >= misled + 700)
    gate.resolve()
    await refining.catch((error) => assert.ok(error instanceof StoreError))

    for (const asked of [asks(), asks()]) assert.equal(await tell(asked), right.literal)
    // What they are told is made better in its turn.
    for (const one of jobs)
      if (one.type === 'frame') await answers.refineFrame(one.files, createBestFrame, signal)
    const last = asks()
    assert.equal(await tell(last), right.literal)
    assert.equal((await answers.find({ ...asks() }, signal)).literal, right.literal)
    tree.close()
  })
}

test('an answer in short memory is worked out anew for who asks again, and so it is for everybody after', async () => {
  const basis = older.subarray(0, 10_000)
  const tree = treeOf(splice(basis, 5000, 30, randomBytes(8, 100)))
  const kept = memoryKept()
  const asked = question(tree, { sums: rawSums(basis) })
  const right = await bytesOf(
    new Answers({ derived, kept }),
    asked,
    await new Answers({ derived, kept }).find(asked, signal),
  )
  let isRotten = true
  const served = new Answers({
    derived,
    kept: {
      ...kept,
      get: (key) => {
        const record = kept.get(key) as Uint8Array | undefined
        return record && isRotten
          ? Uint8Array.from(record, (byte, i) => (i === record.length - 60 ? byte ^ 1 : byte))
          : record
      },
    },
  })
  assert.notDeepEqual(await bytesOf(served, asked, await served.find(asked, signal)), right)
  isRotten = false
  const fresh = { ...asked, fresh: true }
  assert.deepEqual(await bytesOf(served, fresh, await served.find(fresh, signal)), right)
  assert.deepEqual(await bytesOf(served, asked, await served.find(asked, signal)), right)
  tree.close()
})

test('an answer at hand that is not sent at once lies in memory of its own; one that is compressed is not lent', async () => {
  const trees = [0, 1].map((n) =>
    treeOf(splice(older, 50_000 + 7000 * n, 0, Buffer.concat([randomBytes(n, 40_000), Buffer.alloc(10)]))),
  )
  const kept = memoryKept()
  const asked = trees.map((tree) => question(tree))
  for (const one of asked) await new Answers({ derived, kept }).find(one, signal)
  const answers = new Answers({ derived, kept })
  const first = answers.atHand(asked[0]!)!
  assert.ok(first.parts.some(({ type }) => type === 'plain'))
  const before = first.parts.map(summaryOf)
  assert.ok(answers.atHand(asked[1]!))
  assert.deepEqual(first.parts.map(summaryOf), before)

  const packed = question(trees[0]!, { compression: ZSTD })
  for (let times = 0; times < 2; times++)
    await new Answers({ derived, kept }).find(packed, signal, () => assert.fail('its keys last longer'))
  for (const tree of trees) tree.close()
})

test('the last piece of a run is known as that, wherever the run begins', async () => {
  const basis = older.subarray(0, 7000)
  const tree = treeOf(Buffer.concat([basis, randomBytes(10, 2 * PIECE + 5)]))
  const asked = question(tree, { sums: rawSums(basis), compression: { ...ZSTD, codec: 'zlib' } })
  const { parts } = await new Answers({ derived, kept: memoryKept() }).find(asked, signal)
  const pieces = parts.filter((part) => part.type === 'piece')
  assert.deepEqual(
    pieces.map(({ from, length, last, history }) => ({ from, length, last, history })),
    [
      { from: 7000, length: PIECE, last: false, history: 7000 },
      { from: 7000 + PIECE, length: PIECE, last: false, history: 32_768 },
      { from: 7000 + 2 * PIECE, length: 5, last: true, history: 32_768 },
    ],
  )
  tree.close()
})

test('who lies about the sums of many blocks changes nothing for those who ask by short ones', async () => {
  const kept = memoryKept()
  const tree = treeOf(newer)
  const answers = new Answers({ derived, kept })
  const honest = await bytesOf(answers, question(tree), await answers.find(question(tree), signal))
  const whole = rawSums(older, 700, 16)
  const bytes = Buffer.from(whole.bytes)
  for (let at = 19; at < bytes.length; at += 20) bytes[at]! ^= 1
  const lie = question(tree, { sums: { ...whole, bytes }, fresh: true, firstStrongLength: 2 })
  assert.equal((await answers.find(lie, signal)).matched, 0)
  const later = new Answers({ derived, kept })
  assert.deepEqual(await bytesOf(later, question(tree), await later.find(question(tree), signal)), honest)
  tree.close()
})

test('many small differences in a large file: no more of them in the answer than is kept', async () => {
  const BLOCK = 10_000
  const basis = randomBytes(11, 1000 * BLOCK)
  const data = Buffer.from(basis)
  for (let block = 0; block < 1000; block += 2) data[block * BLOCK + 5]! ^= 1
  const tree = treeOf(data)
  const kept = memoryKept()
  const sums = rawSums(basis, BLOCK, 8)
  const found = await new Answers({ derived, kept }).find(question(tree, { sums }), signal)
  assert.equal(found.literal, 500 * BLOCK)
  let held = 0
  for (const part of found.parts) if (part.type === 'bytes') held += part.bytes.length
  assert.ok(held < LARGEST_KEPT, `${held} bytes`)
  const { opened } = tree
  const again = await new Answers({ derived, kept }).find(question(tree, { sums }), signal)
  assert.deepEqual(again.parts.map(summaryOf), found.parts.map(summaryOf))
  assert.equal(tree.opened, opened, 'it was searched again')
  tree.close()
})

test('an answer that is not kept is not ready', async () => {
  const full: Kept = { get: () => undefined, peek: () => undefined, put: () => false }
  const tree = treeOf(newer)
  const asked = { tree, node: 1, sums: rawSums(older) }
  const manners = [mannerOf(RULE, false, undefined), mannerOf(RULE, false, ZSTD)]
  const prepared = await new Answers({ derived, kept: full }).prepare(asked, manners, undefined, signal)
  assert.deepEqual(
    prepared.map(({ ready }) => ready),
    [false, false],
  )
  tree.close()
})

test('the refiner leaves the processor to clients for as long as there are any', async () => {
  const tree = treeOf(newer)
  let isBusy = true
  let looks = 0
  const refiner = new Refiner(
    (problem) => assert.fail(problem),
    () => {
      // Its client is gone when it looks for the third time.
      if (++looks === 3) isBusy = false
      return isBusy
    },
  )
  const order: string[] = []
  const memory = memoryKept()
  const kept: Kept = {
    ...memory,
    put: (key, bytes) => {
      order.push(isBusy ? 'quick' : 'best')
      return memory.put(key, bytes)
    },
  }
  const answers = new Answers({ derived, kept, onQuick: (job) => refiner.add(job) })
  refiner.serve(answers)
  await answers.find(question(tree, { compression: { ...ZSTD, level: 1 } }), signal)
  await refiner.idle()
  // What the search led to, too, is kept for whoever comes with another codec.
  assert.deepEqual(order, ['quick', 'quick', 'best'])
  assert.ok(looks >= 3)
  await refiner.close()
  tree.close()
})
