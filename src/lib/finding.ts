/** What a check of `upserv doctor` found. */
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
