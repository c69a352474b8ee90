/** What is worked out in the event loop, and what is left to threads. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { SharedMemoryTree } from '../../test/support/memory-tree.ts'
import { sumsOf } from '../../test/support/receiver.ts'
import { memoryKept, SEED } from '../../test/support/session.ts'
import { Derived } from './derived.ts'
import { createBlockSum } from './digests.ts'
import type { Content } from './tree.ts'

const RULE = { name: 'md5', seed: SEED, seedFirst: true } as const
const derived = new Derived({ kept: memoryKept(), checksumSeed: SEED })
after(() => derived.close())

/** What is read at once is copied; only a thread needs a file to be open. */
class OpenedTree extends SharedMemoryTree {
  opened = 0

  override open(node: number): Promise<Content> {
    this.opened++
    return super.open(node)
  }
}

test('a small file is searched at once, unless its blocks are so small that they may be found at every byte', async () => {
  const data = Buffer.alloc(60_000)
  const tree = new OpenedTree({ mode: 0o40755, children: { f: { mode: 0o100644, data } } })
  const signal = new AbortController().signal
  const strongOf = createBlockSum(RULE)
  await derived.delta(tree, 1, sumsOf(data, 700, 2, strongOf), RULE, false, signal)
  assert.equal(tree.opened, 0)
  const everyByte = sumsOf(Buffer.from([0, 1, 2, 3]), 1, 1, strongOf)
  const delta = await derived.delta(tree, 1, everyByte, RULE, false, signal)
  assert.equal(delta?.length, data.length)
  assert.equal(tree.opened, 1)
  tree.close()
})

test('a digest that no build knows is asked of what is kept once, but for a seed that one client brought', async () => {
  const data = Buffer.from('some content')
  const tree = new SharedMemoryTree({ mode: 0o40755, children: { f: { mode: 0o100644, data } } })
  const kept = memoryKept()
  let asked = 0
  const get = (key: Uint8Array) => {
    asked++
    return kept.get(key)
  }
  const { signal } = new AbortController()
  const worked = new Derived({ kept, checksumSeed: SEED })
  const expected = await worked.digest(tree, 1, 'md4-seeded', SEED, signal)
  const other = await worked.digest(tree, 1, 'md4-seeded', SEED + 1, signal)
  assert.notDeepEqual(other, expected)

  const derived = new Derived({ kept: { ...kept, get }, checksumSeed: SEED })
  for (let client = 0; client < 3; client++) {
    assert.deepEqual(Buffer.from(derived.knownDigest(tree, 1, 'md4-seeded', SEED)!), Buffer.from(expected))
    assert.equal(asked, 1)
    assert.equal(derived.knownDigest(tree, 1, 'md4-seeded', SEED + 1), undefined)
  }
  assert.deepEqual(await derived.digest(tree, 1, 'md4-seeded', SEED + 1, signal), other)
  assert.equal(asked, 1)
  tree.close()
  for (const one of [worked, derived]) await one.close()
})
