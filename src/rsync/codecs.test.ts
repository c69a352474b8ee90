import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { constants, inflateRawSync, zstdDecompressSync } from 'node:zlib'
import { type CodecName, codecNamed, createCompressor, OFFERED_CODECS } from './codecs.ts'

const MARKER = Buffer.from('0000ffff', 'hex')

/** As the client does it: the marker that was stripped at the end of a run goes back in. */
function decompress(codec: CodecName, data: Uint8Array): Buffer {
  if (codec === 'zstd') return zstdDecompressSync(data)
  return inflateRawSync(Buffer.concat([data, MARKER]), { finishFlush: constants.Z_SYNC_FLUSH })
}

const text = Buffer.from('The quick brown fox jumps over the lazy dog. '.repeat(20_000))
const RUNS: readonly { name: string; pieces: readonly Buffer[] }[] = [
  { name: 'one byte', pieces: [Buffer.from('x')] },
  { name: 'a few bytes', pieces: [Buffer.from('hello\n')] },
  { name: 'what is compressed at once', pieces: [text.subarray(0, 4096)] },
  { name: 'what goes to another thread', pieces: [text.subarray(0, 4097)] },
  { name: 'what does not compress', pieces: [randomBytes(100_000)] },
  { name: 'zeros', pieces: [Buffer.alloc(300_000)] },
  {
    name: 'several pieces',
    pieces: [text.subarray(0, 262_144), text.subarray(262_144, 524_288), text.subarray(524_288)],
  },
  { name: 'a last piece of one byte', pieces: [text.subarray(0, 10_000), Buffer.from('y')] },
]
for (const codec of OFFERED_CODECS) {
  for (const level of [undefined, -7, 1, 9, 22]) {
    for (const { name, pieces } of RUNS) {
      test(`${codec}, level ${level ?? 'as ever'}: ${name}`, async () => {
        const compressor = createCompressor(codec, level)
        for (const time of ['first', 'second']) {
          const parts: Uint8Array[] = []
          for (const [i, piece] of pieces.entries()) {
            const part = await compressor.compress(piece, i === pieces.length - 1)
            assert.ok(part.length > 0, 'a chunk must not be empty')
            parts.push(part)
          }
          const whole = Buffer.concat(parts)
          assert.deepEqual(decompress(codec, whole), Buffer.concat(pieces), `the ${time} run`)
        }
      })
    }
  }
}

for (const codec of ['zlib', 'zlibx'] as const) {
  test(`${codec}: no stream is ever closed, and every run stands alone`, async () => {
    const compressor = createCompressor(codec)
    const one = await compressor.compress(text.subarray(0, 1000), true)
    const two = await compressor.compress(text.subarray(0, 1000), true)
    assert.deepEqual(one, two, 'nothing refers back to an earlier run')
    // One inflate stream for the whole file, as the client has it, reads run after run.
    const all = Buffer.concat([one, MARKER, two, MARKER])
    const inflated = inflateRawSync(all, { finishFlush: constants.Z_SYNC_FLUSH })
    assert.deepEqual(inflated, Buffer.concat([text.subarray(0, 1000), text.subarray(0, 1000)]))
    assert.throws(() => inflateRawSync(all), /unexpected end/, 'a final block would end the stream')
  })
}

test('zstd windows stay within what decoders take', async () => {
  const frame = Buffer.from(await createCompressor('zstd', 22).compress(Buffer.alloc(100_000), true))
  assert.ok(zstdDecompressSync(frame, { params: { [constants.ZSTD_d_windowLogMax]: 27 } }).length === 100_000)
})

test('names', () => {
  for (const codec of OFFERED_CODECS) assert.equal(codecNamed(codec), codec)
  for (const name of ['', 'lz4', 'none', 'ZSTD', 'constructor']) assert.equal(codecNamed(name), undefined)
})
