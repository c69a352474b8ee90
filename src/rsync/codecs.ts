/**
 * The compression codecs of -z: what is offered, and how a piece of literal data is compressed.
 * docs/rsync-protocol.md, sections 3.4 and 8.6.
 *
 * Every piece is compressed on its own. For zlib what the client has in its window just then is handed in as a
 * dictionary (`historyOf`); for zstd a piece is a frame of its own, which clients accept wherever a literal run
 * starts; for lz4 it is blocks of their own. So the level may change from file to file, and what is known not to
 * compress is hardly tried.
 */

import { setImmediate as nextTurn } from 'node:timers/promises'
import { promisify } from 'node:util'
import {
  constants,
  createZstdCompress,
  deflateRaw,
  deflateRawSync,
  type ZlibOptions,
  type ZstdCompress,
  zstdCompressSync,
} from 'node:zlib'
import { deflate } from './deflate.ts'
import { compressLz4Block } from './lz4.ts'

export type CodecName = 'zstd' | 'lz4' | 'zlibx' | 'zlib'

/** In our order, which is the stock server's; the client's decides. */
export const OFFERED_CODECS = ['zstd', 'lz4', 'zlibx', 'zlib'] as const

export function codecNamed(name: string): CodecName | undefined {
  return (OFFERED_CODECS as readonly string[]).includes(name) ? (name as CodecName) : undefined
}

/** The most literal data that is compressed at a time: a good ratio, and little memory for each client. */
export const MAX_PIECE = 256 * 1024
/** With zstd's quick levels, whose window goes on over as much. */
const MAX_QUICK_PIECE = 2 ** 20

/** How hard to try: as the client wishes, or hardly at all since the data is compressed already. */
export type Effort = 'normal' | 'least'

export interface Compressor {
  /** Bytes that it is given at a time, at most: a moment's work for a thread. */
  readonly most: number
  /**
   * @param piece `most` bytes at most.
   * @param last the piece ends its literal run.
   * @param history the last bytes that the client's decoder has from this file, where the codec refers back.
   * @returns parts that each begin a chunk of their own; never an empty one.
   */
  compress(
    piece: Uint8Array,
    last: boolean,
    history?: Uint8Array,
  ): Promise<readonly Uint8Array[]> | readonly Uint8Array[]
}

/** What deflate refers back to. */
export const DEFLATE_WINDOW = 32 * 1024

/**
 * How many bytes of the file's content, just before byte `from`, a client's decoder still has.
 *
 * With zlib a client feeds the blocks that it has into its window as well. From long ones, clients below protocol 31
 * feed other bytes (docs/rsync-protocol.md, section 8.6): `knownFrom` is the end of the last such block. With zlibx
 * there are only literal bytes in it: of these, the run that `from` is in.
 */
export function historyOf(codec: CodecName, from: number, runStart: number, knownFrom: number): number {
  if (codec === 'zlib') return Math.min(DEFLATE_WINDOW, from - knownFrom)
  return codec === 'zlibx' ? Math.min(DEFLATE_WINDOW, from - runStart) : 0
}

/** Blocks of which every client feeds the right bytes into its window. */
export const MOST_FED = 65535

/**
 * Whether the codec does anything at this level: 0 turns zlib off, on both sides. zstd takes 0 for its
 * default, lz4 has no levels.
 */
export function isOff(codec: CodecName, level: number | undefined): boolean {
  return level === 0 && (codec === 'zlib' || codec === 'zlibx')
}

/** @param level the client's wish, brought into the codec's range; what the stock server uses without one. */
export function createCompressor(codec: CodecName, level?: number, effort: Effort = 'normal'): Compressor {
  switch (codec) {
    case 'zstd':
      return createZstd(effort === 'least' ? ZSTD_LEAST : (level ?? ZSTD_DEFAULT))
    case 'lz4':
      return LZ4
    case 'zlib':
    case 'zlibx':
      return createDeflate(effort === 'least' ? constants.Z_NO_COMPRESSION : zlibLevel(level))
  }
}

/** Whether more work makes what the codec writes smaller. */
export function canRefine(codec: CodecName, effort: Effort): boolean {
  return codec !== 'lz4' && effort === 'normal'
}

/**
 * Compresses a whole run, or a piece of one, as well as the codec can, at once: for a thread that has time.
 * @param last the piece ends its literal run.
 * @param history as for `Compressor`.
 */
export function squeezeBest(
  codec: CodecName,
  piece: Uint8Array,
  last: boolean,
  history?: Uint8Array,
): Uint8Array[] {
  switch (codec) {
    case 'zstd': {
      const windowLog = Math.min(MAX_WINDOW_LOG, Math.max(10, Math.ceil(Math.log2(piece.length))))
      const params = {
        [constants.ZSTD_c_compressionLevel]: ZSTD_MAX,
        [constants.ZSTD_c_windowLog]: windowLog,
      }
      return [zstdCompressSync(piece, { params })]
    }
    case 'lz4':
      return [...(LZ4.compress(piece, last) as Uint8Array[])]
    case 'zlib':
    case 'zlibx': {
      const data = deflate(piece, history)
      return [last ? data.subarray(0, data.length - FLUSH_MARKER_SIZE) : data]
    }
  }
}

/** 8 MiB: what every decoder takes without being asked to. */
const MAX_WINDOW_LOG = 23

/** Up to this size compressing takes less time than handing the work to another thread and back. */
const INLINE_SIZE = 4096

// ---------------------------------------------------------------------------------------------------
// zstd

const ZSTD_DEFAULT = 3
/** Hardly looks for matches: what is compressed already goes through at the speed of a copy. */
const ZSTD_LEAST = -50
/** Where more negative levels stop making a difference. */
const ZSTD_MIN = -50
/** Levels above need windows that clients' decoders don't take, and gain nothing on pieces of this size. */
const ZSTD_MAX = 19
/** log2 of MAX_QUICK_PIECE. */
const ZSTD_QUICK_WINDOW_LOG = 20
/** log2 of MAX_PIECE, for levels above the default: a client chooses the level, and with it how much memory it takes. */
const ZSTD_WINDOW_LOG = 18
/** Tables that are as large as such a window needs them; the levels' own take 80 MB. */
const ZSTD_TABLE_LOG = 19

function createZstd(level: number): Compressor {
  const isQuick = level <= ZSTD_DEFAULT
  const params = {
    [constants.ZSTD_c_compressionLevel]: Math.min(ZSTD_MAX, Math.max(ZSTD_MIN, level)),
    [constants.ZSTD_c_windowLog]: isQuick ? ZSTD_QUICK_WINDOW_LOG : ZSTD_WINDOW_LOG,
    ...(!isQuick && {
      [constants.ZSTD_c_hashLog]: ZSTD_TABLE_LOG,
      [constants.ZSTD_c_chainLog]: ZSTD_TABLE_LOG,
    }),
  }
  return {
    most: isQuick ? MAX_QUICK_PIECE : MAX_PIECE,
    compress: async (piece) => {
      if (piece.length <= INLINE_SIZE) return [zstdCompressSync(piece, { params })]
      const frame = openFrame(params)
      try {
        return await frame.add(piece, true)
      } finally {
        frame.close()
      }
    },
  }
}

/** A zstd frame that is compressed run by run, each of which can be decoded as soon as it is there. */
export interface FrameCompressor {
  /**
   * One after the other.
   * @param last the frame ends with it.
   * @returns what comes of it, in parts.
   */
  add(bytes: Uint8Array, last: boolean): Promise<readonly Uint8Array[]>
  /** To be called once: gives its memory back. */
  close(): void
}

/** What began a frame is gone: it has to begin anew. */
export class FrameLost extends Error {}

/** @param level as for `createCompressor`. */
export function createFrame(level = ZSTD_DEFAULT): FrameCompressor {
  return openFrame({
    [constants.ZSTD_c_compressionLevel]: Math.min(ZSTD_FRAME_MOST, Math.max(ZSTD_MIN, level)),
    [constants.ZSTD_c_windowLog]: ZSTD_FRAME_WINDOW_LOG,
    // Twice the level's own, for next to no time: it makes up for what a frame can't know of those before it.
    ...(level === ZSTD_DEFAULT && { [constants.ZSTD_c_chainLog]: 17 }),
  })
}

/** As well as can be, for a thread that has time. */
export function createBestFrame(): FrameCompressor {
  return openFrame({
    [constants.ZSTD_c_compressionLevel]: ZSTD_MAX,
    [constants.ZSTD_c_windowLog]: MAX_WINDOW_LOG,
    // The level's own tables take 80 MB: they are for frames of any length.
    [constants.ZSTD_c_hashLog]: 21,
    [constants.ZSTD_c_chainLog]: 22,
  })
}

/** What level 3 takes by itself: 2 MiB. */
const ZSTD_FRAME_WINDOW_LOG = 21
/** Beyond, it takes seconds for what a client waits for, and tens of MB. */
const ZSTD_FRAME_MOST = 12

/** By number, as Node names them. */
type ZstdParams = Readonly<Record<number, number>>

/**
 * Streams of quick levels between two frames, the one that was used last at the end. One takes megabytes, which the
 * garbage collector counts: a new one for every frame makes it run all the time.
 */
const idleStreams: ZstdStream[] = []
const MOST_IDLE = 4
const IDLE_MS = 10_000

function openFrame(params: ZstdParams): FrameCompressor {
  const manner = JSON.stringify(params)
  const at = idleStreams.findLastIndex((stream) => stream.manner === manner)
  const stream = at < 0 ? new ZstdStream(manner, params) : idleStreams.splice(at, 1)[0]!
  stream.takeUp()
  return {
    add: (bytes, last) => stream.add(bytes, last),
    close: () => {
      if (!stream.layDown()) return
      idleStreams.push(stream)
      if (idleStreams.length > MOST_IDLE) idleStreams.shift()!.destroy()
    },
  }
}

/** Makes one frame after the other. */
class ZstdStream {
  readonly manner: string
  readonly #stream: ZstdCompress
  #parts: Buffer[] = []
  /** Takes little memory. */
  readonly #isQuick: boolean
  /** Nothing of a frame is in it. */
  #isClean = true
  #failure: Error | undefined
  #fail: ((error: Error) => void) | undefined
  #idle: NodeJS.Timeout | undefined

  constructor(manner: string, params: ZstdParams) {
    this.manner = manner
    this.#isQuick = params[constants.ZSTD_c_compressionLevel]! <= ZSTD_DEFAULT
    this.#stream = createZstdCompress({ flush: constants.ZSTD_e_flush, params, chunkSize: OUTPUT_BYTES })
    this.#stream.on('data', (part: Buffer) => this.#parts.push(part))
    const failed = (error: Error): void => {
      this.#failure ??= error
      this.#fail?.(error)
    }
    this.#stream.on('error', failed)
    this.#stream.on('close', () => failed(new FrameLost('the frame was given up')))
  }

  async add(bytes: Uint8Array, last: boolean): Promise<readonly Uint8Array[]> {
    if (this.#failure) throw this.#failure
    this.#isClean = false
    await new Promise<void>((resolve, reject) => {
      this.#fail = reject
      const done = (error?: Error | null): void => (error ? reject(error) : resolve())
      this.#stream.write(bytes, last ? undefined : done)
      if (last) this.#stream.flush(constants.ZSTD_e_end, done)
    })
    while (this.#stream.readableLength > 0) await nextTurn()
    if (this.#failure) throw this.#failure
    this.#isClean = last
    const parts = this.#parts
    this.#parts = []
    return parts
  }

  takeUp(): void {
    clearTimeout(this.#idle)
  }

  /** @returns whether it can make another frame. If nobody needs it soon it goes by itself. */
  layDown(): boolean {
    if (!this.#isClean || this.#failure || !this.#isQuick) {
      this.destroy()
      return false
    }
    this.#idle = setTimeout(() => {
      idleStreams.splice(idleStreams.indexOf(this), 1)
      this.destroy()
    }, IDLE_MS).unref()
    return true
  }

  destroy(): void {
    clearTimeout(this.#idle)
    this.#stream.destroy()
  }
}

/** Room for what comes out at a time: for more, the thread that compresses has to be asked once more. */
const OUTPUT_BYTES = 256 * 1024

// ---------------------------------------------------------------------------------------------------
// lz4

/** The largest block whose chunk holds it even when nothing in it repeats, so that none is tried twice. */
const LZ4_BLOCK = 16304

const LZ4: Compressor = {
  most: MAX_PIECE,
  compress: (piece) => {
    const blocks: Uint8Array[] = []
    for (let at = 0; at < piece.length; at += LZ4_BLOCK) {
      blocks.push(compressLz4Block(piece.subarray(at, at + LZ4_BLOCK)))
    }
    return blocks
  },
}

// ---------------------------------------------------------------------------------------------------
// zlib and zlibx

const ZLIB_DEFAULT = 6
/** What deflate writes at a flush: the client puts it back at the end of each run. */
const FLUSH_MARKER_SIZE = 4

function zlibLevel(wish = -1): number {
  return wish === -1 ? ZLIB_DEFAULT : Math.min(9, Math.max(1, wish))
}

function deflateOptions(level: number, history: Uint8Array | undefined): ZlibOptions {
  const options = { level, finishFlush: constants.Z_SYNC_FLUSH }
  return history?.length ? { ...options, dictionary: history } : options
}

function createDeflate(level: number): Compressor {
  return {
    most: MAX_PIECE,
    compress: async (piece, last, history) => {
      const options = deflateOptions(level, history)
      const data =
        piece.length <= INLINE_SIZE ? deflateRawSync(piece, options) : await compressDeflate(piece, options)
      return [last ? data.subarray(0, data.length - FLUSH_MARKER_SIZE) : data]
    },
  }
}

const compressDeflate = promisify(deflateRaw)
