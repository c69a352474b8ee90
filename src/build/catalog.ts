/**
 * Catalog: which builds are held, and who holds on to them.
 *
 * A lease keeps a build from being evicted or removed. Taking one and deciding to remove are both
 * synchronous, so nothing comes in between: a build that is leaving can't be leased any more, and one that
 * is leased doesn't leave.
 */
import { CommandError, NotHeld } from '../errors.ts'
import type { Store } from '../store/store.ts'
import { compareIds } from './build-id.ts'
import type { Tenancy } from './evictor.ts'

export interface Lease {
  readonly id: string
  /** Gives it back; further calls do nothing. */
  release(): void
}

export class Catalog implements Tenancy {
  readonly #store: Store
  readonly #leases = new Map<string, number>()
  readonly #leaving = new Map<string, Promise<void>>()
  /** Told when nobody holds on to a build any more. */
  onFree: (id: string) => void = () => {}

  constructor(store: Store) {
    this.#store = store
  }

  /** Held builds, in the order that a person would give them. */
  ids(): string[] {
    return this.#store.ids().sort(compareIds)
  }

  /** Holds on to a build; undefined when it is not held or about to leave. */
  lease(id: string): Lease | undefined {
    if (!this.#store.has(id) || this.#leaving.has(id)) return undefined
    this.#leases.set(id, (this.#leases.get(id) ?? 0) + 1)
    let released = false
    return {
      id,
      release: () => {
        if (released) return
        released = true
        const left = this.#leases.get(id)! - 1
        if (left > 0) this.#leases.set(id, left)
        else if (this.#leases.delete(id)) this.onFree(id)
      },
    }
  }

  /** Builds that somebody holds on to. */
  leased(): string[] {
    return [...this.#leases.keys()]
  }

  isLeased(id: string): boolean {
    return this.#leases.has(id)
  }

  /** Resolves once a removal under way is complete. */
  async left(id: string): Promise<void> {
    await this.#leaving.get(id)
  }

  async removeUnleased(id: string): Promise<boolean> {
    if (this.isLeased(id) || !this.#store.has(id)) return false
    const busy = this.#leaving.get(id)
    if (busy) {
      await busy
      // Another build of that name may have taken its place.
      return !this.#store.has(id)
    }
    const leaving = this.#store.remove(id).finally(() => this.#leaving.delete(id))
    this.#leaving.set(id, leaving)
    await leaving
    return true
  }

  /**
   * While `work` runs, it may ask once whether it may replace the build: when nobody holds on to it. From a
   * yes on nobody can, until `work` ends.
   */
  async replacing(id: string, work: (mayReplace: () => boolean) => Promise<void>): Promise<void> {
    const { promise: left, resolve: setLeft } = Promise.withResolvers<void>()
    try {
      await work(() => {
        if (this.isLeased(id) || this.#leaving.has(id)) return false
        this.#leaving.set(id, left)
        return true
      })
    } finally {
      if (this.#leaving.get(id) === left) this.#leaving.delete(id)
      setLeft()
    }
  }

  /** An operator's wish. @throws CommandError when the build is in use, or not held. */
  async remove(id: string): Promise<void> {
    this.assertHeld(id)
    if (await this.removeUnleased(id)) return
    throw new CommandError(`build ${id} is in use`, {
      hint: 'Wait until its clients are done: see `upserv status`.',
    })
  }

  /** @throws CommandError when it is not. */
  assertHeld(id: string): void {
    if (!this.#store.has(id)) throw new NotHeld(id)
  }
}
