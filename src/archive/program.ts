/**
 * Bytes through a program, or through anything else that takes bytes and gives others: fed and read at the
 * same time, ended at once whatever fails on either side.
 */
import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { type Confinement, spawnConfined } from '../lib/confined.ts'

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

/** How a program is started, and how to be understood. */
export interface ProgramOptions {
  env: NodeJS.ProcessEnv
  /** What it may touch: nothing unless told otherwise. */
  confinement?: Confinement
  /** What it means that it ended with this status. */
  explain(status: number | NodeJS.Signals | null, complaint: Uint8Array): Error
  /** It is ended when it has not ended by itself by then; the error says why. */
  timeLimit?: { ms: number; error: Error } | undefined
}

/** Starts a program, as lib/confined.ts does. @throws an error with a code when there is no such program. */
export async function startProgram(
  path: string,
  args: readonly string[],
  options: ProgramOptions,
): Promise<Stage> {
  const { env, confinement, explain, timeLimit } = options
  const program = await spawnConfined(path, args, { ...confinement, env, stdio: ['pipe', 'pipe', 'pipe'] })
  const { stdin, stdout, stderr } = program.child as ChildProcessWithoutNullStreams
  const complaint = keepStart(stderr)
  stdin.on('error', ignore) // EPIPE: the program ended first, and its exit status says why
  let late = false
  const timer =
    timeLimit &&
    setTimeout(() => {
      late = true
      program.kill()
    }, timeLimit.ms)
  return {
    input: stdin,
    output: stdout,
    write: async (chunk) => {
      await writeChunk(stdin, chunk)
      return !stdin.destroyed
    },
    finished: async () => {
      const status = await program.ended
      if (late) throw timeLimit!.error
      if (status !== 0) throw explain(status, complaint())
    },
    explain: (error) => (late ? timeLimit!.error : error),
    kill: () => {
      clearTimeout(timer)
      stdin.destroy()
      stdout.destroy()
      program.kill()
    },
  }
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
