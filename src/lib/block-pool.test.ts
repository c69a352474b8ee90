import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { type BlockFile, BlockPool, nextFileId } from './block-pool.ts'

/** A file in memory that counts how often it is read. */
class MemoryFile implements BlockFile {
  readonly id = nextFileId()
  bytes: Buffer
  reads = 0

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  async read(targets: readonly Uint8Array[], position: number): Promise<number> {
    this.reads++
    let got = 0
    for (const target of targets) {
      const piece = this.bytes.subarray(position + got, position + got + target.length)
      target.set(piece)
      got += piece.length
    }
    return got
  }
}

const BLOCK = 65_536

async function read(pool: BlockPool, file: BlockFile, offset: number, length: number): Promise<Buffer> {
  const target = Buffer.alloc(length)
  await pool.copy(file, offset, target)
  return target
}

test('any range is what the file holds, and comes at once the second time', async () => {
  const file = new MemoryFile(randomBytes(10 * BLOCK + 100))
  const pool = new BlockPool(64 * BLOCK)
  const ranges = [
    [0, 0],
    [0, 1],
    [BLOCK - 1, 2],
    [5, 3 * BLOCK],
    [10 * BLOCK, 100],
    [0, file.bytes.length],
  ] as const
  for (const [offset, length] of ranges) {
    const expected = file.bytes.subarray(offset, offset + length)
    assert.deepEqual(await read(pool, file, offset, length), expected)
    const again = Buffer.alloc(length)
    assert.equal(pool.copy(file, offset, again), undefined, 'nothing to wait for')
    assert.deepEqual(again, expected)
  }
})

test('many who ask for the same at the same time cost one read', async () => {
  const file = new MemoryFile(randomBytes(BLOCK))
  const pool = new BlockPool(64 * BLOCK)
  const all = await Promise.all(Array.from({ length: 50 }, () => read(pool, file, 10, 1000)))
  for (const bytes of all) assert.deepEqual(bytes, file.bytes.subarray(10, 1010))
  assert.equal(file.reads, 1)
})

test('a reader that goes on from block to block is read ahead of', async () => {
  const file = new MemoryFile(randomBytes(40 * BLOCK))
  const pool = new BlockPool(64 * BLOCK)
  for (let block = 0; block < 40; block++) await read(pool, file, block * BLOCK, BLOCK)
  assert.ok(file.reads <= 6, `${file.reads} reads`)
})

test('memory is bounded: a range larger than the pool is still right', async () => {
  const file = new MemoryFile(randomBytes(40 * BLOCK))
  const pool = new BlockPool(16 * BLOCK)
  assert.deepEqual(await read(pool, file, 0, 40 * BLOCK), file.bytes)
  await read(pool, file, 0, BLOCK)
  const { reads } = file
  await read(pool, file, 20 * BLOCK, 16 * BLOCK)
  await read(pool, file, 0, BLOCK)
  assert.ok(file.reads > reads + 1, 'the first block had to go')
})

test('a file that grows: bytes beyond what was there are read again', async () => {
  const whole = randomBytes(3 * BLOCK)
  const file = new MemoryFile(whole.subarray(0, 100))
  const pool = new BlockPool(64 * BLOCK)
  assert.deepEqual(await read(pool, file, 0, 100), whole.subarray(0, 100))
  await assert.rejects(async () => read(pool, file, 50, 100), RangeError)
  file.bytes = whole
  assert.deepEqual(await read(pool, file, 50, 2 * BLOCK), whole.subarray(50, 50 + 2 * BLOCK))
})

test('a forgotten file is read anew; an error reaches who asked and nobody later', async () => {
  const file = new MemoryFile(randomBytes(BLOCK))
  const pool = new BlockPool(64 * BLOCK)
  await read(pool, file, 0, 10)
  pool.forget(file)
  await read(pool, file, 0, 10)
  assert.equal(file.reads, 2)
  const broken: BlockFile = {
    id: 999,
    read: async () => {
      throw new Error('EIO')
    },
  }
  await assert.rejects(async () => read(pool, broken, 0, 10), /EIO/)
  await assert.rejects(async () => read(pool, broken, 0, 10), /EIO/)
})

test('many readers of many places in little memory: each gets its own bytes', async () => {
  const files = Array.from({ length: 5 }, () => new MemoryFile(randomBytes(30 * BLOCK)))
  const pool = new BlockPool(3 * BLOCK)
  await Promise.all(
    Array.from({ length: 50 }, async (_, client) => {
      for (let i = 0; i < 20; i++) {
        const file = files[(client + i) % 5]!
        const offset = ((client * 7919 + i * 104_729) % 29) * BLOCK + client
        const expected = file.bytes.subarray(offset, offset + 50_000)
        assert.deepEqual(await read(pool, file, offset, expected.length), expected)
      }
    }),
  )
})
