/** `upserv serve`: runs until it is told to stop. */
import type { Config } from '../config/config.ts'
import { ServiceManager, takeSockets } from '../daemon/systemd.ts'
import { UpservError } from '../errors.ts'
import { createLogger, type Logger } from '../lib/log.ts'
import { type RunningServer, serve } from '../server.ts'
import { becomeOwner } from './owner.ts'

/** Beyond the time that sessions are given: to hang up on those that are left and to close the store. */
const CLOSE_MS = 15_000

/** @param load reads the configuration; once more on SIGHUP. */
export async function runServe(load: () => Config): Promise<void> {
  let config = load()
  becomeOwner(config.dataDir)
  const log = createLogger()
  const handed = takeSockets(process.env, process.pid)
  const manager = new ServiceManager(process.env, process.pid, (problem) =>
    log.warn({ reason: problem.message }, 'systemd could not be told'),
  )
  const server = await serve(config, log, handed)
  const onStop = (signal: NodeJS.Signals): void => {
    log.info({ signal }, 'told to stop')
    void manager.stopping(config.shutdownMs + CLOSE_MS)
    void server.stop()
  }
  process.once('SIGTERM', onStop)
  process.once('SIGINT', onStop)
  /** One after the other: each begins with what the one before it left. */
  let reloading: Promise<void> = Promise.resolve()
  process.on('SIGHUP', () => {
    reloading = reloading.then(async () => {
      await manager.reloading()
      config = await reload(load, config, server, log)
      await manager.ready(describe(server))
    })
  })
  // For whoever started us: this line says that clients can connect.
  const rsync = server.listening.map((address) => `rsync://${address}`)
  process.stdout.write(`listening ${[...rsync, ...server.httpUrls].join(' ')}\n`)
  log.info(
    {
      rsync,
      http: server.httpUrls,
      data: config.dataDir,
      budget: config.budget,
      sources: config.sources.map(({ name }) => name),
    },
    'ready',
  )
  await manager.ready(describe(server))
  await server.ended
  manager.close()
}

/** @returns the configuration that holds now: the old one where the new one can't be used. */
async function reload(
  load: () => Config,
  config: Config,
  server: RunningServer,
  log: Logger,
): Promise<Config> {
  try {
    const next = load()
    const left = await server.reload(next)
    log.info({ sources: next.sources.map(({ name }) => name) }, 'configuration read again')
    if (left.length > 0) log.warn({ keys: left }, 'what these keys say holds after a restart')
    return next
  } catch (error) {
    const { message, code } = error as UpservError
    const isOurs = error instanceof UpservError
    log.error(
      isOurs ? { code, reason: message } : { err: error },
      'configuration not used: the old one holds',
    )
    return config
  }
}

function describe(server: RunningServer): string {
  return `serving ${server.listening.map((address) => `rsync://${address}`).join(' ') || 'commands only'}`
}
