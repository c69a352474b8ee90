/** Commands work while a server runs, by talking to it, and while none does, by being the owner themselves. */
import type { Operations } from '../build/operations.ts'
import type { Config } from '../config/config.ts'
import { connectControl, remoteOperations } from '../daemon/control.ts'
import { StoreLocked } from '../errors.ts'
import { createLogger } from '../lib/log.ts'
import { serve, Upserv } from '../server.ts'
import { StorePaths } from '../store/paths.ts'
import { becomeOwner } from './owner.ts'

/** A server that has just taken the lock opens its socket within this time. */
const OWNER_STARTS_MS = 5000
const RETRY_MS = 50

/**
 * Carries out something with the operations of a data directory.
 * @param long it may take a while: as the owner, let others in meanwhile, commands and xinetd's clients.
 * @param before called where no server runs, before we become the owner.
 * @throws StoreLocked when another process owns it and does not answer.
 */
export async function withOperations<T>(
  config: Config,
  use: (operations: Operations) => Promise<T>,
  { long = false, before = () => {} }: { long?: boolean; before?: () => void } = {},
): Promise<T> {
  const { socket } = new StorePaths(config.dataDir)
  const deadline = Date.now() + OWNER_STARTS_MS
  for (;;) {
    const first = await connectControl(socket)
    if (first) {
      // The connection that told us is used for the first request.
      let spare: typeof first | undefined = first
      const connection = async () => {
        const mine = spare ?? (await connectControl(socket))
        spare = undefined
        if (!mine) throw new StoreLocked('the server has just ended', { hint: 'Try again.' })
        return mine
      }
      return use(remoteOperations(connection))
    }
    before()
    // A server does what it is asked for as who it is, so who asks may stay who they are.
    becomeOwner(config.dataDir)
    let owner: Owner
    try {
      owner = await (long ? openServer(config) : openAlone(config))
    } catch (error) {
      if (!(error instanceof StoreLocked) || Date.now() > deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
      continue
    }
    try {
      return await use(owner.operations)
    } finally {
      await owner.close()
    }
  }
}

interface Owner {
  operations: Operations
  close(): Promise<void>
}

async function openAlone(config: Config): Promise<Owner> {
  return Upserv.open(config, quietLogger())
}

/** A server without ports of its own: its control socket is the only way in. */
async function openServer(config: Config): Promise<Owner> {
  const withoutPorts = {
    ...config,
    rsync: { ...config.rsync, listen: [], tlsListen: [] },
    http: { ...config.http, listen: [], tlsListen: [] },
  }
  const { operations, stop } = await serve(withoutPorts, quietLogger())
  try {
    return { operations: await operations, close: stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** A command tells what matters by itself. */
function quietLogger() {
  return createLogger({ usually: 'error' })
}
