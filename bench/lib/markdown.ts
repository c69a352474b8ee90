/** Tables, and the parts of a page that a program writes, between two comments that name the program. */

/** A table whose columns line up in the source as well. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((name, column) =>
    Math.max(3, name.length, ...rows.map((row) => (row[column] ?? '').length)),
  )
  const line = (cells: readonly string[]): string =>
    `| ${widths.map((width, column) => (cells[column] ?? '').padEnd(width)).join(' | ')} |`
  const rule = `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`
  return [line(header), rule, ...rows.map(line), ''].join('\n')
}

/** @returns the page with the part of that name replaced, or at its end when it had none. */
export function replacePart(page: string, name: string, body: string): string {
  const [begin, end] = [`<!-- ${name}: begin -->`, `<!-- ${name}: end -->`]
  const part = `${begin}\n\n${body.trim()}\n\n${end}`
  const from = page.indexOf(begin)
  if (from < 0) return `${page.trimEnd()}\n\n${part}\n`
  const to = page.indexOf(end, from)
  if (to < 0) throw new Error(`the page has "${begin}" without its end`)
  return page.slice(0, from) + part + page.slice(to + end.length)
}
