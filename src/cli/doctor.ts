/**
 * `upserv doctor`: looks at everything that has to be right for devices to be served, and says of what is wrong
 * what to type. It changes nothing; only a server that waits behind its socket is started by being asked, as it
 * would be by a client. What is looked at is in examine.ts.
 */
import type { Config, Flags } from '../config/config.ts'
import { connectControl, remoteOperations } from '../daemon/control.ts'
import { CommandError } from '../errors.ts'
import { showJson } from '../lib/bytes.ts'
import { StorePaths } from '../store/paths.ts'
import { PATIENCE_MS, type ServerState } from './checks.ts'
import { examine, type Viewpoint } from './examine.ts'
import { formatFindings } from './finding.ts'
import { becomeOwner } from './owner.ts'
import { checkPorts } from './port-checks.ts'
import { print } from './text.ts'

export interface DoctorOptions {
  json?: boolean
}

export async function doctorCommand(load: () => Config, flags: Flags, options: DoctorOptions): Promise<void> {
  const findings = await examine(load, flags, OUTSIDE)
  print(options.json ? showJson(findings) : formatFindings(findings))
  const problems = findings.filter(({ verdict }) => verdict === 'problem').length
  if (problems > 0)
    throw new CommandError(problems === 1 ? 'there is a problem' : `there are ${problems} problems`)
}

/** From outside, as clients come. */
const OUTSIDE: Viewpoint = {
  askServer: async (config) => {
    // What the server's user may not read or write is what matters, not what root may.
    becomeOwner(config.dataDir)
    return await askServer(config)
  },
  checkPorts: (config, server) => checkPorts(config, server, () => askServer(config)),
}

/** What the server that runs says of itself. */
async function askServer({ dataDir }: Config): Promise<ServerState> {
  const socket = await connectControl(new StorePaths(dataDir).socket).catch(() => undefined)
  if (!socket) return { runs: false }
  const late = setTimeout(() => socket.destroy(), PATIENCE_MS)
  try {
    return { runs: true, status: await remoteOperations(async () => socket).status() }
  } catch {
    return { runs: true }
  } finally {
    clearTimeout(late)
  }
}
