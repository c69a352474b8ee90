/** Builds on their way here, those that came last, and the wish for another one. */
import { ask, isOperator } from '../api.js'
import { confirm, explain, reasonOf } from '../dialog.js'
import { find, keep, make, progressBar, say } from '../dom.js'
import { ago, duration, number, size } from '../format.js'
import { t } from '../texts.js'

const SHOWN_ENDS = 3
const PAGE = 10
/** Those that ended before, once they were asked for. */
let earlier

export function showFetches({ activity, recentFetches, now }) {
  const { fetches } = activity.status
  keep(find('fetches'), fetches, ({ id }) => id, create, update)
  say(find('fetches-count'), fetches.length > 0 ? number(fetches.length) : '')
  find('fetches-empty').hidden = fetches.length > 0
  keep(
    find('fetch-ends'),
    earlier ? earlier.records : recentFetches.slice(0, SHOWN_ENDS),
    ({ id, began }) => `${id} ${began}`,
    createEnd,
    (item, end) => updateEnd(item, end, now),
  )
  const isAll = earlier ? earlier.next === null : recentFetches.length === 0
  find('fetches-older').hidden = !isOperator() || isAll
  const problem = find('fetches-problem')
  problem.hidden = !earlier?.problem
  say(problem, earlier?.problem ?? '')
}

/** What was asked for is shown no more. */
export function forgetFetches() {
  earlier = undefined
}

export function startFetches(state, show) {
  find('fetches-older').addEventListener('click', () => void look(show))
  find('fetches-forget').addEventListener('click', () => {
    confirm({
      title: t('forgetFetchesTitle'),
      lines: [t('forgetFetchesAll'), t('forgetFetchesText')],
      action: t('forget'),
      danger: true,
      run: async () => {
        const { deleted } = await ask('DELETE', '/history/fetches')
        state.recentFetches = []
        earlier = undefined
        show()
        return t('fetchesForgotten', { count: deleted })
      },
    })
  })
  find('fetch-form').addEventListener('submit', (event) => {
    event.preventDefault()
    const input = find('fetch-id')
    const id = input.value.trim()
    confirm({
      title: t('fetchTitle', { id }),
      lines: [t('fetchText')],
      action: t('fetch'),
      run: async () => {
        const { held } = await ask('POST', '/fetches', { id })
        input.value = ''
        return t(held ? 'isHeld' : 'fetchBegun', { id })
      },
    })
  })
  // Asking the sources takes a while: only for who is about to choose.
  find('fetch-id').addEventListener('focus', () => void suggest(state), { once: true })
}

async function look(show) {
  earlier ??= { records: [], next: null }
  const query = new URLSearchParams({ limit: String(PAGE) })
  if (earlier.next) query.set('cursor', earlier.next)
  try {
    const { items, next } = await ask('GET', `/history/fetches?${query}`)
    earlier.records.push(...items)
    earlier.next = next
    earlier.problem = undefined
  } catch (problem) {
    earlier.problem = explain(problem)
  }
  show()
}

async function suggest(state) {
  try {
    const { items } = await ask('GET', '/available?limit=1000')
    const held = new Set(state.builds.map(({ id }) => id))
    find('available').replaceChildren(
      ...items
        .filter(({ id }) => !held.has(id))
        .map(({ id, source }) => make('option', { value: id }, source)),
    )
  } catch {
    // It can be typed as well.
  }
}

function create({ id }) {
  const item = make('li', { class: 'item', 'data-fetch': id })
  item.what = make('span', { class: 'who' })
  item.waiting = make('span', { class: 'muted' })
  item.bar = progressBar('')
  item.step = make('span')
  item.left = make('span', { class: 'muted' })
  item.append(
    make('div', { class: 'line' }, item.what, item.waiting),
    item.bar,
    make('div', { class: 'line' }, item.step, item.left),
  )
  return item
}

function update(item, { id, source, step, receivedBytes, totalBytes, bytesPerSecond, secondsLeft, waiting }) {
  say(item.what, t('fetchFrom', { id, source }))
  say(item.waiting, waiting > 0 ? t('waiting', { count: waiting }) : '')
  const share = totalBytes > 0 ? receivedBytes / totalBytes : null
  item.bar.show(step === 'downloading' ? share : null, t('progressOf', { who: id }))
  const parts = [t(`step_${step}`)]
  if (receivedBytes > 0)
    parts.push(
      totalBytes ? t('ofBytes', { done: size(receivedBytes), all: size(totalBytes) }) : size(receivedBytes),
    )
  if (share !== null && step === 'downloading') parts.push(`${Math.floor(share * 100)} %`)
  say(item.step, parts.join(' · '))
  const rate = bytesPerSecond > 0 && step === 'downloading' ? `${size(bytesPerSecond)}/s` : ''
  const left = secondsLeft === null ? '' : t('left', { time: duration(secondsLeft) })
  say(item.left, [rate, left].filter(Boolean).join(' · '))
}

function createEnd({ outcome }) {
  const item = make('li', { class: 'item' })
  item.mark = make('span', { class: `mark ${outcome}`, 'data-icon': ICONS[outcome] }, t(`fetch_${outcome}`))
  item.text = make('span')
  item.append(make('div', { class: 'line' }, make('span', {}, item.mark, ' ', item.text)))
  return item
}

function updateEnd(item, end, now) {
  const { id, source, receivedBytes, outcome, ended } = end
  const more = outcome === 'done' ? size(receivedBytes) : reasonOf(end)
  say(item.text, `${t('fetchFrom', { id, source })} · ${ago(ended, now)} · ${more}`)
}

const ICONS = { done: '✓', failed: '✗', stopped: '■' }
