/** https: certificates that are not accepted, and a redirect that would give up what https protects. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setDefaultCACertificates } from 'node:tls'
import { findProgram } from '../../src/lib/find-program.ts'
import { run } from '../support/processes.ts'
import { makeScratch } from '../support/scratch.ts'
import { content, download, file, type Reply, startUpstream } from './source-upstream.ts'

const skip = (await findProgram('openssl')) === undefined && 'needs openssl: apt-get install openssl'
const FILE = content(100_000)

/** An https server with a certificate of its own making, for 127.0.0.1. */
async function startTls(t: TestContext, reply: Reply): Promise<{ url: string; cert: string }> {
  using scratch = makeScratch('tls')
  const [keyPath, certPath] = [join(scratch.path, 'key.pem'), join(scratch.path, 'cert.pem')]
  const made = await run('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
    ...['-subj', '/CN=upserv test', '-addext', 'subjectAltName=IP:127.0.0.1'],
    ...['-keyout', keyPath, '-out', certPath],
  ])
  assert.equal(made.code, 0, made.stderr)
  const [key, cert] = [await readFile(keyPath, 'utf8'), await readFile(certPath, 'utf8')]
  const { progress } = await startUpstream(t, {})
  const server = createServer({ key, cert }, (request, response) => {
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
