/** What is worked out in the event loop, and what is left to threads. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { SharedMemoryTree } from '../../test/support/memory-tree.ts'
import { sumsOf } from '../../test/support/receiver.ts'
import { memoryKept, SEED } from '../../test/support/session.ts'
import { randomBytes } from '../../test/support/tree.ts'
import { StoreCorrupt } from '../errors.ts'
import { Derived } from './derived.ts'
import { type BlockSumRule, createBlockSum, fileDigest } from './digests.ts'
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

const signal = new AbortController().signal
const file = (data: Buffer) => ({ mode: 0o100644, data })

test('a file of more pieces than a delta is worth is sent whole', async () => {
  const data = Buffer.alloc(2_000_001)
  const tree = new OpenedTree({ mode: 0o40755, children: { f: file(data) } })
  const bytes = sumsOf(Buffer.from([1]), 1, 2, createBlockSum(RULE))
  assert.equal(await derived.delta(tree, 1, bytes, RULE, false, signal), undefined)
  tree.close()
})

test('equal questions at the same time are one search, and each difference is another', async () => {
  const basis = randomBytes(1, 100_000)
  const tree = new OpenedTree({
    mode: 0o40755,
    children: { f: file(basis), g: file(randomBytes(2, 100_000)) },
  })
  const strongOf = createBlockSum(RULE)
  const sums = sumsOf(basis, 700, 8, strongOf)
  const { head } = sums
  const weak = Uint32Array.from(sums.weak, (sum, k) => (k === 3 ? sum ^ 1 : sum))
  const strong = Uint8Array.from(sums.strong, (byte, i) => (i === 30 ? byte ^ 1 : byte))
  const search = (
    node = 1,
    other: Partial<typeof sums> = {},
    rule: BlockSumRule = RULE,
    inplace = false,
  ): ReturnType<Derived['delta']> => derived.delta(tree, node, { ...sums, ...other }, rule, inplace, signal)
  const asked: readonly (() => ReturnType<Derived['delta']>)[] = [
    () => search(),
    () => search(2),
    () => search(1, { weak }),
    () => search(1, { strong }),
    () => search(1, { head: { ...head, remainder: head.remainder + 1 } }),
    () => search(1, { head: { ...head, blockLength: 701 } }),
    () => search(1, {}, { ...RULE, seed: 1 }),
    () => search(1, {}, { ...RULE, seedFirst: false }),
    () => search(1, {}, { ...RULE, name: 'sha1' }),
    () => search(1, {}, RULE, true),
  ]
  await Promise.all(asked.flatMap((one) => [one(), one()]))
  assert.equal(tree.opened, asked.length)
  tree.close()
})

test('digests are kept by what they are of and how they are made; those of a client’s own seed are not', async () => {
  const contents = [
    randomBytes(3, 500),
    randomBytes(4, 500),
    randomBytes(5, 100_000),
    randomBytes(6, 100_000),
  ]
  const children = Object.fromEntries(contents.map((data, n) => [`f${n}`, file(data)]))
  const tree = new OpenedTree({ mode: 0o40755, children })
  const kept = memoryKept()
  const [first, second] = [0, 1].map(() => new Derived({ kept, checksumSeed: SEED })) as [Derived, Derived]
  for (const [n, data] of contents.entries())
    for (const [name, seed, isKept] of [
      ['sha1', SEED, true],
      ['md4-seeded', SEED, true],
      ['md4-seeded', SEED + 1, false],
      ['xxh64', SEED, true],
    ] as const) {
      const right = Buffer.from(fileDigest(name, seed, [data]))
      assert.equal(first.knownDigest(tree, n + 1, name, seed), undefined)
      assert.deepEqual(Buffer.from(await first.digest(tree, n + 1, name, seed, signal)), right)
      const known = second.knownDigest(tree, n + 1, name, seed)
      assert.deepEqual(known && Buffer.from(known), isKept ? right : undefined, `${name} of ${seed}`)
    }
  for (const each of [first, second]) await each.close()
  tree.close()
})

test('nothing is said of a content that is not what it was, whether all of it is asked for or its end', async () => {
  for (const size of [5000, 100_000]) {
    const data = randomBytes(7, size)
    const tree = new OpenedTree({ mode: 0o40755, children: { f: file(data) } })
    tree.digest = (_, kind) => (kind === 'xxh128' ? Buffer.alloc(16) : undefined)
    await assert.rejects(async () => derived.digest(tree, 1, 'sha1', SEED, signal), StoreCorrupt)
    await assert.rejects(derived.tailDigest(tree, 1, 4000, 'md5', SEED, signal), StoreCorrupt)
    assert.equal(derived.knownDigest(tree, 1, 'sha1', SEED), undefined)
    tree.close()
  }
})
