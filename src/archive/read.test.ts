import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { GNU_MAGIC, RecordingSink, tarArchive, tarHeader, tarMember } from '../../test/support/tar-builder.ts'
import { ArchiveError } from '../errors.ts'
import { readArchive } from './read.ts'

const ARCHIVE = tarArchive(tarMember({ name: 'a' }, 'hello'), tarMember({ name: 'b' }, 'x'.repeat(100_000)))

/** Hands out `bytes` in pieces and counts what was taken. */
class Input {
  taken = 0
  readonly #bytes: Uint8Array
  readonly #size: number

  constructor(bytes: Uint8Array, size = 1000) {
    this.#bytes = bytes
    this.#size = size
  }

  async *[Symbol.asyncIterator]() {
    while (this.taken < this.#bytes.length) {
      const chunk = this.#bytes.subarray(this.taken, this.taken + this.#size)
      this.taken += chunk.length
      yield chunk
    }
  }
}

const { signal } = new AbortController()

for (const [compression, bytes] of [
  ['none', ARCHIVE],
  ['gzip', gzipSync(ARCHIVE)],
  ['zstd', zstdCompressSync(ARCHIVE)],
] as const) {
  test(`reads an archive, compression ${compression}`, async () => {
    const sink = new RecordingSink()
    const input = new Input(bytes)
    assert.deepEqual(await readArchive(input, sink, { signal }), { format: 'tar', compression })
    assert.deepEqual(
      sink.result().map(({ path, content }) => [path, content.length]),
      [
        ['a', 5],
        ['b', 100_000],
      ],
    )
    assert.equal(input.taken, bytes.length)
  })

  test(`reads its input to the end, also behind the archive's, compression ${compression}`, async () => {
    const padded = Buffer.concat([ARCHIVE, Buffer.alloc(500_000)])
    const packed =
      compression === 'none' ? padded : compression === 'gzip' ? gzipSync(padded) : zstdCompressSync(padded)
    const input = new Input(packed, 100)
    await readArchive(input, new RecordingSink(), { signal })
    assert.equal(input.taken, packed.length)
  })
}

test('a compressed archive without its end is incomplete, though the compression is complete', async () => {
  const cut = gzipSync(ARCHIVE.subarray(0, ARCHIVE.length - 1024))
  await assert.rejects(readArchive(new Input(cut), new RecordingSink(), { signal }), (error) => {
    assert.ok(error instanceof ArchiveError)
    assert.equal(error.message, 'the archive ends without an end-of-archive marker')
    return true
  })
})

for (const [format, pack] of [
  ['gzip', gzipSync],
  ['zstd', zstdCompressSync],
] as const) {
  test(`every cut of a small ${format} archive is an ArchiveError`, async () => {
    const packed = pack(
      tarArchive(tarMember({ name: 'a' }, 'hello'), tarMember({ name: 'link', type: '2', linkName: 'a' })),
    )
    for (let cut = 0; cut < packed.length; cut++) {
      const reading = readArchive(new Input(packed.subarray(0, cut)), new RecordingSink(), { signal })
      await assert.rejects(reading, ArchiveError, `cut at ${cut} of ${packed.length}`)
    }
  })
}

test('a decompression bomb behind the end is refused before it was unpacked', async () => {
  const bomb = gzipSync(Buffer.concat([ARCHIVE, Buffer.alloc(100e6)]))
  const input = new Input(bomb)
  await assert.rejects(readArchive(input, new RecordingSink(), { signal }), /bytes of zeros follow the end/)
  assert.ok(input.taken < bomb.length / 2, `${input.taken} of ${bomb.length} bytes were taken`)
})

test('nothing is read while afterChunk has it wait', async () => {
  const input = new Input(ARCHIVE)
  const sink = new RecordingSink()
  let waiting = 0
  await readArchive(input, sink, {
    signal,
    afterChunk: async () => {
      waiting++
      const before = input.taken
      await new Promise((resolve) => setImmediate(resolve))
      assert.equal(input.taken, before)
    },
  })
  assert.equal(waiting, Math.ceil(ARCHIVE.length / 1000))
})

test('what afterChunk and the sink throw comes out as it is, and closes the input', async () => {
  const failure = new Error('no room')
  const fail = () => {
    throw failure
  }
  let closed = 0
  async function* input() {
    try {
      yield ARCHIVE
      yield Buffer.alloc(512)
    } finally {
      closed++
    }
  }
  const isFailure = (error: unknown) => error === failure
  await assert.rejects(readArchive(input(), new RecordingSink(), { signal, afterChunk: fail }), isFailure)
  await assert.rejects(readArchive(input(), { entry: fail, data: () => {} }, { signal }), isFailure)
  assert.equal(closed, 2)
})

test('an abort ends it between chunks, and in the middle of a hole', async () => {
  const reason = new Error('enough')
  const isReason = (error: unknown) => error === reason

  const between = new AbortController()
  const stop = () => between.abort(reason)
  const reading = readArchive(new Input(ARCHIVE), new RecordingSink(), {
    signal: between.signal,
    afterChunk: stop,
  })
  await assert.rejects(reading, isReason)

  const inHole = new AbortController()
  const runs = Buffer.alloc(109)
  runs.write(`${(8e9).toString(8)}\0${'0'.repeat(11)}\0`, 0)
  runs.write(`${(8e9).toString(8)}\0`, 97)
  const sparse = tarArchive(tarHeader({ type: 'S', magic: GNU_MAGIC, patch: { at: 386, bytes: runs } }))
  let bytes = 0
  const sink = {
    entry: () => setImmediate(() => inHole.abort(reason)),
    data: (chunk: Uint8Array) => {
      bytes += chunk.length
    },
  }
  await assert.rejects(readArchive(new Input(sparse), sink, { signal: inHole.signal }), isReason)
  assert.ok(bytes < 1e9, `${bytes} of 8 GB came before the abort was noticed`)
})
