/**
 * argv -> subcommand -> exit code. One file for each subcommand that is more than a call.
 *
 * A subcommand's code is loaded when it is called: xinetd starts a process for each client, and that one
 * shall be small.
 */
import { Command, CommanderError, Option } from 'commander'
import { type Config, dataDirOf, type Flags, loadConfig } from '../config/config.ts'
import { Interrupted, UpservError } from '../errors.ts'
import { showText } from '../lib/bytes.ts'
import { VERSION } from '../version.ts'
import { EXIT } from './exit.ts'

/** Runs the command line. @returns the exit code; what people read is on stdout and stderr. */
export async function main(argv: readonly string[]): Promise<number> {
  const program = createProgram()
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return EXIT.ok
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
    if (error instanceof UpservError) {
      process.stderr.write(`upserv: ${showLines(error.message)}\n`)
      if (error.hint) process.stderr.write(`        ${showLines(error.hint)}\n`)
      return exitCodeOf(error)
    }
    process.stderr.write(`upserv: internal error: ${(error as Error).stack ?? String(error)}\n`)
    return EXIT.internal
  }
}

/** A hint may have two lines. */
function showLines(text: string): string {
  return text.split('\n').map(showText).join('\n')
}

function exitCodeOf(error: UpservError): number {
  // By its code: it may have happened in the server that was asked.
  if (error.code === 'USAGE_BAD') return EXIT.usage
  if (error.code === 'CONFIG_BAD') return EXIT.config
  if (error.code === 'HANDOVER_FAILED') return EXIT.unchanged
  if (error instanceof Interrupted) return EXIT.interrupted
  return error.code.startsWith('SOURCE_') || error.code === 'STORE_LOCKED' ? EXIT.unavailable : EXIT.failed
}

/** The command line. Man pages and completions are made from it as well. */
export function createProgram(): Command {
  const program = new Command('upserv')
    .description('On-demand upgrade server: devices update whole-system builds from it with stock rsync.')
    .version(VERSION)
    .exitOverride()
    .showHelpAfterError('(see: upserv --help)')
    .addHelpText(
      'after',
      `
Environment: UPSERV_DIR is the data directory, UPSERV_CONFIG the configuration file; LOG_LEVEL is debug,
             info, warn or error; NO_COLOR turns colours off.
Exit codes:  0 done, 1 refused or failed, 64 wrong command line, 69 something is in the way, 70 a bug,
             75 not handed over: the server goes on, 78 wrong configuration, 130 stopped by ^C.
Examples:    upserv serve --data /srv/upserv --source 'https://download.example.org/os{build}.tar.xz'
             upserv doctor
             upserv COMMAND --help`,
    )

  const common = (command: Command): Command =>
    command
      .addOption(
        new Option('--config <file>', 'configuration file (default: /etc/upserv/upserv.toml if it exists)'),
      )
      .addOption(new Option('--data <dir>', 'data directory (default: /var/lib/upserv)'))
  const sub = (name: string, description: string, ...examples: string[]): Command =>
    common(program.command(name).description(description))
      .exitOverride()
      .addHelpText('after', `\nExample${examples.length > 1 ? 's' : ''}:\n  ${examples.join('\n  ')}`)
  const config = (flags: Flags): Config => loadConfig(flags, process.env)
  const collect = (value: string, all: string[] = []): string[] => [...all, value]

  sub(
    'serve',
    'serve builds, fetching those that are missing',
    'upserv serve',
    "upserv serve --data /srv/upserv --rsync :8873 --source 'https://download.example.org/os{build}.tar.xz'",
  )
    .option('--budget <size>', 'the most that the data directory may take, such as 16GB')
    .option(
      '--rsync <host:port>',
      'listen here for rsync (default: [::]:873; port 0: any free one; off: nowhere)',
    )
    .option(
      '--rsync-tls <host:port>',
      'listen here for rsync over TLS (default: [::]:874 with tls.cert; off: nowhere)',
    )
    .option('--http <host:port>', 'listen here for HTTP (default: 127.0.0.1:8730; off: nowhere)')
    .option('--https <host:port>', 'listen here for HTTPS (default: off)')
    .option(
      '--source <url>',
      'fetch missing builds from here, as in http://host/os{build}.tar.gz; may be repeated',
      collect,
    )
    .option('--exit-when-idle <seconds>', 'end after so long without anything to do')
    .action(async (flags) => (await import('./serve.ts')).runServe(() => config(flags), flags))

  sub(
    'server',
    'serve one connection on stdin and stdout, for xinetd and inetd',
    'server = /usr/bin/upserv     # in /etc/xinetd.d/rsync',
    'server_args = server',
  )
    .option('--exit-when-idle <seconds>', 'end the process behind it after so long (default: 600)')
    .action(async (flags) => (await import('./inetd.ts')).runInetd(() => config(flags), flags))

  sub('reload', 'let the server that runs read its configuration again', 'upserv reload')
    .option('--json', 'for programs')
    .action(async (flags) => (await import('./reload.ts')).reloadCommand(config(flags), flags))

  sub(
    'handover',
    'let the server that runs give its place to a new process, and finish its clients',
    'upserv handover',
    'upserv handover --prepare     # before the files of the program are replaced',
  )
    .option('--prepare', 'only load what it may still need of its files')
    .option('--json', 'for programs')
    .action(async (flags) =>
      (await import('./handover.ts')).handoverCommand(dataDirOf(flags, process.env), flags),
    )

  sub('fetch', 'fetch a build now, if it is not held', 'upserv fetch 802')
    .argument('<id>')
    .option('--json', 'for programs')
    .action(async (id: string, flags) => (await import('./bring.ts')).fetchCommand(config(flags), id, flags))
  sub(
    'import',
    'make a build of an archive, a directory, an export, or all that are on a stick',
    'upserv import /media/usb/os802.tar.xz --as 802',
    'upserv import /media/usb/802.upserv     # what `upserv export` wrote',
    'upserv import /media/usb                # a stick with xs-xobuilds/',
  )
    .argument('<file>', 'an archive or export, - for standard input, a directory, a stick with xs-xobuilds/')
    .option('--as <id>', 'the id of the build; an export and a stick say it themselves')
    .option('--json', 'for programs')
    .action(async (file: string, flags) =>
      (await import('./bring.ts')).importCommand(config(flags), file, flags),
    )
  sub(
    'export',
    'write a build to a file that another server can import',
    'upserv export 802 /media/usb/802.upserv --have 801',
    "upserv export 802 - | ssh other.example.org 'upserv import -'",
  )
    .argument('<id>')
    .argument('<file>', 'the file, or - for standard output')
    .option(
      '--have <id>',
      'a build that the other server has: what is in it is left out; may be repeated',
      collect,
    )
    .option('--json', 'for programs; where the build goes to a file')
    .action(async (id: string, file: string, flags) =>
      (await import('./bring.ts')).exportCommand(config(flags), id, file, flags),
    )
  sub('list', 'show the builds that are held', 'upserv list', "upserv list --json | jq -r '.[].id'")
    .option('--json', 'for programs')
    .action(async (flags) => (await import('./look.ts')).listCommand(config(flags), flags))
  sub('available', 'show the builds that sources could supply', 'upserv available')
    .option('--json', 'for programs')
    .action(async (flags) => (await import('./look.ts')).availableCommand(config(flags), flags))
  sub('status', 'show what the server is doing', 'upserv status')
    .option('--json', 'for programs')
    .action(async (flags) => (await import('./look.ts')).statusCommand(config(flags), flags))
  sub(
    'top',
    'show live who is connected and what is being fetched; q ends it',
    'upserv top',
    'upserv top --once',
  )
    .option('--once', 'look once')
    .option('--json', 'look once, for programs')
    .action(async (flags) => (await import('./top.ts')).topCommand(config(flags), flags))
  sub(
    'history',
    'show which device got which build, or what came from sources, when, and how it ended',
    'upserv history --build 802 --since 7d',
    'upserv history --fetches --outcome failed',
    'upserv history --address 192.0.2.7 --forget --yes',
    'upserv history --audit',
  )
    .option('--build <id>', 'of this build')
    .option('--address <address>', 'of the device with this address')
    .option('--device <name>', 'of the device whose certificate proves this name')
    .option('--user <name>', 'of this rsync user')
    .option(
      '--outcome <outcome>',
      'done, lost, refused, peer-error or failed; of a fetch done, failed or stopped',
    )
    .option('--fetches', 'fetches instead of sessions')
    .option('--source <name>', 'with --fetches: from this source')
    .option('--since <time>', 'as in 2026-11-29, or 7d, 12h, 30min ago')
    .option('--until <time>', 'as --since')
    .option('--limit <number>', 'so many of the latest (default: 30)')
    .option('--audit', 'show instead who changed what, from where, and what came of it')
    .option('--forget', 'delete them for good, all of them')
    .option('--yes', 'as --forget asks for')
    .option('--json', 'for programs')
    .action(async (flags) =>
      (await import('./history.ts')).historyCommand(config({ ...flags, source: undefined }), flags),
    )
  sub(
    'why',
    'explain a session: what was asked, what matched, what took the time, and a hint',
    'upserv why 1742',
    'upserv why 192.0.2.7     # the last session of that device',
  )
    .argument('<session-or-device>', "a session's number, a device's address or name, or an rsync user")
    .option('--json', 'for programs')
    .action(async (which: string, flags) =>
      (await import('./history.ts')).whyCommand(config(flags), which, flags),
    )
  sub(
    'doctor',
    'check ports, disk, budget, clock, sources, keys and tools, and say what to type',
    'upserv doctor',
  )
    .option('--json', 'for programs')
    .action(async (flags) => (await import('./doctor.ts')).doctorCommand(() => config(flags), flags, flags))
  sub('pin', 'never evict a build', 'upserv pin 802')
    .argument('<id>')
    .option('--json', 'for programs')
    .action(async (id: string, flags) => (await import('./keep.ts')).pinCommand(config(flags), id, flags))
  sub('unpin', 'let a build be evicted again', 'upserv unpin 802')
    .argument('<id>')
    .option('--json', 'for programs')
    .action(async (id: string, flags) => (await import('./keep.ts')).unpinCommand(config(flags), id, flags))
  sub('remove', 'delete a build', 'upserv remove 802')
    .argument('<id>')
    .option('--json', 'for programs')
    .action(async (id: string, flags) => (await import('./keep.ts')).removeCommand(config(flags), id, flags))
  sub('gc', 'free what nobody needs, and keep to the budget', 'upserv gc --dry-run --explain')
    .option('--dry-run', 'only say what would go')
    .option('--explain', 'say of each build why it stays or goes')
    .option('--json', 'for programs')
    .action(async (flags) => (await import('./look.ts')).gcCommand(config(flags), flags))
  sub('verify', 'read builds again and see that nothing has rotted', 'upserv verify --repair')
    .argument('[id]', 'this build only')
    .option('--repair', 'fetch again what is damaged')
    .option('--json', 'for programs')
    .action(async (id: string | undefined, flags) =>
      (await import('./verify.ts')).verifyCommand(config(flags), id, flags),
    )
  sub(
    'warm',
    'work out what devices will ask for, before the first of them does',
    'upserv warm 803 --from 802,767',
    'upserv warm 803 --from 802 --clients 3.4.1 --compress auto',
  )
    .argument('<id>', 'the build that they will ask for')
    .requiredOption('--from <id,...>', 'the builds that they have')
    .option('--clients <version,...>', 'the versions of rsync that they run', '3.2,3.1')
    .option(
      '--compress <how,...>',
      'how they want it: none, auto (-z alone), zstd, lz4, zlibx, zlib',
      'none,auto',
    )
    .option('--checksum', 'they use -c as well')
    .option('--quick', 'compress quickly; as well as can be later, in the background of a server')
    .option('--json', 'for programs')
    .action(async (id: string, flags) => (await import('./warm.ts')).warmCommand(config(flags), id, flags))
  sub('token', 'print the token that changes by HTTP take', 'upserv token', 'upserv token --new')
    .option(
      '--new',
      'put another one in its place: whoever has the old one, and sessions of browsers, are out',
    )
    .option('--json', 'for programs')
    .action(async (flags) => (await import('./token.ts')).tokenCommand(config(flags), flags))
  sub(
    'completion',
    'print a script that completes commands, for bash, zsh or fish',
    'eval "$(upserv completion bash)"',
  )
    .argument('<shell>')
    .action(async (shell: string) => (await import('./completion.ts')).completionCommand(program, shell))
  return program
}
