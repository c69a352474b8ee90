import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type WarmCache, whatIsFull } from './warmer.ts'

const tally = (droppedUpTo: number, crowdedUpTo: number): WarmCache['tally'] => ({
  written: 0,
  dropped: 0,
  next: 5,
  droppedUpTo,
  crowdedUpTo,
})

const CASES = [
  { name: 'nothing has gone', now: tally(-1, -1), full: null },
  { name: 'what was there before', now: tally(4, 4), full: null },
  { name: 'something of ours, for want of room', now: tally(5, 4), full: 'bytes' },
  { name: 'something of ours, as there are too many', now: tally(7, 6), full: 'records' },
]
for (const { name, now, full } of CASES)
  test(`what is full: ${name}`, () => assert.equal(whatIsFull(tally(-1, -1), now), full))
