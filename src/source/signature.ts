/**
 * Signatures: minisign's, and those of OpenPGP by gpgv. Whose keys are good, the configuration says; here is
 * who signed, and whether that is what was signed. What is signed passes through once, as it is downloaded.
 *
 * A minisign signature is over the BLAKE2b-512 of a file, or in its old form over the file itself; as Ed25519
 * wants all of its message at once, the old form is only taken for small files. Both that and the signature
 * over the trusted comment are checked. gpgv trusts every key of the keyring that it is given, and no other.
 */
import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { ConfigError, SignatureBad, ToolMissing } from '../errors.ts'
import { asBuffer, ascii, byteString, showBytes } from '../lib/bytes.ts'
import { type ConfinedProcess, DECOMPRESSOR_MEMORY, spawnConfined } from '../lib/confined.ts'
import { findProgram } from '../lib/find-program.ts'

/** A file of keys: a keyring of a distribution is below 100 kB. */
const MAX_KEYS_BYTES = 16 << 20
/** A file that an old minisign signature may be of. */
const MAX_WHOLE_BYTES = 16 << 20
/** A signature: even with many signers it is a few kilobytes. */
const MAX_SIGNATURE_BYTES = 64 << 10
const MAX_STATUS_BYTES = 64 << 10
const MAX_COMMENT = 200

/** Before an Ed25519 key, to make it one that node:crypto reads (RFC 8410). */
const ED25519_SPKI = Buffer.from('302a300506032b6570032100', 'hex')

interface MinisignKey {
  id: string
  key: KeyObject
}

/** The keys that a source accepts. */
export class Keys {
  readonly #minisign: MinisignKey[] = []
  /** OpenPGP keys, binary, one behind the other: a keyring. */
  readonly #openpgp: Uint8Array[] = []

  /** Reads key files, of either kind. @throws ConfigError */
  static read(source: string, files: readonly string[]): Keys {
    const keys = new Keys()
    for (const file of files) keys.#add(source, file)
    return keys
  }

  get size(): number {
    return this.#minisign.length + this.#openpgp.length
  }

  /** Begins to check something by this signature. @throws SignatureBad, ToolMissing */
  async check(signature: Uint8Array, what: SignedFile): Promise<SignatureCheck> {
    if (signature.length > MAX_SIGNATURE_BYTES)
      throw new SignatureBad(`${what.signature} is too large for a signature: ${signature.length} bytes`)
    const minisign = parseMinisign(signature)
    if (minisign) return new MinisignCheck(minisign, this.#minisign, what)
    return await GpgvCheck.start(signature, Buffer.concat(this.#openpgp), what)
  }

  #add(source: string, file: string): void {
    let bytes: Buffer
    try {
      bytes = readFileSync(file)
    } catch (cause) {
      throw new ConfigError(
        `source "${source}": the key file ${file} cannot be read: ${(cause as Error).message}`,
        {
          cause,
        },
      )
    }
    if (bytes.length > MAX_KEYS_BYTES)
      throw new ConfigError(`source "${source}": ${file} is too large for keys`)
    const text = bytes.toString('latin1')
    const minisign = parseMinisignKey(text)
    if (minisign) {
      this.#minisign.push(minisign)
    } else if (/-----BEGIN PGP PUBLIC KEY BLOCK-----/.test(text)) {
      this.#openpgp.push(...dearmor(text))
    } else if (((bytes[0] ?? 0) & 0x80) !== 0) {
      this.#openpgp.push(bytes) // Every OpenPGP packet begins with this bit.
    } else {
      throw new ConfigError(`source "${source}": ${file} holds no keys`, {
        hint: 'A key file is that of minisign (.pub), or what `gpg --export` writes, with or without --armor.',
      })
    }
  }
}

/** What is signed, and what its signature is, for messages. */
export interface SignedFile {
  name: string
  signature: string
}

/** Takes the bytes of a file, and says at the end who signed it. */
export interface SignatureCheck {
  update(chunk: Uint8Array): void | Promise<void>
  /** @returns who vouches for it, as in "minisign key 0123456789ABCDEF". @throws SignatureBad */
  finish(): Promise<string>
  /** Lets go of it before the end. */
  abort(): Promise<void>
}

// ---------------------------------------------------------------------------------------------------
// minisign

interface Minisign {
  isHashed: boolean
  id: string
  signature: Buffer
  comment: string
  global: Buffer
}

function parseMinisignKey(text: string): MinisignKey | undefined {
  const line = text.split(/\r?\n/).find((line) => /^[A-Za-z0-9+/]{55,57}=*$/.test(line.trim()))
  const bytes = Buffer.from(line ?? '', 'base64')
  if (bytes.length !== 42 || bytes.toString('latin1', 0, 2) !== 'Ed') return undefined
  const key = createPublicKey({
    key: Buffer.concat([ED25519_SPKI, bytes.subarray(10)]),
    format: 'der',
    type: 'spki',
  })
  return { id: keyId(bytes.subarray(2, 10)), key }
}

function parseMinisign(bytes: Uint8Array): Minisign | undefined {
  const [untrusted, line = '', trusted, global = ''] = asBuffer(bytes).toString('latin1').split(/\r?\n/)
  if (!untrusted?.startsWith('untrusted comment:') || !trusted?.startsWith('trusted comment: '))
    return undefined
  const signature = Buffer.from(line, 'base64')
  const algorithm = signature.toString('latin1', 0, 2)
  const overComment = Buffer.from(global, 'base64')
  if (signature.length !== 74 || overComment.length !== 64 || !/^E[dD]$/.test(algorithm)) return undefined
  return {
    isHashed: algorithm === 'ED',
    id: keyId(signature.subarray(2, 10)),
    signature: signature.subarray(10),
    comment: trusted.slice('trusted comment: '.length),
    global: overComment,
  }
}

/** As minisign writes it. */
function keyId(bytes: Uint8Array): string {
  return Buffer.from(bytes).reverse().toString('hex').toUpperCase()
}

class MinisignCheck implements SignatureCheck {
  readonly #signature: Minisign
  readonly #key: MinisignKey
  readonly #what: SignedFile
  readonly #hash = createHash('blake2b512')
  readonly #whole: Uint8Array[] = []
  #bytes = 0

  constructor(signature: Minisign, keys: readonly MinisignKey[], what: SignedFile) {
    const key = keys.find(({ id }) => id === signature.id)
    if (!key) {
      throw new SignatureBad(
        `${what.signature} is by the minisign key ${signature.id}, which is not one of the source's keys`,
      )
    }
    this.#signature = signature
    this.#key = key
    this.#what = what
  }

  update(chunk: Uint8Array): void {
    this.#bytes += chunk.length
    if (this.#signature.isHashed) {
      this.#hash.update(chunk)
      return
    }
    if (this.#bytes > MAX_WHOLE_BYTES) {
      throw new SignatureBad(
        `${this.#what.signature} is in minisign's old form, which is only taken for small files`,
        {
          hint: 'Sign it again with a minisign from 0.10 on, or sign a file of checksums.',
        },
      )
    }
    this.#whole.push(Uint8Array.from(chunk))
  }

  async finish(): Promise<string> {
    const { isHashed, signature, comment, global, id } = this.#signature
    const message = isHashed ? this.#hash.digest() : Buffer.concat(this.#whole)
    const commented = Buffer.concat([signature, Buffer.from(comment, 'latin1')])
    const { key } = this.#key
    if (!verify(null, message, key, signature) || !verify(null, commented, key, global)) {
      throw new SignatureBad(
        `${this.#what.name} is not what the minisign key ${id} has signed (${this.#what.signature})`,
      )
    }
    return `minisign key ${id} (${showBytes(ascii(comment), MAX_COMMENT)})`
  }

  async abort(): Promise<void> {}
}

// ---------------------------------------------------------------------------------------------------
// OpenPGP

/** The packets of all armored blocks in a text (RFC 9580, section 6.2). */
function dearmor(text: string): Buffer[] {
  const blocks = text.matchAll(
    /-----BEGIN PGP [A-Z ]+-----\r?\n(?:[^\n]+\r?\n)*?\r?\n([A-Za-z0-9+/=\s]*?)(?:\r?\n=[A-Za-z0-9+/]{4})?\s*-----END/g,
  )
  return [...blocks].map(([, base64]) => Buffer.from(base64!, 'base64'))
}

/** gpgv reads the file on its standard input, and says on another one what it found. */
class GpgvCheck implements SignatureCheck {
  readonly #gpgv: ConfinedProcess
  readonly #stdin: Writable
  readonly #directory: string
  readonly #what: SignedFile
  #status = ''

  private constructor(gpgv: ConfinedProcess, directory: string, what: SignedFile) {
    this.#gpgv = gpgv
    this.#directory = directory
    this.#what = what
    this.#stdin = gpgv.child.stdin!
    this.#stdin.on('error', () => undefined) // It ended first, and its status says why.
    ;(gpgv.child.stdio[3] as Readable).setEncoding('utf8').on('data', (text: string) => {
      if (this.#status.length < MAX_STATUS_BYTES) this.#status += text
    })
  }

  static async start(signature: Uint8Array, keyring: Uint8Array, what: SignedFile): Promise<GpgvCheck> {
    if (keyring.length === 0) {
      throw new SignatureBad(`${what.signature} is no minisign signature, and the source has no other keys`)
    }
    const gpgv = await findProgram('gpgv')
    if (gpgv === undefined) throw new ToolMissing('gpgv', 'OpenPGP signatures of', 'gpgv')
    const directory = await mkdtemp(join(tmpdir(), 'upserv-gpgv-'))
    await writeFile(join(directory, 'keys.gpg'), keyring)
    await writeFile(join(directory, 'signature'), signature)
    const child = await spawnConfined(
      gpgv,
      [
        '--homedir',
        directory,
        '--keyring',
        join(directory, 'keys.gpg'),
        '--status-fd',
        '3',
        join(directory, 'signature'),
        '-',
      ],
      {
        stdio: ['pipe', 'ignore', 'ignore', 'pipe'],
        env: { PATH: process.env.PATH, LC_ALL: 'C' },
        ...{ reads: [directory], maxMemoryBytes: DECOMPRESSOR_MEMORY },
      },
    )
    return new GpgvCheck(child, directory, what)
  }

  async update(chunk: Uint8Array): Promise<void> {
    const stdin = this.#stdin
    if (stdin.destroyed || stdin.write(Buffer.from(chunk))) return
    await new Promise<void>((resolve) => {
      const done = (): void => {
        stdin.off('drain', done).off('close', done)
        resolve()
      }
      stdin.on('drain', done).on('close', done)
    })
  }

  async finish(): Promise<string> {
    this.#stdin.end()
    const code = await this.#gpgv.ended
    await this.#tidy()
    const said = (word: string): string | undefined =>
      new RegExp(`^\\[GNUPG:\\] ${word} (.*)$`, 'm').exec(this.#status)?.[1]
    const [fingerprint] = said('VALIDSIG')?.split(' ') ?? []
    // gpgv is content with a key that has expired since: then there is EXPKEYSIG in place of GOODSIG.
    const good = said('GOODSIG')
    if (code === 0 && fingerprint !== undefined && good !== undefined) {
      const user = good.replace(/^\S+ /, '')
      return `gpg key ${fingerprint} (${showBytes(byteString(Buffer.from(user)), MAX_COMMENT)})`
    }
    const { name, signature } = this.#what
    const unknown = said('NO_PUBKEY')
    const expired = said('EXPKEYSIG') ?? said('EXPSIG') ?? said('REVKEYSIG')
    if (said('BADSIG') !== undefined) throw new SignatureBad(`${name} is not what was signed (${signature})`)
    if (unknown !== undefined) {
      throw new SignatureBad(
        `${signature} is by the GPG key ${unknown}, which is not one of the source's keys`,
      )
    }
    if (expired !== undefined)
      throw new SignatureBad(`${signature} is by a GPG key that has expired or was revoked: ${expired}`)
    throw new SignatureBad(`${signature} is no signature that gpgv can check (exit ${code})`)
  }

  async abort(): Promise<void> {
    this.#stdin.destroy()
    this.#gpgv.kill()
    await this.#gpgv.ended.catch(() => undefined)
    await this.#tidy()
  }

  async #tidy(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true })
  }
}
