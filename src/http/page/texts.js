/** Which language the page speaks, and what it says in it. A language is a file in texts/ with the same keys. */
import en from './texts/en.js'
import es from './texts/es.js'

const LANGUAGES = { en, es }
const KEPT = 'upserv.language'

let language = choose()

function choose() {
  const asked = new URLSearchParams(location.search).get('lang')
  const wishes = [asked, kept(), ...navigator.languages.map((tag) => tag.split('-')[0]), 'en']
  return wishes.find((wish) => wish in LANGUAGES)
}

/** Null where a browser keeps nothing. */
function kept() {
  try {
    return localStorage.getItem(KEPT)
  } catch {
    return null
  }
}

export function currentLanguage() {
  return language
}

export function speak(other) {
  language = other
  try {
    localStorage.setItem(KEPT, other)
  } catch {
    // It holds for as long as the page is open.
  }
}

/**
 * What stands under a key, with `{name}` filled in. Forms for one and for many are told apart by `count`.
 * A key that there is none of is shown as it is: a bug that one can see.
 */
export function t(key, values = {}) {
  const found = LANGUAGES[language][key] ?? LANGUAGES.en[key] ?? key
  const text =
    typeof found === 'string'
      ? found
      : (found[new Intl.PluralRules(language).select(values.count)] ?? found.other)
  return text.replaceAll(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole))
}

export function knows(key) {
  return key in LANGUAGES.en
}

/** Fills in all that stands in the page as it was sent. */
export function fillTexts(root = document) {
  document.documentElement.lang = language
  for (const element of root.querySelectorAll('[data-text]')) element.textContent = t(element.dataset.text)
  for (const element of root.querySelectorAll('[data-label]'))
    if (!element.closest('td')) element.setAttribute('aria-label', t(element.dataset.label))
}
