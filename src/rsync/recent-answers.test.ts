import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { randomBytes } from '../../test/support/tree.ts'
import { RecentAnswers } from './recent-answers.ts'
import type { Tree } from './tree.ts'
import type { Answer } from './wire/answers.ts'
import type { RawSums } from './wire/sums.ts'

const FILES = 400

function newTree(): Tree {
  const children = Object.fromEntries(
    Array.from({ length: FILES }, (_, i) => [`f${i}`, { mode: 0o100644, mtime: 0, data: Buffer.from('x') }]),
  )
  return new MemoryTree({ mode: 0o40755, children })
}

function sumsOf(seed: number, blocks = 3): RawSums {
  const head = { count: blocks, blockLength: 700, strongLength: 2, remainder: 0 }
  return { head, bytes: randomBytes(seed, blocks * 6) }
}

function answerOf(seed: number, size: number): Answer {
  return {
    complete: true,
    matched: seed,
    literal: size,
    parts: [{ type: 'bytes', bytes: randomBytes(seed, size) }],
  }
}

const tree = newTree()
const manner = { name: 'plain' }

test('what was added is found by the same sums, of any number of bases, and by nothing else', () => {
  const recent = new RecentAnswers()
  for (let seed = 1; seed <= 3; seed++) recent.add(tree, manner, 5, sumsOf(seed), answerOf(seed, 50))
  recent.add(tree, manner, 5, undefined, answerOf(9, 70))
  for (let seed = 1; seed <= 3; seed++) {
    assert.deepEqual(recent.find(tree, { name: 'plain' }, 5, sumsOf(seed)), answerOf(seed, 50))
  }
  assert.deepEqual(recent.find(tree, manner, 5, undefined), answerOf(9, 70))
  const { head, bytes } = sumsOf(1)
  for (const [name, value] of Object.entries(head)) {
    const other = { head: { ...head, [name]: value + 1 }, bytes }
    assert.equal(recent.find(tree, manner, 5, other), undefined, name)
  }
  assert.equal(recent.find(tree, manner, 5, sumsOf(4)), undefined)
  assert.equal(recent.find(tree, manner, 5, { head, bytes: bytes.subarray(1) }), undefined)
  assert.equal(recent.find(tree, manner, 6, sumsOf(1)), undefined)
  assert.equal(recent.find(tree, { name: 'zstd' }, 5, sumsOf(1)), undefined)
  assert.equal(recent.find(newTree(), { name: 'plain' }, 5, sumsOf(1)), undefined)
})

test('a manner that has looked before anything was added finds what is added later', () => {
  const recent = new RecentAnswers()
  const other = { name: 'plain' }
  assert.equal(recent.find(tree, other, 1, sumsOf(1)), undefined)
  recent.add(tree, manner, 1, sumsOf(1), answerOf(1, 10))
  assert.deepEqual(recent.find(tree, other, 1, sumsOf(1)), answerOf(1, 10))
})

test('of one file the last few bases are kept', () => {
  const recent = new RecentAnswers()
  for (let seed = 1; seed <= 6; seed++) recent.add(tree, manner, 0, sumsOf(seed), answerOf(seed, 10))
  const found = [1, 2, 3, 4, 5, 6].filter((seed) => recent.find(tree, manner, 0, sumsOf(seed)))
  assert.deepEqual(found, [3, 4, 5, 6])
})

test('long sums are compared to their last byte', () => {
  const recent = new RecentAnswers()
  const long = sumsOf(1, 100)
  recent.add(tree, manner, 2, long, answerOf(1, 10))
  assert.deepEqual(recent.find(tree, manner, 2, long), answerOf(1, 10))
  const other = Buffer.from(long.bytes)
  other[599]! ^= 1
  assert.equal(recent.find(tree, manner, 2, { head: long.head, bytes: other }), undefined)
})

test('what was removed, is large, or may yet get better is not found', () => {
  const recent = new RecentAnswers()
  recent.add(tree, manner, 3, sumsOf(1), answerOf(1, 10))
  recent.remove(tree, manner, 3)
  assert.equal(recent.find(tree, manner, 3, sumsOf(1)), undefined)
  recent.add(tree, manner, 3, sumsOf(1), answerOf(1, 40_000))
  recent.add(tree, manner, 3, sumsOf(1), { ...answerOf(1, 10), complete: false })
  recent.add(tree, manner, 3, sumsOf(1), { ...answerOf(1, 10), parts: [{ type: 'steps', delta: [1] }] })
  assert.equal(recent.find(tree, manner, 3, sumsOf(1)), undefined)
})

test('memory is bounded: what is asked for stays, what nobody asks for goes', () => {
  const recent = new RecentAnswers()
  recent.add(tree, manner, 0, sumsOf(0), answerOf(0, 1000))
  for (let i = 1; i < 40_000; i++) {
    recent.add(tree, { name: `manner ${i % 16}` }, i % FILES, sumsOf(i), answerOf(i, 1900))
    if (i % 100 === 0) assert.ok(recent.find(tree, manner, 0, sumsOf(0)), `gone after ${i}`)
    assert.ok(recent.memory <= 16 * 2 ** 20, `${recent.memory} bytes`)
  }
  assert.equal(recent.find(tree, { name: 'manner 1' }, 1, sumsOf(1)), undefined)
  assert.deepEqual(
    recent.find(tree, { name: `manner ${39_999 % 16}` }, 39_999 % FILES, sumsOf(39_999)),
    answerOf(39_999, 1900),
  )
})
