/** Transfers over time: what went over the wire, before what that brought up to date. */
import { find, make, say } from '../dom.js'
import { clock, size } from '../format.js'
import { t } from '../texts.js'

const SVG = 'http://www.w3.org/2000/svg'
const WIDTH = 1000
const HEIGHT = 100
/** Points that are drawn: more cannot be told apart. */
const DRAWN = 120
/** Lines of the table. */
const TOLD = 12

export function showPlot({ timeline }) {
  const place = find('plot')
  place.made ??= prepare(place)
  const { svg, y, x, summary, rows } = place.made
  const points = gather(timeline, DRAWN)
  const most = niceCeiling(Math.max(...points.map(({ asked, sent }) => Math.max(asked, sent))))
  svg.querySelector('.asked').setAttribute(
    'd',
    area(points, ({ asked }) => asked / most),
  )
  svg.querySelector('.sent').setAttribute(
    'd',
    area(points, ({ sent }) => sent / most),
  )
  for (const [i, label] of y.entries())
    say(label, most > 1 || i === 0 ? `${size((most * i) / (y.length - 1))}/s` : '')
  const first = points[0].at
  const last = points.at(-1).end
  for (const [i, label] of x.entries())
    say(label, clock(new Date(first + ((last - first) * i) / (x.length - 1))))
  const sum = (key) => timeline.points.reduce((all, point) => all + point[key], 0)
  const [sent, asked, sessions] = [sum('bytesOut'), sum('askedBytes'), sum('sessions')]
  const said = t('plotSummary', { sent: size(sent), asked: size(asked), count: sessions })
  say(summary, said)
  svg.setAttribute('aria-label', said)
  rows.replaceChildren(
    ...gather(timeline, TOLD).map(({ at, asked, sent, sessions }) =>
      make(
        'tr',
        {},
        make('th', { scope: 'row' }, clock(new Date(at))),
        make('td', {}, `${size(sent)}/s`),
        make('td', {}, `${size(asked)}/s`),
        make('td', {}, String(sessions)),
      ),
    ),
  )
}

/** Puts neighbours together until there are no more than `most`. */
function gather({ start, stepSeconds, points }, most) {
  const per = Math.max(1, Math.ceil(points.length / most))
  const gathered = []
  for (let i = 0; i < points.length; i += per) {
    const some = points.slice(i, i + per)
    const seconds = some.length * stepSeconds
    const at = Date.parse(start) + i * stepSeconds * 1000
    const sum = (key) => some.reduce((all, point) => all + point[key], 0)
    gathered.push({
      at,
      end: at + seconds * 1000,
      sent: Math.max(0, sum('bytesOut')) / seconds,
      asked: Math.max(0, sum('askedBytes')) / seconds,
      sessions: sum('sessions'),
    })
  }
  return gathered
}

/** As steps: each point stands for a stretch of time. */
function area(points, shareOf) {
  const step = WIDTH / points.length
  const corners = points.flatMap((point, i) => {
    const y = (HEIGHT * (1 - shareOf(point))).toFixed(2)
    return [`L${(i * step).toFixed(2)} ${y}`, `L${((i + 1) * step).toFixed(2)} ${y}`]
  })
  return `M0 ${HEIGHT} ${corners.join(' ')} L${WIDTH} ${HEIGHT} Z`
}

/** 1, 2 or 5 times a power of ten. */
function niceCeiling(value) {
  if (value <= 1) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map((factor) => factor * power).find((nice) => nice >= value)
}

function prepare(place) {
  const svg = document.createElementNS(SVG, 'svg')
  svg.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`)
  svg.setAttribute('preserveAspectRatio', 'none')
  svg.setAttribute('role', 'img')
  const draw = (tag, attributes) => {
    const element = document.createElementNS(SVG, tag)
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
    svg.append(element)
  }
  for (const line of [0, HEIGHT / 2, HEIGHT])
    draw('line', { class: 'grid', x1: 0, x2: WIDTH, y1: line, y2: line })
  draw('path', { class: 'asked' })
  draw('path', { class: 'sent' })
  const axis = (name, share, property) => {
    const label = make('span', { class: `axis ${name}`, 'aria-hidden': 'true' })
    label.style[property] = `${share * 100}%`
    return label
  }
  const y = [1, 0.5, 0].map((share) => axis('y', share, 'top'))
  const x = [0, 0.25, 0.5, 0.75, 1].map((share) => axis('x', share, 'left'))
  const summary = make('p', { class: 'muted' })
  const rows = make('tbody')
  const heads = ['time', 'share_sent', 'share_asked', 'sessionsEnded'].map((key) =>
    make('th', { scope: 'col' }, t(key)),
  )
  const table = make('table', { class: 'numbers' }, make('thead', {}, make('tr', {}, ...heads)), rows)
  const legend = make(
    'ul',
    { class: 'legend' },
    make('li', {}, make('span', { class: 'swatch sent' }), make('span', {}, t('share_sent'))),
    make('li', {}, make('span', { class: 'swatch asked' }), make('span', {}, t('share_asked'))),
  )
  place.append(
    legend,
    make('div', { class: 'plot' }, svg, ...y, ...x),
    summary,
    make('details', {}, make('summary', {}, t('asNumbers')), table),
  )
  return { svg, y, x, summary, rows }
}
