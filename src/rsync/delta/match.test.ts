import assert from 'node:assert/strict'
import { hash, randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { fromHex } from '../../../test/support/hex.ts'
import { fc } from '../../../test/support/property.ts'
import { apply, applyInPlace, sumsOf } from '../../../test/support/receiver.ts'
import {
  type BlockSumRule,
  createBlockSum,
  DIGEST_LENGTH,
  type DigestName,
  prepareBlockSum,
} from '../digests.ts'
import { type BlockSums, type Delta, type MatchSource, matchBlocks, weakSum } from './match.ts'

const md5 = (block: Uint8Array): Uint8Array => hash('md5', block, 'buffer')
const sourceOf = (data: Uint8Array): MatchSource => ({
  size: data.length,
  read: (target, position) => {
    assert.ok(position >= 0 && position + target.length <= data.length, 'asked for what is not there')
    target.set(data.subarray(position, position + target.length))
  },
})

const literalBytes = (delta: Delta): number => delta.reduce((sum, step) => sum + Math.max(0, step), 0)

// ---------------------------------------------------------------------------------------------------

for (const { hex, sum } of [
  { hex: '', sum: 0 },
  { hex: '61', sum: 0x00610061 },
  { hex: '616263', sum: 0x024a0126 },
  { hex: 'ff8001', sum: 0xfefeff80 },
]) {
  test(`weak sum of ${hex || 'nothing'}, as in docs/rsync-protocol.md, section 8.4`, () => {
    const data = fromHex(hex)
    assert.equal(weakSum(data, 0, data.length), sum)
    assert.equal(weakSum(fromHex(`aa${hex}bb`), 1, 1 + data.length), sum)
  })
}

const block = (letter: string): string => letter.repeat(8)
const [A, B, C, D, X] = ['a', 'b', 'c', 'd', 'x'].map(block) as [string, string, string, string, string]

/** Blocks of 8 bytes. Numbers as in the token stream: literal bytes, or -(k+1) for block k. */
const DELTAS: readonly { name: string; basis: string; target: string; delta: Delta; inplace?: Delta }[] = [
  { name: 'equal files', basis: A + B + C, target: A + B + C, delta: [-1, -2, -3] },
  { name: 'no basis', basis: '', target: A, delta: [8] },
  { name: 'an empty target', basis: A, target: '', delta: [] },
  { name: 'nothing in common', basis: A, target: X + X, delta: [16] },
  { name: 'something in front', basis: A + B, target: `zz${A}${B}`, delta: [2, -1, -2], inplace: [18] },
  {
    name: 'something in between',
    basis: A + B,
    target: `${A}zzz${B}`,
    delta: [-1, 3, -2],
    inplace: [-1, 11],
  },
  { name: 'something behind', basis: A + B, target: `${A}${B}z`, delta: [-1, -2, 1] },
  { name: 'something gone', basis: A + B + C, target: A + C, delta: [-1, -3] },
  { name: 'blocks swapped', basis: A + B, target: B + A, delta: [-2, -1], inplace: [-2, 8] },
  { name: 'a shorter last block', basis: `${A}tail`, target: `${X}tail`, delta: [8, -2], inplace: [8, -2] },
  { name: 'a shorter last block matches the tail alone', basis: `${A}tail`, target: `tail${X}`, delta: [12] },
  { name: 'a shorter last block alone', basis: 'tail', target: 'tail', delta: [-1] },
  { name: 'a target shorter than a block', basis: A, target: 'aaaa', delta: [4] },
  { name: 'a target of one block', basis: B + A, target: A, delta: [-2] },
  { name: 'one block many times', basis: A + B, target: A + A + B + A, delta: [-1, -1, -2, -1] },
  { name: 'of equal blocks the next one', basis: A + C + A + D, target: A + D, delta: [-1, -4] },
  {
    name: 'one byte changed in the middle block',
    basis: A + B + C,
    target: `${A}bbbbbbbB${C}`,
    delta: [-1, 8, -3],
  },
]
for (const { name, basis, target, delta, inplace } of DELTAS) {
  test(`delta: ${name}`, () => {
    const [from, to] = [Buffer.from(basis), Buffer.from(target)]
    const sums = sumsOf(from, 8, 16)
    assert.deepEqual(matchBlocks(sourceOf(to), sums, md5, false), delta)
    assert.deepEqual(apply(delta, from, to, 8), to)
    const there = matchBlocks(sourceOf(to), sums, md5, true)
    assert.deepEqual(applyInPlace(there, from, to, 8), to)
    if (inplace) assert.deepEqual(there, inplace)
  })
}

// ---------------------------------------------------------------------------------------------------
// Any basis, any edits, any lengths.

const edits = fc.array(
  fc.record({
    type: fc.constantFrom('insert', 'delete', 'copy', 'flip', 'swap'),
    at: fc.nat(),
    from: fc.nat(),
    length: fc.integer({ min: 1, max: 300 }),
  }),
  { maxLength: 6 },
)

function edit(
  basis: Buffer,
  all: readonly { type: string; at: number; from: number; length: number }[],
): Buffer {
  let data = basis
  for (const { type, at, from, length } of all) {
    const a = at % (data.length + 1)
    const b = from % (data.length + 1)
    const piece = data.subarray(b, b + length)
    if (type === 'insert')
      data = Buffer.concat([data.subarray(0, a), Buffer.alloc(length, at & 0xff), data.subarray(a)])
    if (type === 'copy') data = Buffer.concat([data.subarray(0, a), piece, data.subarray(a)])
    if (type === 'delete') data = Buffer.concat([data.subarray(0, a), data.subarray(a + length)])
    if (type === 'swap') data = Buffer.concat([data.subarray(a), data.subarray(0, a)])
    if (type === 'flip' && a < data.length) {
      data = Buffer.from(data)
      data[a]! ^= 0x80
    }
  }
  return data
}

/** Few different bytes, so that blocks repeat and weak sums collide; or random ones. */
const bases = fc.oneof(
  fc.uint8Array({ maxLength: 2000 }),
  fc.array(fc.constantFrom(0, 1, 0x80, 0xff), { maxLength: 2000 }).map((bytes) => Uint8Array.from(bytes)),
  fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 20 }), fc.nat(100))
    .map(([piece, times]) => Buffer.alloc(piece.length * times, piece)),
)

test('a delta applied to its basis gives the target, beside it and in place', () => {
  const property = fc.property(
    bases,
    edits,
    fc.integer({ min: 1, max: 120 }),
    fc.integer({ min: 4, max: 16 }),
    (bytes, all, blockLength, strongLength) => {
      const basis = Buffer.from(bytes)
      const target = edit(basis, all)
      const sums = sumsOf(basis, blockLength, strongLength)
      const delta = matchBlocks(sourceOf(target), sums, md5, false)
      assert.deepEqual(apply(delta, basis, target, blockLength), target)
      assert.ok(
        delta.every((step, i) => step !== 0 && !(step > 0 && delta[i - 1]! > 0)),
        'runs are joined',
      )
      const there = matchBlocks(sourceOf(target), sums, md5, true)
      assert.deepEqual(applyInPlace(there, basis, target, blockLength), target)
    },
  )
  fc.assert(property, { numRuns: 3000 })
})

const DIGESTS: readonly DigestName[] = ['xxh128', 'xxh3', 'xxh64', 'md5', 'md4', 'md4-seeded', 'sha1']
for (const name of DIGESTS) {
  test(`by ${name}: any seed, any strong length gives the target`, async () => {
    const property = fc.asyncProperty(
      bases,
      edits,
      fc.integer({ min: 1, max: 120 }),
      // Two bytes may be wrong by chance: the client redoes a file then. Five are as good as never.
      fc.integer({ min: 5, max: DIGEST_LENGTH[name] }),
      fc.constantFrom(0, 1, -1, 0x12345678),
      fc.boolean(),
      async (bytes, all, blockLength, strongLength, seed, seedFirst) => {
        const rule: BlockSumRule = { name, seed, seedFirst }
        await prepareBlockSum(rule)
        const strongOf = createBlockSum(rule)
        const basis = Buffer.from(bytes)
        const target = edit(basis, all)
        const sums = sumsOf(basis, blockLength, strongLength, strongOf)
        const delta = matchBlocks(sourceOf(target), sums, strongOf, false)
        assert.deepEqual(apply(delta, basis, target, blockLength), target)
        const there = matchBlocks(sourceOf(target), sums, strongOf, true)
        assert.deepEqual(applyInPlace(there, basis, target, blockLength), target)
      },
    )
    await fc.assert(property, { numRuns: 300 })
  })
}

test('what is not changed is found again', () => {
  const property = fc.property(
    fc.integer({ min: 1, max: 64 }),
    fc.nat(),
    fc.nat(500),
    (blocks, seed, extra) => {
      const basis = Buffer.from(hash('sha512', String(seed), 'buffer').toString('hex').repeat(blocks))
      for (let i = 0; i < basis.length; i += 64) hash('md5', `${seed}:${i}`, 'buffer').copy(basis, i)
      const at = seed % (basis.length + 1)
      const target = Buffer.concat([basis.subarray(0, at), Buffer.alloc(extra, 7), basis.subarray(at)])
      const delta = matchBlocks(sourceOf(target), sumsOf(basis, 32, 16), md5, false)
      assert.ok(
        literalBytes(delta) <= extra + 2 * 32,
        `${literalBytes(delta)} literal bytes for ${extra} new ones`,
      )
    },
  )
  fc.assert(property, { numRuns: 300 })
})

// ---------------------------------------------------------------------------------------------------
// The window on the new file is 1 MiB and two blocks.

const MIB = 1 << 20
for (const blockLength of [700, 1024, 131072]) {
  for (const size of [
    MIB - 1,
    MIB,
    MIB + blockLength,
    MIB + 2 * blockLength - 1,
    MIB + 2 * blockLength,
    MIB + 2 * blockLength + 1,
    2 * MIB + 3 * blockLength + 17,
  ]) {
    test(`window: ${size} bytes, blocks of ${blockLength}`, () => {
      const basis = randomBytes(size)
      const sums = sumsOf(basis, blockLength, 8)
      const equal = matchBlocks(sourceOf(basis), sums, md5, false)
      assert.deepEqual(
        equal,
        Array.from({ length: sums.head.count }, (_, k) => -(k + 1)),
      )
      const shifted = Buffer.concat([Buffer.from('x'), basis.subarray(0, size - 1)])
      const delta = matchBlocks(sourceOf(shifted), sums, md5, false)
      assert.deepEqual(apply(delta, basis, shifted, blockLength), shifted)
      assert.ok(literalBytes(delta) <= 1 + 2 * blockLength, `${literalBytes(delta)} literal bytes`)
      // One match at the far end of what the window first holds.
      const late = Buffer.concat([Buffer.alloc(size, 1), basis.subarray(0, blockLength)])
      assert.deepEqual(matchBlocks(sourceOf(late), sums, md5, false).at(-1), -1)
    })
  }
}

// ---------------------------------------------------------------------------------------------------
// Bounded work: whatever a client sends, a search costs little more than an honest one.

/** Runs a search; counts the bytes that went through the strong sum, and what it cost our thread. */
function cost(
  target: Uint8Array,
  sums: BlockSums,
  inplace = false,
): { ms: number; hashed: number; delta: Delta } {
  let hashed = 0
  const began = process.threadCpuUsage()
  const delta = matchBlocks(
    sourceOf(target),
    sums,
    (block) => {
      hashed += block.length
      return md5(block)
    },
    inplace,
  )
  const { user, system } = process.threadCpuUsage(began)
  return { ms: (user + system) / 1000, hashed, delta }
}

/**
 * What a search costs that finds nothing, and has nothing to look at closely: one pass over a mebibyte. Over many
 * passes, since a kernel may count a thread's time in ticks.
 */
const honest = (): number => {
  const sums = sumsOf(randomBytes(MIB), 700, 2)
  const target = randomBytes(MIB)
  let passes = 0
  let ms = 0
  for (; ms < 50; passes++) ms += cost(target, sums).ms
  return ms / passes
}
/** So many passes a search may cost: VAIN_WORK, and the slower kind of step; without bounds it is thousands. */
const MOST_PASSES = 600

for (const inplace of [false, true]) {
  const where = inplace ? ' in place' : ''

  test(`bounded: all blocks equal${where}`, () => {
    const basis = Buffer.alloc(4 * MIB)
    const target = Buffer.concat([Buffer.alloc(3 * MIB), Buffer.from('x'), Buffer.alloc(MIB)])
    const { ms, hashed, delta } = cost(target, sumsOf(basis, 700, 2), inplace)
    assert.ok(hashed < 4 * target.length, `${hashed} bytes hashed`)
    assert.ok(ms < 5 * MOST_PASSES * honest(), `${ms} ms`)
    assert.ok(literalBytes(delta) < 2000)
  })

  test(`bounded: weak sums right everywhere and strong sums nowhere${where}`, () => {
    const target = Buffer.alloc(MIB)
    const sums = sumsOf(Buffer.alloc(MIB), 65536, 16)
    sums.strong.fill(0xee)
    const { ms, hashed, delta } = cost(target, sums, inplace)
    assert.ok(hashed <= 64 * target.length, `${hashed} bytes hashed`)
    assert.ok(ms < MOST_PASSES * honest(), `${ms} ms`)
    assert.deepEqual(delta, [MIB])
  })

  test(`bounded: many different blocks of one weak sum${where}`, () => {
    const target = Buffer.alloc(MIB)
    const count = 60_000
    const sums: BlockSums = {
      head: { count, blockLength: 700, strongLength: 4, remainder: 0 },
      weak: new Uint32Array(count),
      strong: new Uint8Array(count * 4),
    }
    new DataView(sums.strong.buffer).setUint32(0, 1)
    for (let k = 0; k < count; k++) new DataView(sums.strong.buffer).setUint32(4 * k, k + 1)
    const { ms } = cost(target, sums, inplace)
    assert.ok(ms < MOST_PASSES * honest(), `${ms} ms`)
  })
}

test('bounded: more blocks than the file has bytes', () => {
  const count = 1_000_000
  const sums: BlockSums = {
    head: { count, blockLength: 1, strongLength: 2, remainder: 0 },
    weak: new Uint32Array(count).map((_, k) => k),
    strong: new Uint8Array(count * 2),
  }
  const { ms } = cost(Buffer.from('abc'), sums)
  assert.ok(ms < MOST_PASSES * honest(), `${ms} ms`)
})
