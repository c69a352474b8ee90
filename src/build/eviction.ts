/**
 * Which builds go to free a number of bytes. Policy only: decides, and changes nothing.
 *
 * Strictly the least recently accessed first; never a sticky or leased build. What a build frees depends
 * on who else goes, since blobs are shared, so the plan plays the departures through on a ledger, and
 * stops as soon as enough would be free. It does not look for a smaller set: an operator must be able to
 * tell from `upserv list` who goes next.
 */

export interface Candidate {
  id: string
  /** Time of the last access, in ms. */
  accessed: number
  sticky: boolean
  leased: boolean
}

/** Plays departures through: see Store.plan. */
export interface DepartureLedger {
  /** The build leaves: bytes that become free, given who left before. */
  leave(id: string): Promise<number>
}

export type EvictionPlan =
  /** In the order in which they are to go, and what that frees. */
  | { type: 'possible'; evict: string[]; frees: number }
  /** Even if all that may go went, only so much would be free. */
  | { type: 'impossible'; couldFree: number }

export async function planEviction(
  builds: Iterable<Candidate>,
  needed: number,
  ledger: DepartureLedger,
): Promise<EvictionPlan> {
  const candidates = [...builds]
    .filter(({ sticky, leased }) => !sticky && !leased)
    .sort((a, b) => a.accessed - b.accessed || (a.id < b.id ? -1 : 1))
  const evict: string[] = []
  let frees = 0
  for (const { id } of candidates) {
    if (frees >= needed) break
    frees += await ledger.leave(id)
    evict.push(id)
  }
  if (frees < needed) return { type: 'impossible', couldFree: frees }
  return { type: 'possible', evict, frees }
}
