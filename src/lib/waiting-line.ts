import { untilAborted } from './single-flight.ts'

/** First come, first served, so many at a time. */
export class WaitingLine {
  readonly #most: number
  readonly #waiting: { enter: () => void; onPlace: (ahead: number) => void }[] = []
  #working = 0

  constructor(most: number) {
    this.#most = most
  }

  /** Those who wait. */
  get length(): number {
    return this.#waiting.length
  }

  /**
   * Waits for a place, which must be given back by calling what is returned.
   * @param onPlace is told how many are ahead, now and whenever that changes.
   */
  async enter(signal: AbortSignal, onPlace: (ahead: number) => void): Promise<() => void> {
    if (this.#working >= this.#most) {
      const { promise, resolve } = Promise.withResolvers<void>()
      const place = { enter: resolve, onPlace }
      this.#waiting.push(place)
      this.#tellPlaces()
      try {
        await untilAborted(promise, signal)
      } catch (error) {
        const at = this.#waiting.indexOf(place)
        // Called up and aborted at once: the place goes to the next one.
        if (at < 0) this.#leave()
        else this.#waiting.splice(at, 1)
        throw error
      }
    } else {
      this.#working++
    }
    return () => this.#leave()
  }

  /** Whoever is called up takes over the place of the one who leaves. */
  #leave(): void {
    const next = this.#waiting.shift()
    if (next) next.enter()
    else this.#working--
    this.#tellPlaces()
  }

  #tellPlaces(): void {
    for (const [i, { onPlace }] of this.#waiting.entries()) onPlace(i + this.#working)
  }
}
