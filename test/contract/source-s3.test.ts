/**
 * A bucket: signed requests, listings in pages, ranges. The server here holds requests to AWS's Signature
 * Version 4 by a check of its own, which is held to the example that AWS has published.
 */
import assert from 'node:assert/strict'
import { createHash, createHmac } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { makeScratch } from '../support/scratch.ts'
import { noSwift, startSwift } from '../support/swift.ts'
import { content, etagOf, file, quickSource, startUpstream } from './source-upstream.ts'

const ARCHIVE = content(300_000)
const KEY = { id: 'AKIAIOSFODNN7EXAMPLE', secret: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' }

/** The signature that a request must have (AWS Signature Version 4, header based). */
function expectedSignature(
  method: string,
  url: URL,
  headers: Record<string, string>,
  signed: string,
  scope: string,
): string {
  const encode = (text: string): string =>
    encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
  const query = [...url.searchParams]
    .map(([k, v]) => `${encode(k)}=${encode(v)}`)
    .sort()
    .join('&')
  const path = url.pathname
    .split('/')
    .map((part) => encode(decodeURIComponent(part)))
    .join('/')
  const lines = signed
    .split(';')
    .map((name) => `${name}:${headers[name]!.trim()}\n`)
    .join('')
  const canonical = [method, path, query, lines, signed, headers['x-amz-content-sha256']].join('\n')
  const hex = (text: string): string => createHash('sha256').update(text).digest('hex')
  const toSign = ['AWS4-HMAC-SHA256', headers['x-amz-date'], scope, hex(canonical)].join('\n')
  const key = scope
    .split('/')
    .reduce<string | Buffer>((k, part) => createHmac('sha256', k).update(part).digest(), `AWS4${KEY.secret}`)
  return createHmac('sha256', key).update(toSign).digest('hex')
}

test("the check gives the signature of AWS's own example", () => {
  const headers = {
    host: 'examplebucket.s3.amazonaws.com',
    range: 'bytes=0-9',
    'x-amz-content-sha256': 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    'x-amz-date': '20130524T000000Z',
  }
  const url = new URL('https://examplebucket.s3.amazonaws.com/test.txt')
  const signature = expectedSignature(
    'GET',
    url,
    headers,
    'host;range;x-amz-content-sha256;x-amz-date',
    '20130524/us-east-1/s3/aws4_request',
  )
  assert.equal(signature, 'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41')
})

function isSigned({ url: path, headers }: Pick<IncomingMessage, 'url' | 'headers'>): boolean {
  const found =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(
      headers.authorization ?? '',
    )
  if (found?.[1] !== KEY.id) return false
  const url = new URL(path!, `http://${headers.host}`)
  return found[4] === expectedSignature('GET', url, headers as Record<string, string>, found[3]!, found[2]!)
}

/** A bucket `builds`, which shows two names at a time. */
async function startBucket(t: TestContext, objects: Record<string, Uint8Array>): Promise<string> {
  const server = createServer((request, response) => {
    const url = new URL(request.url!, 'http://h')
    if (!isSigned(request))
      return void response.writeHead(403).end('<Error><Code>SignatureDoesNotMatch</Code></Error>')
    if (url.searchParams.get('list-type') === '2')
      return void response.end(listing(Object.keys(objects), url.searchParams))
    const object = objects[decodeURIComponent(url.pathname.slice('/builds/'.length))]
    if (!object) return void response.writeHead(404).end()
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
    response.setHeader('etag', etagOf(object))
    if (start > 0)
      response.writeHead(206, { 'content-range': `bytes ${start}-${object.length - 1}/${object.length}` })
    // The first answer breaks off.
    if (start === 0 && object.length > 100_000) {
      response.setHeader('content-length', object.length)
      response.write(object.subarray(0, 100_000), () => setTimeout(() => response.destroy(), 50))
    } else response.end(object.subarray(start))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const LAST_MODIFIED: Record<string, string> = { 'os 1&2/801/os-20260102.tar': '2026-01-02T03:04:05.000Z' }

function listing(keys: readonly string[], query: URLSearchParams): string {
  const prefix = query.get('prefix')!
  const below = new Set(
    keys
      .filter((key) => key.startsWith(prefix))
      .map((key) => prefix + (/^[^/]*\/?/.exec(key.slice(prefix.length)) ?? [''])[0]),
  )
  const from = Number(query.get('continuation-token') ?? 0)
  const page = [...below].sort().slice(from, from + 2)
  const escaped = (text: string): string => text.replaceAll('&', '&amp;')
  const items = page.map((key) =>
    key.endsWith('/')
      ? `<CommonPrefixes><Prefix>${escaped(key)}</Prefix></CommonPrefixes>`
      : `<Contents><Key>${escaped(key)}</Key><LastModified>${LAST_MODIFIED[key] ?? 'soon'}</LastModified></Contents>`,
  )
  const more = from + 2 < below.size ? `<NextContinuationToken>${from + 2}</NextContinuationToken>` : ''
  return `<?xml version="1.0"?><ListBucketResult><Prefix>${prefix}</Prefix>${items.join('')}${more}</ListBucketResult>`
}

test('a bucket: found by a star, gone on with, listed in pages', async (t) => {
  using scratch = makeScratch('s3')
  const credentialsFile = join(scratch.path, 'credentials')
  writeFileSync(
    credentialsFile,
    `[default]\naws_access_key_id = ${KEY.id}\naws_secret_access_key = ${KEY.secret}\n`,
  )
  const objects = Object.fromEntries(
    [
      'os 1&2/801/os-20260101.tar',
      'os 1&2/801/os-20260102.tar',
      'os 1&2/802/os-1.tar',
      'os 1&2/803/os-1.tar',
      'os 1&2/readme',
    ].map((key) => [key, ARCHIVE]),
  )
  const endpoint = await startBucket(t, {
    ...objects,
    'os 1&2/801/os-20260102.tar.sha256': Buffer.from(createHash('sha256').update(ARCHIVE).digest('hex')),
  })
  const config = { url: 's3://builds/os 1&2/{build}/os-*.tar', s3: { endpoint, credentialsFile } }
  const source = quickSource(undefined, config)
  const options = { signal: new AbortController().signal, onEvent: () => {} }
  await using found = await source.locate('801', options)
  assert.equal(found.url, `${endpoint}/builds/os%201&2/801/os-20260102.tar`)
  assert.equal(found.checksum?.algorithm, 'sha256')
  assert.ok(Buffer.concat(await Array.fromAsync(found.bytes())).equals(ARCHIVE))
  const { builds } = (await source.list!(options.signal))!
  assert.deepEqual(builds.map(({ id, published }) => [id, published?.toISOString()]).sort(), [
    ['801', '2026-01-02T03:04:05.000Z'],
    ['802', undefined],
    ['803', undefined],
  ])
  await assert.rejects(source.locate('999', options), { code: 'BUILD_NOT_PUBLISHED' })

  writeFileSync(credentialsFile, `[default]\naws_access_key_id = ${KEY.id}\naws_secret_access_key = wrong\n`)
  await assert.rejects(source.locate('801', options), { code: 'SOURCE_REFUSED', message: /403/ })
})

test('a bucket of a real store: signatures, stars, listings, and who may not', {
  skip: noSwift,
}, async () => {
  using scratch = makeScratch('s3')
  const swift = await startSwift(scratch.path)
  try {
    await swift.makeBucket('builds')
    for (const key of ['os 1&2/801/os-20260101.tar', 'os 1&2/801/os-20260102.tar', 'os 1&2/802/os-1+~.tar'])
      await swift.put('builds', key, ARCHIVE)
    const digest = createHash('sha256').update(ARCHIVE).digest('hex')
    await swift.put('builds', 'os 1&2/801/os-20260102.tar.sha256', Buffer.from(digest))
    const credentialsFile = join(scratch.path, 'credentials')
    const allow = (secret: string): void => {
      const { accessKeyId } = swift.credentials
      const text = `[default]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secret}\n`
      writeFileSync(credentialsFile, text)
    }
    allow(swift.credentials.secretAccessKey)
    const source = quickSource(
      undefined,
      { url: 's3://builds/os 1&2/{build}/os-*.tar', s3: { endpoint: swift.url, credentialsFile } },
      { headersMs: 30_000 },
    )
    const options = { signal: new AbortController().signal, onEvent: () => {} }
    for (const [id, name] of [
      ['801', 'os-20260102.tar'],
      ['802', 'os-1%2B~.tar'],
    ] as const) {
      await using found = await source.locate(id, options)
      assert.equal(found.url, `${swift.url}/builds/os%201&2/${id}/${name}`)
      assert.equal(found.checksum?.hex, id === '801' ? digest : undefined)
      assert.ok(Buffer.concat(await Array.fromAsync(found.bytes())).equals(ARCHIVE))
    }
    const listed = await source.list!(options.signal)
    assert.deepEqual(listed!.builds.map(({ id }) => id).sort(), ['801', '802'])
    for (const { published } of listed!.builds)
      assert.ok(Math.abs(Date.now() - published!.getTime()) < 3_600_000, String(published))
    await assert.rejects(source.locate('999', options), { code: 'BUILD_NOT_PUBLISHED' })
    allow('wrong')
    await assert.rejects(source.locate('801', options), { code: 'SOURCE_REFUSED', message: /403/ })
  } finally {
    await swift.stop()
  }
})

test('credentials of the environment: the signature holds the token of the session', async (t) => {
  const { url: endpoint, requests, headers } = await startUpstream(t, { '/builds/801': [file(ARCHIVE)] })
  const source = quickSource(undefined, { url: 's3://builds/{build}', s3: { endpoint } })
  const load = async (environment: Record<string, string>): Promise<void> => {
    Object.assign(process.env, environment)
    t.after(() => {
      for (const name of Object.keys(environment)) delete process.env[name]
    })
    await using found = await source.locate('801', {
      signal: new AbortController().signal,
      onEvent: () => {},
    })
    assert.ok(Buffer.concat(await Array.fromAsync(found.bytes())).equals(ARCHIVE))
  }
  const last = () => ({ url: '/builds/801', headers: headers[requests.lastIndexOf('GET /builds/801')]! })
  await load({})
  assert.equal(last().headers.authorization, undefined, 'anybody may read it')
  await load({ AWS_ACCESS_KEY_ID: KEY.id, AWS_SECRET_ACCESS_KEY: KEY.secret })
  assert.ok(isSigned(last()))
  assert.equal(last().headers['x-amz-security-token'], undefined)
  await load({ AWS_SESSION_TOKEN: 'for/an+hour==' })
  assert.ok(isSigned(last()))
  assert.equal(last().headers['x-amz-security-token'], 'for/an+hour==')
  assert.match(last().headers.authorization!, /SignedHeaders=[^,]*\bx-amz-security-token\b/)
})

const WRONG = [
  { config: { url: 's3://B/{build}' }, message: /no name of a bucket/ },
  { config: { url: 's3://builds/{build}', s3: { endpoint: 'minio' } }, message: /endpoint/ },
]
for (const { config, message } of WRONG)
  test(`refused: ${config.url} ${config.s3?.endpoint ?? ''}`, () => {
    assert.throws(() => quickSource(undefined, config), { code: 'CONFIG_BAD', message })
  })
