/** Sessions that have ended: the latest as they come, and on request those before, each with why it went so. */
import { ask, isOperator } from '../api.js'
import { confirm, explain, reasonOf } from '../dialog.js'
import { attribute, find, keep, make, say } from '../dom.js'
import { ago, dateTime, duration, number, percent, size } from '../format.js'
import { knows, t } from '../texts.js'
import { asksFor, deviceOf } from './clients.js'

const PAGE = 25
const SHOWN = 10
/** What is asked for instead of the latest; undefined for those. */
let asked

export function startSessions(state, show) {
  find('filter').addEventListener('submit', (event) => {
    event.preventDefault()
    const entries = [...new FormData(event.target)].filter(([, value]) => value !== '').map(byAddressOrName)
    asked = entries.length > 0 ? { query: entries, records: [], next: null } : undefined
    void look(state, show)
  })
  find('older').addEventListener('click', () => {
    asked ??= { query: [], records: [], next: null }
    void look(state, show)
  })
  find('forget').addEventListener('click', () => {
    const query = asked?.query ?? []
    confirm({
      title: t('forgetTitle'),
      lines: [query.length > 0 ? t('forgetSome') : t('forgetAll'), t('forgetText')],
      action: t('forget'),
      danger: true,
      run: async () => {
        const { deleted } = await ask('DELETE', `/history?${new URLSearchParams(query)}`)
        state.recent = (await ask('GET', '/activity')).recent
        asked = undefined
        find('filter').reset()
        show()
        return t('forgotten', { count: deleted })
      },
    })
  })
}

/** What was asked for is shown no more. */
export function forgetSessions() {
  asked = undefined
  find('filter').reset()
}

const ADDRESS = /^(?:[\d.]+|[\da-f.]*:[\da-f:.]*)$/i

/** One field is for both: a device is known by where it comes from, or by what its certificate calls it. */
function byAddressOrName([name, value]) {
  return name === 'address' && !ADDRESS.test(value) ? ['device', value] : [name, value]
}

async function look(_state, show) {
  if (asked) {
    const mine = asked
    const query = new URLSearchParams(mine.query)
    query.set('limit', String(PAGE))
    if (mine.next) query.set('cursor', mine.next)
    try {
      const { items, next } = await ask('GET', `/history?${query}`)
      mine.records.push(...items)
      mine.next = next
      mine.problem = undefined
    } catch (problem) {
      mine.problem = explain(problem)
    }
  }
  show()
}

export function showSessions({ recent, now }) {
  // Listings, and who never said what it wanted, are no sessions to a person.
  const records = asked ? asked.records : recent.filter(({ module }) => module !== '').slice(0, SHOWN)
  keep(
    find('sessions'),
    records,
    ({ id }) => id,
    create,
    (item, record) => update(item, record, now),
  )
  const empty = find('sessions-empty')
  empty.hidden = records.length > 0
  say(empty, asked?.problem ?? t(asked ? 'noSuchSessions' : 'noSessions'))
  find('older').hidden = !isOperator() || (asked ? asked.next === null : records.length === 0)
  const query = new URLSearchParams(asked?.query ?? [])
  for (const link of document.querySelectorAll('a[data-filtered]')) {
    const [path] = link.getAttribute('href').split('?')
    attribute(link, 'href', query.size > 0 ? `${path}?${query}` : path)
  }
}

function create(record) {
  const item = make('li', { class: 'item', 'data-record': String(record.id) })
  item.mark = make('span', { class: `mark ${record.outcome}`, 'data-icon': ICONS[record.outcome] })
  item.who = make('span', { class: 'who' })
  item.what = make('span')
  item.when = make('time', { class: 'muted' })
  item.sent = make('span', { class: 'muted' })
  item.why = make('div', { class: 'why', id: `why-${record.id}` })
  item.why.hidden = true
  item.button = make(
    'button',
    {
      type: 'button',
      class: 'link',
      'aria-expanded': 'false',
      'aria-controls': `why-${record.id}`,
      onclick: () => void toggle(item, record),
    },
    t('why'),
  )
  item.append(
    make('div', { class: 'line' }, make('span', {}, item.mark, ' ', item.who, ' · ', item.what), item.when),
    make('div', { class: 'line' }, item.sent, item.button),
    item.why,
  )
  return item
}

function update(item, record, now) {
  const { outcome, bytesOut, matchedBytes, literalBytes, ended, ms, files, reason } = record
  // Why it went so tells who it was.
  item.button.hidden = !isOperator()
  say(item.mark, t(`outcome_${outcome}`))
  say(item.who, deviceOf(record))
  attribute(item.button, 'aria-label', t('whyOf', { who: deviceOf(record), what: asksFor(record) }))
  say(item.what, asksFor(record))
  say(item.when, ago(ended, now))
  attribute(item.when, 'datetime', ended)
  attribute(item.when, 'title', dateTime(ended))
  const content = matchedBytes + literalBytes
  const parts = [
    t('filesSent', { count: files }),
    content > 0 ? t('sentFor', { sent: size(bytesOut), asked: size(content) }) : size(bytesOut),
    content > bytesOut ? t('savedShare', { share: percent(1 - bytesOut / content) }) : '',
    duration(ms / 1000),
  ]
  const isFine = outcome === 'done' || reason === ''
  say(item.sent, isFine ? parts.filter(Boolean).join(' · ') : reasonOf(record))
}

async function toggle(item, record) {
  const open = item.why.hidden
  item.why.hidden = !open
  attribute(item.button, 'aria-expanded', String(open))
  if (!open || item.why.childElementCount > 0) return
  item.why.replaceChildren(make('p', { class: 'muted' }, t('loading')))
  try {
    const { hints } = await ask('GET', `/sessions/${record.id}`)
    item.why.replaceChildren(...describe(record, hints))
  } catch (problem) {
    item.why.replaceChildren(make('p', { class: 'error' }, explain(problem)))
  }
}

function describe(record, hints) {
  const { entries, files, newFiles, matchedBytes, literalBytes, codec, options, paths, waitedMs } = record
  const answers = {
    searched: number(record.searched),
    prepared: number(record.prepared),
    reused: number(record.reused),
  }
  const facts = [
    ['factAsked', paths === '' ? '–' : paths],
    ['factOptions', options === '' ? '–' : options],
    [
      'factList',
      t('factListText', { entries: number(entries), files: number(files), fresh: number(newFiles) }),
    ],
    ['factContent', t('factContentText', { matched: size(matchedBytes), literal: size(literalBytes) })],
    ['factAnswers', t('factAnswersText', answers)],
    ['factCodec', codec === '' ? '–' : codec],
    [
      'factWaited',
      t('factWaitedText', { build: duration(waitedMs.build / 1000), line: duration(waitedMs.line / 1000) }),
    ],
  ]
  const list = make('dl', { class: 'facts' })
  for (const [key, text] of facts) list.append(make('dt', {}, t(key)), make('dd', {}, text))
  if (record.costliest.length > 0) {
    const names = record.costliest.map(({ name, literalBytes: bytes, had }) =>
      make('li', {}, make('code', {}, name), ` ${size(bytes)} · ${t(`had_${had}`)}`),
    )
    list.append(make('dt', {}, t('factCostliest')), make('dd', {}, make('ul', {}, ...names)))
  }
  return [
    make(
      'ul',
      {},
      ...hints.map((hint) => make('li', { class: 'hint', 'data-hint': hint.code }, hintText(hint))),
    ),
    list,
  ]
}

/** In the page's language; what the server says, where there are no words for it. */
function hintText({ code, text, values }) {
  const key = `hint_${code}`
  if (!knows(key)) return text
  const shown = Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, /Bytes$/.test(name) ? size(value) : value]),
  )
  if ('seconds' in values) shown.time = duration(values.seconds)
  if ('state' in values) shown.state = t(`state_${values.state}`)
  return t(key, shown)
}

const ICONS = { done: '✓', listed: '✓', lost: '⚡', refused: '⊘', 'peer-error': '✗', failed: '✗' }
