/**
 * When to ask again, how long to wait before, and when to give up. Knows nothing of HTTP.
 *
 * Waits double from a base up to a cap, each shortened at random by up to half, so that a school full of
 * servers does not come back in step. Attempts are counted since the last progress: a download of hours
 * may break a hundred times, as long as connections bring something. A byte each is no progress: an upstream
 * that sends one a minute would be waited for until the end of days.
 */
import { UpstreamUnreachable } from '../errors.ts'
import { formatDuration } from '../lib/units.ts'
import type { Clock } from './clock.ts'
import type { SourceLimits } from './limits.ts'
import type { SourceEvent } from './source.ts'

/** A failure that may pass. Stays within the sources: `Retries` turns it into a wait or an error of ours. */
export class Transient extends Error {
  /** What the upstream itself said about when to come back. */
  readonly retryAfterMs: number | undefined
  /** It said so earlier, and was not asked: nothing is won by waiting for less. */
  readonly isResting: boolean

  constructor(
    reason: string,
    details: { retryAfterMs?: number | undefined; isResting?: boolean; cause?: unknown } = {},
  ) {
    super(reason, { cause: details.cause })
    this.retryAfterMs = details.retryAfterMs
    this.isResting = details.isResting ?? false
  }
}

export interface RetryOptions {
  /** What is asked for, for messages. */
  what: string
  attempts: number
  limits: SourceLimits
  clock: Clock
  signal: AbortSignal
  onEvent(event: SourceEvent): void
}

export class Retries {
  readonly #options: RetryOptions
  #failures = 0
  /** What came since the count last started. */
  #bytes = 0

  constructor(options: RetryOptions) {
    this.#options = options
  }

  /** So many new bytes arrived. @returns whether that is enough for the count to start again. */
  progressed(bytes: number): boolean {
    this.#bytes += bytes
    if (this.#bytes < this.#options.limits.slowBytes) return false
    this.#bytes = 0
    this.#failures = 0
    return true
  }

  /** Waits before the next attempt, or throws UpstreamUnreachable when there have been enough. */
  async after(failure: Transient): Promise<void> {
    const { what, attempts, limits, clock, signal, onEvent } = this.#options
    signal.throwIfAborted()
    this.#failures++
    const reason = failure.message
    const asked = failure.retryAfterMs
    if (asked !== undefined && (failure.isResting || asked > limits.retryAfterMs)) {
      throw new UpstreamUnreachable(`${what}: ${reason}, and asks to come back in ${formatDuration(asked)}`, {
        hint: 'Try again then.',
        cause: failure,
      })
    }
    if (this.#failures >= attempts) {
      throw new UpstreamUnreachable(`${what}: ${reason} (${attempts} attempts)`, {
        hint: 'Check that the upstream is up and can be reached from here. What has arrived is kept if possible.',
        cause: failure,
      })
    }
    const waitMs = asked ?? backoff(this.#failures, limits, clock.random())
    onEvent({ type: 'retry', attempt: this.#failures, of: attempts, waitMs, reason })
    try {
      await clock.sleep(waitMs, signal)
    } catch (error) {
      signal.throwIfAborted()
      throw error
    }
  }

  /** Runs a step until it succeeds, fails for good, or has failed often enough. */
  async run<T>(step: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await step()
      } catch (error) {
        if (!(error instanceof Transient)) throw error
        await this.after(error)
      }
    }
  }
}

/** The wait after the nth failure in a row, for a `chance` from 0 to 1. */
export function backoff(failures: number, limits: SourceLimits, chance: number): number {
  const full = Math.min(limits.backoffCapMs, limits.backoffBaseMs * 2 ** (failures - 1))
  return Math.round(full * (0.5 + chance / 2))
}
