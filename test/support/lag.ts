/** Asks an upserv that was started with `lagEnvironment` how late its event loop was. */
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'

/** Milliseconds. */
export interface Lag {
  readonly p50: number
  readonly p99: number
  readonly max: number
  /** What its own thread worked without a turn for anybody else: a busy machine makes it late, and not busy. */
  readonly busyP99: number
  readonly busyMax: number
  readonly samples: number
}

const HOOK = fileURLToPath(new URL('./lag-hook.ts', import.meta.url))

/** A server that blocks longer than this is told as broken. */
const ANSWER_MS = 60_000

export function lagEnvironment(file: string): NodeJS.ProcessEnv {
  return { NODE_OPTIONS: `--import=${pathToFileURL(HOOK)}`, UPSERV_BENCH_LAG: file }
}

/** What was seen since the last time this was asked. */
export async function takeLag(pid: number, file: string): Promise<Lag> {
  rmSync(file, { force: true })
  process.kill(pid, 'SIGUSR2')
  const deadline = performance.now() + ANSWER_MS
  while (!existsSync(file)) {
    if (performance.now() > deadline)
      throw new Error(`upserv did not say its event loop's lag in ${ANSWER_MS} ms`)
    await sleep(10) // no event tells when another process has written
  }
  return JSON.parse(readFileSync(file, 'utf8')) as Lag
}
