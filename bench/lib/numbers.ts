/** Statistics of small samples, and how they are written. */

export interface Spread {
  median: number
  least: number
  greatest: number
}

export function spread(values: readonly number[]): Spread {
  return { median: quantile(values, 0.5), least: Math.min(...values), greatest: Math.max(...values) }
}

/** Linear between the two nearest values. NaN of no values. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const place = (sorted.length - 1) * part
  const below = sorted[Math.floor(place)]
  const above = sorted[Math.ceil(place)]
  if (below === undefined || above === undefined) return Number.NaN
  return below + (above - below) * (place - Math.floor(place))
}

/** y = factor * x ^ exponent, and how much of the spread of log y that explains (1 is all). */
export interface PowerFit {
  exponent: number
  factor: number
  r2: number
}

/** Least squares over logarithms: an exponent of 0 is flat, 1 is linear. Points with a 0 are left out. */
export function fitPower(points: readonly (readonly [x: number, y: number])[]): PowerFit | undefined {
  const logs = points.filter(([x, y]) => x > 0 && y > 0).map(([x, y]) => [Math.log(x), Math.log(y)] as const)
  const meanX = mean(logs.map(([x]) => x))
  const meanY = mean(logs.map(([, y]) => y))
  let xx = 0
  let xy = 0
  let yy = 0
  for (const [x, y] of logs) {
    xx += (x - meanX) ** 2
    xy += (x - meanX) * (y - meanY)
    yy += (y - meanY) ** 2
  }
  if (xx === 0 || logs.length < 2) return undefined // one place on the x axis says nothing
  const exponent = xy / xx
  return { exponent, factor: Math.exp(meanY - exponent * meanX), r2: yy === 0 ? 1 : xy ** 2 / (xx * yy) }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

/** Three figures, without an exponent: 0.0123, 1.23, 123, 1234. */
export function figures(value: number): string {
  if (!Number.isFinite(value)) return '-'
  if (value === 0) return '0'
  const digits = Math.min(6, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value)))))
  return value.toFixed(digits)
}

/** "0.91 (0.81-0.93)"; alone when there is nothing to spread. */
export function spreadText({ median, least, greatest }: Spread): string {
  return least === greatest ? figures(median) : `${figures(median)} (${figures(least)}-${figures(greatest)})`
}

/** A ratio below 1 as people say it: 0.08 is 1/12. */
export function ratioText(ratio: number): string {
  if (!Number.isFinite(ratio)) return '-'
  return ratio > 0 && ratio < 0.67 ? `1/${figures(1 / ratio)}` : figures(ratio)
}
