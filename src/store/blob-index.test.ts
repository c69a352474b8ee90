import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { BlobIndex } from './blob-index.ts'
import { KnownBlobs } from './known-blobs.ts'

/** Few prefixes, so that probing wraps around and runs collide; `n` tells digests of one prefix apart. */
function digestOf(prefix: number, n: number): Uint8Array {
  const digest = new Uint8Array(32)
  new DataView(digest.buffer).setUint32(0, prefix)
  digest[31] = n
  return digest
}

test('index: behaves as a Map does, whatever comes and goes', () => {
  const prefix = fc.constantFrom(0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff)
  const action = fc.record({
    what: fc.constantFrom('add', 'add', 'add', 'delete', 'move'),
    prefix,
    n: fc.nat(40),
    pack: fc.nat(5),
  })
  fc.assert(
    fc.property(fc.array(action, { maxLength: 400 }), (actions) => {
      const index = new BlobIndex()
      const model = new Map<string, { row: number; pack: number; offset: number; length: number }>()
      for (const [time, { what, prefix, n, pack }] of actions.entries()) {
        const digest = digestOf(prefix, n)
        const key = Buffer.from(digest).toString('hex')
        const known = model.get(key)
        if (what === 'add') {
          const row = index.add(digest, 0, pack, time, n)
          assert.equal(row === -1, known !== undefined)
          if (!known) model.set(key, { row, pack, offset: time, length: n })
        } else if (known && what === 'delete') {
          index.delete(known.row)
          assert.equal(index.isHeld(known.row), false)
          model.delete(key)
        } else if (known) {
          index.move(known.row, pack, time)
          known.pack = pack
          known.offset = time
        }
      }
      assert.equal(index.size, model.size)
      for (let n = 0; n <= 40; n++) {
        for (const prefix of [0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff]) {
          const digest = digestOf(prefix, n)
          const row = index.find(digest)
          const expected = model.get(Buffer.from(digest).toString('hex'))
          assert.equal(row, expected?.row ?? -1)
          if (!expected) continue
          assert.deepEqual(index.digest(row), digest)
          const { pack, offset, length } = expected
          assert.deepEqual([index.pack(row), index.offset(row), index.length(row)], [pack, offset, length])
        }
      }
    }),
  )
})

test('index: grows past every initial size', () => {
  const index = new BlobIndex()
  const digest = (i: number) => createHash('sha256').update(String(i)).digest()
  for (let i = 0; i < 5000; i++) assert.equal(index.add(digest(i), 0, i % 7, i, i * 2), i)
  for (let i = 0; i < 5000; i++) assert.equal(index.find(digest(i)), i)
  assert.equal(index.find(digest(5000)), -1)
})

test('known blobs: who comes first, the ingest or the sweep, decides', () => {
  const index = new BlobIndex()
  const [a, b, later] = [digestOf(1, 1), digestOf(1, 2), digestOf(1, 3)]
  for (const digest of [a, b]) index.add(digest, 0, 0, 0, 1)
  const sweep = KnownBlobs.of(index)
  index.add(later, 0, 0, 0, 1)
  const ingest = new KnownBlobs(structuredClone(sweep.data))
  assert.equal(ingest.claim(a), true)
  assert.equal(sweep.giveUp(a), false, 'the ingest relies on it')
  assert.equal(ingest.claim(a), true)
  assert.equal(sweep.giveUp(b), true)
  assert.equal(ingest.claim(b), false, 'the sweep deletes it')
  assert.equal(ingest.claim(later), false, 'it came after the snapshot')
  assert.equal(sweep.giveUp(later), true)
})
