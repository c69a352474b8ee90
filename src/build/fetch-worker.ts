/** The thread of one fetch: takes its job as workerData, tells how it goes, ends with `done` or `failed`. */
import { parentPort, workerData } from 'node:worker_threads'
import { type ErrorReport, reportError } from '../errors.ts'
import { checkProgram } from '../lib/module-path.ts'
import { untilAborted } from '../lib/single-flight.ts'
import { RoomClient } from '../store/room.ts'
import { type FetchJob, type FetchOutcome, type FetchProgress, runFetchJob } from './fetch-job.ts'

export interface FetchWorkerData {
  job: FetchJob
  room: SharedArrayBuffer
}

export type FetchMessage =
  | { type: 'progress'; progress: FetchProgress }
  /** Asks for a stretch of a blob that the store has: only the main thread knows where it is. */
  | { type: 'read'; number: number; digest: Uint8Array; offset: number; bytes: number }
  | { type: 'done'; outcome: FetchOutcome }
  | { type: 'failed'; error: ErrorReport }

/** What a fetch is told: to stop, and keep what can be gone on from; and what it has asked to read. */
export type FetchOrder = { type: 'abort' } | { type: 'held'; number: number; bytes: Uint8Array | undefined }

const port = parentPort!
const { job, room } = workerData as FetchWorkerData
const abort = new AbortController()
const reading = new Map<number, (bytes: Uint8Array | undefined) => void>()
let reads = 0
port.on('message', (order: FetchOrder) => {
  if (order.type === 'abort') abort.abort()
  else reading.get(order.number)?.(order.bytes)
})

const send = (message: FetchMessage): void => port.postMessage(message)
try {
  checkProgram()
  const outcome = await runFetchJob(
    job,
    new RoomClient(room, abort),
    (progress) => send({ type: 'progress', progress }),
    abort.signal,
    (digest, offset, bytes) => {
      const number = ++reads
      const answer = new Promise<Uint8Array | undefined>((resolve) => reading.set(number, resolve))
      send({ type: 'read', number, digest, offset, bytes })
      return untilAborted(answer, abort.signal).finally(() => reading.delete(number))
    },
  )
  send({ type: 'done', outcome })
} catch (error) {
  send({ type: 'failed', error: reportError(error) })
} finally {
  port.close()
}
