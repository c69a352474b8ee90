/**
 * A server's certificate and its key, and the authorities of its clients, from files. They are read again when they
 * have changed, and together: while a renewal is half written, and after one that can't be right, what was read
 * before holds on.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { createSecureContext } from 'node:tls'
import { ConfigError } from '../errors.ts'
import { readPrivateFile, readPublicFile, stampOf } from '../lib/private-file.ts'

/** A chain, or the authorities of a large fleet, one by one. */
const MAX_BYTES = 4 << 20
const MAX_KEY_BYTES = 64 << 10
/** Files are looked at no more often, however many clients come. */
const LOOK_EVERY_MS = 1000

/** In PEM. */
export interface CertificateFiles {
  /** The server's own first, then those that lead to its authority. */
  readonly cert: string
  readonly key: string
  /** Of authorities whose certificates clients may show; undefined: of none. */
  readonly clientCa: string | undefined
}

/** What belongs together. Another object is another content. */
export interface Credentials {
  readonly cert: Buffer
  readonly key: Buffer
  readonly clientCa: Buffer | undefined
  /** The server's own. */
  readonly certificate: X509Certificate
}

export class Certificates {
  readonly files: CertificateFiles
  readonly #onProblem: (problem: string) => void
  readonly #onChange: (credentials: Credentials) => void
  readonly #now: () => number
  #current: Credentials
  #stamp: string | undefined
  #lookedAt: number
  #told: string | undefined

  /**
   * @param onProblem is told once why what is in the files now is not used.
   * @param onChange is told what was read in place of what was there before.
   * @throws ConfigError that says which file can't be used, and why.
   */
  constructor(
    files: CertificateFiles,
    onProblem: (problem: string) => void,
    onChange: (credentials: Credentials) => void,
    now: () => number = () => performance.now(),
  ) {
    this.files = files
    this.#onProblem = onProblem
    this.#onChange = onChange
    this.#now = now
    this.#stamp = stampsOf(files)
    this.#current = readCredentials(files)
    this.#lookedAt = now()
  }

  /** For a handshake that begins now. Never throws: what is wrong with the files is told. */
  get current(): Credentials {
    if (this.#now() - this.#lookedAt >= LOOK_EVERY_MS) this.#look()
    return this.#current
  }

  #look(): void {
    this.#lookedAt = this.#now()
    try {
      const stamp = stampsOf(this.files)
      if (stamp !== undefined && stamp === this.#stamp) return
      this.#use(readCredentials(this.files))
      this.#stamp = stamp
      this.#told = undefined
    } catch (error) {
      const problem = `what holds is still the certificate that was read before: ${(error as Error).message}`
      if (problem !== this.#told) this.#onProblem(problem)
      this.#told = problem
    }
  }

  #use(next: Credentials): void {
    if (isSame(next, this.#current)) return
    this.#current = next
    this.#onChange(next)
  }
}

/** @throws ConfigError */
export function readCredentials({ cert, key, clientCa }: CertificateFiles): Credentials {
  const certBytes = read('certificate', cert, () => readPublicFile(cert, MAX_BYTES))
  const keyBytes = read('key', key, () => readPrivateFile(key, MAX_KEY_BYTES))
  const [certificate] = parse('certificate', cert, certBytes)
  const privateKey = read('key', key, () => createPrivateKey(keyBytes))
  if (!certificate!.checkPrivateKey(privateKey)) {
    throw new ConfigError(`${key} is not the key of ${cert}`, {
      hint: 'Both are renewed together: name two files of one renewal.',
    })
  }
  const caBytes =
    clientCa === undefined
      ? undefined
      : read('list of authorities', clientCa, () => readPublicFile(clientCa, MAX_BYTES))
  if (clientCa !== undefined) parse('list of authorities', clientCa, caBytes!)
  const credentials = { cert: certBytes, key: keyBytes, clientCa: caBytes, certificate: certificate! }
  // Such as a key that is too short for what the library takes today.
  read('certificate', cert, () => createSecureContext({ cert: certBytes, key: keyBytes }))
  return credentials
}

function read<T>(what: string, path: string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    const { message, code } = cause as NodeJS.ErrnoException
    const why =
      code === 'ERR_MISSING_PASSPHRASE' ? 'a key with a passphrase, which nobody could type' : message
    throw new ConfigError(`the ${what} ${path} cannot be used: ${why}`, { cause })
  }
}

/** All that are in a file; at least one. */
function parse(what: string, path: string, bytes: Buffer): X509Certificate[] {
  const blocks =
    bytes.toString('latin1').match(/-----BEGIN (?:TRUSTED )?CERTIFICATE-----[^-]*-----END/g) ?? []
  if (blocks.length === 0) throw new ConfigError(`the ${what} ${path} holds no certificate in PEM`)
  return blocks.map((block) => read(what, path, () => new X509Certificate(`${block} CERTIFICATE-----\n`)))
}

/** Undefined when a file changed a moment ago. @throws Error when one is not there. */
function stampsOf({ cert, key, clientCa }: CertificateFiles): string | undefined {
  const stamps = [cert, key, ...(clientCa === undefined ? [] : [clientCa])].map(stampOf)
  return stamps.includes(undefined) ? undefined : stamps.join(' ')
}

function isSame(one: Credentials, other: Credentials): boolean {
  const hasCa = one.clientCa !== undefined && other.clientCa !== undefined
  const sameCa = hasCa ? one.clientCa.equals(other.clientCa) : one.clientCa === other.clientCa
  return sameCa && one.cert.equals(other.cert) && one.key.equals(other.key)
}
