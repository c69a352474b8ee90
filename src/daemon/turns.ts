/**
 * Turns: so many transfers at a time, each at full speed; who comes later waits in line, first come, first
 * served, and hears its place.
 *
 * A client is called up before it has sent what it owes: only then can it still be told its place. Being
 * called up is a claim, and a claim runs out: a client that leaves its handshake half done keeps nobody
 * waiting. Who comes with the rest later than that waits again, ahead of the line. While several places are free
 * each of them is promised to a few: a crowd that claims and never comes would keep everybody out else, and who
 * comes and finds them all taken waits ahead of the line as well.
 *
 * Some modules have limits of their own. Who waits for one of these is passed by those who don't.
 */
import { ServerBusy } from '../errors.ts'
import { Pacer } from '../lib/pacer.ts'
import { untilAborted } from '../lib/single-flight.ts'
import type { Limit, Turn, Turns } from '../rsync/access.ts'

/** How often those who wait hear their place: clients with --timeout leave after a silence. */
const SAY_EVERY_MS = 2000
/**
 * From being called up to the end of the handshake two round trips pass. Who is further away may come late
 * and wait again; a longer claim would let a crowd that never comes hold everybody up for longer.
 */
const CLAIM_MS = 500
/** So many claims stand for one place, but for the last place that is free. */
const CLAIMS_FOR_ONE = 4
/** How much the latest interval between two free places counts in their average. */
const LATEST_COUNTS = 0.2

/** Places under one limit. */
interface Pool {
  /** As of the latest session that named it: a limit can be changed while there are sessions. */
  limit: Limit
  taken: number
  /** Of them by claims. */
  claimed: number
  /** How many in line want one of its places. */
  wanted: number
  /** Since when it is full, or when the last place became free while it was. */
  since: number
  /** How long it takes until a place becomes free, of late; undefined until one has. */
  intervalMs: number | undefined
}

interface Waiter {
  readonly pools: readonly Pool[]
  /** Undefined for one that was called up before: nothing can be said to it any more. */
  readonly say: ((line: string, place: number) => void) | undefined
  /** False once it was called up or has left. */
  inLine: boolean
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
  #all: Limit
  #places: number
  readonly #now: () => number
  readonly #claimMs: number
  readonly #pools = new Map<string, Pool>()
  /** In the order in which they are called up. */
  readonly #line: Waiter[] = []
  /** Without those who were called up before: they don't stand in anybody's place. */
  #waiting = 0
  #timer: NodeJS.Timeout | undefined
  #telling = false

  constructor({ most, places, now, claimMs = CLAIM_MS }: TurnsOptions) {
    this.#all = { name: '', most }
    this.#places = places
    this.#now = now
    this.#claimMs = claimMs
  }

  /** How many wait in line. */
  get waiting(): number {
    return this.#waiting
  }

  /** Who is inside stays; who waits may be called up at once. */
  change({ most, places }: { most: number; places: number }): void {
    this.#all = { name: '', most }
    this.#places = places
    this.#pool(this.#all)
    this.#callUp()
  }

  async enter(
    limits: readonly Limit[],
    say: (line: string, place: number) => void,
    signal: AbortSignal,
  ): Promise<Turn> {
    signal.throwIfAborted()
    let pools = [this.#all, ...limits].map((limit) => this.#pool(limit))
    if (hasRoom(pools)) {
      this.#claim(pools)
    } else {
      const tooMany = this.waiting >= this.#places ? fullOne(pools) : pools.find(isQueueFull)
      if (tooMany) {
        this.#forget(pools)
        throw refusal(tooMany, this.waiting >= this.#places)
      }
      await this.#wait(pools, say, signal)
    }
    return new CalledUp(this.#claimMs, {
      redeem: () => {
        this.#redeem(pools)
        if (pools.every(isWithin)) return true
        this.#give(pools)
        return false
      },
      expire: () => {
        this.#redeem(pools)
        this.#give(pools)
      },
      give: () => this.#give(pools),
      again: async (signal) => {
        // Those of limits that nobody used meanwhile are gone.
        pools = pools.map(({ limit }) => this.#pools.get(limit.name) ?? this.#pool(limit))
        if (hasPlaces(pools)) this.#take(pools)
        else await this.#wait(pools, undefined, signal)
      },
    })
  }

  /** Returns when the places are taken for who waits. Who was called up before goes ahead of those who were not. */
  async #wait(
    pools: readonly Pool[],
    say: ((line: string, place: number) => void) | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const waiter: Waiter = { pools, say, inLine: true, call: resolve }
    if (say) {
      const pool = fullOne(pools)
      this.#waiting++
      this.#line.push(waiter)
      say(this.#describe(pool, pool.wanted + 1), pool.wanted + 1)
    } else {
      const firstComers = this.#line.findIndex((other) => other.say)
      this.#line.splice(firstComers < 0 ? this.#line.length : firstComers, 0, waiter)
    }
    for (const pool of pools) pool.wanted++
    this.#timer ??= setInterval(() => void this.#tellAll(), SAY_EVERY_MS).unref()
    try {
      await untilAborted(promise, signal)
    } catch (error) {
      // Called up and gone at once: its places go to the next ones.
      if (!waiter.inLine) {
        if (say) this.#redeem(pools)
        this.#give(pools)
      } else this.#remove(this.#line.indexOf(waiter))
      this.#forget(pools)
      this.#rest()
      throw error
    }
  }

  #pool(limit: Limit): Pool {
    let pool = this.#pools.get(limit.name)
    if (!pool) {
      pool = { limit, taken: 0, claimed: 0, wanted: 0, since: this.#now(), intervalMs: undefined }
      this.#pools.set(limit.name, pool)
    }
    pool.limit = limit
    return pool
  }

  #take(pools: readonly Pool[]): void {
    for (const pool of pools) {
      pool.taken++
      if (isFull(pool)) pool.since = this.#now()
    }
  }

  #claim(pools: readonly Pool[]): void {
    for (const pool of pools) pool.claimed++
    this.#take(pools)
  }

  /** A claim becomes a place, or is about to be given up. */
  #redeem(pools: readonly Pool[]): void {
    for (const pool of pools) pool.claimed--
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
    this.#forget(pools)
  }

  /** Limits are by users and addresses too, of which there is no end: a pool that nobody uses goes. */
  #forget(pools: readonly Pool[]): void {
    for (const pool of pools) {
      const { name, of } = pool.limit
      const isUsed = pool.taken > 0 || pool.wanted > 0
      if (of !== undefined && !isUsed && this.#pools.get(name) === pool) this.#pools.delete(name)
    }
  }

  /** How many limits are in use. */
  get limits(): number {
    return this.#pools.size
  }

  #callUp(): void {
    for (let i = 0; i < this.#line.length; ) {
      const waiter = this.#line[i]!
      if (waiter.say ? hasRoom(waiter.pools) : hasPlaces(waiter.pools)) {
        this.#remove(i)
        if (waiter.say) this.#claim(waiter.pools)
        else this.#take(waiter.pools)
        waiter.call()
      } else if (isFull(this.#pool(this.#all))) {
        break
      } else {
        i++
      }
    }
    this.#rest()
  }

  #remove(at: number): void {
    for (const waiter of this.#line.splice(at, 1)) {
      waiter.inLine = false
      if (waiter.say) this.#waiting--
      for (const pool of waiter.pools) pool.wanted--
    }
  }

  /** Nobody waits: nobody is told. */
  #rest(): void {
    if (this.#line.length > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** In one pass and a slice at a time: the line may be long, and each word is a write. */
  async #tellAll(): Promise<void> {
    if (this.#telling) return
    this.#telling = true
    const pacer = new Pacer()
    const passed = new Map<Pool, number>()
    for (const waiter of [...this.#line]) {
      if (pacer.due) await pacer.rest()
      if (!waiter.inLine) continue // called up meanwhile: a word now would spoil its session
      const pool = fullOne(waiter.pools)
      const place = (passed.get(pool) ?? 0) + 1
      waiter.say?.(this.#describe(pool, place), place)
      for (const each of waiter.pools) passed.set(each, (passed.get(each) ?? 0) + 1)
    }
    this.#telling = false
  }

  #describe(pool: Pool, place: number): string {
    const { most, of = '' } = pool.limit
    const whose = of === '' ? '' : ` ${of}`
    const taken = most === 1 ? `the one place${whose} is taken` : `all ${most} places${whose} are taken`
    return `please wait: ${taken}; you are number ${place} in line, ${this.#estimate(pool, place)}`
  }

  #estimate({ intervalMs, since }: Pool, place: number): string {
    if (intervalMs === undefined) return 'no estimate yet'
    // What is late already takes at least as long again.
    return `your turn comes in about ${roughly(Math.max(place * intervalMs, this.#now() - since))}`
  }
}

/** What becomes of places. */
interface Places {
  /** The claim becomes a place; false when all are taken by now, and nothing is held any more. */
  redeem(): boolean
  /** The claim is given up. */
  expire(): void
  give(): void
  again(signal: AbortSignal): Promise<void>
}

/** A turn, from being called up on. */
class CalledUp implements Turn {
  readonly #places: Places
  readonly #timer: NodeJS.Timeout
  #has: 'claim' | 'place' | 'nothing' = 'claim'

  constructor(claimMs: number, places: Places) {
    this.#places = places
    this.#timer = setTimeout(() => this.leave(), claimMs).unref()
  }

  async begin(signal: AbortSignal): Promise<void> {
    clearTimeout(this.#timer)
    if (this.#has === 'claim') this.#has = this.#places.redeem() ? 'place' : 'nothing'
    if (this.#has === 'place') return
    await this.#places.again(signal)
    this.#has = 'place'
  }

  leave(): void {
    clearTimeout(this.#timer)
    const had = this.#has
    this.#has = 'nothing'
    if (had === 'claim') this.#places.expire()
    if (had === 'place') this.#places.give()
  }
}

function isFull({ taken, claimed, limit }: Pool): boolean {
  return taken - claimed + Math.ceil(claimed / CLAIMS_FOR_ONE) >= limit.most
}

/** Whether those who really transfer are no more than may. */
function isWithin({ taken, claimed, limit }: Pool): boolean {
  return taken - claimed <= limit.most
}

/** For who has said all that it owes: claims of others don't keep it waiting. */
function hasPlaces(pools: readonly Pool[]): boolean {
  return pools.every(({ taken, claimed, limit }) => taken - claimed < limit.most)
}

/** As many under this limit wait as may. */
function isQueueFull({ wanted, limit }: Pool): boolean {
  return limit.waiting !== undefined && wanted >= limit.waiting
}

/** @param lineIsFull there is no place in it for anybody; otherwise for nobody else of the same kind. */
function refusal({ limit }: Pool, lineIsFull: boolean): ServerBusy {
  return lineIsFull
    ? new ServerBusy(limit.most, limit.of)
    : new ServerBusy(limit.waiting!, `waiting in line, ${limit.of ?? 'of these modules'}`)
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
