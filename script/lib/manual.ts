/**
 * `node script/lib/manual.ts DIRECTORY`: writes man/ and completions/ there.
 *
 * One source for each fact: commands and options are the program's own (src/cli/main.ts), configuration keys
 * and exit codes are those of docs/. The pages in man/*.md say where they go.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { bashCompletion, fishCompletion, zshCompletion } from '../../src/cli/completion.ts'
import { createProgram } from '../../src/cli/main.ts'
import { VERSION } from '../../src/version.ts'
import { manPage } from './roff.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

/** Every page by its file name, such as "upserv.1". @param date YYYY-MM-DD, of the version. */
export function manPages(date: string, version = VERSION): Map<string, string> {
  const sources = readdirSync(join(ROOT, 'man')).filter((name) => name.endsWith('.md'))
  return new Map(
    sources.sort().map((source) => {
      const [, file, name, section] = /^((.+)\.(\d))\.md$/.exec(source)!
      const markdown = expand(read(`man/${source}`))
      return [file!, manPage(markdown, { name: name!, section: Number(section), date, version })]
    }),
  )
}

/** By the path below `completions/`. */
export function completions(): Map<string, string> {
  const program = createProgram()
  return new Map([
    ['bash/upserv', bashCompletion(program)],
    ['zsh/_upserv', zshCompletion(program)],
    ['fish/upserv.fish', fishCompletion(program)],
  ])
}

/** Puts in what `<!-- commands -->`, `<!-- section HEADING of FILE -->` and the like name. */
function expand(page: string): string {
  return page
    .replaceAll('<!-- commands -->', () => commandsText(createProgram()))
    .replaceAll(/<!-- options of (\S+) -->/g, (_, name: string) => {
      return optionsText(createProgram().commands.find((command) => command.name() === name)!)
    })
    .replaceAll(/<!-- section (.+) of (\S+) -->/g, (_, heading: string, path: string) =>
      section(read(path), heading),
    )
    .replaceAll(/<!-- document (\S+) -->/g, (_, path: string) => read(path).replace(/^# .*\n/, ''))
    .replaceAll(/<!-- output of (\S+) (.+) -->/g, (_, program: string, args: string) =>
      execFileSync(join(ROOT, program), args.split(' '), { encoding: 'utf8' }).trimEnd(),
    )
    .replaceAll(/<!-- file (\S+) -->/g, (_, path: string) => `\`\`\`\n${read(path).trimEnd()}\n\`\`\``)
}

/** What stands below one heading of the second level. */
function section(markdown: string, heading: string): string {
  const found = markdown.split(/^## /m).find((part) => part.startsWith(`${heading}\n`))
  if (found === undefined) throw new Error(`there is no section "${heading}"`)
  return found.slice(heading.length)
}

function commandsText(program: Command): string {
  return program.commands
    .map((command) => {
      const words = command.registeredArguments.map((argument) =>
        argument.required ? argument.name() : `[${argument.name()}]`,
      )
      const usage = ['upserv', command.name(), '[options]', ...words.map((word) => `*${word}*`)]
      return `## ${command.name()}\n\n${usage.join(' ')}\n\n${sentence(command.description())}\n\n${optionsText(command)}`
    })
    .join('\n')
}

function optionsText(command: Command): string {
  const options = command.createHelp().visibleOptions(command)
  const words = command.registeredArguments.filter(({ description }) => description !== '')
  const rows = [
    ...words.map((word) => `| *${word.name()}* | ${sentence(word.description)} |`),
    ...options.map(({ flags, description, defaultValue }) => {
      const otherwise = defaultValue === undefined ? '' : ` Default: \`${defaultValue}\`.`
      return `| \`${flags}\` | ${sentence(description)}${otherwise} |`
    }),
  ]
  return `| option | meaning |\n|---|---|\n${rows.join('\n')}\n`
}

function sentence(text: string): string {
  const escaped = text.replaceAll(/[[\]*|]/g, '\\$&')
  return `${escaped[0]!.toUpperCase()}${escaped.slice(1)}${escaped.endsWith('.') ? '' : '.'}`
}

if (import.meta.main) {
  const [directory, date = '1970-01-01'] = process.argv.slice(2)
  if (!directory) throw new Error('Usage: node script/lib/manual.ts DIRECTORY [DATE]')
  const write = (path: string, text: string): void => {
    mkdirSync(join(directory, path, '..'), { recursive: true })
    writeFileSync(join(directory, path), text)
  }
  for (const [name, text] of manPages(date)) write(`man/${name}`, text)
  for (const [name, text] of completions()) write(`completions/${name}`, text)
}
