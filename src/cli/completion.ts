/** `upserv completion SHELL`: a script for bash, zsh or fish, made of the commands and options that there are. */
import type { Command } from 'commander'
import { ConfigError } from '../errors.ts'
import { print } from './text.ts'

export function completionCommand(program: Command, shell: string): void {
  const commands = program.commands.map((command) => ({
    name: command.name(),
    says: command.description(),
    options: command.options.flatMap(({ long, description }) => (long ? [{ long, says: description }] : [])),
    takesBuild: command.registeredArguments.some((argument) => argument.name() === 'id'),
  }))
  if (shell === 'bash') print(bashScript(commands))
  else if (shell === 'zsh') print(`autoload -U +X bashcompinit && bashcompinit\n${bashScript(commands)}`)
  else if (shell === 'fish') print(fishScript(commands))
  else
    throw new ConfigError(`there is no completion for "${shell}"`, {
      hint: 'There is one for bash, zsh and fish.',
    })
}

interface Shown {
  name: string
  says: string
  options: { long: string; says: string }[]
  takesBuild: boolean
}

/** Ids of builds come from the server that runs, if there is one. */
const IDS = `upserv list --json 2>/dev/null | sed -n 's/^ *"id": "\\([^"]*\\)".*/\\1/p'`

function bashScript(commands: readonly Shown[]): string {
  const cases = commands.map(({ name, options, takesBuild }) => {
    const words = ['--help', ...options.map(({ long }) => long)].join(' ')
    return `    ${name}) words="${words}${takesBuild ? ` $(${IDS})` : ''}" ;;`
  })
  return [
    '# upserv: completion. In ~/.bashrc: eval "$(upserv completion bash)"',
    '_upserv() {',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the shell's own
    '  local words current="${COMP_WORDS[COMP_CWORD]}"',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the shell's own
    '  case "${COMP_CWORD}:${COMP_WORDS[1]}" in',
    `    1:*) words="--help --version ${commands.map(({ name }) => name).join(' ')}" ;;`,
    ...cases.map((line) => line.replace(/^ {4}(\S+)\)/, '    *:$1)')),
    '    *) words="" ;;',
    '  esac',
    '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
    '}',
    'complete -o default -F _upserv upserv',
  ].join('\n')
}

function fishScript(commands: readonly Shown[]): string {
  const quote = (text: string): string => `'${text.replaceAll("'", "\\'")}'`
  return [
    '# upserv: completion. In ~/.config/fish/completions/upserv.fish',
    ...commands.flatMap(({ name, says, options, takesBuild }) => [
      `complete -c upserv -n __fish_use_subcommand -a ${name} -d ${quote(says)}`,
      ...options.map(
        ({ long, says: what }) =>
          `complete -c upserv -n '__fish_seen_subcommand_from ${name}' -l ${long.slice(2)} -d ${quote(what)}`,
      ),
      ...(takesBuild
        ? [`complete -c upserv -n '__fish_seen_subcommand_from ${name}' -a '(${IDS.replaceAll("'", "\\'")})'`]
        : []),
    ]),
  ].join('\n')
}
