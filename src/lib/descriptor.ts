import type { Server } from 'node:net'

/**
 * The descriptor of a socket that listens, for a process that is to inherit it; undefined where the runtime does not
 * say. Node shows it of nothing but its own handle, which has had it since the beginning.
 */
export function descriptorOf(server: Server): number | undefined {
  const fd = (server as unknown as { _handle?: { fd?: unknown } | null })._handle?.fd
  return typeof fd === 'number' && fd >= 0 ? fd : undefined
}
