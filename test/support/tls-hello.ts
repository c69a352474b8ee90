/** What a client of TLS begins with, as Node's own says it: for tests that say it, or a part of it, themselves. */
import { type AddressInfo, createServer } from 'node:net'
import { connect, type SecureVersion } from 'node:tls'

export async function tlsHello(version: SecureVersion, servername: string): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>()
  const listener = createServer((socket) => {
    socket
      .on('error', () => {})
      .once('data', (bytes) => {
        resolve(bytes as Buffer)
        socket.destroy()
        listener.close()
      })
  })
  await new Promise<void>((done) => listener.listen(0, '127.0.0.1', done))
  const { port } = listener.address() as AddressInfo
  connect({ port, host: '127.0.0.1', servername, minVersion: version, maxVersion: version }).on(
    'error',
    () => {},
  )
  return await promise
}
