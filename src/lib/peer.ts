/** Where a client comes from, as the rules judge it and the log names it. */
import { isIP, isIPv4, type Socket } from 'node:net'

export interface Peer {
  /**
   * As `normalizeAddress` gives it; undefined when nobody can say, as for a pipe. Who has no address is
   * admitted by no rule.
   */
  readonly address: string | undefined
  readonly port: number
  /** Names of devices that its certificate proves, the one that logs show first; none without a certificate. */
  readonly devices: readonly string[]
  /** Whether it came by TLS. */
  readonly tls: boolean
}

/** A connection that did not come over a network. */
export const UNKNOWN_PEER: Peer = peerFrom(undefined, undefined)

/** From what a socket says of its other end. */
export function peerFrom(address: string | undefined, port: number | undefined): Peer {
  return {
    address: address === undefined ? undefined : normalizeAddress(address),
    port: port ?? 0,
    devices: [],
    tls: false,
  }
}

/** Those of whom more is known than their sockets say: who came by TLS, or through a proxy that names its clients. */
const introduced = new WeakMap<object, Peer>()

/** From now on `peerOf` says this of the connection. */
export function introduce(socket: Socket, peer: Peer): void {
  introduced.set(socket, peer)
}

/** Who is at the other end of a connection. */
export function peerOf(socket: Socket): Peer {
  return introduced.get(socket) ?? peerFrom(socket.remoteAddress, socket.remotePort)
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
export function formatPeer({ address, port }: Pick<Peer, 'address' | 'port'>): string {
  if (address === undefined) return 'unknown'
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

/** How many bits of an address make one source, and how many one network. */
export interface Prefixes {
  readonly ipv4Network: number
  /** One site gets a /64 at least. */
  readonly ipv6Source: number
  readonly ipv6Network: number
}

export const USUAL_PREFIXES: Prefixes = { ipv4Network: 24, ipv6Source: 64, ipv6Network: 48 }

/** What counts as one source of connections: an IPv4 address, or the /64 that one IPv6 site gets at least. */
export function sourceOf({ address }: Pick<Peer, 'address'>, { ipv6Source } = USUAL_PREFIXES): string {
  if (address === undefined) return 'unknown'
  return address.includes(':') ? prefixOf(address, ipv6Source) : address
}

/** What belongs together at a larger scale: who has one source there can have many. */
export function networkOf({ address }: Pick<Peer, 'address'>, prefixes = USUAL_PREFIXES): string {
  if (address === undefined) return 'unknown'
  return prefixOf(address, address.includes(':') ? prefixes.ipv6Network : prefixes.ipv4Network)
}

/** What limits count one for, each under a name that is no other's. */
export interface Where {
  readonly source: string
  readonly network: string
}

export function whereOf(peer: Pick<Peer, 'address'>, prefixes?: Prefixes): Where {
  return { source: `source ${sourceOf(peer, prefixes)}`, network: `network ${networkOf(peer, prefixes)}` }
}

/** What connections of a proxy count for until it has named their clients: not for itself, nor for its neighbours. */
export function whereOfProxy({ address }: Pick<Peer, 'address'>): Where {
  return { source: `source proxy ${address}`, network: `network proxy ${address}` }
}

/** The network of so many bits that an address is in, as in "2001:db8:0:0::/64" and "192.0.2.0/24". */
function prefixOf(address: string, bits: number): string {
  const isIPv6 = address.includes(':')
  const width = isIPv6 ? 16 : 8
  const parts = isIPv6 ? groupsOf(address) : address.split('.').map(Number)
  const whole = Math.floor(bits / width)
  const kept = parts.slice(0, whole)
  if (bits % width > 0) kept.push(parts[whole]! & -(1 << (width - (bits % width))))
  if (isIPv6)
    return `${kept.map((group) => group.toString(16)).join(':')}${kept.length < 8 ? '::' : ''}/${bits}`
  while (kept.length < 4) kept.push(0)
  return `${kept.join('.')}/${bits}`
}

/** The eight numbers of an IPv6 address that is written with or without "::". */
function groupsOf(address: string): number[] {
  const [head = '', tail] = address.split('::')
  const groups = head === '' ? [] : head.split(':')
  if (tail !== undefined) {
    const behind = tail === '' ? [] : tail.split(':')
    while (groups.length + behind.length < 8) groups.push('0')
    groups.push(...behind)
  }
  return groups.map((group) => Number.parseInt(group, 16))
}
