/** The other end of the floor: `floor-client.ts PORT BYTES` sends so many bytes, reads to the end, forgets. */
import { connect } from 'node:net'

const [port, bytes] = process.argv.slice(2).map(Number) as [number, number]

const socket = connect({
  ...{ port, host: '127.0.0.1' },
  onread: { buffer: Buffer.allocUnsafe(256 * 1024), callback: () => true },
})
socket.end(Buffer.alloc(bytes))
socket.on('error', (error) => {
  throw error
})
