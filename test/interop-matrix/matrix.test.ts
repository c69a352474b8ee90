/** A share of the matrix that script/interop runs: the same rows, fewer cells. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isRoot } from '../support/scratch.ts'
import { missingTools } from './builds.ts'
import { COLUMNS, cellsOf, explain, Matrix } from './matrix.ts'
import { nameOf, ROWS } from './rows.ts'

const missing = missingTools()
const skip = !isRoot ? 'needs root' : missing.length > 0 ? `needs ${missing.join(', ')}` : false

test('a client cannot tell upserv from the stock daemon: a share of the matrix', { skip }, async () => {
  await using matrix = await Matrix.start()
  const failures: string[] = []
  let count = 0
  await matrix.run(cellsOf(ROWS, COLUMNS, 'short'), { jobs: 2 }, (result) => {
    count++
    if (result.failures.length > 0) failures.push(explain(result))
  })
  assert.ok(count > 80, `${count} cells`)
  assert.deepEqual(failures, [])
})

test('rows can be told apart by their names', () => {
  const names = ROWS.map(nameOf)
  const twice = names.filter((name, index) => names.indexOf(name) !== index)
  assert.deepEqual(twice, [])
})
