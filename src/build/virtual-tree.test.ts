import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { test } from 'node:test'
import { memoryKept } from '../../test/support/session.ts'
import { ascii } from '../lib/bytes.ts'
import { Derived } from '../rsync/derived.ts'
import { VirtualTree } from './virtual-tree.ts'

const file = (name: string, text: string, mtime = 1) => ({
  name: ascii(name),
  content: Buffer.from(text),
  mtime,
})
const tree = new VirtualTree([file('b', 'bb\n', 7), file('B', ''), file('a.b', 'bb\n'), file('a', 'a')], 9)

test('files are numbered in the order of their bytes, and found by name', () => {
  const nodes = Array.from({ length: tree.childCount(0) }, (_, i) => tree.firstChild() + i)
  assert.deepEqual(
    nodes.map((node) => tree.name(node)),
    ['B', 'a', 'a.b', 'b'],
  )
  for (const node of nodes) assert.equal(tree.child(0, tree.name(node)), node)
  assert.equal(tree.count, 5)
  assert.equal(tree.child(0, ascii('c')), -1)
  assert.equal(tree.child(1, ascii('a')), -1)
  assert.deepEqual([tree.name(0), tree.mtime(0), tree.mode(0)], ['', 9, 0o040755])
  assert.deepEqual([tree.size(4), tree.mtime(4), tree.mode(4)], [3, 7, 0o100644])
})

test('content, digests and keys are those of the bytes', async () => {
  const content = await tree.open(4)
  const [one, rest] = [Buffer.alloc(1), Buffer.alloc(1)]
  await content.read([one, rest], 1)
  assert.equal(`${one}${rest}`, 'b\n')
  assert.equal(Buffer.from(tree.digest(4, 'md5')!).toString('hex'), hash('md5', 'bb\n'))
  assert.equal(tree.digest(0, 'md5'), undefined)
  assert.equal(tree.contentKey(4), tree.contentKey(3))
  assert.notEqual(tree.contentKey(4), tree.contentKey(2))
})

test('threads work on it as on any file: the tail that --append asks for', async () => {
  const derived = new Derived({ kept: memoryKept(), checksumSeed: 1 })
  try {
    const { signal } = new AbortController()
    const digest = await derived.tailDigest(tree, 4, 1, 'md5', 0, signal)
    assert.equal(Buffer.from(digest).toString('hex'), hash('md5', 'b\n'))
  } finally {
    await derived.close()
  }
})
