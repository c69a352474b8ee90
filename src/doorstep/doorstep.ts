/**
 * The doorstep: what has to be said before rsync or HTTP begins on a connection. A proxy names its client, and TLS
 * is agreed on; from then on it is known who the client is.
 *
 * Who says something else than what belongs here is told so in plain words by the door (`PeerError`); where TLS
 * itself fails nobody is left to tell (`ConnectionLost`). A client whose certificate is not good enough comes in as
 * far as it takes to hear that. All of it has one time limit.
 */
import { constants } from 'node:crypto'
import type { Socket } from 'node:net'
import { createServer, type Server, type TLSSocket } from 'node:tls'
import { AccessDenied, ConnectionLost, PeerError } from '../errors.ts'
import type { Decoded } from '../lib/byte-reader.ts'
import { type Peer, peerFrom, peerOf } from '../lib/peer.ts'
import { Slices } from '../lib/slices.ts'
import type { Certificates, Credentials } from './certificates.ts'
import { deviceNames } from './device-names.ts'
import { decodeProxyHeader, looksLikeProxyHeader, type Proxied } from './proxy-header.ts'

/** Whether clients show certificates. One that is shown must be right in any case. */
export type ClientCerts = 'off' | 'optional' | 'required'

export interface TlsSide {
  readonly certificates: Certificates
  readonly clientCerts: ClientCerts
  /** Devices by the names in their certificates; undefined: those are the devices' names. */
  readonly devices: Readonly<Record<string, string>> | undefined
}

/** What holds for connections from now on. */
export interface DoorstepPlan {
  /** Whether connections from an address come through a proxy, and so begin with its header. */
  isProxy(address: string | undefined): boolean
  /** Undefined: there is no TLS here. */
  readonly tls: TlsSide | undefined
}

/** A connection on which the protocol may begin. */
export interface Arrival {
  readonly socket: Socket
  readonly peer: Peer
  /** Why the client may have nothing at all: the door says so, and no more. */
  readonly refusal: AccessDenied | undefined
}

/** The first byte of every TLS connection: a record of the handshake. */
const TLS_HANDSHAKE = 0x16
/** No proxy's header is larger. */
const MAX_PREFACE = 8192

interface Handshake {
  resolve(secured: TLSSocket): void
  reject(error: Error): void
}

export class Doorstep {
  #plan: DoorstepPlan
  /** Names the protocol behind TLS to clients that ask. */
  readonly #alpn: string | undefined
  /** Never listens: it makes TLS of connections that are handed to it. Replaced when certificates are. */
  #server: Server | undefined
  #madeOf: { credentials: Credentials; clientCerts: ClientCerts } | undefined
  /** A handshake costs about half a millisecond of our thread, and a crowd may begin theirs at once. */
  readonly #slices = new Slices()
  /** Handshakes under way, by both ends of their connections. */
  readonly #handshakes = new Map<string, Handshake>()

  constructor(plan: DoorstepPlan, alpn?: string) {
    this.#plan = plan
    this.#alpn = alpn
  }

  get speaksTls(): boolean {
    return this.#plan.tls !== undefined
  }

  /** What holds for connections that come from now on. */
  change(plan: DoorstepPlan): void {
    this.#plan = plan
  }

  isProxy(peer: Peer): boolean {
    return this.#plan.isProxy(peer.address)
  }

  /** Whether the protocol can't begin at once. */
  hasToWait(peer: Peer): boolean {
    return this.speaksTls || this.isProxy(peer)
  }

  /**
   * Hears what comes before the protocol.
   * @throws PeerError for what doesn't belong here, with the connection still open; ConnectionLost.
   */
  async meet(socket: Socket, withinMs: number): Promise<Arrival> {
    // Whoever waits for something sees that the socket closes; nothing else may hear of an error.
    socket.on('error', () => {})
    let late = false
    const timer = setTimeout(() => {
      late = true
      socket.destroy()
    }, withinMs)
    try {
      return await this.#hear(socket)
    } catch (error) {
      if (late) throw new ConnectionLost('the client did not begin in time')
      if (!(error instanceof PeerError)) socket.destroy()
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  async #hear(socket: Socket): Promise<Arrival> {
    const { tls, isProxy } = this.#plan
    const next = peerOf(socket)
    const proxied = isProxy(next.address) ? await readPreface(socket, decodeProxyHeader) : undefined
    const peer = proxied ? peerBehind(next, proxied) : next
    if (!tls) return { socket, peer, refusal: undefined }
    await readPreface(socket, (bytes) => expectTls(bytes, next))
    await this.#slices.turn()
    const secured = await this.#shakeHands(socket, tls)
    const certificate = secured.getPeerX509Certificate() && secured.getPeerCertificate()
    const devices = certificate && secured.authorized ? deviceNames(certificate, tls.devices) : []
    return {
      socket: secured,
      peer: { ...peer, devices, tls: true },
      refusal: whyRefused(tls, certificate !== undefined, secured, devices),
    }
  }

  async #shakeHands(socket: Socket, tls: TlsSide): Promise<TLSSocket> {
    // While it waited for its turn nobody listened, and it does not close twice.
    if (socket.destroyed) throw new ConnectionLost('the client left before the TLS handshake')
    const server = this.#serverFor(tls)
    const key = endsOf(socket)
    return await new Promise<TLSSocket>((resolve, reject) => {
      this.#handshakes.set(key, { resolve, reject })
      socket.once('close', () => reject(new ConnectionLost('the client left during the TLS handshake')))
      // Who ends its side before TLS is agreed on has left; later on it has just said all that it has to say.
      socket.allowHalfOpen = false
      server.emit('connection', socket)
    }).finally(() => this.#handshakes.delete(key))
  }

  #serverFor({ certificates, clientCerts }: TlsSide): Server {
    const credentials = certificates.current
    const isOld = this.#madeOf?.credentials !== credentials || this.#madeOf.clientCerts !== clientCerts
    if (this.#server && !isOld) return this.#server
    const { cert, key, clientCa } = credentials
    // With keys for tickets of its own: nobody goes on with what other authorities vouched for.
    const server = createServer({
      cert,
      key,
      ...(clientCa && clientCerts !== 'off' ? { ca: clientCa, requestCert: true } : {}),
      rejectUnauthorized: false, // `refusal` says more than a closed connection
      minVersion: 'TLSv1.2',
      secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
      ...(this.#alpn === undefined ? {} : { ALPNProtocols: [this.#alpn] }),
    })
    server.on('secureConnection', (secured) => {
      secured.on('error', () => {}) // until the door listens for errors
      secured.allowHalfOpen = true
      this.#handshakes.get(endsOf(secured))?.resolve(secured)
    })
    server.on('tlsClientError', (error, secured) => {
      this.#handshakes.get(endsOf(secured))?.reject(new ConnectionLost(describe(error), { cause: error }))
    })
    this.#server = server
    this.#madeOf = { credentials, clientCerts }
    return server
  }
}

/** Both ends of a connection. They stay known when it is broken, as long as they were asked for before. */
function endsOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return [remoteAddress, remotePort, localAddress, localPort].join(' ')
}

function peerBehind(proxy: Peer, proxied: Proxied): Peer {
  if (proxied.type === 'proxy') return proxy
  return proxied.type === 'client' ? peerFrom(proxied.address, proxied.port) : peerFrom(undefined, undefined)
}

function expectTls(bytes: Uint8Array, { address }: Peer): Decoded<undefined> | undefined {
  if (bytes.length === 0) return undefined
  if (bytes[0] === TLS_HANDSHAKE) return { value: undefined, size: 0 }
  if (looksLikeProxyHeader(bytes)) throw new PeerError('proxy-header', unexpectedProxy(address))
  throw new PeerError('tls', 'this port speaks TLS, and the client does not')
}

/** Of who sends a proxy's header and is none that we know. */
export function unexpectedProxy(address: string | undefined): string {
  return `a PROXY header came from ${address ?? 'an unknown address'}, which is not listed in proxy_protocol_from`
}

function whyRefused(
  { clientCerts, devices: names }: TlsSide,
  hasCertificate: boolean,
  { authorized, authorizationError }: TLSSocket,
  devices: readonly string[],
): AccessDenied | undefined {
  if (clientCerts === 'off') return undefined
  if (!hasCertificate) {
    return clientCerts === 'required'
      ? new AccessDenied('this server asks for a certificate of the client, and it showed none')
      : undefined
  }
  if (!authorized)
    return new AccessDenied(`the certificate of the client is not accepted (${authorizationError})`)
  return clientCerts === 'required' && names && devices.length === 0
    ? new AccessDenied('the certificate of the client names no device that is known here')
    : undefined
}

/**
 * Reads what a decoder takes off the start of a connection; what is behind it stays there.
 * @throws what the decoder throws; ConnectionLost when the connection ends first.
 */
function readPreface<T>(socket: Socket, decode: (bytes: Buffer) => Decoded<T> | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    let seen = Buffer.alloc(0)
    const settle = (act: () => void): void => {
      socket.off('readable', look)
      socket.off('end', onEnd)
      socket.off('close', onEnd)
      act()
    }
    const onEnd = (): void => settle(() => reject(new ConnectionLost('the client left before it began')))
    const look = (): void => {
      try {
        for (let piece = socket.read() as Buffer | null; piece; piece = socket.read() as Buffer | null) {
          seen = Buffer.concat([seen, piece])
          const got = decode(seen)
          if (!got && seen.length <= MAX_PREFACE) continue
          if (!got) throw new PeerError('preface', `longer than ${MAX_PREFACE} bytes`)
          settle(() => {
            if (got.size < seen.length) socket.unshift(seen.subarray(got.size))
            resolve(got.value)
          })
          return
        }
      } catch (error) {
        settle(() => reject(error))
      }
    }
    socket.on('readable', look)
    socket.once('end', onEnd)
    socket.once('close', onEnd)
    if (socket.readableLength > 0) look()
    else if (socket.destroyed || socket.readableEnded) onEnd()
  })
}

/** OpenSSL's own words are a path through its sources; what it means stands behind the last colon. */
function describe(error: NodeJS.ErrnoException & { reason?: string }): string {
  if (error.code === 'ECONNRESET') return 'the client left during the TLS handshake'
  const reason = error.reason ?? error.message.trim().split(':').filter(Boolean).at(-1) ?? error.code
  return `TLS could not be agreed on: ${reason}`
}
