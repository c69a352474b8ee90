import assert from 'node:assert/strict'
import test from 'node:test'
import { SourceError, UpstreamRefused, UpstreamUnreachable } from '../errors.ts'
import { findChecksum, parseChecksum } from './checksum.ts'
import type { SourceEvent } from './source.ts'

const MD5 = 'd41d8cd98f00b204e9800998ecf8427e'
const MD5_B = '0cc175b9c0f1b6a831c399e269772661'
const SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
const SHA512 = SHA256 + SHA256
const SHA1 = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'

const md5 = { algorithm: 'md5', hex: MD5 }
const sha256 = { algorithm: 'sha256', hex: SHA256 }

const FILES = [
  { name: 'md5sum', text: `${MD5}  os802.tar\n`, digest: md5 },
  { name: 'md5sum of binary mode', text: `${MD5} *os802.tar\n`, digest: md5 },
  { name: 'sha256sum', text: `${SHA256}  os802.tar\n`, digest: sha256 },
  { name: 'sha512sum', text: `${SHA512}  os802.tar\n`, digest: { algorithm: 'sha512', hex: SHA512 } },
  { name: 'no newline at the end', text: `${MD5}  os802.tar`, digest: md5 },
  { name: 'CRLF and a BOM', text: `\ufeff${MD5}  os802.tar\r\n`, digest: md5 },
  { name: 'upper case', text: `${MD5.toUpperCase()}  os802.tar\n`, digest: md5 },
  { name: 'bare', text: `${SHA256}\n`, digest: sha256 },
  { name: 'BSD', text: `SHA256 (os802.tar) = ${SHA256}\n`, digest: sha256 },
  { name: 'BSD with a hyphen', text: `SHA-256 (os802.tar) = ${SHA256}\n`, digest: sha256 },
  { name: 'openssl', text: `MD5(os802.tar)= ${MD5}\n`, digest: md5 },
  { name: "OLPC's local name", text: `${MD5}  /tmp/build/xo-1/devel_ext3/tree.tar\n`, digest: md5 },
  { name: 'several: by name', text: `${MD5_B}  a.tar\n${MD5}  dir/os802.tar\n`, digest: md5 },
  { name: 'several: none of that name', text: `${MD5_B}  a.tar\n${MD5}  b.tar\n`, digest: undefined },
  { name: 'one file twice', text: `${MD5}  a.tar\n${MD5}  b.tar\n`, digest: md5 },
  { name: 'two algorithms: the stronger', text: `${MD5}  os802.tar\n${SHA256}  os802.tar\n`, digest: sha256 },
  { name: 'one name, two digests', text: `${MD5}  os802.tar\n${MD5_B}  os802.tar\n`, digest: undefined },
  { name: 'comments and a signature', text: `# made today\n\n-----X-----\n${MD5}  os802.tar\n`, digest: md5 },
  { name: 'a name that ends alike', text: `${MD5_B}  xos802.tar\n${MD5}  os802.tar\n`, digest: md5 },
  { name: 'wrong length for its tag', text: `SHA256 (os802.tar) = ${MD5}\n`, digest: undefined },
  { name: 'SHA-1', text: `${SHA1}  os802.tar\n`, digest: undefined },
  { name: 'a digit too few', text: `${MD5.slice(1)}  os802.tar\n`, digest: undefined },
  { name: 'digits and more without a space', text: `${MD5}xos802.tar\n`, digest: undefined },
  { name: 'a page for people', text: `<html><body>${MD5}</body></html>\n`, digest: undefined },
  { name: 'nothing', text: '', digest: undefined },
]
for (const { name, text, digest } of FILES)
  test(`checksum file: ${name}`, () => {
    assert.deepEqual(parseChecksum(text, 'os802.tar'), digest)
  })

const ARCHIVE = new URL('http://me:secret@h/os802.tar')
const EXPLICIT = new URL('http://h/SUMS')

async function find(files: Record<string, string | Error>, configured?: URL) {
  const asked: string[] = []
  const events: SourceEvent[] = []
  const read = async (url: URL) => {
    asked.push(url.pathname)
    const file = files[url.pathname]
    if (file instanceof Error) throw file
    return file === undefined ? undefined : Buffer.from(file)
  }
  const found = findChecksum(ARCHIVE, configured, read, (event) => events.push(event))
  const outcome = await found.then((result) => result?.checksum).catch((error: unknown) => error)
  return { found: outcome, asked, events }
}

test('findChecksum tries .sha256, .sha512 and .md5, then does without', async () => {
  const strong = await find({ '/os802.tar.sha256': SHA256, '/os802.tar.md5': MD5 })
  assert.deepEqual(strong.found, { ...sha256, url: 'http://h/os802.tar.sha256' })
  assert.deepEqual(strong.asked, ['/os802.tar.sha256'])

  const weak = await find({ '/os802.tar.md5': MD5 })
  assert.deepEqual(weak.found, { ...md5, url: 'http://h/os802.tar.md5' })
  assert.deepEqual(weak.asked, ['/os802.tar.sha256', '/os802.tar.sha512', '/os802.tar.md5'])
  assert.deepEqual(weak.events, [], 'a missing file is nothing to tell')

  assert.equal((await find({})).found, undefined)
})

test('findChecksum passes over what is no checksum where it only guessed', async () => {
  const { found, events } = await find({
    '/os802.tar.sha256': '<html>Welcome</html>',
    '/os802.tar.md5': new UpstreamRefused('answers 403', 403),
  })
  assert.equal(found, undefined)
  assert.deepEqual(
    events.map((event) => event.type === 'checksum-ignored' && event.url),
    ['http://h/os802.tar.sha256', 'http://h/os802.tar.md5'],
  )
})

test('findChecksum does not take an upstream that is down for one without checksums', async () => {
  const down = new UpstreamUnreachable('down')
  assert.equal((await find({ '/os802.tar.sha256': down })).found, down)
  const bug = new TypeError('bug')
  assert.equal((await find({ '/os802.tar.sha256': bug })).found, bug)
})

test('findChecksum insists on what is configured', async () => {
  const good = await find({ '/SUMS': `${MD5_B}  a\n${MD5}  os802.tar\n` }, EXPLICIT)
  assert.deepEqual(good.found, { ...md5, url: 'http://h/SUMS' })
  assert.deepEqual(good.asked, ['/SUMS'])
  const bad: Record<string, string | Error>[] = [
    {},
    { '/SUMS': '<html>' },
    { '/SUMS': new UpstreamRefused('403', 403) },
  ]
  for (const files of bad) {
    const { found, events } = await find(files, EXPLICIT)
    assert.ok(found instanceof SourceError, JSON.stringify(files))
    assert.deepEqual(events, [])
  }
})
