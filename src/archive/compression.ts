/**
 * Which compression an archive has, told by its content, and how to take it off.
 *
 * gzip and zstd are decompressed by node:zlib on its thread pool, bzip2, xz, lzma, lz4 and lzip by child processes,
 * since no library does them better than the tools that every system has. Neither runs ahead of whoever
 * reads: at most a few chunks wait in between.
 *
 * Input is read to its very end even where a format ends before it, because whoever hands it to us sums
 * it up on the way. What the formats allow to stand behind their end is as their own tools have it: more
 * members, streams or frames of the same format are read on; zeros behind gzip, and anything behind
 * bzip2, are ignored; all else is an error.
 *
 * A cut in the compressed data is an error for each of them, but not a cut exactly between two members,
 * which only the archive's own end marker can notice.
 */
import { constants, createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from 'node:zlib'
import { ArchiveError, ToolMissing } from '../errors.ts'
import { asBuffer, byteString, showBytes } from '../lib/bytes.ts'
import { DECOMPRESSOR_MEMORY } from '../lib/confined.ts'
import { findProgram } from '../lib/find-program.ts'
import { detectContainer, sniff } from './container.ts'
import { pump, type Stage, startProgram, writeChunk } from './program.ts'
import { BLOCK_BYTES, hasUstarMagic, isZeroBlock } from './tar-header.ts'

export type Compression = 'none' | 'gzip' | 'bzip2' | 'xz' | 'lzma' | 'zstd' | 'lz4' | 'lzip'

/** 128 MiB, what `zstd --long` makes and every decoder takes unasked. A larger window costs that memory. */
export const MAX_ZSTD_WINDOW_LOG = 27
/** Room for the dictionary of 256 MiB; `xz -9` needs 65 MiB. */
export const XZ_MEMORY_LIMIT = '320MiB'
/** Output per turn: large enough that turns do not count, small enough that many fetches may run. */
const OUTPUT_CHUNK_BYTES = 256 * 1024

// ---------------------------------------------------------------------------------------------------
// Telling.

const SUPPORTED =
  'Supported: tar, cpio, zip, squashfs, ISO 9660 and ext2 to ext4, plain or compressed with gzip, bzip2, xz, lzma, zstd, lz4 or lzip.'

/** Bytes at the start, and what they mean. */
const MAGICS: readonly [Compression, RegExp][] = [
  ['gzip', /^\x1f\x8b\x08/],
  ['bzip2', /^BZh[1-9](?:1AY&SY|\x17rE8P\x90)/], // pi in BCD: a block; the root of pi: no blocks at all
  ['xz', /^\xfd7zXZ\0/],
  ['zstd', /^(?:\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)/], // a frame, or one to be skipped
  ['lz4', /^\x04\x22\x4d\x18/],
  ['lzip', /^LZIP\x01/],
]

/** What people point us at by mistake. */
const NOT_ARCHIVES: readonly [string, RegExp][] = [
  ['an HTML page', /^\s*<(?:!doctype html|html|head|body)/i],
  ['an XML document', /^\s*<\?xml/],
  ['JSON', /^\s*[{[]\s*["\]}]/],
  ['a 7z archive', /^7z\xbc\xaf\x27\x1c/],
  ['a big-endian squashfs image', /^sqsh/],
  ['a Debian package or other ar archive', /^!<arch>\n/],
  ['an RPM package', /^\xed\xab\xee\xdb/],
  ['an lzop file', /^\x89LZO/],
  ['a file from "compress"', /^\x1f\x9d/],
  ['a qcow disk image', /^QFI\xfb/],
  ['an ELF program', /^\x7fELF/],
  ['a PGP message or signature', /^-----BEGIN PGP/],
]

/**
 * The compression of an archive whose first bytes these are (`SNIFF_BYTES` of them, fewer only where the
 * whole is shorter). Throws an ArchiveError that says what it looks like instead.
 */
export function detectCompression(head: Uint8Array): Compression {
  if (head.length === 0) throw new ArchiveError('the archive is empty: it has no bytes')
  const isBlock = head.length >= BLOCK_BYTES
  // First of all, since a tar's first bytes are a file name, which may look like anything.
  const container = detectContainer(head)
  if (container === 'tar') return 'none'
  const bytes = byteString(head, 0, Math.min(head.length, BLOCK_BYTES))
  for (const [compression, magic] of MAGICS) if (magic.test(bytes)) return compression
  if (container !== undefined) return 'none'
  // Damaged and empty tars: their reader knows better what to say of them.
  if (isBlock && (hasUstarMagic(head) || isZeroBlock(head))) return 'none'
  for (const [what, magic] of NOT_ARCHIVES) {
    if (magic.test(bytes))
      throw new ArchiveError(`this is ${what}, not an archive of a build`, { hint: SUPPORTED })
  }
  if (looksLikeLzma(head)) return 'lzma'
  const shown = showBytes(byteString(head, 0, Math.min(16, head.length)))
  throw new ArchiveError(
    isBlock
      ? `this is no archive that we know: it starts with "${shown}"`
      : `this is no archive that we know, or was cut short: it has ${head.length} bytes, which start with "${shown}"`,
    { hint: SUPPORTED },
  )
}

/**
 * The old .lzma format has no magic; these are the checks of xz itself: sane coder properties, a
 * dictionary of 2^n or 2^n + 2^(n-1) bytes, and a size that is unknown or below 256 GiB.
 */
function looksLikeLzma(head: Uint8Array): boolean {
  if (head.length < 13) return false
  const view = asBuffer(head)
  const dictionary = view.readUInt32LE(1)
  const size = view.readBigUInt64LE(5)
  const top = 2 ** Math.floor(Math.log2(dictionary))
  return (
    view[0]! < 9 * 5 * 5 &&
    dictionary >= 4096 &&
    (dictionary === top || dictionary === top * 1.5 || dictionary === 0xffffffff) &&
    (size === 2n ** 64n - 1n || size < 2n ** 38n)
  )
}

/** Looks at the first bytes of `chunks` and gives all of them back. */
export async function sniffCompression(
  chunks: AsyncIterable<Uint8Array>,
): Promise<{ compression: Compression; chunks: AsyncIterable<Uint8Array> }> {
  const { found, chunks: all } = await sniff(chunks, detectCompression)
  return { compression: found, chunks: all }
}

// ---------------------------------------------------------------------------------------------------
// Decompressing.

/**
 * The decompressed bytes. `chunks` is read to its end before this ends. When it fails, what `chunks`
 * throws comes out as it is, bad data as an ArchiveError, an abort as the signal's reason; reading may
 * still be waiting for a next chunk then, so `chunks` itself should listen to the signal too.
 */
export async function* decompress(
  compression: Compression,
  chunks: AsyncIterable<Uint8Array>,
  options: { signal: AbortSignal },
): AsyncGenerator<Uint8Array, void> {
  const { signal } = options
  signal.throwIfAborted()
  switch (compression) {
    case 'none':
      for await (const chunk of chunks) {
        signal.throwIfAborted()
        yield chunk
      }
      return
    case 'gzip':
      return yield* pump(chunks, zlibStage('gzip', createGunzip({ chunkSize: OUTPUT_CHUNK_BYTES })), signal)
    case 'zstd':
      return yield* pump(chunks, zlibStage('zstd', zstdDecoder()), signal)
    default:
      return yield* pump(chunks, await programStage(compression), signal)
  }
}

// ---------------------------------------------------------------------------------------------------
// By node:zlib.

function zstdDecoder(): ZstdDecompress {
  return createZstdDecompress({
    chunkSize: OUTPUT_CHUNK_BYTES,
    // Without this, bytes behind a frame that are not another frame go missing without a word.
    rejectGarbageAfterEnd: true,
    params: { [constants.ZSTD_d_windowLogMax]: MAX_ZSTD_WINDOW_LOG },
  })
}

function zlibStage(format: Compression, stream: Gunzip | ZstdDecompress): Stage {
  let written = 0
  stream.on('error', () => {}) // it comes out of the iteration over the output too
  return {
    input: stream,
    output: stream,
    write: async (chunk) => {
      await writeChunk(stream, chunk)
      written += chunk.length
      // Gunzip leaves what follows a zero byte behind its end, and must not be given more then.
      return stream.bytesWritten === written
    },
    finished: async () => {},
    explain: (error) => explainZlib(format, error),
    kill: () => stream.destroy(),
  }
}

function explainZlib(format: Compression, error: unknown): unknown {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === undefined) return error
  if (code === 'Z_BUF_ERROR') return endsEarly(format, error)
  if (code === 'ERR_TRAILING_JUNK_AFTER_STREAM_END') {
    return new ArchiveError(`something that is not ${format} follows the ${format} data`, { cause: error })
  }
  if (code === 'ZSTD_error_frameParameter_windowTooLarge') {
    return new ArchiveError(
      `the zstd data needs a window of more than ${2 ** (MAX_ZSTD_WINDOW_LOG - 20)} MiB of memory`,
      { hint: `Compress it with --long=${MAX_ZSTD_WINDOW_LOG} or less.`, cause: error },
    )
  }
  if (code.startsWith('Z_') || code.startsWith('ZSTD_')) {
    return new ArchiveError(`the ${format} data is damaged: ${message}`, { cause: error })
  }
  return error
}

function endsEarly(format: Compression, cause: unknown): ArchiveError {
  return new ArchiveError(`the ${format} data ends early (truncated download?)`, { cause })
}

// ---------------------------------------------------------------------------------------------------
// By a program.

type ProgramFormat = 'bzip2' | 'xz' | 'lzma' | 'lz4' | 'lzip'

interface Program {
  name: string
  args: readonly string[]
}

/** In order of preference. */
const PROGRAMS: Record<ProgramFormat, { debianPackage: string; programs: readonly Program[] }> = {
  bzip2: {
    debianPackage: 'lbzip2',
    programs: [
      { name: 'lbzip2', args: ['-dc'] }, // the same on all cores
      { name: 'bzip2', args: ['-dc'] },
    ],
  },
  xz: { debianPackage: 'xz-utils', programs: [{ name: 'xz', args: xzArgs('xz') }] },
  lzma: { debianPackage: 'xz-utils', programs: [{ name: 'xz', args: xzArgs('lzma') }] },
  lz4: { debianPackage: 'lz4', programs: [{ name: 'lz4', args: ['-dc'] }] },
  // Unless told otherwise, what follows the last member is ignored.
  lzip: { debianPackage: 'lzip', programs: [{ name: 'lzip', args: ['-dc', '--trailing-error'] }] },
}

function xzArgs(format: string): string[] {
  return ['-dc', `--format=${format}`, '--threads=0', `--memlimit-decompress=${XZ_MEMORY_LIMIT}`]
}

async function programStage(format: ProgramFormat): Promise<Stage> {
  const { path, args } = await findDecompressor(format)
  return await startProgram(path, args, {
    confinement: { maxMemoryBytes: DECOMPRESSOR_MEMORY },
    // Only what the programs need: XZ_OPT, BZIP2 and their like would add options of the user's.
    env: { PATH: process.env.PATH, LC_ALL: 'C' },
    explain: (status, complaint) => explainExit(format, path, status, complaint),
  })
}

async function findDecompressor(format: ProgramFormat): Promise<{ path: string; args: readonly string[] }> {
  const { programs, debianPackage } = PROGRAMS[format]
  for (const { name, args } of programs) {
    const path = await findProgram(name)
    if (path !== undefined) return { path, args }
  }
  throw new ToolMissing(programs[0]!.name, format, debianPackage)
}

function explainExit(
  format: ProgramFormat,
  path: string,
  status: number | NodeJS.Signals | null,
  complaint: Uint8Array,
): ArchiveError {
  const text = asBuffer(complaint).toString('latin1')
  const firstLine = text.split('\n').find((line) => line.trim() !== '')
  const cause = new Error(`${path} ended with ${status}: ${text.trim()}`)
  if (typeof status === 'string') {
    return new ArchiveError(`${path} was killed by ${status} while it decompressed ${format} data`, { cause })
  }
  if (/memory usage limit/i.test(text)) {
    return new ArchiveError(`the ${format} data needs more than ${XZ_MEMORY_LIMIT} of memory to decompress`, {
      hint: 'Compress it with a smaller dictionary, as "xz -9" or less does.',
      cause,
    })
  }
  if (/ends? (?:unexpectedly|early)|unexpected end|end of (?:file|input)/i.test(text)) {
    return endsEarly(format, cause)
  }
  const said =
    firstLine === undefined ? `exit status ${status}` : showBytes(byteString(Buffer.from(firstLine)))
  return new ArchiveError(`the ${format} data is damaged or ends early: ${said}`, { cause })
}
