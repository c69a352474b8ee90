/**
 * Allowance: so much at once, and what was taken comes back evenly over a time. What something costs is often
 * known only behind it, so an allowance can be overdrawn, and then nothing is given until it has recovered.
 */
export class Allowance {
  readonly #most: number
  readonly #perMs: number
  readonly #now: () => number
  #left: number
  #at: number

  /** @param most what there is when nothing was taken. @param ms how long it takes to come back, all of it. */
  constructor(most: number, ms: number, now: () => number) {
    this.#most = most
    this.#perMs = most / ms
    this.#now = now
    this.#left = most
    this.#at = now()
  }

  /** What can be taken. Below zero when more was taken than there was. */
  get left(): number {
    const now = this.#now()
    this.#left = Math.min(this.#most, this.#left + (now - this.#at) * this.#perMs)
    this.#at = now
    return this.#left
  }

  /** It is as if nothing had ever been taken. */
  get isWhole(): boolean {
    return this.left >= this.#most
  }

  /** How long until there is so much; 0 when there is already. */
  msUntil(amount: number): number {
    return Math.max(0, (Math.min(amount, this.#most) - this.left) / this.#perMs)
  }

  /** Takes so much, whether it is there or not. Less than nothing gives it back. */
  take(amount: number): void {
    this.#left = Math.min(this.#most, this.left - amount)
  }
}

/**
 * Something for each of many keys that strangers choose, a bounded number of them: those that were used the
 * longest time ago are forgotten.
 */
export class LatestFew<T> {
  readonly #most: number
  readonly #make: (key: string) => T
  readonly #items = new Map<string, T>()

  constructor(most: number, make: (key: string) => T) {
    this.#most = most
    this.#make = make
  }

  get size(): number {
    return this.#items.size
  }

  get(key: string): T {
    const item = this.#items.get(key) ?? this.#make(key)
    this.#items.delete(key)
    this.#items.set(key, item)
    if (this.#items.size > this.#most) this.#items.delete(this.#items.keys().next().value!)
    return item
  }

  /** Without making one, and without its counting as used. */
  peek(key: string): T | undefined {
    return this.#items.get(key)
  }

  delete(key: string): void {
    this.#items.delete(key)
  }
}
