/**
 * Loaded into upserv with --import: how late its event loop is. At SIGUSR2 it writes what it saw since the
 * signal before to the file that UPSERV_BENCH_LAG names, and begins anew. upserv itself knows nothing of it.
 */
import { renameSync, writeFileSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { isMainThread } from 'node:worker_threads'

/** A timer that fires so often: lags are told to the millisecond, at little cost. */
const RESOLUTION_MS = 2

const file = process.env.UPSERV_BENCH_LAG
if (isMainThread && file !== undefined) {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  delay.enable()
  process.on('SIGUSR2', () => {
    // The histogram holds the time from one firing to the next: what is beyond the timer's own is lag.
    const lagMs = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS)
    const [p50, p99, max] = [delay.percentile(50), delay.percentile(99), delay.max].map(lagMs)
    writeFileSync(`${file}.new`, JSON.stringify({ p50, p99, max, samples: delay.count }))
    renameSync(`${file}.new`, file)
    delay.reset()
  })
}
