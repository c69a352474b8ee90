/**
 * `upserv completion SHELL`: a script for bash, zsh or fish, made of the commands and options that there are.
 * What packages install is the same.
 */
import type { Argument, Command, Option } from 'commander'
import { UsageError } from '../errors.ts'

/** By the name of the shell. */
const SCRIPTS: Record<string, (program: Command) => string> = {
  bash: bashCompletion,
  zsh: zshCompletion,
  fish: fishCompletion,
}

export function completionCommand(program: Command, shell: string): void {
  const script = Object.hasOwn(SCRIPTS, shell) ? SCRIPTS[shell] : undefined
  if (!script) {
    throw new UsageError(`there is no completion for "${shell}"`, {
      hint: 'There is one for bash, zsh and fish.',
    })
  }
  process.stdout.write(script(program))
}

/** What completes a value, by the name of its placeholder. */
function kindOf(placeholder: string): 'files' | 'directories' | 'builds' | 'free' {
  const name = placeholder.replaceAll(/[<>[\]]/g, '')
  if (name === 'file') return 'files'
  if (name === 'dir') return 'directories'
  return name === 'id' ? 'builds' : 'free'
}

const placeholderOf = (option: Option): string | undefined => /[<[].*$/.exec(option.flags)?.[0]
const shown = (command: Command): readonly Command[] => command.commands
const optionsOf = (command: Command): readonly Option[] => command.createHelp().visibleOptions(command)
const argumentsOf = (command: Command): readonly Argument[] => command.registeredArguments
const longs = (command: Command): string[] => optionsOf(command).flatMap(({ long }) => long ?? [])

/** The ids of held builds, one a line; nothing where the user may not ask. */
const BUILDS = "upserv list 2>/dev/null | sed -n '2,$s/ .*//p'"

export function bashCompletion(program: Command): string {
  const values = (commands: readonly Command[], kind: string): string[] => [
    ...new Set(
      commands.flatMap((command) =>
        optionsOf(command)
          .filter((option) => kindOf(placeholderOf(option) ?? '') === kind)
          .flatMap(({ long }) => long ?? []),
      ),
    ),
  ]
  const all = [program, ...shown(program)]
  const takesValue = [
    ...new Set(
      all
        .flatMap(optionsOf)
        .filter((option) => placeholderOf(option) !== undefined)
        .map(({ long }) => long!),
    ),
  ]
  const cases = shown(program).map((command) => {
    const kind = kindOf(argumentsOf(command)[0]?.name() ?? '')
    const more = kind === 'builds' ? `; _upserv_builds` : kind === 'files' ? '; compopt -o default' : ''
    return `    ${command.name()}) options="${longs(command).join(' ')}"${more} ;;`
  })
  return `# bash completion for upserv, made from its command line. In ~/.bashrc: eval "$(upserv completion bash)"
_upserv_builds() {
  words="$words $(${BUILDS})"
}

_upserv() {
  local current previous command options words i
  current=\${COMP_WORDS[COMP_CWORD]}
  previous=\${COMP_WORDS[COMP_CWORD-1]}
  command= options= words=
  COMPREPLY=()
  case $previous in
    ${values(all, 'files').join('|')}) compopt -o default; return ;;
    ${values(all, 'directories').join('|')}) compopt -o dirnames; return ;;
    ${values(all, 'builds').join('|')}) _upserv_builds; COMPREPLY=($(compgen -W "$words" -- "$current")); return ;;
    ${takesValue.join('|')}) return ;;
  esac
  for ((i = 1; i < COMP_CWORD; i++)); do
    case \${COMP_WORDS[i]} in
      -*) ;;
      *) command=\${COMP_WORDS[i]}; break ;;
    esac
  done
  case $command in
    '') options="${longs(program).join(' ')}"; words="${shown(program)
      .map((command) => command.name())
      .join(' ')}" ;;
${cases.join('\n')}
  esac
  case $current in
    -*) COMPREPLY=($(compgen -W "$options" -- "$current")) ;;
    *) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
  esac
}
complete -F _upserv upserv
`
}

export function zshCompletion(program: Command): string {
  const quoted = (text: string): string => text.replaceAll("'", "'\\''").replaceAll(/[[\]:]/g, '\\$&')
  const actions = {
    files: ':file:_files',
    directories: ':directory:_files -/',
    builds: ':build:_upserv_builds',
    free: ':value:',
  }
  const spec = (option: Option): string => {
    const placeholder = placeholderOf(option)
    const names = [option.short, option.long].filter((name) => name !== undefined)
    const action = placeholder === undefined ? '' : actions[kindOf(placeholder)]
    return names.map((name) => `'${name}[${quoted(option.description)}]${action}'`).join(' ')
  }
  const cases = shown(program).map((command) => {
    const positional = argumentsOf(command).map(
      (argument) => `'${argument.required ? '' : ':'}${actions[kindOf(argument.name())]}'`,
    )
    return `        ${command.name()}) _arguments ${[...optionsOf(command).map(spec), ...positional].join(' ')} ;;`
  })
  return `#compdef upserv
# zsh completion for upserv, made from its command line. In ~/.zshrc, after compinit: eval "$(upserv completion zsh)"
_upserv_builds() {
  local -a builds
  builds=(\${(f)"$(${BUILDS})"})
  _describe build builds
}

_upserv() {
  local context state line
  typeset -A opt_args
  _arguments -C ${optionsOf(program).map(spec).join(' ')} '1:command:->command' '*::argument:->argument'
  case $state in
    command)
      local -a commands
      commands=(${shown(program)
        .map((command) => `'${command.name()}:${quoted(command.description())}'`)
        .join(' ')})
      _describe command commands ;;
    argument)
      case $words[1] in
${cases.join('\n')}
      esac ;;
  esac
}

# Called from a directory of completions, or read by eval.
if [[ $funcstack[1] == _upserv ]]; then _upserv "$@"; else compdef _upserv upserv; fi
`
}

export function fishCompletion(program: Command): string {
  const quoted = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
  const names = shown(program).map((command) => command.name())
  const value = {
    files: '-rF',
    directories: "-xa '(__fish_complete_directories)'",
    builds: "-xa '(__upserv_builds)'",
    free: '-x',
  }
  const line = (condition: string, option: Option): string => {
    const placeholder = placeholderOf(option)
    return [
      `complete -c upserv -n ${quoted(condition)}`,
      ...(option.short ? [`-s ${option.short.slice(1)}`] : []),
      ...(option.long ? [`-l ${option.long.slice(2)}`] : []),
      ...(placeholder === undefined ? [] : [value[kindOf(placeholder)]]),
      `-d ${quoted(option.description)}`,
    ].join(' ')
  }
  const none = `not __fish_seen_subcommand_from ${names.join(' ')}`
  return `# fish completion for upserv, made from its command line: upserv completion fish | source
function __upserv_builds
    ${BUILDS.replaceAll('$s', '\\$s').replaceAll("'2,\\$s/ .*//p'", "'2,$s/ .*//p'")}
end

complete -c upserv -f
${[
  ...shown(program).map(
    (command) =>
      `complete -c upserv -n ${quoted(none)} -a ${command.name()} -d ${quoted(command.description())}`,
  ),
  ...optionsOf(program).map((option) => line(none, option)),
  ...shown(program).flatMap((command) => {
    const seen = `__fish_seen_subcommand_from ${command.name()}`
    const kind = kindOf(argumentsOf(command)[0]?.name() ?? '')
    return [
      ...optionsOf(command).map((option) => line(seen, option)),
      ...(kind === 'builds' ? [`complete -c upserv -n ${quoted(seen)} -a '(__upserv_builds)'`] : []),
      ...(kind === 'files' ? [`complete -c upserv -n ${quoted(seen)} -F`] : []),
    ]
  }),
].join('\n')}
`
}
