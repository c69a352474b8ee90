interface Flight<V> {
  readonly result: Promise<V>
  readonly abort: AbortController
  askers: number
  hasEnded: boolean
}

/**
 * One computation for each question, however many ask it while it runs. Who gives up leaves the others
 * alone; when nobody is left, the computation is told to stop.
 */
export class SingleFlight<K, V> {
  readonly #running = new Map<K, Flight<V>>()

  /**
   * Joins the computation under way for `key`, or starts it.
   * @param signal this asker's own: when it aborts, `run` rejects with its reason.
   */
  async run(key: K, compute: (signal: AbortSignal) => Promise<V>, signal?: AbortSignal): Promise<V> {
    signal?.throwIfAborted()
    let flight = this.#running.get(key)
    if (!flight) {
      const abort = new AbortController()
      const result = compute(abort.signal).finally(() => {
        if (flight) flight.hasEnded = true
        if (this.#running.get(key) === flight) this.#running.delete(key)
      })
      result.catch(() => {}) // Whoever still waits hears of it.
      flight = { result, abort, askers: 0, hasEnded: false }
      this.#running.set(key, flight)
    }
    flight.askers++
    try {
      return signal ? await untilAborted(flight.result, signal) : await flight.result
    } finally {
      if (--flight.askers === 0) {
        if (this.#running.get(key) === flight) this.#running.delete(key)
        // Nobody wants the answer any more. (After the end it would only make an error, with its stack.)
        if (!flight.hasEnded) flight.abort.abort()
      }
    }
  }

  get size(): number {
    return this.#running.size
  }

  /** Whether somebody who asks now joins others. */
  has(key: K): boolean {
    return this.#running.has(key)
  }
}

/** The promise's outcome, or the signal's reason if that comes first. */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason)
    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}
