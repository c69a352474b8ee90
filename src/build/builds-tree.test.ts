import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { RefusedError, StoreError } from '../errors.ts'
import { ascii, type ByteString } from '../lib/bytes.ts'
import { isDirectoryMode } from '../lib/file-mode.ts'
import { Filters } from '../rsync/filters.ts'
import { buildFileList } from '../rsync/flist.ts'
import { findSources, lookup } from '../rsync/paths.ts'
import type { Tree } from '../rsync/tree.ts'
import { BuildsTree } from './builds-tree.ts'

const dir = (children: object = {}) => ({ mode: 0o040755, mtime: 5, children: children as never })
const file = (text: string, more: object = {}) => ({ mode: 0o100640, data: Buffer.from(text), ...more })

/** A build's module: two names of one file, and a directory that another build has as well. */
const build = (text: string) =>
  dir({
    contents: file(`contents of ${text}`),
    root: dir({
      bin: dir({ one: file(text, { link: 1, uid: 7 }), two: file(text, { link: 1, uid: 7 }) }),
      loop: { mode: 0o120777, target: '/802/root' },
    }),
  })

function setUp(t: TestContext, ids: readonly string[], maxNodes?: number) {
  const trees = new Map(ids.map((id) => [id, new MemoryTree(build(id))]))
  t.after(() => {
    for (const tree of trees.values()) tree.close()
  })
  const log: string[] = []
  const tree = new BuildsTree({
    builds: ids.map((id) => ({ id, mtime: 100 + Number(id) })),
    open: async (id) => {
      if (id === '13') throw new StoreError('build 13 has just been evicted')
      log.push(`open ${id}`)
      return {
        tree: trees.get(id)!,
        onAccess: () => log.push(`access ${id}`),
        release: () => log.push(`release ${id}`),
      }
    },
    ...(maxNodes === undefined ? {} : { maxNodes }),
  })
  return { tree, trees, log }
}

const { signal } = new AbortController()
const OPTIONS = {
  protocol: 31,
  recurse: true,
  dirs: false,
  relative: false,
  impliedDirs: true,
  copyLinks: false,
  copyDirlinks: false,
  copyUnsafeLinks: false,
  missingArgs: 'report',
  unsorted: false,
} as const

async function list(tree: Tree, path: string, options: object = {}) {
  const request = {
    module: ascii('builds'),
    paths: [`builds/${path}` as ByteString],
    relative: false,
    secluded: false,
    directoriesSent: true,
  }
  const sources = await findSources(tree, request, signal)
  return buildFileList(tree, sources, new Filters([]), { ...OPTIONS, ...options }, signal)
}

test('listing the builds opens none of them', async (t) => {
  const { tree, log } = setUp(t, ['9', '10', '10.1', '802'])
  const { names, nodes } = await list(tree, '', { recurse: false, dirs: true })
  // By the bytes of the name and a slash: "10." comes before "10/".
  assert.deepEqual(names, ['.', '10.1', '10', '802', '9'])
  assert.deepEqual(
    nodes.map((node) => tree.mtime(node)),
    [902, 110.1, 110, 902, 109],
  )
  assert.ok(nodes.every((node) => isDirectoryMode(tree.mode(node))))
  assert.deepEqual([tree.count, log], [5, []])
})

test('a build is opened when somebody looks into it, once, and only it', async (t) => {
  const { tree, log } = setUp(t, ['801', '802', '803'])
  const { names } = await list(tree, '802/')
  assert.deepEqual(names, ['.', 'contents', 'root', 'root/loop', 'root/bin', 'root/bin/one', 'root/bin/two'])
  assert.equal((await list(tree, '802/root/bin/o*')).names.join(), 'one')
  assert.deepEqual(log, ['open 802'])
  await tree.open(await lookup(tree, ascii('802/contents'), false))
  tree.release()
  assert.deepEqual(log, ['open 802', 'access 802', 'release 802'])
})

test('all of it is what the builds are, whichever is opened first', async (t) => {
  const { tree, trees } = setUp(t, ['801', '802', '803'])
  await list(tree, '803/root/')
  await list(tree, '801/contents')
  const { names, nodes } = await list(tree, '')
  assert.equal(names.length, 1 + 3 * 7)
  assert.equal(tree.count, 1 + 3 * 7)
  assert.equal(new Set(nodes).size, names.length)
  for (const [i, name] of names.entries()) {
    const node = nodes[i]!
    const [id, ...parts] = name.split('/')
    if (name === '.' || parts.length === 0) continue
    const own = trees.get(id!)!
    const same = await lookup(own, parts.join('/') as ByteString, false)
    for (const what of [
      'name',
      'mode',
      'uid',
      'gid',
      'size',
      'mtime',
      'mtimeNsec',
      'linkTarget',
      'contentKey',
      'xattrs',
    ] as const)
      assert.deepEqual(tree[what](node), own[what](same), `${what} of ${name}`)
    assert.deepEqual(tree.digest(node, 'md5'), own.digest(same, 'md5'))
    assert.equal(await lookup(tree, name, false), node)
    assert.equal(tree.child(tree.parent(node), tree.name(node)), node)
    if (isDirectoryMode(tree.mode(node))) assert.equal(tree.childCount(node), own.childCount(same))
    const content = parts.at(-1) === 'one' ? await tree.open(node) : undefined
    const bytes = Buffer.alloc(3)
    await content?.read([bytes], 0)
    if (content) assert.equal(bytes.toString(), id)
  }
})

test('names of one file are linked within a build, never across builds', async (t) => {
  const { tree } = setUp(t, ['801', '802'])
  await list(tree, '')
  const group = async (path: string) => tree.linkGroup(await lookup(tree, ascii(path), false))
  assert.equal(await group('801/contents'), 0)
  assert.ok((await group('801/root/bin/one')) > 0)
  assert.equal(await group('801/root/bin/one'), await group('801/root/bin/two'))
  assert.equal(await group('802/root/bin/one'), await group('802/root/bin/two'))
  assert.notEqual(await group('801/root/bin/one'), await group('802/root/bin/one'))
})

test('links may lead into a build that nobody had looked into', async (t) => {
  const { tree, log } = setUp(t, ['801', '802'])
  const { names } = await list(tree, '801/root/loop/')
  assert.ok(names.includes(ascii('bin/one')))
  assert.deepEqual(log, ['open 801', 'open 802'])
})

test('names of owners: those of the builds looked into, unless they disagree', async (t) => {
  const { tree, trees } = setUp(t, ['1', '2', '3'])
  const names = {
    '1': [
      [0, 'root'],
      [7, 'olpc'],
    ],
    '2': [
      [0, 'root'],
      [7, 'ntp'],
      [8, 'www'],
    ],
    '3': [[9, 'later']],
  }
  for (const [id, pairs] of Object.entries(names)) {
    Object.defineProperty(trees.get(id), 'userNames', { value: new Map(pairs as [number, ByteString][]) })
  }
  await list(tree, '1/')
  assert.deepEqual(
    [...tree.userNames],
    [
      [0, 'root'],
      [7, 'olpc'],
    ],
  )
  await list(tree, '2/')
  assert.deepEqual(
    [...tree.userNames],
    [
      [0, 'root'],
      [8, 'www'],
    ],
  )
})

test('a build that can not be had is listed and told of: a mirror keeps what it has of it', async (t) => {
  const { tree } = setUp(t, ['12', '13', '14'])
  const { names, notices } = await list(tree, '')
  assert.deepEqual(
    names.filter((name) => !name.includes('/')),
    ['.', '12', '13', '14'],
  )
  assert.deepEqual(notices, [
    { type: 'unreadable-directory', path: '13', reason: 'build 13 has just been evicted' },
  ])
  await assert.rejects(list(tree, '13/root/'), /evicted/)
})

test('one request looks into so many files and no more; a single build may be of any size', async (t) => {
  const { tree, log } = setUp(t, ['1', '2', '3'], 4 + 6 + 6)
  await assert.rejects(list(tree, ''), (error: Error) => {
    assert.ok(error instanceof RefusedError)
    assert.match(`${error.message} ${error.hint}`, /more than 16 files together .*builds\/3\//)
    return true
  })
  tree.release()
  assert.deepEqual(log, ['open 1', 'open 2', 'open 3', 'release 3', 'release 1', 'release 2'])
  const { tree: other } = setUp(t, ['1', '2', '3'], 5)
  assert.equal((await list(other, '2/')).names.length, 7)
})
