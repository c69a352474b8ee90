/** What every kind of source must do, whatever is behind it. A new kind passes this first. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { appendFile, chmod, mkdir, truncate, unlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { pathToFileURL } from 'node:url'
import { loadConfig } from '../../src/config/config.ts'
import { ConfigError, UsageError } from '../../src/errors.ts'
import { createSource } from '../../src/source/create.ts'
import { type SourceConfig, type SourceEvent, sourceFromUrl } from '../../src/source/source.ts'
import { run } from '../support/processes.ts'
import { isRoot, makeScratch } from '../support/scratch.ts'
import { content, file, quickSource, startUpstream, status } from './source-upstream.ts'

const ARCHIVE = content(700_000)
const SHA256 = createHash('sha256').update(ARCHIVE).digest('hex')
const MD5 = createHash('md5').update(ARCHIVE).digest('hex')
const CONTENTS = Buffer.from('\x00\xff not text at all')

type Files = Record<string, Uint8Array | string>

/** Puts files where a kind of source finds them, and says below which URL that is. */
type Publish = (t: TestContext, files: Files) => Promise<string>

const KINDS: Record<string, Publish> = {
  http: async (t, files) => {
    const replies = Object.entries(files).map(([name, data]) => [`/${name}`, [file(Buffer.from(data))]])
    return (await startUpstream(t, Object.fromEntries(replies))).url
  },
  file: async (t, files) => {
    const scratch = makeScratch('source')
    t.after(() => scratch[Symbol.dispose]())
    const dir = join(scratch.path, 'a directory, 100%') // such as people have
    await mkdir(dir)
    for (const [name, data] of Object.entries(files)) await writeFile(join(dir, name), data)
    return pathToFileURL(dir).href
  },
}

function observer() {
  const events: SourceEvent[] = []
  const controller = new AbortController()
  const onEvent = (event: SourceEvent) => void events.push(event)
  return { events, controller, options: { signal: controller.signal, onEvent } }
}

for (const [kind, publish] of Object.entries(KINDS)) {
  test(`${kind}: a build, its size and its bytes`, async (t) => {
    const base = await publish(t, { 'os802.tar': ARCHIVE })
    const source = quickSource(undefined, { builds: '^[0-9]+$', url: `${base}/os{build}.tar` })
    assert.equal(source.name, 'test')
    assert.equal(source.offers('802'), true)
    assert.equal(source.offers('joyride-802'), false)
    const { events, options } = observer()
    await using found = await source.locate('802', options)
    assert.equal(found.url, `${base}/os802.tar`)
    assert.equal(found.size, ARCHIVE.length)
    assert.equal(found.checksum, undefined)
    assert.equal(await found.contents(), undefined)
    assert.ok(Buffer.concat(await Array.fromAsync(found.bytes())).equals(ARCHIVE))
    await assert.rejects(Array.fromAsync(found.bytes()), /only once/)
    assert.deepEqual(events, [])
  })

  test(`${kind}: an empty file`, async (t) => {
    const base = await publish(t, { 802: '' })
    await using found = await quickSource({ url: base }).locate('802', observer().options)
    assert.equal(found.size, 0)
    assert.deepEqual(await Array.fromAsync(found.bytes()), [])
  })

  test(`${kind}: chunks are the caller's to keep`, async (t) => {
    const base = await publish(t, { 802: ARCHIVE })
    await using found = await quickSource({ url: base }).locate('802', observer().options)
    const kept: { chunk: Uint8Array; copy: Buffer }[] = []
    for await (const chunk of found.bytes()) kept.push({ chunk, copy: Buffer.from(chunk) })
    assert.ok(kept.length > 1)
    for (const { chunk, copy } of kept) assert.ok(copy.equals(chunk))
  })

  test(`${kind}: a build that is not there`, async (t) => {
    const base = await publish(t, {})
    await assert.rejects(quickSource({ url: base }).locate('999', observer().options), {
      code: 'BUILD_NOT_PUBLISHED',
      message: /^build-999 is not published by test \(/,
    })
  })

  test(`${kind}: ids that climb are refused`, async (t) => {
    const base = await publish(t, { secret: 'x' })
    const source = quickSource(undefined, { url: `${base}/sub/{build}` })
    for (const id of ['..', '../secret', '.', 'a\0b'])
      await assert.rejects(source.locate(id, observer().options), { code: 'SOURCE_FAILED' }, id)
    for (const id of ['%2e%2e', '..%2fsecret'])
      await assert.rejects(source.locate(id, observer().options), { code: 'BUILD_NOT_PUBLISHED' }, id)
  })

  const CHECKSUMS: { name: string; files: Files; checksum?: string; algorithm: string; hex: string }[] = [
    {
      name: '.sha256 before .md5',
      files: { '802.sha256': SHA256, '802.md5': MD5 },
      algorithm: 'sha256',
      hex: SHA256,
    },
    { name: '.md5', files: { '802.md5': `${MD5}  /tmp/tree.tar\n` }, algorithm: 'md5', hex: MD5 },
    {
      name: 'configured',
      files: { SUMS: `${'0'.repeat(32)}  801\n${MD5}  802\n`, '802.sha256': SHA256 },
      checksum: '/SUMS',
      algorithm: 'md5',
      hex: MD5,
    },
  ]
  for (const { name, files, checksum, algorithm, hex } of CHECKSUMS)
    test(`${kind}: checksum, ${name}`, async (t) => {
      const base = await publish(t, { 802: ARCHIVE, ...files })
      const source = quickSource(
        { url: base },
        { checksum: checksum === undefined ? undefined : base + checksum },
      )
      await using found = await source.locate('802', observer().options)
      assert.equal(found.checksum?.algorithm, algorithm)
      assert.equal(found.checksum?.hex, hex)
    })

  test(`${kind}: a checksum that is configured must be there and be one`, async (t) => {
    const base = await publish(t, { 802: ARCHIVE, 'page.html': '<html>' })
    for (const name of ['none', 'page.html']) {
      const source = quickSource({ url: base }, { checksum: `${base}/${name}` })
      await assert.rejects(source.locate('802', observer().options), { code: 'SOURCE_FAILED' })
    }
  })

  test(`${kind}: what is no checksum where one is guessed at is told and passed over`, async (t) => {
    const base = await publish(t, { 802: ARCHIVE, '802.sha256': '<html>' })
    const { events, options } = observer()
    await using found = await quickSource({ url: base }).locate('802', options)
    assert.equal(found.checksum, undefined)
    assert.deepEqual(
      events.map(({ type }) => type),
      ['checksum-ignored'],
    )
  })

  test(`${kind}: contents come byte for byte`, async (t) => {
    const base = await publish(t, { 802: ARCHIVE, '802.contents': CONTENTS })
    const source = quickSource({ url: base }, { contents: '{url}.contents' })
    await using found = await source.locate('802', observer().options)
    assert.ok(CONTENTS.equals((await found.contents())!))
  })

  test(`${kind}: contents that are missing or too large`, async (t) => {
    const base = await publish(t, { 802: ARCHIVE, '802.contents': CONTENTS })
    const missing = quickSource({ url: base }, { contents: '{url}.toc' })
    await using found = await missing.locate('802', observer().options)
    await assert.rejects(found.contents(), { code: 'SOURCE_FAILED', message: /does not exist/ })
    const limits = { contentsBytes: CONTENTS.length - 1 }
    const large = quickSource({ url: base }, { contents: '{url}.contents' }, limits)
    await using other = await large.locate('802', observer().options)
    await assert.rejects(other.contents(), { code: 'SOURCE_FAILED', message: /larger than/ })
  })

  test(`${kind}: an abort ends it with its own reason, before and while reading`, async (t) => {
    const base = await publish(t, { 802: ARCHIVE })
    const source = quickSource({ url: base })
    const reason = new Error('enough')
    const { controller, options } = observer()
    await using found = await source.locate('802', options)
    const bytes = found.bytes()[Symbol.asyncIterator]()
    assert.equal((await bytes.next()).done, false)
    controller.abort(reason)
    await assert.rejects(async () => {
      while (!(await bytes.next()).done);
    }, reason)
    await assert.rejects(source.locate('802', options), reason)
  })

  test(`${kind}: one source serves many at a time`, async (t) => {
    const base = await publish(t, { 1: ARCHIVE, 2: CONTENTS })
    const source = quickSource({ url: base })
    const read = async (id: string) => {
      await using found = await source.locate(id, observer().options)
      return Buffer.concat(await Array.fromAsync(found.bytes()))
    }
    const [one, two, again] = await Promise.all([read('1'), read('2'), read('1')])
    assert.ok(one!.equals(ARCHIVE) && two!.equals(CONTENTS) && again!.equals(ARCHIVE))
  })
}

// ---------------------------------------------------------------------------------------------------
// What only files can do.

/** A directory with 802 in it, and a source for it. */
async function directory(t: TestContext, data: Uint8Array = ARCHIVE) {
  const scratch = makeScratch('source')
  t.after(() => scratch[Symbol.dispose]())
  const path = join(scratch.path, '802')
  await writeFile(path, data)
  return { path, dir: scratch.path, source: quickSource({ url: pathToFileURL(scratch.path).href }) }
}

const CHANGES: { name: string; change: (path: string) => Promise<void> }[] = [
  { name: 'shrinks', change: (path) => truncate(path, 300_000) },
  { name: 'grows', change: (path) => appendFile(path, 'more') },
  { name: 'is written over', change: (path) => utimes(path, 1, 1) },
]
for (const { name, change } of CHANGES)
  test(`file: one that ${name} while it is read`, async (t) => {
    const { path, source } = await directory(t)
    await using found = await source.locate('802', observer().options)
    const reading = async () => {
      let first = true
      for await (const _ of found.bytes()) {
        if (first) await change(path)
        first = false
      }
    }
    await assert.rejects(reading(), { code: 'SOURCE_CHANGED' })
  })

test('file: one that is replaced while it is read is read as it was', async (t) => {
  const { path, source } = await directory(t)
  await using found = await source.locate('802', observer().options)
  await unlink(path)
  await writeFile(path, 'another')
  assert.ok(Buffer.concat(await Array.fromAsync(found.bytes())).equals(ARCHIVE))
})

test('file: directories and special files are not archives', async (t) => {
  const { dir, source } = await directory(t)
  await mkdir(join(dir, 'tree'))
  await run('mkfifo', [join(dir, 'fifo')])
  await assert.rejects(source.locate('tree', observer().options), { message: /tree is a directory/ })
  await assert.rejects(source.locate('fifo', observer().options), { message: /fifo is a special file/ })
})

test('file: what we may not read is said in one line, with what helps', async (t) => {
  const { dir, path } = await directory(t)
  await chmod(dir, 0o755)
  await chmod(path, 0)
  await mkdir(join(dir, 'closed'), { mode: 0 })
  const base = pathToFileURL(dir).href
  const hint = 'Let the user that runs upserv read it.'
  await asNobody(async () => {
    const refused = { code: 'SOURCE_FAILED', message: `${path} cannot be read (EACCES)`, hint }
    await assert.rejects(quickSource({ url: base }).locate('802', observer().options), refused)
    const starred = quickSource(undefined, { url: `${base}/closed/os-{build}-*.tar` })
    const message = `${join(dir, 'closed')} cannot be read (EACCES)`
    await assert.rejects(starred.locate('802', observer().options), { ...refused, message })
  })
})

/** Root may read everything: for as long as this takes, we are not root. */
async function asNobody(work: () => Promise<void>): Promise<void> {
  if (!isRoot) return await work()
  process.seteuid!(65_534) // nobody
  try {
    await work()
  } finally {
    process.seteuid!(0)
  }
}

test('file: nothing stays open, read or not', { skip: process.platform !== 'linux' }, async (t) => {
  const { dir, path, source } = await directory(t)
  const isOpen = async () => (await run('ls', ['-l', `/proc/${process.pid}/fd`])).stdout.includes(path)
  await using left = await source.locate('802', observer().options)
  assert.equal(await isOpen(), true)
  for await (const _ of left.bytes()) break
  assert.equal(await isOpen(), false)
  const unread = await source.locate('802', observer().options)
  await unread[Symbol.asyncDispose]()
  const strict = quickSource({ url: pathToFileURL(dir).href }, { checksum: '{url}.none' })
  await assert.rejects(strict.locate('802', observer().options))
  assert.equal(await isOpen(), false)
})

// ---------------------------------------------------------------------------------------------------
// Which kind it is.

const WRONG_URLS = [
  { url: 'ftp://h/{build}', message: /has the scheme "ftp"/ },
  { url: '/srv/{build}.tar', message: /has no scheme/ },
  { url: 'file://host/{build}', message: /is not a path on this machine/ },
  { url: 'file:{build}', message: /is not a path on this machine/ },
  { url: 'file:///a%2Fb/{build}', message: /is not a path on this machine/ },
]
for (const { url, message } of WRONG_URLS)
  test(`createSource refuses ${url}`, () => {
    const config = { name: 'test', builds: '.', url, checksum: undefined, contents: undefined }
    assert.throws(
      () => createSource(config),
      (error) => error instanceof ConfigError && message.test(error.message),
    )
  })

const IMAGE = 'oci://registry.example.org/os:{build}'
const PARENT = 'upserv://school.example.org:8730'
/** What a source is relied on for must not be passed over. */
const WITHOUT_USE: { url: string; key: string; given: Partial<SourceConfig>; hint: RegExp }[] = [
  ...[IMAGE, PARENT].flatMap((url) => [
    { url, key: 'the key checksum_required', given: { checksumRequired: true }, hint: /by their digests/ },
    {
      url,
      key: 'the key signature_required',
      given: { signatureRequired: true },
      hint: /write the key|publish/,
    },
    { url, key: 'the key keys', given: { keys: ['/etc/upserv/a.pub'] }, hint: /write the key|publish/ },
    { url, key: 'the key extract', given: { extract: ['unpack'] }, hint: /write the key|as the tar/ },
    {
      url,
      key: 'several URLs (mirrors)',
      given: { mirrors: [url] },
      hint: /Write a \[\[source\]\] for each/,
    },
    { url, key: 'the key region', given: { s3: { region: 'eu-west-1' } }, hint: /for buckets/ },
  ]),
  { url: IMAGE, key: 'the key contents', given: { contents: '{url}.txt' }, hint: /generated/ },
  { url: PARENT, key: 'the key subtree', given: { tree: { subtree: 'root' } }, hint: /that server/ },
  { url: PARENT, key: 'the key mtimes', given: { tree: { contentMtimes: true } }, hint: /that server/ },
  { url: PARENT, key: 'the key id', given: { id: '{n}' }, hint: /which builds it has/ },
  { url: 'http://h/{build}', key: 'the key platform', given: { platform: 'linux/arm64' }, hint: /oci:/ },
  {
    url: 'file:///srv/{build}',
    key: 'the key ca',
    given: { http: { ca: '/etc/ca.pem' } },
    hint: /over the network/,
  },
]
for (const { url, key, given, hint } of WITHOUT_USE)
  test(`createSource refuses ${key} for ${url}`, () => {
    assert.throws(
      () => createSource({ ...sourceFromUrl(url), ...given }),
      (error) =>
        error instanceof ConfigError &&
        error.message.startsWith('source "') &&
        error.message.endsWith(`has no use for ${key}`) &&
        hint.test(error.hint ?? ''),
    )
  })

test('EXTRACT_BUILD is for sources of archives alone', () => {
  const { sources } = loadConfig(
    { source: ['file:///srv/{build}', IMAGE, PARENT] },
    { EXTRACT_BUILD: 'unpack' },
  )
  assert.deepEqual(
    sources.map(({ extract }) => extract),
    [['unpack'], undefined, undefined],
  )
  for (const source of sources) createSource(source)
})

test('a source on a local disk does not take its checksum from the network', () => {
  const config = { url: 'file:///srv/{build}', checksum: 'http://h/{build}.md5' }
  assert.throws(() => quickSource(undefined, config), ConfigError)
})

const BARE_URLS = [
  { url: 'https://downloads.example.org:8443/{build}.tar', name: 'downloads.example.org:8443' },
  { url: 'http://me:secret@h/{build}.tar', name: 'h' },
  { url: 'file:///srv/{build}.tar', name: 'file' },
]
for (const { url, name } of BARE_URLS)
  test(`sourceFromUrl: ${url}`, () => {
    const config = sourceFromUrl(url)
    assert.equal(config.name, name)
    assert.deepEqual(structuredClone(config), config)
    assert.equal(createSource(config).offers('13.2.0_xo4-13'), true)
  })

test('sourceFromUrl wants to know where the id goes', () => {
  assert.throws(() => sourceFromUrl('http://h/os802.tar'), UsageError)
})

test('guessed checksums that are refused do not stop a build (object stores answer 403 for what is missing)', async (t) => {
  const upstream = await startUpstream(t, {
    '/802': [file(ARCHIVE)],
    '/802.sha256': [status(403)],
    '/802.md5': [status(403)],
  })
  await using found = await quickSource(upstream).locate('802', observer().options)
  assert.equal(found.checksum, undefined)
})
