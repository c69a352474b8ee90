/** `upserv handover`: the server that runs gives its place to a new process, of the program as it is installed now. */
import { connectControl, remoteOperations } from '../daemon/control.ts'
import { CommandError } from '../errors.ts'
import { showJson } from '../lib/bytes.ts'
import { StorePaths } from '../store/paths.ts'

/** @param dataDir of a configuration that may be wrong in all else: that is for the new process to say. */
export async function handoverCommand(
  dataDir: string,
  { prepare = false, json = false }: { prepare?: boolean; json?: boolean },
): Promise<void> {
  const socket = await connectControl(new StorePaths(dataDir).socket)
  if (!socket) {
    throw new CommandError(`no server runs on ${dataDir}`, {
      hint: 'Start it: upserv serve. Elsewhere: --data, or data_dir in upserv.toml.',
    })
  }
  const report = await remoteOperations(async () => socket).handOver(prepare)
  const { pid, version, sessions } = report
  if (json) process.stdout.write(`${showJson(report)}\n`)
  else if (prepare)
    process.stdout.write(`process ${pid} can do without its files: replace them, then upserv handover\n`)
  else {
    const left =
      sessions === 0
        ? ''
        : `; the one before it finishes its ${sessions === 1 ? 'session' : `${sessions} sessions`}`
    process.stdout.write(`process ${pid} serves, version ${version}${left}\n`)
  }
}
