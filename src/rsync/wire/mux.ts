/**
 * Multiplexing: once it starts, each byte of a direction travels in a frame of four bytes of header,
 * ((7 + tag) << 24) | length, and its payload. docs/rsync-protocol.md, sections 3.6 and 3.7.
 */
import { PeerError } from '../../errors.ts'
import type { Decoded } from '../../lib/byte-reader.ts'
import { i32At } from './ints.ts'

/** [mux-tag] Those that a sending server sends or understands. */
export const TAG = {
  data: 0,
  errorXfer: 1,
  info: 2,
  error: 3,
  warning: 4,
  ioError: 22,
  ioTimeout: 33,
  noop: 42,
  errorExit: 86,
  success: 100,
  deleted: 101,
  noSend: 102,
} as const

export const FRAME_HEADER_SIZE = 4
/** The length field has 24 bits. */
export const FRAME_MAX = 0xffffff
/** Text frames must stay below the client's own buffer, which is a little over 5,000 bytes. */
export const TEXT_MAX = 4096

export interface FrameHeader {
  tag: number
  length: number
}

/** @throws RangeError for a longer frame than there can be, which would be read as another. */
export function writeFrameHeader(target: Buffer, offset: number, tag: number, length: number): void {
  if (length > FRAME_MAX) throw new RangeError(`a frame of ${length} bytes`)
  target.writeUInt32LE((((7 + tag) << 24) | length) >>> 0, offset)
}

/** [mux-header] */
export function decodeFrameHeader(bytes: Uint8Array): Decoded<FrameHeader> | undefined {
  if (bytes.length < FRAME_HEADER_SIZE) return undefined
  const word = i32At(bytes, 0)
  const tag = (word >>> 24) - 7
  if (tag < 0) throw new PeerError('mux-header', `frame with tag ${tag}`)
  return { value: { tag, length: word & FRAME_MAX }, size: FRAME_HEADER_SIZE }
}
