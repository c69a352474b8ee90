/**
 * The compression codecs of -z: what is offered, and how a piece of literal data is compressed.
 * docs/rsync-protocol.md, sections 3.4 and 8.6.
 *
 * Every piece is compressed on its own. For zlib that means a full flush at its end, behind which nothing
 * refers back, so that it does not matter that a client feeds matched blocks into its window; for zstd a
 * frame of its own, which clients accept wherever a literal run starts.
 */
import { promisify } from 'node:util'
import { constants, deflateRaw, deflateRawSync, zstdCompress, zstdCompressSync } from 'node:zlib'

export type CodecName = 'zstd' | 'zlibx' | 'zlib'

/** In our order; the client's decides. */
export const OFFERED_CODECS = ['zstd', 'zlibx', 'zlib'] as const

export function codecNamed(name: string): CodecName | undefined {
  return (OFFERED_CODECS as readonly string[]).includes(name) ? (name as CodecName) : undefined
}

/** What the stock server uses when the client asks for no level. */
const DEFAULT_LEVEL: Record<CodecName, number> = { zstd: 3, zlibx: 6, zlib: 6 }
/** Up to this size compressing takes less time than handing the work to another thread and back. */
const INLINE_SIZE = 4096
/** What deflate writes at a flush: the client puts it back at the end of each run. */
const FLUSH_MARKER_SIZE = 4

export interface Compressor {
  /** @param last the piece ends its literal run. */
  compress(piece: Uint8Array, last: boolean): Promise<Uint8Array> | Uint8Array
}

/** @param level the client's wish, brought into the codec's range. */
export function createCompressor(codec: CodecName, level = DEFAULT_LEVEL[codec]): Compressor {
  if (codec === 'zstd') {
    // Levels above 19 need windows that clients' decoders don't take.
    const params = { [constants.ZSTD_c_compressionLevel]: Math.min(19, Math.max(-50, level)) }
    return {
      compress: (piece) =>
        piece.length <= INLINE_SIZE ? zstdCompressSync(piece, { params }) : compressZstd(piece, { params }),
    }
  }
  const options = { level: Math.min(9, Math.max(-1, level)), finishFlush: constants.Z_FULL_FLUSH }
  const strip = (data: Uint8Array, last: boolean): Uint8Array =>
    last ? data.subarray(0, data.length - FLUSH_MARKER_SIZE) : data
  return {
    compress: async (piece, last) =>
      strip(
        piece.length <= INLINE_SIZE ? deflateRawSync(piece, options) : await compressDeflate(piece, options),
        last,
      ),
  }
}

const compressZstd = promisify(zstdCompress)
const compressDeflate = promisify(deflateRaw)
