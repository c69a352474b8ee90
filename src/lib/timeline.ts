/**
 * What went on over the last day: sums of a few figures for each ten seconds, in a ring of fixed size.
 */

/** Seconds of a slot. */
export const SLOT_S = 10
const SLOTS = 8640

export class Timeline {
  readonly #figures: number
  readonly #values: Float64Array
  /** Number of the latest slot, in seconds since 1970 by SLOT_S; those before it are complete. */
  #latest: number

  /** @param nowS seconds since 1970. */
  constructor(figures: number, nowS: number) {
    this.#figures = figures
    this.#values = new Float64Array(figures * SLOTS)
    this.#latest = Math.floor(nowS / SLOT_S)
  }

  /** Adds to the figures of the slot of now. A clock that went back adds to the latest one. */
  add(nowS: number, values: readonly number[]): void {
    this.#moveTo(Math.floor(nowS / SLOT_S))
    const at = (this.#latest % SLOTS) * this.#figures
    values.forEach((value, figure) => {
      this.#values[at + figure]! += value
    })
  }

  /**
   * The slots up to now, the oldest first, `per` of them added up to one point each.
   * @returns where the first point begins, in seconds since 1970, and the figures of each point.
   */
  read(nowS: number, points: number, per: number): { startS: number; points: number[][] } {
    this.#moveTo(Math.floor(nowS / SLOT_S))
    // Points begin at multiples of their length, so that they don't change from one look to the next.
    const last = Math.floor(this.#latest / per)
    const first = last - points + 1
    const read: number[][] = []
    for (let point = first; point <= last; point++) {
      const sums = new Array<number>(this.#figures).fill(0)
      for (let slot = point * per; slot < (point + 1) * per; slot++) {
        if (slot > this.#latest || slot <= this.#latest - SLOTS) continue
        const at = (slot % SLOTS) * this.#figures
        for (let figure = 0; figure < this.#figures; figure++) sums[figure]! += this.#values[at + figure]!
      }
      read.push(sums)
    }
    return { startS: first * per * SLOT_S, points: read }
  }

  /** Empties the slots in which nobody added anything. */
  #moveTo(slot: number): void {
    const from = Math.max(this.#latest + 1, slot - SLOTS + 1)
    for (let empty = from; empty <= slot; empty++) {
      const at = (empty % SLOTS) * this.#figures
      this.#values.fill(0, at, at + this.#figures)
    }
    if (slot > this.#latest) this.#latest = slot
  }
}
