/**
 * An archive from its first byte to its last: compression and container told by content and taken off,
 * members read, all in one pass over a stream, save for what can only be read from a file. Made to run in a
 * worker thread: reading is synchronous between chunks.
 */
import { setImmediate } from 'node:timers/promises'
import { ArchiveError } from '../errors.ts'
import type { ArchiveSink } from './archive.ts'
import { type Compression, decompress, sniffCompression } from './compression.ts'
import {
  asTar,
  type Container,
  detectContainer,
  type Extractor,
  extracted,
  extractorNeedsFile,
  nothing,
  sniff,
} from './container.ts'
import { CpioReader } from './cpio.ts'
import { readExt } from './ext.ts'
import { TarReader } from './tar.ts'

/** A file that an archive lies in while it is read, for those that cannot be read as a stream. */
export interface SpillFile extends AsyncDisposable {
  readonly path: string
  /** Bytes of the file, as many as there are from that position on. */
  read(position: number, length: number): Uint8Array
}

export interface ReadOptions {
  signal: AbortSignal
  /** Called between chunks; the next one waits for what it returns (back-pressure, space reservations). */
  afterChunk?: () => Promise<void> | void
  /** Writes an archive to a file, for those that cannot be read as a stream. */
  spill?: (chunks: AsyncIterable<Uint8Array>) => Promise<SpillFile>
  /** A program that reads the archive in our place. */
  extractor?: Extractor | undefined
}

export interface ArchiveFormat {
  format: Container | 'extracted'
  compression: Compression
}

/**
 * Reads the archive into `sink`. When it resolves, the archive was complete and `chunks` was read to its
 * end, so that a checksum over it is final. It rejects with an ArchiveError for a bad archive, with
 * ToolMissing, with the signal's reason, or with whatever `chunks`, the sink or `afterChunk` threw.
 */
export async function readArchive(
  chunks: AsyncIterable<Uint8Array>,
  sink: ArchiveSink,
  options: ReadOptions,
): Promise<ArchiveFormat> {
  const { signal, extractor, spill = noSpill } = options
  if (extractor) {
    if (!extractorNeedsFile(extractor))
      await readTar(extracted(extractor, chunks, '', { signal }), sink, options)
    else {
      await using file = await spill(chunks)
      await readTar(extracted(extractor, nothing(), file.path, { signal }), sink, options)
    }
    return { format: 'extracted', compression: 'none' }
  }
  const sniffed = await sniffCompression(chunks)
  const { compression } = sniffed
  const plain = await sniff(decompress(compression, sniffed.chunks, { signal }), detectContainer)
  // What looks like nothing is most likely a damaged tar: its reader knows what to say of it.
  const format = plain.found ?? 'tar'
  if (format === 'tar') await readTar(plain.chunks, sink, options)
  else if (format === 'cpio') await readCpio(plain.chunks, sink, options)
  else {
    await using file = await spill(plain.chunks)
    if (format !== 'ext') await readTar(asTar(format, file.path, { signal }), sink, options)
    else
      for (const _ of readExt((position, length) => file.read(position, length), sink)) await breathe(options)
  }
  return { format, compression }
}

async function readTar(
  chunks: AsyncIterable<Uint8Array>,
  sink: ArchiveSink,
  options: ReadOptions,
): Promise<void> {
  const reader = new TarReader(sink)
  for await (const chunk of chunks) {
    // In a long hole, where a chunk stands for gigabytes: let an abort come through.
    for (const _ of reader.feed(chunk)) await breathe(options)
    const pause = options.afterChunk?.()
    if (pause) await pause
  }
  reader.end()
}

async function readCpio(
  chunks: AsyncIterable<Uint8Array>,
  sink: ArchiveSink,
  { afterChunk }: ReadOptions,
): Promise<void> {
  const reader = new CpioReader(sink)
  for await (const chunk of chunks) {
    reader.write(chunk)
    const pause = afterChunk?.()
    if (pause) await pause
  }
  reader.end()
}

async function breathe({ signal, afterChunk }: ReadOptions): Promise<void> {
  await afterChunk?.()
  await setImmediate()
  signal.throwIfAborted()
}

async function noSpill(): Promise<never> {
  throw new ArchiveError('this kind of archive cannot be read as a stream, and there is no place for a file')
}
