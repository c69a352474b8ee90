/** A real browser: Debian's chromium, driven by playwright-core, which brings none of its own. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { type Browser, chromium, type Page } from 'playwright-core'
import { findProgram } from '../../src/lib/find-program.ts'

export const CHROMIUM = await findProgram('chromium')
/** For tests: why they can't run. */
export const skipWithoutBrowser = CHROMIUM ? false : 'chromium is not installed (Debian: chromium)'

/** It speaks to the page that it is shown, and to nobody else. */
const FLAGS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
]

export function startBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: CHROMIUM!, args: FLAGS })
}

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

/** axe-core finds nothing serious. Its other findings are returned. */
export async function assertAccessible(page: Page, where: string): Promise<string[]> {
  // As a debugger does it: the page's own policy would not let it in.
  await page.evaluate(AXE)
  const findings = (await page.evaluate('axe.run()')) as {
    violations: { id: string; impact: string; help: string; nodes: { html: string }[] }[]
  }
  const told = findings.violations.map(
    ({ id, impact, help, nodes }) =>
      `${impact}: ${id}: ${help}\n    ${nodes.map(({ html }) => html).join('\n    ')}`,
  )
  const serious = told.filter((_, i) => ['serious', 'critical'].includes(findings.violations[i]!.impact))
  assert.deepEqual(serious, [], where)
  return told
}
