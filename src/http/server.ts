/** The HTTP side. So far it says whether the server is alive; pages, API and metrics will join it. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { formatListen, type Listen } from '../config/config.ts'
import { ConfigError } from '../errors.ts'

/** @returns the server, and the address that it can be reached at. */
export async function listenHttp(
  address: Listen,
  isReady: () => boolean,
  /** Takes what child servers ask for. */
  children: (request: IncomingMessage, response: ServerResponse) => boolean,
): Promise<{ server: Server; url: string }> {
  const server = createServer((request, response) => {
    if (isReady() && children(request, response)) return
    // Not `new URL`: a request can name what is none, such as "//".
    const [pathname] = (request.url ?? '/').split('?', 1)
    const known = pathname === '/healthz' && (request.method === 'GET' || request.method === 'HEAD')
    const status = !known ? 404 : isReady() ? 200 : 503
    const text = !known ? 'not found\n' : status === 200 ? 'ok\n' : 'stopping\n'
    response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'content-length': text.length })
    response.end(request.method === 'HEAD' ? undefined : text)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new ConfigError(`cannot listen on http ${formatListen(address)}: ${cause.message}`, {
          cause,
          hint: 'Choose another with --http HOST:PORT, or --http off.',
        }),
      ),
    )
    server.listen(address.port, address.host, () => resolve())
  })
  const bound = server.address()
  const port = typeof bound === 'object' && bound ? bound.port : address.port
  return { server, url: `http://${formatListen({ host: address.host, port })}` }
}
