import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromHex, toHex } from '../../../test/support/hex.ts'
import { fc } from '../../../test/support/property.ts'
import { ByteWriter } from '../../lib/byte-writer.ts'
import { BlockRuns, encodeChunks, MAX_CHUNK } from './tokens.ts'

const consecutive = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => first + i)

/** docs/rsync-protocol.md, section 8.6. */
const RUNS: readonly { name: string; blocks: readonly number[]; hex: string }[] = [
  { name: 'no block', blocks: [], hex: '00' },
  { name: 'block 0 first', blocks: [0], hex: '80 00' },
  { name: 'block 5 first', blocks: [5], hex: '85 00' },
  { name: 'a run from 5 to 8', blocks: [5, 6, 7, 8], hex: 'c5 0300 00' },
  { name: 'the farthest near block', blocks: [63], hex: 'bf 00' },
  { name: 'the nearest far block', blocks: [64], hex: '20 40000000 00' },
  { name: 'a run from far away', blocks: [64, 65], hex: '21 40000000 0100 00' },
  { name: 'the same block again', blocks: [7, 7], hex: '87 80 00' },
  { name: 'the next block after a single one is a run', blocks: [0, 1], hex: 'c0 0100 00' },
  { name: 'distance is from the last block of a run', blocks: [0, 1, 2, 5], hex: 'c0 0200 83 00' },
  { name: 'backwards', blocks: [10, 9], hex: '8a 20 09000000 00' },
  { name: 'as many as one run holds', blocks: consecutive(0, 65536), hex: 'c0 ffff 00' },
  { name: 'one more', blocks: consecutive(0, 65537), hex: 'c0 ffff 81 00' },
  { name: 'two more', blocks: consecutive(0, 65538), hex: 'c0 ffff c1 0100 00' },
  { name: 'twice as many', blocks: consecutive(100, 131072), hex: '21 64000000 ffff c1 ffff 00' },
]
for (const { name, blocks, hex } of RUNS) {
  test(`block codes: ${name}`, () => {
    const out = new ByteWriter()
    const runs = new BlockRuns()
    for (const block of blocks) runs.add(out, block)
    runs.end(out)
    assert.equal(toHex(out.view()), toHex(fromHex(hex)))
  })
}

test('block codes: literal data ends a run', () => {
  const out = new ByteWriter()
  const runs = new BlockRuns()
  runs.add(out, 3)
  runs.flush(out)
  encodeChunks(out, fromHex('aabb'))
  runs.add(out, 4)
  runs.add(out, 5)
  runs.end(out)
  assert.equal(toHex(out.view()), toHex(fromHex('83 4002aabb c1 0100 00')))
})

for (const { length, heads } of [
  { length: 0, heads: [] },
  { length: 1, heads: ['4001'] },
  { length: 255, heads: ['40ff'] },
  { length: 256, heads: ['4100'] },
  { length: MAX_CHUNK, heads: ['7fff'] },
  { length: MAX_CHUNK + 1, heads: ['7fff', '4001'] },
  { length: 2 * MAX_CHUNK, heads: ['7fff', '7fff'] },
  { length: 40000, heads: ['7fff', '7fff', '5c42'] },
]) {
  test(`chunks: ${length} bytes`, () => {
    const data = Buffer.alloc(length, 0xee)
    const out = new ByteWriter()
    encodeChunks(out, data)
    const found: string[] = []
    const wire = out.take()
    for (let at = 0; at < wire.length; at += 2 + (wire.readUInt16BE(at) & 0x3fff)) {
      found.push(toHex(wire.subarray(at, at + 2)))
    }
    assert.deepEqual(found, heads)
    assert.equal(wire.length, length + 2 * heads.length)
  })
}

/** The receiving side, straight from the table of the document. */
function decodeBlocks(wire: Buffer): number[] {
  const blocks: number[] = []
  let last = 0
  const take = (first: number, further: number): void => {
    for (let k = 0; k <= further; k++) blocks.push(first + k)
    last = first + further
  }
  for (let at = 0; ; ) {
    const flag = wire[at++]!
    if (flag === 0) {
      assert.equal(at, wire.length)
      return blocks
    }
    if (flag >= 0xc0) {
      take(last + (flag & 0x3f), wire.readUInt16LE(at))
      at += 2
    } else if (flag >= 0x80) {
      take(last + (flag & 0x3f), 0)
    } else if (flag >= 0x40) {
      at += 1 + (((flag & 0x3f) << 8) | wire[at]!)
    } else if (flag === 0x20) {
      take(wire.readInt32LE(at), 0)
      at += 4
    } else {
      assert.equal(flag, 0x21)
      take(wire.readInt32LE(at), wire.readUInt16LE(at + 4))
      at += 6
    }
  }
}

test('block codes: any blocks come back in their order', () => {
  const stretch = fc.tuple(fc.oneof(fc.nat(200), fc.nat()), fc.integer({ min: 1, max: 40 }))
  const property = fc.property(fc.array(fc.tuple(stretch, fc.boolean())), (stretches) => {
    const out = new ByteWriter()
    const runs = new BlockRuns()
    const all: number[] = []
    for (const [[first, count], literalBehind] of stretches) {
      for (const block of consecutive(first, count)) {
        all.push(block)
        runs.add(out, block)
      }
      if (literalBehind) {
        runs.flush(out)
        encodeChunks(out, fromHex('c0ffee'))
      }
    }
    runs.end(out)
    assert.deepEqual(decodeBlocks(out.take()), all)
  })
  fc.assert(property, { numRuns: 500 })
})
