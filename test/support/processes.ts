/**
 * Programs that tests run: collected output, a hard time limit, and an end for every process that was
 * started, its children included, whatever the test does.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createServer, connect as netConnect } from 'node:net'
import { asBuffer } from '../../src/lib/bytes.ts'

export interface RunResult {
  command: string
  /** Exit code, or null when a signal ended it. */
  code: number | null
  signal: NodeJS.Signals | null
  /** One character per byte: output holds file names. */
  stdout: string
  stderr: string
  milliseconds: number
}

export interface RunOptions {
  cwd?: string
  env?: NodeJS.ProcessEnv
  input?: string | Uint8Array
  /** After this the program and its children are killed and `run` rejects. */
  timeoutMs?: number
}

/** What is running: it ends when we do, however that comes about. */
const running = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of running) killGroup(child)
})

/** No client under test needs longer; a hang is told with what was printed until then. */
const DEFAULT_TIMEOUT_MS = 60_000

/** Runs a program to its end. Rejects only when it cannot be started or takes too long. */
export function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { cwd, env = process.env, input, timeoutMs = DEFAULT_TIMEOUT_MS } = options
  const command = [program, ...args].map(quoteForShell).join(' ')
  const started = performance.now()
  // A process group of its own, so that a hung rsync is killed together with the halves it forked.
  const child = spawn(program, args, { cwd, env, detached: true, stdio: ['pipe', 'pipe', 'pipe'] })
  running.add(child)
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  child.stdout.on('data', (chunk: Uint8Array) => stdout.push(asBuffer(chunk)))
  child.stderr.on('data', (chunk: Uint8Array) => stderr.push(asBuffer(chunk)))
  child.stdin.on('error', () => {}) // a program that ends without reading its input is no failure
  child.stdin.end(input)
  return new Promise((resolve, reject) => {
    const text = (chunks: Buffer[]): string => Buffer.concat(chunks).toString('latin1')
    const timer = setTimeout(() => {
      killGroup(child)
      reject(new Error(`${command}\ndid not end in ${timeoutMs} ms\n${text(stdout)}${text(stderr)}`))
    }, timeoutMs)
    child.once('error', (error) => {
      running.delete(child)
      clearTimeout(timer)
      reject(error)
    })
    child.once('close', (code, signal) => {
      running.delete(child)
      clearTimeout(timer)
      const milliseconds = Math.round(performance.now() - started)
      resolve({ command, code, signal, stdout: text(stdout), stderr: text(stderr), milliseconds })
    })
  })
}

function killGroup(child: ChildProcess): void {
  try {
    process.kill(-child.pid!, 'SIGKILL')
  } catch {
    child.kill('SIGKILL')
  }
}

/** As one would type it. */
export function quoteForShell(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

// ---------------------------------------------------------------------------------------------------
// Long-running programs.

/** A server process: what it printed, and how it ends. */
export class ServerProcess {
  readonly child: ChildProcess
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  #stdout = ''
  #stderr = ''
  #changed: () => void = () => {}
  #over = false

  constructor(
    program: string,
    args: readonly string[],
    options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
  ) {
    const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
    this.child = child
    running.add(child)
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      this.#stdout += chunk
      this.#changed()
    })
    child.stderr!.setEncoding('utf8').on('data', (chunk: string) => {
      this.#stderr += chunk
      this.#changed()
    })
    this.ended = new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code, signal) => {
        running.delete(child)
        this.#over = true
        this.#changed()
        resolve({ code, signal })
      })
    })
    this.ended.catch(() => {})
  }

  get stdout(): string {
    return this.#stdout
  }

  get stderr(): string {
    return this.#stderr
  }

  get isRunning(): boolean {
    return !this.#over
  }

  /** Waits until stdout or stderr matches. */
  async waitForOutput(
    stream: 'stdout' | 'stderr',
    pattern: RegExp,
    timeoutMs = 30_000,
  ): Promise<RegExpExecArray> {
    const deadline = AbortSignal.timeout(timeoutMs)
    for (;;) {
      const match = pattern.exec(this[stream])
      if (match) return match
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#changed = resolve
      deadline.addEventListener('abort', () => resolve(), { once: true })
      if (this.#over || deadline.aborted) {
        throw new Error(
          `${this.child.spawnargs.join(' ')}: ${this.#over ? 'ended' : `${timeoutMs} ms passed`} without ` +
            `${pattern} on ${stream}\n${this.#stdout}\n${this.#stderr}`,
        )
      }
      await promise
    }
  }

  /** Sends the signal and waits for the end; SIGKILL follows when it does not come. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', timeoutMs = 10_000): Promise<number | null> {
    if (this.#over) return (await this.ended).code
    this.child.kill(signal)
    const timer = setTimeout(() => this.child.kill('SIGKILL'), timeoutMs)
    try {
      return (await this.ended).code
    } finally {
      clearTimeout(timer)
    }
  }
}

/** A port that nobody listens on at this moment, for programs that cannot be given port 0. */
export function freePort(): Promise<number> {
  const server = createServer()
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
}

/** Resolves as soon as something accepts connections there, or rejects when `server` ends first. */
export async function waitForPort(port: number, server: ServerProcess, timeoutMs = 10_000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    if (await accepts(port)) return
    if (!server.isRunning) throw new Error(`${server.child.spawnargs.join(' ')} ended:\n${server.stderr}`)
    if (performance.now() > deadline) throw new Error(`nothing listens on port ${port}\n${server.stderr}`)
    await new Promise((resolve) => setTimeout(resolve, 10)) // no event tells when another process listens
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = netConnect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
