import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { RefusedError } from '../errors.ts'
import { ascii, type ByteString } from '../lib/bytes.ts'
import { cleanBase, findListed, findSources, lookup, type SourcePath, showPath } from './paths.ts'

const file = () => ({ mode: 0o100644, data: Buffer.from('x') })
const dir = (children: Record<string, object> = {}) => ({ mode: 0o040755, children: children as never })
const link = (target: string) => ({ mode: 0o120777, target })

const tree = new MemoryTree(
  dir({
    'a.txt': file(),
    'ab.txt': file(),
    'b.txt': file(),
    '.hidden': file(),
    'sp ace': file(),
    'br[a]ck': file(),
    'back\\slash': file(),
    dir: dir({ one: file(), two: file(), sub: dir({ deep: file() }) }),
    dir2: dir({ one: file() }),
    empty: dir(),
    links: dir({
      file: link('../a.txt'),
      dir: link('../dir'),
      absolute: link('/dir/sub'),
      up: link('../../../../dir2'),
      nowhere: link('gone'),
      loop: link('loop'),
      ping: link('pong'),
      pong: link('./ping'),
      self: link('.'),
      twice: link('dir'),
    }),
  }),
)
after(() => tree.close())

const signal = new AbortController().signal
const request = (paths: readonly string[], more: object = {}) => ({
  module: ascii('m'),
  paths: paths as readonly ByteString[],
  relative: false,
  secluded: false,
  directoriesSent: true,
  ...more,
})

/** As one line: where names are relative to, the name, and what is meant. */
function show({ rootPath, name, node, contents, directoryMissing }: SourcePath): string {
  const missing = directoryMissing ? ' missing with its directory' : node < 0 ? ' missing' : ''
  return `${rootPath}|${name}${contents ? '/' : ''}${missing}`
}

async function found(paths: readonly string[], more: object = {}): Promise<string[]> {
  return (await findSources(tree, request(paths, more), signal)).map(show)
}

/** docs/rsync-protocol.md, section 2.6. */
const PLAIN: readonly { paths: string[]; found: string[]; more?: object }[] = [
  // Trailing slashes.
  { paths: ['m'], found: ['|./'] },
  { paths: ['m/'], found: ['|./'] },
  { paths: ['m/.'], found: ['|./'] },
  { paths: ['m/dir'], found: ['|dir'] },
  { paths: ['m/dir/'], found: ['dir|./'] },
  { paths: ['m/dir/.'], found: ['dir|./'] },
  { paths: ['m/dir//'], found: ['dir|./'] },
  { paths: ['m/dir/sub/'], found: ['dir/sub|./'] },
  { paths: ['m/dir/one'], found: ['dir|one'] },
  { paths: ['m/dir/sub/deep'], found: ['dir/sub|deep'] },
  { paths: ['m/a.txt/'], found: ['a.txt|./ missing with its directory'] },
  { paths: ['m/nothing'], found: ['|nothing missing'] },
  { paths: ['m/dir/nothing/at/all'], found: ['dir/nothing/at|all missing with its directory'] },
  { paths: ['m/a.txt/b'], found: ['a.txt|b missing with its directory'] },
  // None at all.
  { paths: [], found: ['|./'] },
  { paths: [], found: [], more: { directoriesSent: false } },
  // Nothing leads out.
  { paths: ['m/..'], found: ['|./'] },
  { paths: ['m/../../dir2/'], found: ['dir2|./'] },
  { paths: ['m/dir/../dir2/one'], found: ['dir2|one'] },
  { paths: ['m/dir/..'], found: ['|./'] },
  { paths: ['m/x/../a.txt'], found: ['|a.txt'] },
  { paths: ['m/../etc/passwd'], found: ['etc|passwd missing with its directory'] },
  { paths: ['m//dir///one'], found: ['dir|one'] },
  { paths: ['m/./dir/./one'], found: ['dir|one'] },
  // Several.
  { paths: ['m/a.txt', 'm/dir/', 'm/a.txt'], found: ['|a.txt', 'dir|./', '|a.txt'] },
  { paths: ['m/a.txt m/b.txt'], found: ['|a.txt', '|b.txt'] },
  { paths: ['m/a.txt m/b.txt m/dir/'], found: ['|a.txt', '|b.txt', 'dir|./'] },
  {
    paths: ['m/a.txt m/b.txt'],
    found: ['a.txt m|b.txt missing with its directory'],
    more: { secluded: true },
  },
  { paths: ['m/sp ace'], found: ['|sp ace'] },
  { paths: ['m/a.txt mm/b.txt'], found: ['a.txt mm|b.txt missing with its directory'] },
  // Patterns.
  { paths: ['m/*.txt'], found: ['|a.txt', '|ab.txt', '|b.txt'] },
  { paths: ['m/?.txt'], found: ['|a.txt', '|b.txt'] },
  { paths: ['m/[!a].txt'], found: ['|b.txt'] },
  { paths: ['m/.h*'], found: ['|.hidden'] },
  { paths: ['m/*h*'], found: ['|.hidden', '|back\\slash'] },
  { paths: ['m/d*/one'], found: ['dir|one', 'dir2|one'] },
  { paths: ['m/d*/'], found: ['dir|./', 'dir2|./'] },
  { paths: ['m/*/*/deep'], found: ['dir/sub|deep', 'links/absolute|deep'] },
  { paths: ['m/no*match'], found: ['|no*match missing'] },
  { paths: ['m/no*match/'], found: ['no*match|./ missing with its directory'] },
  { paths: ['m/*/nothing'], found: ['*|nothing missing with its directory'] },
  { paths: ['m/br[a]ck'], found: ['|br[a]ck'] },
  { paths: ['m/br\\[a\\]ck'], found: ['|br[a]ck'] },
  { paths: ['m/back\\slash'], found: ['|back\\slash'] },
  { paths: ['m/sp[ ]ace'], found: ['|sp ace'] },
  { paths: ['m/*.txt'], found: ['|a.txt', '|ab.txt', '|b.txt'], more: { secluded: true } },
  // Symbolic links on the way, and behind a slash.
  { paths: ['m/links/file'], found: ['links|file'] },
  { paths: ['m/links/file/'], found: ['links/file|./ missing with its directory'] },
  { paths: ['m/links/dir'], found: ['links|dir'] },
  { paths: ['m/links/dir/'], found: ['links/dir|./'] },
  { paths: ['m/links/dir/one'], found: ['links/dir|one'] },
  { paths: ['m/links/twice/one'], found: ['links/twice|one'] },
  { paths: ['m/links/absolute/deep'], found: ['links/absolute|deep'] },
  { paths: ['m/links/up/one'], found: ['links/up|one'] },
  { paths: ['m/links/self/self/self/file'], found: ['links/self/self/self|file'] },
  { paths: ['m/links/nowhere'], found: ['links|nowhere'] },
  { paths: ['m/links/nowhere/'], found: ['links/nowhere|./ missing with its directory'] },
  { paths: ['m/links/loop'], found: ['links|loop'] },
  { paths: ['m/links/loop/x'], found: ['links/loop|x missing with its directory'] },
  { paths: ['m/links/ping/'], found: ['links/ping|./ missing with its directory'] },
  {
    paths: [`m/links/${'self/'.repeat(41)}file`],
    found: [`links/${'self/'.repeat(41).slice(0, -1)}|file missing with its directory`],
  },
  { paths: ['m/links/d*/one'], found: ['links/dir|one'] },
]
for (const { paths, found: expected, more } of PLAIN) {
  const how = more ? ` ${JSON.stringify(more)}` : ''
  test(`paths: ${paths.join(', ').slice(0, 60)}${how}`, async () => {
    assert.deepEqual(await found(paths, more), expected)
  })
}

/** With -R the whole path is the name; "/./" divides. */
const RELATIVE: readonly { path: string; found: string; dotFirst?: boolean }[] = [
  { path: 'm/', found: '|./' },
  { path: 'm/dir', found: '|dir' },
  { path: 'm/dir/', found: '|dir/' },
  { path: 'm/dir/sub/deep', found: '|dir/sub/deep' },
  { path: 'm/dir/./sub/deep', found: 'dir|sub/deep' },
  { path: 'm/dir/sub/.', found: '|dir/sub/' },
  { path: 'm/dir/./', found: 'dir|./' },
  { path: 'm/./dir/sub', found: '|dir/sub' },
  { path: 'm/././dir/sub', found: '|dir/sub', dotFirst: true },
  { path: 'm/dir/././sub', found: 'dir|sub', dotFirst: true },
  { path: 'm/./dir/./sub', found: '|dir/sub' },
  { path: 'm/dir/./*/deep', found: 'dir|sub/deep' },
  { path: 'm/dir/./../a.txt', found: 'dir|a.txt missing' },
  { path: 'm/dir/./sub/./deep', found: 'dir|sub/deep' },
  { path: 'm/../dir/one', found: '|dir/one' },
  { path: 'm/links/dir/one', found: '|links/dir/one' },
  { path: 'm/dir/nothing', found: '|dir/nothing missing' },
  { path: 'm/dir/nothing/', found: '|dir/nothing/ missing' },
  { path: 'm/nothing/at/all', found: '|nothing/at/all missing' },
  { path: 'm/nothing/./at/all', found: 'nothing|at/all missing with its directory' },
  { path: 'm/a.txt/./x', found: 'a.txt|x missing with its directory' },
  // The slash does not count where there is no directory.
  { path: 'm/a.txt/', found: '|a.txt/' },
  { path: 'm/links/file/', found: '|links/file/' },
  { path: 'm/links/nowhere/', found: '|links/nowhere/' },
]
for (const { path, found, dotFirst = false } of RELATIVE) {
  test(`paths with -R: ${path}`, async () => {
    const [source, ...more] = await findSources(tree, request([path], { relative: true }), signal)
    assert.equal(more.length, 0)
    assert.equal(show(source!), found)
    assert.equal(source!.dotFirst, dotFirst)
  })
}

/** Names of a --files-from list. */
const LISTED: readonly {
  base: string
  name: string
  relative: boolean
  found: string
  dotFirst?: boolean
}[] = [
  { base: '', name: 'dir/one', relative: true, found: '|dir/one' },
  { base: '/', name: 'dir/one', relative: true, found: '|dir/one' },
  { base: '/dir', name: 'sub/deep', relative: true, found: 'dir|sub/deep' },
  { base: '/dir/', name: 'sub/', relative: true, found: 'dir|sub/' },
  { base: '/dir', name: 'sub/./deep', relative: true, found: 'dir/sub|deep' },
  { base: '/dir', name: 'sub/deep', relative: false, found: 'dir/sub|deep' },
  { base: '/dir', name: '../a.txt', relative: true, found: 'dir|a.txt missing' },
  { base: '/../dir', name: '/one', relative: true, found: 'dir|one' },
  { base: '', name: '*.txt', relative: true, found: '|*.txt missing' },
  { base: '', name: 'br[a]ck', relative: true, found: '|br[a]ck' },
  { base: '/dir', name: '.', relative: true, found: 'dir|./' },
  // "/./" divides: not what stands at the start or the end.
  { base: '', name: './dir/one', relative: true, found: '|dir/one', dotFirst: true },
  { base: '', name: './dir/./one', relative: true, found: 'dir|one' },
  { base: '', name: '/./dir/./one', relative: true, found: 'dir|one' },
  { base: '', name: '././dir/one', relative: true, found: '|dir/one' },
  { base: '', name: './././dir/one', relative: true, found: '|dir/one', dotFirst: true },
  { base: '', name: '././dir/./one', relative: true, found: '|dir/one' },
  { base: '', name: 'dir/././one', relative: true, found: 'dir|one', dotFirst: true },
  { base: '', name: 'dir/.', relative: true, found: '|dir/' },
  { base: '', name: './dir/.', relative: true, found: '|dir/', dotFirst: true },
  { base: '', name: './dir/./', relative: true, found: 'dir|./' },
  { base: '', name: './.', relative: true, found: '|./' },
  { base: '', name: 'nothing/one', relative: true, found: '|nothing/one missing' },
  { base: '', name: 'nothing/one', relative: false, found: 'nothing|one missing with its directory' },
  { base: '', name: 'dir/nothing/', relative: false, found: 'dir/nothing|./ missing with its directory' },
  { base: '/nothing', name: 'one', relative: true, found: 'nothing|one missing with its directory' },
]
for (const { base, name, relative, found, dotFirst = false } of LISTED) {
  test(`listed: ${name} under ${base || 'the module'}${relative ? '' : ', without -R'}`, async () => {
    const source = await findListed(tree, cleanBase(base as ByteString), name as ByteString, relative)
    assert.equal(show(source), found)
    assert.equal(source.dotFirst, dotFirst)
  })
}

test('lookup: a last link is followed only if it must be', async () => {
  const mode = async (path: string, follow: boolean): Promise<number> => {
    const node = await lookup(tree, path as ByteString, follow)
    return node < 0 ? node : tree.mode(node) & 0o170000
  }
  assert.equal(await mode('links/file', false), 0o120000)
  assert.equal(await mode('links/file', true), 0o100000)
  assert.equal(await mode('links/twice', true), 0o040000)
  assert.equal(await mode('links/nowhere', false), 0o120000)
  assert.equal(await mode('links/nowhere', true), -1)
  assert.equal(await mode('links/loop', true), -1)
  assert.equal(await mode('links/up', true), 0o040000)
  assert.equal(await mode('', false), 0o040000)
})

test('showPath: as a person types it, harmless', () => {
  assert.equal(showPath('m', ascii('')), 'm')
  assert.equal(showPath('m', '/a\n\x1b' as ByteString).includes('\x1b'), false)
})

test('bounded: one endless argument costs no more than its length', async () => {
  const shapes: ((parts: number) => [path: string, relative: boolean])[] = [
    (parts) => ['a/'.repeat(parts), true],
    (parts) => [`${'a/'.repeat(parts / 2)}${'./'.repeat(parts / 2)}`, true],
    (parts) => ['../'.repeat(parts), false],
    (parts) => ['dir/../'.repeat(parts / 4), true],
    (parts) => [' m/'.repeat(parts / 4), false],
  ]
  for (const shape of shapes) {
    const cost = async (parts: number): Promise<number> => {
      const [path, relative] = shape(parts)
      const before = process.cpuUsage()
      await findSources(tree, request([`m/${path}`], { relative }), signal)
      return process.cpuUsage(before).user
    }
    await cost(20_000)
    const [some, many] = [await cost(50_000), await cost(500_000)]
    // What grows with the square of the length would cost a hundred times as much.
    assert.ok(many < 40 * some + 100_000, `${some} and ${many} us for ${shape(4)[0]}...`)
  }
})

test('bounded: patterns that match everything, again and again', async () => {
  const wide = new MemoryTree(
    dir({ d: dir(Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`f${i}`, file()]))) }),
  )
  try {
    const paths = Array.from({ length: 16_000 }, () => 'm/*/*')
    await assert.rejects(findSources(wide, request(paths), signal), /match more than 250000 names/)
  } finally {
    wide.close()
  }
})

test('patterns that look at far too many names are refused, before they do', async () => {
  class Vast extends MemoryTree {
    override childCount = (): number => 20_000_001
    override name = (): ByteString => assert.fail('looked at one')
  }
  const vast = new Vast(dir())
  try {
    await assert.rejects(findSources(vast, request(['m/a*']), signal), (error) => {
      return error instanceof RefusedError && /look at more than 20000000 names/.test(error.message)
    })
  } finally {
    vast.close()
  }
})
