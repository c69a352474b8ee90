/** What names a client's place in frames: all that can change a frame, and nothing else. */
import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { test } from 'node:test'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { memoryKept } from '../../test/support/session.ts'
import { Answers, mannerOf, type Question } from './answers.ts'
import type { Derived } from './derived.ts'
import {
  decodeFramed,
  encodeFramed,
  endsFrame,
  FrameCursor,
  type FramedFile,
  type FrameState,
  type FrameStep,
  framedPieceKey,
  frameKey,
  stepOf,
} from './frames.ts'
import type { Answer } from './wire/answers.ts'

const MIB = 2 ** 20
const hex = (key: Uint8Array): string => Buffer.from(key).toString('hex')
const idOf = (name: string): Uint8Array => hash('sha256', name, 'buffer').subarray(0, 16)
const QUESTION = hash('sha256', 'a question', 'buffer')
const STATE: FrameState = { id: idOf('a state'), quality: 'quick', literal: 1000 }

/** Bytes with one bit another. */
function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  return Uint8Array.from(bytes, (byte, i) => (i === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte))
}

test('each bit of a state’s name and of a question makes another key, and so does how a frame begins', () => {
  const keys = [frameKey(STATE, QUESTION), frameKey('quick', QUESTION), frameKey('best', QUESTION)]
  for (let bit = 0; bit < 128; bit++) {
    keys.push(frameKey(STATE, flipped(QUESTION, bit)))
    keys.push(frameKey('quick', flipped(QUESTION, bit)))
    const key = frameKey({ ...STATE, id: flipped(STATE.id, bit) }, QUESTION)
    // A name is random: that two changes make up for each other is as likely as to guess it.
    assert.equal(hex(key), hex(frameKey(STATE, flipped(QUESTION, bit))))
    assert.notEqual(hex(key), hex(keys[0]!))
  }
  assert.equal(new Set(keys.map(hex)).size, keys.length)
  assert.ok(keys.every(({ length }) => length === 16))
})

test('a state is known by its name alone', () => {
  for (const same of [
    { ...STATE, literal: 5 },
    { ...STATE, quality: 'best' } as const,
    { ...STATE, id: Buffer.from(STATE.id) },
  ])
    assert.equal(hex(frameKey(same, QUESTION)), hex(frameKey(STATE, QUESTION)))
})

/** A file of which only its content is known. */
class NamedContent extends MemoryTree {
  readonly #content: string

  constructor(content: string, name = 'f', mode = 0o100644) {
    super({ mode: 0o40755, children: { a: { mode: 0o100644 }, [name]: { mode, mtime: mode } } })
    this.close()
    this.#content = content
  }

  override contentKey = (): string => this.#content
}

test('what is asked is another question by all that shapes an answer, and by nothing else', () => {
  const answers = new Answers({ derived: {} as Derived, kept: memoryKept() })
  const rule = { name: 'md5', seed: 7, seedFirst: true } as const
  const compression = { codec: 'zstd', level: undefined, effort: 'normal' } as const
  const head = { count: 2, blockLength: 700, strongLength: 2, remainder: 11 }
  const bytes = Buffer.from('0102030405060708090a0b0c', 'hex')
  const asked: Question = {
    tree: new NamedContent('content'),
    node: 1,
    sums: { head, bytes },
    manner: mannerOf(rule, false, compression),
    fresh: false,
  }
  const keyOf = (changes: Partial<Question>): string =>
    hex(frameKey('quick', answers.framedFile({ ...asked, ...changes }).question))
  const first = keyOf({})
  const others = [
    { tree: new NamedContent('another content') },
    { sums: undefined },
    ...Array.from(bytes, (_, i) => ({ sums: { head, bytes: Buffer.from(flipped(bytes, 8 * i)) } })),
    { sums: { head: { ...head, count: 3 }, bytes } },
    { sums: { head: { ...head, blockLength: 701 }, bytes } },
    { sums: { head: { ...head, strongLength: 3 }, bytes } },
    { sums: { head: { ...head, remainder: 12 }, bytes } },
    { manner: mannerOf({ ...rule, name: 'xxh128' }, false, compression) },
    { manner: mannerOf({ ...rule, seed: 8 }, false, compression) },
    { manner: mannerOf({ ...rule, seedFirst: false }, false, compression) },
    { manner: mannerOf(rule, true, compression) },
    { manner: mannerOf(rule, false, { ...compression, codec: 'zlib' }) },
    { manner: mannerOf(rule, false, { ...compression, effort: 'least' }) },
  ].map(keyOf)
  assert.equal(new Set([first, ...others]).size, 1 + others.length)
  // More sums than most have are hashed elsewhere.
  const many = Buffer.alloc(9000, 1)
  const large = { ...head, count: 1500 }
  assert.notEqual(
    keyOf({ sums: { head: large, bytes: many } }),
    keyOf({ sums: { head: large, bytes: Buffer.from(flipped(many, 8 * 8999)) } }),
  )
  for (const same of [
    // Another build, another name in it, and what is said of it beside its content.
    { tree: new NamedContent('content', 'another', 0o100755) },
    { node: 2 },
    // What is kept was compressed at one client's level, or at the best.
    { manner: mannerOf(rule, false, { ...compression, level: 9 }) },
    { fresh: true, firstStrongLength: 2 },
    { wholeSums: { head: { ...head, strongLength: 16 }, bytes: Buffer.alloc(40) } },
    { tally: { searched: 0, prepared: 0, reused: 0 } },
    { frames: new FrameCursor(() => {}) },
    { sums: { head: { ...head }, bytes: Buffer.from(bytes) } },
  ])
    assert.equal(keyOf(same), first)
})

test('pieces of a frame have keys of their own', () => {
  const ids = [idOf('one'), idOf('other')]
  const keys = ids.flatMap((id) => Array.from({ length: 20 }, (_, n) => hex(framedPieceKey(id, n))))
  assert.equal(new Set(keys).size, 40)
})

test('where a frame ends is up to the contents, once it is large enough', () => {
  const names = Array.from({ length: 4000 }, (_, n) => `content ${n}`)
  for (const name of names) {
    assert.equal(endsFrame(3 * MIB - 1, name), false)
    assert.equal(endsFrame(8 * MIB, name), true)
    assert.equal(endsFrame(3 * MIB, name), endsFrame(8 * MIB - 1, name))
  }
  const ends = names.filter((name) => endsFrame(3 * MIB, name)).length
  assert.ok(ends > 400 && ends < 600, `${ends} of ${names.length}: about every eighth`)
})

const ANSWER: Answer = {
  ...{ complete: true, matched: 3, literal: 500 },
  parts: [{ type: 'bytes', bytes: Buffer.of(1, 2, 3) }],
}

test('what is kept of a framed answer leads to the state that it was made with', () => {
  const [key, id] = [idOf('key'), idOf('id')]
  for (const ends of [false, true]) {
    const record = encodeFramed(id, ends, ANSWER)
    for (const [from, quality, before, begins] of [
      ['quick', 'quick', 0, true],
      ['best', 'best', 0, true],
      [STATE, 'quick', 1000, false],
      [{ ...STATE, quality: 'best' }, 'best', 1000, false],
    ] as const) {
      const found = decodeFramed(record, key, from)!
      const { step, ...answer } = found
      assert.deepEqual(answer, ANSWER)
      const next = ends ? undefined : { id: new Uint8Array(id), quality, literal: before + 500 }
      assert.deepEqual(step, { key, quality, begins, next })
      assert.deepEqual(stepOf(key, from, new Uint8Array(id), 500, ends), step)
    }
  }
  // The state lasts longer than the record does.
  const record = encodeFramed(id, false, ANSWER)
  const { step } = decodeFramed(record, key, 'quick')!
  record.fill(0xee)
  assert.equal(hex(step.next!.id), hex(id))
  // What another version kept, or nothing at all.
  const other = encodeFramed(id, false, ANSWER)
  other[0]!++
  for (const none of [other, new Uint8Array(1), new Uint8Array(0)])
    assert.equal(decodeFramed(none, key, 'quick'), undefined)
})

// ---------------------------------------------------------------------------------------------------

function cursor(): { frames: FrameCursor; told: number[] } {
  const told: number[] = []
  return { frames: new FrameCursor((files) => told.push(files.length)), told }
}

function stepTo(name: string | undefined, quality: FrameStep['quality'] = 'quick'): FrameStep {
  const next = name === undefined ? undefined : { id: idOf(name), quality, literal: 1 }
  return { key: idOf(`key to ${name}`), quality, begins: false, next }
}

const FILE = {} as FramedFile

test('a client goes from state to state, and what was compressed quickly is told when its frame ends', () => {
  const { frames, told } = cursor()
  assert.equal(frames.state, undefined)
  assert.equal(frames.isOpen, false)
  const first = stepTo('one')
  frames.advance(0, first, FILE)
  assert.equal(frames.state, first.next)
  assert.equal(frames.isOpen, true)
  frames.advance(1, stepTo('two'), FILE)
  frames.advance(2, stepTo('three', 'best'), FILE)
  frames.advance(3, stepTo('four'), undefined)
  assert.deepEqual(told, [])
  frames.advance(4, stepTo(undefined), FILE)
  assert.equal(frames.state, undefined)
  assert.equal(frames.isOpen, false)
  assert.deepEqual(told, [3], 'what is as good as can be needs nothing')
  frames.advance(5, stepTo('five'), FILE)
  frames.leave()
  assert.equal(frames.state, undefined)
  assert.equal(frames.isOpen, false)
  assert.deepEqual(told, [3, 1])
  frames.leave()
  assert.deepEqual(told, [3, 1], 'nothing is told twice')
})

test('a frame of ever so many files is told in parts', () => {
  const { frames, told } = cursor()
  for (let place = 0; place < 5000; place++) frames.advance(place, stepTo('on'), FILE)
  assert.deepEqual(told, [4096])
  frames.leave()
  assert.deepEqual(told, [4096, 904])
})

test('behind an answer of which a piece was lost nobody is in a frame', () => {
  const { frames, told } = cursor()
  frames.advance(0, stepTo('one'), FILE)
  frames.opened()
  frames.lose()
  assert.equal(frames.isOpen, false)
  assert.equal(frames.isLost, true)
  frames.advance(1, stepTo('two'), FILE)
  assert.equal(frames.state, undefined)
  assert.equal(frames.isOpen, false)
  assert.equal(frames.isLost, false, 'the next answer begins anew')
  assert.deepEqual(told, [2])
  frames.advance(2, stepTo('three'), FILE)
  assert.equal(frames.isOpen, true)
})

test('what was said about a place is known by its key, once, the latest first', () => {
  const { frames } = cursor()
  for (let place = 0; place < 1000; place++) frames.advance(place, stepTo(`${place}`), undefined)
  frames.advance(5, stepTo('later'), undefined)
  assert.equal(hex(frames.takeSent(5)!), hex(stepTo('later').key))
  assert.equal(hex(frames.takeSent(5)!), hex(stepTo('5').key))
  assert.equal(frames.takeSent(5), undefined)
  for (const place of [0, 63, 64, 127, 128, 999])
    assert.equal(hex(frames.takeSent(place)!), hex(stepTo(`${place}`).key))
  assert.equal(frames.takeSent(1000), undefined)
})
