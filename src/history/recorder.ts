/**
 * Recorder: whoever is told what is to be remembered. While a server hands over it is open who that is: the history is
 * closed, so that another process may have it, and may become ours again. What comes meanwhile waits, and then goes to
 * whichever of them remembers.
 */
import { type ChangeRecord, NOBODY } from './change-record.ts'
import type { FetchEnd } from './fetch-record.ts'
import type { SessionRecord } from './session-record.ts'

export interface Recorder {
  /** How a session went. */
  session(record: SessionRecord): void
  /** How a fetch went. */
  fetch(end: FetchEnd): void
  /** Who changed what, or tried to. */
  change(change: Omit<ChangeRecord, 'id'>): void
}

/** What comes while it is open who remembers it; of more than that nobody does. */
const MAX_WAITING = 10_000
/** Of these, what strangers were refused: they may try as often as they like, and push nothing else out. */
const MAX_REFUSALS_WAITING = 500

export class MovingRecorder implements Recorder {
  #recorder: Recorder
  #waiting: ((recorder: Recorder) => void)[] | undefined
  #refusals = 0

  constructor(recorder: Recorder) {
    this.#recorder = recorder
  }

  /** From now on all waits, until the returned function is called: with who remembers it from then on, if that is another. */
  hold(): (other?: Recorder) => void {
    this.#waiting = []
    this.#refusals = 0
    return (other) => {
      const waiting = this.#waiting ?? []
      this.#waiting = undefined
      if (other) this.#recorder = other
      for (const tell of waiting) tell(this.#recorder)
    }
  }

  session(record: SessionRecord): void {
    this.#tell((recorder) => recorder.session(record))
  }

  fetch(end: FetchEnd): void {
    this.#tell((recorder) => recorder.fetch(end))
  }

  change(change: Omit<ChangeRecord, 'id'>): void {
    if (this.#waiting && change.who === NOBODY && this.#refusals++ >= MAX_REFUSALS_WAITING) return
    this.#tell((recorder) => recorder.change(change))
  }

  #tell(tell: (recorder: Recorder) => void): void {
    if (!this.#waiting) tell(this.#recorder)
    else if (this.#waiting.length < MAX_WAITING) this.#waiting.push(tell)
  }
}
