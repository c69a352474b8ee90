/** `upserv serve`: runs until it is told to stop. */
import type { Config } from '../config/config.ts'
import { createLogger } from '../lib/log.ts'
import { serve } from '../server.ts'

export async function runServe(config: Config): Promise<void> {
  const log = createLogger()
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
