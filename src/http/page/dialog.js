/** Asks whether something should really be done, and for the token if it is not known yet. */
import { ask, hasToken, setToken } from './api.js'
import { find, make, say } from './dom.js'
import { currentLanguage, knows, t } from './texts.js'

let work
let opener

export function startDialog() {
  const dialog = find('dialog')
  find('dialog-cancel').addEventListener('click', () => dialog.close())
  dialog.addEventListener('close', () => {
    find('token').value = ''
    opener?.focus()
  })
  find('dialog-form').addEventListener('submit', (event) => {
    event.preventDefault()
    void carryOut()
  })
}

/**
 * @param title what would be done, as a question.
 * @param lines what follows of it: texts and elements.
 * @param action what the button says.
 * @param run does it, and says in a sentence what came of it.
 */
export function confirm({ title, lines = [], action, danger = false, run }) {
  work = run
  opener = document.activeElement
  const dialog = find('dialog')
  say(find('dialog-title'), title)
  find('dialog-text').replaceChildren(
    ...lines.map((line) => (typeof line === 'string' ? make('p', {}, line) : line)),
  )
  say(find('dialog-ok'), action)
  find('dialog-ok').classList.toggle('danger', danger)
  find('dialog-token').hidden = hasToken()
  find('token').required = !hasToken()
  find('dialog-error').hidden = true
  dialog.showModal()
  ;(hasToken() ? find('dialog-cancel') : find('token')).focus()
}

async function carryOut() {
  if (!hasToken()) setToken(find('token').value)
  const button = find('dialog-ok')
  button.disabled = true
  try {
    const outcome = await work(ask)
    find('dialog').close()
    if (outcome) say(find('said'), outcome)
  } catch (problem) {
    find('dialog-token').hidden = hasToken()
    find('token').required = !hasToken()
    const error = find('dialog-error')
    say(error, explain(problem))
    error.hidden = false
    if (!hasToken()) find('token').focus()
  } finally {
    button.disabled = false
  }
}

/** Why something failed: the server's own words, which are English; in another language those that it has for it. */
export function reasonOf({ code, reason }) {
  const key = `problem_${code}`
  return currentLanguage() !== 'en' && knows(key) ? t(key) : reason
}

/** In the page's language where it has words for it; what the server said, otherwise. */
export function explain(problem) {
  const key = `problem_${problem.code}`
  if (problem.code && knows(key))
    return problem.code === 'TOKEN_MISSING' ? t(key) : `${t(key)} (${problem.message})`
  return [problem.message, problem.hint].filter(Boolean).join(' ')
}
