import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { type MemoryNode, MemoryTree } from '../../test/support/memory-tree.ts'
import type { ByteString } from '../lib/bytes.ts'
import { HiddenTree, type Hides, whyNoPattern } from './hidden-tree.ts'
import type { Tree } from './tree.ts'

const file = (text: string, more: Partial<MemoryNode> = {}): MemoryNode => ({
  mode: 0o100644,
  data: Buffer.from(text),
  ...more,
})
const directory = (children: Record<string, MemoryNode>): MemoryNode => ({ mode: 0o040755, children })
const tree = new MemoryTree(
  directory({
    contents: file('all names'),
    root: directory({
      'a.txt': file('a'),
      'b.o': file('b'),
      'c.txt': file('c', { link: 5 }),
      link: { mode: 0o120777, target: 'private/key' },
      private: directory({ key: file('secret', { link: 5 }), deep: directory({ 'x.txt': file('x') }) }),
      public: directory({ 'b.o': file('bo'), private: directory({ note: file('note') }), z: file('z') }),
    }),
  }),
)
after(() => tree.close())
const never = new AbortController().signal

/** Every path that can be reached, and what the nodes say of themselves. */
async function walk(tree: Tree, node = 0, path = ''): Promise<string[]> {
  await tree.enter?.(node)
  const found: string[] = []
  const first = tree.firstChild(node)
  for (let child = first; child < first + tree.childCount(node); child++) {
    const name = tree.name(child)
    const full = path === '' ? name : `${path}/${name}`
    assert.equal(tree.parent(child), node, full)
    assert.equal(tree.child(node, name), child, full)
    found.push(full)
    if ((tree.mode(child) & 0o170000) === 0o040000) found.push(...(await walk(tree, child, full)))
    else assert.equal(await contentOf(tree, child), await contentOf(...findBehind(full)), full)
  }
  return found
}

async function contentOf(tree: Tree, node: number): Promise<string> {
  if ((tree.mode(node) & 0o170000) !== 0o100000) return tree.linkTarget(node)
  const content = await tree.open(node)
  const bytes = Buffer.alloc(content.size)
  await content.read([bytes], 0)
  content.close()
  return bytes.toString()
}

function findBehind(path: string): [Tree, number] {
  let node = 0
  for (const name of path.split('/')) node = tree.child(node, name as ByteString)
  return [tree, node]
}

const ALL = [
  'contents',
  'root',
  'root/a.txt',
  'root/b.o',
  'root/c.txt',
  'root/link',
  'root/private',
  'root/private/key',
  'root/private/deep',
  'root/private/deep/x.txt',
  'root/public',
  'root/public/z',
  'root/public/b.o',
  'root/public/private',
  'root/public/private/note',
]
const CASES: readonly { name: string; hides: Hides[]; gone: (path: string) => boolean }[] = [
  { name: 'nothing', hides: [{ include: [], exclude: ['/no/such'] }], gone: () => false },
  {
    name: 'a directory by its path, and all that lies in it',
    hides: [{ include: [], exclude: ['/root/private'] }],
    gone: (path) => path.startsWith('root/private'),
  },
  {
    name: 'a name wherever it is',
    hides: [{ include: [], exclude: ['private'] }],
    gone: (path) => path.includes('private'),
  },
  {
    name: 'directories alone',
    hides: [{ include: [], exclude: ['p*/'] }],
    gone: (path) => /root\/(private|public)/.test(path),
  },
  {
    name: 'a pattern with an exception',
    hides: [{ include: ['/root/a.txt', 'x.txt'], exclude: ['*.txt', '/contents'] }],
    gone: (path) => path === 'contents' || path === 'root/c.txt',
  },
  {
    name: 'an exception in a hidden directory is hidden with it',
    hides: [{ include: ['x.txt'], exclude: ['/root/private'] }],
    gone: (path) => path.startsWith('root/private'),
  },
  {
    name: 'what either hides',
    hides: [
      { include: ['b.o'], exclude: ['private'] },
      { include: [], exclude: ['b.o'] },
    ],
    gone: (path) => path.includes('private') || path.endsWith('b.o'),
  },
  { name: 'everything', hides: [{ include: [], exclude: ['*'] }], gone: () => true },
]
for (const { name, hides, gone } of CASES) {
  test(`hidden tree: ${name}`, async () => {
    const hidden = new HiddenTree(tree, hides, never)
    assert.deepEqual((await walk(hidden)).sort(), ALL.filter((path) => !gone(path)).sort())
    assert.notEqual(hidden.key, tree.key)
    // What is hidden can't be had by asking for it either.
    for (const path of ALL.filter(gone)) {
      let node = 0
      for (const part of path.split('/')) {
        if (node >= 0) await hidden.enter(node)
        node = node < 0 ? -1 : hidden.child(node, part as ByteString)
      }
      assert.equal(node, -1, path)
    }
  })
}

test('hidden tree: what is hidden in one directory of the root, by patterns anchored there', async () => {
  const at = (directory: string): Hides[] =>
    directory === 'root' ? [{ include: ['/a.txt'], exclude: ['/private', '*.txt', '/contents'] }] : []
  const hidden = new HiddenTree(tree, [{ include: [], exclude: ['z'] }], never, at)
  assert.deepEqual((await walk(hidden)).sort(), [
    ...['contents', 'root', 'root/a.txt', 'root/b.o', 'root/link', 'root/public', 'root/public/b.o'],
    ...['root/public/private', 'root/public/private/note'],
  ])
})

test('hidden tree: entering twice, and by two at once, changes nothing', async () => {
  const hidden = new HiddenTree(tree, [{ include: [], exclude: ['private'] }], never)
  await Promise.all([hidden.enter(0), hidden.enter(0)])
  assert.equal(hidden.enter(0), undefined)
  assert.equal(hidden.count, 3)
  assert.deepEqual(
    [1, 2].map((node) => hidden.name(node)),
    ['contents', 'root'],
  )
})

test('hidden tree: no key is that of another session', () => {
  const hides = [{ include: [], exclude: ['private'] }]
  assert.notEqual(new HiddenTree(tree, hides, never).key, new HiddenTree(tree, hides, never).key)
})

test('patterns of a module are patterns alone', () => {
  for (const good of [
    '*.o',
    '/root/private',
    '/root/x/',
    '.x',
    '..x',
    'x.',
    'a/.b',
    '.?',
    'a b',
    '**/x/***',
    '-x',
    '+',
    ':x',
  ]) {
    assert.equal(whyNoPattern(good), undefined, good)
  }
  for (const bad of [
    '',
    '/',
    '- *.o',
    '+ x',
    '!',
    ': .rules',
    '. file',
    'a\nb',
    'x'.repeat(9000),
    'ä'.repeat(4500),
  ]) {
    assert.ok(whyNoPattern(bad), bad)
  }
  for (const bad of [
    '//',
    '.',
    '..',
    '/.',
    './root/x',
    '//root/x',
    'root//x',
    '/root/../x',
    '/root/./x',
    'x//',
    'x/..',
  ]) {
    assert.ok(whyNoPattern(bad), bad)
  }
})

test('the tree behind hears of what goes out, and of what may have rotted, by its own numbers', async () => {
  const heard: string[] = []
  const behind = Object.assign(new MemoryTree(directory({ 'a.o': file('a'), b: file('b') })), {
    sent: (node: number) => heard.push(`sent ${behind.name(node)}`),
    suspect: (node: number) => heard.push(`suspect ${behind.name(node)}`),
  })
  const hidden = new HiddenTree(behind, [{ include: [], exclude: ['*.o'] }], never)
  await hidden.enter(0)
  const node = hidden.child(0, 'b' as ByteString)
  hidden.sent(node)
  hidden.suspect(node)
  assert.deepEqual(heard, ['sent b', 'suspect b'])
  behind.close()
})
