/** Man pages from Markdown: the few things that our pages and docs/ use, as man(7) has them. Pure. */
import { marked, type Token, type Tokens } from 'marked'

export interface PageTitle {
  name: string
  section: number
  /** YYYY-MM-DD */
  date: string
  version: string
}

export function manPage(markdown: string, { name, section, date, version }: PageTitle): string {
  const title = `.TH ${quoted(name.toUpperCase())} ${section} ${quoted(date)} ${quoted(`upserv ${version}`)}`
  return `${[title, '.nh', '.ad l', ...marked.lexer(markdown).flatMap(block)].join('\n')}\n`
}

function block(token: Token): string[] {
  switch (token.type) {
    case 'heading': {
      const { depth, tokens } = token as Tokens.Heading
      const macro = depth === 1 ? '.SH' : '.SS'
      return [`${macro} ${quoted(depth === 1 ? plain(tokens).toUpperCase() : plain(tokens))}`]
    }
    case 'paragraph':
      return ['.PP', text((token as Tokens.Paragraph).tokens)]
    case 'text':
      return [text((token as Tokens.Text).tokens ?? [token])]
    case 'code':
      return ['.PP', '.RS 4', '.EX', ...(token as Tokens.Code).text.split('\n').map(verbatim), '.EE', '.RE']
    case 'list':
      return (token as Tokens.List).items.flatMap((item, index) => [
        `.IP ${(token as Tokens.List).ordered ? `${index + 1}.` : '\\(bu'} 4`,
        ...item.tokens.flatMap(block).filter((line) => line !== '.PP'),
      ])
    case 'table':
      return (token as Tokens.Table).rows.flatMap((row) => tagged(row, (token as Tokens.Table).header))
    case 'space':
    case 'html': // comments
      return []
    default:
      throw new Error(`no man page can hold a ${token.type}: ${token.raw}`)
  }
}

/** A row of a table as a paragraph with a tag. A middle column is told by its head. */
function tagged(row: Tokens.TableCell[], header: Tokens.TableCell[]): string[] {
  const [tag, ...rest] = row
  const last = rest.pop()
  const middle = rest.flatMap((cell, index) =>
    cell.text === '' ? [] : [`${header[index + 1]!.text}: ${text(cell.tokens)}.`],
  )
  return ['.TP', text(tag!.tokens), [...middle, last ? text(last.tokens) : ''].filter(Boolean).join('\n')]
}

/** Lines of running text with fonts. */
function text(tokens: readonly Token[]): string {
  return tokens
    .map(inline)
    .join('')
    .split('\n')
    .map((line) => guarded(line.trim()))
    .join('\n')
}

function inline(token: Token): string {
  switch (token.type) {
    case 'strong':
      return `\\fB${(token as Tokens.Strong).tokens.map(inline).join('')}\\fR`
    case 'em':
      return `\\fI${(token as Tokens.Em).tokens.map(inline).join('')}\\fR`
    case 'codespan':
      return `\\fB${escaped(token.text as string)}\\fR`
    case 'link': {
      const { href, tokens } = token as Tokens.Link
      const shown = tokens.map(inline).join('')
      return /^https?:/.test(href) && !shown.includes(escaped(href)) ? `${shown} (${escaped(href)})` : shown
    }
    case 'br':
      return '\n'
    case 'text':
    case 'escape':
      return escaped(unentity(token.text as string))
    default:
      throw new Error(`no man page can hold a ${token.type} in a line: ${token.raw}`)
  }
}

function plain(tokens: readonly Token[]): string {
  return tokens.map((token) => token.raw.replaceAll('`', '')).join('')
}

function escaped(line: string): string {
  return line.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll("'", '\\(aq').replaceAll('`', '\\(ga')
}

function unentity(line: string): string {
  return line
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&#39;', "'")
    .replaceAll('&amp;', '&')
}

/** A line of text must not be taken for a request. */
function guarded(line: string): string {
  return /^[.']/.test(line) ? `\\&${line}` : line
}

function verbatim(line: string): string {
  return guarded(escaped(line))
}

function quoted(word: string): string {
  return `"${word.replaceAll('\\', '\\e').replaceAll('"', '\\(dq')}"`
}
