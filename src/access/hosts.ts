/**
 * Rules on where clients come from: addresses and networks, never names.
 *
 * A name must be resolved to be compared, and a rule that denies a name which does not resolve at the
 * moment lets its owner in. So names are refused when the rules are read. For the same reason a client
 * whose address nobody knows passes no rule at all.
 */
import { BlockList, isIP, isIPv4 } from 'node:net'
import { normalizeAddress } from '../lib/peer.ts'

/** The rules of one place: of the server, or of one table of modules. */
export interface HostRulesConfig {
  readonly allow: readonly string[]
  readonly deny: readonly string[]
}

/**
 * Why `text` is neither an address ("192.0.2.1", "2001:db8::1") nor a network ("192.0.2.0/24"); undefined
 * when it is one.
 */
export function whyNoNetwork(text: string): string | undefined {
  const [address = '', prefix, ...more] = text.split('/')
  if (isIP(address) === 0 || address.includes('%')) {
    return `"${text}" is no address or network, such as "192.0.2.7" or "2001:db8::/32": names are not taken, because a rule on a name fails open when it does not resolve`
  }
  if (prefix === undefined) return undefined
  const longest = isIPv4(address) ? 32 : 128
  if (more.length > 0 || !/^\d{1,3}$/.test(prefix) || Number(prefix) > longest) {
    return `"${text}": a network is an address, "/" and a number of bits from 0 to ${longest}`
  }
  return undefined
}

/**
 * As rsync's own: who is on the allow list is in; else who is on the deny list is out; else all are in,
 * unless there is an allow list and no deny list.
 */
export class HostRules {
  readonly #allow: Networks | undefined
  readonly #deny: Networks | undefined

  /** The lists have passed `whyNoNetwork`. */
  constructor({ allow, deny }: HostRulesConfig) {
    this.#allow = allow.length > 0 ? new Networks(allow) : undefined
    this.#deny = deny.length > 0 ? new Networks(deny) : undefined
  }

  /** @param address as `normalizeAddress` gives it; undefined passes no rule. */
  admits(address: string | undefined): boolean {
    if (!this.#allow && !this.#deny) return true
    if (address === undefined) return false
    if (this.#allow?.has(address)) return true
    return this.#deny !== undefined && !this.#deny.has(address)
  }
}

/**
 * Addresses and networks, each kind by itself: one BlockList takes every IPv4 address for part of ::/0, so
 * that a rule on IPv6 would hold for IPv4 clients. `::ffff:192.0.2.0/120` is a network of IPv4.
 */
class Networks {
  readonly #lists = { ipv4: new BlockList(), ipv6: new BlockList() }

  constructor(texts: readonly string[]) {
    for (const text of texts) {
      const [written = '', bits] = text.split('/')
      const address = normalizeAddress(written)
      if (address === undefined) throw new Error(`"${text}" has not been checked`)
      const mapped = isIPv4(address) && !isIPv4(written)
      if (bits === undefined) {
        const family = familyOf(address)
        this.#lists[family].addAddress(address, family)
      } else if (mapped && Number(bits) >= MAPPED_BITS) {
        this.#lists.ipv4.addSubnet(address, Number(bits) - MAPPED_BITS, 'ipv4')
      } else {
        const family = familyOf(written)
        this.#lists[family].addSubnet(written, Number(bits), family)
      }
    }
  }

  has(address: string): boolean {
    const family = familyOf(address)
    return this.#lists[family].check(address, family)
  }
}

/** ::ffff:0:0/96 holds the IPv4 addresses. */
const MAPPED_BITS = 96

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIPv4(address) ? 'ipv4' : 'ipv6'
}
