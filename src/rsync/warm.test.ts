import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MemoryTree, SharedMemoryTree } from '../../test/support/memory-tree.ts'
import { memoryKept, SEED } from '../../test/support/session.ts'
import { randomBytes } from '../../test/support/tree.ts'
import { turnsDuring } from '../../test/support/turns.ts'
import { StoreError } from '../errors.ts'
import { ascii, showBytes } from '../lib/bytes.ts'
import { Answers, type Prepared } from './answers.ts'
import { createBestFrame, squeezeBest } from './codecs.ts'
import { Derived } from './derived.ts'
import { Lists } from './lists.ts'
import { type StockVisit, visitOf } from './stock-clients.ts'
import type { Content } from './tree.ts'
import { type DeviceQuestion, type Kitchen, planUpdate, warmAnswers } from './warm.ts'

const signal = new AbortController().signal

/** Content is named by what it is, as in a store. */
class StoreTree extends MemoryTree {
  broken: string | undefined
  readonly suspected: string[] = []

  override contentKey = (node: number): string => Buffer.from(this.digest(node, 'md5')!).toString('hex')
  suspect = (node: number): void => void this.suspected.push(this.name(node))
  override open(node: number): Promise<Content> {
    return this.name(node) === this.broken ? Promise.reject(new StoreError('rotten')) : super.open(node)
  }
}

const file = (data: string | Buffer, more: { mtime?: number; link?: number } = {}) => ({
  mode: 0o100644,
  mtime: 1,
  data: Buffer.from(data),
  ...more,
})
const treeOf = (children: object): StoreTree =>
  new StoreTree({ mode: 0o40755, children: { root: { mode: 0o40755, children: children as never } } })

/** "new < old x times" for each question. */
async function asked(from: StoreTree, to: StoreTree): Promise<string[]> {
  const { questions } = await planUpdate(from, to, ascii('root'), signal)
  return questions.map(({ node, basis, times }) => {
    return `${to.name(node)} < ${basis < 0 ? 'nothing' : from.name(basis)} x ${times}`
  })
}

const directory = (children: object) => ({ mode: 0o40755, children })
const CASES = [
  { name: 'what is the same', from: { a: file('x') }, to: { a: file('x') }, asked: [] },
  { name: 'what is new', from: {}, to: { a: file('x') }, asked: ['a < nothing x 1'] },
  { name: 'another size', from: { a: file('x') }, to: { a: file('xx') }, asked: ['a < a x 1'] },
  {
    name: 'another time alone',
    from: { a: file('x') },
    to: { a: file('x', { mtime: 2 }) },
    asked: ['a < a x 1'],
  },
  {
    name: 'equal size and time: asked for with -c alone',
    from: { a: file('x') },
    to: { a: file('y') },
    asked: ['a < a x 0'],
  },
  {
    name: 'what was no file before',
    from: { a: directory({ b: file('x') }), l: { mode: 0o120777, target: 'a' } },
    to: { a: file('xx'), l: file('y') },
    asked: ['a < nothing x 1', 'l < nothing x 1'],
  },
  {
    name: 'a directory that was a file',
    from: { d: file('x') },
    to: { d: directory({ a: file('y') }) },
    asked: ['a < nothing x 1'],
  },
  {
    name: 'equal questions of two files are one',
    from: { a: file('x'), b: file('x') },
    to: { a: file('new'), b: file('new') },
    asked: ['a < a x 2'],
  },
  {
    name: 'a hard-linked file is asked for once',
    from: { a: file('x', { link: 1 }), b: file('x', { link: 1 }) },
    to: { a: file('new', { link: 7 }), b: file('new', { link: 7 }) },
    asked: ['a < a x 1'],
  },
  {
    name: 'by the first name that is there; who does without -H asks for all',
    from: { b: file('x') },
    to: {
      a: file('new', { link: 7 }),
      b: file('new', { link: 7 }),
      c: file('new', { link: 7 }),
    },
    asked: ['a < nothing x 0', 'b < b x 1'],
  },
  {
    name: 'not at all, if that one is the same',
    from: { b: file('x') },
    to: { a: file('x', { link: 7 }), b: file('x', { link: 7 }) },
    asked: ['a < nothing x 0'],
  },
  {
    name: 'in the order of the list: files of a directory before its directories',
    from: {},
    to: { d: directory({ a: file('1') }), e: file('2'), c: directory({ z: file('3') }) },
    asked: ['e < nothing x 1', 'z < nothing x 1', 'a < nothing x 1'],
  },
]
for (const { name, from, to, asked: expected } of CASES) {
  test(`what a device asks for: ${name}`, async () => {
    const trees = [treeOf(from), treeOf(to)] as const
    assert.deepEqual(await asked(...trees), expected)
    for (const tree of trees) tree.close()
  })
}

function newKitchen(): Kitchen {
  const kept = memoryKept()
  const derived = new Derived({ kept, checksumSeed: SEED })
  after(() => derived.close())
  return {
    derived,
    answers: new Answers({ derived, kept }),
    lists: new Lists(derived, kept),
    best: {
      squeeze: (codec) => async (bytes, last) => squeezeBest(codec, bytes, last),
      frame: createBestFrame,
    },
    checksumSeed: SEED,
  }
}

test('others get their turn, also where nothing is left to be worked out', async () => {
  const kitchen = newKitchen()
  const files = (seed: number) =>
    Object.fromEntries(Array.from({ length: 1500 }, (_, i) => [`f${i}`, file(randomBytes(seed + i, 3000))]))
  const treeIn = (children: object): SharedMemoryTree =>
    new SharedMemoryTree({
      mode: 0o40755,
      children: { root: { mode: 0o40755, children: children as never } },
    })
  const [from, to] = [treeIn(files(1)), treeIn(files(10_000))]
  const called = { letters: 'H', numericIds: true, compress: undefined } as const
  const visits = [await visitOf('3.2', called, ascii('build-1/root/'), SEED)]
  const update = await planUpdate(from, to, ascii('root'), signal)
  assert.equal(update.questions.length, 1500)
  const request = { update, visits, quick: true, onDone: () => {}, pause: async () => {} }
  await warmAnswers(kitchen, request, signal)
  const turns = await turnsDuring(() => warmAnswers(kitchen, request, signal))
  assert.ok(turns >= 3, `${turns} turns for others`)
  for (const tree of [from, to]) tree.close()
})

test('a file that cannot be read is told and suspected, and the others are prepared', async () => {
  const kitchen = newKitchen()
  const large = (seed: number) => file(randomBytes(seed, 100_000))
  const from = treeOf({ a: large(1), b: large(2), c: large(3) })
  const to = treeOf({ a: large(4), b: large(5), c: large(6), d: large(7) })
  from.broken = 'b'
  to.broken = 'c'
  const called = { letters: 'H', numericIds: true, compress: 'auto' } as const
  const visits = [await visitOf('3.2', called, ascii('build-1/root/'), SEED)]
  const update = await planUpdate(from, to, ascii('root'), signal)
  const done = new Map<string, string>()
  const onDone = (
    { node }: DeviceQuestion,
    prepared: ReadonlyMap<StockVisit, Prepared> | undefined,
  ): void => {
    const ready = prepared && [...prepared.values()].every((one) => one.ready)
    done.set(showBytes(to.name(node)), ready === undefined ? 'unreadable' : ready ? 'ready' : 'not ready')
  }
  const pause = async (): Promise<void> => {}
  await warmAnswers(kitchen, { update, visits, quick: false, onDone, pause }, signal)
  assert.deepEqual(Object.fromEntries(done), { a: 'ready', b: 'unreadable', c: 'unreadable', d: 'ready' })
  assert.deepEqual(
    [[...new Set(from.suspected)].sort(), [...new Set(to.suspected)].sort()],
    [
      ['b', 'c'],
      ['b', 'c'],
    ],
  )
  for (const tree of [from, to]) tree.close()
})
