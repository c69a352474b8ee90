/** What a check of `upserv doctor` found, and how people read it. */
import { paint } from './text.ts'

export interface Finding {
  readonly verdict: 'ok' | 'warning' | 'problem'
  /** What was looked at, in a word or two. */
  readonly about: string
  readonly says: string
  /** What to type, or to do. */
  readonly hint?: string
}

export const ok = (about: string, says: string): Finding => ({ verdict: 'ok', about, says })
export const warning = (about: string, says: string, hint: string): Finding => ({
  verdict: 'warning',
  about,
  says,
  hint,
})
export const problem = (about: string, says: string, hint: string): Finding => ({
  verdict: 'problem',
  about,
  says,
  hint,
})

const COLOURS = { ok: 'green', warning: 'yellow', problem: 'red' } as const
const VERDICT_WIDTH = 'problem'.length

/** A line for each, and one below it for what to do. */
export function formatFindings(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ about }) => about.length))
  return findings
    .flatMap(({ verdict, about, says, hint }) => [
      `${paint(COLOURS[verdict], verdict.padEnd(VERDICT_WIDTH))}  ${about.padEnd(width)}  ${says}`,
      ...(hint === undefined ? [] : [`${' '.repeat(VERDICT_WIDTH + width + 4)}${paint('cyan', hint)}`]),
    ])
    .join('\n')
}
