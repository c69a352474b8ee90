/**
 * The list of builds for all who look at the same time: counting what each would free takes a while, so it is
 * made again only when something may have changed, and not more often than once a second.
 */
import type { Activity } from '../build/activity.ts'
import type { BuildSummary, Operations } from '../build/operations.ts'

const FRESH_MS = 1000
/** Who is in use, and was accessed when, changes without a word. */
const STALE_MS = 5000

export class BuildsView {
  readonly #operations: Operations
  #known: { builds: BuildSummary[]; at: number } | undefined
  #changed = true
  #counting: Promise<BuildSummary[]> | undefined

  constructor(operations: Operations, activity: Activity) {
    this.#operations = operations
    activity.events.on('builds', () => {
      this.#changed = true
    })
  }

  /** Somebody has changed something and will want to see it: nothing counted so far is good any more. */
  drop(): void {
    this.#known = undefined
    this.#counting = undefined
  }

  async get(): Promise<BuildSummary[]> {
    const age = this.#known ? performance.now() - this.#known.at : Number.POSITIVE_INFINITY
    if (this.#known && age < (this.#changed ? FRESH_MS : STALE_MS)) return this.#known.builds
    this.#counting ??= this.#count()
    return await this.#counting
  }

  #count(): Promise<BuildSummary[]> {
    this.#changed = false
    const at = performance.now()
    const counting = this.#operations
      .list()
      .then((builds) => {
        if (this.#counting === counting) this.#known = { builds, at }
        return builds
      })
      .finally(() => {
        if (this.#counting === counting) this.#counting = undefined
      })
    return counting
  }
}
