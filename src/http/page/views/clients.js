/** Who is connected: what they ask for, how far they are, their place in line. */
import { isOperator } from '../api.js'
import { find, keep, make, progressBar, say } from '../dom.js'
import { ago, number, size } from '../format.js'
import { t } from '../texts.js'

export function showClients({ activity, now }) {
  const { sessions, status } = activity
  // Who transfers first, then the line, then those who are still saying what they want.
  const rank = ({ state, place }) => (place > 0 ? 1e6 + place : state === 'transfer' ? 0 : 2e6)
  const sorted = [...sessions].sort((a, b) => rank(a) - rank(b) || a.id - b.id)
  keep(
    find('clients'),
    sorted,
    ({ id }) => id,
    create,
    (item, session) => update(item, session, now),
  )
  say(find('clients-count'), status.sessions > 0 ? number(status.sessions) : '')
  find('clients-empty').hidden = sessions.length > 0
  const more = find('clients-more')
  more.hidden = status.sessions <= sessions.length
  say(more, t('moreClients', { count: status.sessions - sessions.length }))
}

/** Who it is; only operators are told. */
export function deviceOf({ device, user, address }) {
  if (!isOperator()) return t('someDevice')
  const from = address === '' ? t('unknownAddress') : address
  const names = [device, user].filter((name) => name !== '')
  return names.length === 0 ? from : `${names.join(' · ')} (${from})`
}

export function asksFor({ build, module }) {
  if (build === '') return module === '' ? t('asksNothing') : module
  return module === `build-${build}` ? t('asksBuild', { build }) : t('asksModule', { module, build })
}

function create(session) {
  const item = make('li', { class: 'item', 'data-session': String(session.id) })
  item.who = make('span', { class: 'who' })
  item.what = make('span')
  item.bar = progressBar('')
  item.state = make('span')
  item.sent = make('span', { class: 'muted' })
  item.append(
    make('div', { class: 'line' }, item.who, item.what),
    item.bar,
    make('div', { class: 'line' }, item.state, item.sent),
  )
  return item
}

function update(item, session, now) {
  const { state, place, progress, bytesOut, files, began } = session
  say(item.who, deviceOf(session))
  say(item.what, asksFor(session))
  const share = state === 'transfer' ? (progress ?? 0) : 0
  item.bar.hidden = state !== 'transfer'
  item.bar.show(share, t('progressOf', { who: deviceOf(session) }))
  const doing = place > 0 ? t('inLine', { place: number(place) }) : t(`state_${state}`)
  say(item.state, state === 'transfer' ? `${doing} · ${Math.round(share * 100)} %` : doing)
  say(
    item.sent,
    [files > 0 ? t('filesSent', { count: files }) : '', size(bytesOut), ago(began, now)]
      .filter(Boolean)
      .join(' · '),
  )
}
