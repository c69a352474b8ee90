/**
 * An archive from its first byte to its last: compression told by content and taken off, members read,
 * all in one pass over a stream. Made to run in a worker thread: reading is synchronous between chunks.
 */
import { setImmediate } from 'node:timers/promises'
import type { ArchiveSink } from './archive.ts'
import { type Compression, decompress, sniffCompression } from './compression.ts'
import { TarReader } from './tar.ts'

export interface ReadOptions {
  signal: AbortSignal
  /** Called between chunks; the next one waits for what it returns (back-pressure, space reservations). */
  afterChunk?: () => Promise<void> | void
}

export interface ArchiveFormat {
  format: 'tar'
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
  const { signal, afterChunk } = options
  const sniffed = await sniffCompression(chunks)
  const reader = new TarReader(sink)
  for await (const chunk of decompress(sniffed.compression, sniffed.chunks, { signal })) {
    for (const _ of reader.feed(chunk)) {
      // In a long hole, where a chunk stands for gigabytes: let an abort come through.
      await afterChunk?.()
      await setImmediate()
      signal.throwIfAborted()
    }
    const pause = afterChunk?.()
    if (pause) await pause
  }
  reader.end()
  return { format: 'tar', compression: sniffed.compression }
}
