/** Attacks by requests: block sums that lie about their number, cost a search its time, or never end. */
import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { test } from 'node:test'
import { type BlockSums, matchBlocks, weakSum } from '../../src/rsync/delta/match.ts'
import {
  framed,
  item,
  NO_FILTERS,
  SAME_ITEM,
  start,
  sumHead,
  testAttacks,
  worked,
} from '../support/hostile.ts'

const GOODBYE = Buffer.from('0000000000', 'hex')
const hex = (digits: string): Buffer => Buffer.from(digits.replaceAll(' ', ''), 'hex')

testAttacks([
  {
    name: 'blocks of length 0',
    says: (server) => [
      start('-r', '.', 'm/'),
      framed(NO_FILTERS, item(server.ndx('large')), sumHead(3, 0, 16)),
    ],
    outcome: 'peer-error',
    error: /3 blocks of length 0/,
  },
  {
    name: '2^31 blocks announced, then nothing',
    says: (server) => [
      start('-r', '.', 'm/'),
      framed(NO_FILTERS, item(server.ndx('large')), sumHead(2 ** 31 - 1, 700, 20)),
    ],
    outcome: 'lost',
  },
  {
    name: '2^31 blocks announced, some megabytes sent',
    says: (server) => [
      start('-r', '.', 'm/'),
      framed(NO_FILTERS, item(server.ndx('large')), sumHead(2 ** 31 - 1, 700, 20), Buffer.alloc(30e6)),
    ],
    outcome: 'lost',
  },
  {
    name: 'a number of blocks whose sums overflow 32 bits',
    // 178,956,971 sums of 24 bytes are 2^32 + 8 bytes: counted in 32 bits, 8.
    says: (server) => [
      start('-r', '.', 'm/'),
      framed(NO_FILTERS, item(server.ndx('large')), sumHead(178_956_971, 700, 20), Buffer.alloc(8), GOODBYE),
    ],
    outcome: 'lost',
  },
  ...[
    { what: '-1 blocks', head: [-1, 700, 2] },
    { what: 'a negative block length', head: [1, -1, 2], error: /block length -1/ },
    { what: 'a block of a gigabyte', head: [1, 2 ** 30, 2], error: /block length/ },
    { what: 'a strong sum of 21 bytes', head: [1, 700, 21], error: /21 bytes of strong sum/ },
    { what: 'a remainder longer than a block', head: [1, 700, 2, 701], error: /remainder 701/ },
    { what: 'a remainder of no block', head: [0, 700, 2, 700], error: /no blocks, and a remainder 700/ },
    { what: 'a negative remainder', head: [1, 700, 2, -1], error: /remainder -1/ },
  ].map(({ what, head, error = /-1 blocks/ }) => ({
    name: what,
    says: (server: { ndx(name: string): number }) => [
      start('-r', '.', 'm/'),
      framed(NO_FILTERS, item(server.ndx('large')), sumHead(...(head as [number, number, number]))),
    ],
    outcome: 'peer-error' as const,
    error,
  })),
  {
    name: 'bytes from before the file, by --append to a basis of less than none',
    says: (server) => [
      start('-r', '--append', '.', 'm/'),
      framed(NO_FILTERS, item(server.ndx('large')), sumHead(0, 100_000, 2, 100_000), GOODBYE),
    ],
    outcome: 'peer-error',
    holds: ({ report }) => assert.equal(report.figures.literalBytes, 0),
  },
  {
    name: 'more blocks than the file has bytes',
    says: (server) => {
      const sums = Buffer.alloc(600_000 * 5)
      for (let k = 0; k < 600_000; k++) sums.writeInt32LE(k, k * 5)
      return [
        start('-r', '.', 'm/'),
        framed(NO_FILTERS, item(server.ndx('a.txt')), sumHead(600_000, 1, 1), sums, GOODBYE),
      ]
    },
    outcome: 'done',
  },
  {
    name: 'weak sums that are right and strong ones that are wrong, everywhere',
    says: (server) => {
      const sums = Buffer.alloc(20 * 2, 0xee)
      for (let k = 0; k < 2; k++) sums.writeUInt32LE(weakSum(Buffer.alloc(30_000), 0, 30_000), k * 20)
      return [
        start('-r', '.', 'm/'),
        framed(NO_FILTERS, item(server.ndx('zeros')), sumHead(2, 30_000, 16), sums, GOODBYE),
      ]
    },
    outcome: 'done',
    passes: 100,
  },
  {
    name: 'a thousand different blocks of one weak sum',
    says: (server) => {
      const sums = Buffer.alloc(1000 * 8)
      for (let k = 0; k < 1000; k++) sums.writeUInt32LE(k + 1, k * 8 + 4)
      return [
        start('-r', '.', 'm/'),
        framed(NO_FILTERS, item(server.ndx('zeros')), sumHead(1000, 700, 4), sums, GOODBYE),
      ]
    },
    outcome: 'done',
    passes: 100,
  },
  {
    name: 'a file again and again, with sums',
    says: (server) => {
      const request = Buffer.concat([sumHead(40, 1000, 16), Buffer.alloc(40 * 20, 0x55)])
      return [
        start('-r', '.', 'm/'),
        framed(
          NO_FILTERS,
          item(server.ndx('zeros')),
          request,
          ...Array.from({ length: 300 }, () => Buffer.concat([SAME_ITEM, request])),
          GOODBYE,
        ),
      ]
    },
    outcome: 'done',
    passes: 500,
  },
  {
    name: 'a large file again and again, while the client goes',
    says: (server) => {
      const request = Buffer.concat([sumHead(100, 1000, 16), Buffer.alloc(100 * 20, 0x55)])
      return [
        start('-r', '.', 'm/'),
        framed(
          NO_FILTERS,
          item(server.ndx('large')),
          request,
          ...Array.from({ length: 100 }, () => Buffer.concat([SAME_ITEM, request])),
        ),
      ]
    },
    outcome: 'lost',
  },
  {
    name: 'the name of a basis that is too long',
    says: () => [start('-r', '.', 'm/'), framed(NO_FILTERS, hex('03 0090 ffff'))],
    outcome: 'peer-error',
    error: /vstring/,
  },
  {
    name: 'an index beyond the list',
    says: () => [start('-r', '.', 'm/'), framed(NO_FILTERS, hex('fe 0fff 00a0'))],
    outcome: 'peer-error',
    error: /ndx: 4094 of \d+/,
  },
  {
    name: 'an index that means nothing here',
    says: () => [start('-r', '.', 'm/'), framed(NO_FILTERS, hex('ff 64'))],
    outcome: 'peer-error',
    error: /ndx: -101/,
  },
  {
    name: 'an index that runs over 31 bits',
    says: () => [start('-n', '.', 'm/a.txt'), framed(NO_FILTERS, hex('fe ff ff ff ff 00a0'))],
    outcome: 'peer-error',
    error: /ndx/,
  },
  {
    name: 'the data of a directory',
    says: (server) => [start('-r', '.', 'm/'), framed(NO_FILTERS, item(server.ndx('sub')), sumHead(0, 0, 0))],
    outcome: 'peer-error',
    error: /asks for the data of sub, which is no regular file/,
  },
  {
    name: 'the data of a symbolic link',
    says: (server) => [
      start('-rl', '.', 'm/'),
      framed(NO_FILTERS, item(server.ndx('link')), sumHead(0, 0, 0)),
    ],
    outcome: 'peer-error',
    error: /asks for the data of link, which/,
  },
  {
    name: 'the value of an attribute that is not there',
    says: (server) => [
      start('-rX', '.', 'm/'),
      framed(NO_FILTERS, Buffer.from([server.ndx('a.txt') + 1, 0x00, 0x81, 9, 0])),
    ],
    outcome: 'peer-error',
    error: /xattr-request: attribute 9 of \d/,
  },
  {
    name: 'the same attribute twice',
    says: (server) => [
      start('-rX', '.', 'm/'),
      framed(NO_FILTERS, Buffer.from([server.ndx('a.txt') + 1, 0x00, 0x81]), hex('01 f0ffffffff 00')),
    ],
    outcome: 'peer-error',
    error: /xattr-request/,
  },
  {
    name: 'attributes without end, a frame for each byte',
    says: (server) => [
      start('-rX', '.', 'm/'),
      framed(NO_FILTERS, Buffer.from([server.ndx('a.txt') + 1, 0x00, 0x81])),
      Buffer.alloc(5e5, hex('01000007 01')),
    ],
    outcome: 'peer-error',
    error: /xattr-request/,
  },
  {
    name: 'deletion statistics without end',
    says: () => [
      start('-r', '.', 'm/'),
      framed(NO_FILTERS, hex('ff02'), Buffer.alloc(6e5, hex('00 00 00 00 00 fffe0000'))),
    ],
    outcome: 'lost',
  },
])

// ---------------------------------------------------------------------------------------------------
// The search itself, beside one over content where nothing repeats.

const SIZE = 1 << 20
const md5 = (block: Uint8Array): Uint8Array => hash('md5', block, 'buffer')

function sumsOf(basis: Uint8Array, blockLength: number): BlockSums {
  const count = Math.floor(basis.length / blockLength)
  const head = { count, blockLength, strongLength: 2, remainder: 0 }
  const sums: BlockSums = { head, weak: new Uint32Array(count), strong: new Uint8Array(2 * count) }
  for (let k = 0; k < count; k++) {
    const block = basis.subarray(k * blockLength, (k + 1) * blockLength)
    sums.weak[k] = weakSum(block, 0, block.length)
    sums.strong.set(md5(block).subarray(0, 2), 2 * k)
  }
  return sums
}

/** Our thread's time for a search, in ms: the best of two. */
function cost(target: Uint8Array, sums: BlockSums, inplace: boolean): number {
  const source = {
    size: target.length,
    read: (into: Uint8Array, at: number) => into.set(target.subarray(at, at + into.length)),
  }
  const times = [0, 1].map(() => {
    const began = worked()
    matchBlocks(source, sums, md5, inplace)
    return worked() - began
  })
  return Math.min(...times)
}

/** Text that never repeats, and a basis that has nothing of it: one pass of the rolling sum. */
const unlike = (label: string): Buffer =>
  Buffer.concat(Array.from({ length: SIZE / 64 }, (_, i) => hash('sha512', `${label} ${i}`, 'buffer')))
const honest = unlike('target')
/** Over many passes, since a kernel may count a thread's time in ticks. */
const baseline = ((): number => {
  const sums = sumsOf(unlike('basis'), 700)
  const began = worked()
  let passes = 0
  for (; worked() - began < 50; passes++) cost(honest, sums, false)
  return (worked() - began) / passes / 2
})()

const equal = Buffer.alloc(SIZE, 0x41)
const shifted = Buffer.concat([Buffer.from('x'), equal.subarray(0, SIZE - 1)])
/** Blocks of one weak sum that differ: bytes in another order whose sums cancel out. */
const collisions = (blockLength: number): Buffer => {
  const basis = Buffer.alloc(SIZE, 0x41)
  for (let k = 0; (k + 1) * blockLength <= SIZE; k++) {
    // +1, -2, +1 at three bytes in a row leaves both halves of the weak sum as they are.
    const at = k * blockLength + (k % (blockLength - 3))
    basis[at]! += 1
    basis[at + 1]! -= 2
    basis[at + 2]! += 1
  }
  return basis
}
const SEARCHES = [
  { name: 'an image of equal blocks', target: shifted, sums: sumsOf(equal, 700) },
  { name: 'an image of equal tiny blocks', target: shifted, sums: sumsOf(equal, 16) },
  { name: 'different blocks of one weak sum', target: equal, sums: sumsOf(collisions(700), 700) },
  {
    name: 'weak sums that are right everywhere and strong ones that never are',
    target: equal,
    sums: { ...sumsOf(equal, 700), strong: new Uint8Array((2 * SIZE) / 700).fill(0xee) },
  },
]
for (const { name, target, sums } of SEARCHES) {
  for (const inplace of [false, true]) {
    test(`attack: quadratic search by ${name}${inplace ? ', in place' : ''}`, () => {
      const ratio = cost(target, sums, inplace) / baseline
      assert.ok(ratio < MOST_TIMES, `${ratio.toFixed(1)} times an honest search`)
    })
  }
}
/**
 * Each byte may be paid for 32 times over (VAIN_WORK), with hashes that cost twice what a pass of the rolling sum does:
 * 60 was measured. A search without that bound takes thousands.
 */
const MOST_TIMES = 200
