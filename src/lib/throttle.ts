/**
 * Throttle: keeps work that nobody waits for below a rate, so that the disk stays free for those who do
 * wait. Everybody who spends on one throttle shares its rate.
 */
import { setTimeout as sleep } from 'node:timers/promises'

export interface ThrottleOptions {
  /** Bytes a second, asked before each wait; Infinity for no bound. */
  rate: () => number
  /** Milliseconds on a clock that never jumps; for tests. */
  now?: () => number
  sleep?: (ms: number, signal?: AbortSignal) => Promise<void>
}

export class Throttle {
  readonly #rate: () => number
  readonly #now: () => number
  readonly #sleep: (ms: number, signal?: AbortSignal) => Promise<void>
  /** When all that was spent so far is paid for, in ms. */
  #paidAt = 0

  constructor({ rate, now, sleep: wait }: ThrottleOptions) {
    this.#rate = rate
    this.#now = now ?? (() => performance.now())
    this.#sleep = wait ?? ((ms, signal) => sleep(ms, undefined, signal ? { signal } : {}))
  }

  /** Waits for as long as so many bytes take at the rate. Idle time is not saved up. @throws the signal's reason. */
  async spend(bytes: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted()
    const now = this.#now()
    this.#paidAt = Math.max(this.#paidAt, now) + (bytes * 1000) / this.#rate()
    const ms = this.#paidAt - now
    // Below a millisecond it is left to add up.
    if (ms < 1) return
    try {
      await this.#sleep(ms, signal)
    } catch (error) {
      signal?.throwIfAborted()
      throw error
    }
  }
}

/** For whoever need not be kept back. */
export const UNBOUND = new Throttle({ rate: () => Number.POSITIVE_INFINITY })
