/** `upserv serve`: runs until it is told to stop. */
import { existsSync } from 'node:fs'
import type { Config, Flags } from '../config/config.ts'
import { Predecessor } from '../daemon/handover.ts'
import { ServiceManager, takeSockets } from '../daemon/systemd.ts'
import { reportError } from '../errors.ts'
import { keepCompiledCode } from '../lib/code-cache.ts'
import { meansOfConfinement } from '../lib/confined.ts'
import { closeLog, createLogger } from '../lib/log.ts'
import type { RunningServer } from '../server.ts'
import { StorePaths } from '../store/paths.ts'
import { becomeOwner } from './owner.ts'

/** Compiled code takes some 4 MB: where derived data may take little, that is for what clients ask for. */
const CACHE_FOR_CODE = 64 * 2 ** 20

/** What is made for us without a mode, as compiled code by Node, is for our user and readers of its group too. */
const UMASK = 0o027

/** Beyond the time that sessions are given: to hang up on those that are left and to close the store. */
const CLOSE_MS = 15_000

/** @param load reads the configuration; once more on SIGHUP. @param flags what it was given beside the file. */
export async function runServe(load: () => Config, flags: Flags): Promise<void> {
  process.umask(UMASK)
  const predecessor = Predecessor.take(process.env)
  try {
    await serveUntilTold(load, flags, predecessor)
  } catch (error) {
    const { message, hint } = reportError(error)
    predecessor?.failed(message, hint)
    throw error
  } finally {
    await closeLog()
  }
}

async function serveUntilTold(
  load: () => Config,
  flags: Flags,
  predecessor: Predecessor | undefined,
): Promise<void> {
  const config = load()
  becomeOwner(config.dataDir)
  const log = createLogger({ fields: true })
  const paths = new StorePaths(config.dataDir)
  // A directory that is not a store yet must stay empty until it is one.
  if (config.cache >= CACHE_FOR_CODE && existsSync(paths.format)) keepCompiledCode(paths.code, paths.root)
  const handed = takeSockets(process.env, process.pid)
  const manager = new ServiceManager(process.env, process.pid, (problem) =>
    log.warn({ reason: problem.message }, 'systemd could not be told'),
  )
  const { serve } = await import('../server.ts')
  const server = await serve(config, log, {
    handed,
    load,
    predecessor,
    environment: () => manager.inheritance,
    examine: async (status) => (await import('./examine.ts')).examineItself(load, flags, status),
  })
  void server.handedOver.then((pid) => manager.handedOver(pid))
  const onStop = (signal: NodeJS.Signals): void => {
    log.info({ signal }, 'told to stop')
    void manager.stopping(server.shutdownMs + CLOSE_MS)
    void server.stop()
  }
  process.once('SIGTERM', onStop)
  process.once('SIGINT', onStop)
  process.on('SIGHUP', () => {
    void manager.reloading()
    // What goes wrong is in the log.
    void server
      .reload()
      .catch(() => {})
      .then(() => manager.ready(describe(server)))
  })
  // For whoever started us: this line says that clients can connect.
  const rsync = rsyncUrls(server)
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
  if (process.getuid?.() === 0)
    log.warn('root runs this: nothing here needs it, and whoever owns the data directory would do (chown it)')
  await manager.ready(describe(server))
  const { strength, refused } = await meansOfConfinement()
  if (strength.startsWith('sealed'))
    log.info({ programs: strength }, 'programs that read archives are confined')
  else
    log.warn(
      { programs: strength, reason: refused[0] },
      'programs that read archives are not confined: see upserv doctor',
    )
  await server.ended
  manager.close()
}

function describe(server: RunningServer): string {
  return `serving ${rsyncUrls(server).join(' ') || 'commands only'}`
}

/** `rsync-ssl` takes the same addresses as `rsync`: what it is called here is to tell them apart. */
export function rsyncUrls({
  listening,
  tlsListening,
}: {
  listening: readonly string[]
  tlsListening: readonly string[]
}): string[] {
  return [
    ...listening.map((address) => `rsync://${address}`),
    ...tlsListening.map((address) => `rsync-ssl://${address}`),
  ]
}
