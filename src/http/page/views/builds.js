/** The builds that are held: what each takes, whence it came, and what can be done with it. */
import { ask } from '../api.js'
import { confirm } from '../dialog.js'
import { attribute, find, keep, make, progressBar, say } from '../dom.js'
import { ago, dateTime, number, percent, size } from '../format.js'
import { t } from '../texts.js'

export function startBuilds(state, show) {
  find('verify').addEventListener('click', () => askVerify(null))
  find('gc').addEventListener('click', () => void askGc())
  find('builds').changed = async () => {
    // What was changed here is shown at once.
    state.builds = (await ask('GET', '/builds?limit=1000')).items
    show()
  }
}

export function showBuilds({ activity, builds, now }) {
  const { budgetBytes } = activity.status
  keep(
    find('builds'),
    builds,
    ({ id }) => id,
    create,
    (row, build) => update(row, build, budgetBytes, now),
  )
  say(find('builds-count'), builds.length > 0 ? number(builds.length) : '')
  find('builds-empty').hidden = builds.length > 0
}

function create({ id }) {
  const row = make('tr', { role: 'row', 'data-build': id })
  const cell = (key, kind, ...children) =>
    make('td', { role: 'cell', 'data-label': t(key), ...(kind ? { class: kind } : {}) }, ...children)
  row.tags = make('span')
  row.size = make('span')
  row.frees = make('span')
  row.bar = progressBar('')
  row.accessed = make('time')
  row.source = make('a')
  row.checked = make('small', { class: 'muted' })
  row.sticky = make('button', {
    type: 'button',
    class: 'switch',
    role: 'switch',
    onclick: () => askPin(row.build),
  })
  const verify = make('button', { type: 'button', onclick: () => askVerify(id) }, t('verify'))
  const remove = make('button', { type: 'button', onclick: () => askRemove(row.build) }, t('remove'))
  attribute(verify, 'aria-label', t('verifyBuild', { id }))
  attribute(remove, 'aria-label', t('removeBuild', { id }))
  row.append(
    make(
      'th',
      { role: 'rowheader', scope: 'row' },
      make('a', { href: `/builds/${encodeURIComponent(id)}/root/` }, id),
      row.tags,
    ),
    cell('size', 'number', row.size),
    cell('frees', 'frees', make('div', {}, row.frees, row.bar)),
    cell('accessed', '', row.accessed),
    cell('source', '', make('div', {}, row.source, make('br'), row.checked)),
    cell('sticky', '', row.sticky),
    cell('actions', 'buttons', verify, ' ', remove),
  )
  return row
}

function update(row, build, budgetBytes, now) {
  row.build = build
  const { id, bytes, files, storedBytes, sticky, inUse, accessed, channels, damaged } = build
  const { source, url, vouchers, checkedBy } = build
  const tags = [
    ...channels.map((text) => ({ text, kind: '' })),
    ...(inUse ? [{ text: t('inUse'), kind: '' }] : []),
    ...(damaged === null ? [] : [{ text: t('damaged'), kind: 'bad' }]),
  ]
  const shown = JSON.stringify(tags)
  if (row.shown !== shown) {
    row.shown = shown
    row.tags.replaceChildren(...tags.map(({ text, kind }) => make('span', { class: `tag ${kind}` }, text)))
  }
  attribute(row, 'title', damaged ?? undefined)
  say(row.size, size(bytes))
  attribute(row.size, 'title', t('filesCount', { count: files }))
  const share = storedBytes / budgetBytes
  say(row.frees, `${size(storedBytes)} (${percent(share)})`)
  row.bar.show(share, t('shareOfBudget', { id }))
  say(row.accessed, ago(accessed, now))
  attribute(row.accessed, 'datetime', accessed)
  attribute(row.accessed, 'title', dateTime(accessed))
  say(row.source, source)
  attribute(row.source, 'title', url)
  attribute(row.source, 'href', /^https?:/.test(url) ? url : undefined)
  say(row.checked, checkedBy ? t('checkedBy', { kinds: checkedBy }) : t('checkedByNobody'))
  attribute(row.checked, 'title', vouchers.join('\n') || undefined)
  attribute(row.sticky, 'aria-checked', String(sticky))
  attribute(row.sticky, 'aria-label', t('stickyBuild', { id }))
}

function askPin({ id, sticky }) {
  confirm({
    title: t(sticky ? 'unpinTitle' : 'pinTitle', { id }),
    lines: [t(sticky ? 'unpinText' : 'pinText')],
    action: t(sticky ? 'unpin' : 'pin'),
    run: async () => {
      await ask(sticky ? 'DELETE' : 'PUT', `/builds/${encodeURIComponent(id)}/sticky`)
      await find('builds').changed()
      return t(sticky ? 'unpinned' : 'pinned', { id })
    },
  })
}

function askRemove({ id, storedBytes }) {
  confirm({
    title: t('removeTitle', { id }),
    lines: [t('removeText', { size: size(storedBytes) })],
    action: t('remove'),
    danger: true,
    run: async () => {
      await ask('DELETE', `/builds/${encodeURIComponent(id)}`)
      await find('builds').changed()
      find('main').focus()
      return t('removed', { id })
    },
  })
}

function askVerify(id) {
  const repair = make('input', { type: 'checkbox', id: 'repair' })
  confirm({
    title: id === null ? t('verifyAllTitle') : t('verifyTitle', { id }),
    lines: [t('verifyText'), make('p', {}, repair, ' ', make('label', { for: 'repair' }, t('repair')))],
    action: t('verify'),
    run: async () => {
      await ask('POST', '/verification', { id, repair: repair.checked })
      return t('verifyBegun')
    },
  })
}

/** What would go is asked before anything goes. That takes the token as well, as it is work. */
async function askGc() {
  const plan = make('div', {}, make('p', {}, t('gcText')))
  confirm({
    title: t('gcTitle'),
    lines: [plan],
    action: t('gcLook'),
    run: async () => {
      const report = await ask('POST', '/gc', { dryRun: true, explain: true })
      setTimeout(() => confirmGc(report))
    },
  })
}

function confirmGc({ evicted, spare, freedBytes, builds }) {
  const stays = builds.filter(({ goes }) => !goes)
  confirm({
    title: t('gcTitle'),
    lines: [
      t('gcPlan', { size: size(freedBytes), count: evicted.length }),
      make(
        'ul',
        {},
        ...evicted.map((id) => make('li', {}, t('gcGoes', { id }))),
        ...spare.map(({ name, bytes }) => make('li', {}, `${name}: ${size(bytes)}`)),
      ),
      t('gcStays', { count: stays.length }),
    ],
    action: t('gc'),
    danger: evicted.length > 0,
    run: async () => {
      const { freedBytes: freed, evicted: gone } = await ask('POST', '/gc', { dryRun: false, explain: false })
      await find('builds').changed()
      return t('gcDone', { size: size(freed), count: gone.length })
    },
  })
}

/** The verification under way, or what the last one found. */
export function showVerification({ activity: { verification } }) {
  const place = find('verification')
  place.hidden = verification === null
  if (verification === null) return
  place.made ??= prepareVerification(place)
  const { bar, text, stop } = place.made
  const { running, bytes, totalBytes, rottenBlobs, report, failure, id } = verification
  const what = id === null ? t('allBuilds') : t('asksBuild', { build: id })
  bar.hidden = !running
  stop.hidden = !running
  bar.show(totalBytes > 0 ? bytes / totalBytes : null, t('verifying', { what }))
  if (running) {
    const parts = [t('verifying', { what }), t('ofBytes', { done: size(bytes), all: size(totalBytes) })]
    if (rottenBlobs > 0) parts.push(t('rotten', { count: rottenBlobs }))
    say(text, parts.join(' · '))
  } else if (report) {
    const damaged = report.damaged.filter(({ repaired }) => !repaired)
    const found = damaged.length > 0 ? t('foundDamaged', { count: damaged.length }) : t('foundNothing')
    say(text, `${t('verified', { what, size: size(report.bytes) })} ${found}`)
  } else {
    say(text, `${t('verifyFailed', { what })} ${failure ?? ''}`)
  }
}

function prepareVerification(place) {
  const bar = progressBar('')
  const text = make('span')
  const stop = make(
    'button',
    {
      type: 'button',
      onclick: () =>
        confirm({
          title: t('stopVerifyTitle'),
          action: t('stop'),
          run: async () => void (await ask('DELETE', '/verification')),
        }),
    },
    t('stop'),
  )
  place.classList.add('item')
  place.append(make('div', { class: 'line' }, text, stop), bar)
  return { bar, text, stop }
}
