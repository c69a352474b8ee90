/**
 * Handshakes under way, and which one goes when there are too many: the oldest of whoever has begun the most and
 * finished none, the network that has the most, and in it the source. Who comes costs a look at the networks and at
 * the sources of one of them, however many handshakes there are.
 */

/** One who has not asked completely yet. */
export interface Handshake {
  readonly source: string
  readonly network: string
  /** Hangs up, and says in the log why. */
  giveUp(why: string): void
}

/** How many there may be, of all together, of one source and of one network; 0 of the latter for any number. */
export interface MostHandshakes {
  readonly all: number
  readonly perSource: number
  readonly perNetwork: number
}

interface Network {
  count: number
  /** In each the oldest first: whoever begins anew, after we made it wait, comes behind the others. */
  readonly sources: Map<string, Set<Handshake>>
}

export class Handshakes {
  readonly #networks = new Map<string, Network>()
  #size = 0

  get size(): number {
    return this.#size
  }

  add(one: Handshake): void {
    const network = this.#networks.get(one.network) ?? { count: 0, sources: new Map() }
    const source = network.sources.get(one.source) ?? new Set()
    if (source.has(one)) return
    this.#networks.set(one.network, network)
    network.sources.set(one.source, source)
    source.add(one)
    network.count++
    this.#size++
  }

  /** For one that is over. May be called more than once. */
  remove(one: Handshake): void {
    const network = this.#networks.get(one.network)
    const source = network?.sources.get(one.source)
    if (!network || !source?.delete(one)) return
    this.#size--
    if (source.size === 0) network.sources.delete(one.source)
    if (--network.count === 0) this.#networks.delete(one.network)
  }

  /**
   * Hangs up on one if there are as many as may be, so that somebody else can begin one.
   */
  makeRoom(
    newcomer: Pick<Handshake, 'source' | 'network'>,
    { all, perSource, perNetwork }: MostHandshakes,
  ): void {
    const network = this.#networks.get(newcomer.network)
    const source = network?.sources.get(newcomer.source)
    if (perSource > 0 && source && source.size >= perSource) {
      this.#hangUpOnOldest(source, `too many handshakes: ${source.size} were from this address`)
    } else if (perNetwork > 0 && network && network.count >= perNetwork) {
      this.#hangUpWithin(network, `of ${network.count} in this network`)
    } else if (this.#size >= all) {
      const largest = largestOf(this.#networks.values(), ({ count }) => count)
      if (largest) this.#hangUpWithin(largest, `of ${this.#size}`)
    }
  }

  /** On one of whoever has the most there. */
  #hangUpWithin({ sources }: Network, ofHowMany: string): void {
    const source = largestOf(sources.values(), ({ size }) => size)
    if (source)
      this.#hangUpOnOldest(source, `too many handshakes: ${ofHowMany}, ${source.size} were from this address`)
  }

  #hangUpOnOldest(source: ReadonlySet<Handshake>, why: string): void {
    const [oldest] = source
    if (!oldest) return
    this.remove(oldest)
    oldest.giveUp(why)
  }
}

function largestOf<T>(items: Iterable<T>, sizeOf: (item: T) => number): T | undefined {
  let largest: T | undefined
  let most = 0
  for (const item of items) {
    const size = sizeOf(item)
    if (size <= most) continue
    largest = item
    most = size
  }
  return largest
}
