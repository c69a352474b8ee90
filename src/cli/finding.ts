/** How people read what `upserv doctor` found. */
import { showText } from '../lib/bytes.ts'
import type { Finding } from '../lib/finding.ts'
import { paint } from './text.ts'

const COLOURS = { ok: 'green', warning: 'yellow', problem: 'red' } as const
const VERDICT_WIDTH = 'problem'.length

/** A line for each, and one below it for what to do. */
export function formatFindings(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ about }) => about.length))
  return findings
    .flatMap(({ verdict, about, says, hint }) => [
      `${paint(COLOURS[verdict], verdict.padEnd(VERDICT_WIDTH))}  ${about.padEnd(width)}  ${showText(says)}`,
      ...(hint === undefined
        ? []
        : [`${' '.repeat(VERDICT_WIDTH + width + 4)}${paint('cyan', showText(hint))}`]),
    ])
    .join('\n')
}
