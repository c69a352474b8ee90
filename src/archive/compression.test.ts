import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { constants, gzipSync, zstdCompressSync } from 'node:zlib'
import { tarArchive, tarMember } from '../../test/support/tar-builder.ts'
import { ArchiveError } from '../errors.ts'
import { type Compression, decompress, detectCompression, sniffCompression } from './compression.ts'

/** Text that compresses well enough to need several blocks, frames and turns. */
const TEXT = Buffer.from(
  Array.from({ length: 40_000 }, (_, i) =>
    createHash('md5')
      .update(`${i >> 2}`)
      .digest('hex'),
  ).join('\n'),
)

function tool(program: string, args: readonly string[], input: Buffer): Buffer {
  const { status, stdout, stderr, error } = spawnSync(program, args, { input, maxBuffer: 1e9 })
  if (status !== 0) throw new Error(`${program}: ${error ?? stderr}`)
  return stdout
}

const zstd = (input: Buffer) => zstdCompressSync(input, { params: { [constants.ZSTD_c_checksumFlag]: 1 } })
const COMPRESS: Record<Exclude<Compression, 'none'>, (input: Buffer) => Buffer> = {
  gzip: (input) => gzipSync(input),
  bzip2: (input) => tool('bzip2', ['-1c'], input),
  xz: (input) => tool('xz', ['-1c'], input),
  lzma: (input) => tool('xz', ['-1c', '--format=lzma'], input),
  zstd,
  lz4: (input) => tool('lz4', ['-1c'], input),
  lzip: (input) => tool('lzip', ['-1c'], input),
}
const FORMATS = Object.keys(COMPRESS) as (keyof typeof COMPRESS)[]

async function* chunked(bytes: Uint8Array, size = 10_000) {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function unpack(compression: Compression, bytes: Uint8Array, size?: number): Promise<Buffer> {
  const output: Uint8Array[] = []
  const { signal } = new AbortController()
  for await (const chunk of decompress(compression, chunked(bytes, size), { signal })) output.push(chunk)
  return Buffer.concat(output)
}

const isBad = (message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof ArchiveError, `not an ArchiveError: ${error}`)
  assert.match(error.message, message)
  return true
}

// ---------------------------------------------------------------------------------------------------
// Telling.

for (const format of FORMATS) {
  test(`detects ${format}`, () => {
    assert.equal(detectCompression(COMPRESS[format](TEXT).subarray(0, 512)), format)
    assert.equal(detectCompression(COMPRESS[format](Buffer.from('x'))), format, 'also when it is short')
  })
}

test('detects other forms of the same', () => {
  assert.equal(detectCompression(tool('bzip2', ['-c'], Buffer.alloc(0))), 'bzip2')
  assert.equal(detectCompression(Buffer.from('5a2a4d1804000000', 'hex')), 'zstd', 'a frame to be skipped')
  assert.equal(
    detectCompression(tool('xz', ['--format=lzma', '--lzma1=dict=12MiB,pb=0', '-c'], TEXT)),
    'lzma',
  )
})

test('detects plain tar, whatever its first name looks like', () => {
  const names = ['file', '\x1f\x8b\x08', 'BZh91AY&SY', '\xfd7zXZ', 'PK\x03\x04', '<html>', '(\xb5/\xfd']
  for (const name of names) {
    assert.equal(detectCompression(tarArchive(tarMember({ name })).subarray(0, 512)), 'none')
    assert.equal(detectCompression(tarArchive(tarMember({ name, magic: '' })).subarray(0, 512)), 'none', 'v7')
  }
  assert.equal(detectCompression(tarMember({}).fill('x', 0, 1).subarray(0, 512)), 'none', 'a damaged one')
  assert.equal(detectCompression(Buffer.alloc(512)), 'none', 'an empty one')
})

const MISTAKES: readonly [string | Buffer, RegExp][] = [
  ['', /is empty/],
  ['<!DOCTYPE html><title>404', /this is an HTML page, not an archive of a build/],
  ['\n<html lang=en>', /an HTML page/],
  ['<?xml version="1.0"?><Error>', /an XML document/],
  ['{"error":"not found"}', /JSON/],
  ['7z\xbc\xaf\x27\x1c', /a 7z archive/],
  ['sqsh\x01', /a big-endian squashfs image/],
  ['!<arch>\ndebian-binary', /a Debian package/],
  ['\x89LZO\0', /an lzop file/],
  ['BZhello', /no archive that we know, or was cut short: it has 7 bytes, which start with "BZhello"/],
  [Buffer.alloc(600, 'Not found. '), /no archive that we know: it starts with "Not found. Not f"/],
  [Buffer.alloc(600, '\x01\x02\n'), /starts with "\\x01\\x02\\n/],
  ['\x1f\x8b', /was cut short: it has 2 bytes/],
]

for (const [bytes, message] of MISTAKES) {
  test(`detects a mistake: ${JSON.stringify(String(bytes).slice(0, 20))}`, () => {
    const head = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes
    assert.throws(() => detectCompression(head), isBad(message))
  })
}

test('sniffing gives every byte back, however they come', async () => {
  const archive = tarArchive(tarMember({}, TEXT))
  for (const size of [1, 100, 512, 513, archive.length]) {
    const { compression, chunks } = await sniffCompression(chunked(archive.subarray(0, 5000), size))
    const output: Uint8Array[] = []
    for await (const chunk of chunks) output.push(chunk)
    assert.equal(compression, 'none')
    assert.deepEqual(Buffer.concat(output), archive.subarray(0, 5000))
  }
})

test('sniffing closes its input when it refuses it, and when nobody reads on', async () => {
  let closed = 0
  async function* input(bytes: Buffer) {
    try {
      yield bytes
      yield bytes
    } finally {
      closed++
    }
  }
  await assert.rejects(sniffCompression(input(Buffer.alloc(600, 'x'))), isBad(/no archive/))
  assert.equal(closed, 1)
  const { chunks } = await sniffCompression(input(tarArchive(tarMember({}))))
  for await (const _ of chunks) break
  assert.equal(closed, 2)
})

// ---------------------------------------------------------------------------------------------------
// Decompressing.

test('none: as it is', async () => {
  assert.deepEqual(await unpack('none', TEXT), TEXT)
})

for (const format of FORMATS) {
  const packed = COMPRESS[format](TEXT)

  test(`${format}: whole, in large and small chunks`, async () => {
    for (const size of [packed.length, 1000, 77]) {
      assert.ok((await unpack(format, packed, size)).equals(TEXT), `in chunks of ${size}`)
    }
  })

  test(`${format}: cut anywhere is an error`, async () => {
    for (const cut of [packed.length - 1, packed.length - 5, packed.length >> 1, 20, 6]) {
      await assert.rejects(unpack(format, packed.subarray(0, cut)), isBad(new RegExp(`the ${format} data`)))
    }
  })

  test(`${format}: damage is an error`, async () => {
    for (const at of [packed.length >> 2, packed.length >> 1]) {
      const damaged = Buffer.from(packed)
      for (let i = at; i < at + 16; i++) damaged[i]! ^= 0x55
      await assert.rejects(unpack(format, damaged), isBad(new RegExp(`the ${format} data`)))
    }
  })

  test(`${format}: an abort ends it with the signal's reason`, async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    async function* endless() {
      yield packed.subarray(0, packed.length >> 1)
      controller.abort(reason)
      await new Promise(() => {}) // an upstream that never answers again
    }
    const reading = async () => {
      for await (const _ of decompress(format, endless(), { signal: controller.signal })) {
        // until it is aborted
      }
    }
    await assert.rejects(reading(), (error) => error === reason)
  })

  test(`${format}: what its input throws comes out as it is`, async () => {
    const failure = new Error('connection reset')
    async function* broken() {
      yield packed.subarray(0, packed.length >> 1)
      throw failure
    }
    const reading = async () => {
      for await (const _ of decompress(format, broken(), new AbortController())) {
        // until it breaks
      }
    }
    await assert.rejects(reading(), (error) => error === failure)
  })

  test(`${format}: its input is closed when nobody reads on`, async () => {
    let close = () => {}
    const closed = new Promise<void>((resolve) => {
      close = resolve
    })
    async function* input() {
      try {
        for (;;) yield packed
      } finally {
        close()
      }
    }
    for await (const _ of decompress(format, input(), new AbortController())) break
    await closed
  })
}

/** Bytes that do not compress, the same on every run. */
function createNoise(bytes: number): Buffer {
  const pieces: Buffer[] = []
  for (let i = 0; i < bytes / 64; i++) pieces.push(createHash('sha512').update(`${i}`).digest())
  return Buffer.concat(pieces)
}

for (const format of ['gzip', 'bzip2', 'xz', 'zstd', 'lz4', 'lzip'] as const) {
  test(`${format}: a slow reader holds the input back`, async () => {
    let taken = 0
    async function* input() {
      for (; taken < 2000; taken++) yield noise
    }
    const noise = COMPRESS[format](createNoise(100_000))
    const output = decompress(format, input(), new AbortController())
    await output.next()
    await new Promise((resolve) => setTimeout(resolve, 100)) // time to run ahead, were it to
    await output.return()
    assert.ok(taken < 200, `${taken} chunks were taken of 2000`)
  })

  test(`${format}: several members are one`, async () => {
    const text = TEXT.subarray(0, 5000)
    const packed = Buffer.concat([COMPRESS[format](text), COMPRESS[format](Buffer.from('tail'))])
    const whole = Buffer.concat([text, Buffer.from('tail')])
    for (const size of [packed.length, 1]) assert.ok((await unpack(format, packed, size)).equals(whole))
  })
}

test('zstd: frames to be skipped are skipped, first and in between', async () => {
  const skipped = Buffer.from('502a4d1804000000cafecafe', 'hex')
  const packed = Buffer.concat([skipped, zstd(TEXT), skipped, zstd(TEXT)])
  assert.ok((await unpack('zstd', packed)).equals(Buffer.concat([TEXT, TEXT])))
})

test('zstd: a window of 2^27 passes, a larger one is refused', async () => {
  const large = Buffer.concat([createNoise(200_000), Buffer.alloc(1000)])
  const long = (log: number) => tool('zstd', ['-q', '-c', `--long=${log}`, '--no-check'], large)
  assert.ok((await unpack('zstd', long(27))).equals(large))
  await assert.rejects(unpack('zstd', long(28)), isBad(/more than 128 MiB/))
})

test('xz: a dictionary beyond the memory limit is refused', async () => {
  const packed = tool('xz', ['-c', '--lzma2=dict=400MiB'], Buffer.from('x'))
  await assert.rejects(unpack('xz', packed), isBad(/the xz data needs more than 320MiB/))
})

const GARBAGE = Buffer.from('this is not compressed at all')

for (const format of ['gzip', 'xz', 'lzma', 'zstd'] as const) {
  test(`${format}: something else behind its end is an error`, async () => {
    const packed = COMPRESS[format](TEXT)
    await assert.rejects(unpack(format, Buffer.concat([packed, GARBAGE])), ArchiveError)
    await assert.rejects(unpack(format, Buffer.concat([packed, GARBAGE]), packed.length), ArchiveError)
  })
}

for (const [format, behind] of [
  ['gzip', Buffer.alloc(300_000)],
  ['bzip2', Buffer.alloc(300_000)],
  ['bzip2', createNoise(300_000)],
] as const) {
  test(`${format}: what is ignored behind its end is read all the same`, async () => {
    const packed = Buffer.concat([COMPRESS[format](TEXT), behind])
    let taken = 0
    async function* input() {
      for await (const chunk of chunked(packed)) {
        taken += chunk.length
        yield chunk
      }
    }
    const output: Uint8Array[] = []
    for await (const chunk of decompress(format, input(), new AbortController())) output.push(chunk)
    assert.ok(Buffer.concat(output).equals(TEXT))
    assert.equal(taken, packed.length)
  })
}

test("options of the user's in the environment do not reach the programs", async () => {
  process.env.XZ_OPT = '--no-such-option'
  process.env.BZIP2 = '--no-such-option'
  try {
    assert.ok((await unpack('xz', COMPRESS_UNDISTURBED.xz)).equals(TEXT))
    assert.ok((await unpack('bzip2', COMPRESS_UNDISTURBED.bzip2)).equals(TEXT))
  } finally {
    delete process.env.XZ_OPT
    delete process.env.BZIP2
  }
})
const COMPRESS_UNDISTURBED = { xz: COMPRESS.xz(TEXT), bzip2: COMPRESS.bzip2(TEXT) }

// What was found in PATH is remembered, so another PATH needs another process.
const WITH_OTHER_PATH = `
  import { decompress } from ${JSON.stringify(new URL('compression.ts', import.meta.url).href)}
  const [format] = process.argv.slice(1)
  try {
    for await (const chunk of decompress(format, process.stdin, new AbortController())) process.stdout.write(chunk)
  } catch (error) {
    process.stdout.write([error.code, error.message, error.hint].join('|'))
  }`

function unpackWithPath(path: string, format: Compression, input: Buffer): Buffer {
  const args = ['--input-type=module', '-e', WITH_OTHER_PATH, format]
  const { stdout, stderr } = spawnSync(process.execPath, args, { input, env: { PATH: path }, maxBuffer: 1e9 })
  assert.equal(String(stderr), '')
  return stdout
}

test('a missing program is named, with its package', () => {
  const said = (format: Compression) => String(unpackWithPath('/nonexistent', format, TEXT))
  const xz = 'archives need the program "xz", which is not installed|apt-get install xz-utils'
  assert.equal(said('xz'), `TOOL_MISSING|xz ${xz}`)
  assert.equal(said('lzma'), `TOOL_MISSING|lzma ${xz}`)
  assert.match(said('bzip2'), /^TOOL_MISSING\|bzip2 archives need the program "lbzip2".*install lbzip2$/)
})

test('bzip2 does where there is no lbzip2', (t) => {
  const scratch = mkdtempSync(join(tmpdir(), 'upserv-compression-'))
  t.after(() => rmSync(scratch, { recursive: true }))
  symlinkSync(String(tool('sh', ['-c', 'command -v bzip2'], Buffer.alloc(0))).trim(), join(scratch, 'bzip2'))
  const packed = COMPRESS.bzip2(TEXT)
  assert.ok(unpackWithPath(scratch, 'bzip2', packed).equals(TEXT))
  const cut = String(unpackWithPath(scratch, 'bzip2', packed.subarray(0, 50)))
  assert.match(cut, /^ARCHIVE_BAD\|the bzip2 data ends early \(truncated download\?\)/)
})
