/**
 * Failed logins: a few are free, then those who fail are slowed down, whoever else is there is not.
 *
 * What counts together is one name from one source, everything from one source, and everything from one
 * network, each with more to spare than the one before: a device with a wrong password that asks every minute
 * must not keep out the others behind its address, and somebody who has a whole prefix of IPv6 must not get a
 * fresh start with each address in it.
 *
 * Attempts take turns: each waits until it may be judged, so that many at the same time are no faster than one
 * after the other. Who would have to wait long is refused unjudged, at once, which counts for nothing: the
 * right password after a pause is as good as ever.
 */
import { LoginsSlowed } from '../errors.ts'
import { Allowance, LatestFew } from '../lib/allowance.ts'

/** Failures that cost nothing, and how long it takes until all of them are forgotten. */
export const FREE_FAILURES = { name: 5, source: 30, network: 100 } as const
export const FORGET_MS = 10 * 60_000
/** From one attempt to the next, once there are no free ones left. */
export const SLOW_MS = 2000
/** Who would wait longer is refused. */
export const MAX_WAIT_MS = 10_000
/** Names and sources that are remembered; 200 bytes each. */
export const MAX_REMEMBERED = 20_000

/** Where an attempt comes from, from the small to the large. */
export interface AttemptFrom {
  readonly source: string
  readonly network: string
}

interface Count {
  readonly failures: Allowance
  /** When the next one may be judged, once they are slowed. */
  nextAt: number
}

export interface AttemptsOptions {
  /** In place of FREE_FAILURES. */
  free?: { readonly name: number; readonly source: number; readonly network: number }
  /** Milliseconds on a clock that never jumps. */
  now?: () => number
  sleep?: (ms: number) => Promise<void>
}

export class Attempts {
  readonly #now: () => number
  readonly #sleep: (ms: number) => Promise<void>
  readonly #counts: LatestFew<Count>

  constructor({ free = FREE_FAILURES, now = () => performance.now(), sleep }: AttemptsOptions = {}) {
    this.#now = now
    this.#sleep = sleep ?? ((ms) => new Promise((resolve) => setTimeout(resolve, ms)))
    this.#counts = new LatestFew(MAX_REMEMBERED, (key) => ({
      failures: new Allowance(free[key.slice(0, key.indexOf(' ')) as keyof typeof free], FORGET_MS, now),
      nextAt: 0,
    }))
  }

  /** How many names, sources and networks are remembered. */
  get remembered(): number {
    return this.#counts.size
  }

  /**
   * Judges one attempt, once it is its turn.
   * @param name who it says it is, as it was sent.
   * @throws LoginsSlowed, unjudged.
   */
  async judge(from: AttemptFrom, name: string, isGood: () => boolean): Promise<boolean> {
    const keys = keysOf(from, name)
    await this.#waitForTurn(keys)
    const good = isGood()
    if (good) {
      // What others of this source have failed with stays.
      this.#counts.delete(keys[0]!)
    } else {
      for (const key of keys) this.#counts.get(key).failures.take(1)
    }
    return good
  }

  async #waitForTurn(keys: readonly string[]): Promise<void> {
    const now = this.#now()
    const slowed = keys.flatMap((key) => {
      const count = this.#counts.peek(key)
      return count && count.failures.left < 1 ? [count] : []
    })
    if (slowed.length === 0) return
    const at = Math.max(now, ...slowed.map(({ nextAt }) => nextAt))
    if (at - now > MAX_WAIT_MS) throw new LoginsSlowed(Math.ceil((at - now) / 1000))
    for (const count of slowed) count.nextAt = at + SLOW_MS
    if (at > now) await this.#sleep(at - now)
  }
}

function keysOf({ source, network }: AttemptFrom, name: string): string[] {
  // What a client calls itself may be long.
  return [`name ${source} ${name.slice(0, 64)}`, `source ${source}`, `network ${network}`]
}
