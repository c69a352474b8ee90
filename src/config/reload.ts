/** What a running server can take over of a configuration that was read again, and what needs a restart. */
import { isDeepStrictEqual } from 'node:util'
import type { Config } from './config.ts'

/** What `Upserv.change` and the doors take over. Whatever else there is needs a restart. */
const LIVE = new Set([
  ...[
    'budget',
    'cache',
    'shutdown',
    'handover',
    'channels',
    'evict_channels',
    'sources',
    'access',
    'exit_when_idle',
  ],
  ...['tls', 'proxy_protocol_from', 'rsync.client_certs', 'http.client_certs', 'http.tls_files'],
  ...['rsync.motd', 'rsync.charset', 'rsync.max_connections', 'rsync.waiting_line', 'rsync.max_handshakes'],
  ...['rsync.max_per_source', 'rsync.handshake_timeout', 'rsync.idle_timeout'],
  ...['rsync.auth_digest_min', 'limits', 'fetch_limits'],
])

/** Keys, as upserv.toml has them, that differ and that only a restart can bring into force. */
export function restartKeys(before: Config, after: Config): string[] {
  const is = new Map(leaves(before))
  return leaves(after)
    .filter(([key, value]) => !LIVE.has(key) && !isDeepStrictEqual(is.get(key), value))
    .map(([key]) => key)
}

/** Every setting with its key: those of `rsync` and `http` one by one, of all else as a whole. */
function leaves(config: Config): [key: string, value: unknown][] {
  return Object.entries(config).flatMap(([name, value]) =>
    name === 'rsync' || name === 'http'
      ? Object.entries(value as object).map(([inner, leaf]): [string, unknown] => [
          `${name}.${fileKey(inner)}`,
          leaf,
        ])
      : [[fileKey(name), value] as [string, unknown]],
  )
}

/** "idleTimeoutMs" is `idle_timeout` in the file. */
function fileKey(name: string): string {
  // The only key of its table.
  if (name === 'historyMs') return 'history.days'
  return name.replace(/Ms$/, '').replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}
