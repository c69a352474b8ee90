/** `upserv pin`, `unpin` and `remove`: what is to become of a build. Silent when it is done, but for programs. */
import type { Config } from '../config/config.ts'
import { withOperations } from './operations.ts'
import { type ForPrograms, printDone } from './text.ts'

export async function pinCommand(config: Config, id: string, flags: ForPrograms): Promise<void> {
  await withOperations(config, (operations) => operations.pin(id))
  printDone(flags, { id, sticky: true })
}

export async function unpinCommand(config: Config, id: string, flags: ForPrograms): Promise<void> {
  await withOperations(config, (operations) => operations.unpin(id))
  printDone(flags, { id, sticky: false })
}

export async function removeCommand(config: Config, id: string, flags: ForPrograms): Promise<void> {
  await withOperations(config, (operations) => operations.remove(id))
  printDone(flags, { id, removed: true })
}
