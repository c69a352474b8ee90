/**
 * Servers that have asked not to be asked again for longer than a fetch waits (`Retry-After`). They are not, by
 * this fetch or by later ones: whoever makes a source says what earlier ones were told, and hears what is new.
 */

/** Whatever a server says, it is asked again after a day. */
export const MAX_REST_MS = 86_400_000

export class Rests {
  /** By origin, on a clock that never jumps. */
  readonly #until = new Map<string, number>()
  readonly #onRest: (origin: string, ms: number) => void

  /** @param left how long those that are known already are to be left alone. */
  constructor(
    left: Readonly<Record<string, number>> = {},
    onRest: (origin: string, ms: number) => void = () => {},
  ) {
    for (const [origin, ms] of Object.entries(left)) this.#until.set(origin, performance.now() + ms)
    this.#onRest = onRest
  }

  note(url: URL, ms: number): void {
    const bounded = Math.min(ms, MAX_REST_MS)
    this.#until.set(url.origin, performance.now() + bounded)
    this.#onRest(url.origin, bounded)
  }

  /** For how long the server of a URL is not to be asked; undefined when it may be. */
  leftFor(url: URL): number | undefined {
    const left = (this.#until.get(url.origin) ?? 0) - performance.now()
    return left > 0 ? left : undefined
  }
}
