/**
 * A current client made to talk as an older one: a relay takes from its words what the older release did not
 * know yet. Without `v` in its info string the server negotiates nothing with it, without `C` its seed comes
 * last; what a client then does about that is the same code as in the older release.
 */
import { type AddressInfo, connect, createServer } from 'node:net'

/** What a current client says. */
const CURRENT = '.iLsfxCIvu\0'

export interface Disguise extends AsyncDisposable {
  readonly port: number
}

/** @param info what takes the place of the info string; undefined leaves it as it is. */
export async function startDisguise(to: number, info: string | undefined): Promise<Disguise> {
  const server = createServer({ allowHalfOpen: true }, (device) => {
    const upstream = connect({ port: to, host: '127.0.0.1', allowHalfOpen: true })
    device.on('data', (chunk: Buffer) => {
      const at = info === undefined ? -1 : chunk.indexOf(CURRENT)
      if (at < 0) upstream.write(chunk)
      else
        upstream.write(
          Buffer.concat([
            chunk.subarray(0, at),
            Buffer.from(`${info}\0`),
            chunk.subarray(at + CURRENT.length),
          ]),
        )
    })
    device.on('end', () => upstream.end())
    upstream.pipe(device)
    device.on('error', () => upstream.destroy())
    upstream.on('error', () => device.destroy())
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: () => new Promise((done) => server.close(() => done())),
  }
}
