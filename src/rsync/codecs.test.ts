import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { type TestContext, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import zlib, {
  constants,
  createInflateRaw,
  createZstdDecompress,
  inflateRawSync,
  type ZstdCompress,
  zstdDecompressSync,
} from 'node:zlib'
import { decodeLz4Block } from '../../test/support/lz4.ts'
import {
  type CodecName,
  codecNamed,
  createCompressor,
  createFrame,
  DEFLATE_WINDOW,
  isOff,
  MAX_PIECE,
  OFFERED_CODECS,
  squeezeBest,
} from './codecs.ts'
import { MAX_CHUNK } from './wire/tokens.ts'

const MARKER = Buffer.from('0000ffff', 'hex')

/** As the client does it: the marker that was stripped at the end of a run goes back in. */
function decompress(codec: CodecName, parts: readonly Uint8Array[]): Buffer {
  if (codec === 'lz4') return Buffer.concat(parts.map(decodeLz4Block))
  const data = Buffer.concat(parts)
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
  for (const level of [undefined, -(2 ** 31), -7, -1, 0, 1, 9, 22, 999_999_999, 'least'] as const) {
    for (const { name, pieces } of RUNS) {
      test(`${codec}, level ${level ?? 'as ever'}: ${name}`, async () => {
        const compressor =
          level === 'least' ? createCompressor(codec, 9, 'least') : createCompressor(codec, level)
        for (const time of ['first', 'second']) {
          const parts: Uint8Array[] = []
          for (const [i, piece] of pieces.entries()) {
            const more = await compressor.compress(piece, i === pieces.length - 1)
            assert.ok(more.length > 0 && more.every((part) => part.length > 0), 'a chunk must not be empty')
            parts.push(...more)
          }
          assert.deepEqual(decompress(codec, parts), Buffer.concat(pieces), `the ${time} run`)
        }
      })
    }
  }
}

for (const codec of OFFERED_CODECS) {
  for (const { name, pieces } of RUNS) {
    test(`${codec}, as well as can be: ${name}`, () => {
      const whole = Buffer.concat(pieces)
      const refersBack = codec === 'zlib' || codec === 'zlibx'
      let from = 0
      const parts = pieces.flatMap((piece, i) => {
        const history = whole.subarray(Math.max(0, from - DEFLATE_WINDOW), from)
        from += piece.length
        return squeezeBest(codec, piece, i === pieces.length - 1, refersBack ? history : undefined)
      })
      assert.ok(parts.length > 0 && parts.every((part) => part.length > 0), 'a chunk must not be empty')
      assert.deepEqual(decompress(codec, parts), whole)
    })
  }
}

// ---------------------------------------------------------------------------------------------------
// Cut anywhere: what is compressed, and what arrives of it.

const SAMPLE = Buffer.concat([
  text.subarray(0, 200),
  randomBytes(60),
  Buffer.alloc(80),
  text.subarray(7, 150),
])

/** Feeds a client's decoder piece by piece; all that has come out of it after the last one. */
async function stream(codec: Exclude<CodecName, 'lz4'>, pieces: readonly Uint8Array[]): Promise<Buffer> {
  const decoder = codec === 'zstd' ? createZstdDecompress() : createInflateRaw()
  const out: Buffer[] = []
  decoder.on('data', (data: Buffer) => out.push(data))
  for (const piece of pieces) await new Promise((resolve) => decoder.write(piece, resolve))
  await nextTurn()
  decoder.destroy()
  return Buffer.concat(out)
}

for (const codec of OFFERED_CODECS) {
  test(`${codec}: a run in two pieces, cut at each byte`, async () => {
    const compressor = createCompressor(codec)
    for (let at = 1; at < SAMPLE.length; at++) {
      const parts = [
        ...(await compressor.compress(SAMPLE.subarray(0, at), false)),
        ...(await compressor.compress(SAMPLE.subarray(at), true)),
      ]
      assert.deepEqual(decompress(codec, parts), SAMPLE, `cut at ${at}`)
    }
  })

  test(`${codec}: what arrives cut at each byte is the same, and a part of it never all`, async () => {
    const parts = await createCompressor(codec).compress(SAMPLE, true)
    if (codec === 'lz4') {
      // A chunk holds a block, and a client waits for all of a chunk.
      const [block] = parts as [Uint8Array]
      for (let at = 0; at < block.length; at++) {
        let got: Buffer = Buffer.alloc(0)
        try {
          got = decodeLz4Block(block.subarray(0, at))
        } catch (error) {
          assert.ok(error instanceof assert.AssertionError)
        }
        assert.ok(got.length < SAMPLE.length && got.equals(SAMPLE.subarray(0, got.length)), `cut at ${at}`)
      }
      return
    }
    const wire = Buffer.concat([...parts, ...(codec === 'zstd' ? [] : [MARKER])])
    for (let at = 0; at <= wire.length; at++) {
      const [head, tail] = [wire.subarray(0, at), wire.subarray(at)]
      assert.deepEqual(await stream(codec, [head, tail]), SAMPLE, `cut at ${at}`)
      const early = await stream(codec, [head])
      assert.ok(early.equals(SAMPLE.subarray(0, early.length)), `what came of the first ${at} bytes`)
      if (at < wire.length / 2) assert.ok(early.length < SAMPLE.length)
    }
  })
}

for (const codec of ['zlib', 'zlibx'] as const) {
  test(`${codec}: no stream is ever closed, and every run stands alone`, async () => {
    const compressor = createCompressor(codec)
    const [one] = await compressor.compress(text.subarray(0, 1000), true)
    const [two] = await compressor.compress(text.subarray(0, 1000), true)
    assert.deepEqual(one, two, 'nothing refers back to an earlier run')
    // One inflate stream for the whole file, as the client has it, reads run after run.
    const all = Buffer.concat([one!, MARKER, two!, MARKER])
    const inflated = inflateRawSync(all, { finishFlush: constants.Z_SYNC_FLUSH })
    assert.deepEqual(inflated, Buffer.concat([text.subarray(0, 1000), text.subarray(0, 1000)]))
    assert.throws(() => inflateRawSync(all), /unexpected end/, 'a final block would end the stream')
  })
}

test('zstd windows stay within a piece, and are small where a level takes much memory', async () => {
  for (const level of [-50, 3, 4, 19, 22, 999_999_999]) {
    const { most, compress } = createCompressor('zstd', level)
    assert.equal(most, level <= 3 ? 2 ** 20 : MAX_PIECE)
    const parts = await compress(randomBytes(most), true)
    const params = { [constants.ZSTD_d_windowLogMax]: Math.log2(most) }
    assert.equal(zstdDecompressSync(Buffer.concat(parts), { params }).length, most)
  }
})

test('zstd: every frame stands alone, also behind one that was given up in the middle', async () => {
  const given: Buffer[] = []
  for (const end of [true, false, true, true]) {
    const frame = createFrame()
    const parts = [...(await frame.add(text.subarray(0, 20_000), false)), ...(await frame.add(text, end))]
    frame.close()
    if (end) given.push(Buffer.concat(parts))
  }
  for (const data of given) {
    assert.deepEqual(zstdDecompressSync(data), Buffer.concat([text.subarray(0, 20_000), text]))
    assert.equal(data.length, given[0]!.length, 'nothing refers back to an earlier frame')
  }
})

/** Streams that are made from now on, and a clock of ours for those that wait. */
function watchStreams(t: TestContext): ZstdCompress[] {
  const made: ZstdCompress[] = []
  const create = zlib.createZstdCompress
  t.mock.method(zlib, 'createZstdCompress', (...options: Parameters<typeof create>) => {
    const stream = create(...options)
    made.push(stream)
    return stream
  })
  syncBuiltinESMExports()
  t.after(() => {
    t.mock.restoreAll()
    syncBuiltinESMExports()
  })
  t.mock.timers.enable({ apis: ['setTimeout'] })
  return made
}

/** Levels that no other test asks for: what others have left waiting is nobody's here. */
const OWN_LEVEL = -17

/** Makes a frame, and lays down what made it. */
async function frameOf(data: Buffer, level = OWN_LEVEL): Promise<Buffer> {
  const frame = createFrame(level)
  const parts = await frame.add(data, true)
  frame.close()
  return Buffer.concat(parts)
}

test('zstd: one stream makes frame after frame, and large pieces as well; two at once are two', async (t) => {
  const made = watchStreams(t)
  for (let i = 0; i < 5; i++) assert.deepEqual(zstdDecompressSync(await frameOf(text)), text)
  assert.equal(made.length, 1)
  for (let i = 0; i < 5; i++) await createCompressor('zstd', OWN_LEVEL).compress(text, true)
  assert.equal(made.length, 2, 'the window of a piece is another one')
  const [one, other] = [createFrame(OWN_LEVEL), createFrame(OWN_LEVEL)]
  for (const frame of [one, other]) {
    await frame.add(text, true)
    frame.close()
  }
  assert.equal(made.length, 3)
  await frameOf(text, OWN_LEVEL + 1)
  assert.equal(made.length, 4, 'of another level')
  assert.ok(made.every(({ destroyed }) => !destroyed))
  t.mock.timers.tick(60_000)
})

test('zstd: a stream that nobody needs goes by itself, and one that is in use does not', async (t) => {
  const made = watchStreams(t)
  await frameOf(text)
  t.mock.timers.tick(9_999)
  const frame = createFrame(OWN_LEVEL)
  t.mock.timers.tick(60_000)
  assert.equal(made.length, 1)
  assert.equal(made[0]!.destroyed, false, 'somebody has it')
  assert.deepEqual(zstdDecompressSync(Buffer.concat(await frame.add(text, true))), text)
  frame.close()
  t.mock.timers.tick(9_999)
  assert.equal(made[0]!.destroyed, false)
  t.mock.timers.tick(1)
  assert.equal(made[0]!.destroyed, true)
  // Whoever comes then has one of his own, and the others that wait are still there.
  await frameOf(text, OWN_LEVEL + 1)
  await frameOf(text)
  await frameOf(text, OWN_LEVEL + 1)
  assert.equal(made.length, 3)
  assert.deepEqual(
    made.map(({ destroyed }) => destroyed),
    [true, false, false],
  )
  t.mock.timers.tick(10_000)
  assert.ok(made.every(({ destroyed }) => destroyed))
})

test('zstd: only a few streams wait, those that were used last', async (t) => {
  const made = watchStreams(t)
  const frames = Array.from({ length: 6 }, () => createFrame(OWN_LEVEL))
  for (const frame of frames) {
    await frame.add(text, true)
    frame.close()
  }
  assert.deepEqual(
    made.map(({ destroyed }) => destroyed),
    [true, true, false, false, false, false],
  )
  t.mock.timers.tick(10_000)
  assert.ok(made.every(({ destroyed }) => destroyed))
})

test('zstd: streams that take much memory, hold part of a frame or have failed do not wait at all', async (t) => {
  const made = watchStreams(t)
  await frameOf(text, 12)
  const given = createFrame(OWN_LEVEL)
  await given.add(text, false)
  given.close()
  const broken = createFrame(OWN_LEVEL)
  await broken.add(text, true)
  made[2]!.destroy(new Error('as the test wants it'))
  await nextTurn()
  await assert.rejects(broken.add(text, true), /as the test wants it/)
  broken.close()
  assert.equal(made.length, 3)
  assert.ok(made.every(({ destroyed }) => destroyed))
  assert.deepEqual(zstdDecompressSync(await frameOf(text)), text)
  assert.equal(made.length, 4)
  t.mock.timers.tick(10_000)
})

test('lz4: each block fits its chunk, however little it compresses', async () => {
  for (const size of [1, 16_304, 16_305, MAX_PIECE]) {
    for (const part of await createCompressor('lz4').compress(randomBytes(size), true)) {
      assert.ok(part.length <= MAX_CHUNK, `${part.length} bytes`)
    }
  }
})

test('the least effort is hardly any: stored as it is, or nearly', async () => {
  for (const codec of ['zlib', 'zlibx'] as const) {
    const [data] = await createCompressor(codec, 9, 'least').compress(text, true)
    assert.ok(data!.length > text.length && data!.length < text.length + 200)
  }
})

test('level 0 turns zlib off, and nothing else', () => {
  assert.deepEqual(
    OFFERED_CODECS.map((codec) => isOff(codec, 0)),
    [false, false, true, true],
  )
  for (const codec of OFFERED_CODECS) for (const level of [undefined, -1, 1]) assert.ok(!isOff(codec, level))
})

test('names', () => {
  for (const codec of OFFERED_CODECS) assert.equal(codecNamed(codec), codec)
  for (const name of ['', 'LZ4', 'lz4hc', 'none', 'ZSTD', 'constructor'])
    assert.equal(codecNamed(name), undefined)
})
