/** The budget as a picture: what takes it, and what is free. */
import { find, keep, make, say } from '../dom.js'
import { percent, size } from '../format.js'
import { t } from '../texts.js'

export function showBudget({ activity, builds }) {
  const { budgetBytes, usedBytes, usage } = activity.status
  const own = builds.filter(({ sticky }) => !sticky)
  const pinned = builds.filter(({ sticky }) => sticky)
  const sum = (some) => some.reduce((bytes, { storedBytes }) => bytes + storedBytes, 0)
  const shares = [
    { id: 'pinned', bytes: sum(pinned) },
    { id: 'own', bytes: sum(own) },
    { id: 'shared', bytes: Math.max(0, usage.builds - sum(builds)) },
    { id: 'derived', bytes: usage.cache },
    { id: 'other', bytes: usage.downloads + usage.history + usage.other },
    { id: 'free', bytes: Math.max(0, budgetBytes - usedBytes) },
  ]
  const place = find('budget')
  place.made ??= prepare(place)
  const { stack, legend } = place.made
  const whole = Math.max(budgetBytes, usedBytes)
  const seen = shares.filter(({ bytes }) => bytes > 0)
  keep(
    stack,
    seen,
    ({ id }) => id,
    ({ id }) => make('span', { class: id }),
    (part, { bytes }) => {
      part.style.width = `${(100 * bytes) / whole}%`
    },
  )
  const told = seen.map(({ id, bytes }) => `${t(`share_${id}`)}: ${size(bytes)}`)
  stack.setAttribute('aria-label', t('budgetPicture', { budget: size(budgetBytes), shares: told.join('; ') }))
  keep(
    legend,
    seen,
    ({ id }) => id,
    ({ id }) => make('li', { 'data-share': id }, make('span', { class: `swatch ${id}` }), make('span')),
    (item, { id, bytes }) =>
      say(item.lastChild, `${t(`share_${id}`)} ${size(bytes)} (${percent(bytes / whole)})`),
  )
}

function prepare(place) {
  const stack = make('div', { class: 'stack', role: 'img' })
  const legend = make('ul', { class: 'legend' })
  place.classList.add('items')
  place.append(stack, legend)
  return { stack, legend }
}
