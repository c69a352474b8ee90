/**
 * Loaded into upserv with --import: how late its event loop is, and how much of that is work of its own. At SIGUSR2
 * it writes what it saw since the signal before to the file that UPSERV_BENCH_LAG names, and begins anew. upserv
 * itself knows nothing of it.
 */
import { renameSync, writeFileSync } from 'node:fs'
import { createHistogram } from 'node:perf_hooks'
import { isMainThread } from 'node:worker_threads'

/** A timer that fires so often: lags are told to the millisecond, at little cost. */
const RESOLUTION_MS = 2

const file = process.env.UPSERV_BENCH_LAG
if (isMainThread && file !== undefined) {
  const late = createHistogram()
  /** What the thread worked from one turn of this timer to the next: nobody else had one meanwhile. */
  const busy = createHistogram()
  const worked = (): number => {
    const { user, system } = process.threadCpuUsage()
    return (user + system) / 1000
  }
  let at = performance.now()
  let sum = worked()
  setInterval(() => {
    const [now, all] = [performance.now(), worked()]
    late.record(1 + Math.max(0, Math.round(1000 * (now - at - RESOLUTION_MS))))
    busy.record(1 + Math.round(1000 * (all - sum)))
    at = now
    sum = all
  }, RESOLUTION_MS).unref()
  process.on('SIGUSR2', () => {
    const [p50, p99, max] = [late.percentile(50), late.percentile(99), late.max].map((us) => us / 1000)
    const [busyP99, busyMax] = [busy.percentile(99), busy.max].map((us) => us / 1000)
    const seen = { p50, p99, max, busyP99, busyMax, samples: late.count }
    writeFileSync(`${file}.new`, JSON.stringify(seen))
    renameSync(`${file}.new`, file)
    late.reset()
    busy.reset()
  })
}
