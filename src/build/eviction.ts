/**
 * Which builds go to free a number of bytes. Policy only: decides, and changes nothing.
 *
 * Strictly the least recently accessed first; never a build that is sticky, leased or protected. What a build frees depends
 * on who else goes, since blobs are shared, so the plan plays the departures through on a ledger, and
 * stops as soon as enough would be free. It does not look for a smaller set: an operator must be able to
 * tell from `upserv list` who goes next.
 */

export interface Candidate {
  id: string
  /** The greater, the later it was accessed. */
  order: number
  sticky: boolean
  leased: boolean
  /** Why it stays all the same, such as a channel that names it. */
  protectedBy?: string | undefined
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

export function mayGo({ sticky, leased, protectedBy }: Candidate): boolean {
  return !sticky && !leased && protectedBy === undefined
}

/** For sorting: who goes first comes first. */
export function goesBefore(a: Candidate, b: Candidate): number {
  return a.order - b.order || (a.id < b.id ? -1 : 1)
}

export async function planEviction(
  builds: Iterable<Candidate>,
  needed: number,
  ledger: DepartureLedger,
): Promise<EvictionPlan> {
  const candidates = [...builds].filter(mayGo).sort(goesBefore)
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
