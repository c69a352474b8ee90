/** Which code ran in a process that was started with NODE_V8_COVERAGE: percent and lines for each file. */
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))

export interface Covered {
  /** Below the folder that was asked for. */
  file: string
  /** Of the characters that are neither space nor in comments. */
  percent: number
  /** Lines of which something never ran, as "12" or "12-15". */
  missing: string[]
}

interface Range {
  startOffset: number
  endOffset: number
  count: number
}

/** @param folder of the sources, from the root of the repository. */
export function coverageOf(reports: string, folder: string): Covered[] {
  const ran = new Map<string, Uint8Array>()
  for (const report of globSync(join(reports, '*.json'))) {
    const { result } = JSON.parse(readFileSync(report, 'utf8')) as {
      result: { url: string; functions: { ranges: Range[] }[] }[]
    }
    for (const { url, functions } of result) {
      const path = url.startsWith('file:') ? fileURLToPath(url) : ''
      if (!path.startsWith(join(ROOT, folder)) || path.endsWith('.test.ts')) continue
      // Types are blanked out in what runs, so that places are those of the file.
      const here = new Uint8Array(readFileSync(path, 'utf8').length)
      const ranges = functions.flatMap((one) => one.ranges)
      // What encloses comes before what it encloses.
      ranges.sort((a, b) => a.startOffset - b.startOffset || b.endOffset - a.endOffset)
      for (const { startOffset, endOffset, count } of ranges) {
        here.fill(count > 0 ? 1 : 0, startOffset, endOffset)
      }
      const before = ran.get(path)
      ran.set(path, before ? before.map((was, i) => was | here[i]!) : here)
    }
  }
  return [...ran]
    .map(([path, marks]) => measure(path.slice(join(ROOT, folder).length), readFileSync(path, 'utf8'), marks))
    .sort((a, b) => (a.file < b.file ? -1 : 1))
}

function measure(file: string, source: string, ran: Uint8Array): Covered {
  const code = source.replaceAll(/\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*/g, (comment) =>
    comment.replaceAll(/\S/g, ' '),
  )
  let total = 0
  let reached = 0
  const lines: number[] = []
  let line = 1
  for (let i = 0; i < code.length; i++) {
    if (code[i] === '\n') line++
    if (!/[\w$]/.test(code[i]!)) continue
    total++
    if (ran[i] === 1) reached++
    else if (lines.at(-1) !== line) lines.push(line)
  }
  return { file, percent: total === 0 ? 100 : (100 * reached) / total, missing: runsOf(lines) }
}

function runsOf(lines: readonly number[]): string[] {
  const runs: [number, number][] = []
  for (const line of lines) {
    const last = runs.at(-1)
    if (last && line === last[1] + 1) last[1] = line
    else runs.push([line, line])
  }
  return runs.map(([from, to]) => (from === to ? String(from) : `${from}-${to}`))
}
