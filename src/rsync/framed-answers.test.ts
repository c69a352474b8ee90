/** Frames over several files, as sessions side by side go through them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { memoryKept } from '../../test/support/session.ts'
import { randomBytes } from '../../test/support/tree.ts'
import { createFrame, type FrameCompressor } from './codecs.ts'
import { FramedAnswers, type FramedQuestion, type FrameManner, isFramed } from './framed-answers.ts'
import type { FrameState } from './frames.ts'

const FILE = 50_000
const signal = new AbortController().signal

test('who comes to a place while another compresses there goes on with him', async () => {
  const children = { a: file(1), b: file(2) }
  const tree = new MemoryTree({ mode: 0o40755, children })
  const answers = new FramedAnswers(memoryKept())
  const { promise: gate, resolve: open } = Promise.withResolvers<void>()
  let created = 0
  const manner: FrameManner = {
    quality: 'quick',
    create: () => {
      created++
      const frame = createFrame(undefined)
      let added = 0
      return {
        add: async (bytes, last) => {
          if (added++ > 0) await gate
          return frame.add(bytes, last)
        },
        close: () => frame.close(),
      } satisfies FrameCompressor
    },
  }
  const next = async (node: number, state: FrameState | undefined): Promise<FrameState | undefined> => {
    const answer = await answers.find(questionOf(tree, node), state, manner, signal)
    assert.ok(isFramed(answer))
    return answer.step.next
  }
  const state = await next(1, undefined)
  assert.ok(state)
  const first = next(2, state)
  await new Promise(setImmediate)
  const second = next(2, state)
  await new Promise(setImmediate)
  open()
  assert.deepEqual((await second)?.id, (await first)?.id)
  assert.equal(created, 1)
  answers.leave(await first)
  tree.close()
})

function file(seed: number) {
  return { mode: 0o100644, data: randomBytes(seed, FILE) }
}

/** Of a client that has nothing. */
function questionOf(tree: MemoryTree, node: number): FramedQuestion {
  return {
    ...{ tree, node, head: undefined, key: Buffer.alloc(16, node) },
    whole: async () => undefined,
    delta: async () => [FILE],
    compose: () => assert.fail('it belongs into a frame'),
  }
}
