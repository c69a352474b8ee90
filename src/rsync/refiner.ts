/**
 * Refiner: compresses again what was compressed while a client waited, as hard as it can be done, so that
 * the rest of a fleet gets the same content in fewer bytes. One thread of the lowest priority; what it has
 * not come to when the server ends is found again when the next client asks.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Piscina } from 'piscina'
import { ConnectionLost, StoreError } from '../errors.ts'
import { alone } from '../lib/bytes.ts'
import { siblingModule } from '../lib/module-path.ts'
import type { Answers, RefineJob, Squeeze } from './answers.ts'
import { type CodecName, type FrameCompressor, FrameLost } from './codecs.ts'
import type { FrameTask, SqueezeTask } from './refine-worker.ts'

/** Jobs that wait: each holds the sums of one file. */
const MAX_WAITING = 50_000
/** Bytes of sums that waiting jobs hold. */
const MAX_WAITING_BYTES = 32 * 2 ** 20
/** What a file of a frame takes, with its keys. */
const FRAMED_FILE_BYTES = 250
/** Clients that are served come first, but what they get is not to stay large for ever where there are always some. */
const PATIENCE_MS = 60_000
const LOOK_EVERY_MS = 250
/** The thread ends when it had nothing to do for this time. */
const IDLE_MS = 10_000

export class Refiner {
  readonly #waiting = new Map<string, RefineJob>()
  readonly #stop = new AbortController()
  readonly #onProblem: (problem: Error) => void
  readonly #isBusy: () => boolean
  #answers: Answers | undefined
  #waitingBytes = 0
  #told = ''
  #frames = 0
  #running: Promise<void> | undefined
  #pool: Promise<Piscina> | undefined

  /** @param isBusy whether clients are served just now. */
  constructor(onProblem: (problem: Error) => void, isBusy: () => boolean = () => false) {
    this.#onProblem = onProblem
    this.#isBusy = isBusy
  }

  /** How much is still to be done. */
  get waiting(): number {
    return this.#waiting.size + (this.#running ? 1 : 0)
  }

  /** Resolves when nothing waits any more. */
  async idle(): Promise<void> {
    while (this.#running) await this.#running
  }

  /** Where answers are worked out and kept. Called once, before anything is added. */
  serve(answers: Answers): void {
    this.#answers = answers
  }

  /** Takes a job, unless it is there already or there are too many. */
  add(job: RefineJob): void {
    const key = Buffer.from(job.key).toString('latin1')
    const bytes = bytesOf(job)
    if (this.#stop.signal.aborted || this.#waiting.has(key)) return
    if (this.#waiting.size >= MAX_WAITING || this.#waitingBytes + bytes > MAX_WAITING_BYTES) return
    this.#waiting.set(key, job)
    this.#waitingBytes += bytes
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined
    })
  }

  async close(): Promise<void> {
    this.#stop.abort(new ConnectionLost('the server stops'))
    this.#waiting.clear()
    await (await this.#pool)?.destroy()
    await this.#running
  }

  async #run(): Promise<void> {
    // What is added in the same moment is looked at together.
    await Promise.resolve()
    const until = performance.now() + PATIENCE_MS
    for (const [key, job] of this.#waiting) {
      while (this.#isBusy() && performance.now() < until && !this.#stop.signal.aborted)
        await sleep(LOOK_EVERY_MS, undefined, { ref: false })
      try {
        await this.#refine(job)
      } catch (error) {
        // A build that has gone since, or a file that can't be read: nobody waits for this.
        if (!this.#stop.signal.aborted && !(error instanceof StoreError)) this.#tell(error as Error)
      }
      this.#waiting.delete(key)
      this.#waitingBytes -= bytesOf(job)
      if (this.#stop.signal.aborted) return
    }
  }

  /** Once what it is, not for each job. */
  #tell(problem: Error): void {
    if (problem.message !== this.#told) this.#onProblem(problem)
    this.#told = problem.message
  }

  async #refine(job: RefineJob): Promise<void> {
    if (job.type === 'piece') return this.#answers!.refinePiece(job, this.best(job.codec))
    if (job.type === 'frame')
      return this.#answers!.refineFrame(job.files, () => this.bestFrame(), this.#stop.signal)
    const { question } = job
    await this.#answers!.refine(
      question,
      undefined,
      this.best(question.manner.compression!.codec),
      this.#stop.signal,
    )
  }

  /** Compresses as hard as it can be done, in the thread that has the lowest priority. */
  best(codec: CodecName): Squeeze {
    return (bytes, last, history) =>
      this.#inThread({
        type: 'squeeze',
        codec,
        bytes: alone(bytes),
        last,
        history: history && alone(history),
      })
  }

  /** A frame that is compressed like that. */
  bestFrame(): FrameCompressor {
    const frame = ++this.#frames
    let isOpen = false
    return {
      add: async (bytes, last) => {
        const first = !isOpen
        isOpen = !last
        const added: Uint8Array[] | undefined = await this.#inThread({
          type: 'frame',
          frame,
          first,
          bytes: alone(bytes),
          last,
        })
        if (added) return added
        isOpen = false
        throw new FrameLost('the thread that began a frame has ended')
      },
      close: () => {
        if (!isOpen) return
        isOpen = false
        const last = { type: 'frame', frame, first: false, bytes: undefined, last: true } as const
        this.#inThread(last).catch(() => {})
      },
    }
  }

  async #inThread<T>(task: SqueezeTask | FrameTask): Promise<T> {
    this.#pool ??= startPool()
    return (await this.#pool).run(task, { signal: this.#stop.signal })
  }
}

/** Loaded with the first work: a server that only repeats itself never has any. */
async function startPool(): Promise<Piscina> {
  const { Piscina } = await import('piscina')
  return new Piscina({
    filename: siblingModule(import.meta.url, './refine-worker'),
    minThreads: 0,
    maxThreads: 1,
    idleTimeout: IDLE_MS,
  })
}

function bytesOf(job: RefineJob): number {
  if (job.type === 'frame') return job.files.length * FRAMED_FILE_BYTES
  return job.type === 'answer' ? (job.question.sums?.bytes.length ?? 0) : 0
}
