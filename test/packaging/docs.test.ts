/** The pages that the Debian package installs: every link leads to something that is installed as well. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { LINK, shippedDocs, shippedExamples } from '../../script/lib/shipped-docs.ts'

const readme = readFileSync(fileURLToPath(new URL('../../README.md', import.meta.url)), 'utf8')

test('links of installed pages lead to installed pages, and to headings that they have', () => {
  const pages = shippedDocs()
  const names = new Set([...pages.keys(), ...shippedExamples().map((name) => `examples/${name}`)])
  let followed = 0
  for (const [page, text] of pages) {
    for (const [link, , target = '', anchor] of text.matchAll(LINK)) {
      if (target.includes(':')) continue
      assert.ok(target === '' || names.has(target), `${page}: ${link} leads nowhere`)
      const there = pages.get(target || page)
      if (anchor && there) assert.ok(anchorsOf(there).has(anchor), `${page}: ${link}: no such heading`)
      followed++
    }
  }
  assert.ok(followed > 20, `${followed}`)
  // Links of another form would go unseen.
  for (const [page, text] of pages) assert.doesNotMatch(text, /^\[[^\]]+\]: |<a /m, page)
})

test('what is linked to in the checkout is what the pages speak of when they are installed', () => {
  for (const name of ['quick-start.md', 'updating-devices.md', 'migrating.md']) {
    assert.ok(readme.includes(`](docs/${name})`), name)
    assert.ok(shippedDocs().get('README.md')!.includes(`](${name})`), name)
  }
})

test('README leads to every page', () => {
  const pages = readdirSync(fileURLToPath(new URL('../../docs', import.meta.url))).filter((name) =>
    name.endsWith('.md'),
  )
  assert.ok(pages.length > 10)
  for (const name of [...pages, 'adr/']) assert.ok(readme.includes(`](docs/${name})`), name)
})

/** As GitHub makes them of headings. */
function anchorsOf(text: string): Set<string> {
  return new Set(
    [...text.matchAll(/^#+ (.+)$/gm)].map(
      ([, heading]) =>
        `#${heading!
          .toLowerCase()
          .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
          .replaceAll(' ', '-')}`,
    ),
  )
}
