/** All that `upserv doctor` looks at, in the order that it is told: for the command, and for the server itself. */
import type { Status } from '../build/operations.ts'
import type { Config, Flags } from '../config/config.ts'
import { UpservError } from '../errors.ts'
import { type Finding, problem } from '../lib/finding.ts'
import {
  checkCertificates,
  checkClock,
  checkConfiguration,
  checkConfinement,
  checkData,
  checkPrograms,
  checkSecrets,
  checkServer,
  checkSources,
  checkSpace,
  checkToken,
  type ServerState,
} from './checks.ts'

/** Where one looks from. */
export interface Viewpoint {
  askServer: (config: Config) => Promise<ServerState>
  /** What only one who comes as clients do finds out. */
  checkPorts: (config: Config, server: ServerState) => Promise<Finding[]>
}

export async function examine(
  load: () => Config,
  flags: Flags,
  { askServer, checkPorts }: Viewpoint,
): Promise<Finding[]> {
  let config: Config
  try {
    config = load()
  } catch (error) {
    if (!(error instanceof UpservError)) throw error
    const hint = error.hint ?? 'Correct it: `man upserv.toml` describes every key.'
    return [problem('configuration', error.message, hint)]
  }
  const server = await askServer(config)
  const ports = checkPorts(config, server)
  const { findings: sources, skewMs } = await checkSources(config)
  return [
    checkConfiguration(config, flags),
    ...checkSecrets(config),
    ...checkToken(config),
    ...checkCertificates(config),
    checkClock(skewMs),
    checkData(config),
    ...(await checkSpace(config, server)),
    ...checkServer(server),
    ...(await ports),
    ...sources,
    ...(await checkPrograms()),
    await checkConfinement(),
  ]
}

/**
 * The server looks at itself, by the configuration as it is in the file now. That its ports answer it could only
 * find out as its own client, which says nothing of whether others reach them: the command does that.
 */
export function examineItself(
  load: () => Config,
  flags: Flags,
  status: () => Promise<Status>,
): Promise<Finding[]> {
  return examine(load, flags, {
    askServer: async () => ({ runs: true, status: await status() }),
    checkPorts: async () => [],
  })
}
