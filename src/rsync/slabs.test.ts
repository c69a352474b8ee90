import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FOR_ANSWER, FOR_PIECE, FRAME_SIZE, FRAME_SLACK, giveMemory, Loan, takeMemory } from './slabs.ts'

test('memory goes back when the borrower and all who share it are done', () => {
  const loan = new Loan(FOR_ANSWER)
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

test('an answer that is small gets no more than it needs, and one larger than a frame nothing', () => {
  const small = new Loan(FOR_ANSWER)
  assert.equal(small.take(30_000)!.length, 30_000)
  small.giveBack()
  assert.equal(new Loan(FOR_ANSWER).take(FRAME_SIZE + FRAME_SLACK + 1), undefined)
  assert.ok(new Loan(FOR_PIECE).take(2_000_000)!.length >= 2_000_000)
})
