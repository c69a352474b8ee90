/** What commands print: tables, colours on a terminal, bars. */
import { styleText } from 'node:util'
import { showJson, showText } from '../lib/bytes.ts'

type Colour = Parameters<typeof styleText>[0]

/** In a colour, where stdout is a terminal and NO_COLOR is not set. */
export function paint(colour: Colour, text: string): string {
  return styleText(colour, text, { stream: process.stdout })
}

/** Columns as wide as they need to be. Cells are plain text: what others wrote in one must not drive a terminal. */
export function formatTable(table: readonly (readonly string[])[]): string {
  const rows = table.map((row) => row.map(showText))
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** "[######....]", `share` of it full. */
export function formatBar(share: number, width: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width)
  return `[${'#'.repeat(full)}${'.'.repeat(width - full)}]`
}

export function shortTime(iso: string): string {
  return iso.slice(0, 16).replace('T', ' ')
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** What a command was called with. */
export interface ForPrograms {
  json?: boolean
}

/** What was done: one object for programs, and for people lines, if there is anything to say. */
export function printDone({ json = false }: ForPrograms, done: object, ...lines: string[]): void {
  if (json) print(showJson(done))
  else for (const line of lines) print(line)
}
