/** Proxies, by the environment variables that curl knows too; and the hosts that names of images stand for. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { request as ask, createServer, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { findProgram } from '../../src/lib/find-program.ts'
import { createSource } from '../../src/source/create.ts'
import type { SourceConfig } from '../../src/source/source.ts'
import { Authority } from '../support/certificates.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { run } from '../support/processes.ts'
import { makeScratch } from '../support/scratch.ts'
import { quickSource } from './source-upstream.ts'

/**
 * A forward proxy that wants a password, and what it was asked for. With `tunnel`, whatever host a tunnel is
 * wanted to, it ends at that port of this machine.
 */
async function startProxy(t: TestContext, tunnel?: number): Promise<{ port: number; asked: string[] }> {
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
    const far = connect(tunnel ?? Number(port), tunnel === undefined ? host : '127.0.0.1', () => {
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

/** A source, where nobody listens. */
const SOURCE: SourceConfig = {
  ...{ name: 'mirror', url: 'http://127.0.0.1:1/{build}.tar.gz', builds: '^.+$' },
  ...{ checksum: undefined, contents: undefined, list: 'directories' },
}

test('what cannot be a proxy is told of before anything is asked', (t) => {
  const before = process.env.http_proxy
  process.env.http_proxy = 'proxy.example.org'
  t.after(() => {
    if (before === undefined) delete process.env.http_proxy
    else process.env.http_proxy = before
  })
  assert.throws(() => createSource(SOURCE), /the environment names a proxy that cannot be used/)
})

test('a source that is only known takes no memory for asking', async () => {
  const program = `
    import { createRequire } from 'node:module'
    import { createSource } from './src/source/create.ts'
    const source = createSource(${JSON.stringify(SOURCE)})
    const isLoaded = () => Object.keys(createRequire(import.meta.url).cache).some((path) => path.includes('undici'))
    const before = isLoaded()
    await source.list(AbortSignal.timeout(500)).catch(() => {})
    console.log(before, isLoaded())
  `
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', program], {
    env: { http_proxy: '', https_proxy: '' },
  })
  assert.equal(stdout.trim(), 'false true')
})

const LAYER = { mediaType: 'x', digest: `sha256:${'0'.repeat(64)}`, size: 1 }
const MANIFEST = JSON.stringify({ schemaVersion: 2, layers: [LAYER] })
const DIGEST = `sha256:${createHash('sha256').update(MANIFEST).digest('hex')}`

/** What stands behind oci://, which host that is, and what that is asked for. */
const IMAGES = [
  ['docker.io/debian:{build}', 'registry-1.docker.io', '/v2/library/debian/manifests/801'],
  ['docker.io/library/debian:os-{build}', 'registry-1.docker.io', '/v2/library/debian/manifests/os-801'],
  ['index.docker.io/me/os', 'registry-1.docker.io', '/v2/me/os/manifests/latest'],
  [`docker.io/debian@${DIGEST}`, 'registry-1.docker.io', `/v2/library/debian/manifests/${DIGEST}`],
  ['ghcr.example.org/debian:{build}', 'ghcr.example.org', '/v2/debian/manifests/801'],
] as const

const skip = (await findProgram('openssl')) === undefined && 'needs openssl: apt-get install openssl'

test('https_proxy: images by the names that people use; no_proxy is not asked through it', {
  skip,
}, async (t) => {
  using scratch = makeScratch('proxy-tls')
  const authority = await Authority.make(join(scratch.path, 'ca'))
  const hosts = ['registry-1.docker.io', 'ghcr.example.org'].map((host) => `DNS:${host}`)
  const pair = await authority.issue({ cn: 'registry', san: ['IP:127.0.0.1', ...hosts].join() })
  const requests: string[] = []
  const registry = createTlsServer(
    { cert: readFileSync(pair.cert), key: readFileSync(pair.key) },
    ({ url, headers }, response) => {
      requests.push(`${headers.host} ${url}`)
      response.end(url === '/v2/' ? '' : MANIFEST)
    },
  ).listen(0, '127.0.0.1')
  await once(registry, 'listening')
  t.after(() => {
    registry.close()
    registry.closeAllConnections()
  })
  const { port } = registry.address() as AddressInfo
  const proxy = await startProxy(t, port)
  const before = { https_proxy: process.env.https_proxy, no_proxy: process.env.no_proxy }
  t.after(() => {
    for (const [name, value] of Object.entries(before))
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
  })
  /** Which tunnels were wanted. */
  const locate = async (name: string, no_proxy: string): Promise<string[]> => {
    proxy.asked.length = 0
    requests.length = 0
    Object.assign(process.env, { https_proxy: `http://me:secret@127.0.0.1:${proxy.port}`, no_proxy })
    const limits = { connectMs: 30_000, headersMs: 30_000 }
    const source = quickSource(undefined, { url: `oci://${name}`, http: { ca: authority.cert } }, limits)
    await using found = await source.locate('801', {
      signal: new AbortController().signal,
      onEvent: () => {},
    })
    assert.deepEqual(found.vouchers, [`oci digest ${DIGEST}`])
    return [...new Set(proxy.asked)]
  }
  for (const [name, host, path] of IMAGES) {
    assert.deepEqual(await locate(name, 'example.com'), [`CONNECT ${host}:443`], name)
    assert.deepEqual(requests, [`${host} /v2/`, `${host} ${path}`], name)
  }
  const here = `127.0.0.1:${port}`
  assert.deepEqual(await locate(`${here}/os:{build}`, ''), [`CONNECT ${here}`])
  assert.deepEqual(await locate(`${here}/os:{build}`, 'example.com,127.0.0.1'), [])
  assert.deepEqual(requests, [`${here} /v2/`, `${here} /v2/os/manifests/801`])
})
