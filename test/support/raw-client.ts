/** A client that a test plays by hand over TCP: lines of the text phase, and bytes behind them. */
import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'

/** Longest wait for a line that is expected. */
const PATIENCE_MS = 20_000

export class RawClient implements Disposable {
  readonly #socket: Socket
  #received = Buffer.alloc(0)
  #over = false
  #changed = Promise.withResolvers<void>()

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (piece: Buffer) => {
      this.#received = Buffer.concat([this.#received, piece])
      this.#notify()
    })
    socket.on('error', () => {})
    socket.once('close', () => {
      this.#over = true
      this.#notify()
    })
    socket.once('end', () => {
      this.#over = true
      this.#notify()
    })
  }

  /** Connects, and reads the server's greeting. */
  static async open(port: number, from = '127.0.0.1'): Promise<RawClient> {
    const socket = connect({ port, host: '127.0.0.1', localAddress: from, noDelay: true })
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    const client = new RawClient(socket)
    assert.match(await client.line(), /^@RSYNCD: 3[12]\.0 /)
    return client
  }

  send(text: string): void {
    this.#socket.write(Buffer.from(text, 'latin1'))
  }

  /** The next line, without its end. */
  async line(): Promise<string> {
    const deadline = AbortSignal.timeout(PATIENCE_MS)
    deadline.addEventListener('abort', () => this.#notify(), { once: true })
    for (;;) {
      const end = this.#received.indexOf(0x0a)
      if (end >= 0) {
        const text = this.#received.toString('latin1', 0, end)
        this.#received = this.#received.subarray(end + 1)
        return text
      }
      if (this.#over || deadline.aborted) {
        assert.fail(
          `no line; ${this.#over ? 'closed' : 'silence'} behind "${this.#received.toString('latin1')}"`,
        )
      }
      await this.#changed.promise
    }
  }

  /** Reads lines until one matches; returns all of them. */
  async linesUntil(pattern: RegExp): Promise<string[]> {
    const lines: string[] = []
    do lines.push(await this.line())
    while (!pattern.test(lines.at(-1)!))
    return lines
  }

  /** Goes through a whole handshake and then asks for nothing: holds the module and a turn. */
  static async inTransfer(port: number, module: string): Promise<RawClient> {
    const client = await RawClient.open(port)
    client.send(`@RSYNCD: 29\n${module}\n`)
    await client.linesUntil(/^@RSYNCD: OK$/)
    client.send(`--server\n--sender\n-r\n.\n${module}/\n\n`)
    client.send('\0\0\0\0') // no filters
    // The seed and at least the head of the frame that holds the list.
    while (client.#received.length < 8 && !client.#over) await client.#changed.promise
    assert.ok(!client.#over, 'the server hung up')
    return client
  }

  [Symbol.dispose](): void {
    this.#socket.destroy()
  }

  #notify(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
  }
}
