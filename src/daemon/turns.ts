/**
 * Turns: so many transfers at a time, each at full speed; who comes later waits in line, first come, first
 * served, and hears its place.
 *
 * A client is called up before it has sent what it owes: only then can it still be told its place. Being
 * called up is a claim, and a claim runs out: a client that leaves its handshake half done keeps nobody
 * waiting. Who comes with the rest later than that waits again, ahead of the line.
 *
 * Some modules have limits of their own. Who waits for one of these is passed by those who don't.
 */
import { ServerBusy } from '../errors.ts'
import { untilAborted } from '../lib/single-flight.ts'
import type { Limit, Turn, Turns } from '../rsync/access.ts'

/** How often those who wait hear their place: clients with --timeout leave after a silence. */
const SAY_EVERY_MS = 2000
/**
 * From being called up to the end of the handshake two round trips pass. Who is further away may come late
 * and wait again; a longer claim would let a crowd that never comes hold everybody up for longer.
 */
const CLAIM_MS = 500
/** How much the latest interval between two free places counts in their average. */
const LATEST_COUNTS = 0.2

/** Places under one limit. */
interface Pool {
  readonly limit: Limit
  taken: number
  /** Since when it is full, or when the last place became free while it was. */
  since: number
  /** How long it takes until a place becomes free, of late; undefined until one has. */
  intervalMs: number | undefined
}

interface Waiter {
  readonly pools: readonly Pool[]
  readonly say: ((line: string) => void) | undefined
  call(): void
}

export interface TurnsOptions {
  /** Transfers at a time. */
  readonly most: number
  /** How many may wait in line. */
  readonly places: number
  /** Milliseconds on a clock that never jumps. */
  readonly now: () => number
  readonly claimMs?: number
}

export class TurnsInLine implements Turns {
  readonly #all: Limit
  readonly #places: number
  readonly #now: () => number
  readonly #claimMs: number
  readonly #pools = new Map<string, Pool>()
  /** In the order in which they are called up. */
  readonly #line: Waiter[] = []
  #timer: NodeJS.Timeout | undefined

  constructor({ most, places, now, claimMs = CLAIM_MS }: TurnsOptions) {
    this.#all = { name: '', most }
    this.#places = places
    this.#now = now
    this.#claimMs = claimMs
  }

  /** How many wait in line. */
  get waiting(): number {
    return this.#line.filter(({ say }) => say).length
  }

  async enter(limits: readonly Limit[], say: (line: string) => void, signal: AbortSignal): Promise<Turn> {
    signal.throwIfAborted()
    const pools = [this.#all, ...limits].map((limit) => this.#pool(limit))
    if (hasRoom(pools)) {
      this.#take(pools)
    } else {
      if (this.waiting >= this.#places) throw new ServerBusy(fullOne(pools).limit.most)
      await this.#wait(pools, say, signal)
    }
    return new CalledUp(
      this.#claimMs,
      () => this.#give(pools),
      async (signal) => {
        if (hasRoom(pools)) this.#take(pools)
        else await this.#wait(pools, undefined, signal)
      },
    )
  }

  /** Returns when the places are taken for who waits. Who says nothing had its turn before: it goes first. */
  async #wait(
    pools: readonly Pool[],
    say: ((line: string) => void) | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const waiter: Waiter = { pools, say, call: resolve }
    if (say) this.#line.push(waiter)
    else this.#line.unshift(waiter)
    say?.(this.#describe(waiter))
    this.#timer ??= setInterval(() => this.#tellAll(), SAY_EVERY_MS).unref()
    try {
      await untilAborted(promise, signal)
    } catch (error) {
      const at = this.#line.indexOf(waiter)
      // Called up and gone at once: its places go to the next ones.
      if (at < 0) this.#give(pools)
      else this.#line.splice(at, 1)
      this.#rest()
      throw error
    }
  }

  #pool(limit: Limit): Pool {
    let pool = this.#pools.get(limit.name)
    if (!pool) {
      pool = { limit, taken: 0, since: this.#now(), intervalMs: undefined }
      this.#pools.set(limit.name, pool)
    }
    return pool
  }

  #take(pools: readonly Pool[]): void {
    for (const pool of pools) {
      pool.taken++
      if (isFull(pool)) pool.since = this.#now()
    }
  }

  #give(pools: readonly Pool[]): void {
    const now = this.#now()
    for (const pool of pools) {
      if (isFull(pool)) {
        const took = now - pool.since
        pool.intervalMs = pool.intervalMs === undefined ? took : mix(pool.intervalMs, took)
        pool.since = now
      }
      pool.taken--
    }
    this.#callUp()
  }

  #callUp(): void {
    for (let i = 0; i < this.#line.length; ) {
      const waiter = this.#line[i]!
      if (hasRoom(waiter.pools)) {
        this.#line.splice(i, 1)
        this.#take(waiter.pools)
        waiter.call()
      } else if (isFull(this.#pool(this.#all))) {
        break
      } else {
        i++
      }
    }
    this.#rest()
  }

  #rest(): void {
    if (this.#line.length > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #tellAll(): void {
    for (const waiter of this.#line) waiter.say?.(this.#describe(waiter))
  }

  #describe(waiter: Waiter): string {
    const pool = fullOne(waiter.pools)
    let place = 1
    for (const other of this.#line) {
      if (other === waiter) break
      if (other.pools.includes(pool)) place++
    }
    const { most } = pool.limit
    const taken = most === 1 ? 'the one place is taken' : `all ${most} places are taken`
    return `please wait: ${taken}; you are number ${place} in line, ${this.#estimate(pool, place)}`
  }

  #estimate({ intervalMs, since }: Pool, place: number): string {
    if (intervalMs === undefined) return 'no estimate yet'
    // What is late already takes at least as long again.
    return `your turn comes in about ${roughly(Math.max(place * intervalMs, this.#now() - since))}`
  }
}

/** A turn, from being called up on. */
class CalledUp implements Turn {
  readonly #give: () => void
  readonly #again: (signal: AbortSignal) => Promise<void>
  readonly #timer: NodeJS.Timeout
  #has = true

  constructor(claimMs: number, give: () => void, again: (signal: AbortSignal) => Promise<void>) {
    this.#give = give
    this.#again = again
    this.#timer = setTimeout(() => this.leave(), claimMs).unref()
  }

  async begin(signal: AbortSignal): Promise<void> {
    clearTimeout(this.#timer)
    if (this.#has) return
    await this.#again(signal)
    this.#has = true
  }

  leave(): void {
    clearTimeout(this.#timer)
    if (!this.#has) return
    this.#has = false
    this.#give()
  }
}

function isFull({ taken, limit }: Pool): boolean {
  return taken >= limit.most
}

function hasRoom(pools: readonly Pool[]): boolean {
  return !pools.some(isFull)
}

/** The one that is waited for. */
function fullOne(pools: readonly Pool[]): Pool {
  return pools.find(isFull) ?? pools[0]!
}

function mix(average: number, latest: number): number {
  return average + (latest - average) * LATEST_COUNTS
}

/** "10 seconds", "3 minutes", "2 hours": no finer than such an estimate is good for. */
function roughly(ms: number): string {
  const seconds = Math.max(10, Math.ceil(ms / 10_000) * 10)
  if (seconds < 100) return `${seconds} seconds`
  const minutes = Math.round(seconds / 60)
  return minutes < 100 ? `${minutes} minutes` : `${Math.round(minutes / 60)} hours`
}
