/** A link between two servers that counts what passes, and breaks when it is told to. */

import type { AddressInfo } from 'node:net'
import { connect, createServer, type Socket } from 'node:net'

export class Relay implements AsyncDisposable {
  readonly port: number
  /** Bytes from the server that is connected to. */
  received = 0
  /** Bytes to it. */
  sent = 0
  /** Connections break when so many more bytes have come; undefined: they hold. Used up by the first. */
  cutAfter: number | undefined
  /** The bit of the byte that is so far from here is wrong. Used up by the first. */
  flipAfter: number | undefined
  /** No connection gets through. */
  down = false
  readonly #close: () => Promise<void>

  private constructor(port: number, close: () => Promise<void>) {
    this.port = port
    this.#close = close
  }

  static async to(port: number): Promise<Relay> {
    const sockets = new Set<Socket>()
    let relay: Relay
    const server = createServer((near) => {
      if (relay.down) {
        near.destroy()
        return
      }
      const far = connect(port, '127.0.0.1')
      for (const [socket, other] of [
        [near, far],
        [far, near],
      ] as const) {
        sockets.add(socket)
        socket.on('error', () => other.destroy())
        socket.on('close', () => {
          sockets.delete(socket)
          other.destroy()
        })
      }
      near.on('data', (chunk) => {
        relay.sent += chunk.length
        far.write(chunk)
      })
      far.on('data', (chunk: Buffer) => {
        relay.received += chunk.length
        if (relay.flipAfter !== undefined) {
          if (relay.flipAfter < chunk.length) {
            chunk[relay.flipAfter]! ^= 1
            relay.flipAfter = undefined
          } else relay.flipAfter -= chunk.length
        }
        if (relay.cutAfter !== undefined) {
          relay.cutAfter -= chunk.length
          if (relay.cutAfter <= 0) {
            relay.cutAfter = undefined
            near.destroy()
            return
          }
        }
        if (!near.write(chunk)) {
          far.pause()
          near.once('drain', () => far.resume())
        }
      })
      near.on('end', () => far.end())
      far.on('end', () => near.end())
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    relay = new Relay((server.address() as AddressInfo).port, async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    })
    return relay
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close()
  }
}
