/**
 * What a client's generator says during the transfer: marks between phases, and requests, each about one entry
 * of the file list. docs/rsync-protocol.md, sections 8.1 and 8.2.
 */
import { PeerError } from '../../errors.ts'
import type { Decoded } from '../../lib/byte-reader.ts'
import type { ByteWriter } from '../../lib/byte-writer.ts'
import type { ByteString } from '../../lib/bytes.ts'
import { decodeVstring, encodeVstring } from './ints.ts'
import { NDX_DEL_STATS, NDX_DONE, NdxDecoder, type NdxEncoder } from './ndx.ts'
import { decodeSumHead, type SumHead } from './sums.ts'

/** [iflags] Section 8.1: those that matter to a sender. */
const ITEM = {
  xattrs: 0x0100,
  basisType: 0x0800,
  xname: 0x1000,
  isNew: 0x2000,
  localChange: 0x4000,
  transfer: 0x8000,
} as const
/** The destination file itself: the basis unless the client says otherwise. */
export const BASIS_SELF = 0x80
/** Linux's own limit on a path, for names of alternative basis files. */
const MAX_NAME = 4096

/** A request about one entry. */
export interface ItemRequest {
  readonly type: 'item'
  /** Which entry: its index on the wire. */
  readonly ndx: number
  /** What the echo repeats; nothing but `transfer` below protocol 29, where nothing is said. */
  readonly iflags: number
  /** Undefined: it was not said, and is BASIS_SELF. */
  readonly basisType: number | undefined
  readonly xname: ByteString | undefined
  /** Numbers of extended attributes follow, and then the sum head where data is wanted, too. */
  readonly asksXattrs: boolean
  readonly wantsData: boolean
  /** Present where data is wanted, unless something else comes before it. The block sums follow. */
  readonly head: SumHead | undefined
}

/** Whether the client has nothing of that name. Before protocol 29 it does not say. */
export function isOfNewFile({ iflags }: ItemRequest): boolean {
  return (iflags & ITEM.isNew) !== 0
}

export type Request = ItemRequest | { readonly type: 'done' | 'deletions' | 'keep-alive' }

const DONE: Request = { type: 'done' }
const DELETIONS: Request = { type: 'deletions' }
const KEEP_ALIVE: Request = { type: 'keep-alive' }

export interface RequestRules {
  readonly protocol: number
  /** Entries of the file list. */
  readonly count: number
  /** Values of extended attributes may be asked for, also for entries that are linked to others, or not. */
  readonly xattrs: 'none' | 'all' | 'not-of-links'
  /** The client asks for no data, whatever it says. */
  readonly dryRun: boolean
}

export class RequestDecoder {
  readonly #rules: RequestRules
  readonly #ndx: NdxDecoder

  constructor(rules: RequestRules) {
    this.#rules = rules
    this.#ndx = new NdxDecoder(rules.protocol)
  }

  /** Changes its state only when it returns a value. @throws PeerError for what no client may say. */
  decode(bytes: Uint8Array): Decoded<Request> | undefined {
    const { protocol, count, dryRun } = this.#rules
    const found = this.#ndx.peek(bytes)
    if (!found) return undefined
    const { value: ndx } = found
    let at = found.size
    if (ndx === NDX_DONE) return this.#accept(ndx, DONE, at)
    if (ndx === NDX_DEL_STATS && protocol >= 31) return this.#accept(ndx, DELETIONS, at)
    // Keep-alives of protocol 29 are about an entry just beyond the list.
    const isBeyond = ndx < 0 || ndx >= count
    if (isBeyond && !(protocol === 29 && ndx === count)) throw new PeerError('ndx', `${ndx} of ${count}`)

    let iflags: number = ITEM.transfer
    let basisType: number | undefined
    let xname: ByteString | undefined
    if (protocol >= 29) {
      if (bytes.length < at + 2) return undefined
      iflags = bytes[at]! | (bytes[at + 1]! << 8)
      at += 2
      if (isBeyond) {
        if (iflags !== ITEM.isNew) throw new PeerError('ndx', `${ndx} of ${count}`)
        return this.#accept(ndx, KEEP_ALIVE, at)
      }
      if (iflags & ITEM.basisType) {
        if (bytes.length < at + 1) return undefined
        basisType = bytes[at++]!
      }
      if (iflags & ITEM.xname) {
        const name = decodeVstring(bytes.subarray(at), MAX_NAME)
        if (!name) return undefined
        xname = name.value
        at += name.size
      }
    }
    const asksXattrs = (iflags & ITEM.xattrs) !== 0 && this.#mayAskXattrs(iflags)
    const wantsData = (iflags & ITEM.transfer) !== 0 && !dryRun
    let head: SumHead | undefined
    if (wantsData && !asksXattrs) {
      const sums = decodeSumHead(bytes.subarray(at), protocol)
      if (!sums) return undefined
      head = sums.value
      at += sums.size
    }
    return this.#accept(ndx, { type: 'item', ndx, iflags, basisType, xname, asksXattrs, wantsData, head }, at)
  }

  #mayAskXattrs(iflags: number): boolean {
    const { xattrs, dryRun } = this.#rules
    if (xattrs === 'none' || dryRun) return false
    const isLinked = (iflags & ITEM.xname) !== 0 && (iflags & ITEM.localChange) !== 0
    return xattrs === 'all' || !isLinked
  }

  #accept(ndx: number, value: Request, size: number): Decoded<Request> {
    this.#ndx.accept(ndx)
    return { value, size }
  }
}

/** The echo that precedes every answer: what was asked, but for numbers of attributes and the sum head. */
export function encodeEcho(
  out: ByteWriter,
  ndx: NdxEncoder,
  protocol: number,
  { ndx: index, iflags, basisType, xname }: ItemRequest,
): void {
  ndx.encode(out, index)
  if (protocol < 29) return
  out.u16(iflags)
  if (basisType !== undefined) out.u8(basisType)
  if (xname !== undefined) encodeVstring(out, xname)
}
