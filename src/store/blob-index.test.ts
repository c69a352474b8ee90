import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { fc } from '../../test/support/property.ts'
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
  const [a, b, lost, later] = [digestOf(1, 1), digestOf(1, 2), digestOf(1, 3), digestOf(1, 4)]
  const rows = [a, b, lost].map((digest) => index.add(digest, 0, 0, 0, 1))
  const sweep = KnownBlobs.of(index)
  const ingest = new KnownBlobs(structuredClone(sweep.data))
  const rowOfLater = index.add(later, 0, 0, 0, 1)
  assert.equal(ingest.claim(a), true)
  assert.equal(sweep.giveUp(rows[0]!), false, 'the ingest relies on it')
  assert.equal(ingest.claim(a), true)
  assert.deepEqual([...sweep.claimed()], [rows[0]])
  assert.equal(sweep.giveUp(rows[1]!), true)
  assert.equal(ingest.claim(b), false, 'the sweep deletes it')
  index.lose(rows[2]!)
  assert.equal(ingest.claim(lost), false, 'there is no copy of it')
  assert.equal(ingest.claim(later), false, 'it came after the ingest began')
  assert.equal(sweep.giveUp(rowOfLater), true)
})

test('known blobs: whatever becomes of a row, an ingest relies on nothing that is not there', () => {
  const action = fc.record({
    what: fc.constantFrom('add', 'add', 'sweep', 'lose', 'claim', 'claim', 'begin'),
    n: fc.nat(1500),
  })
  const digests = Array.from({ length: 1501 }, (_, n) => createHash('sha256').update(String(n)).digest())
  fc.assert(
    fc.property(fc.array(action, { minLength: 300, maxLength: 600 }), (actions) => {
      const index = new BlobIndex()
      let known: KnownBlobs[] = []
      const relied = new Map<KnownBlobs, Set<number>>()
      // What was lost under an ingest that relied on it already: that one fails when it is published.
      const failed = new Map<KnownBlobs, Set<number>>()
      const begin = (): void => {
        known = [...known.slice(-2), KnownBlobs.of(index)]
        relied.set(known.at(-1)!, new Set())
        failed.set(known.at(-1)!, new Set())
      }
      /** Nobody relies on it, and from now on nobody will. */
      const givenUp = (row: number): boolean => known.map((one) => one.giveUp(row)).every((gone) => gone)
      // The rows are about to grow, and so are the slots.
      for (let n = 0; n < 750; n++) {
        index.add(digests[n]!, 0, 0, 0, 1)
        if (n === 200 || n === 700) begin()
      }
      for (const { what, n } of actions) {
        const row = index.find(digests[n]!)
        if (what === 'add') index.add(digests[n]!, 0, 0, 0, 1)
        else if (what === 'begin') begin()
        else if (what === 'claim') {
          for (const one of known) {
            if (!one.claim(digests[n]!) || failed.get(one)!.has(n)) continue
            assert.ok(row >= 0 && index.isHeld(row), 'it is there')
            relied.get(one)!.add(n)
          }
        } else if (row >= 0 && what === 'lose') {
          givenUp(row)
          index.lose(row)
          for (const one of known) if (relied.get(one)!.delete(n)) failed.get(one)!.add(n)
        } else if (row >= 0) {
          const mayGo = givenUp(row)
          assert.ok(!mayGo || !known.some((one) => relied.get(one)!.has(n)), 'somebody relies on it')
          if (mayGo) index.delete(row)
        }
      }
    }),
    { numRuns: 20 },
  )
})

test('known blobs: an ingest begins without a copy of the index', () => {
  const index = new BlobIndex()
  for (let n = 0; n < 2000; n++) index.add(createHash('sha256').update(String(n)).digest(), 0, 0, n, 1)
  const [one, other] = [KnownBlobs.of(index), KnownBlobs.of(index)]
  assert.equal(one.data.index.digests.buffer, other.data.index.digests.buffer)
  assert.equal(one.data.index.rows.buffer, other.data.index.rows.buffer)
  assert.ok(one.data.index.digests.buffer instanceof SharedArrayBuffer)
})
