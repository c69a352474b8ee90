import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FRAME_SIZE, FRAME_SLACK, giveMemory, Loan, takeMemory } from './slabs.ts'

test('memory goes back when the borrower and all who share it are done', () => {
  const loan = new Loan()
  const memory = loan.take(100_000)!
  const [one, other] = [loan.share(), loan.share()]
  const taken: Buffer[] = []
  const isFree = (): boolean => {
    const next = takeMemory(100_000)
    taken.push(next)
    return next === memory
  }
  loan.giveBack()
  assert.ok(!isFree())
  other()
  assert.ok(!isFree())
  one()
  assert.ok(isFree())
  for (const each of taken) giveMemory(each)
})

test('nothing is lent that is larger than a frame', () => {
  const loan = new Loan()
  assert.equal(loan.take(FRAME_SIZE + FRAME_SLACK + 1), undefined)
  loan.giveBack()
})
