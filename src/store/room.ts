/**
 * Room on the disk for one ingest, asked for by its worker thread and granted by the main thread.
 *
 * An ingest runs synchronously and must not write a byte that the budget has not granted, so its thread
 * asks and sleeps until there is an answer (Atomics.wait); the main thread may evict or wait for another
 * fetch meanwhile. Grants come in large pieces, so questions are rare and most claims are an addition.
 *
 * The shared memory: [state, kind, length of message, given up] as Int32, [asked bytes, granted bytes] as Float64,
 * then the message of a refusal in UTF-8, a NUL and its hint. Whoever's turn it is by `state` may write the rest; only
 * "given up" is the main thread's at any time. A thread that wakes here has not seen its messages yet, so nothing else
 * tells it that it was not refused the room but is to stop, and keep what it has.
 */
import { NoRoom, UpservError } from '../errors.ts'

const IDLE = 0
const ASKED = 1
const ANSWERED = 2

const KIND_GRANT = 1
const KIND_DISK_FULL = 2

/** Where the flags hold whether the fetch was given up. */
const GIVEN_UP_AT = 3
const NUMBERS_AT = 16
const MESSAGE_AT = 32
const MESSAGE_BYTES = 1024

export type RoomQuestion = { type: 'grant'; bytes: number } | { type: 'disk-full' }

/** Granted bytes, or why there are none. */
export type RoomAnswer = { granted: number } | { refusal: string; hint?: string | undefined }

function viewsOf(memory: SharedArrayBuffer) {
  return {
    flags: new Int32Array(memory, 0, 4),
    numbers: new Float64Array(memory, NUMBERS_AT, 2),
    message: new Uint8Array(memory, MESSAGE_AT, MESSAGE_BYTES),
  }
}

/** The worker thread's side. */
export class RoomClient {
  readonly #views: ReturnType<typeof viewsOf>
  readonly #abort: AbortController
  #granted = 0
  #claimed = 0

  /** @param abort of the fetch: aborted, and its reason thrown, once there is no answer since the fetch was given up. */
  constructor(memory: SharedArrayBuffer, abort = new AbortController()) {
    this.#views = viewsOf(memory)
    this.#abort = abort
  }

  /** Before anything of a file of so many bytes is written. @throws NoRoom, or the reason of `abort`. */
  claim(bytes: number): void {
    const missing = this.#claimed + bytes - this.#granted
    if (missing > 0) this.#granted += this.#ask(KIND_GRANT, missing)
    this.#claimed += bytes
  }

  /** Some of what was claimed was not used. */
  giveBack(bytes: number): void {
    this.#claimed -= bytes
  }

  /** The disk is full, whatever was granted: true when there is room now. @throws as `claim`. */
  diskFull(): boolean {
    return this.#ask(KIND_DISK_FULL, 0) > 0
  }

  #ask(kind: number, bytes: number): number {
    const { flags, numbers, message } = this.#views
    flags[1] = kind
    numbers[0] = bytes
    Atomics.store(flags, 0, ASKED)
    Atomics.notify(flags, 0)
    while (Atomics.load(flags, 0) === ASKED) Atomics.wait(flags, 0, ASKED)
    const length = flags[2]!
    const granted = numbers[1]!
    const refusal = length > 0 ? Buffer.from(message.slice(0, length)).toString('utf8') : undefined
    Atomics.store(flags, 0, IDLE)
    if (refusal === undefined) return granted
    if (Atomics.load(flags, GIVEN_UP_AT) !== 0) this.#abort.abort()
    this.#abort.signal.throwIfAborted()
    const [what, hint] = refusal.split('\0')
    throw new NoRoom(what!, hint === undefined ? {} : { hint })
  }
}

function refusalOf(error: Error): { refusal: string; hint: string | undefined } {
  return { refusal: error.message, hint: error instanceof UpservError ? error.hint : undefined }
}

function textOf({ refusal, hint }: { refusal: string; hint?: string | undefined }): string {
  return hint === undefined ? refusal : `${refusal}\0${hint}`
}

const GIVEN_UP: RoomAnswer = { refusal: 'the fetch was given up' }

/** The main thread's side: hands each question to `answer` until it is closed. */
export class RoomDesk {
  readonly memory = new SharedArrayBuffer(MESSAGE_AT + MESSAGE_BYTES)
  readonly #views = viewsOf(this.memory)
  readonly #answer: (question: RoomQuestion) => Promise<RoomAnswer>
  readonly #givenUp = Promise.withResolvers<RoomAnswer>()
  #abandoned = false
  #closed = false

  constructor(answer: (question: RoomQuestion) => Promise<RoomAnswer>) {
    this.#answer = answer
    void this.#serve()
  }

  /**
   * The fetch is given up: the question that is open and all later ones are refused, so that a thread that
   * sleeps here wakes and can put its things away.
   */
  abandon(): void {
    this.#abandoned = true
    Atomics.store(this.#views.flags, GIVEN_UP_AT, 1)
    this.#givenUp.resolve(GIVEN_UP)
    if (Atomics.load(this.#views.flags, 0) === ASKED) this.#reply(GIVEN_UP)
  }

  /** The thread has ended: nobody is left to ask. */
  close(): void {
    this.abandon()
    this.#closed = true
    // Wakes our own waiting loop, which then ends.
    Atomics.notify(this.#views.flags, 0)
  }

  async #serve(): Promise<void> {
    const { flags, numbers } = this.#views
    while (!this.#closed) {
      const state = Atomics.load(flags, 0)
      if (state !== ASKED) {
        const waiting = Atomics.waitAsync(flags, 0, state)
        if (waiting.async) await waiting.value
        continue
      }
      const question: RoomQuestion =
        flags[1] === KIND_DISK_FULL ? { type: 'disk-full' } : { type: 'grant', bytes: numbers[0]! }
      // An answer may take until another fetch ends: what is asked after `abandon` must not wait behind it.
      const answer = this.#abandoned
        ? GIVEN_UP
        : await Promise.race([this.#answer(question).catch(refusalOf), this.#givenUp.promise])
      // It may have been answered by `abandon` meanwhile.
      if (Atomics.load(flags, 0) === ASKED) this.#reply(answer)
    }
  }

  #reply(answer: RoomAnswer): void {
    const { flags, numbers, message } = this.#views
    numbers[1] = 'granted' in answer ? answer.granted : 0
    flags[2] = 'refusal' in answer ? new TextEncoder().encodeInto(textOf(answer), message).written : 0
    Atomics.store(flags, 0, ANSWERED)
    Atomics.notify(flags, 0)
  }
}
