/**
 * The greeting line: `@RSYNCD: <version>[.<sub>][ <digest> ...]`. docs/rsync-protocol.md, section 1.1.
 */
import { PeerError } from '../../errors.ts'
import type { Decoded } from '../../lib/byte-reader.ts'

/** What this server speaks. */
export const PROTOCOL_MIN = 27
export const PROTOCOL_MAX = 32

export interface Greeting {
  version: number
  /** 0 for released protocols; two pre-releases that differ in it fall back by one version. */
  sub: number
  /** Names of the digests that the peer can use to authenticate; undefined when it sent no list. */
  digests: string[] | undefined
}

/** The first byte of every TLS connection, and of every header of the PROXY protocol, version 2. */
const TLS_HANDSHAKE = 0x16
const PROXY_V2 = 0x0d

/** @throws PeerError when the first byte of a client is one of another protocol, whose lines may never end. */
export function checkFirstByte(bytes: Uint8Array): Decoded<undefined> | undefined {
  if (bytes[0] === TLS_HANDSHAKE)
    throw new PeerError('greeting', 'the client speaks TLS, and this port does not: use that of rsync-ssl')
  if (bytes[0] === PROXY_V2) throw unexpectedProxy()
  return bytes.length > 0 ? { value: undefined, size: 0 } : undefined
}

/** @throws PeerError when the line is no greeting, or a newer client left out what it must send. */
export function parseGreeting(line: string): Greeting {
  const match = /^@RSYNCD: (\d{1,4})(?:\.(\d{1,4}))?(?: (.*))?$/.exec(line.trimEnd())
  if (line.startsWith('PROXY ')) throw unexpectedProxy()
  if (!match) throw new PeerError('greeting', 'the first line is not "@RSYNCD: <version>"')
  const version = Number(match[1])
  if (match[2] === undefined && version >= 30)
    throw new PeerError('greeting', `version ${version} needs a subversion`)
  const digests = match[3]?.split(/ +/).filter(Boolean)
  return { version, sub: Number(match[2] ?? 0), digests: digests?.length ? digests : undefined }
}

function unexpectedProxy(): PeerError {
  return new PeerError(
    'greeting',
    'a PROXY header came from an address that is not listed in proxy_protocol_from',
  )
}

/** Our own greeting. Digests are those for authentication, the strongest first. */
export function formatGreeting(digests: readonly string[]): string {
  return `@RSYNCD: ${PROTOCOL_MAX}.0 ${digests.join(' ')}\n`
}

/**
 * The version that both sides speak.
 * @throws PeerError when the client is older than anything we speak.
 */
export function agreeOnProtocol(client: Greeting): number {
  if (client.version < PROTOCOL_MIN) {
    throw new PeerError(
      'greeting',
      `protocol ${client.version} is older than ${PROTOCOL_MIN}: rsync 2.6.0 or later is needed`,
    )
  }
  // A pre-release of our own version (its sub is not our 0) is not that version: both sides step one back.
  if (client.version === PROTOCOL_MAX && client.sub !== 0) return PROTOCOL_MAX - 1
  return Math.min(client.version, PROTOCOL_MAX)
}
