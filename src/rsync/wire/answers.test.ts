import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fc } from '../../../test/support/property.ts'
import { type Answer, type AnswerPart, decodeAnswer, encodeAnswer } from './answers.ts'

const size = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })
const part: fc.Arbitrary<AnswerPart> = fc.oneof(
  fc.record({ type: fc.constant('bytes' as const), bytes: fc.uint8Array({ maxLength: 300 }) }),
  fc.record({ type: fc.constant('plain' as const), from: size, length: size }),
  fc.record({
    type: fc.constant('piece' as const),
    from: size,
    length: size,
    last: fc.boolean(),
    history: fc.nat(40_000),
    key: fc.uint8Array({ minLength: 16, maxLength: 16 }),
  }),
)
const answer: fc.Arbitrary<Answer> = fc.record({
  complete: fc.boolean(),
  matched: size,
  literal: size,
  parts: fc.array(part, { maxLength: 8 }),
})

test('every answer comes back as it was', () => {
  fc.assert(
    fc.property(answer, (value) => {
      assert.deepEqual(plain(decodeAnswer(encodeAnswer(value))), plain(value))
    }),
  )
})

test('what another version wrote is not taken for an answer', () => {
  assert.equal(decodeAnswer(Uint8Array.of(1, 0, 0, 0)), undefined)
  assert.equal(decodeAnswer(Uint8Array.of(2, 0, 0, 0, 9)), undefined)
  assert.equal(decodeAnswer(new Uint8Array(0)), undefined)
})

/** Buffers and plain arrays of equal bytes count as equal. */
function plain(value: Answer | undefined): unknown {
  const numbers = (bytes: Uint8Array): number[] => [...bytes]
  return {
    ...value,
    parts: value?.parts.map((part) => {
      if (part.type === 'bytes') return { ...part, bytes: numbers(part.bytes) }
      return part.type === 'piece' ? { ...part, key: numbers(part.key) } : { ...part }
    }),
  }
}
