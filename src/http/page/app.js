/**
 * The page: state that comes from the server, and views that show it.
 *
 * The first look is asked for; from then on the server tells what happens (events). When the connection breaks the
 * browser tries again by itself, and then everything is asked for anew.
 */
import { ask, isOperator, isVisitor, logout, lookForSession, whenOperatorChanges } from './api.js'
import { confirm, startDialog } from './dialog.js'
import { attribute, find, make, say } from './dom.js'
import { currentLanguage, fillTexts, speak, t } from './texts.js'
import { showBudget } from './views/budget.js'
import { showBuilds, showVerification, startBuilds } from './views/builds.js'
import { showClients } from './views/clients.js'
import { forgetFetches, showFetches, startFetches } from './views/fetches.js'
import { showPlot } from './views/plot.js'
import { forgetSessions, showSessions, startSessions } from './views/sessions.js'
import { showAlerts, showSummary } from './views/summary.js'

const RECENT = 50
/** The plot, and whether there still is a session. */
const LOOK_EVERY_MS = 10_000

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
    find('visitor').hidden = !isVisitor()
    for (const element of document.querySelectorAll('[data-operator]')) element.hidden = !isOperator()
    if (!state.activity) return
    const { status } = state.activity
    say(find('version'), status.version)
    const addresses = [
      ...status.listening.map((address) => `rsync://${address}`),
      ...status.tlsListening.map((address) => `rsync-ssl://${address}`),
    ]
    say(find('place'), `${status.dataDir} · ${addresses.join(' ')}`)
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
    void lookForSession()
      .then(lookAtAll)
      .then(show, () => {})
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

/** Who has logged in, or out, is told other things; and what an operator was told is nobody else's to see. */
function lookAnew() {
  state.recent = []
  state.recentFetches = []
  if (state.activity) state.activity = { ...state.activity, sessions: [] }
  forgetSessions()
  forgetFetches()
  makeAnew(['clients', 'sessions', 'fetch-ends'])
  show()
  watchAgain()
}

function watchAgain() {
  events.close()
  watch()
}

function startLogin() {
  const askForToken = () =>
    confirm({
      title: t('loginTitle'),
      lines: [t('loginText')],
      action: t('login'),
      run: async () => t('loggedIn'),
    })
  find('login').addEventListener('click', () => {
    if (isOperator()) void logout().catch(() => {})
    else askForToken()
  })
  find('visitor-login').addEventListener('click', askForToken)
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

/** What was made for another language, or for somebody else. */
function makeAnew(ids) {
  for (const id of ids) {
    const element = find(id)
    element.replaceChildren()
    element.kept = undefined
    element.made = undefined
  }
}

function startLanguage() {
  const select = find('language')
  select.value = currentLanguage()
  select.addEventListener('change', () => {
    speak(select.value)
    fillTexts()
    makeAnew([
      ...['clients', 'fetches', 'fetch-ends', 'builds', 'sessions'],
      ...['summary', 'budget', 'plot', 'alerts'],
    ])
    show()
  })
}

startSpan()
startLanguage()
startDialog()
startLogin()
startBuilds(state, show)
startFetches(state, show)
startSessions(state, show)
fillTexts()
whenOperatorChanges(lookAnew)
watch()
show()
setInterval(() => {
  void lookAtPlot()
  void lookForSession().catch(() => {})
}, LOOK_EVERY_MS)
