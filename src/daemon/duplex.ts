/**
 * A Node stream as the session's Duplex: reads on demand, writes with back-pressure, closes gracefully.
 */
import type { Readable, Writable } from 'node:stream'
import { ConnectionLost } from '../errors.ts'
import type { Duplex, Pace } from '../rsync/connection.ts'

/** How long a client may take to read our last words and hang up. */
const DRAIN_MS = 5000

export class StreamDuplex implements Duplex {
  readonly #input: Readable
  readonly #output: Writable
  #ended = false
  #closing = false
  #failure: ConnectionLost | undefined
  #wake: (() => void) | undefined
  /** Writers that wait for room. A keep-alive may come beside the session's own. */
  #drained: (() => void)[] = []

  readonly pace: Pace | undefined

  /**
   * A socket is both; stdin and stdout are one each.
   * @param pace keeps it to its share of the bandwidth that there is.
   */
  constructor(input: Readable, output: Writable, pace?: Pace) {
    this.pace = pace
    this.#input = input
    this.#output = output
    const fail = (error?: Error): void => {
      this.#failure ??= new ConnectionLost('the connection broke', { cause: error })
      this.#notify()
    }
    input.on('readable', () => this.#wake?.())
    input.once('end', () => {
      this.#ended = true
      this.#wake?.()
    })
    input.on('error', fail)
    input.once('close', () => {
      this.#ended = true
      this.#wake?.()
    })
    output.on('drain', () => this.#wakeWriters())
    output.on('error', fail)
    output.once('close', () => {
      if (!this.#closing) fail() // stdout, which is not stdin, closes as soon as we have said our last words
    })
  }

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      const piece = this.#input.read() as Buffer | null
      if (piece !== null) return piece
      if (this.#failure) throw this.#failure
      if (this.#ended) return undefined
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
  }

  async write(data: Uint8Array, whenDone?: () => void): Promise<void> {
    if (this.#failure) throw this.#failure
    let isDone = whenDone === undefined
    const finish = (error?: Error | null): void => {
      // After a failure the memory may still be in use: it is left to the garbage collector.
      if (!isDone && !error) whenDone!()
      isDone = true
    }
    const hasRoom = this.#output.write(data, finish)
    // What the kernel took at once is called done only in a later turn: until then writers would take more memory.
    if (this.#output.writableLength === 0) finish(this.#output.errored)
    if (hasRoom) return
    await new Promise<void>((resolve) => this.#drained.push(resolve))
    if (this.#failure) throw this.#failure
  }

  /** Says no more; what still comes can be read. */
  end(): void {
    this.#closing = true
    this.#output.end()
  }

  /** Ends whatever waits, at once. */
  destroy(): void {
    this.#input.destroy()
    this.#output.destroy()
  }

  /**
   * Says no more, reads what still comes, and closes when the peer does or after a short while. Closing
   * with unread input would make the kernel reset the connection, and the client could lose our last
   * lines (docs/rsync-protocol.md, section 9.6).
   */
  async close(): Promise<void> {
    const timer = setTimeout(() => this.destroy(), DRAIN_MS)
    try {
      // Over TLS what was written is still on its way, also to a client that has said all and ended its side.
      const said = new Promise<void>((resolve) => this.#output.end(() => resolve()))
      while ((await this.read()) !== undefined) {
        // Nobody listens any more.
      }
      await said
    } catch {
      // The peer hung up first.
    } finally {
      clearTimeout(timer)
      this.destroy()
    }
  }

  #notify(): void {
    this.#wake?.()
    this.#wakeWriters()
  }

  #wakeWriters(): void {
    for (const wake of this.#drained.splice(0)) wake()
  }
}
