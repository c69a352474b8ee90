/**
 * History: which device got which build, when, and how it ended, kept for a while in a database of its own.
 *
 * SQLite works in a thread (history-worker.ts), so a session never waits for it: records are handed over and
 * forgotten. What a slow or broken disk can't take is dropped, and that is told once.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { StoreError } from '../errors.ts'
import { Allowance } from '../lib/allowance.ts'
import { siblingModule } from '../lib/module-path.ts'
import { type ChangePage, type ChangeRecord, NOBODY } from './change-record.ts'
import type { FetchEnd, FetchPage, FetchQuery } from './fetch-record.ts'
import type { HistoryMessage, HistoryOrder, HistoryWorkerData } from './history-worker.ts'
import type { RecordPage, RecordQuery, SessionRecord } from './session-record.ts'

export interface HistoryOptions {
  /** A directory of its own. It is made when there is something to keep. */
  directory: string
  /** Records are deleted when they are so old; 0: nothing is kept. */
  keepMs: number
  /** So many are kept, and a tenth more for a while. */
  maxRows?: number
  /** Told what went wrong with the database. */
  onProblem: (problem: Error) => void
  /** Milliseconds on a clock that never jumps. */
  now?: () => number
}

/** About 1 KB each: the history stays below a few hundred megabytes however many devices there are. */
const MAX_ROWS = 200_000
/** Records on their way to the thread; more are dropped. */
const MAX_WAITING = 10_000
/**
 * Refusals of strangers that are remembered: so many at once, and as many an hour. Mistakes are fewer, and who sends
 * thousands of requests a second fills no disk with them. The log has them all.
 */
const REFUSALS_PER_HOUR = 500
const HOUR_MS = 3_600_000
/** A page of records is at most so long. */
export const MAX_PAGE = 1000
const DIRECTORY_MODE = 0o750

export class History {
  /** Told the bytes that the database takes, whenever they change. */
  onSize: (bytes: number) => void = () => {}
  readonly #options: HistoryOptions
  readonly #refusals: Allowance
  #worker: Worker | undefined
  #asked = 0
  readonly #asking = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>()
  #waiting = 0
  #dropped = 0
  #closed = false
  #told = ''
  #ended: Promise<void> = Promise.resolve()

  constructor(options: HistoryOptions) {
    this.#options = options
    this.#refusals = new Allowance(REFUSALS_PER_HOUR, HOUR_MS, options.now ?? (() => performance.now()))
  }

  /** Whether anything is kept at all. */
  get isOn(): boolean {
    return this.#options.keepMs > 0
  }

  /** The greatest id that was ever given, 0 for none. */
  async lastId(): Promise<number> {
    return this.isOn ? this.#ask<number>({ type: 'last' }) : 0
  }

  /** Keeps a record, some time soon. */
  add(record: SessionRecord): void {
    this.#add({ type: 'add', record })
  }

  /** Keeps a fetch, some time soon. */
  addFetch(end: FetchEnd): void {
    this.#add({ type: 'addFetch', end })
  }

  #add(order: HistoryOrder): void {
    if (!this.isOn || this.#closed) return
    if (this.#waiting >= MAX_WAITING) {
      if (this.#dropped++ === 0) this.#options.onProblem(new StoreError('the disk is too slow for it'))
      return
    }
    this.#waiting++
    this.#post(order)
  }

  /** Remembers a change, some time soon; what strangers were refused, within an allowance. */
  note(change: Omit<ChangeRecord, 'id'>): void {
    if (!this.isOn || this.#closed) return
    if (change.who === NOBODY) {
      if (this.#refusals.left < 1) return
      this.#refusals.take(1)
    }
    this.#post({ type: 'note', change })
  }

  /** The latest first. @param before only changes whose id is less. @throws StoreError */
  async changes(limit: number, before?: number): Promise<ChangePage> {
    if (!this.isOn) return { changes: [], next: null }
    return this.#ask<ChangePage>({
      type: 'changes',
      limit: Math.min(limit, MAX_PAGE),
      before: before ?? null,
    })
  }

  /** The latest first. @param before only records whose id is less. @throws StoreError */
  async find(query: RecordQuery, limit: number, before?: number): Promise<RecordPage> {
    if (!this.isOn) return { records: [], next: null }
    const most = Math.min(limit, MAX_PAGE)
    return this.#ask<RecordPage>({ type: 'find', query, limit: most, before: before ?? null })
  }

  /** Deletes records for good. @returns how many. @throws StoreError */
  async forget(query: RecordQuery): Promise<number> {
    return this.isOn ? this.#ask<number>({ type: 'forget', query }) : 0
  }

  /** As `find`. @param before only records whose number is less. */
  async findFetches(query: FetchQuery, limit: number, before?: number): Promise<FetchPage> {
    if (!this.isOn) return { records: [], next: null }
    const most = Math.min(limit, MAX_PAGE)
    return this.#ask<FetchPage>({ type: 'findFetches', query, limit: most, before: before ?? null })
  }

  /** As `forget`. */
  async forgetFetches(query: FetchQuery): Promise<number> {
    return this.isOn ? this.#ask<number>({ type: 'forgetFetches', query }) : 0
  }

  /** When this returns, all that was added is on disk. */
  async close(): Promise<void> {
    this.#closed = true
    if (!this.#worker) return
    this.#post({ type: 'close' })
    await this.#ended
  }

  /** After `close`: as if it had just been made. */
  reopen(): void {
    this.#closed = false
  }

  #ask<T>(order: HistoryOrder): Promise<T> {
    if (this.#closed) return Promise.reject(new StoreError('the history is closed'))
    const number = ++this.#asked
    return new Promise<T>((resolve, reject) => {
      this.#asking.set(number, { resolve, reject })
      this.#post({ ...order, number })
    })
  }

  #post(order: HistoryOrder & { number?: number }): void {
    try {
      this.#thread().postMessage(order)
    } catch (error) {
      this.#options.onProblem(error as Error)
      this.#failAll(error as Error)
    }
  }

  #thread(): Worker {
    if (this.#worker) return this.#worker
    const { directory, keepMs, maxRows = MAX_ROWS } = this.#options
    mkdirSync(directory, { recursive: true, mode: DIRECTORY_MODE })
    const file = join(directory, 'sessions.db')
    const worker = new Worker(siblingModule(import.meta.url, './history-worker'), {
      workerData: { file, keepMs, maxRows } satisfies HistoryWorkerData,
      name: 'history',
    })
    this.#worker = worker
    worker.on('message', (message: HistoryMessage) => this.#hear(message))
    worker.once('error', (error: Error) => {
      // Who adds a record has it started again, and again.
      if (error.message !== this.#told) this.#options.onProblem(error)
      this.#told = error.message
    })
    this.#ended = new Promise((resolve) => {
      worker.once('exit', () => {
        this.#worker = undefined
        this.#waiting = 0
        this.#failAll(new StoreError('the thread of the history has ended'))
        resolve()
      })
    })
    return worker
  }

  #hear(message: HistoryMessage): void {
    switch (message.type) {
      case 'written':
        this.#waiting -= message.records
        break
      case 'size':
        this.onSize(message.bytes)
        break
      case 'problem':
        this.#options.onProblem(new StoreError(message.reason))
        break
      case 'answer':
        this.#asking.get(message.number)?.resolve(message.value as never)
        this.#asking.delete(message.number)
        break
      case 'failed':
        this.#asking.get(message.number)?.reject(new StoreError(`the history failed: ${message.reason}`))
        this.#asking.delete(message.number)
        break
    }
  }

  #failAll(error: Error): void {
    for (const { reject } of this.#asking.values()) reject(error)
    this.#asking.clear()
  }
}
