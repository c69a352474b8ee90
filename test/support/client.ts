/** A stock client that waits: it runs beside the test, and each line that it prints is kept with its time. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { RSYNC } from './rsync.ts'

export interface TimedLine {
  /** Milliseconds on the clock of `performance.now()`. */
  at: number
  text: string
}

/** Longest wait for something that a client is expected to print, or for its end. */
const PATIENCE_MS = 60_000

const running = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of running) signalAll(child, 'SIGKILL')
})

/** rsync is two processes once it receives: a signal to the first alone would leave the other behind. */
function signalAll(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-child.pid!, signal)
  } catch {
    // It has ended.
  }
}

export class WaitingClient {
  readonly lines: TimedLine[] = []
  /** Exit code, or null when a signal ended it. */
  readonly ended: Promise<number | null>
  readonly #child: ChildProcess
  readonly #command: string
  #stderr = ''
  #rest = ''
  #over = false
  #changed = Promise.withResolvers<void>()

  constructor(args: readonly string[], environment: NodeJS.ProcessEnv = {}) {
    const env = { PATH: process.env.PATH, HOME: '/nonexistent', LC_ALL: 'C', TZ: 'UTC', ...environment }
    const child = spawn(RSYNC, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    this.#child = child
    this.#command = [RSYNC, ...args].join(' ')
    running.add(child)
    child.stdout.setEncoding('latin1').on('data', (chunk: string) => this.#print(chunk))
    child.stderr.setEncoding('latin1').on('data', (chunk: string) => {
      this.#stderr += chunk
      this.#notify()
    })
    this.ended = new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code) => {
        running.delete(child)
        this.#over = true
        this.#notify()
        resolve(code)
      })
    })
    this.ended.catch(() => {})
  }

  get stderr(): string {
    return this.#stderr
  }

  /** All that it printed, for messages. */
  get output(): string {
    return `${this.#command}\n${this.lines.map(({ text }) => `${text}\n`).join('')}${this.#stderr}`
  }

  get isRunning(): boolean {
    return !this.#over
  }

  /** Waits for a line of stdout, printed already or to come. */
  async waitForLine(pattern: RegExp): Promise<TimedLine> {
    const deadline = AbortSignal.timeout(PATIENCE_MS)
    deadline.addEventListener('abort', () => this.#notify(), { once: true })
    for (;;) {
      const line = this.lines.find(({ text }) => pattern.test(text))
      if (line) return line
      if (this.#over || deadline.aborted) assert.fail(`no line ${pattern}\n${this.output}`)
      await this.#changed.promise
    }
  }

  /** Waits until it has printed so many more lines. */
  async waitForMore(lines: number): Promise<void> {
    const enough = this.lines.length + lines
    const deadline = AbortSignal.timeout(PATIENCE_MS)
    deadline.addEventListener('abort', () => this.#notify(), { once: true })
    while (this.lines.length < enough) {
      if (this.#over || deadline.aborted) assert.fail(`fewer than ${lines} more lines\n${this.output}`)
      await this.#changed.promise
    }
  }

  /** Waits for its end, which must be with this code. */
  async ends(code: number, patienceMs = PATIENCE_MS): Promise<void> {
    const timer = setTimeout(() => this.kill(), patienceMs)
    const actual = await this.ended.finally(() => clearTimeout(timer))
    assert.equal(actual, code, this.output)
  }

  /** Holds it still, as a device that fell asleep, until `wake`. */
  freeze(): void {
    signalAll(this.#child, 'SIGSTOP')
  }

  wake(): void {
    signalAll(this.#child, 'SIGCONT')
  }

  kill(): void {
    signalAll(this.#child, 'SIGKILL')
  }

  #print(chunk: string): void {
    const at = performance.now()
    const parts = (this.#rest + chunk).split('\n')
    this.#rest = parts.pop()!
    for (const text of parts) this.lines.push({ at, text })
    this.#notify()
  }

  #notify(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
  }
}

/** Percent that a progress line tells, or undefined. */
export function percentOf({ text }: TimedLine): number | undefined {
  const match = /(\d+) %/.exec(text)
  return match ? Number(match[1]) : undefined
}

/** The longest time between two lines, in ms. */
export function longestGap(lines: readonly TimedLine[]): number {
  let longest = 0
  for (let i = 1; i < lines.length; i++) longest = Math.max(longest, lines[i]!.at - lines[i - 1]!.at)
  return longest
}
