/** Proxies, by the environment variables that curl knows too. */
import assert from 'node:assert/strict'
import { request as ask, createServer, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import { Mirror, randomTree } from '../support/mirror.ts'

/** A forward proxy that wants a password, and what it was asked for. */
async function startProxy(t: TestContext): Promise<{ port: number; asked: string[] }> {
  const asked: string[] = []
  const wanted = `Basic ${Buffer.from('me:secret').toString('base64')}`
  const server: Server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`)
    if (request.headers['proxy-authorization'] !== wanted) {
      response.writeHead(407).end()
      return
    }
    const { 'proxy-authorization': _, ...headers } = request.headers
    const onward = ask(request.url!, { method: request.method ?? 'GET', headers }, (answer) => {
      response.writeHead(answer.statusCode!, answer.headers)
      answer.pipe(response)
    })
    request.pipe(onward)
  })
  server.on('connect', (request, near, head) => {
    asked.push(`CONNECT ${request.url}`)
    if (request.headers['proxy-authorization'] !== wanted) {
      near.end('HTTP/1.1 407 No\r\n\r\n')
      return
    }
    const [host, port] = request.url!.split(':')
    const far = connect(Number(port), host, () => {
      near.write('HTTP/1.1 200 OK\r\n\r\n')
      far.write(head)
      far.pipe(near)
      near.pipe(far)
    })
    far.on('error', () => near.destroy())
    near.on('error', () => far.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return { port: (server.address() as AddressInfo).port, asked }
}

test('http_proxy with a password is used, and no_proxy is not', async (t) => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 3, 10_000))
  await mirror.startNginx()
  const { port, asked } = await startProxy(t)
  const http_proxy = `http://me:secret@127.0.0.1:${port}`
  const through = await mirror.startUpserv({ env: { http_proxy, no_proxy: '' } })
  await mirror.assertServes(through, '1')
  assert.ok(asked.length > 0)
  asked.length = 0
  const past = await mirror.startUpserv({
    data: mirror.path('other'),
    env: { http_proxy, no_proxy: '127.0.0.1' },
  })
  await mirror.assertServes(past, '1')
  assert.deepEqual(asked, [])
})

test('a proxy that wants another password is told of', async (t) => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 3, 10_000))
  await mirror.startNginx()
  const { port } = await startProxy(t)
  const upserv = await mirror.startUpserv({ env: { http_proxy: `http://127.0.0.1:${port}`, no_proxy: '' } })
  const refused = await mirror.sync(upserv, '1', 5)
  assert.match(refused.stderr + refused.stdout, /@ERROR: .*answers 407: the proxy wants a password/)
})
