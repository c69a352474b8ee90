/**
 * Pace: how fast a source may download, by the time of day. All fetches of a source share it, whichever
 * thread they run in: when all bytes so far are paid for is a number in memory that they share.
 */
import type { Clock } from './clock.ts'

export interface RateRule {
  /** Minutes since midnight, local time. `to` may be before `from`: over midnight. Equal: always. */
  from: number
  to: number
  bytesPerSecond: number
}

/** A wait is cut into pieces: the rate may change meanwhile. */
const MAX_WAIT_MS = 5_000

export class Pace {
  /** In microseconds of a clock that all threads share. */
  readonly #paidAt: BigInt64Array
  readonly #rules: readonly RateRule[]
  readonly #clock: Clock

  constructor(rules: readonly RateRule[], memory: SharedArrayBuffer, clock: Clock) {
    this.#rules = rules
    this.#paidAt = new BigInt64Array(memory)
    this.#clock = clock
  }

  /** What fetches of one source share. */
  static memory(): SharedArrayBuffer {
    return new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT)
  }

  /** Waits for as long as so many bytes take. @throws the signal's reason. */
  async spend(bytes: number, signal: AbortSignal): Promise<void> {
    const rate = rateAt(this.#rules, new Date(this.#clock.now()))
    if (rate === undefined) return
    const cost = BigInt(Math.round((bytes * 1e6) / rate))
    let paidAt: bigint
    for (;;) {
      const before = Atomics.load(this.#paidAt, 0)
      const now = process.hrtime.bigint() / 1000n
      paidAt = (before > now ? before : now) + cost
      if (Atomics.compareExchange(this.#paidAt, 0, before, paidAt) === before) break
    }
    for (;;) {
      const left = Number(paidAt - process.hrtime.bigint() / 1000n) / 1000
      if (left < 1) return
      await this.#clock.sleep(Math.min(left, MAX_WAIT_MS), signal)
      // The hours may be over in which it is slow.
      if (rateAt(this.#rules, new Date(this.#clock.now())) === undefined) return
    }
  }

  /** The same chunks, as fast as they are paid for. @throws the signal's reason. */
  async *through(
    chunks: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const chunk of chunks) {
      await this.spend(chunk.length, signal)
      yield chunk
    }
  }
}

/** Bytes a second at that time; undefined for as fast as it goes. Of several rules the first holds. */
export function rateAt(rules: readonly RateRule[], time: Date): number | undefined {
  const minute = time.getHours() * 60 + time.getMinutes()
  return rules.find(({ from, to }) => {
    if (from === to) return true
    return from < to ? minute >= from && minute < to : minute >= from || minute < to
  })?.bytesPerSecond
}
