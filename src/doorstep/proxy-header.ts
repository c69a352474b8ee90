/**
 * The PROXY protocol's header, versions 1 and 2: what a proxy says, before anything else, of the client that it
 * carries. Pure.
 *
 * Only what we need is taken of it, the client's address and port. Of version 2 the rest is looked at as far as
 * its lengths go: a header that does not add up is refused as a whole.
 */
import { isIPv4, isIPv6 } from 'node:net'
import { PeerError } from '../errors.ts'
import type { Decoded } from '../lib/byte-reader.ts'
import { asBuffer } from '../lib/bytes.ts'

/** Where the client comes from; `unknown`: the proxy does not know; `proxy`: the proxy itself, for its checks. */
export type Proxied =
  | { readonly type: 'client'; readonly address: string; readonly port: number }
  | { readonly type: 'unknown' | 'proxy' }

const FIELD = 'proxy-header'
const V1 = Buffer.from('PROXY ')
/** Bytes that begin no other protocol: chosen so by the protocol's authors. */
const V2 = Buffer.from('0d0a0d0a000d0a515549540a', 'hex')
/** With its line end, says the protocol. */
const V1_MAX = 107
const V2_HEAD = 16
/** What follows the head of version 2, at most: proxies add a few hundred bytes. */
const V2_MAX = 4096
const TLV_HEAD = 3

/** Addresses and ports by the byte that names their kind; only streams carry rsync or HTTP. */
const FAMILIES: Record<number, { name: 'none' | 'ipv4' | 'ipv6' | 'unix'; size: number }> = {
  0: { name: 'none', size: 0 },
  17: { name: 'ipv4', size: 12 },
  33: { name: 'ipv6', size: 36 },
  49: { name: 'unix', size: 216 },
}

/** Whether bytes, as far as there are any, begin as a header does. */
export function looksLikeProxyHeader(bytes: Uint8Array): boolean {
  return bytes.length > 0 && (startsLike(bytes, V1) || startsLike(bytes, V2))
}

/** @returns undefined when more bytes are needed. @throws PeerError when this is no header. */
export function decodeProxyHeader(bytes: Uint8Array): Decoded<Proxied> | undefined {
  if (bytes.length === 0) return undefined
  if (startsLike(bytes, V1)) return bytes.length < V1.length ? undefined : decodeV1(bytes)
  if (startsLike(bytes, V2)) return bytes.length < V2_HEAD ? undefined : decodeV2(bytes)
  throw new PeerError(FIELD, 'there is none, and connections from this address begin with one')
}

function startsLike(bytes: Uint8Array, start: Buffer): boolean {
  const size = Math.min(bytes.length, start.length)
  return start.subarray(0, size).equals(bytes.subarray(0, size))
}

function decodeV1(bytes: Uint8Array): Decoded<Proxied> | undefined {
  const text = asBuffer(bytes).toString('latin1', 0, V1_MAX)
  const end = text.indexOf('\r\n')
  if (end < 0) {
    if (text.length < V1_MAX) return undefined
    throw new PeerError(FIELD, `its line is longer than ${V1_MAX} bytes`)
  }
  const size = end + 2
  const line = text.slice(0, end)
  // What comes behind it is to be passed over.
  if (/^PROXY UNKNOWN(?: |$)/.test(line)) return { value: { type: 'unknown' }, size }
  const [, family, address = '', to = '', port, toPort] =
    /^PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})$/.exec(line) ?? []
  const isAddress = family === '4' ? isIPv4 : isIPv6
  if (!isAddress(address) || !isAddress(to) || Number(port) > 65_535 || Number(toPort) > 65_535) {
    throw new PeerError(FIELD, `${JSON.stringify(line)} is no line of version 1`)
  }
  return { value: { type: 'client', address, port: Number(port) }, size }
}

function decodeV2(bytes: Uint8Array): Decoded<Proxied> | undefined {
  const buffer = asBuffer(bytes)
  const versionAndCommand = buffer[12]!
  const kind = buffer[13]!
  const length = buffer.readUInt16BE(14)
  const command = versionAndCommand & 0x0f
  if (versionAndCommand >> 4 !== 2 || command > 1) {
    throw new PeerError(FIELD, `version and command are 0x${versionAndCommand.toString(16)}`)
  }
  const family = FAMILIES[kind]
  // Of a connection of the proxy's own the rest says nothing, whatever it is.
  if (!family && command === 1) throw new PeerError(FIELD, `0x${kind.toString(16)} is no stream of a network`)
  if (length > V2_MAX) throw new PeerError(FIELD, `${length} bytes are more than ${V2_MAX}`)
  const size = V2_HEAD + length
  if (buffer.length < size) return undefined
  if (command === 0) return { value: { type: 'proxy' }, size }
  const { name, size: addresses } = family!
  if (length < addresses) throw new PeerError(FIELD, `${length} bytes hold no addresses of ${name}`)
  checkTlvs(buffer.subarray(V2_HEAD + addresses, size))
  return { value: clientOf(name, buffer.subarray(V2_HEAD)), size }
}

function clientOf(family: 'none' | 'ipv4' | 'ipv6' | 'unix', addresses: Buffer): Proxied {
  if (family === 'ipv4') {
    const address = addresses.subarray(0, 4).join('.')
    return { type: 'client', address, port: addresses.readUInt16BE(8) }
  }
  if (family === 'ipv6') {
    const groups = Array.from({ length: 8 }, (_, n) => addresses.readUInt16BE(2 * n).toString(16))
    return { type: 'client', address: groups.join(':'), port: addresses.readUInt16BE(32) }
  }
  return { type: 'unknown' }
}

/** Type, length and value, one behind the other, to the last byte. */
function checkTlvs(bytes: Buffer): void {
  for (let at = 0; at < bytes.length; ) {
    const end = at + TLV_HEAD > bytes.length ? Infinity : at + TLV_HEAD + bytes.readUInt16BE(at + 1)
    if (end > bytes.length) throw new PeerError(FIELD, 'a TLV goes beyond its end')
    at = end
  }
}
