import assert from 'node:assert/strict'
import { test } from 'node:test'
import { figures, fitPower, quantile, ratioText, spread, spreadText } from './numbers.ts'

test('spread and quantiles', () => {
  assert.deepEqual(spread([3, 1, 2, 10]), { median: 2.5, least: 1, greatest: 10 })
  assert.equal(quantile([5], 0.99), 5)
  assert.equal(quantile([0, 100], 0.99), 99)
  assert.ok(Number.isNaN(quantile([], 0.5)))
})

const FITS = [
  {
    name: 'flat',
    points: [
      [1, 5],
      [10, 5],
      [100, 5],
    ],
    exponent: 0,
    factor: 5,
    r2: 1,
  },
  {
    name: 'linear',
    points: [
      [1, 2],
      [10, 20],
      [1000, 2000],
    ],
    exponent: 1,
    factor: 2,
    r2: 1,
  },
  {
    name: 'square root',
    points: [
      [1, 3],
      [4, 6],
      [100, 30],
    ],
    exponent: 0.5,
    factor: 3,
    r2: 1,
  },
  {
    name: 'zeros left out',
    points: [
      [0, 1],
      [1, 2],
      [10, 20],
      [20, 0],
    ],
    exponent: 1,
    factor: 2,
    r2: 1,
  },
] as const
for (const { name, points, ...expected } of FITS) {
  test(`fit: ${name}`, () => {
    const fit = fitPower(points)!
    for (const key of ['exponent', 'factor', 'r2'] as const)
      assert.ok(Math.abs(fit[key] - expected[key]) < 1e-9, `${key} is ${fit[key]}`)
  })
}

test('fit: scattered points explain less, one place nothing', () => {
  const fit = fitPower([
    [1, 1],
    [2, 8],
    [4, 1],
    [8, 8],
  ])!
  assert.ok(fit.r2 < 0.5)
  assert.equal(
    fitPower([
      [3, 1],
      [3, 2],
    ]),
    undefined,
  )
  assert.equal(fitPower([]), undefined)
})

test('as text', () => {
  assert.deepEqual([0, 0.00012345, 0.0123, 0.9, 1.234, 12.34, 1234.5].map(figures), [
    ...['0', '0.000123', '0.0123', '0.900', '1.23', '12.3', '1235'],
  ])
  assert.equal(spreadText(spread([1, 2, 3])), '2.00 (1.00-3.00)')
  assert.equal(spreadText(spread([2])), '2.00')
  assert.deepEqual([1 / 12, 0.5, 0.9, 2].map(ratioText), ['1/12.0', '1/2.00', '0.900', '2.00'])
})
