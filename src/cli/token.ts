/** `upserv token`: the token that changes by HTTP take. */
import type { Config } from '../config/config.ts'
import { CommandError } from '../errors.ts'
import { readToken, renewToken } from '../http/token.ts'
import { StorePaths } from '../store/paths.ts'
import { becomeOwner } from './owner.ts'
import { type ForPrograms, printDone } from './text.ts'

export function tokenCommand(config: Config, flags: ForPrograms & { new?: boolean }): void {
  const path = config.http.tokenFile ?? new StorePaths(config.dataDir).token
  // Its owner decides where names in it lead, from one moment to the next.
  if (config.http.tokenFile === undefined) becomeOwner(config.dataDir)
  try {
    const token = flags.new ? renewToken(path) : readToken(path)
    printDone(flags, { token }, token)
  } catch (error) {
    throw new CommandError((error as Error).message, {
      hint: 'It is made when the server starts for the first time, and only its own user may read it.',
    })
  }
}
