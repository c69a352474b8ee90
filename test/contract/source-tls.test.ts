/** https: certificates that are not accepted, and a redirect that would give up what https protects. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setDefaultCACertificates } from 'node:tls'
import { findProgram } from '../../src/lib/find-program.ts'
import { makeCertificate } from '../support/certificates.ts'
import { makeScratch } from '../support/scratch.ts'
import { content, download, file, type Reply, startUpstream, status } from './source-upstream.ts'

const skip = (await findProgram('openssl')) === undefined && 'needs openssl: apt-get install openssl'
const FILE = content(100_000)

interface TlsOptions {
  expired?: boolean
  /** Clients must show a certificate that this one vouches for. */
  clientCa?: string
}

/** An https server with a certificate of its own making, for 127.0.0.1. */
async function startTls(
  t: TestContext,
  reply: Reply,
  options: TlsOptions = {},
): Promise<{ url: string; cert: string }> {
  using scratch = makeScratch('tls')
  const { key, cert } = await makeCertificate(scratch.path, options.expired)
  const { progress } = await startUpstream(t, {})
  const mutual =
    options.clientCa === undefined
      ? {}
      : { ca: options.clientCa, requestCert: true, rejectUnauthorized: true }
  const server = createServer({ key, cert, ...mutual }, (request, response) => {
    if (request.url === '/802') reply(request, response, progress)
    else response.writeHead(404).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return { url: `https://127.0.0.1:${(server.address() as { port: number }).port}`, cert }
}

test('https: a certificate that nobody vouches for is refused, without asking again', { skip }, async (t) => {
  const { url } = await startTls(t, file(FILE))
  const { error, waits } = await download({ config: { url: `${url}/{build}` } })
  assert.equal(error.code, 'SOURCE_REFUSED')
  assert.match(error.message, /certificate that is not accepted \(\w+\)/)
  assert.deepEqual(waits, [])
})

test('https: works, and does not redirect to http', { skip }, async (t) => {
  const plain = await startUpstream(t, { '/802': [file(FILE)] })
  let redirect = false
  const { url, cert } = await startTls(t, (request, response, progress) => {
    if (redirect) response.writeHead(302, { location: `${plain.url}/802` }).end()
    else file(FILE)(request, response, progress)
  })
  setDefaultCACertificates([cert])
  const good = await download({ config: { url: `${url}/{build}` } })
  assert.equal(good.error, undefined)
  assert.ok(good.bytes.equals(FILE))

  redirect = true
  const { error } = await download({ config: { url: `${url}/{build}` } })
  assert.equal(error.code, 'SOURCE_REFUSED')
  assert.match(error.message, /redirects from https to http/)
  assert.deepEqual(plain.requests, [])
})

test('https: an authority of its own, and a certificate of ours', { skip }, async (t) => {
  using scratch = makeScratch('tls-client')
  const ours = await makeCertificate(scratch.path)
  const { url, cert } = await startTls(t, file(FILE), { clientCa: ours.cert })
  const [ca, clientCert, clientKey] = ['ca', 'cert', 'key'].map((name) =>
    join(scratch.path, `our-${name}.pem`),
  ) as [string, string, string]
  await writeFile(ca, cert)
  await writeFile(clientCert, ours.cert)
  await writeFile(clientKey, ours.key)
  const good = await download({ config: { url: `${url}/{build}`, http: { ca, clientCert, clientKey } } })
  assert.equal(good.error, undefined)
  assert.ok(good.bytes.equals(FILE))
  const bare = await download({ config: { url: `${url}/{build}`, http: { ca } } })
  assert.match(bare.error.code!, /SOURCE_REFUSED|SOURCE_UNREACHABLE/)
})

test('https: a certificate that has expired is refused, without asking again', { skip }, async (t) => {
  using scratch = makeScratch('tls-expired')
  const made = await startTls(t, file(FILE), { expired: true })
  const ca = join(scratch.path, 'ca.pem')
  await writeFile(ca, made.cert)
  const { error, waits } = await download({ config: { url: `${made.url}/{build}`, http: { ca } } })
  assert.equal(error.code, 'SOURCE_REFUSED')
  assert.match(error.message, /certificate that is not accepted \(CERT_HAS_EXPIRED\)/)
  assert.deepEqual(waits, [])
})

test('a token from a file, which is read for each request and goes to no other host', async (t) => {
  using scratch = makeScratch('token')
  const tokenFile = join(scratch.path, 'token')
  await writeFile(tokenFile, 'first\n')
  const other = await startUpstream(t, { '/moved': [file(FILE)] })
  const upstream = await startUpstream(t, { '/802': [status(302, { location: `${other.url}/moved` })] })
  const { error } = await download({ upstream, config: { http: { tokenFile } } })
  assert.equal(error, undefined)
  assert.equal(upstream.headers[0]!.authorization, 'Bearer first')
  assert.deepEqual(
    other.headers.map(({ authorization }) => authorization),
    [undefined],
  )
  await writeFile(tokenFile, 'second')
  await download({ upstream, config: { http: { tokenFile } } })
  assert.equal(upstream.headers.at(-1)!.authorization, 'Bearer second')
})
