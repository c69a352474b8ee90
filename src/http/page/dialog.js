/** Asks whether something should really be done, and for the token of who has not logged in yet. */
import { ask, isOperator, login } from './api.js'
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
  showToken()
  find('dialog-error').hidden = true
  dialog.showModal()
  ;(isOperator() ? find('dialog-cancel') : find('token')).focus()
}

function showToken() {
  find('dialog-token').hidden = isOperator()
  find('token').required = !isOperator()
}

async function carryOut() {
  const button = find('dialog-ok')
  button.disabled = true
  try {
    if (!isOperator()) await login(find('token').value)
    const outcome = await work(ask)
    find('dialog').close()
    if (outcome) say(find('said'), outcome)
  } catch (problem) {
    showToken()
    const error = find('dialog-error')
    say(error, explain(problem))
    error.hidden = false
    if (!isOperator()) find('token').focus()
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
  if (problem.code === 'TOKEN_MISSING' && problem.method === 'GET') return t('loginNeeded')
  if (problem.code && knows(key))
    return problem.code === 'TOKEN_MISSING' ? t(key) : `${t(key)} (${problem.message})`
  return [problem.message, problem.hint].filter(Boolean).join(' ')
}
