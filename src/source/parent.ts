/**
 * Source over upserv: and upservs:, another server of ours. It has no archives: it says what a build is made
 * of, and hands out the blobs that we lack, which an earlier version of theirs helps to compress.
 *
 * A broken answer costs the span under way. What was had is kept in the spool as the blobs' bytes, one after
 * the other in the order in which they were asked for, so a later process goes on within a large file.
 * Nothing here looks at a digest: who takes the bytes does.
 */
import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { zstdDecompress } from 'node:zlib'
import {
  ConfigError,
  NotPublished,
  SourceError,
  UpstreamChanged,
  UpstreamRefused,
  UpstreamUnreachable,
} from '../errors.ts'
import { StreamReader } from '../lib/stream-reader.ts'
import { formatSize } from '../lib/units.ts'
import { type Clock, SYSTEM_CLOCK } from './clock.ts'
import { timeIn } from './dates.ts'
import { type Answer, type Asked, HttpClient, isMissing, readWhole } from './http-client.ts'
import { header } from './http-headers.ts'
import { limitsFor, type SourceLimits } from './limits.ts'
import { Pace } from './pace.ts'
import {
  answerLine,
  type BuildLine,
  encodeBlobRequest,
  listAnswer,
  MAX_ANSWER_LINE,
  MAX_SEALS,
  MAX_WANTED,
  mostCompressed,
  PARENT_PATH,
  SPAN_BYTES,
  SPAN_HEAD_BYTES,
  type Span,
  spansOf,
} from './parent-wire.ts'
import { Retries, type RetryOptions, Transient } from './retry.ts'
import { compilePattern } from './rule.ts'
import type { LocateOptions, SourceConfig, SourceDeps, SourceListing } from './source.ts'
import type { Spool } from './spool.ts'
import { schemeOf, showTemplate, showUrl } from './url.ts'

const decompress = promisify(zstdDecompress)

/** A listing of some ten thousand builds. */
const MAX_LIST_BYTES = 8 << 20

/** Lines before a parent has the build: two days of them, as it says one every second and a half. */
const MAX_SAID = 115_200

/** A parent that gets the build itself says so every second and a half: it is not to be less patient than that. */
const LEAST_STALL_MS = 3_000

/** A manifest that we have: what it is named by, and how it is had. */
export interface HeldManifest {
  seal: string
  bytes(): Promise<Uint8Array | undefined>
}

export interface OfferOptions extends LocateOptions {
  /** Those of held builds, most alike first. */
  held: readonly HeldManifest[]
}

/** A blob that is to be had. */
export interface WantedBlob {
  digest: Uint8Array
  size: number
  /** An earlier version of it, in the build that the manifest was compressed with. */
  base: { digest: Uint8Array; size: number } | undefined
}

export interface BlobsOptions {
  spool: Spool
  /** Reads of an earlier version; undefined when it is gone. */
  readBase(digest: Uint8Array, offset: number, bytes: number): Promise<Uint8Array | undefined>
}

/** A file that holds a whole offer. */
export interface BundleFile {
  /** Undefined for what can't be read a second time. */
  url: string | undefined
  /** Hex. */
  sha256: string
}

/** What a parent says that a build is. */
export interface Offer {
  /** Where it comes from, for people. */
  readonly url: string
  readonly manifest: Uint8Array
  /** The seal of the manifest that it was compressed with, whose build's blobs can serve as earlier versions. */
  readonly base: string | undefined
  readonly contentsSha256: string
  /** Who vouches for it, as the parent knows. */
  readonly vouchers: readonly string[]
  /** Bytes that came over the link so far. */
  readonly linkBytes: number
  /** What all of it was read from, if that was a file: known when there are no more blobs. */
  readonly file?: BundleFile | undefined
  /** Upstream's contents file. */
  contents(): Promise<Uint8Array>
  /** The blobs' bytes, one blob after the other. */
  blobs(wanted: readonly WantedBlob[], options: BlobsOptions): AsyncGenerator<Uint8Array, void, undefined>
}

export class ParentSource {
  readonly kind = 'parent'
  readonly name: string
  readonly #pattern: RegExp
  readonly #url: URL
  readonly #limits: SourceLimits
  readonly #clock: Clock
  readonly #client: HttpClient
  readonly #pace: Pace | undefined

  constructor(config: SourceConfig, deps: SourceDeps) {
    this.name = config.name
    this.#pattern = compilePattern(config)
    const scheme = schemeOf(config.url) === 'upservs' ? 'https' : 'http'
    const text = config.url.replace(/^[^:]*/, scheme)
    if (!URL.canParse(text) || !/^\/?$/.test(new URL(text).pathname) || text.includes('{')) {
      throw new ConfigError(`source "${config.name}": "${showTemplate(config.url)}" does not name a server`, {
        hint: 'A parent is the HTTP port of another upserv, as in upserv://school.example.org:8730.',
      })
    }
    this.#url = new URL(text)
    const { stallMs, attempts } = config
    this.#limits = limitsFor(
      { stallMs: stallMs === undefined ? undefined : Math.max(stallMs, LEAST_STALL_MS), attempts },
      deps.limits,
    )
    this.#clock = { ...SYSTEM_CLOCK, ...deps.clock }
    this.#client = new HttpClient(this.#limits, this.#clock, config.http, undefined, deps.rests)
    this.#pace = config.rates?.length
      ? new Pace(config.rates, deps.pace ?? Pace.memory(), this.#clock)
      : undefined
  }

  offers(id: string): boolean {
    return this.#pattern.test(id)
  }

  /** Asks for the build, and waits while the parent gets it. @throws NotPublished, SourceError */
  async offer(id: string, options: OfferOptions): Promise<Offer> {
    const held = options.held.slice(0, MAX_SEALS)
    try {
      return await this.#retries(options).run(() => this.#ask(id, options, held))
    } catch (error) {
      if (!isMissing(error)) throw error
      throw new NotPublished(`build-${id} is not published by ${this.name} (${showUrl(this.#url)})`, {
        cause: error,
      })
    }
  }

  async list(signal: AbortSignal): Promise<SourceListing> {
    const url = this.#at('/builds')
    const retries = this.#retries({ signal, onEvent: () => {} })
    const text = await retries.run(async () => {
      const bytes = await this.#small(url, {}, MAX_LIST_BYTES, signal)
      return bytes.toString('utf8')
    })
    const parsed = listAnswer.safeParse(parseJson(text))
    if (!parsed.success) throw this.#garbled('the list of its builds')
    const builds = parsed.data.builds
      .filter(({ id }) => this.offers(id))
      .map(({ id, published }) => ({
        id,
        url: `${this.#shown}${id}`,
        // As in all lists: what is no time is as good as none.
        published: published === null ? undefined : timeIn(published),
      }))
    return {
      builds: builds.slice(0, this.#limits.listBuilds),
      complete: parsed.data.complete && builds.length <= this.#limits.listBuilds,
    }
  }

  async #ask(id: string, options: OfferOptions, held: readonly HeldManifest[]): Promise<Offer> {
    const { signal, onEvent } = options
    const body = Buffer.from(JSON.stringify({ seals: held.map(({ seal }) => seal) }))
    const url = this.#at(`/builds/${encodeURIComponent(id)}`)
    const reader = new StreamReader((await this.#post(url, body, signal)).chunks())
    try {
      for (let said = 0; ; said++) {
        if (said > MAX_SAID) throw new UpstreamUnreachable(`${this.#shown}${id} keeps us waiting without end`)
        const text = await reader.line(MAX_ANSWER_LINE)
        const line = answerLine.safeParse(parseJson(text ?? ''))
        if (text === undefined) throw new Transient('the answer broke off')
        if (!line.success) throw this.#garbled('what it says of the build')
        if ('say' in line.data) onEvent({ type: 'said', line: line.data.say })
        else if ('error' in line.data) throw this.#refusal(id, line.data.error)
        else return await this.#offerOf(id, options, line.data.build, reader, held)
      }
    } finally {
      await reader.close()
    }
  }

  async #offerOf(
    id: string,
    options: OfferOptions,
    line: BuildLine,
    reader: StreamReader,
    held: readonly HeldManifest[],
  ): Promise<Offer> {
    const sent = await reader.bytes(line.sent)
    if (!sent) throw new Transient('the answer broke off')
    const base = line.base ? held.find(({ seal }) => seal === line.base?.seal) : undefined
    if (line.base && !base) throw this.#garbled('the manifest')
    const dictionary = await base?.bytes()
    // Evicted since we named it: then without it.
    if (base && !dictionary)
      return await this.#ask(
        id,
        options,
        held.filter((one) => one !== base),
      )
    let manifest: Uint8Array
    try {
      manifest = await decompress(sent, {
        maxOutputLength: line.bytes,
        ...(dictionary ? { dictionary } : {}),
      })
    } catch (cause) {
      throw this.#garbled('the manifest', cause)
    }
    if (manifest.length !== line.bytes) throw this.#garbled('the manifest')
    const baseId = line.base?.id ?? null
    const count = (bytes: number): void => {
      linkBytes += bytes
    }
    let linkBytes = sent.length
    return {
      url: `${this.#shown}${id}`,
      manifest,
      base: base?.seal,
      contentsSha256: line.contentsSha256,
      vouchers: line.vouchers.map((voucher) => `${voucher} (says ${this.name})`),
      get linkBytes() {
        return linkBytes
      },
      contents: () => this.#contents(id, line.contentsBytes, { ...options, count }),
      blobs: (wanted, blobsOptions) =>
        this.#blobs(id, baseId, wanted, { ...options, ...blobsOptions, count }),
    }
  }

  async #contents(
    id: string,
    bytes: number,
    { signal, onEvent, count }: LocateOptions & { count(bytes: number): void },
  ): Promise<Uint8Array> {
    const limit = this.#limits.contentsBytes
    if (bytes > limit)
      throw new SourceError(`the contents file of build-${id} is larger than ${formatSize(limit)}`)
    const url = this.#at(`/builds/${encodeURIComponent(id)}/contents`)
    return await this.#retries({ signal, onEvent }).run(async () => {
      const answer = await this.#send(url, { headers: { 'accept-encoding': 'zstd' } }, signal)
      const isPlain = header(answer.headers, 'content-encoding') !== 'zstd'
      const most = isPlain ? bytes : mostCompressed(bytes)
      const sent = await readWhole(answer, most, () => this.#garbled('the contents file'))
      count(sent.length)
      if (isPlain) return sent
      return await decompress(sent, { maxOutputLength: Math.max(1, bytes) }).catch((cause: unknown) => {
        throw this.#garbled('the contents file', cause)
      })
    })
  }

  async *#blobs(
    id: string,
    baseId: string | null,
    wanted: readonly WantedBlob[],
    options: OfferOptions & BlobsOptions & { count(bytes: number): void },
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const { signal, spool, onEvent } = options
    const place = new Place(wanted)
    const url = this.#at(`/builds/${encodeURIComponent(id)}/blobs`)
    const retries = this.#retries(options, this.#limits.attemptsToResume)
    let kept: Spool | undefined = await this.#openSpool(url, wanted, place.total, options)
    if (kept && kept.bytes > 0) {
      onEvent({ type: 'resumed', at: kept.bytes })
      for await (const chunk of spool.prefix()) {
        signal.throwIfAborted()
        place.advance(chunk.length)
        yield chunk
      }
    }
    while (!place.atEnd) {
      try {
        for await (const chunk of this.#batch(url, baseId, place, options)) {
          retries.progressed(chunk.length)
          try {
            await kept?.append(chunk)
          } catch (error) {
            // Who waits for room is told to stop by that: what is held stays for a later start.
            signal.throwIfAborted()
            kept = undefined
            onEvent({ type: 'spool-stopped', reason: (error as Error).message })
            await spool.discard().catch(() => undefined)
          }
          place.advance(chunk.length)
          yield chunk
        }
      } catch (error) {
        if (!(error instanceof Transient)) throw error
        await retries.after(error)
        onEvent({ type: 'resumed', at: place.at })
      }
    }
  }

  /** Asks for as many blobs as one request may, from where we are. Throws Transient when the answer breaks off. */
  async *#batch(
    url: URL,
    baseId: string | null,
    place: Place,
    { signal, readBase, count }: LocateOptions & BlobsOptions & { count(bytes: number): void },
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const { wanted, from, skip } = place.next(MAX_WANTED)
    const body = encodeBlobRequest({
      base: baseId,
      from,
      wanted: wanted.map(({ digest, base }) => ({ digest, base: base?.digest })),
    })
    const reader = new StreamReader((await this.#post(url, Buffer.from(body), signal)).chunks())
    let known = skip
    try {
      const sized = wanted.map(({ size, base }) => ({ size, baseSize: base?.size ?? 0 }))
      for (const span of spansOf(sized, from)) {
        const head = await reader.bytes(SPAN_HEAD_BYTES)
        if (!head) throw new Transient('the answer broke off')
        const sent = head.readUInt32LE(4)
        if (head.readUInt32LE(0) !== span.bytes || sent > mostCompressed(span.bytes))
          throw this.#garbled('a blob')
        const frame = await reader.bytes(sent)
        if (!frame) throw new Transient('the answer broke off')
        count(SPAN_HEAD_BYTES + sent)
        const bytes = await this.#unpack(frame, span, wanted[span.first]!, readBase)
        if (known < bytes.length) yield known > 0 ? bytes.subarray(known) : bytes
        known = Math.max(0, known - bytes.length)
      }
    } finally {
      await reader.close()
    }
  }

  async #unpack(
    frame: Uint8Array,
    span: Span,
    { base }: WantedBlob,
    readBase: BlobsOptions['readBase'],
  ): Promise<Uint8Array> {
    const { dictionary: stretch } = span
    let dictionary: Uint8Array | undefined
    if (base && stretch) {
      dictionary = await readBase(base.digest, stretch.offset, stretch.bytes)
      if (!dictionary) throw new UpstreamChanged('what the download was compressed with is gone')
    }
    try {
      const bytes = await decompress(frame, {
        maxOutputLength: Math.max(1, span.bytes),
        ...(dictionary ? { dictionary } : {}),
      })
      if (bytes.length === span.bytes) return bytes
    } catch (cause) {
      throw this.#garbled('a blob', cause)
    }
    throw this.#garbled('a blob')
  }

  async #openSpool(
    url: URL,
    wanted: readonly WantedBlob[],
    size: number,
    { signal, spool, onEvent }: LocateOptions & BlobsOptions,
  ): Promise<Spool | undefined> {
    const hash = createHash('sha256')
    for (const { digest } of wanted) hash.update(digest)
    const etag = `"${hash.digest('hex')}"`
    try {
      await spool.open({ url: showUrl(url), version: { etag, lastModified: undefined, size } })
      return spool
    } catch (error) {
      signal.throwIfAborted()
      onEvent({ type: 'spool-stopped', reason: (error as Error).message })
      await spool.discard().catch(() => undefined)
      return undefined
    }
  }

  #post(url: URL, body: Uint8Array, signal: AbortSignal): Promise<Answer> {
    return this.#send(
      url,
      { method: 'POST', body, headers: { 'content-type': 'application/octet-stream' } },
      signal,
    )
  }

  /** What a parent refuses, it says why. What it sends comes at the source's pace, whatever it is. */
  async #send(url: URL, asked: Asked, signal: AbortSignal): Promise<Answer> {
    try {
      const answer = await this.#client.ask(url, asked, signal)
      const pace = this.#pace
      if (!pace) return answer
      return {
        status: answer.status,
        headers: answer.headers,
        chunks: () => pace.through(answer.chunks(), signal),
        discard: () => answer.discard(),
      }
    } catch (error) {
      if (error instanceof UpstreamRefused && error.status === 400) {
        // What it had of an earlier build has gone meanwhile.
        throw new UpstreamChanged(`${this.name} does not have any more what the download relied on`)
      }
      throw error
    }
  }

  async #small(url: URL, asked: Asked, limit: number, signal: AbortSignal): Promise<Buffer> {
    const answer = await this.#send(url, asked, signal)
    return await readWhole(answer, limit, () => this.#garbled(`more than ${formatSize(limit)}`))
  }

  #refusal(
    id: string,
    { code, message, hint }: { code: string; message: string; hint?: string | undefined },
  ): Error {
    const text = `${this.name}: ${message}`
    if (code === 'BUILD_UNKNOWN' || code === 'BUILD_NOT_PUBLISHED') {
      return new NotPublished(`build-${id} is not published by ${this.name}: ${message}`)
    }
    // It is stopping, or just starting; or so many are served that our turn did not come.
    if (code === 'COMMAND_REFUSED' || code === 'SERVER_BUSY') return new Transient(message)
    return new SourceError(text, hint === undefined ? {} : { hint })
  }

  #garbled(what: string, cause?: unknown): SourceError {
    return new SourceError(`${showUrl(this.#url)} sends ${what} in a way that is not understood`, {
      hint: 'Is it an upserv of this version, and no proxy between that changes what it sends?',
      cause,
    })
  }

  #retries(
    options: Pick<RetryOptions, 'signal' | 'onEvent'>,
    attempts = this.#limits.attemptsToStart,
  ): Retries {
    const [limits, clock, { signal, onEvent }] = [this.#limits, this.#clock, options]
    return new Retries({ what: showUrl(this.#url), attempts, limits, clock, signal, onEvent })
  }

  #at(path: string): URL {
    const url = new URL(this.#url)
    url.pathname = `${PARENT_PATH}${path}`
    return url
  }

  /** As the operator wrote it, without a password. */
  get #shown(): string {
    return showUrl(this.#url).replace(/^http/, 'upserv')
  }
}

/** Where we are in the blobs' bytes. */
class Place {
  readonly total: number
  readonly #wanted: readonly WantedBlob[]
  #index = 0
  #offset = 0
  at = 0

  constructor(wanted: readonly WantedBlob[]) {
    this.#wanted = wanted
    this.total = wanted.reduce((sum, { size }) => sum + size, 0)
  }

  get atEnd(): boolean {
    return this.#index === this.#wanted.length
  }

  advance(bytes: number): void {
    this.at += bytes
    this.#offset += bytes
    while (!this.atEnd && this.#offset >= this.#wanted[this.#index]!.size) {
      this.#offset -= this.#wanted[this.#index]!.size
      this.#index++
    }
  }

  /** The next blobs, the byte of the first from which they are asked for, and how many from there we have. */
  next(most: number): { wanted: readonly WantedBlob[]; from: number; skip: number } {
    const from = this.#offset - (this.#offset % SPAN_BYTES)
    return { wanted: this.#wanted.slice(this.#index, this.#index + most), from, skip: this.#offset - from }
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
