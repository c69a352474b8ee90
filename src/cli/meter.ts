/** How far something long is: a bar on a terminal, a line now and then otherwise. */
import { formatDuration, formatSize } from '../lib/units.ts'
import { formatBar } from './text.ts'

/** For who reads a log: often enough to see that it goes on. */
const LINE_EVERY_MS = 5000
/** On a terminal. */
const BAR_EVERY_MS = 100
const BAR_WIDTH = 30
/** Before this nobody can tell how long it takes. */
const TELLING_MS = 1000

export class Meter {
  readonly #doing: string
  readonly #say: (line: string) => void
  readonly #withRate: boolean
  readonly #isTerminal: boolean
  readonly #began = performance.now()
  #saidAt = Number.NEGATIVE_INFINITY

  /** @param doing what is done, as in "verifying". */
  constructor(doing: string, say: (line: string) => void, { withRate }: { withRate: boolean }) {
    this.#doing = doing
    this.#say = say
    this.#withRate = withRate
    this.#isTerminal = process.stderr.isTTY
  }

  /** Says it unless that was just done; the end always. `more` comes behind the figures. */
  note(bytes: number, totalBytes: number, more: readonly string[] = []): void {
    const now = performance.now()
    const everyMs = this.#isTerminal ? BAR_EVERY_MS : LINE_EVERY_MS
    if (bytes < totalBytes && now - this.#saidAt < everyMs) return
    this.#saidAt = now
    const share = totalBytes === 0 ? 1 : bytes / totalBytes
    const start = this.#isTerminal ? `${formatBar(share, BAR_WIDTH)} ` : `${this.#doing}: `
    const parts = [`${Math.floor(share * 100)} % (${formatSize(bytes)} of ${formatSize(totalBytes)})`]
    const ms = now - this.#began
    if (ms > TELLING_MS && bytes > 0 && bytes < totalBytes) {
      if (this.#withRate) parts.push(`${formatSize((bytes * 1000) / ms)}/s`)
      parts.push(`${formatDuration(((totalBytes - bytes) * ms) / bytes)} left`)
    }
    this.#say(start + [...parts, ...more].join(', '))
  }
}
