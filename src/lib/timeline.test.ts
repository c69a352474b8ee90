import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Timeline } from './timeline.ts'

const DAY = 86_400
const T = 1_000_000 * 60

test('figures are added up by slot, and slots to points', () => {
  const timeline = new Timeline(2, T)
  timeline.add(T, [1, 10])
  timeline.add(T + 9, [2, 20])
  timeline.add(T + 10, [4, 40])
  timeline.add(T + 60, [8, 80])
  assert.deepEqual(timeline.read(T + 60, 7, 1), {
    startS: T,
    points: [
      [3, 30],
      [4, 40],
      [0, 0],
      [0, 0],
      [0, 0],
      [0, 0],
      [8, 80],
    ],
  })
  assert.deepEqual(timeline.read(T + 60, 2, 6), {
    startS: T,
    points: [
      [7, 70],
      [8, 80],
    ],
  })
})

test('what is older than a day is gone, and nothing else', () => {
  const timeline = new Timeline(1, T)
  timeline.add(T, [1])
  timeline.add(T + DAY - 10, [2])
  const sum = (nowS: number): number =>
    timeline.read(nowS, 8640, 1).points.reduce((all, [one]) => all + one!, 0)
  assert.equal(sum(T + DAY - 10), 3)
  assert.equal(sum(T + DAY), 2)
  assert.equal(sum(T + 2 * DAY - 20), 2)
  assert.equal(sum(T + 3 * DAY), 0)
  timeline.add(T + 10 * DAY, [5])
  assert.equal(sum(T + 10 * DAY), 5)
})

test('a clock that goes back adds to the latest slot', () => {
  const timeline = new Timeline(1, T)
  timeline.add(T + 100, [1])
  timeline.add(T, [1])
  assert.deepEqual(timeline.read(T + 100, 1, 1).points, [[2]])
  assert.deepEqual(timeline.read(T, 1, 1).points, [[2]])
})
