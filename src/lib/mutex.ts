/** One at a time, in the order of asking. */
export class Mutex {
  #last: Promise<unknown> = Promise.resolve()
  #waiting = 0

  /** How many wait for their turn. */
  get waiting(): number {
    return this.#waiting
  }

  /** Runs `work` when all that was asked for before has ended, well or badly. */
  run<T>(work: () => Promise<T>): Promise<T> {
    this.#waiting++
    const begin = (): Promise<T> => {
      this.#waiting--
      return work()
    }
    const result = this.#last.then(begin, begin)
    this.#last = result.catch(() => {})
    return result
  }
}
