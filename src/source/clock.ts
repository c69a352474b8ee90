import { setTimeout as sleepFor } from 'node:timers/promises'

/** Time and chance, passed in so that tests need neither. */
export interface Clock {
  now(): number
  random(): number
  /** Resolves after `ms`, rejects as soon as the signal aborts. */
  sleep(ms: number, signal: AbortSignal): Promise<unknown>
}

export const SYSTEM_CLOCK: Clock = {
  now: Date.now,
  random: Math.random,
  sleep: (ms, signal) => sleepFor(ms, undefined, { signal }),
}
