/** The thread of one fetch: takes its job as workerData, tells how it goes, ends with `done` or `failed`. */
import { parentPort, workerData } from 'node:worker_threads'
import { type ErrorReport, reportError } from '../errors.ts'
import { RoomClient } from '../store/room.ts'
import { type FetchJob, type FetchOutcome, type FetchProgress, runFetchJob } from './fetch-job.ts'

export interface FetchWorkerData {
  job: FetchJob
  room: SharedArrayBuffer
}

export type FetchMessage =
  | { type: 'progress'; progress: FetchProgress }
  | { type: 'done'; outcome: FetchOutcome }
  | { type: 'failed'; error: ErrorReport }

/** The only thing that a fetch is ever told: stop, and keep what can be gone on from. */
export type FetchOrder = { type: 'abort' }

const port = parentPort!
const { job, room } = workerData as FetchWorkerData
const abort = new AbortController()
port.on('message', (_order: FetchOrder) => abort.abort())

const send = (message: FetchMessage): void => port.postMessage(message)
try {
  const outcome = await runFetchJob(
    job,
    new RoomClient(room),
    (progress) => send({ type: 'progress', progress }),
    abort.signal,
  )
  send({ type: 'done', outcome })
} catch (error) {
  send({ type: 'failed', error: reportError(error) })
} finally {
  port.close()
}
