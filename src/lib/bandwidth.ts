/**
 * Bandwidth: rates for all who are sent something together, for each network and source of them, and for each of them.
 *
 * A rate is a bucket that fills at that rate and holds a moment's worth. Who wants to send takes from its own
 * bucket, those of its source and network and the one for all; where one of them is empty it waits. Who waits is
 * served by what it has had so far (start-time fair queueing): each has a clock that goes by the bytes it has sent, the one that is
 * behind comes first, and who has been idle begins at the time of the others, so nothing is saved up. So all who
 * wait for the same bucket get equal shares of it, whatever the size of what they send at a time.
 *
 * Without any rate nothing is counted and nobody waits: `take` is one look at a flag.
 */
import type { Where } from './peer.ts'

/** Bytes a second; undefined for as fast as it goes. */
export interface BandwidthLimits {
  readonly all?: number | undefined
  readonly perNetwork?: number | undefined
  readonly perSource?: number | undefined
  readonly perSession?: number | undefined
}

/** What a bucket holds, as a part of a second: below that, timers make the flow uneven. */
const HOLDS_S = 1 / 8
/** Pieces that are sent at a time: small enough for the slowest rate to be even, large enough to be cheap. */
const PIECES_PER_SECOND = 32
const MIN_PIECE = 2 * 1024
const MAX_PIECE = 256 * 1024
/** Timers closer together than this would be all that a core does. */
const MIN_WAIT_MS = 4

class Bucket {
  readonly rate: number
  #level: number
  #at: number

  constructor(rate: number, now: number) {
    this.rate = rate
    this.#level = rate * HOLDS_S
    this.#at = now
  }

  /** How long until something may be taken; 0 for now. A piece that is larger than what there is leaves a debt. */
  msUntil(now: number): number {
    this.#level = Math.min(this.rate * HOLDS_S, this.#level + ((now - this.#at) / 1000) * this.rate)
    this.#at = now
    return this.#level > 0 ? 0 : (-this.#level / this.rate) * 1000 + 1
  }

  take(bytes: number): void {
    this.#level -= bytes
  }
}

/** Those of one source, or of one network. */
class Groups {
  readonly #groups = new Map<string, Group>()

  get size(): number {
    return this.#groups.size
  }

  join(name: string, newBucket: () => Bucket | undefined): Group {
    const group = this.#groups.get(name) ?? { name, bucket: newBucket(), shares: 0 }
    group.shares++
    this.#groups.set(name, group)
    return group
  }

  leave(group: Group): void {
    if (--group.shares === 0) this.#groups.delete(group.name)
  }

  change(newBucket: () => Bucket | undefined): void {
    for (const group of this.#groups.values()) group.bucket = newBucket()
  }
}

interface Group {
  readonly name: string
  bucket: Bucket | undefined
  shares: number
}

interface Waiter {
  readonly share: Share
  readonly bytes: number
  readonly go: () => void
}

export class Bandwidth {
  #limits: BandwidthLimits
  readonly #now: () => number
  #pieceSize = Number.POSITIVE_INFINITY
  #all: Bucket | undefined
  readonly #sources = new Groups()
  readonly #networks = new Groups()
  readonly #waiting = new Set<Waiter>()
  /** As far as the one that was served last has come. */
  #clock = 0
  #timer: NodeJS.Timeout | undefined
  /** Rises with each change of limits: buckets of other limits are made anew. */
  #generation = 0

  /** @param now milliseconds on a clock that never jumps. */
  constructor(limits: BandwidthLimits = {}, now: () => number = () => performance.now()) {
    this.#limits = limits
    this.#now = now
    this.change(limits)
  }

  /** Whether there is any rate. */
  get isLimited(): boolean {
    return this.#pieceSize < Number.POSITIVE_INFINITY
  }

  get generation(): number {
    return this.#generation
  }

  /** How many shares wait. */
  get waiting(): number {
    return this.#waiting.size
  }

  /** Sources that are remembered: those of shares that have not been given back. */
  get sources(): number {
    return this.#sources.size
  }

  /** The same of networks. */
  get networks(): number {
    return this.#networks.size
  }

  /** Other rates from now on, also for who is being sent something. */
  change(limits: BandwidthLimits): void {
    this.#limits = limits
    this.#generation++
    this.#pieceSize = pieceSizeFor(limits)
    this.#all = this.bucketFor(limits.all)
    this.#sources.change(() => this.bucketFor(limits.perSource))
    this.#networks.change(() => this.bucketFor(limits.perNetwork))
    if (this.#waiting.size > 0) this.#serve()
  }

  /** A share for one who is sent something. It must be given back. */
  join(where: Where): Share {
    const source = this.#sources.join(where.source, () => this.bucketFor(this.#limits.perSource))
    const network = this.#networks.join(where.network, () => this.bucketFor(this.#limits.perNetwork))
    return new Share(this, [network, source], () => {
      this.#sources.leave(source)
      this.#networks.leave(network)
      for (const waiter of this.#waiting) if (waiter.share.isLeft) this.#end(waiter)
    })
  }

  /** What to send at a time: at the smallest rate there is, still many pieces a second; Infinity without any. */
  get pieceSize(): number {
    return this.#pieceSize
  }

  bucketFor(rate: number | undefined): Bucket | undefined {
    return rate === undefined ? undefined : new Bucket(rate, this.#now())
  }

  /** The bucket of one share. */
  get sessionRate(): number | undefined {
    return this.#limits.perSession
  }

  /** @returns undefined when it may be sent at once. */
  take(share: Share, bytes: number): Promise<void> | undefined {
    if (!this.isLimited) return undefined
    if (share.prepaid >= bytes) {
      share.prepaid -= bytes
      return undefined
    }
    share.clock = Math.max(share.clock, this.#clock)
    const now = this.#now()
    if (this.#waiting.size === 0 && this.#msFor(share, now) === 0) {
      this.#spend(share, bytes)
      return undefined
    }
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#waiting.add({ share, bytes, go: resolve })
    // While there is nothing for anybody, the timer that runs is the right one.
    if (!this.#timer || (this.#all?.msUntil(now) ?? 0) === 0) this.#serve()
    return promise
  }

  #msFor(share: Share, now: number): number {
    let ms = this.#all?.msUntil(now) ?? 0
    for (const bucket of share.buckets()) ms = Math.max(ms, bucket.msUntil(now))
    return ms
  }

  #spend(share: Share, bytes: number): void {
    this.#clock = Math.max(this.#clock, share.clock)
    share.clock += bytes
    this.#all?.take(bytes)
    for (const bucket of share.buckets()) bucket.take(bytes)
  }

  #end(waiter: Waiter): void {
    this.#waiting.delete(waiter)
    waiter.go()
  }

  /** Lets go whoever may, the one that is furthest behind first, and comes again when the next one may. */
  #serve(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const now = this.#now()
    const inOrder = [...this.#waiting].sort((a, b) => a.share.clock - b.share.clock)
    let soonest = Number.POSITIVE_INFINITY
    for (const waiter of inOrder) {
      const ms = this.isLimited ? this.#msFor(waiter.share, now) : 0
      if (ms > 0) {
        soonest = Math.min(soonest, ms)
        // For the bucket of all, nobody behind it need try.
        if (this.#all && this.#all.msUntil(now) > 0) break
        continue
      }
      // Who sends little at a time would have to wait for each of it: it gets a whole piece, to be used up.
      // Without any rate, as after a change, nothing is used up: it would have it for ever.
      const piece = this.isLimited ? Math.max(waiter.bytes, this.pieceSize) : waiter.bytes
      waiter.share.prepaid += piece - waiter.bytes
      this.#spend(waiter.share, piece)
      this.#end(waiter)
    }
    if (this.#waiting.size === 0) return
    // Where somebody was let go, what it does next counts as well: the next turn looks again.
    const ms = Number.isFinite(soonest) ? Math.max(MIN_WAIT_MS, soonest) : MIN_WAIT_MS
    this.#timer = setTimeout(() => this.#serve(), ms)
    this.#timer.unref()
  }
}

function pieceSizeFor({ all, perNetwork, perSource, perSession }: BandwidthLimits): number {
  const rates = [all, perNetwork, perSource, perSession].filter((rate) => rate !== undefined)
  if (rates.length === 0) return Number.POSITIVE_INFINITY
  return Math.max(MIN_PIECE, Math.min(MAX_PIECE, Math.floor(Math.min(...rates) / PIECES_PER_SECOND)))
}

/** One who is sent something. */
export class Share {
  readonly #bandwidth: Bandwidth
  readonly #groups: readonly Group[]
  readonly #leave: () => void
  #bucket: Bucket | undefined
  #generation = -1
  /** Bytes that it has had, by the clock that all share. */
  clock = 0
  /** Bytes that it may send without asking, and that are counted already. */
  prepaid = 0
  isLeft = false

  constructor(bandwidth: Bandwidth, groups: readonly Group[], leave: () => void) {
    this.#bandwidth = bandwidth
    this.#groups = groups
    this.#leave = leave
  }

  /** Those that it takes from beside the one for all: of its network, of its source, its own. */
  *buckets(): Generator<Bucket, void, undefined> {
    for (const { bucket } of this.#groups) if (bucket) yield bucket
    const own = this.#own()
    if (own) yield own
  }

  #own(): Bucket | undefined {
    if (this.#generation !== this.#bandwidth.generation) {
      this.#generation = this.#bandwidth.generation
      this.#bucket = this.#bandwidth.bucketFor(this.#bandwidth.sessionRate)
    }
    return this.#bucket
  }

  /** What to send at a time; Infinity where nothing is limited. */
  get pieceSize(): number {
    return this.#bandwidth.pieceSize
  }

  /** Waits until so much may be sent; undefined when that is now. */
  take(bytes: number): Promise<void> | undefined {
    return this.isLeft ? undefined : this.#bandwidth.take(this, bytes)
  }

  /** Gives the share back; what still waits goes on. May be called more than once. */
  leave(): void {
    if (this.isLeft) return
    this.isLeft = true
    this.#leave()
  }
}

/** Hands on what comes, in pieces and at the pace of a share. */
export async function* paced(
  source: AsyncIterable<Uint8Array>,
  share: Share,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const bytes of source) {
    let at = 0
    while (at < bytes.length) {
      const piece = bytes.subarray(at, Math.min(bytes.length, at + share.pieceSize))
      at += piece.length
      const room = share.take(piece.length)
      if (room) await room
      yield piece
    }
  }
}
