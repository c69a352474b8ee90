/**
 * Pax extended headers: the records that replace header fields too small for what they must hold, and
 * carry extended attributes and sparse maps. A pure codec.
 *
 * A record is "LENGTH KEY=VALUE\n", where LENGTH counts the whole record. Only LENGTH says where a value
 * ends: values of extended attributes are bytes, with NULs and line feeds in them.
 *
 * Keys that describe nothing a build has (comment, atime, hdrcharset, SCHILY.acl.* and vendors' own) are
 * ignored: names and values are bytes to us, whatever charset they claim.
 */
import { ArchiveError } from '../errors.ts'
import { type ByteString, byteString, showBytes } from '../lib/bytes.ts'
import { MAX_UINT32 } from './tar-header.ts'

/** What the records of one or more extended headers say. A field that is undefined says nothing. */
export interface PaxFields {
  path?: ByteString
  linkPath?: ByteString
  size?: number
  uid?: number
  gid?: number
  userName?: ByteString
  groupName?: ByteString
  mtime?: PaxTime
  major?: number
  minor?: number
  xattrs?: Map<ByteString, Uint8Array>
  sparse?: PaxSparse
}

export interface PaxTime {
  /** Rounded down. */
  seconds: number
  nanoseconds: number
}

/** GNU tar's sparse records, versions 0.0 (OFFSET and NUMBYTES, repeated), 0.1 (MAP) and 1.0 (map in the data). */
export interface PaxSparse {
  /** Version 1.0: the map stands in front of the member's data. */
  mapInData: boolean
  name?: ByteString
  realSize?: number
  /** Offset and length of each run of data, one after the other. */
  runs: number[]
}

/** Linux's XATTR_NAME_MAX. */
export const MAX_XATTR_NAME_BYTES = 255
/** Linux's XATTR_SIZE_MAX. */
export const MAX_XATTR_VALUE_BYTES = 65_536
/** Linux lists at most 64 KiB of names per file; real files have under ten attributes. */
export const MAX_XATTRS = 1024
/** ext4 without ea_inode holds one block of them, XFS a few of 64 KiB; this is beyond what is seen. */
export const MAX_XATTRS_BYTES = 1024 * 1024

/**
 * The records of `data` on top of `base` (the global headers so far, or an earlier header of the same
 * member), which is left as it is. `header` is the extended header's own name, for messages.
 */
export function decodePax(data: Uint8Array, base: PaxFields, header: ByteString): PaxFields {
  const fields: PaxFields = { ...base }
  if (base.xattrs) fields.xattrs = new Map(base.xattrs)
  if (base.sparse) fields.sparse = { ...base.sparse, runs: [...base.sparse.runs] }
  const records = new Records(header)
  for (let at = 0; at < data.length; ) {
    const end = records.endOf(data, at)
    const keyAt = data.indexOf(SPACE, at) + 1
    const equals = data.indexOf(EQUALS, keyAt)
    if (equals === -1 || equals >= end) throw records.bad('has no "="', byteString(data, keyAt, end - 1))
    apply(fields, records, byteString(data, keyAt, equals), data.subarray(equals + 1, end - 1))
    at = end
  }
  if (fields.xattrs) checkXattrTotals(fields.xattrs, header)
  return fields
}

/** The keys whose values are bytes as they are, and the fields that they fill. */
const TEXT_KEYS = new Map<string, 'path' | 'linkPath' | 'userName' | 'groupName'>([
  ['path', 'path'],
  ['linkpath', 'linkPath'],
  ['uname', 'userName'],
  ['gname', 'groupName'],
])

/** The keys whose values are decimal numbers, the fields that they fill, and the largest that passes. */
const NUMBER_KEYS = new Map<string, readonly ['size' | 'uid' | 'gid' | 'major' | 'minor', number]>([
  ['size', ['size', Number.MAX_SAFE_INTEGER]],
  ['uid', ['uid', MAX_UINT32]],
  ['gid', ['gid', MAX_UINT32]],
  ['SCHILY.devmajor', ['major', MAX_UINT32]],
  ['SCHILY.devminor', ['minor', MAX_UINT32]],
])

/** Enters one record. An empty value takes back what an earlier header said under this key. */
function apply(fields: PaxFields, records: Records, key: ByteString, value: Uint8Array): void {
  const textField = TEXT_KEYS.get(key)
  if (textField) {
    fields[textField] = value.length === 0 ? undefined : byteString(value)
    return
  }
  const numberField = NUMBER_KEYS.get(key)
  if (numberField) {
    const [field, max] = numberField
    fields[field] = value.length === 0 ? undefined : records.number(key, byteString(value), max)
    return
  }
  if (key === 'mtime') fields.mtime = value.length === 0 ? undefined : records.time(key, byteString(value))
  else if (key.startsWith(GNU_SPARSE)) applySparse(fields, records, key, byteString(value))
  else if (key.startsWith(SCHILY_XATTR)) {
    // GNU tar writes "=" and "%" of a name as %3D and %25, and nothing else so.
    const name = key.slice(SCHILY_XATTR.length).replace(/%3D/g, '=').replace(/%25/g, '%')
    addXattr(fields, records, name as ByteString, value)
  } else if (key.startsWith(LIBARCHIVE_XATTR)) {
    const name = key.slice(LIBARCHIVE_XATTR.length).replace(/%([0-9A-Fa-f]{2})/g, fromHexPair)
    const encoded = byteString(value)
    if (!/^[A-Za-z0-9+/]*={0,2}$/.test(encoded)) throw records.bad('is not base64', key)
    addXattr(fields, records, name as ByteString, Buffer.from(encoded, 'base64'))
  }
}

function applySparse(fields: PaxFields, records: Records, key: ByteString, value: ByteString): void {
  fields.sparse ??= { mapInData: false, runs: [] }
  const { sparse } = fields
  const number = () => records.number(key, value, Number.MAX_SAFE_INTEGER)
  switch (key.slice(GNU_SPARSE.length)) {
    case 'major':
      // Versions 0.0 and 0.1 do without this key, or say 0.
      if (number() > 1) throw records.bad(`is "${showBytes(value)}", a sparse format we do not know`, key)
      sparse.mapInData = number() === 1
      return
    case 'minor':
      if (sparse.mapInData && number() !== 0) {
        throw records.bad(`is "${showBytes(value)}", a sparse format we do not know`, key)
      }
      return
    case 'name':
      sparse.name = value
      return
    case 'size': // 0.0 and 0.1
    case 'realsize': // 1.0
      sparse.realSize = number()
      return
    case 'offset':
      if (sparse.runs.length % 2 !== 0) throw records.bad('follows another offset', key)
      sparse.runs.push(number())
      return
    case 'numbytes':
      if (sparse.runs.length % 2 !== 1) throw records.bad('does not follow an offset', key)
      sparse.runs.push(number())
      return
    case 'map':
      sparse.runs =
        value === '' ? [] : value.split(',').map((n) => records.number(key, n, Number.MAX_SAFE_INTEGER))
      if (sparse.runs.length % 2 !== 0) throw records.bad('has an odd number of numbers', key)
      return
  }
}

function addXattr(fields: PaxFields, records: Records, name: ByteString, value: Uint8Array): void {
  fields.xattrs ??= new Map()
  const { xattrs } = fields
  if (name === '' || name.length > MAX_XATTR_NAME_BYTES || name.includes('\0')) {
    throw records.bad(`is not a name of 1 to ${MAX_XATTR_NAME_BYTES} bytes for an extended attribute`, name)
  }
  if (value.length > MAX_XATTR_VALUE_BYTES) {
    throw records.bad(`has ${value.length} bytes, more than ${MAX_XATTR_VALUE_BYTES}`, name)
  }
  xattrs.set(name, Uint8Array.from(value)) // the header's bytes are only lent
}

function checkXattrTotals(xattrs: ReadonlyMap<ByteString, Uint8Array>, header: ByteString): void {
  let bytes = 0
  for (const [name, value] of xattrs) bytes += name.length + value.length
  if (xattrs.size > MAX_XATTRS || bytes > MAX_XATTRS_BYTES) {
    throw new ArchiveError(
      `${showHeader(header)}: ${xattrs.size} extended attributes of ${bytes} bytes in all, ` +
        `more than ${MAX_XATTRS} or ${MAX_XATTRS_BYTES} bytes`,
    )
  }
}

/** Reads parts of records, and knows the header's name for messages. */
class Records {
  readonly #header: ByteString

  constructor(header: ByteString) {
    this.#header = header
  }

  /** Where the record at `at` ends, its closing line feed included. */
  endOf(data: Uint8Array, at: number): number {
    let length = 0
    let i = at
    for (; data[i]! >= 0x30 && data[i]! <= 0x39 && i - at < MAX_LENGTH_DIGITS; i++) {
      length = length * 10 + data[i]! - 0x30
    }
    const end = at + length
    if (i === at || data[i] !== SPACE || end > data.length || end <= i + 1 || data[end - 1] !== LINE_FEED) {
      throw this.bad('has a wrong length', byteString(data, at, Math.min(at + 40, data.length)))
    }
    return end
  }

  number(key: ByteString, text: string, max: number): number {
    const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN
    if (!(value <= max))
      throw this.bad(`is "${showBytes(text as ByteString)}", not a number up to ${max}`, key)
    return value
  }

  /** "1700000000.123456789", "-1.5": any number of digits behind the point. */
  time(key: ByteString, text: ByteString): PaxTime {
    const match = /^(-?)([0-9]{1,15})(?:\.([0-9]*))?$/.exec(text)
    if (!match) throw this.bad(`is "${showBytes(text)}", not a time`, key)
    const whole = Number(match[2])
    const digits = match[3] ?? ''
    const nanoseconds = Number(digits.slice(0, 9).padEnd(9, '0'))
    if (match[1] === '') return { seconds: whole, nanoseconds }
    // Rounding down means away from zero here, also for digits beyond the ninth.
    const below = nanoseconds + (/[1-9]/.test(digits.slice(9)) ? 1 : 0)
    if (below === 0) return { seconds: 0 - whole, nanoseconds: 0 }
    return { seconds: -whole - 1, nanoseconds: 1e9 - below }
  }

  bad(why: string, what: ByteString): ArchiveError {
    return new ArchiveError(`${showHeader(this.#header)}: the record "${showBytes(what)}" ${why}`)
  }
}

function showHeader(header: ByteString): string {
  return `the pax header "${showBytes(header)}"`
}

function fromHexPair(_: string, pair: string): string {
  return String.fromCharCode(Number.parseInt(pair, 16))
}

const GNU_SPARSE = 'GNU.sparse.'
const SCHILY_XATTR = 'SCHILY.xattr.'
const LIBARCHIVE_XATTR = 'LIBARCHIVE.xattr.'
const SPACE = 0x20
const EQUALS = 0x3d
const LINE_FEED = 0x0a
/** 10^10 is beyond any header that is read at all. */
const MAX_LENGTH_DIGITS = 10
