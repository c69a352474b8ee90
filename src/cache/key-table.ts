/**
 * Where each record of the cache is: hash tables of 16-byte keys in typed arrays, 32 bytes for an entry,
 * since a Map of a million strings would take several times as much and the garbage collector's time.
 *
 * There are many small tables, each for a share of the keys: one is written anew in a moment, where millions of
 * records in a single one would keep everybody waiting for a second whenever it grows or a segment goes.
 */
import { Pacer } from '../lib/pacer.ts'

/** Bytes of a key: the beginning of a SHA-256, so its bits are as good as random. */
export const KEY_BYTES = 16

/** Where a record is. */
export interface Place {
  segment: number
  /** Of the record's payload in the segment. */
  offset: number
  length: number
  crc: number
}

/** One for each value of a key's last byte; hash tables go by the first ones. */
const TABLES = 256
const WORDS = 8
/** Slots of an empty table. */
const SMALLEST = 8

/** [word 4] Number of the segment plus one, so that 0 marks a free slot. */
const SEGMENT = 4

export class KeyTable {
  readonly #tables = Array.from({ length: TABLES }, () => new Table())
  #count = 0

  get count(): number {
    return this.#count
  }

  /** Memory that it takes. */
  get bytes(): number {
    return this.#tables.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  find(key: Uint8Array): Place | undefined {
    return this.#tables[key[KEY_BYTES - 1]!]!.find(key)
  }

  /** Enters a key, or moves it to another place. */
  set(key: Uint8Array, place: Place): void {
    if (this.#tables[key[KEY_BYTES - 1]!]!.set(key, place)) this.#count++
  }

  /** Takes out every key whose record is in a segment for which `gone` is true, little by little. */
  async dropSegments(gone: (segment: number) => boolean, pacer = new Pacer()): Promise<void> {
    for (const table of this.#tables) {
      if (pacer.due) await pacer.rest()
      this.#count -= table.dropSegments(gone)
    }
  }
}

class Table {
  #slots: Uint32Array
  #count = 0

  constructor() {
    this.#slots = new Uint32Array(SMALLEST * WORDS)
  }

  get bytes(): number {
    return this.#slots.byteLength
  }

  find(key: Uint8Array): Place | undefined {
    const at = this.#slotOf(key)
    const slots = this.#slots
    const segment = slots[at + SEGMENT]!
    if (segment === 0) return undefined
    return { segment: segment - 1, offset: slots[at + 5]!, length: slots[at + 6]!, crc: slots[at + 7]! }
  }

  /** @returns whether the key is new. */
  set(key: Uint8Array, place: Place): boolean {
    if ((this.#count + 1) * 3 > (this.#slots.length / WORDS) * 2) this.#rebuild(this.#slots.length * 2)
    const at = this.#slotOf(key)
    const slots = this.#slots
    const isNew = slots[at + SEGMENT] === 0
    if (isNew) {
      this.#count++
      for (let i = 0; i < 4; i++) slots[at + i] = wordAt(key, i * 4)
    }
    slots[at + SEGMENT] = place.segment + 1
    slots[at + 5] = place.offset
    slots[at + 6] = place.length
    slots[at + 7] = place.crc
    return isNew
  }

  /**
   * Gets as small as holds what stays.
   * @returns how many keys went.
   */
  dropSegments(gone: (segment: number) => boolean): number {
    const before = this.#count
    let stay = 0
    for (let at = SEGMENT; at < this.#slots.length; at += WORDS) {
      const segment = this.#slots[at]!
      if (segment !== 0 && !gone(segment - 1)) stay++
    }
    let slots = SMALLEST
    while (slots * 2 < (stay + 1) * 3) slots *= 2
    this.#rebuild(Math.min(slots * WORDS, this.#slots.length), gone)
    return before - this.#count
  }

  /** The slot that holds the key, or the free one where it belongs. */
  #slotOf(key: Uint8Array): number {
    const slots = this.#slots
    const a = wordAt(key, 0)
    const b = wordAt(key, 4)
    const c = wordAt(key, 8)
    const d = wordAt(key, 12)
    const mask = slots.length / WORDS - 1
    for (let slot = a & mask; ; slot = (slot + 1) & mask) {
      const at = slot * WORDS
      if (slots[at + SEGMENT] === 0) return at
      if (slots[at] === a && slots[at + 1] === b && slots[at + 2] === c && slots[at + 3] === d) return at
    }
  }

  #rebuild(length: number, gone: (segment: number) => boolean = () => false): void {
    const old = this.#slots
    this.#slots = new Uint32Array(length)
    this.#count = 0
    const mask = length / WORDS - 1
    for (let from = 0; from < old.length; from += WORDS) {
      const segment = old[from + SEGMENT]!
      if (segment === 0 || gone(segment - 1)) continue
      let slot = old[from]! & mask
      while (this.#slots[slot * WORDS + SEGMENT] !== 0) slot = (slot + 1) & mask
      this.#slots.set(old.subarray(from, from + WORDS), slot * WORDS)
      this.#count++
    }
  }
}

function wordAt(key: Uint8Array, at: number): number {
  return (key[at]! | (key[at + 1]! << 8) | (key[at + 2]! << 16) | (key[at + 3]! << 24)) >>> 0
}
