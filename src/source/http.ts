/**
 * Source over http: and https:. Finds a build's archive and what lies beside it; http-download.ts brings
 * the bytes, http-client.ts asks for them.
 */
import { ConfigError, NotPublished, SourceError, UpstreamUnreachable } from '../errors.ts'
import { Pacer } from '../lib/pacer.ts'
import { formatSize } from '../lib/units.ts'
import { type Clock, SYSTEM_CLOCK } from './clock.ts'
import { HttpClient, isMissing, readWhole } from './http-client.ts'
import { HttpDownload } from './http-download.ts'
import { limitsFor, type SourceLimits } from './limits.ts'
import { type ListedName, namesIn } from './names.ts'
import { Pace } from './pace.ts'
import { Retries } from './retry.ts'
import { type BuildUrls, Rule } from './rule.ts'
import { listUrl, parseListing, signer } from './s3.ts'
import type { Download, LocateOptions, Source, SourceConfig, SourceDeps, SourceListing } from './source.ts'
import { TrustRule } from './trust.ts'
import { besideIn, schemeOf, showTemplate, showUrl } from './url.ts'
import { findArchives, findStarsIn, listingOf, type ReadNames } from './walk.ts'

/** Of a bucket's list. */
const MAX_PAGES = 1000

export class HttpSource implements Source {
  readonly kind = 'archive'
  readonly name: string
  readonly #rule: Rule
  readonly #trust: TrustRule
  readonly #list: string | undefined
  readonly #isBucket: boolean
  /** The host that archives are on, and the password for it. */
  readonly #base: URL
  readonly #limits: SourceLimits
  readonly #clock: Clock
  readonly #client: HttpClient
  readonly #pace: Pace | undefined

  /** @param isBucket requests are signed, and directories listed, as S3 has it. */
  constructor(config: SourceConfig, deps: SourceDeps, isBucket = false) {
    this.#isBucket = isBucket
    this.name = config.name
    this.#rule = new Rule(config, ['http', 'https'])
    this.#trust = new TrustRule(config)
    this.#list = config.list
    this.#base = new URL(config.url.replace(/^([^:]*:\/\/[^/?#]*).*$/s, '$1'))
    if (this.#list !== undefined && this.#list !== 'directories') checkListUrl(config.name, this.#list)
    this.#limits = limitsFor(config, deps.limits)
    this.#clock = { ...SYSTEM_CLOCK, ...deps.clock }
    this.#client = new HttpClient(
      this.#limits,
      this.#clock,
      config.http,
      isBucket ? signer(config.s3) : undefined,
      deps.rests,
    )
    this.#pace = config.rates?.length
      ? new Pace(config.rates, deps.pace ?? Pace.memory(), this.#clock)
      : undefined
  }

  offers(id: string): boolean {
    return this.#rule.offers(id)
  }

  async locate(id: string, options: LocateOptions): Promise<Download> {
    const urls = await this.#urlsFor(id, options)
    const archive = await this.#open(id, urls, options)
    try {
      const { checksumBytes, contentsBytes } = this.#limits
      const read = (url: URL) => this.#readBeside(url, urls, archive, checksumBytes, options)
      const trust = await this.#trust.find(urls, read, options.onEvent)
      archive.isChecked = trust.checksum !== undefined || trust.signature !== undefined
      return {
        url: showUrl(urls.archive),
        size: archive.size,
        ...trust,
        contents: async () => {
          if (!urls.contents) return undefined
          const bytes = await this.#readBeside(urls.contents, urls, archive, contentsBytes, options)
          if (bytes) return bytes
          throw new SourceError(`the contents file ${showUrl(urls.contents)} does not exist`, {
            hint: "Remove or correct the source's contents key. Upstream may also be half published: try later.",
          })
        },
        bytes: () => archive.bytes(),
        last: (count) => archive.last(count),
        [Symbol.asyncDispose]: async () => {
          await trust.signature?.abort()
          await archive[Symbol.asyncDispose]()
        },
      }
    } catch (error) {
      await archive[Symbol.asyncDispose]()
      throw error
    }
  }

  async list(signal: AbortSignal): Promise<SourceListing | undefined> {
    if (this.#list === undefined) return undefined
    const options = { signal, onEvent: () => {} }
    const read: ReadNames = (directory, mustExist) => this.#readNames(directory, mustExist, options)
    if (this.#list !== 'directories') {
      const names = await this.#readIndex(new URL(this.#list), true, options)
      return await listingOf(this.#rule, names ?? [], this.#limits, new Pacer(signal))
    }
    const found = await findArchives(this.#rule, this.#base, read, this.#limits, signal)
    if (!found) return undefined
    const builds = found.archives
      .slice(0, this.#limits.listBuilds)
      .map(({ id, url, changed }) => ({ id, url: showUrl(url), published: changed }))
    return { builds, complete: found.complete && builds.length === found.archives.length }
  }

  async #urlsFor(id: string, options: LocateOptions): Promise<BuildUrls> {
    const urls = this.#rule.urlsFor(id)
    if (!this.#rule.hasStars) return urls
    const read: ReadNames = (directory) => this.#readNames(directory, false, options)
    const stars = await findStarsIn([urls.archive, ...urls.mirrors], read, this.#limits, options.signal)
    if (stars) return this.#rule.urlsFor(id, stars)
    throw new NotPublished(
      `build-${id} is not published by ${this.name} (nothing matches ${showUrl(urls.archive)})`,
    )
  }

  async #readNames(
    directory: URL,
    mustExist: boolean,
    options: LocateOptions,
  ): Promise<ListedName[] | undefined> {
    if (!this.#isBucket) return await this.#readIndex(directory, mustExist, options)
    // The bucket itself is a directory with a slash behind its name; above it there is nothing to list.
    const names: ListedName[] = []
    let continuation: string | undefined
    let pages = 0
    do {
      const bytes = await this.#readSmall(listUrl(directory, continuation), this.#limits.indexBytes, options)
      if (!bytes) throw new SourceError(`${showUrl(directory)} is no bucket`)
      const page = await parseListing(Buffer.from(bytes).toString('utf8'))
      names.push(...page.names)
      continuation = page.continuation
      // A page has up to a thousand names; one that goes on for ever with none is no list.
      pages++
    } while (continuation !== undefined && names.length < this.#limits.listNames && pages < MAX_PAGES)
    return names
  }

  /** The names that an index page, or a list, tells. */
  async #readIndex(url: URL, mustExist: boolean, options: LocateOptions): Promise<ListedName[] | undefined> {
    const bytes = await this.#readSmall(url, this.#limits.indexBytes, options)
    if (bytes) {
      const reading = { most: this.#limits.listNames, pacer: new Pacer(options.signal) }
      return await namesIn(Buffer.from(bytes).toString('utf8'), url, reading)
    }
    if (!mustExist) return undefined
    throw new SourceError(`${showUrl(url)} does not exist`, { hint: "Correct the source's list or url key." })
  }

  async #open(
    id: string,
    { archive: url, mirrors }: BuildUrls,
    { signal, spool, onEvent }: LocateOptions,
  ): Promise<HttpDownload> {
    const [client, limits, clock] = [this.#client, this.#limits, this.#clock]
    try {
      return await HttpDownload.open({
        client,
        url,
        mirrors,
        pace: this.#pace,
        limits,
        clock,
        signal,
        spool,
        onEvent,
      })
    } catch (error) {
      if (!isMissing(error)) throw error
      throw new NotPublished(`build-${id} is not published by ${this.name} (${showUrl(url)})`, {
        cause: error,
      })
    }
  }

  /**
   * A file beside the archive: where the source says, or if that cannot be had there, beside a mirror's. A mirror
   * without TLS does not stand in for who has it; and that there is no such file is believed of no mirror but the
   * one that sends the archive, as others may lack anything.
   */
  async #readBeside(
    url: URL,
    { archive, mirrors }: BuildUrls,
    { place }: HttpDownload,
    limit: number,
    options: LocateOptions,
  ): Promise<Uint8Array | undefined> {
    const others = [place, ...mirrors].filter((mirror) => mirror !== archive)
    const there = new Map(others.map((mirror) => [mirror.href, besideIn(mirror, archive, url)]))
    try {
      const attempts = place === archive ? undefined : 1
      return await this.#readSmall(url, limit, options, attempts)
    } catch (error) {
      if (!(error instanceof UpstreamUnreachable)) throw error
      for (const [mirror, one] of there) {
        if (!one || !isAsSafe(one, url)) continue
        try {
          const found = await this.#readSmall(one, limit, options)
          if (found || mirror === place.href) return found
        } catch (failure) {
          if (!(failure instanceof UpstreamUnreachable)) throw failure
        }
      }
      throw error
    }
  }

  /** A small file, whole; undefined when there is none. */
  async #readSmall(
    url: URL,
    limit: number,
    { signal, onEvent }: LocateOptions,
    attempts = this.#limits.attemptsToStart,
  ): Promise<Uint8Array | undefined> {
    const what = showUrl(url)
    const [limits, clock] = [this.#limits, this.#clock]
    const retries = new Retries({ what, attempts, limits, clock, signal, onEvent })
    return await retries.run(async () => {
      try {
        const answer = await this.#client.ask(url, {}, signal)
        return await readWhole(
          answer,
          limit,
          () => new SourceError(`${what} is larger than ${formatSize(limit)}`),
        )
      } catch (error) {
        if (isMissing(error)) return undefined
        throw error
      }
    })
  }
}

function isAsSafe(mirror: URL, place: URL): boolean {
  return mirror.protocol === 'https:' || place.protocol === 'http:'
}

function checkListUrl(name: string, list: string): void {
  if (URL.canParse(list) && ['http', 'https'].includes(schemeOf(list))) return
  throw new ConfigError(
    `source "${name}": list "${showTemplate(list)}" is neither "directories" nor an http URL`,
  )
}
