/** Writes a stream to a path: a file, or a pipe that somebody reads. */
import { createWriteStream } from 'node:fs'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createZstdCompress } from 'node:zlib'

/** `start` as it is, and then `body` compressed. */
export async function pourCompressed(
  path: string,
  start: Uint8Array,
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  const to = createWriteStream(path, { flags: 'w', mode: 0o644 })
  to.write(start)
  await pipeline(Readable.from(body, { objectMode: false }), createZstdCompress(), to, { signal })
}
