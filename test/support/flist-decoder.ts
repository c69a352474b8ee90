/**
 * The receiving half of the file list, which the server itself never needs: written straight from the
 * tables of docs/rsync-protocol.md, sections 6.2 to 6.8, so that the encoder is held to them.
 */
import { type ByteString, byteString } from '../../src/lib/bytes.ts'
import {
  BLOCK_DEVICE,
  CHAR_DEVICE,
  DIRECTORY,
  FIFO,
  REGULAR,
  SOCKET,
  SYMLINK,
  TYPE_MASK,
} from '../../src/lib/file-mode.ts'
import type { FlistFormat } from '../../src/rsync/wire/flist.ts'
import { decodeI32, decodeLongint, decodeU8, decodeVarint, decodeVarlong } from '../../src/rsync/wire/ints.ts'

export interface DecodedEntry {
  flags: number
  name: ByteString
  size: number
  mtime: number
  mtimeNsec: number
  mode: number
  uid: number
  gid: number
  /** 'major:minor', at protocol 27 the raw number; undefined where none travels. */
  rdev: string | undefined
  linkTarget: ByteString | undefined
  /** Equal for names of one file: 'dev:ino' below protocol 30, the first name's index from 30 on. */
  link: string | undefined
  checksum: string | undefined
}

/** Pulls values off the front of a buffer. */
export class Cursor {
  readonly #bytes: Uint8Array
  at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get left(): number {
    return this.#bytes.length - this.at
  }

  read<T>(decoder: (bytes: Uint8Array) => { value: T; size: number } | undefined): T {
    const got = decoder(this.#bytes.subarray(this.at))
    if (!got) throw new Error(`the bytes end at ${this.at}`)
    this.at += got.size
    return got.value
  }

  take(size: number): Buffer {
    if (size > this.left) throw new Error(`${size} bytes wanted, ${this.left} left`)
    this.at += size
    return Buffer.from(this.#bytes.subarray(this.at - size, this.at))
  }
}

export interface DecodedList {
  entries: DecodedEntry[]
  ioError: number
}

/**
 * Reads entries up to the end marker; id lists and what follows them are left in the cursor.
 * @param behindEntry reads what stands behind each entry: ACLs and extended attributes.
 */
export function decodeFlist(
  cursor: Cursor,
  format: FlistFormat,
  behindEntry: (cursor: Cursor, entry: DecodedEntry) => void = () => {},
): DecodedList {
  const { protocol } = format
  const int = (): number => cursor.read(protocol < 30 ? decodeI32 : decodeVarint)
  const entries: DecodedEntry[] = []
  let last = { name: '', mode: 0, mtime: 0, atime: 0, uid: 0, gid: 0, major: 0, rdev27: 0, dev: 0 }

  for (;;) {
    let flags = format.varintFlags ? cursor.read(decodeVarint) : cursor.read(decodeU8)
    if (flags === 0) {
      return { entries, ioError: format.varintFlags ? cursor.read(decodeVarint) : 0 }
    }
    if (!format.varintFlags && protocol >= 28 && flags & 0x04) flags |= cursor.read(decodeU8) << 8
    if (!format.varintFlags && flags === 0x1004 && protocol >= 30) {
      return { entries, ioError: cursor.read(decodeVarint) }
    }
    const prefix = flags & 0x20 ? cursor.read(decodeU8) : 0
    const suffix = flags & 0x40 ? int() : cursor.read(decodeU8)
    const name = last.name.slice(0, prefix) + byteString(cursor.take(suffix))
    if (prefix > last.name.length) throw new Error(`prefix ${prefix} of "${last.name}"`)

    const linked = protocol >= 30 && (flags & 0x200) !== 0
    if (linked && !(flags & 0x1000)) {
      const first = cursor.read(decodeVarint)
      const model = entries[first]
      if (!model) throw new Error(`linked to entry ${first} of ${entries.length}`)
      const entry = { ...model, flags, name: name as ByteString, link: String(first) }
      if (model.link !== String(first)) throw new Error(`entry ${first} is no first link`)
      behindEntry(cursor, entry)
      entries.push(entry)
      last = { ...last, name, mode: entry.mode, mtime: entry.mtime, uid: entry.uid, gid: entry.gid }
      if (format.atimes) last.atime = entry.mtime
      continue
    }

    const size = protocol < 30 ? cursor.read(decodeLongint) : cursor.read((b) => decodeVarlong(b, 3))
    const time = (): number => cursor.read((bytes) => decodeVarlong(bytes, 4))
    const mtime = flags & 0x80 ? last.mtime : protocol < 30 ? cursor.read(decodeI32) >>> 0 : time()
    const mtimeNsec = protocol >= 31 && flags & 0x2000 ? cursor.read(decodeVarint) : 0
    if (format.crtimes && !(flags & 0x20000)) time()
    const mode = flags & 0x02 ? last.mode : cursor.read(decodeI32)
    const type = mode & TYPE_MASK
    if (format.atimes && type !== DIRECTORY && !(flags & 0x4000)) last.atime = time()
    if (!format.owner && !(flags & 0x08)) throw new Error('SAME_UID is missing')
    if (!format.group && !(flags & 0x10)) throw new Error('SAME_GID is missing')
    if (entries.length === 0 && ((format.owner && flags & 0x08) || (format.group && flags & 0x10))) {
      throw new Error('the first entry has no ids to repeat')
    }
    const uid = flags & 0x08 ? last.uid : int()
    const gid = flags & 0x10 ? last.gid : int()

    const isDevice = type === CHAR_DEVICE || type === BLOCK_DEVICE
    const isSpecial = type === FIFO || type === SOCKET
    let rdev: string | undefined
    if ((isDevice && format.devices) || (isSpecial && format.specials && protocol < 31)) {
      if (protocol === 27) {
        if (isSpecial && !(flags & 0x04)) throw new Error('a special without SAME_RDEV')
        if (!(flags & 0x04)) last.rdev27 = cursor.read(decodeI32)
        rdev = String(last.rdev27 >>> 0)
      } else {
        if (!(flags & 0x100)) last.major = int()
        const minor = protocol < 30 && flags & 0x800 ? cursor.read(decodeU8) : int()
        rdev = `${last.major}:${minor}`
      }
    } else if (protocol === 27 && !isDevice && !isSpecial) {
      last.rdev27 = 0
    }
    const linkTarget = type === SYMLINK && format.links ? byteString(cursor.take(int())) : undefined

    let link: string | undefined
    if (protocol >= 30) {
      if (linked) link = String(entries.length)
    } else if (format.hardLinks && (protocol === 27 ? type === REGULAR : (flags & 0x200) !== 0)) {
      if (protocol === 27 || !(flags & 0x400)) last.dev = cursor.read(decodeLongint)
      link = `${last.dev}:${cursor.read(decodeLongint)}`
    }
    const checksum =
      format.checksumLength > 0 && (type === REGULAR || protocol === 27)
        ? cursor.take(format.checksumLength).toString('hex')
        : undefined
    const entry: DecodedEntry = {
      flags,
      name: name as ByteString,
      size,
      mtime,
      mtimeNsec,
      mode,
      uid,
      gid,
      rdev,
      linkTarget,
      link,
      checksum,
    }
    behindEntry(cursor, entry)
    entries.push(entry)
    last = { ...last, name, mode, mtime, uid, gid }
  }
}

/** An id list: names by id. With `id0Names` the terminator brings the name of id 0. */
export function decodeIdList(
  cursor: Cursor,
  { protocol, id0Names }: { protocol: number; id0Names: boolean },
): Map<number, string> {
  const names = new Map<number, string>()
  for (;;) {
    const id = cursor.read(protocol < 30 ? decodeI32 : decodeVarint)
    if (id !== 0 || id0Names) {
      const name = byteString(cursor.take(cursor.read(decodeU8)))
      if (id !== 0 || name !== '') names.set(id, name)
    }
    if (id === 0) return names
  }
}
