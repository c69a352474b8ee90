/** What the fuzzer of the wire, a process of its own, tells whoever started it. */
import type { State } from '../../src/rsync/session.ts'

/** So many conversations are tried at least, however long it takes: fewer reach too little to judge by. */
export const ENOUGH = 2500

export interface FuzzSummary {
  seed: number
  cases: number
  outcomes: Record<string, number>
  /** Ways to end that differ: state, outcome, and the error without its values. */
  ways: string[]
  /** States in which a session read or wrote, and those that were ended by an error of the client. */
  states: State[]
  refusedIn: State[]
  stalledMs: number
  /** Peak memory after the first cases, and at the end. */
  baselineRss: number
  peakRss: number
  /** What is still open at the end. */
  opened: number
  failure?: { case: number; message: string; input: string }
}
