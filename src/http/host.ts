/**
 * Which names a server may be called by. A page from elsewhere can have its own name lead to the address that we
 * listen on (DNS rebinding); the browser then takes what we say for that page's own, and hands it over. The name
 * is in the request, and is none of ours.
 */
import { BlockList, isIP } from 'node:net'
import { hostname } from 'node:os'
import { RequestError } from '../errors.ts'
import { normalizeAddress } from '../lib/peer.ts'

const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

/**
 * On a loopback address a server is called by an address, by `localhost`, by the machine's name, or as `names`
 * has it. On others it may have any name that a network gives it, unless there are `names`.
 *
 * @param host the header of the request. Programs that send none are no browsers.
 * @param local the address that the connection came to.
 * @throws RequestError for any other.
 */
export function checkHost(
  host: string | undefined,
  local: string | undefined,
  names: readonly string[],
): void {
  if (host === undefined || (names.length === 0 && !isLoopback(local))) return
  const name = host
    .replace(/:\d*$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/\.$/, '')
    .toLowerCase()
  if (isIP(name) !== 0 || name === 'localhost' || name.endsWith('.localhost')) return
  if (name === hostname().toLowerCase() || names.includes(name)) return
  throw new RequestError(421, `this server is not called ${JSON.stringify(name.slice(0, 100))}`, {
    hint: 'Use its address, or add the name to `http.names`.',
  })
}

function isLoopback(local: string | undefined): boolean {
  const address = local === undefined ? undefined : normalizeAddress(local)
  return address !== undefined && LOOPBACK.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
}
