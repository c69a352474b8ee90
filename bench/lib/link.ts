/**
 * A relay between client and server which counts what passes: the bytes of the sockets, as a link would
 * see them but for packet headers. Never in the way where CPU is measured.
 */
import { type AddressInfo, connect, createServer } from 'node:net'

export interface Link extends AsyncDisposable {
  readonly port: number
  readonly bytes: { toServer: number; toDevice: number }
  /** Of the connection that was opened last. */
  readonly times: LinkTimes
}

/** Milliseconds since the client connected; undefined until it happened. */
export interface LinkTimes {
  greeting: number | undefined
  /** More than all lines and negotiation together: the file list has begun to arrive. */
  list: number | undefined
}

/** Greeting, @RSYNCD: OK, flags, two lists of names and the seed are some 150 bytes. */
const BEFORE_LIST_BYTES = 1024

export async function startLink(to: number): Promise<Link> {
  const bytes = { toServer: 0, toDevice: 0 }
  const times: LinkTimes = { greeting: undefined, list: undefined }
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (device) => {
    const started = performance.now()
    let received = 0
    times.greeting = times.list = undefined
    const upstream = connect({ port: to, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    device.on('data', (chunk) => {
      bytes.toServer += chunk.length
    })
    upstream.on('data', (chunk) => {
      bytes.toDevice += chunk.length
      received += chunk.length
      times.greeting ??= performance.now() - started
      if (received > BEFORE_LIST_BYTES) times.list ??= performance.now() - started
    })
    device.pipe(upstream).pipe(device)
    device.on('error', () => upstream.destroy())
    upstream.on('error', () => device.destroy())
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return {
    port: (server.address() as AddressInfo).port,
    bytes,
    times,
    [Symbol.asyncDispose]: () => new Promise((done) => server.close(() => done())),
  }
}
