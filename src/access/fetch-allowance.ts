/**
 * What strangers may have fetched: so many builds and so many bytes an hour, each source of them and all
 * together. A stranger is whoever is named by no rule and has not shown who it is. Reading is not counted:
 * what is held is there for whoever may have it.
 *
 * Without this, one who asks for every build that exists fills the uplink for days, and the disk with what
 * nobody wants, while what everybody wants is evicted for it.
 */
import { FetchesSpent } from '../errors.ts'
import { Allowance, LatestFew } from '../lib/allowance.ts'

/** Within an hour; 0 for any number. */
export interface FetchLimits {
  /** Builds that one source may have fetched. */
  readonly perSource: number
  readonly bytesPerSource: number
  /** Of all strangers together. */
  readonly bytes: number
}

/** Fetches of one source that go on or wait in line, where sources are limited: the whole line must not be of one. */
export const AT_ONCE = 8
/** Builds of all strangers together, for each that one source may have fetched. */
export const ALL_SOURCES = 10
/** What asking for a build costs that no source has: a device that asks for one again and again is no attack. */
export const ABSENT_COSTS = 0.1
const HOUR_MS = 3_600_000
/** Sources that are remembered. Who has more of them is stopped by what all may have together. */
const MAX_SOURCES = 10_000

/** A fetch that somebody has begun. */
export interface FetchTicket {
  /** Called once, when it has ended. */
  end(how: { receivedBytes: number; absent: boolean }): void
}

/** For who is not held to any limit. */
export const NOT_COUNTED: FetchTicket = { end: () => {} }

interface Account {
  readonly builds: Allowance | undefined
  readonly bytes: Allowance | undefined
  running: number
}

export class FetchAllowance {
  #limits: FetchLimits
  readonly #now: () => number
  #sources: LatestFew<Account>
  #all: Account

  /** @param now milliseconds on a clock that never jumps. */
  constructor(limits: FetchLimits, now: () => number = () => performance.now()) {
    this.#limits = limits
    this.#now = now
    this.#sources = this.#makeSources()
    this.#all = this.#open(limits.perSource * ALL_SOURCES, limits.bytes)
  }

  /** Other limits from now on. What was taken so far is forgotten where they differ. */
  change(limits: FetchLimits): void {
    const { perSource, bytesPerSource, bytes } = this.#limits
    if (perSource === limits.perSource && bytesPerSource === limits.bytesPerSource && bytes === limits.bytes)
      return
    this.#limits = limits
    this.#sources = this.#makeSources()
    this.#all = this.#open(limits.perSource * ALL_SOURCES, limits.bytes)
  }

  /** @throws FetchesSpent that says when to come again. */
  begin(source: string): FetchTicket {
    const mine = this.#sources.get(source)
    const all = this.#all
    if (this.#limits.perSource > 0 && mine.running >= AT_ONCE) {
      throw new FetchesSpent(`${AT_ONCE} builds are being fetched for your address already`, undefined)
    }
    for (const [account, whose] of [
      [mine, 'your address'],
      [all, 'strangers'],
    ] as const) {
      const ms = Math.max(account.builds?.msUntil(1) ?? 0, account.bytes?.msUntil(1) ?? 0)
      if (ms > 0) throw new FetchesSpent(`as much was fetched for ${whose} as may be in an hour`, ms / 1000)
    }
    for (const account of [mine, all]) {
      account.builds?.take(1)
      account.running++
    }
    return {
      end: ({ receivedBytes, absent }) => {
        for (const account of [mine, all]) {
          account.running--
          account.bytes?.take(receivedBytes)
          if (absent) account.builds?.take(ABSENT_COSTS - 1)
        }
      },
    }
  }

  #makeSources(): LatestFew<Account> {
    return new LatestFew(MAX_SOURCES, () => this.#open(this.#limits.perSource, this.#limits.bytesPerSource))
  }

  #open(builds: number, bytes: number): Account {
    const make = (most: number): Allowance | undefined =>
      most > 0 ? new Allowance(most, HOUR_MS, this.#now) : undefined
    return { builds: make(builds), bytes: make(bytes), running: 0 }
  }
}
