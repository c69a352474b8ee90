/** `upserv serve`: runs until it is told to stop. */
import { existsSync } from 'node:fs'
import type { Config } from '../config/config.ts'
import { keepCompiledCode } from '../lib/code-cache.ts'
import { createLogger } from '../lib/log.ts'
import { StorePaths } from '../store/paths.ts'

/** Compiled code takes some 4 MB: where derived data may take little, that is for what clients ask for. */
const CACHE_FOR_CODE = 64 * 2 ** 20

/** What is made for us without a mode, as compiled code by Node, is for our user and readers of its group too. */
const UMASK = 0o027

export async function runServe(config: Config): Promise<void> {
  process.umask(UMASK)
  const log = createLogger()
  const paths = new StorePaths(config.dataDir)
  // A directory that is not a store yet must stay empty until it is one.
  if (config.cache >= CACHE_FOR_CODE && existsSync(paths.format)) keepCompiledCode(paths.code, paths.root)
  const { serve } = await import('../server.ts')
  const server = await serve(config, log)
  const onSignal = (signal: NodeJS.Signals): void => {
    log.info({ signal }, 'told to stop')
    void server.stop()
  }
  process.once('SIGTERM', onSignal)
  process.once('SIGINT', onSignal)
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
  await server.ended
}
