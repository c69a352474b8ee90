/** rsync over TLS as devices speak it: stock rsync-ssl with each program that it can use, and servers to speak it to. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findProgram } from '../../src/lib/find-program.ts'
import type { Pair } from './certificates.ts'
import { type RunResult, run } from './processes.ts'
import { makeScratch } from './scratch.ts'
import type { Upserv } from './upserv.ts'

/** What rsync-ssl can have TLS from, and the program of each. */
export const HELPERS = { openssl: 'openssl', gnutls: 'gnutls-cli', stunnel: 'stunnel4' } as const
export type Helper = keyof typeof HELPERS

/** Why tests with a helper are skipped; false where they are not. */
export async function missing(...programs: string[]): Promise<string | false> {
  for (const program of programs) {
    if ((await findProgram(program)) === undefined) return `needs ${program}: script/setup`
  }
  return false
}

export interface RsyncSslOptions {
  /** Authority of servers; without it certificates are not looked at. */
  ca?: string
  client?: Pair
}

/**
 * gnutls-cli writes byte by byte, and drops each for which rsync's pipe has no room at the moment, whatever the
 * server. It writes to another program here, which waits until there is.
 */
function patientGnutls(): string {
  const relay = 'process.stdin.pipe(process.stdout)'
  return `#!/bin/sh\ngnutls-cli "$@" | ${process.execPath} -e '${relay}'\n`
}

export async function rsyncSsl(
  helper: Helper,
  args: readonly string[],
  { ca = '', client }: RsyncSslOptions = {},
): Promise<RunResult> {
  using scratch = makeScratch('rsync-ssl')
  const gnutls = join(scratch.path, 'gnutls-cli')
  writeFileSync(gnutls, patientGnutls(), { mode: 0o755 })
  const env = {
    RSYNC_SSL_GNUTLS: gnutls,
    ...{ PATH: process.env.PATH, HOME: '/nonexistent', LC_ALL: 'C', TZ: 'UTC', RSYNC_SSL_CA_CERT: ca },
    ...(client ? { RSYNC_SSL_CERT: client.cert, RSYNC_SSL_KEY: client.key } : {}),
  }
  return await run('rsync-ssl', [`--type=${helper}`, ...args], { env })
}

/** Of a server that was started with `rsync.tls_listen` on a free port: that port. */
export function tlsPort({ ready }: Upserv): number {
  return Number(/rsync-ssl:\/\/\S+?:(\d+)/.exec(ready)![1])
}
