/**
 * Bytes through a program, or through anything else that takes bytes and gives others: fed and read at the
 * same time, ended at once whatever fails on either side.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'

/** Of what a program complains about, only this much is kept. */
const MAX_STDERR_BYTES = 4096

/** One decompressor or program at work: bytes are written to it and read from it at the same time. */
export interface Stage {
  input: Writable
  output: Readable
  /** Writes a chunk and waits until there is room for more; false when the stage wants no more of it. */
  write(chunk: Uint8Array): Promise<boolean>
  /** After the last output: throws when the data was bad. */
  finished(): Promise<void>
  /** What an error of the stage itself means. */
  explain(error: unknown): unknown
  /** Ends it at once, in whatever state it is. */
  kill(): void
}

/** Sends `chunks` through a stage. `chunks` is read to its end before this ends. */
export async function* pump(chunks: AsyncIterable<Uint8Array>, stage: Stage, signal: AbortSignal) {
  let stopped = false
  let inputFailure: { error: unknown } | undefined
  /** Settled when the output was good to its end, or nobody wants it any more. */
  const verdict = Promise.withResolvers<void>()

  const feed = async () => {
    let wanted = true
    try {
      for await (const chunk of chunks) {
        if (wanted && chunk.length > 0) wanted = await stage.write(chunk)
        // What follows the end is only read when it is known to be that: bad data ends the reading at once.
        if (!wanted) await verdict.promise
        if (stopped) return
      }
      stage.input.end()
    } catch (error) {
      inputFailure = { error }
      stage.output.destroy(new Error('the input failed', { cause: error }))
    }
  }
  const onAbort = () => stage.output.destroy(new Error('aborted', { cause: signal.reason }))

  signal.addEventListener('abort', onAbort, { once: true })
  const feeding = feed()
  try {
    for await (const chunk of stage.output) yield chunk as Uint8Array
    await stage.finished()
    verdict.resolve()
    await feeding
    if (inputFailure) throw inputFailure.error
    signal.throwIfAborted()
  } catch (error) {
    signal.throwIfAborted()
    throw inputFailure ? inputFailure.error : stage.explain(error)
  } finally {
    stopped = true
    verdict.resolve()
    signal.removeEventListener('abort', onAbort)
    stage.kill()
  }
}

/** Writes and waits for the chunk to be taken, or for the stream to be gone. */
export function writeChunk(stream: Writable, chunk: Uint8Array): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      stream.off('close', done)
      resolve()
    }
    stream.once('close', done)
    if (stream.destroyed) done()
    else stream.write(chunk, done)
  })
}

/** How a program that was started is to be understood. */
export interface ProgramOptions {
  env: NodeJS.ProcessEnv
  /** What it means that it ended with this status. */
  explain(status: number | NodeJS.Signals | null, complaint: Uint8Array): Error
  /** It is ended when it has not ended by itself by then; the error says why. */
  timeLimit?: { ms: number; error: Error } | undefined
}

/** Starts a program, without a shell and in a process group of its own, so that all of it can be ended. */
export function startProgram(path: string, args: readonly string[], options: ProgramOptions): Stage {
  const { env, explain, timeLimit } = options
  const child = spawn(path, args, { stdio: ['pipe', 'pipe', 'pipe'], env, detached: true })
  const complaint = keepStart(child.stderr)
  child.stdin.on('error', ignore) // EPIPE: the program ended first, and its exit status says why
  const closed = whenClosed(child)
  closed.catch(ignore) // looked at when the output has ended
  let late = false
  const end = (): void => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
    try {
      process.kill(-child.pid, 'SIGKILL')
    } catch {
      // It has just ended.
    }
  }
  const timer =
    timeLimit &&
    setTimeout(() => {
      late = true
      end()
    }, timeLimit.ms)
  return {
    input: child.stdin,
    output: child.stdout,
    write: async (chunk) => {
      await writeChunk(child.stdin, chunk)
      return !child.stdin.destroyed
    },
    finished: async () => {
      const status = await closed
      if (late) throw timeLimit!.error
      if (status !== 0) throw explain(status, complaint())
    },
    explain: (error) => (late ? timeLimit!.error : error),
    kill: () => {
      clearTimeout(timer)
      child.stdin.destroy()
      child.stdout.destroy()
      end()
    },
  }
}

/** Resolves with the exit code or the name of the signal, rejects when the program could not be started. */
function whenClosed(child: ChildProcess): Promise<number | NodeJS.Signals | null> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signalName) => resolve(code ?? signalName))
  })
}

/** Reads a stream to its end but keeps only its start, which is what the returned function gives. */
function keepStart(stream: Readable): () => Uint8Array {
  const kept: Uint8Array[] = []
  let bytes = 0
  stream.on('data', (chunk: Uint8Array) => {
    if (bytes < MAX_STDERR_BYTES) kept.push(chunk.subarray(0, MAX_STDERR_BYTES - bytes))
    bytes += chunk.length
  })
  stream.on('error', ignore)
  return () => Buffer.concat(kept)
}

function ignore(): void {}
