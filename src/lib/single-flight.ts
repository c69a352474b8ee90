/** One computation for each question, however many ask it while it runs. */
export class SingleFlight<K, V> {
  readonly #running = new Map<K, Promise<V>>()

  /** Joins the computation under way for `key`, or starts it. */
  run(key: K, compute: () => Promise<V>): Promise<V> {
    const running = this.#running.get(key)
    if (running) return running
    const started = compute().finally(() => this.#running.delete(key))
    this.#running.set(key, started)
    return started
  }

  get size(): number {
    return this.#running.size
  }
}
