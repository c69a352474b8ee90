/** Where a client comes from, as the rules judge it and the log names it. */
import { isIP, isIPv4 } from 'node:net'

export interface Peer {
  /**
   * As `normalizeAddress` gives it; undefined when nobody can say, as for a pipe. Who has no address is
   * admitted by no rule.
   */
  readonly address: string | undefined
  readonly port: number
}

/** A connection that did not come over a network. */
export const UNKNOWN_PEER: Peer = { address: undefined, port: 0 }

/** From what a socket says of its other end. */
export function peerFrom(address: string | undefined, port: number | undefined): Peer {
  return { address: address === undefined ? undefined : normalizeAddress(address), port: port ?? 0 }
}

/**
 * One spelling for each address: an IPv4 address that came in through an IPv6 socket (::ffff:192.0.2.1) is
 * the IPv4 address, IPv6 is shortened as the URL standard does it, and a zone (%eth0) is left out.
 * Undefined for what is no address.
 */
export function normalizeAddress(text: string): string | undefined {
  const address = text.replace(/%.*$/s, '')
  if (isIPv4(address)) return address
  if (isIP(address) !== 6) return undefined
  const short = new URL(`http://[${address}]/`).hostname.slice(1, -1)
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(short)
  if (!mapped) return short
  const [high, low] = [Number.parseInt(mapped[1]!, 16), Number.parseInt(mapped[2]!, 16)]
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
}

/** For messages and the log: "192.0.2.1:40000", "[2001:db8::1]:40000", "unknown". */
export function formatPeer({ address, port }: Peer): string {
  if (address === undefined) return 'unknown'
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

/** What counts as one source of connections: an IPv4 address, or the /64 that one IPv6 site gets at least. */
export function sourceOf({ address }: Peer): string {
  if (address === undefined) return 'unknown'
  if (!address.includes(':')) return address
  const [head = '', tail] = address.split('::')
  const groups = head === '' ? [] : head.split(':')
  if (tail !== undefined) {
    const behind = tail === '' ? [] : tail.split(':')
    while (groups.length + behind.length < 8) groups.push('0')
    groups.push(...behind)
  }
  return `${groups.slice(0, 4).join(':')}::/64`
}
