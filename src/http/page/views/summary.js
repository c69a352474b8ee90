/** At a glance: a few numbers, and above them what is wrong. */
import { find, keep, make, say } from '../dom.js'
import { number, percent, size } from '../format.js'
import { t } from '../texts.js'

export function showSummary({ activity }) {
  const { status, totals, sessions } = activity
  const asked = totals.matchedBytes + totals.literalBytes
  const saved = asked > 0 ? Math.max(0, 1 - totals.bytesOut / asked) : 0
  const worked = totals.searched + totals.prepared
  const answers = worked + totals.reused
  const transferring = sessions.filter(({ state }) => state === 'transfer').length
  const tiles = [
    {
      id: 'used',
      value: percent(status.usedBytes / status.budgetBytes),
      note: t('usedNote', {
        used: size(status.usedBytes),
        budget: size(status.budgetBytes),
        count: status.builds,
      }),
    },
    {
      id: 'connected',
      value: number(status.sessions),
      note: t('connectedNote', { transferring: number(transferring), inLine: number(status.inLine) }),
    },
    {
      id: 'saved',
      value: asked > 0 ? percent(saved) : '–',
      note:
        asked > 0 ? t('savedNote', { sent: size(totals.bytesOut), asked: size(asked) }) : t('savedNothing'),
    },
    {
      id: 'answers',
      value: answers > 0 ? percent(totals.reused / answers) : '–',
      note: t('answersNote', {
        worked: number(worked),
        reused: number(totals.reused),
        searched: number(totals.searched),
        count: totals.searched,
      }),
    },
  ]
  keep(find('summary'), tiles, ({ id }) => id, create, update)
  document.title = status.sessions > 0 ? `(${status.sessions}) upserv` : 'upserv'
}

function create({ id }) {
  const tile = make('div', { class: 'tile', 'data-tile': id })
  tile.value = make('span', { class: 'value' })
  tile.note = make('span', { class: 'note' })
  tile.append(make('span', { class: 'label' }, t(`tile_${id}`)), tile.value, tile.note)
  return tile
}

function update(tile, { value, note }) {
  say(tile.value, value)
  say(tile.note, note)
}

export function showAlerts({ activity, live }) {
  const { status } = activity
  const alerts = []
  if (!live) alerts.push({ id: 'stale', bad: false, title: t('alertStale'), text: t('alertStaleText') })
  if (status.damaged.length > 0) {
    alerts.push({
      id: 'damaged',
      bad: true,
      title: t('alertDamaged', { ids: status.damaged.join(', '), count: status.damaged.length }),
      text: t('alertDamagedText'),
    })
  }
  if (status.listening.length + status.tlsListening.length === 0)
    alerts.push({ id: 'deaf', bad: true, title: t('alertDeaf'), text: t('alertDeafText') })
  if (status.usedBytes > status.budgetBytes)
    alerts.push({ id: 'over', bad: false, title: t('alertOver'), text: t('alertOverText') })
  keep(
    find('alerts'),
    alerts,
    ({ id }) => id,
    ({ bad }) => {
      const alert = make('div', { class: bad ? 'alert bad' : 'alert' }, make('strong'), make('span'))
      return alert
    },
    (alert, { title, text }) => {
      say(alert.firstChild, title)
      say(alert.lastChild, text)
    },
  )
}
