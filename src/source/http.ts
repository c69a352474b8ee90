/**
 * Source over http: and https:. Finds a build's archive and what lies beside it; http-download.ts brings
 * the bytes, http-client.ts asks for them.
 */
import { NotPublished, SourceError } from '../errors.ts'
import { formatSize } from '../lib/units.ts'
import { findChecksum } from './checksum.ts'
import { type Clock, SYSTEM_CLOCK } from './clock.ts'
import { HttpClient, isMissing } from './http-client.ts'
import { HttpDownload } from './http-download.ts'
import { SOURCE_LIMITS, type SourceLimits } from './limits.ts'
import { Retries } from './retry.ts'
import { Rule } from './rule.ts'
import type { Download, LocateOptions, Source, SourceConfig, SourceDeps } from './source.ts'
import { showUrl } from './url.ts'

export class HttpSource implements Source {
  readonly kind = 'archive'
  readonly name: string
  readonly #rule: Rule
  readonly #limits: SourceLimits
  readonly #clock: Clock
  readonly #client: HttpClient

  constructor(config: SourceConfig, deps: SourceDeps) {
    this.name = config.name
    this.#rule = new Rule(config, ['http', 'https'])
    this.#limits = { ...SOURCE_LIMITS, ...deps.limits }
    this.#clock = { ...SYSTEM_CLOCK, ...deps.clock }
    this.#client = new HttpClient(this.#limits, this.#clock)
  }

  offers(id: string): boolean {
    return this.#rule.offers(id)
  }

  async locate(id: string, options: LocateOptions): Promise<Download> {
    const urls = this.#rule.urlsFor(id)
    const archive = await this.#open(id, urls.archive, options)
    try {
      const { checksumBytes, contentsBytes } = this.#limits
      const read = (url: URL) => this.#readSmall(url, checksumBytes, options)
      const checksum = await findChecksum(urls.archive, urls.checksum, read, options.onEvent)
      return {
        url: showUrl(urls.archive),
        size: archive.size,
        checksum,
        contents: async () => {
          if (!urls.contents) return undefined
          const bytes = await this.#readSmall(urls.contents, contentsBytes, options)
          if (bytes) return bytes
          throw new SourceError(`the contents file ${showUrl(urls.contents)} does not exist`, {
            hint: "Remove or correct the source's contents key. Upstream may also be half published: try later.",
          })
        },
        bytes: () => archive.bytes(),
        [Symbol.asyncDispose]: () => archive[Symbol.asyncDispose](),
      }
    } catch (error) {
      await archive[Symbol.asyncDispose]()
      throw error
    }
  }

  async #open(id: string, url: URL, { signal, spool, onEvent }: LocateOptions): Promise<HttpDownload> {
    const [client, limits, clock] = [this.#client, this.#limits, this.#clock]
    try {
      return await HttpDownload.open({ client, url, limits, clock, signal, spool, onEvent })
    } catch (error) {
      if (!isMissing(error)) throw error
      throw new NotPublished(`build-${id} is not published by ${this.name} (${showUrl(url)})`, {
        cause: error,
      })
    }
  }

  /** A file beside the archive, whole; undefined when there is none. */
  async #readSmall(
    url: URL,
    limit: number,
    { signal, onEvent }: LocateOptions,
  ): Promise<Uint8Array | undefined> {
    const what = showUrl(url)
    const [limits, clock] = [this.#limits, this.#clock]
    const retries = new Retries({ what, attempts: limits.attemptsToStart, limits, clock, signal, onEvent })
    return await retries.run(async () => {
      try {
        const chunks: Uint8Array[] = []
        let size = 0
        for await (const chunk of (await this.#client.ask(url, {}, signal)).chunks()) {
          size += chunk.length
          if (size > limit) throw new SourceError(`${what} is larger than ${formatSize(limit)}`)
          chunks.push(chunk)
        }
        return Buffer.concat(chunks)
      } catch (error) {
        if (isMissing(error)) return undefined
        throw error
      }
    })
  }
}
