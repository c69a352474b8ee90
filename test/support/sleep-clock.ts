/** A clock that goes on only while somebody sleeps: hours pass at once, and how many is known. */
import type { Clock } from '../../src/source/clock.ts'

export class SleepClock implements Clock {
  #now = 0
  #slept = 0

  /** Sets it to that time of some day, where this machine is. */
  set(hour: number, minute: number): void {
    this.#now = new Date(2026, 0, 5, hour, minute).getTime()
    this.#slept = 0
  }

  /** Milliseconds since it was set. */
  get slept(): number {
    return this.#slept
  }

  now = (): number => this.#now
  random = (): number => 1
  sleep = async (ms: number): Promise<void> => {
    this.#now += ms
    this.#slept += ms
  }
}
