/** The pages for operators, as the Debian package installs them: all in one directory, where their links lead somewhere. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** `[label](target#anchor)` */
export const LINK = /\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)/g

/** Where each page lies here, and what it is called there. */
const PAGES = new Map([
  ['README.md', 'README.md'],
  ...[
    'quick-start.md',
    'operations.md',
    'configuration.md',
    'updating-devices.md',
    'migrating.md',
    'contents-format.md',
  ].map((name): [string, string] => [`docs/${name}`, name]),
])

/** The text of each page, by its name in the documentation's directory. */
export function shippedDocs(): Map<string, string> {
  return new Map(
    [...PAGES].map(([path, name]) => [name, relinked(path, readFileSync(join(ROOT, path), 'utf8'))]),
  )
}

/** The names in examples/, which is installed beside the pages. */
export function shippedExamples(): string[] {
  return readdirSync(join(ROOT, 'examples'))
}

/** What is not installed is only named. */
function relinked(path: string, text: string): string {
  return text.replaceAll(LINK, (whole, label: string, target: string, anchor = '') => {
    if (target === '' || target.includes(':')) return whole
    const meant = posix.join(dirname(path), target)
    const there = PAGES.get(meant) ?? (/^examples\/./.test(meant) ? meant : undefined)
    return there === undefined ? label : `[${label}](${there}${anchor})`
  })
}
