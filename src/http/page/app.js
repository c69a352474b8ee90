/**
 * The page: state that comes from the server, and views that show it.
 *
 * The first look is asked for; from then on the server tells what happens (events). When the connection breaks the
 * browser tries again by itself, and then everything is asked for anew.
 */
import { ask, isOperator, logout, lookForSession } from './api.js'
import { confirm, startDialog } from './dialog.js'
import { attribute, find, make, say } from './dom.js'
import { currentLanguage, fillTexts, speak, t } from './texts.js'
import { showBudget } from './views/budget.js'
import { showBuilds, showVerification, startBuilds } from './views/builds.js'
import { showClients } from './views/clients.js'
import { showFetches, startFetches } from './views/fetches.js'
import { showPlot } from './views/plot.js'
import { showSessions, startSessions } from './views/sessions.js'
import { showAlerts, showSummary } from './views/summary.js'

const RECENT = 50
const PLOT_EVERY_MS = 10_000

const state = {
  activity: undefined,
  builds: [],
  recent: [],
  recentFetches: [],
  timeline: undefined,
  span: 'hour',
  live: false,
  /** The server's clock, in ms: devices' own are often wrong. */
  now: Date.now(),
}
let waiting = false
let events

/** Shows what has changed, once for all changes of a moment. */
function show() {
  if (waiting) return
  waiting = true
  requestAnimationFrame(() => {
    waiting = false
    find('connection').classList.toggle('live', state.live)
    say(find('connection-text'), t(state.live ? 'live' : 'reconnecting'))
    say(find('login'), t(isOperator() ? 'logout' : 'login'))
    if (!state.activity) return
    const { status } = state.activity
    say(find('version'), status.version)
    say(
      find('place'),
      `${status.dataDir} · ${status.listening.map((address) => `rsync://${address}`).join(' ')}`,
    )
    showAlerts(state)
    showSummary(state)
    showBudget(state)
    showClients(state)
    showFetches(state)
    showBuilds(state)
    showVerification(state)
    showSessions(state)
    if (state.timeline) showPlot(state)
  })
}

async function lookAtPlot() {
  try {
    state.timeline = await ask('GET', `/timeline?span=${state.span}`)
    show()
  } catch {
    // The connection is shown as broken already.
  }
}

/** Everything that events don't tell. */
async function lookAtAll() {
  const activity = await ask('GET', '/activity')
  hear(activity)
  state.recent = activity.recent
  state.recentFetches = activity.recentFetches
  await lookAtPlot()
}

function hear(activity) {
  state.activity = activity
  state.now = Date.parse(activity.at)
}

function watch() {
  events = new EventSource('/api/v1/events')
  const on = (name, use) =>
    events.addEventListener(name, ({ data }) => {
      use(JSON.parse(data))
      show()
    })
  events.addEventListener('open', () => {
    state.live = true
    void lookAtAll().then(show, () => {})
  })
  events.addEventListener('error', () => {
    state.live = false
    show()
    // A server that said no is not asked again by the browser.
    if (events.readyState === EventSource.CLOSED) setTimeout(watchAgain, 5000)
  })
  on('activity', hear)
  on('builds', (builds) => {
    state.builds = builds
  })
  on('session', (record) => {
    if (!state.recent.some(({ id }) => id === record.id))
      state.recent = [record, ...state.recent].slice(0, RECENT)
  })
  on('fetch', (end) => {
    state.recentFetches = [end, ...state.recentFetches].slice(0, RECENT)
    say(find('said'), t(`said_fetch_${end.outcome}`, { id: end.id }))
  })
}

/** From the beginning: who has logged in, or out, is told other things. */
function watchAgain() {
  events.close()
  watch()
}

function startLogin() {
  find('login').addEventListener('click', () => {
    if (isOperator()) {
      void logout()
        .catch(() => {})
        .finally(watchAgain)
      return
    }
    confirm({
      title: t('loginTitle'),
      lines: [t('loginText')],
      action: t('login'),
      run: async () => t('loggedIn'),
    })
  })
}

function startSpan() {
  const buttons = ['hour', 'day'].map((span) =>
    make('button', {
      type: 'button',
      'data-text': span,
      'data-span': span,
      onclick: () => {
        state.span = span
        press()
        void lookAtPlot()
      },
    }),
  )
  const press = () => {
    for (const button of buttons)
      attribute(button, 'aria-pressed', String(button.dataset.span === state.span))
  }
  find('span').append(...buttons)
  press()
}

function startLanguage() {
  const select = find('language')
  select.value = currentLanguage()
  select.addEventListener('change', () => {
    speak(select.value)
    fillTexts()
    // What was made in the other language is made anew.
    for (const id of [
      'clients',
      'fetches',
      'fetch-ends',
      'builds',
      'sessions',
      'summary',
      'budget',
      'plot',
      'alerts',
    ]) {
      const element = find(id)
      element.replaceChildren()
      element.kept = undefined
      element.made = undefined
    }
    show()
  })
}

startSpan()
startLanguage()
startDialog(watchAgain)
startLogin()
startBuilds(state, show)
startFetches(state, show)
startSessions(state, show)
fillTexts()
void lookForSession().then(show, () => {})
watch()
show()
setInterval(() => void lookAtPlot(), PLOT_EVERY_MS)
