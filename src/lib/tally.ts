/** How many there are of each kind, of kinds that come and go: one of which there are none takes no memory. */
export class Tally {
  readonly #counts = new Map<string, number>()

  of(kind: string): number {
    return this.#counts.get(kind) ?? 0
  }

  /** Kinds of which there are any. */
  get size(): number {
    return this.#counts.size
  }

  /** @returns how many there are now. */
  add(kind: string, more = 1): number {
    const count = this.of(kind) + more
    this.#counts.set(kind, count)
    return count
  }

  remove(kind: string, less = 1): void {
    const left = this.of(kind) - less
    if (left > 0) this.#counts.set(kind, left)
    else this.#counts.delete(kind)
  }
}
