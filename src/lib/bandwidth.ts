/**
 * Bandwidth: rates for all who are sent something together, for each source of them, and for each of them.
 *
 * A rate is a bucket that fills at that rate and holds a moment's worth. Who wants to send takes from its own
 * bucket, its source's and the one for all; where one of them is empty it waits. Who waits is served by what it
 * has had so far (start-time fair queueing): each has a clock that goes by the bytes it has sent, the one that is
 * behind comes first, and who has been idle begins at the time of the others, so nothing is saved up. So all who
 * wait for the same bucket get equal shares of it, whatever the size of what they send at a time.
 *
 * Without any rate nothing is counted and nobody waits: `take` is one look at a flag.
 */

/** Bytes a second; undefined for as fast as it goes. */
export interface BandwidthLimits {
  readonly all?: number | undefined
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

interface Source {
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
  #all: Bucket | undefined
  readonly #sources = new Map<string, Source>()
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
    const { all, perSource, perSession } = this.#limits
    return all !== undefined || perSource !== undefined || perSession !== undefined
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

  /** Other rates from now on, also for who is being sent something. */
  change(limits: BandwidthLimits): void {
    this.#limits = limits
    this.#generation++
    this.#all = this.bucketFor(limits.all)
    for (const source of this.#sources.values()) source.bucket = this.bucketFor(limits.perSource)
    if (this.#waiting.size > 0) this.#serve()
  }

  /** A share for one who is sent something. It must be given back. */
  join(source: string): Share {
    const known = this.#sources.get(source) ?? { bucket: this.bucketFor(this.#limits.perSource), shares: 0 }
    known.shares++
    this.#sources.set(source, known)
    return new Share(this, known, () => {
      if (--known.shares === 0) this.#sources.delete(source)
      for (const waiter of this.#waiting)
        if (waiter.share.source === known && waiter.share.isLeft) this.#end(waiter)
    })
  }

  /** What to send at a time: at the smallest rate there is, still many pieces a second. */
  get pieceSize(): number {
    const { all, perSource, perSession } = this.#limits
    const slowest = Math.min(all ?? Infinity, perSource ?? Infinity, perSession ?? Infinity)
    return Math.max(MIN_PIECE, Math.min(MAX_PIECE, Math.floor(slowest / PIECES_PER_SECOND)))
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

  #msFor({ source, bucket }: Share, now: number): number {
    return Math.max(this.#all?.msUntil(now) ?? 0, source.bucket?.msUntil(now) ?? 0, bucket?.msUntil(now) ?? 0)
  }

  #spend(share: Share, bytes: number): void {
    this.#clock = Math.max(this.#clock, share.clock)
    share.clock += bytes
    for (const bucket of [this.#all, share.source.bucket, share.bucket]) bucket?.take(bytes)
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
      const piece = Math.max(waiter.bytes, this.pieceSize)
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

/** One who is sent something. */
export class Share {
  readonly #bandwidth: Bandwidth
  readonly source: Source
  readonly #leave: () => void
  #bucket: Bucket | undefined
  #generation = -1
  /** Bytes that it has had, by the clock that all share. */
  clock = 0
  /** Bytes that it may send without asking, and that are counted already. */
  prepaid = 0
  isLeft = false

  constructor(bandwidth: Bandwidth, source: Source, leave: () => void) {
    this.#bandwidth = bandwidth
    this.source = source
    this.#leave = leave
  }

  get bucket(): Bucket | undefined {
    if (this.#generation !== this.#bandwidth.generation) {
      this.#generation = this.#bandwidth.generation
      this.#bucket = this.#bandwidth.bucketFor(this.#bandwidth.sessionRate)
    }
    return this.#bucket
  }

  /** What to send at a time; Infinity where nothing is limited. */
  get pieceSize(): number {
    return this.#bandwidth.isLimited ? this.#bandwidth.pieceSize : Number.POSITIVE_INFINITY
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
