/**
 * Extended attributes: the set of each entry in the file list, and large values on request.
 * docs/rsync-protocol.md, sections 7.2 and 7.3.
 */
import { hash } from 'node:crypto'
import { PeerError } from '../../errors.ts'
import type { ByteReader } from '../../lib/byte-reader.ts'
import type { ByteWriter } from '../../lib/byte-writer.ts'
import { type ByteString, compareBytes } from '../../lib/bytes.ts'
import type { Xattr } from '../tree.ts'
import { decodeVarint, encodeVarint } from './ints.ts'

/** Longer values are told by their MD5 and sent only when the client asks. */
const LARGE_VALUE = 32

/** Which attributes travel. */
export interface XattrChoice {
  /** -XX: rsync's own, too. */
  withRsyncOwn: boolean
  /** Names that the client's rules keep. Without rules those of the system, ACLs among them, stay here. */
  kept: ReadonlySet<ByteString> | undefined
}

/** Those attributes that travel, in the order that numbers them from 1 on. */
export function sentXattrs(all: readonly Xattr[], { withRsyncOwn, kept }: XattrChoice): Xattr[] {
  return all
    .filter(({ name }) => (kept ? kept.has(name) : !name.startsWith('system.')))
    .filter(({ name }) => withRsyncOwn || !name.startsWith('user.rsync.%'))
    .toSorted((a, b) => compareBytes(a.name, b.name))
}

/** Writes sets, each new one in full and a repeated one by its number. One for each session. */
export class XattrEncoder {
  readonly #choice: XattrChoice
  readonly #known = new Map<string, number>()

  constructor(choice: XattrChoice) {
    this.#choice = choice
  }

  encode(out: ByteWriter, all: readonly Xattr[]): void {
    const set = all.length === 0 ? all : sentXattrs(all, this.#choice)
    const key = set.map(({ name, value }) => `${name}\0${hash('sha256', value)}`).join('\0')
    const number = this.#known.get(key)
    if (number !== undefined) {
      encodeVarint(out, number)
      return
    }
    this.#known.set(key, this.#known.size + 1)
    encodeVarint(out, 0)
    encodeVarint(out, set.length)
    for (const { name, value } of set) {
      encodeVarint(out, name.length + 1)
      encodeVarint(out, value.length)
      out.string(name)
      out.u8(0)
      out.bytes(value.length > LARGE_VALUE ? hash('md5', value, 'buffer') : value)
    }
  }
}

/**
 * [xattr-request] The numbers of the attributes whose values a client asks for, ascending.
 * @param count attributes that the entry has.
 */
export async function readXattrRequest(input: ByteReader, count: number): Promise<number[]> {
  const numbers: number[] = []
  let number = 0
  for (;;) {
    const step = await input.decode(decodeVarint)
    if (step === 0) return numbers
    number += step
    if (step < 0 || number > count) throw new PeerError('xattr-request', `attribute ${number} of ${count}`)
    numbers.push(number)
  }
}

/** [xattr-values] The answer to a request. */
export function encodeXattrValues(out: ByteWriter, numbers: readonly number[], sent: readonly Xattr[]): void {
  let previous = 0
  for (const number of numbers) {
    const { value } = sent[number - 1]!
    encodeVarint(out, number - previous)
    encodeVarint(out, value.length)
    out.bytes(value)
    previous = number
  }
  out.u8(0)
}
