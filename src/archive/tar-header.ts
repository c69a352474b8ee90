/**
 * The 512-byte tar header block: v7, POSIX ustar and GNU. A pure codec.
 *
 * Only the layout is known here; what a type means, and which long names or pax records replace a field,
 * is `tar.ts`'s business. Numbers are octal text, or base-256 (GNU's and star's way of writing what octal
 * has no room for: the first byte's top bit is set, the rest is a big-endian two's complement number).
 */
import { ArchiveError } from '../errors.ts'
import { asBuffer, type ByteString, byteString, showBytes } from '../lib/bytes.ts'

export const BLOCK_BYTES = 512

export interface TarHeader {
  /** By the magic. `gnu` is "ustar" and two spaces and a NUL; its block has no name prefix. */
  format: 'v7' | 'ustar' | 'gnu'
  /** With ustar's prefix in front. Not canonical yet. */
  name: ByteString
  /** One character; v7's NUL is given as '0', which means the same. */
  type: string
  /** Permission bits: other bits (old tars put the file type here) are cut off. */
  mode: number
  uid: number
  gid: number
  size: number
  /** Seconds; negative before 1970. */
  mtime: number
  linkName: ByteString
  userName: ByteString
  groupName: ByteString
  /** 0 for all but devices, since writers leave anything here. */
  major: number
  minor: number
}

/** Owners and device numbers are 32 bits wide on every system that makes archives. */
export const MAX_UINT32 = 2 ** 32 - 1

interface Field {
  readonly label: string
  readonly at: number
  readonly length: number
}

const NAME: Field = { label: 'name', at: 0, length: 100 }
const MODE: Field = { label: 'mode', at: 100, length: 8 }
const UID: Field = { label: 'uid', at: 108, length: 8 }
const GID: Field = { label: 'gid', at: 116, length: 8 }
const SIZE: Field = { label: 'size', at: 124, length: 12 }
const MTIME: Field = { label: 'mtime', at: 136, length: 12 }
const CHECKSUM: Field = { label: 'checksum', at: 148, length: 8 }
const TYPE_AT = 156
const LINK_NAME: Field = { label: 'link name', at: 157, length: 100 }
const MAGIC_AT = 257
const USER_NAME: Field = { label: 'user name', at: 265, length: 32 }
const GROUP_NAME: Field = { label: 'group name', at: 297, length: 32 }
const MAJOR: Field = { label: 'device major', at: 329, length: 8 }
const MINOR: Field = { label: 'device minor', at: 337, length: 8 }
const PREFIX: Field = { label: 'prefix', at: 345, length: 155 }

/** Reads a block whose checksum is right. Throws an ArchiveError that names the entry and the field. */
export function decodeTarHeader(bytes: Uint8Array): TarHeader {
  const block = asBuffer(bytes)
  const format = formatOf(block)
  const typeByte = block[TYPE_AT]!
  const type = typeByte === 0 ? '0' : String.fromCharCode(typeByte)
  const ownName = textField(block, NAME)
  const prefix = format === 'ustar' ? textField(block, PREFIX) : ''
  const name = prefix === '' ? ownName : (`${prefix}/${ownName}` as ByteString)
  const number = (field: Field, min: number, max: number) => {
    const value = decodeNumber(block, field.at, field.length)
    if (value !== undefined && value >= min && value <= max) return value
    const held = showBytes(byteString(block, field.at, field.at + field.length))
    throw new ArchiveError(`"${showBytes(name)}" has a bad ${field.label} in its tar header: "${held}"`)
  }
  const isDevice = type === '3' || type === '4'
  return {
    format,
    name,
    type,
    mode: number(MODE, -Infinity, Infinity) & 0o7777,
    uid: number(UID, 0, MAX_UINT32),
    gid: number(GID, 0, MAX_UINT32),
    size: number(SIZE, 0, Number.MAX_SAFE_INTEGER),
    mtime: number(MTIME, -Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
    linkName: textField(block, LINK_NAME),
    userName: format === 'v7' ? ('' as ByteString) : textField(block, USER_NAME),
    groupName: format === 'v7' ? ('' as ByteString) : textField(block, GROUP_NAME),
    major: isDevice ? number(MAJOR, 0, MAX_UINT32) : 0,
    minor: isDevice ? number(MINOR, 0, MAX_UINT32) : 0,
  }
}

/**
 * Whether the block's checksum is right: the sum of its bytes, the checksum field itself counted as
 * spaces. Some old tars (SunOS, early GNU) summed the bytes as signed, so both sums will do.
 */
export function checksumMatches(block: Uint8Array): boolean {
  const expected = decodeNumber(block, CHECKSUM.at, CHECKSUM.length)
  if (expected === undefined) return false
  let sum = 0
  for (let i = 0; i < BLOCK_BYTES; i++) sum += block[i]!
  for (let i = CHECKSUM.at; i < CHECKSUM.at + CHECKSUM.length; i++) sum += 0x20 - block[i]!
  if (sum === expected) return true
  for (let i = 0; i < BLOCK_BYTES; i++) if (block[i]! >= 0x80) sum -= 0x100
  for (let i = CHECKSUM.at; i < CHECKSUM.at + CHECKSUM.length; i++) if (block[i]! >= 0x80) sum += 0x100
  return sum === expected
}

/** "ustar" stands where POSIX and GNU tars put it; says nothing about the rest of the block. */
export function hasUstarMagic(block: Uint8Array): boolean {
  return block.length >= MAGIC_AT + 5 && byteString(block, MAGIC_AT, MAGIC_AT + 5) === 'ustar'
}

/** All NUL: a block of the end-of-archive marker. */
export function isZeroBlock(block: Uint8Array): boolean {
  return isAllZero(block, 0, BLOCK_BYTES)
}

/** Whether the bytes from `start` to `end` are all NUL. */
export function isAllZero(bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) if (bytes[i] !== 0) return false
  return true
}

/**
 * A numeric field, or undefined when it holds no number or one beyond 2^53. Octal text may be padded in
 * front by spaces and ends at a space, a NUL or the field's end; behind that, writers leave anything. A
 * blank field is 0, as every reader has it.
 */
export function decodeNumber(block: Uint8Array, at: number, length: number): number | undefined {
  const end = at + length
  const first = block[at]!
  let value = 0
  if (first & 0x80) {
    // Doubles stay exact until 2^53, and beyond it the value never comes back into the safe range.
    value = first & 0x40 ? (first & 0x7f) - 0x80 : first & 0x7f
    for (let i = at + 1; i < end; i++) value = value * 256 + block[i]!
    return Number.isSafeInteger(value) ? value : undefined
  }
  let i = at
  while (i < end && block[i] === SPACE) i++
  for (; i < end; i++) {
    const digit = block[i]! - ZERO
    if (digit >= 0 && digit <= 7) value = value * 8 + digit
    else if (block[i] === 0 || block[i] === SPACE) break
    else return undefined
  }
  return value
}

function textField(block: Buffer, { at, length }: Field): ByteString {
  let end = at
  while (end < at + length && block[end] !== 0) end++
  // Most of these fields are empty, and a string from native code costs far more than looking.
  return end === at ? ('' as ByteString) : byteString(block, at, end)
}

function formatOf(block: Uint8Array): TarHeader['format'] {
  if (!hasUstarMagic(block)) return 'v7'
  // POSIX says "ustar\0" and a version; GNU tar "ustar  \0". The bytes of a GNU block's prefix are times.
  return block[MAGIC_AT + 5] === SPACE ? 'gnu' : 'ustar'
}

const SPACE = 0x20
const ZERO = 0x30
