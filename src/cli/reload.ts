/** `upserv reload`: returns when the new configuration holds, and fails when it can't be used. */
import type { Config } from '../config/config.ts'
import { connectControl, remoteOperations } from '../daemon/control.ts'
import { CommandError } from '../errors.ts'
import { StorePaths } from '../store/paths.ts'
import { type ForPrograms, printDone } from './text.ts'

export async function reloadCommand({ dataDir }: Config, flags: ForPrograms): Promise<void> {
  const socket = await connectControl(new StorePaths(dataDir).socket)
  if (!socket) {
    throw new CommandError(`no server runs on ${dataDir}`, {
      hint: 'It reads its configuration when it starts. Elsewhere: --data, or data_dir in upserv.toml.',
    })
  }
  const restart = await remoteOperations(async () => socket).reload()
  const names = restart.join(', ')
  printDone(
    flags,
    { restart },
    `the configuration was read again${names ? `; after a restart it holds for ${names} too` : ''}`,
  )
}
