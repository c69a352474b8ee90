import assert from 'node:assert/strict'
import { test } from 'node:test'
import { countFile, type Had, noFigures, rememberFile, type TransferFigures } from './figures.ts'

function noteFile(
  figures: TransferFigures,
  had: Had,
  matched: number,
  literal: number,
  name: () => string,
): void {
  if (countFile(figures, had, matched, literal))
    rememberFile(figures, { name: name(), had, matchedBytes: matched, literalBytes: literal })
}

test('the files that cost the most are remembered, the most first, and no more than ten', () => {
  const figures = noFigures()
  let named = 0
  const note = (literal: number): void =>
    noteFile(figures, 'blocks', 1, literal, () => `file-${++named}-${literal}`)
  for (const literal of [5, 0, 9, 7, 1, 2, 3, 4, 6, 8, 10]) note(literal)
  assert.deepEqual(
    figures.costliest.map(({ literalBytes }) => literalBytes),
    [10, 9, 8, 7, 6, 5, 4, 3, 2, 1],
  )
  const before = named
  note(1)
  note(0)
  assert.equal(named, before, 'a name is made only for what is remembered')
  note(11)
  assert.deepEqual(
    figures.costliest.map(({ literalBytes }) => literalBytes),
    [11, 10, 9, 8, 7, 6, 5, 4, 3, 2],
  )
  assert.equal(figures.matchedBytes, 14)
  assert.equal(figures.literalBytes, 67)
})

test('what is new counts apart', () => {
  const figures = noFigures()
  noteFile(figures, 'nothing', 0, 100, () => 'a')
  noteFile(figures, 'no-sums', 0, 10, () => 'b')
  assert.deepEqual([figures.newFiles, figures.newBytes, figures.literalBytes], [1, 100, 110])
})
