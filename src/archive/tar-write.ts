/**
 * The header of a tar entry, for archives that we hand out: POSIX ustar, and before it a pax header for what
 * ustar has no room for. A pure codec. Names are bytes and stay so.
 */
import { hash } from 'node:crypto'
import { type ByteString, toBuffer } from '../lib/bytes.ts'
import { BLOCK_BYTES } from './tar-header.ts'

export interface TarEntry {
  /** Relative, without a slash at the end. */
  path: ByteString
  /** One character: '0' a file, '1' a hard link, '2' a symlink, '3' '4' devices, '5' a directory, '6' a fifo. */
  type: string
  /** Permission bits. */
  mode: number
  uid: number
  gid: number
  userName: ByteString
  groupName: ByteString
  /** Bytes that follow; 0 for all but files. */
  size: number
  mtime: number
  mtimeNsec: number
  /** Of a symlink what it says, of a hard link the path of the other name. */
  target: ByteString
  major: number
  minor: number
  xattrs: readonly { name: ByteString; value: Uint8Array }[]
}

/** What ends an archive. */
export const TAR_END = Buffer.alloc(2 * BLOCK_BYTES)

const NAME_BYTES = 100
const OWNER_BYTES = 31
/** Largest numbers that the octal digits of a field hold. */
const MOST_OWNER = 0o7777777
const MOST_SIZE = 0o77777777777

/** All that precedes the content of an entry. */
export function encodeTarHeader(entry: TarEntry): Buffer {
  const path = entry.type === '5' ? `${entry.path}/` : entry.path
  const records: Buffer[] = []
  const say = (key: string, value: Uint8Array): void => {
    records.push(paxRecord(key, value))
  }
  const text = (value: string): Buffer => Buffer.from(value, 'latin1')
  if (path.length > NAME_BYTES) say('path', text(path))
  if (entry.target.length > NAME_BYTES) say('linkpath', text(entry.target))
  if (entry.uid > MOST_OWNER) say('uid', text(String(entry.uid)))
  if (entry.gid > MOST_OWNER) say('gid', text(String(entry.gid)))
  if (entry.size > MOST_SIZE) say('size', text(String(entry.size)))
  if (entry.userName.length > OWNER_BYTES) say('uname', text(entry.userName))
  if (entry.groupName.length > OWNER_BYTES) say('gname', text(entry.groupName))
  const { mtime, mtimeNsec } = entry
  if (mtimeNsec !== 0 || mtime < 0 || mtime > MOST_SIZE) say('mtime', text(paxTime(mtime, mtimeNsec)))
  for (const { name, value } of entry.xattrs) say(`SCHILY.xattr.${name}`, value)
  const header = block(path, entry)
  if (records.length === 0) return header
  const pax = Buffer.concat(records)
  // A name of its own for each, in case that a tar without pax unpacks it; never one that could be meant.
  const name = `PaxHeaders/${hash('sha1', toBuffer(entry.path)).slice(0, 16)}` as ByteString
  const head = block(name, { ...entry, type: 'x', mode: 0o644, size: pax.length, target: '' as ByteString })
  return Buffer.concat([head, pax, tarPadding(pax.length), header])
}

/** What follows content of so many bytes. */
export function tarPadding(size: number): Buffer {
  const rest = size % BLOCK_BYTES
  return TAR_END.subarray(0, rest === 0 ? 0 : BLOCK_BYTES - rest)
}

function block(path: string, entry: TarEntry): Buffer {
  const header = Buffer.alloc(BLOCK_BYTES)
  const put = (value: string, at: number, length: number): void => {
    header.write(value.slice(0, length), at, 'latin1')
  }
  /** What does not fit is in the pax header. */
  const octal = (value: number, at: number, digits: number, most: number): void => {
    const fits = value >= 0 && value <= most
    put((fits ? value : 0).toString(8).padStart(digits, '0'), at, digits)
  }
  put(path, 0, NAME_BYTES)
  octal(entry.mode, 100, 7, MOST_OWNER)
  octal(entry.uid, 108, 7, MOST_OWNER)
  octal(entry.gid, 116, 7, MOST_OWNER)
  octal(entry.size, 124, 11, MOST_SIZE)
  octal(entry.mtime, 136, 11, MOST_SIZE)
  header.fill(' ', 148, 156)
  put(entry.type, 156, 1)
  put(entry.target, 157, NAME_BYTES)
  put('ustar\x0000', 257, 8)
  put(entry.userName, 265, OWNER_BYTES)
  put(entry.groupName, 297, OWNER_BYTES)
  octal(entry.major, 329, 7, MOST_OWNER)
  octal(entry.minor, 337, 7, MOST_OWNER)
  let sum = 0
  for (const byte of header) sum += byte
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return header
}

/** "LENGTH KEY=VALUE\n", where LENGTH counts itself. */
function paxRecord(key: string, value: Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, 'latin1'), value, Buffer.from('\n')])
  let length = rest.length
  for (let digits = 1; length !== digits + rest.length; digits = String(length).length)
    length = digits + rest.length
  return Buffer.concat([Buffer.from(String(length)), rest])
}

/** Decimal seconds. Nanoseconds count upwards, also before 1970. */
function paxTime(seconds: number, nanoseconds: number): string {
  if (seconds >= 0 || nanoseconds === 0) return `${seconds}.${String(nanoseconds).padStart(9, '0')}`
  const whole = seconds + 1
  const fraction = String(1_000_000_000 - nanoseconds).padStart(9, '0')
  return `-${Math.abs(whole)}.${fraction}`
}
