import assert from 'node:assert/strict'
import { test } from 'node:test'
import { barPlot, linePlot } from './plot.ts'

const numbers = (text: string, pattern: RegExp): number[] =>
  [...text.matchAll(pattern)].flatMap(([, ...found]) => found.map(Number))

test('a logarithmic line: equal factors are equal distances, and a 0 is left out', () => {
  const svg = linePlot({
    ...{ title: 'a < b', xLabel: 'clients', yLabel: 'CPU', logX: true, logY: true },
    series: [
      {
        name: 'one',
        points: [
          [1, 0.1],
          [10, 1],
          [100, 10],
          [1000, 0],
        ],
      },
    ],
  })
  const [x1, y1, x2, y2, x3, y3, ...rest] = numbers(svg, /<circle cx="([\d.]+)" cy="([\d.]+)"/g)
  assert.deepEqual(rest, [])
  assert.ok(Math.abs(x2! - x1! - (x3! - x2!)) < 0.3)
  assert.ok(Math.abs(y1! - y2! - (y2! - y3!)) < 0.3 && y1! > y2!)
  assert.match(svg, /<title>a &lt; b<\/title>/)
})

test('bars are as high as their values', () => {
  const svg = barPlot({
    ...{ title: 't', yLabel: 'MB', names: ['p', 'q'] },
    groups: [
      { label: 'x', values: [10, 5] },
      { label: 'y', values: [0, 20] },
    ],
  })
  const [a, b, c, d] = numbers(svg, /<rect [^>]*height="([\d.]+)" fill="[^"]*"><title>/g)
  assert.equal(a, b! * 2)
  assert.equal(d, a! * 2)
  assert.equal(c, 0)
})

test('nothing to draw is still a picture', () => {
  assert.match(linePlot({ title: 't', xLabel: '', yLabel: '', series: [] }), /^<svg .*<\/svg>\n$/s)
  assert.match(barPlot({ title: 't', yLabel: '', names: [], groups: [] }), /^<svg .*<\/svg>\n$/s)
})
