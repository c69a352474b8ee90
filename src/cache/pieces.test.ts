import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PieceMemory, Pieces } from './pieces.ts'

const PIECE = 512 * 1024

test('what is written in a row lies in a row, and a piece is filled to its last byte and no further', () => {
  const pieces = new Pieces(new PieceMemory())
  for (const [byte, size] of [PIECE - 10, 10, PIECE - 10, 11, PIECE + 1, 1].entries()) {
    const room = pieces.room(size)
    assert.equal(room.length, size)
    room.fill(byte)
  }
  const filled = pieces.filled()
  assert.deepEqual(
    filled.map(({ length }) => length),
    [PIECE, PIECE - 10, 11, PIECE + 1, 1],
  )
  assert.deepEqual([filled[0]![PIECE - 11], filled[0]![PIECE - 10]], [0, 1])
})

test('memory is used again, but for what is larger than most and more than a few pieces', () => {
  const memory = new PieceMemory()
  const taken = Array.from({ length: 5 }, () => memory.take(1))
  const large = memory.take(PIECE + 1)
  for (const each of [large, ...taken]) memory.give(each)
  const again = new Set(Array.from({ length: 5 }, () => memory.take(1).buffer))
  assert.equal(taken.filter(({ buffer }) => again.has(buffer)).length, 4)
  assert.ok(!again.has(large.buffer))
})
