/**
 * The modules that tell of builds, on a real store: what a client may not have does not exist for it, and
 * what is looked into stays for as long as somebody looks.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Available } from '../../src/build/available.ts'
import { loadConfig } from '../../src/config/config.ts'
import { ascii } from '../../src/lib/bytes.ts'
import { createLogger } from '../../src/lib/log.ts'
import { lookup } from '../../src/rsync/paths.ts'
import type { Tree } from '../../src/rsync/tree.ts'
import { Upserv } from '../../src/server.ts'
import { ANYBODY, askerWho } from '../support/asker.ts'
import { makeScratch } from '../support/scratch.ts'
import { publishBuild } from '../support/trees.ts'

const { signal } = new AbortController()
const BUILD_BYTES = 300_000
const all = () => true
const silent = () => {}

async function setUp(t: TestContext, ids: readonly string[], channels: Record<string, string> = {}) {
  const scratch = makeScratch('modules')
  const archives = join(scratch.path, 'archives')
  mkdirSync(archives)
  for (const id of [...ids, '900']) writeFileSync(join(archives, id), '')
  const file = join(scratch.path, 'upserv.toml')
  const lines = Object.entries(channels).map(([name, id]) => `${name} = "${id}"\n`)
  const source = `[[source]]\nname = "stick"\nurl = "file://${archives}/{build}"\n`
  writeFileSync(file, `budget = ${1.7 * BUILD_BYTES}\n[channels]\n${lines.join('')}${source}`)
  const log = createLogger()
  log.level = 'silent'
  const data = join(scratch.path, 'data')
  const upserv = await Upserv.open(loadConfig({ config: file, data }, {}), log)
  for (const id of ids) {
    await publishBuild(upserv.store, id, [{ path: 'file', content: id.repeat(BUILD_BYTES / id.length) }])
  }
  t.after(async () => {
    await upserv.close()
    scratch[Symbol.dispose]()
  })
  return upserv
}

function namesIn(tree: Tree, directory = 0): string[] {
  return Array.from({ length: tree.childCount(directory) }, (_, i) =>
    tree.name(tree.firstChild(directory) + i),
  )
}

test('what a client may not have does not exist for it, in any of the modules', async (t) => {
  const { resolver } = await setUp(t, ['801', '802'], { stable: '801', secret: '802', hidden: '801' })
  const mayHave = (module: string) => !['build-802', 'channel-hidden', 'available'].includes(module)
  assert.deepEqual(
    (await resolver.list(mayHave)).map(({ name }) => name),
    ['build-801', 'channel-stable', 'channels', 'builds'],
  )
  for (const [module, names] of [
    ['channels', ['stable']],
    ['builds', ['801']],
    ['available', ['801', '900']],
  ] as const) {
    const opened = await resolver.open(module, askerWho(mayHave), silent, signal)
    assert.deepEqual(namesIn(opened.tree), names)
    assert.equal(opened.tree.child(0, ascii('802')), -1)
    opened.release()
  }
  for (const [asked, message] of [
    ['channel-secre', 'no such channel: channel-secre; there is channel-stable'],
    ['build-8002', /^build-8002 is not published/],
  ] as const)
    await assert.rejects(resolver.open(asked, askerWho(mayHave), silent, signal), { message })
})

test('who may have a channel may have its build', async (t) => {
  const { resolver } = await setUp(t, ['801'], { stable: '801' })
  assert.deepEqual(resolver.ruledBy('channel-stable'), ['channel-stable', 'build-801'])
  for (const name of ['channel-x', 'build-801', 'builds', '', 'channel-'])
    assert.deepEqual(resolver.ruledBy(name), [name])
})

test('eviction passes over builds that are looked into, and only over those', async (t) => {
  // 802 was accessed the longest time ago, so it would be the first to go. There is room for somewhat more than one and a half.
  const { resolver, operations, store } = await setUp(t, ['802', '801', '803'])
  const listing = await resolver.open('builds', ANYBODY, silent, signal)
  const reading = await resolver.open('builds', ANYBODY, silent, signal)
  const file = await lookup(reading.tree, ascii('802/root/file'), false)
  await assert.rejects(operations.remove('802'), /in use/)
  assert.deepEqual((await operations.gc({ dryRun: false, explain: false })).evicted.sort(), ['801', '803'])

  // The listing is older than that: what has gone can't be looked into.
  assert.deepEqual(namesIn(listing.tree), ['801', '802', '803'])
  await assert.rejects(lookup(listing.tree, ascii('801/root'), false), /build 801 has just been evicted/)
  const content = await reading.tree.open(file)
  const bytes = Buffer.alloc(3)
  await content.read([bytes], 0)
  content.close()
  assert.equal(bytes.toString(), '802')
  reading.release()

  await operations.remove('802')
  assert.deepEqual(store.ids(), [])
  listing.release()
})

test('only who gets content has accessed a build', async (t) => {
  const { resolver, store } = await setUp(t, ['801', '802', '803'], { stable: '803' })
  const before = new Map(store.ids().map((id) => [id, store.accessed(id).getTime()]))
  const accessed = () =>
    store
      .ids()
      .filter((id) => store.accessed(id).getTime() !== before.get(id))
      .sort()
  await resolver.list(all)
  const { tree, release } = await resolver.open('builds', ANYBODY, silent, signal)
  const nodes = await Promise.all(['801', '802'].map((id) => lookup(tree, ascii(`${id}/root/file`), false)))
  assert.ok(nodes.every((node) => tree.mode(node) === 0o100644))
  assert.deepEqual(accessed(), [])
  const content = await tree.open(nodes[1]!)
  content.close()
  assert.deepEqual(accessed(), ['802'])
  release()
  const channel = await resolver.open('channel-stable', ANYBODY, silent, signal)
  channel.release()
  assert.deepEqual(accessed(), ['802', '803'])
})

test('a build whose files are damaged is shown, but nobody can look into it', async (t) => {
  const { resolver, store } = await setUp(t, ['801', '802'])
  const { info, manifest } = store.paths.build('801')
  writeFileSync(info, '{')
  writeFileSync(manifest, readFileSync(manifest).fill(0, 200, 210))
  const { tree, release } = await resolver.open('builds', ANYBODY, silent, signal)
  assert.deepEqual(namesIn(tree), ['801', '802'])
  await assert.rejects(lookup(tree, ascii('801/root'), false), { code: 'STORE_CORRUPT' })
  assert.ok((await lookup(tree, ascii('802/root/file'), false)) > 0)
  release()
})

test('what upstream gives no time of has been there since we know of it', async (t) => {
  const upstream = createServer((_, response) => response.end('801 802')).listen(0, '127.0.0.1')
  await once(upstream, 'listening')
  t.after(() => upstream.close())
  const url = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`
  const config = { name: 'list', builds: '^[0-9]+$', url: `${url}/{build}`, list: `${url}/list` }
  let now = 0
  const available = new Available([{ ...config, checksum: undefined, contents: undefined }], () => now)
  const before = Date.now()
  const { builds } = await available.list(signal)
  assert.deepEqual(
    builds.map(({ published }) => published),
    [null, null],
  )
  const first = available.firstSeen('801')
  assert.ok(first >= before && first <= Date.now())
  now = 120_000
  while (Date.now() === first) await new Promise(setImmediate)
  await available.list(signal)
  assert.equal(available.firstSeen('801'), first, 'it has not changed since')
})

test('what is available is asked for once a minute, and says what is missing', async (t) => {
  const { resolver, operations, store } = await setUp(t, ['801'])
  const { builds } = await operations.available(signal)
  assert.deepEqual(
    builds.map(({ id, source }) => `${id} ${source}`),
    ['801 stick', '900 stick'],
  )
  writeFileSync(join(store.paths.root, '..', 'archives', '901'), '')
  const said: string[] = []
  const { tree } = await resolver.open('available', ANYBODY, (line) => said.push(line), signal)
  assert.deepEqual(namesIn(tree), ['801', '900'])
  assert.deepEqual(said, [])
})
