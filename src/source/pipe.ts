/** Source over pipe:, a FIFO that somebody on this machine writes an archive into, once. */
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { SourceError } from '../errors.ts'
import type { Download, LocateOptions, Source, SourceConfig } from './source.ts'

/** Large enough that a pipe runs at full speed. */
const READ_BYTES = 64 << 10
/** Whoever makes a FIFO for us opens it at once. */
const WRITER_MS = 10_000
const POLL_MS = 20

export class PipeSource implements Source {
  readonly kind = 'archive'
  readonly name: string
  readonly #path: string

  constructor({ name, url }: SourceConfig) {
    this.name = name
    this.#path = pathOf(url)
  }

  offers(): boolean {
    return true
  }

  async locate(_id: string, { signal }: LocateOptions): Promise<Download> {
    const stream = await readFifo(this.#path, signal)
    return {
      url: 'what was piped in',
      size: undefined,
      checksum: undefined,
      checksumSigner: undefined,
      signature: undefined,
      contents: async () => undefined,
      bytes: () => stream as AsyncIterable<Uint8Array>,
      [Symbol.asyncDispose]: async () => {
        stream.destroy()
      },
    }
  }
}

/**
 * What is written into a FIFO. Nothing here ever waits where it cannot be stopped: to open one would wait for
 * a writer, who may have died. @throws SourceError when there is none after a while.
 */
export async function readFifo(path: string, signal: AbortSignal): Promise<Readable> {
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const first = Buffer.alloc(READ_BYTES)
  for (let waited = 0; ; waited += POLL_MS) {
    let count: number
    try {
      count = readSync(file, first)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      count = -1 // Somebody has opened it, and has not written yet.
    }
    if (count !== 0) {
      const socket = new Socket({ fd: file, readable: true, writable: false, signal })
      socket.on('error', () => {}) // whoever reads hears of it
      if (count > 0) socket.unshift(first.subarray(0, count))
      return socket
    }
    if (waited >= WRITER_MS) {
      closeSync(file)
      throw new SourceError(`nobody writes into ${path}`)
    }
    try {
      await sleep(POLL_MS, undefined, { signal })
    } catch {
      closeSync(file)
      throw signal.reason
    }
  }
}

/** The path in a URL of a scheme of ours, written as in a file: URL. */
export function pathOf(url: string): string {
  return fileURLToPath(url.replace(/^[^:]+:/, 'file:'))
}
