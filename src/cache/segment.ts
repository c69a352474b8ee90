/**
 * The format of a segment: records one after the other, each with a header that tells how to go on to the
 * next. Pure functions over bytes.
 *
 *     header   8 bytes   "UPSVCA" and the version, u16
 *     record   32 bytes  CRC-32 of the 28 bytes that follow; length of the payload; CRC-32 of the payload;
 *                        4 bytes 0; key, 16 bytes
 *              payload
 *
 * All numbers little-endian. A segment is only ever appended to. Nothing in it needs to survive a crash:
 * what is torn is noticed by its CRC and passed over.
 */
import { crc32 } from 'node:zlib'
import { asBuffer } from '../lib/bytes.ts'
import { KEY_BYTES } from './key-table.ts'

/** A segment of another version is deleted: whatever it holds can be worked out again. */
const VERSION = 1
const MAGIC = Buffer.from('UPSVCA')
export const SEGMENT_HEADER_BYTES = MAGIC.length + 2
export const RECORD_HEADER_BYTES = 32
const KEY_AT = RECORD_HEADER_BYTES - KEY_BYTES

export interface RecordHeader {
  key: Uint8Array
  /** Bytes of the payload. */
  length: number
  /** CRC-32 of the payload. */
  crc: number
}

export function encodeSegmentHeader(): Buffer {
  const header = Buffer.alloc(SEGMENT_HEADER_BYTES)
  MAGIC.copy(header)
  header.writeUInt16LE(VERSION, MAGIC.length)
  return header
}

export function isSegmentHeader(bytes: Uint8Array): boolean {
  return encodeSegmentHeader().equals(bytes)
}

export function encodeRecordHeader({ key, length, crc }: RecordHeader): Buffer {
  const header = Buffer.alloc(RECORD_HEADER_BYTES)
  header.writeUInt32LE(length, 4)
  header.writeUInt32LE(crc, 8)
  header.set(key, KEY_AT)
  header.writeUInt32LE(crc32(header.subarray(4)), 0)
  return header
}

/** Undefined when these bytes are no header: the segment ends here, or is damaged. */
export function decodeRecordHeader(bytes: Uint8Array): RecordHeader | undefined {
  const header = asBuffer(bytes)
  if (header.length < RECORD_HEADER_BYTES || crc32(header.subarray(4)) !== header.readUInt32LE(0))
    return undefined
  return {
    key: Uint8Array.from(header.subarray(KEY_AT)),
    length: header.readUInt32LE(4),
    crc: header.readUInt32LE(8),
  }
}
