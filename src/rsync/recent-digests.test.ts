import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { randomBytes } from '../../test/support/tree.ts'
import { RecentDigests } from './recent-digests.ts'
import type { Tree } from './tree.ts'

const FILES = 100

/** A tree of its own key, with a hundred files behind the root. */
function newTree(): Tree {
  const children = Object.fromEntries(
    Array.from({ length: FILES }, (_, i) => [`f${i}`, { mode: 0o100644, data: Buffer.from('x') }]),
  )
  return new MemoryTree({ mode: 0o40755, children })
}

test('a digest is found for its file, tree and name, and for nothing else', () => {
  const [recent, tree] = [new RecentDigests(), newTree()]
  recent.add(tree, 5, 'md4-seeded', randomBytes(5, 16))
  recent.add(tree, 5, 'sha1', randomBytes(6, 20))
  assert.deepEqual(Buffer.from(recent.find(tree, 5, 'md4-seeded')!), randomBytes(5, 16))
  assert.deepEqual(Buffer.from(recent.find(tree, 5, 'sha1')!), randomBytes(6, 20))
  assert.equal(recent.find(tree, 4, 'md4-seeded'), undefined)
  assert.equal(recent.find(tree, 6, 'md4-seeded'), undefined)
  assert.equal(recent.find(tree, 5, 'md4'), undefined)
  assert.equal(recent.find(newTree(), 5, 'md4-seeded'), undefined)
})

test('tables take no more than they may: the one made first goes first, and one that is too large is not made', () => {
  const [first, second, third] = [newTree(), newTree(), newTree()]
  const table = first.count * 17
  const recent = new RecentDigests(2 * table)
  for (const [index, tree] of [first, second, third].entries()) {
    recent.add(tree, 1, 'md4-seeded', randomBytes(index, 16))
    assert.ok(recent.bytes <= 2 * table)
  }
  assert.equal(recent.find(first, 1, 'md4-seeded'), undefined)
  assert.deepEqual(Buffer.from(recent.find(second, 1, 'md4-seeded')!), randomBytes(1, 16))
  assert.deepEqual(Buffer.from(recent.find(third, 1, 'md4-seeded')!), randomBytes(2, 16))

  const small = new RecentDigests(table - 1)
  small.add(first, 1, 'md4-seeded', randomBytes(1, 16))
  assert.equal(small.bytes, 0)
  assert.equal(small.find(first, 1, 'md4-seeded'), undefined)
})

test('a tree whose nodes get their numbers while it is looked at has no table', () => {
  const tree = Object.assign(newTree(), { enter: () => undefined })
  const recent = new RecentDigests()
  recent.add(tree, 1, 'md4-seeded', randomBytes(1, 16))
  assert.equal(recent.bytes, 0)
})

test('where more builds are asked for in turn than fit, those that are used stay', () => {
  const [first, second] = [newTree(), newTree()]
  const recent = new RecentDigests(first.count * 17)
  recent.add(first, 1, 'md4-seeded', randomBytes(1, 16))
  for (let round = 0; round < 3; round++) {
    assert.ok(recent.find(first, 1, 'md4-seeded'))
    recent.add(second, 1, 'md4-seeded', randomBytes(2, 16))
    assert.equal(recent.find(second, 1, 'md4-seeded'), undefined)
  }
  recent.add(second, 1, 'md4-seeded', randomBytes(2, 16))
  assert.ok(recent.find(second, 1, 'md4-seeded'), 'nobody asked for the first one meanwhile')
})
