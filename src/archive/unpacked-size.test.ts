import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import { leastUnpackedBytes, saysAtItsEnd, TAIL_BYTES } from './unpacked-size.ts'

/** Long enough that every head that is looked at is there, and does not compress to nothing. */
const CONTENT = Buffer.from(randomBytes(150_000).toString('hex'))

function made(program: string, ...args: string[]): Buffer {
  const { status, stdout, stderr } = spawnSync(program, args, { input: CONTENT, maxBuffer: 1 << 24 })
  assert.equal(status, 0, String(stderr))
  return stdout
}

function told(archive: Uint8Array): number {
  return leastUnpackedBytes(archive.subarray(0, 1 << 15), archive.subarray(-TAIL_BYTES))
}

const TOOLS: { name: string; archive: () => Buffer; bytes: number; atItsEnd?: boolean }[] = [
  { name: 'gzip', archive: () => made('gzip', '-c'), bytes: CONTENT.length, atItsEnd: true },
  { name: 'xz', archive: () => made('xz', '-c'), bytes: CONTENT.length, atItsEnd: true },
  {
    name: 'xz in many blocks',
    archive: () => made('xz', '-c', '--block-size=7000'),
    bytes: CONTENT.length,
    atItsEnd: true,
  },
  {
    name: 'zstd that was told',
    archive: () => made('zstd', '-qc', `--stream-size=${CONTENT.length}`),
    bytes: CONTENT.length,
  },
  { name: 'zstd of a pipe', archive: () => made('zstd', '-qc'), bytes: 0 },
  { name: 'lzma of a pipe', archive: () => made('xz', '-c', '--format=lzma'), bytes: 0 },
  { name: 'bzip2', archive: () => made('bzip2', '-c'), bytes: 0 },
  // Only the last of several is known, and that is still no more than there is.
  {
    name: 'two gzip members',
    archive: () => Buffer.concat([made('gzip', '-c'), made('gzip', '-c')]),
    bytes: CONTENT.length,
    atItsEnd: true,
  },
  { name: 'no archive', archive: () => Buffer.from('<html>'), bytes: 0 },
  { name: 'nothing', archive: () => Buffer.alloc(0), bytes: 0 },
]
for (const { name, archive, bytes, atItsEnd = false } of TOOLS)
  test(`size unpacked: ${name}`, () => {
    const it = archive()
    assert.equal(told(it), bytes)
    assert.equal(saysAtItsEnd(it.subarray(0, 1 << 15)), atItsEnd)
    if (atItsEnd) assert.equal(leastUnpackedBytes(it, undefined), 0)
  })

test('size unpacked: an lzma file that says it', () => {
  const it = made('xz', '-c', '--format=lzma')
  it.writeBigUInt64LE(12_345n, 5)
  assert.equal(told(it), 12_345)
})

test('size unpacked: each width that zstd has for it', () => {
  const frame = (descriptor: number, size: Uint8Array): Buffer =>
    Buffer.concat([Buffer.of(0x28, 0xb5, 0x2f, 0xfd, descriptor), size, Buffer.alloc(20)])
  const cases: [number, number[], number][] = [
    [0x20, [200], 200],
    [0x00, [0x58, 200], 0],
    [0x60, [0x10, 0x01], 0x110 + 256],
    [0xa0, [1, 0, 0, 0x80], 0x8000_0001],
    [0x83, [0x58, 1, 2, 3, 4, 7, 0, 0, 0], 7], // a window, and a dictionary's number
    [0xe0, [0, 0, 0, 0, 1, 0, 0, 0], 2 ** 32],
    [0xe0, [0, 0, 0, 0, 0, 0, 0, 0xff], 0], // beyond 2^53
  ]
  for (const [descriptor, size, bytes] of cases)
    assert.equal(leastUnpackedBytes(frame(descriptor, Buffer.from(size)), undefined), bytes)
})

test('size unpacked: an xz file whose end is cut, torn or made up says nothing', () => {
  const it = made('xz', '-c')
  for (let cut = 1; cut < 40; cut++) assert.equal(told(it.subarray(0, -cut)), 0, `${cut} bytes less`)
  for (let at = it.length - 28; at < it.length; at++) {
    const torn = Buffer.from(it)
    torn[at]! ^= 0x40
    assert.ok(told(torn) <= CONTENT.length, `byte ${at}`)
  }
  // An index of more records than it holds, and sizes that go on for ever.
  const index = Buffer.concat([Buffer.of(0, 0xff, 0xff, 0xff, 0xff, 0x0f), Buffer.alloc(10, 0xff)])
  const sum = Buffer.alloc(8)
  sum.writeUInt32LE(crc32(index))
  const footer = Buffer.alloc(12)
  footer.writeUInt32LE((index.length + 4) / 4 - 1, 4)
  footer.write('YZ', 10)
  assert.equal(told(Buffer.concat([it.subarray(0, 12), index, sum.subarray(0, 4), footer])), 0)
})
