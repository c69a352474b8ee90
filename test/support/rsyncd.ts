/**
 * The stock daemon, serving the same modules from plain directories: what upserv is measured against, and
 * the proof that an interop test asks for the right thing.
 */
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort, ServerProcess, waitForPort } from './processes.ts'
import { RSYNC } from './rsync.ts'
import { isRoot } from './scratch.ts'

export interface RsyncdOptions {
  /** Where its configuration, log and lock go. */
  scratch: string
  /** Module name to directory. */
  modules: Readonly<Record<string, { path: string; comment?: string }>>
  motd?: string
  /**
   * Confines each session to its module, for which the daemon must be root. Without it rsync 3.5.0 finds
   * nothing that `--files-from` names beneath a directory of the module.
   */
  chroot?: boolean
}

/** Answers the daemon's questions about names, which it cannot look up once it is confined. */
const NAME_CONVERTER = `#!/bin/sh
while read -r question key; do
  case $question in
    uid | usr) database=passwd ;;
    *) database=group ;;
  esac
  case $question in
    uid | gid) field=1 ;;
    *) field=3 ;;
  esac
  # A line in any case: an empty one says that there is no such name.
  echo "$(getent $database "$key" | cut -d: -f$field)"
done
`

export interface Rsyncd {
  readonly port: number
  readonly process: ServerProcess
  stop(): Promise<void>
}

export async function startRsyncd(options: RsyncdOptions): Promise<Rsyncd> {
  const { scratch, modules, motd, chroot = false } = options
  const file = (name: string): string => join(scratch, name)
  if (chroot) {
    writeFileSync(file('names'), NAME_CONVERTER)
    chmodSync(file('names'), 0o755)
  }
  if (motd !== undefined) writeFileSync(file('motd'), motd)
  const settings = [
    `use chroot = ${chroot ? 'yes' : 'no'}`,
    ...(chroot ? [`name converter = ${file('names')}`] : []),
    'munge symlinks = no', // the default without chroot; it would change every link target
    'numeric ids = no',
    'read only = yes',
    'reverse lookup = no',
    'listen backlog = 128', // its default of 5 resets connections when a few come at the same time
    `pid file = ${file('rsyncd.pid')}`,
    `lock file = ${file('rsyncd.lock')}`,
    `log file = ${file('rsyncd.log')}`,
    ...(motd === undefined ? [] : [`motd file = ${file('motd')}`]),
    ...(isRoot ? ['uid = 0', 'gid = 0'] : []),
    ...Object.entries(modules).flatMap(([name, { path, comment }]) => [
      `[${name}]`,
      `  path = ${path}`,
      ...(comment === undefined ? [] : [`  comment = ${comment}`]),
    ]),
  ]
  writeFileSync(file('rsyncd.conf'), `${settings.join('\n')}\n`)
  const port = await freePort()
  const place = [`--config=${file('rsyncd.conf')}`, `--port=${port}`, '--address=127.0.0.1']
  const process = new ServerProcess(RSYNC, ['--daemon', '--no-detach', ...place])
  await waitForPort(port, process)
  return {
    port,
    process,
    stop: async () => {
      await process.stop()
    },
  }
}
