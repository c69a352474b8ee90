/**
 * Tar archives made by hand, for what no tool would write, and a sink that records what a reader finds.
 */
import type { ArchiveEntry, ArchiveSink } from '../../src/archive/archive.ts'

/** Fields of a header block. Numbers are written as octal; a Buffer or string goes in as it is. */
export interface HeaderFields {
  name?: string | Buffer
  mode?: number | string | Buffer
  uid?: number | string | Buffer
  gid?: number | string | Buffer
  size?: number | string | Buffer
  mtime?: number | string | Buffer
  type?: string
  linkName?: string | Buffer
  /** "ustar\0" and version 00 unless told otherwise; '' for v7. */
  magic?: string
  userName?: string
  groupName?: string
  major?: number | string | Buffer
  minor?: number | string | Buffer
  prefix?: string | Buffer
  /** Sums the bytes as signed, as SunOS tar did. */
  signedChecksum?: boolean
  /** Bytes put into the block before it is summed up. */
  patch?: { at: number; bytes: Buffer }
}

export const GNU_MAGIC = 'ustar  \0'

/** The two zero blocks. */
export const END_MARKER = Buffer.alloc(1024)

export function tarHeader(fields: HeaderFields): Buffer {
  const block = Buffer.alloc(512)
  const text = (at: number, length: number, value: string | Buffer) => {
    const bytes = typeof value === 'string' ? Buffer.from(value, 'latin1') : value
    if (bytes.length > length) throw new Error(`${bytes.length} bytes do not fit into ${length}`)
    bytes.copy(block, at)
  }
  const number = (at: number, length: number, value: number | string | Buffer) =>
    text(at, length, typeof value === 'number' ? value.toString(8).padStart(length - 1, '0') : value)
  text(0, 100, fields.name ?? 'file')
  number(100, 8, fields.mode ?? 0o644)
  number(108, 8, fields.uid ?? 0)
  number(116, 8, fields.gid ?? 0)
  number(124, 12, fields.size ?? 0)
  number(136, 12, fields.mtime ?? 0)
  text(156, 1, fields.type ?? '0')
  text(157, 100, fields.linkName ?? '')
  text(257, 8, fields.magic ?? 'ustar\x0000')
  text(265, 32, fields.userName ?? '')
  text(297, 32, fields.groupName ?? '')
  if (fields.major !== undefined) number(329, 8, fields.major)
  if (fields.minor !== undefined) number(337, 8, fields.minor)
  text(345, 155, fields.prefix ?? '')
  fields.patch?.bytes.copy(block, fields.patch.at)
  return withChecksum(block, fields.signedChecksum)
}

/** Puts the right checksum into a block. */
export function withChecksum(block: Buffer, signed = false): Buffer {
  block.fill(' ', 148, 156)
  let sum = 0
  for (let i = 0; i < 512; i++) sum += signed ? block.readInt8(i) : block[i]!
  // A negative sum has no octal form; readers take base-256 there too.
  block.write(`${Math.max(sum, 0).toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

/** A header, its data and the padding; the size is the data's unless the fields say otherwise. */
export function tarMember(fields: HeaderFields, data: Buffer | string = ''): Buffer {
  const bytes = Buffer.from(data as string, 'latin1')
  return Buffer.concat([tarHeader({ size: bytes.length, ...fields }), bytes, padding(bytes.length)])
}

/** An extended header (type x, or g) of these records. */
export function paxMember(records: readonly (readonly [string, string | Buffer])[], type = 'x'): Buffer {
  const data = Buffer.concat(records.map(([key, value]) => paxRecord(key, value)))
  return tarMember({ name: 'PaxHeaders/file', type }, data)
}

export function paxRecord(key: string, value: string | Buffer): Buffer {
  const body = Buffer.concat([
    Buffer.from(` ${key}=`, 'latin1'),
    typeof value === 'string' ? Buffer.from(value, 'latin1') : value,
    Buffer.from('\n'),
  ])
  let length = body.length + 1
  while (String(length).length + body.length !== length) length = String(length).length + body.length
  return Buffer.concat([Buffer.from(String(length)), body])
}

/** Members, and the end-of-archive marker behind them. */
export function tarArchive(...members: Buffer[]): Buffer {
  return Buffer.concat([...members, END_MARKER])
}

/** A base-256 number. */
export function base256(value: bigint, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  let rest = BigInt.asUintN(length * 8, value)
  for (let i = length - 1; i >= 0; i--) {
    bytes[i] = Number(rest & 0xffn)
    rest >>= 8n
  }
  bytes[0]! |= 0x80
  return bytes
}

function padding(size: number): Buffer {
  return Buffer.alloc((512 - (size % 512)) % 512)
}

export interface RecordedMember extends ArchiveEntry {
  content: Buffer
}

/** Keeps all that it is given, and fails when content and entries do not go together. */
export class RecordingSink implements ArchiveSink {
  readonly members: RecordedMember[] = []
  readonly #pieces: Buffer[] = []
  #missing = 0

  entry(entry: ArchiveEntry): void {
    this.#finish()
    this.members.push({ ...entry, content: Buffer.alloc(0) })
    this.#missing = entry.size
  }

  data(chunk: Uint8Array): void {
    this.#missing -= chunk.length
    if (this.#missing < 0) throw new Error('more content than the entry said')
    this.#pieces.push(Buffer.from(chunk))
  }

  /** All members, when the reading is over. */
  result(): RecordedMember[] {
    this.#finish()
    return this.members
  }

  #finish(): void {
    if (this.#missing !== 0) throw new Error(`${this.#missing} bytes of content never came`)
    const last = this.members.at(-1)
    if (last && this.#pieces.length > 0) last.content = Buffer.concat(this.#pieces.splice(0))
  }
}
