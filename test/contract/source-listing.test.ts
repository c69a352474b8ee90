/** What a source tells of the builds that it has: all that `locate` would find there, and nothing else. */
import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { SourceError } from '../../src/errors.ts'
import { findProgram } from '../../src/lib/find-program.ts'
import type { SourceConfig } from '../../src/source/source.ts'
import { startNginx } from '../support/nginx.ts'
import { makeScratch } from '../support/scratch.ts'
import { file, quickSource, startUpstream } from './source-upstream.ts'

const PUBLISHED = new Date('2026-05-06T07:08:09Z')
const OLPC_NAMES = '^(?<release>[0-9.]+)_(?<model>xo[0-9.]+)-(?<number>[0-9]+)$'

/** Empty files, and below which URL they are. */
function publish(t: TestContext, files: readonly string[]): string {
  const scratch = makeScratch('listing')
  t.after(() => scratch[Symbol.dispose]())
  const root = join(scratch.path, 'a directory, 100%')
  mkdirSync(root)
  for (const file of files) {
    mkdirSync(dirname(join(root, file)), { recursive: true })
    writeFileSync(join(root, file), '')
    utimesSync(join(root, file), PUBLISHED, PUBLISHED)
  }
  return pathToFileURL(root).href
}

const CASES: { name: string; files: string[]; source: Partial<SourceConfig>; ids: string[] }[] = [
  {
    name: 'archives in one directory',
    files: ['os801.tar', 'os802.tar', 'os802.tar.md5', 'readme', 'osx.tar', 'os.tar', 'old/os9.tar'],
    source: { builds: '^[0-9]+$', url: '/os{build}.tar' },
    ids: ['801', '802'],
  },
  {
    name: 'a directory for each',
    files: ['801/os801.tar', '802/os803.tar', '803', '804/os804.tar', '805/os805.tar/file'],
    source: { url: '/{build}/os{build}.tar' },
    ids: ['801', '804'],
  },
  {
    name: 'names that captures make',
    files: [
      'xo1.75/os/13.2.10-22/13.2.10_xo1.75-22.tar.lzma',
      'xo4/os/13.2.10-22/13.2.10_xo4-22.tar.lzma',
      'xo4/os/13.2.10-22/13.2.10_xo1.75-22.tar.lzma', // in the wrong place
    ],
    source: { builds: OLPC_NAMES, url: '/{model}/os/{release}-{number}/{build}.tar.lzma' },
    ids: ['13.2.10_xo1.75-22', '13.2.10_xo4-22'],
  },
  {
    name: 'the id is all of the name: what belongs to archives is none',
    files: ['801', '801.sha256', '802', '802.md5', '802.list', '803.sum', 'x.md5'],
    source: { url: '/{build}', checksum: '{url}.sum', contents: '{url}.list' },
    ids: ['801', '802', '803.sum', 'x.md5'],
  },
  {
    name: 'names that no id can have come as they are, those that no URL can have do not',
    files: ['a b.tar', 'ä.tar', '\n.tar', '%41.tar'],
    source: { url: '/{build}.tar' },
    ids: ['%41', 'a b', 'ä'],
  },
]
const hasNginx = (await findProgram('nginx')) !== undefined

/** The same files behind a web server that shows its directories. */
async function publishByHttp(t: TestContext, files: readonly string[]): Promise<string> {
  const root = fileURLToPath(publish(t, files))
  const scratch = makeScratch('listing-nginx')
  const nginx = await startNginx({ root, scratch: scratch.path })
  t.after(async () => {
    await nginx.kill()
    scratch[Symbol.dispose]()
  })
  return nginx.url
}

for (const {
  name,
  files,
  source: { url, ...rest },
  ids,
} of CASES.filter(({ name }) => !/:/.test(name))) {
  test(`listing by http: ${name}`, { skip: !hasNginx && 'needs nginx' }, async (t) => {
    const base = await publishByHttp(t, files)
    const source = quickSource(undefined, { ...rest, url: `${base}${url}`, list: 'directories' })
    const listing = await source.list!(new AbortController().signal)
    assert.equal(listing!.complete, true)
    // An index tells directories from files by nothing that all web servers share: the fetch does.
    const builds = listing!.builds.filter(({ id }) => id !== '805')
    assert.deepEqual(builds.map(({ id }) => id).sort(), ids)
    // An index has minutes.
    for (const { published } of builds) assert.equal(published?.toISOString(), '2026-05-06T07:08:00.000Z')
  })
}

const STARS = {
  files: [
    'stream/ship.2/build659/os-659-20080101_0900-tree.tar',
    'stream/ship.2/build659/os-659-20080213_1712-tree.tar',
    'stream/ship.2/build659/os-659-20080213_1712-tree.tar.md5',
    'stream/ship.2/build659/os-659-20080213_1712.contents',
    'stream/ship.2/build65/os-65-1-tree.tar',
  ],
  source: {
    builds: '^(?<stream>[a-z0-9.]+)-(?<number>[0-9]+)$',
    id: '{stream}-{number}',
    list: 'directories',
  },
}
for (const kind of ['file', 'http'])
  test(`stars, ${kind}: the latest of those that match, and what lies beside it`, {
    skip: kind === 'http' && !hasNginx,
  }, async (t) => {
    const base = kind === 'file' ? publish(t, STARS.files) : await publishByHttp(t, STARS.files)
    const source = quickSource(undefined, {
      ...STARS.source,
      url: `${base}/stream/{stream}/build{number}/os-{number}-*-tree.tar`,
      contents: `${base}/stream/{stream}/build{number}/os-{number}-*.contents`,
    })
    const options = { signal: new AbortController().signal, onEvent: () => {} }
    await using found = await source.locate('ship.2-659', options)
    assert.ok(found.url.endsWith('/build659/os-659-20080213_1712-tree.tar'), found.url)
    assert.ok(await found.contents())
    await assert.rejects(source.locate('ship.2-660', options), { code: 'BUILD_NOT_PUBLISHED' })
    const listing = await source.list!(options.signal)
    assert.deepEqual(listing!.builds.map(({ id }) => id).sort(), ['ship.2-65', 'ship.2-659'])
  })

const LISTS: { what: string; text: string; ids: string[]; published?: Record<string, string> }[] = [
  {
    what: 'JSON',
    text: '{"builds": [{"id": "801"}, {"id": 802}, {"id": "x"}], "latest": "802"}',
    ids: ['801', '802'],
  },
  {
    what: 'text',
    text: '# what there is\n801 2007-01-01 stable\n802\n\nx803\n',
    ids: ['801', '802'],
    published: { 801: '2007-01-01T00:00:00.000Z' },
  },
  {
    what: 'a page',
    text: '<html><a href="801/">801</a> 02-Nov-2007 12:00 -<a href="/802">up</a><a href="802">802</a> 31-Feb-2007 12:00 -',
    ids: ['801', '802'],
    published: { 801: '2007-11-02T12:00:00.000Z' },
  },
  {
    what: 'a page in JSON',
    text: '[{"name":"801","mtime":"Fri, 02 Nov 2007 12:00:00 GMT"},{"name":"802","mtime":"tomorrow"}]',
    ids: ['801', '802'],
    published: { 801: '2007-11-02T12:00:00.000Z' },
  },
]
for (const kind of ['file', 'http'])
  for (const { what, text, ids, published = {} } of LISTS)
    test(`a list, ${kind}: ${what}`, async (t) => {
      const base = publish(t, ['list'])
      writeFileSync(new URL(`${base}/list`), text)
      const upstream =
        kind === 'file' ? { url: base } : await startUpstream(t, { '/list': [file(Buffer.from(text))] })
      const source = quickSource(upstream, { builds: '^[0-9]+$', list: `${upstream.url}/list` })
      const listing = await source.list!(new AbortController().signal)
      assert.deepEqual(
        listing!.builds.map(({ id }) => id),
        ids,
      )
      for (const build of listing!.builds) assert.equal(build.published?.toISOString(), published[build.id])
    })

test('a list of names that no pattern takes: others have their turn, and it ends where it may', async (t) => {
  const upstream = await startUpstream(t, { '/list': [file(Buffer.from('x '.repeat(3_000_000)))] })
  const source = quickSource(upstream, { builds: '^[0-9]+$', list: `${upstream.url}/list` })
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  const listing = await source.list!(new AbortController().signal)
  clearInterval(timer)
  assert.deepEqual(listing, { builds: [], complete: false })
  assert.ok(turns > 1)
})

for (const {
  name,
  files,
  source: { url, ...rest },
  ids,
} of CASES) {
  test(`listing: ${name}`, async (t) => {
    const base = publish(t, files)
    const source = quickSource(undefined, { ...rest, url: `${base}${url}` })
    const listing = await source.list!(new AbortController().signal)
    assert.equal(listing!.complete, true)
    assert.deepEqual(listing!.builds.map(({ id }) => id).sort(), ids)
    for (const build of listing!.builds) {
      assert.equal(build.published?.getTime(), PUBLISHED.getTime())
      if (rest.checksum === undefined) {
        await using found = await source.locate(build.id, {
          signal: new AbortController().signal,
          onEvent: () => {},
        })
        assert.equal(found.url, build.url)
      }
    }
  })
}

test('listing: links count as what they lead to', async (t) => {
  const base = publish(t, ['802.tar', 'dir/file'])
  const root = decodeURIComponent(new URL(base).pathname)
  symlinkSync('802.tar', join(root, 'stable.tar'))
  symlinkSync('gone', join(root, 'gone.tar'))
  symlinkSync('dir', join(root, 'dir.tar'))
  const listing = await quickSource(undefined, { url: `${base}/{build}.tar` }).list!(
    new AbortController().signal,
  )
  assert.deepEqual(listing!.builds.map(({ id }) => id).sort(), ['802', 'stable'])
})

test('listing: no more than the limits, and it says so', async (t) => {
  const base = publish(t, ['1', '2', '3', '4'])
  const { signal } = new AbortController()
  for (const [limits, most] of [
    [{ listBuilds: 2 }, 2],
    [{ listNames: 3 }, 3],
    [{ listMs: 0 }, 0],
  ] as const) {
    const listing = await quickSource(undefined, { url: `${base}/{build}` }, limits).list!(signal)
    assert.equal(listing!.complete, false)
    assert.ok(listing!.builds.length <= most, `${listing!.builds.length} of ${most}`)
  }
})

test('listing: a directory that is not there is an error, as a stick may be unplugged', async (t) => {
  const base = publish(t, [])
  const { signal } = new AbortController()
  const source = quickSource(undefined, { url: `${base}/gone/{build}` })
  await assert.rejects(source.list!(signal), (error: Error) => {
    assert.ok(error instanceof SourceError)
    assert.match(error.message, /gone cannot be read \(ENOENT\)/)
    return true
  })
  await assert.rejects(
    quickSource(undefined, { url: `${base}/{build}` }).list!(AbortSignal.abort(new Error('enough'))),
    /enough/,
  )
})

test('listing: ids that are not in the path can not be told', async (t) => {
  const base = publish(t, ['1'])
  const source = quickSource(undefined, { builds: '^v(?<number>.*)$', url: `${base}/{number}` })
  assert.equal(await source.list!(new AbortController().signal), undefined)
})
