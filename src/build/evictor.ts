/**
 * Carries out what eviction.ts decides, for the budget: first blobs that nobody needs any more, then
 * builds. One eviction at a time, so that none counts on what another one is about to free.
 */
import { NoRoom } from '../errors.ts'
import { eachAtOnce } from '../lib/at-once.ts'
import { Mutex } from '../lib/mutex.ts'
import { formatSize } from '../lib/units.ts'
import type { Evictor } from '../store/budget.ts'
import { BUILD_OVERHEAD, type Store } from '../store/store.ts'
import { type Candidate, type DepartureLedger, mayGo, planEviction } from './eviction.ts'

/** How often a plan is made anew because a build was leased or pinned before its turn came. */
const MAX_PLANS = 10
/** Builds whose marks are looked at at the same time: what thousands have to say at once would hold others up. */
const LOOKS_AT_ONCE = 16

/** What we ask of whoever knows sessions. */
export interface Tenancy {
  isLeased(id: string): boolean
  /** Removes the build unless it is leased by now; false when it is. No lease may come in between. */
  removeUnleased(id: string): Promise<boolean>
}

export class BuildEvictor implements Evictor {
  readonly #store: Store
  readonly #tenancy: Tenancy
  readonly #onEvict: (id: string) => void
  readonly #protectedBy: (id: string) => string | undefined
  readonly #turn = new Mutex()

  /**
   * @param onEvict is told of each build that went.
   * @param protectedBy why a build stays although it is neither sticky nor in use, as in 'channel "stable"'.
   */
  constructor(
    store: Store,
    tenancy: Tenancy,
    onEvict: (id: string) => void = () => {},
    protectedBy: (id: string) => string | undefined = () => undefined,
  ) {
    this.#protectedBy = protectedBy
    this.#store = store
    this.#tenancy = tenancy
    this.#onEvict = onEvict
  }

  async heldBytes(): Promise<number> {
    const held = (await this.candidates()).filter((candidate) => !mayGo(candidate))
    const stays = await this.#store.bytesOf(held.map(({ id }) => id))
    return stays + held.length * BUILD_OVERHEAD + this.#store.packs.unknownBytes
  }

  async evict(bytes: number, incoming?: Uint8Array): Promise<void> {
    await this.#turn.run(() => this.#evict(bytes, incoming))
  }

  async #evict(bytes: number, incoming: Uint8Array | undefined): Promise<void> {
    const goal = this.#store.bytes - bytes
    for (let attempt = 0; attempt < MAX_PLANS; attempt++) {
      const excess = this.#store.bytes - goal
      const ledger = await this.#store.plan()
      const rescued = incoming ? await ledger.arrive(incoming) : 0
      const dead = (await this.#store.deadBytes()) - rescued
      const asPlanned = dead >= excess || (await this.#removeBuilds(excess - dead, excess, ledger))
      if (!asPlanned) continue
      await this.#store.collect(excess)
      if (this.#store.bytes <= goal) return
    }
    throw new NoRoom(
      `${formatSize(bytes)} could not be freed: builds came into use faster than they could go`,
    )
  }

  /** False when a build was leased or pinned before its turn came: then a new plan is due. */
  async #removeBuilds(needed: number, asked: number, ledger: DepartureLedger): Promise<boolean> {
    const candidates = await this.candidates()
    const plan = await planEviction(candidates, needed, ledger)
    if (plan.type === 'impossible') {
      const kept = candidates.filter((candidate) => !mayGo(candidate)).length
      throw new NoRoom(
        `${formatSize(asked)} more are needed, but evicting would free ${formatSize(plan.couldFree)} at most` +
          ` (${kept} of ${candidates.length} builds are sticky, in use or named by a channel)`,
        { hint: 'Raise `budget`, or unpin builds.' },
      )
    }
    for (const id of plan.evict) {
      if (!this.#store.has(id) || (await this.#store.isSticky(id)) || this.#protectedBy(id)) return false
      if (!(await this.#tenancy.removeUnleased(id))) return false
      this.#onEvict(id)
    }
    return true
  }

  /** All held builds, as the policy sees them: those that leave while we look are none. */
  async candidates(): Promise<Candidate[]> {
    const store = this.#store
    const found: Candidate[] = []
    await eachAtOnce(store.ids(), LOOKS_AT_ONCE, async (id) => {
      if (!store.has(id)) return
      const order = await store.accessOrder(id)
      if (!store.has(id)) return
      const sticky = await store.isSticky(id)
      const leased = this.#tenancy.isLeased(id)
      found.push({ id, order, sticky, leased, protectedBy: this.#protectedBy(id) })
    })
    return found
  }
}
