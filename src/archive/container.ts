/**
 * What holds the members of an archive, told by its content, and the programs that make a tar stream of it.
 *
 * Tar and cpio are read as they come (tar.ts, cpio.ts). What can only be read from a file (zip, whose facts
 * are at its end, and images of file systems) is written to one first, of which a program makes a tar. ext images have a reader of our own,
 * ext.ts: no program that does not need root makes a tar of one.
 */
import { ArchiveError, ToolMissing } from '../errors.ts'
import { asBuffer, type ByteString, byteString, showBytes } from '../lib/bytes.ts'
import { DECOMPRESSOR_MEMORY } from '../lib/confined.ts'
import { findProgram } from '../lib/find-program.ts'
import { pump, type Stage, startProgram } from './program.ts'
import { BLOCK_BYTES, checksumMatches } from './tar-header.ts'

export type Container = 'tar' | 'cpio' | 'zip' | 'squashfs' | 'iso9660' | 'ext'

/** ISO 9660 says so behind its first 32 KiB, which may be anything. */
const ISO_MAGIC_AT = 32_769
/** The superblock of ext2 to ext4 is 1024 bytes from the start. */
const EXT_MAGIC_AT = 1024 + 56
/** Of what a program prints at its end. */
const MAX_LINE = 1000
/** How much of an archive the functions that tell what it is want to see. */
export const SNIFF_BYTES = ISO_MAGIC_AT + 5

/** Undefined when it is none of these. `head` is the start of the archive, shorter only where the whole is. */
export function detectContainer(head: Uint8Array): Container | undefined {
  if (head.length >= BLOCK_BYTES && checksumMatches(head)) return 'tar'
  const start = byteString(head, 0, Math.min(head.length, 6))
  if (/^PK(?:\x03\x04|\x05\x06)/.test(start)) return 'zip'
  if (/^(?:07070[127]|\xc7\x71|\x71\xc7)/.test(start)) return 'cpio'
  if (start.startsWith('hsqs')) return 'squashfs'
  if (head.length < SNIFF_BYTES)
    return head[EXT_MAGIC_AT] === 0x53 && head[EXT_MAGIC_AT + 1] === 0xef ? 'ext' : undefined
  if (byteString(head, ISO_MAGIC_AT, SNIFF_BYTES) === 'CD001') return 'iso9660'
  if (head[EXT_MAGIC_AT] === 0x53 && head[EXT_MAGIC_AT + 1] === 0xef) return 'ext'
  return undefined
}

/** Looks at the first bytes of `chunks` and gives all of them back. */
export async function sniff<T>(
  chunks: AsyncIterable<Uint8Array>,
  look: (head: Uint8Array) => T,
): Promise<{ found: T; chunks: AsyncIterable<Uint8Array> }> {
  const rest = chunks[Symbol.asyncIterator]()
  const seen: Uint8Array[] = []
  let bytes = 0
  try {
    while (bytes < SNIFF_BYTES) {
      const next = await rest.next()
      if (next.done) break
      seen.push(next.value)
      bytes += next.value.length
    }
    return { found: look(Buffer.concat(seen).subarray(0, SNIFF_BYTES)), chunks: chain(seen, rest) }
  } catch (error) {
    await rest.return?.()
    throw error
  }
}

async function* chain(first: readonly Uint8Array[], rest: AsyncIterator<Uint8Array>) {
  try {
    yield* first
    for (;;) {
      const next = await rest.next()
      if (next.done) return
      yield next.value
    }
  } finally {
    await rest.return?.()
  }
}

// ---------------------------------------------------------------------------------------------------
// Programs that make a tar stream.

interface Converter {
  program: string
  debianPackage: string
  args: readonly string[]
  /** Run before a tar is made of it: finds what the conversion itself would not say. */
  check?: Check
}

interface Check {
  args: readonly string[]
  /** Of the last line that it prints: anything else is an archive of another kind, whatever the program makes of it. */
  lastLine?: RegExp
}

/** Those of which a program makes a tar. */
export type ByProgram = 'zip' | 'iso9660' | 'squashfs'

/** `{file}` is the archive. */
const CONVERTERS: Record<ByProgram, Converter> = {
  // Into an archive bsdtar copies files whose checksums are wrong, and says nothing; when it extracts, it complains.
  zip: { ...bsdtar('{file}'), check: { args: ['-x', '-O', '-f', '{file}'] } },
  // Before its facts an image may have anything, and bsdtar goes by what it likes best: it would take text there for
  // mtree(5), also a compressed one or one in a package of rpm's, which names files of this machine for it to copy.
  iso9660: {
    ...bsdtar('{file}'),
    check: {
      args: ['-t', '-v', '-v', '-f', '{file}'],
      lastLine: /^Archive Format: ISO9660\b.*, {2}Compression: none$/,
    },
  },
  squashfs: {
    program: 'sqfs2tar',
    debianPackage: 'squashfs-tools-ng',
    args: ['--root-becomes', '.', '{file}'],
  },
}

function bsdtar(archive: string): Converter {
  // Names of owners are those of the archive: this machine's own have nothing to do with it.
  const args = ['-c', '-f', '-', '--format=pax', '--options=pax:xattrheader=ALL', `@${archive}`]
  return { program: 'bsdtar', debianPackage: 'libarchive-tools', args }
}

/** The archive in a file as a tar stream. @throws ArchiveError, ToolMissing */
export async function* asTar(
  container: ByProgram,
  file: string,
  { signal }: { signal: AbortSignal },
): AsyncGenerator<Uint8Array, void> {
  const { program, debianPackage, args, check } = CONVERTERS[container]
  const path = await findProgram(program)
  if (path === undefined) throw new ToolMissing(program, container, debianPackage)
  const explain = (status: number | NodeJS.Signals | null, complaint: Uint8Array): Error =>
    new ArchiveError(
      `the ${container} archive is damaged: ${firstLine(complaint) ?? `${program} ended with ${status}`}`,
      { cause: ended(path, status, complaint) },
    )
  const output = async (words: readonly string[]): Promise<AsyncGenerator<Uint8Array, void>> => {
    const filled = words.map((word) => word.replace('{file}', file))
    const stage = await startProgram(path, filled, {
      env: { PATH: process.env.PATH, LC_ALL: 'C.UTF-8' },
      confinement: { reads: [file], maxMemoryBytes: DECOMPRESSOR_MEMORY },
      explain,
    })
    return pump(nothing(), stage, signal)
  }
  if (check) {
    const line = await lastLineOf(await output(check.args))
    if (check.lastLine && !check.lastLine.test(line))
      throw new ArchiveError(`the ${container} archive is none: ${program} says "${showBytes(line)}"`)
  }
  yield* await output(args)
}

/** Only its end, should it be longer than any that a program has for people. */
async function lastLineOf(output: AsyncIterable<Uint8Array>): Promise<ByteString> {
  let end = ''
  for await (const chunk of output)
    end = (end + byteString(chunk, Math.max(0, chunk.length - MAX_LINE))).slice(-MAX_LINE)
  return byteString(Buffer.from(end.trimEnd().split('\n').at(-1)!, 'latin1'))
}

// ---------------------------------------------------------------------------------------------------
// An extractor of the operator's.

/** A program that makes a tar stream of an archive of whatever kind. */
export interface Extractor {
  /** The program and its arguments: no shell looks at them. `{file}` is the archive, which comes on standard input otherwise. */
  command: readonly string[]
  timeLimitMs: number
  /** Empty, and its own: the one place that it may write in. Its home, and where its temporary files go. */
  directory: string
  /** The largest file that it may write there. */
  maxFileBytes: number
  /** What else it finds in its environment. */
  env: Readonly<Record<string, string>>
}

export function extractorNeedsFile({ command }: Extractor): boolean {
  return command.some((arg) => arg.includes('{file}'))
}

/** What the operator's program makes of the archive. @throws ArchiveError, ToolMissing */
export async function* extracted(
  extractor: Extractor,
  chunks: AsyncIterable<Uint8Array>,
  file: string,
  { signal }: { signal: AbortSignal },
): AsyncGenerator<Uint8Array, void> {
  const [program = '', ...args] = extractor.command
  const path = program.includes('/') ? program : await findProgram(program)
  if (path === undefined) throw new ToolMissing(program, 'these', 'it')
  const error = new ArchiveError(
    `the extractor ${program} took longer than ${extractor.timeLimitMs / 1000} s`,
    {
      hint: "The source's extract_timeout says how long it may take.",
    },
  )
  const { directory, maxFileBytes } = extractor
  const filled = args.map((arg) => arg.replaceAll('{file}', file))
  let stage: Stage
  try {
    stage = await startProgram(path, filled, {
      env: {
        ...{ PATH: process.env.PATH, HOME: directory, TMPDIR: directory, LC_ALL: 'C.UTF-8' },
        ...extractor.env,
      },
      confinement: { reads: file === '' ? [] : [file], directory, maxFileBytes },
      timeLimit: { ms: extractor.timeLimitMs, error },
      explain: (status, complaint) => {
        const said = firstLine(complaint)
        return new ArchiveError(
          `the extractor ${program} ended with ${status}${said === undefined ? '' : `: ${said}`}`,
          { cause: ended(path, status, complaint) },
        )
      },
    })
  } catch (failure) {
    const { code } = failure as NodeJS.ErrnoException
    if (code !== 'ENOENT' && code !== 'EACCES') throw failure
    throw new ArchiveError(`the extractor ${program} cannot be run (${code})`, { cause: failure })
  }
  yield* pump(chunks, stage, signal)
}

/** For programs that read a file. */
export async function* nothing(): AsyncGenerator<Uint8Array> {}

/** All that a program said at its end, for the log. */
function ended(path: string, status: number | NodeJS.Signals | null, complaint: Uint8Array): Error {
  return new Error(`${path} ended with ${status}: ${asBuffer(complaint).toString('latin1').trim()}`)
}

function firstLine(complaint: Uint8Array): string | undefined {
  const line = asBuffer(complaint)
    .toString('latin1')
    .split('\n')
    .find((text) => text.trim() !== '')
  return line === undefined ? undefined : showBytes(byteString(Buffer.from(line, 'latin1')), 500)
}
