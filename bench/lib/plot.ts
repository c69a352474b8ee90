/** Plots as SVG: lines over a number, bars over names. Colours can be told apart on light and dark pages. */
import { figures } from './numbers.ts'

export interface Series {
  readonly name: string
  readonly points: readonly (readonly [x: number, y: number])[]
  readonly dashed?: boolean
}

export interface LinePlot {
  readonly title: string
  readonly xLabel: string
  readonly yLabel: string
  readonly series: readonly Series[]
  /** Axes with powers of ten; a 0 cannot be drawn on them and is left out. */
  readonly logX?: boolean
  readonly logY?: boolean
}

export interface BarPlot {
  readonly title: string
  readonly yLabel: string
  readonly names: readonly string[]
  readonly groups: readonly { readonly label: string; readonly values: readonly number[] }[]
}

const WIDTH = 760
const HEIGHT = 400
const MARGIN = { left: 70, right: 190, top: 40, bottom: 60 }
const INNER = { width: WIDTH - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom }

/** Okabe and Ito's colours, which those who see fewer colours can tell apart. */
const COLOURS = ['#d55e00', '#0072b2', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#7f7f7f']

/** A grey that shows on white and on black. */
const INK = '#808080'

export function linePlot({ title, xLabel, yLabel, series, logX = false, logY = false }: LinePlot): string {
  const canDraw = ([x, y]: readonly [number, number]): boolean => (!logX || x > 0) && (!logY || y > 0)
  const drawn = series.map((one) => ({ ...one, points: one.points.filter(canDraw) }))
  const all = drawn.flatMap(({ points }) => points)
  const x = axis(
    all.map(([value]) => value),
    logX,
    INNER.width,
  )
  const y = axis(
    all.map(([, value]) => value),
    logY,
    INNER.height,
  )
  const place = ([px, py]: readonly [number, number]): string =>
    `${at(MARGIN.left + x.scale(px))},${at(MARGIN.top + INNER.height - y.scale(py))}`
  const lines = drawn.map(({ name, points, dashed }, index) => {
    const colour = COLOURS[index % COLOURS.length]!
    const dots = points.map((point) => {
      const [cx, cy] = place(point).split(',')
      return `<circle cx="${cx}" cy="${cy}" r="3.5" fill="${colour}"><title>${escapeXml(name)}: ${point.map(figures).join(', ')}</title></circle>`
    })
    const dash = dashed ? ' stroke-dasharray="6 4"' : ''
    const path = `<polyline points="${points.map(place).join(' ')}" fill="none" stroke="${colour}" stroke-width="2"${dash}/>`
    return [path, ...dots].join('\n')
  })
  const xTicks = x.ticks.map((tick) => {
    const left = at(MARGIN.left + x.scale(tick))
    const bottom = MARGIN.top + INNER.height
    return `<line x1="${left}" y1="${MARGIN.top}" x2="${left}" y2="${bottom}" stroke="${INK}" stroke-opacity="0.25"/>${label(Number(left), bottom + 18, shortNumber(tick), 'middle')}`
  })
  return frame(title, xLabel, yLabel, [
    ...xTicks,
    ...yTicks(y),
    ...lines,
    legend(series.map(({ name }) => name)),
  ])
}

export function barPlot({ title, yLabel, names, groups }: BarPlot): string {
  const y = axis([0, ...groups.flatMap(({ values }) => values)], false, INNER.height)
  const step = INNER.width / Math.max(1, groups.length)
  const width = (step * 0.8) / Math.max(1, names.length)
  const bars = groups.flatMap(({ label: name, values }, group) => {
    const left = MARGIN.left + group * step
    const text = label(left + step / 2, MARGIN.top + INNER.height + 18, name, 'middle')
    const drawn = values.map((value, index) => {
      const height = y.scale(value)
      const [barX, barY] = [left + step * 0.1 + index * width, MARGIN.top + INNER.height - height]
      return `<rect x="${at(barX)}" y="${at(barY)}" width="${at(width)}" height="${at(height)}" fill="${COLOURS[index % COLOURS.length]}"><title>${escapeXml(`${names[index]}, ${name}`)}: ${figures(value)}</title></rect>`
    })
    return [text, ...drawn]
  })
  return frame(title, '', yLabel, [...yTicks(y), ...bars, legend(names)])
}

interface Axis {
  readonly ticks: readonly number[]
  /** From a value to its distance from the axis' start. */
  scale(value: number): number
}

function axis(values: readonly number[], isLog: boolean, length: number): Axis {
  const least = values.length > 0 ? Math.min(...values) : 1
  const greatest = values.length > 0 ? Math.max(...values) : 1
  if (isLog) {
    const from = Math.floor(Math.log10(least))
    const to = Math.max(from + 1, Math.ceil(Math.log10(greatest)))
    return {
      ticks: Array.from({ length: to - from + 1 }, (_, index) => 10 ** (from + index)),
      scale: (value) => (length * (Math.log10(value) - from)) / (to - from),
    }
  }
  const step = niceStep(greatest / 5)
  const top = Math.max(step, Math.ceil(greatest / step) * step)
  return {
    ticks: Array.from({ length: Math.round(top / step) + 1 }, (_, index) => index * step),
    scale: (value) => (length * value) / top,
  }
}

/** 1, 2 or 5 times a power of ten: the first that is not below. */
function niceStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least > 0 ? least : 1))
  return ([1, 2, 5].find((factor) => factor * power >= least) ?? 10) * power
}

function yTicks(y: Axis): string[] {
  return y.ticks.map((tick) => {
    const top = at(MARGIN.top + INNER.height - y.scale(tick))
    return `<line x1="${MARGIN.left}" y1="${top}" x2="${MARGIN.left + INNER.width}" y2="${top}" stroke="${INK}" stroke-opacity="0.25"/>${label(MARGIN.left - 8, Number(top) + 4, shortNumber(tick), 'end')}`
  })
}

function legend(names: readonly string[]): string {
  return names
    .map((name, index) => {
      const top = MARGIN.top + 8 + index * 20
      const left = MARGIN.left + INNER.width + 14
      return `<rect x="${left}" y="${top - 9}" width="12" height="12" fill="${COLOURS[index % COLOURS.length]}"/>${label(left + 18, top + 2, name, 'start')}`
    })
    .join('\n')
}

function frame(title: string, xLabel: string, yLabel: string, body: readonly string[]): string {
  const middle = MARGIN.top + INNER.height / 2
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<title>${escapeXml(title)}</title>`,
    `<text x="${MARGIN.left}" y="22" font-size="15" fill="${INK}">${escapeXml(title)}</text>`,
    label(MARGIN.left + INNER.width / 2, HEIGHT - 18, xLabel, 'middle'),
    `<text transform="translate(18 ${middle}) rotate(-90)" text-anchor="middle" fill="${INK}">${escapeXml(yLabel)}</text>`,
    ...body,
    '</svg>',
    '',
  ].join('\n')
}

function label(x: number, y: number, text: string, anchor: 'start' | 'middle' | 'end'): string {
  return `<text x="${at(x)}" y="${at(y)}" text-anchor="${anchor}" fill="${INK}">${escapeXml(text)}</text>`
}

/** 500000 as 500k: there is little room below a tick. */
function shortNumber(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`
  if (value >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`
  return String(Number(value.toPrecision(3)))
}

function at(value: number): string {
  return String(Number(value.toFixed(1)))
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}
