/**
 * What an archive is to be checked by: the checksum and the signature that were published for it, and what
 * the source requires. What is there must be right, whether it is required or not.
 */
import { ConfigError, SourceError } from '../errors.ts'
import { type FoundChecksum, findChecksum, type ReadBeside } from './checksum.ts'
import type { BuildUrls } from './rule.ts'
import { Keys, type SignatureCheck } from './signature.ts'
import type { Checksum, SourceConfig, SourceEvent } from './source.ts'
import { showUrl, withSuffix } from './url.ts'

export interface Trust {
  checksum: Checksum | undefined
  /** Who has signed the file of checksums. */
  checksumSigner: string | undefined
  /** Of the archive itself. */
  signature: SignatureCheck | undefined
}

/** Tried where no signature is configured, behind the name of the archive and that of its checksum file. */
const SIGNATURE_SUFFIXES = ['.minisig', '.asc', '.sig', '.gpg']

export class TrustRule {
  readonly #checksumRequired: boolean
  readonly #signatureRequired: boolean
  readonly #keys: Keys
  readonly #signs: 'checksum' | 'archive' | undefined

  /** @throws ConfigError */
  constructor(config: SourceConfig) {
    const { name, signature, checksum, keys = [] } = config
    this.#keys = Keys.read(name, keys)
    this.#checksumRequired = config.checksumRequired ?? checksum !== undefined
    this.#signatureRequired = config.signatureRequired ?? (signature !== undefined || keys.length > 0)
    this.#signs =
      signature === undefined ? undefined : signature.includes('{checksum}') ? 'checksum' : 'archive'
    if ((signature !== undefined || this.#signatureRequired) && this.#keys.size === 0) {
      throw new ConfigError(`source "${name}": a signature is to be checked, but there are no keys`, {
        hint: 'Write keys = ["/path/to/key.pub"], of minisign or GPG.',
      })
    }
  }

  /** Finds what there is, and checks what can be checked now. @throws SourceError */
  async find(urls: BuildUrls, read: ReadBeside, onEvent: (event: SourceEvent) => void): Promise<Trust> {
    const found = await findChecksum(urls.archive, urls.checksum, read, onEvent, this.#checksumRequired)
    const trust: Trust = { checksum: found?.checksum, checksumSigner: undefined, signature: undefined }
    if (this.#keys.size === 0) return trust
    const signature = await this.#findSignature(urls, found, read)
    if (!signature) {
      if (!this.#signatureRequired) return trust
      throw new SourceError(`no signature was published for ${showUrl(urls.archive)}`, {
        hint: 'Its source requires one. Upstream may be half published: try later.',
      })
    }
    const ofChecksum = signature.signs === 'checksum'
    const name = showUrl(ofChecksum ? found!.at : urls.archive)
    const check = await this.#keys.check(signature.bytes, { name, signature: showUrl(signature.url) })
    if (!ofChecksum) return { ...trust, signature: check }
    try {
      await check.update(found!.file)
      return { ...trust, checksumSigner: await check.finish() }
    } catch (error) {
      await check.abort()
      throw error
    }
  }

  async #findSignature(urls: BuildUrls, found: FoundChecksum | undefined, read: ReadBeside) {
    const candidates = urls.signature
      ? [{ url: urls.signature, signs: this.#signs! }]
      : SIGNATURE_SUFFIXES.flatMap((suffix) => [
          { url: withSuffix(urls.archive, suffix), signs: 'archive' as const },
          ...(found ? [{ url: withSuffix(found.at, suffix), signs: 'checksum' as const }] : []),
        ])
    for (const { url, signs } of candidates) {
      // A signature of a checksum file that is not there signs nothing.
      if (signs === 'checksum' && !found) continue
      const bytes = await read(url)
      if (bytes) return { url, signs, bytes }
    }
    return undefined
  }
}
