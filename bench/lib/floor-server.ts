/**
 * The floor: a server that knows nothing and only writes. `floor-server.ts BYTES [FILE]` sends so many
 * bytes to each connection, always the same ones, or with FILE what it reads from there; it takes in and
 * forgets what the client sends, and closes when the client has. Prints the port.
 */
import { open } from 'node:fs/promises'
import { type AddressInfo, createServer, type Socket } from 'node:net'

/** As much as upserv sends at a time. */
const CHUNK_BYTES = 256 * 1024

const bytes = Number(process.argv[2])
const file = process.argv[3]

const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  socket.on('error', () => socket.destroy())
  socket.resume()
  void send(socket).then(
    () => socket.end(),
    (error: Error) => socket.destroy(error),
  )
})
server.listen(0, '127.0.0.1', () => console.log(`listening ${(server.address() as AddressInfo).port}`))
process.once('SIGTERM', () => process.exit(0))

async function send(socket: Socket): Promise<void> {
  const chunk = Buffer.alloc(CHUNK_BYTES, 'x')
  await using source = file === undefined ? undefined : await open(file)
  for (let left = bytes; left > 0; ) {
    const size = Math.min(left, CHUNK_BYTES)
    // A buffer that is still on its way out must not be read into.
    let piece = chunk.subarray(0, size)
    if (source) {
      const { bytesRead, buffer } = await source.read(Buffer.allocUnsafe(size))
      if (bytesRead === 0) throw new Error(`${file} has fewer than ${bytes} bytes`)
      piece = buffer.subarray(0, bytesRead)
    }
    left -= piece.length
    if (!socket.write(piece)) await new Promise((resolve) => socket.once('drain', resolve))
  }
}
