/**
 * Makes tar archives without being root: entries with any owner, mode and device number, and what other
 * tar streams hold (the content of Debian packages), merged into one archive that names no path twice.
 *
 * For our own demonstration and test data. It writes ustar headers, with GNU's long names where ustar's
 * 255 bytes do not do; what it takes over from other archives it takes over as it is.
 */

const BLOCK = 512

/** Type flags of the members that only say more about the next one: GNU long name and link, pax. */
const PREFACES = new Set(['L', 'K', 'x', 'g'])

export interface TarAttributes {
  mode?: number
  uid?: number
  gid?: number
  userName?: string
  groupName?: string
  mtime?: number
}

export class TarWriter {
  readonly #chunks: Buffer[] = []
  readonly #paths = new Set<string>()
  readonly #mtime: number

  /** `mtime` is what entries get that are added without one. */
  constructor(mtime: number) {
    this.#mtime = mtime
  }

  get entries(): number {
    return this.#paths.size
  }

  has(path: string): boolean {
    return this.#paths.has(path)
  }

  directory(path: string, attributes: TarAttributes = {}): void {
    this.#add(path, '5', { mode: 0o755, ...attributes })
  }

  file(path: string, content: Uint8Array | string, attributes: TarAttributes = {}): void {
    this.#add(path, '0', attributes, { content: Buffer.from(content) })
  }

  symlink(path: string, target: string, attributes: TarAttributes = {}): void {
    this.#add(path, '2', { mode: 0o777, ...attributes }, { target })
  }

  hardlink(path: string, target: string): void {
    this.#add(path, '1', {}, { target: `./${target}` })
  }

  charDevice(path: string, major: number, minor: number, attributes: TarAttributes = {}): void {
    this.#add(path, '3', attributes, { major, minor })
  }

  blockDevice(path: string, major: number, minor: number, attributes: TarAttributes = {}): void {
    this.#add(path, '4', attributes, { major, minor })
  }

  fifo(path: string, attributes: TarAttributes = {}): void {
    this.#add(path, '6', attributes)
  }

  /** Takes over every member of `tar` (uncompressed) whose path is not there yet. */
  merge(tar: Buffer): void {
    let start = 0 // of the member together with its prefaces
    let longName: string | undefined
    for (let at = 0; at + BLOCK <= tar.length; ) {
      const header = tar.subarray(at, at + BLOCK)
      if (header[0] === 0) break // the end of the archive
      const type = String.fromCharCode(header[156]!)
      const size = Number.parseInt(text(header, 124, 12), 8)
      const end = at + BLOCK + Math.ceil(size / BLOCK) * BLOCK
      if (PREFACES.has(type)) {
        if (type === 'L') longName = text(tar, at + BLOCK, size)
        if (type === 'x') throw new Error('cannot merge archives with pax headers')
      } else {
        const path = canonical(longName ?? joined(text(header, 345, 155), text(header, 0, 100)))
        if (!this.#paths.has(path)) {
          this.#paths.add(path)
          this.#chunks.push(tar.subarray(start, end))
        }
        start = end
        longName = undefined
      }
      at = end
    }
  }

  /** The archive. */
  finish(): Buffer {
    return Buffer.concat([...this.#chunks, Buffer.alloc(2 * BLOCK)])
  }

  #add(
    path: string,
    type: string,
    attributes: TarAttributes,
    more: { content?: Buffer; target?: string; major?: number; minor?: number } = {},
  ): void {
    if (this.#paths.has(path)) throw new Error(`${path}: twice in one archive`)
    this.#paths.add(path)
    const { mode = 0o644, uid = 0, gid = 0, userName = '', groupName = '', mtime = this.#mtime } = attributes
    const { content = Buffer.alloc(0), target = '', major = 0, minor = 0 } = more
    const name = `./${path}${type === '5' && path !== '' ? '/' : ''}`
    for (const [flag, long] of [
      ['K', target],
      ['L', name],
    ] as const) {
      if (Buffer.byteLength(long) <= 100) continue
      const bytes = Buffer.from(`${long}\0`)
      this.#chunks.push(headerBlock({ name: '././@LongLink', type: flag, size: bytes.length }), padded(bytes))
    }
    const numbers = { mode, uid, gid, size: content.length, mtime, major, minor }
    this.#chunks.push(headerBlock({ name, type, target, userName, groupName, ...numbers }), padded(content))
  }
}

interface Header extends TarAttributes {
  name: string
  type: string
  size: number
  target?: string
  major?: number
  minor?: number
}

function headerBlock(header: Header): Buffer {
  const block = Buffer.alloc(BLOCK)
  const octal = (value: number, offset: number, digits: number): void => {
    block.write(value.toString(8).padStart(digits, '0'), offset, 'latin1')
  }
  Buffer.from(header.name).copy(block, 0, 0, 100)
  octal(header.mode ?? 0, 100, 7)
  octal(header.uid ?? 0, 108, 7)
  octal(header.gid ?? 0, 116, 7)
  octal(header.size, 124, 11)
  octal(header.mtime ?? 0, 136, 11)
  block.fill(' ', 148, 156)
  block.write(header.type, 156)
  Buffer.from(header.target ?? '').copy(block, 157, 0, 100)
  block.write('ustar  \0', 257, 'latin1') // GNU's own magic, which its long names belong to
  block.write(header.userName ?? '', 265)
  block.write(header.groupName ?? '', 297)
  octal(header.major ?? 0, 329, 7)
  octal(header.minor ?? 0, 337, 7)
  let sum = 0
  for (const byte of block) sum += byte
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

function padded(content: Buffer): Buffer {
  const rest = content.length % BLOCK
  return rest === 0 ? content : Buffer.concat([content, Buffer.alloc(BLOCK - rest)])
}

function text(block: Buffer, offset: number, size: number): string {
  const end = block.indexOf(0, offset)
  return block.toString('utf8', offset, end < 0 || end > offset + size ? offset + size : end)
}

function joined(prefix: string, name: string): string {
  return prefix === '' ? name : `${prefix}/${name}`
}

/** './usr/bin/' and 'usr/bin' are one path; the root is ''. */
function canonical(path: string): string {
  return path
    .replace(/^(\.?\/)+/, '')
    .replace(/\/+$/, '')
    .replace(/^\.$/, '')
}
