import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { fc } from '../../test/support/property.ts'
import { BlobIndex } from './blob-index.ts'
import { References } from './gc.ts'

/** Digests of these blobs, as a manifest has them. */
const digestsOf = (blobs: readonly number[]): Buffer =>
  Buffer.concat(blobs.map((blob) => createHash('sha256').update(`${blob}`).digest()))

/** An index of so many blobs, whose rows are their numbers. */
function indexOf(blobs: number): BlobIndex {
  const index = new BlobIndex()
  for (let blob = 0; blob < blobs; blob++) index.add(digestsOf([blob]), 0, 0, blob * 10, 10)
  return index
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

const CASES: { name: string; needs: number[]; lost: number[]; is: boolean }[] = [
  { name: 'nothing is lost', needs: range(0, 50), lost: [], is: false },
  { name: 'nothing is needed', needs: [], lost: range(0, 50), is: false },
  { name: 'the first row', needs: range(0, 10), lost: [0], is: true },
  { name: 'the last of a run', needs: range(5, 10), lost: [9], is: true },
  { name: 'the one behind a run', needs: range(5, 10), lost: [10], is: false },
  { name: 'the one before a run', needs: range(5, 10), lost: [4], is: false },
  { name: 'between two runs', needs: [...range(5, 10), ...range(11, 20)], lost: [10], is: false },
  { name: 'before, between and behind', needs: [...range(5, 10), 15], lost: [4, 10, 12, 14, 16], is: false },
  { name: 'in the last run alone', needs: [1, 3, 5, 7, 9], lost: [0, 2, 4, 6, 8, 9], is: true },
  { name: 'every other one, and the others', needs: [0, 2, 4, 6, 8], lost: [1, 3, 5, 7, 9], is: false },
]
for (const { name, needs, lost, is } of CASES) {
  test(`references: whether a build needs what is lost: ${name}`, async () => {
    const index = indexOf(50)
    const references = new References(index)
    assert.equal(await references.add(1, digestsOf(needs), new Uint32Array(needs.length).fill(10)), 0)
    for (const row of lost) index.lose(row)
    assert.equal(references.needsAny(1, index.lost()), is)
    assert.equal(references.lostOf(1) > 0, is)
    assert.equal(references.needsAny(2, index.lost()), false, 'one that was not counted')
  })
}

test('references: the rows of a build, whatever order its blobs come in, and how many of them are lost', async () => {
  const digests = digestsOf(range(0, 200))
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(199), { maxLength: 250, size: 'max' }),
      fc.uniqueArray(fc.nat(199), { maxLength: 100, size: 'max' }),
      async (blobs, lost) => {
        const index = new BlobIndex()
        for (let blob = 0; blob < 200; blob++) index.add(digests, blob * 32, 0, blob * 10, 10)
        for (const row of lost) index.lose(row)
        const needs = Buffer.concat(blobs.map((blob) => digests.subarray(blob * 32, (blob + 1) * 32)))
        const references = new References(index)
        await references.add(1, needs, new Uint32Array(blobs.length).fill(10))
        const distinct = [...new Set(blobs)].sort((a, b) => a - b)
        assert.deepEqual([...references.rowsOf(1)], distinct)
        assert.equal(references.lostOf(1), distinct.filter((blob) => lost.includes(blob)).length)
        assert.deepEqual(
          [...index.lost()],
          [...lost].sort((a, b) => a - b),
        )
      },
    ),
  )
})
