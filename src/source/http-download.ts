/**
 * A file upstream, downloaded to its end whatever happens to connections on the way.
 *
 * Bytes are yielded once and in order; `#at` counts them. They come from the spool first, then from an
 * answer that starts at or before `#at` (bytes that were had already are skipped). When an answer breaks
 * off, the next one is asked for from `#at` on, with If-Range, so that an upstream whose file changed
 * sends all of it and thereby says so. Bytes of two versions are never put together: if there is no
 * telling, the download ends with UpstreamChanged and whoever asked may start over.
 */
import assert from 'node:assert/strict'
import { SourceError, UpstreamChanged, UpstreamRefused } from '../errors.ts'
import { ascii, showBytes } from '../lib/bytes.ts'
import type { Clock } from './clock.ts'
import { type Answer, type HttpClient, isMissing, readWhole } from './http-client.ts'
import {
  contentLength,
  type FileVersion,
  header,
  isSameVersion,
  parseContentRange,
  strongValidator,
  versionOf,
} from './http-headers.ts'
import type { SourceLimits } from './limits.ts'
import type { Pace } from './pace.ts'
import { Retries, Transient } from './retry.ts'
import type { SourceEvent } from './source.ts'
import type { Spool } from './spool.ts'
import { showUrl, withoutUser } from './url.ts'

export interface DownloadOptions {
  client: HttpClient
  url: URL
  /** Where the same file is to be had as well. */
  mirrors: readonly URL[]
  pace: Pace | undefined
  limits: SourceLimits
  clock: Clock
  signal: AbortSignal
  spool: Spool | undefined
  onEvent(event: SourceEvent): void
}

/** Whatever version it is: somebody checks what comes. */
const ANY_VERSION = Symbol('any version')

/** An answer, and the position in the file of its first byte. */
interface Part {
  answer: Answer
  start: number
}

export class HttpDownload implements AsyncDisposable {
  readonly #options: DownloadOptions
  readonly #version: FileVersion
  /** Learned late when the first answer did not say. */
  #size: number | undefined
  /** Set while bytes are kept on disk. */
  #spool: Spool | undefined
  /** The answer being read, or to be read next. */
  #part: Part | undefined
  #at = 0
  #started = false
  /** Whoever takes the bytes checks them: parts from several mirrors may be put together. */
  isChecked = false
  /** Where we ask, and which of the places have failed since a byte came. */
  #place: URL
  readonly #failed = new Set<URL>()
  /** Whose version it is. */
  readonly #asked: URL
  readonly #givesParts: boolean

  private constructor(
    options: DownloadOptions,
    version: FileVersion,
    part: Part | undefined,
    spool: Spool | undefined,
    place: URL,
    givesParts: boolean,
  ) {
    this.#options = options
    this.#place = place
    this.#asked = place
    this.#version = version
    this.#size = version.size
    this.#part = part
    this.#spool = spool
    this.#givesParts = givesParts
  }

  /** Asks for the file, until there is an answer. Throws UpstreamRefused with 404 when there is no such file. */
  static async open(options: DownloadOptions): Promise<HttpDownload> {
    const { limits, url } = options
    const retries = new Retries({ ...options, what: showUrl(url), attempts: limits.attemptsToStart })
    const { part, version, place } = await retries.run(() => beginAnywhere(options))
    const spool = await openSpool(options, version)
    const { answer, start } = part
    const givesParts = answer.status === 206 || header(answer.headers, 'accept-ranges') === 'bytes'
    if (start <= (spool?.bytes ?? 0))
      return new HttpDownload(options, version, part, spool, place, givesParts)
    answer.discard() // The spool lost what it held, and this answer starts behind it.
    return new HttpDownload(options, version, undefined, spool, place, givesParts)
  }

  get size(): number | undefined {
    return this.#size
  }

  /** Of those that were named, where it was found. */
  get place(): URL {
    return this.#asked
  }

  async *bytes(): AsyncGenerator<Uint8Array, void, undefined> {
    if (this.#started) throw new Error('a download can be read only once')
    this.#started = true
    const { limits, url, signal } = this.#options
    const retries = new Retries({ ...this.#options, what: showUrl(url), attempts: limits.attemptsToResume })
    try {
      for await (const chunk of this.#spooled()) {
        signal.throwIfAborted()
        this.#at += chunk.length
        yield chunk
      }
      for (;;) {
        try {
          this.#part ??= await this.#askAgain()
          for await (const chunk of this.#fresh(this.#part)) {
            if (retries.progressed(chunk.length)) this.#failed.clear()
            await this.#keep(chunk)
            this.#at += chunk.length
            yield chunk
            await this.#options.pace?.spend(chunk.length, signal)
          }
          return
        } catch (error) {
          if (!(error instanceof Transient)) {
            const elsewhere = this.#isElsewhere
            if (this.#failOver(error)) continue
            if (!elsewhere) throw error
            // A mirror that is of no use must not cost the download from where it began.
            this.#place = this.#asked
            await retries.after(new Transient((error as Error).message, { cause: error }))
            continue
          }
          this.#part?.answer.discard()
          this.#part = undefined
          if (this.#at === this.#size) return
          if (!this.#failOver(error)) await retries.after(error)
        }
      }
    } catch (error) {
      if (error instanceof UpstreamChanged) await this.#spool?.discard()
      throw error
    } finally {
      await this[Symbol.asyncDispose]()
    }
  }

  /** Its last bytes, where the upstream gives parts of files; undefined where they cannot be had. */
  async last(count: number): Promise<Uint8Array | undefined> {
    const { client, signal } = this.#options
    const size = this.#size
    if (!this.#givesParts || !size) return undefined
    const start = Math.max(0, size - count)
    try {
      const headers = { range: `bytes=${start}-${size - 1}` }
      const answer = await client.ask(this.#place, { headers }, signal)
      const range = parseContentRange(header(answer.headers, 'content-range'))
      if (answer.status === 206 && range?.start === start && range.total === size)
        return await readWhole(answer, count, () => new Transient('more came than was asked for'))
      answer.discard()
    } catch {
      signal.throwIfAborted()
    }
    return undefined
  }

  /** Goes to another mirror, if there is one that has not failed; otherwise all may be tried again. */
  #failOver(error: unknown): boolean {
    const { url, mirrors, signal, onEvent } = this.#options
    if (
      mirrors.length === 0 ||
      signal.aborted ||
      !(error instanceof Transient || error instanceof SourceError)
    )
      return false
    // Its file is another now: what came is of no use anywhere.
    if (error instanceof UpstreamChanged && !this.#isElsewhere) return false
    this.#failed.add(this.#place)
    const next = [url, ...mirrors].find((place) => !this.#failed.has(place))
    this.#part?.answer.discard()
    this.#part = undefined
    if (!next) {
      this.#failed.clear()
      return false
    }
    this.#place = next
    onEvent({ type: 'mirror', url: showUrl(next), reason: error.message })
    return true
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#part?.answer.discard()
    this.#part = undefined
  }

  /** What the spool holds. A disk that fails meanwhile costs the spool, not the download. */
  async *#spooled(): AsyncGenerator<Uint8Array, void, undefined> {
    if (!this.#spool || this.#spool.bytes === 0) return
    this.#options.onEvent({ type: 'resumed', at: this.#spool.bytes })
    try {
      for await (const chunk of this.#spool.prefix()) yield chunk
    } catch (error) {
      await this.#dropSpool(error)
      this.#part?.answer.discard() // It starts behind the gap.
      this.#part = undefined
    }
  }

  /** The bytes of an answer from `#at` on. Throws Transient when it ends too early. */
  async *#fresh({ answer, start }: Part): AsyncGenerator<Uint8Array, void, undefined> {
    assert(start <= this.#at, 'an answer must not leave a gap')
    let position = start
    for await (const chunk of answer.chunks()) {
      const known = this.#at - position
      position += chunk.length
      if (this.#size !== undefined && position > this.#size) {
        throw new SourceError(`${this.#shown} sends more bytes than the ${this.#size} that it announced`, {
          hint: 'The upstream, or a proxy before it, is at fault.',
        })
      }
      if (known < chunk.length) yield known > 0 ? chunk.subarray(known) : chunk
    }
    if (position < this.#at) throw this.#changed('is shorter now than it was')
    if (this.#size !== undefined && this.#at < this.#size) {
      throw new Transient(`the connection ended at byte ${this.#at} of ${this.#size}`)
    }
  }

  /** Asks for what is missing, and makes sure that it fits what was had. */
  async #askAgain(): Promise<Part> {
    const { place, validator, version } = this.#expected()
    if (this.#at > 0 && validator === undefined && !this.#isElsewhere) {
      throw this.#changed('may have changed: it has neither a strong ETag nor a Last-Modified to tell by')
    }
    const part = await ask({ ...this.#options, url: place }, this.#at, validator, version).catch(
      (error: unknown) => {
        throw isMissing(error) ? this.#changed('was removed') : error
      },
    )
    if (part === undefined) throw this.#changed('is shorter now than it was')
    const { answer, start } = part
    const whole = answer.status === 200
    const now = versionOf(answer.headers)
    // Before the first byte there is nothing yet that must fit, unless the upstream promises otherwise.
    const fits =
      !whole ||
      isSameVersion(now, version) ||
      (this.#isElsewhere && this.isChecked && now.size === this.#size) ||
      (this.#at === 0 && !validator && now.size === this.#size)
    if (!fits) {
      answer.discard()
      throw this.#changed('changed')
    }
    if (!whole) this.#size ??= parseContentRange(header(answer.headers, 'content-range'))?.total
    if (this.#at > 0) this.#options.onEvent({ type: 'resumed', at: this.#at })
    return { answer, start }
  }

  get #isElsewhere(): boolean {
    return this.#place !== this.#asked
  }

  /**
   * What an answer must fit. Another mirror's ETag says nothing: there the time must be the same, or somebody
   * must check what comes, and its size be the same.
   */
  #expected(): { place: URL; validator: string | typeof ANY_VERSION | undefined; version: FileVersion } {
    const place = this.#place
    if (!this.#isElsewhere)
      return { place, validator: strongValidator(this.#version), version: this.#version }
    const version = { ...this.#version, etag: undefined }
    return { place, validator: this.isChecked ? ANY_VERSION : version.lastModified, version }
  }

  async #keep(chunk: Uint8Array): Promise<void> {
    try {
      await this.#spool?.append(chunk)
    } catch (error) {
      // Who waits for room is told to stop by that: what is held stays for a later start.
      this.#options.signal.throwIfAborted()
      await this.#dropSpool(error)
    }
  }

  /** A spool that takes no more is of no use, and the disk may need its room: for the build itself. */
  async #dropSpool(error: unknown): Promise<void> {
    const spool = this.#spool
    this.#spool = undefined
    this.#options.onEvent({ type: 'spool-stopped', reason: (error as Error).message })
    await spool?.discard().catch(() => undefined)
  }

  #changed(how: string): UpstreamChanged {
    return new UpstreamChanged(`${this.#shown} ${how} while it was being downloaded, at byte ${this.#at}`, {
      hint: 'The download has to start over.',
    })
  }

  get #shown(): string {
    return showUrl(this.#options.url)
  }
}

/** The first of the places that has it. What cannot be had at one may be had at another. */
async function beginAnywhere(
  options: DownloadOptions,
): Promise<{ part: Part; version: FileVersion; place: URL }> {
  const places = [options.url, ...options.mirrors]
  let failure: unknown
  const waits: (number | undefined)[] = []
  for (const [i, place] of places.entries()) {
    try {
      return { ...(await begin({ ...options, url: place }, options.url)), place }
    } catch (error) {
      if (!(error instanceof Transient || error instanceof SourceError)) throw error
      if (error instanceof Transient) waits.push(error.retryAfterMs)
      // That it is nowhere is only said when it was looked for everywhere.
      if (failure === undefined || isMissing(failure)) failure = error
      const next = places[i + 1]
      if (next) options.onEvent({ type: 'mirror', url: showUrl(next), reason: error.message })
    }
  }
  if (!(failure instanceof Transient)) throw failure
  const { message, cause } = failure
  throw new Transient(message, { cause, retryAfterMs: waitForAny(waits, options.limits.retryAfterMs) })
}

/**
 * When to come back to several places: as late as any of them has asked for, save for those that ask for so long
 * that they are left alone until then. Where all do, as early as the first of them.
 */
function waitForAny(waits: readonly (number | undefined)[], most: number): number | undefined {
  const near = waits.filter((ms) => ms === undefined || ms <= most)
  if (near.length === 0) return Math.min(...(waits as number[]))
  const asked = near.filter((ms) => ms !== undefined)
  return asked.length === 0 ? undefined : Math.max(...asked)
}

/**
 * The first request: for all of it, or for what the spool lacks. Asking is also how we learn whether the
 * spool is of the version that upstream has now. That is kept by the name of the first of its places, whichever
 * it came from.
 */
async function begin(options: DownloadOptions, named: URL): Promise<{ part: Part; version: FileVersion }> {
  const held = await options.spool?.held(spoolUrl(named))
  const validator = held && strongValidator(held.version)
  if (held && validator !== undefined) {
    // All of it may be there already; then the last byte is asked for again, since no range is empty.
    const from = Math.min(held.bytes, held.version.size - 1)
    try {
      const part = await ask(options, from, validator, held.version)
      if (part?.answer.status === 206) return { part, version: held.version }
      if (part) {
        const version = versionOf(part.answer.headers)
        if (!isSameVersion(version, held.version)) tellRestart(options)
        return { part, version }
      }
    } catch (error) {
      if (!(error instanceof UpstreamChanged)) throw error
    }
    tellRestart(options)
    await options.spool?.discard()
  }
  const part = await ask(options, 0, undefined, undefined)
  if (!part) throw new UpstreamRefused(`${showUrl(options.url)} answers 416 to a request for all of it`, 416)
  return { part, version: versionOf(part.answer.headers) }
}

function tellRestart({ url, onEvent }: DownloadOptions): void {
  onEvent({ type: 'restarted', reason: `${showUrl(url)} changed since a part of it was downloaded` })
}

/** Opens the spool for a version that can be told from others; drops what it holds otherwise. */
async function openSpool(options: DownloadOptions, version: FileVersion): Promise<Spool | undefined> {
  const { spool, url, signal, onEvent } = options
  if (!spool) return undefined
  try {
    if (version.size !== undefined && strongValidator(version) !== undefined) {
      await spool.open({ url: spoolUrl(url), version: { ...version, size: version.size } })
      return spool
    }
    await spool.discard()
  } catch (error) {
    signal.throwIfAborted()
    onEvent({ type: 'spool-stopped', reason: (error as Error).message })
    await spool.discard().catch(() => undefined)
  }
  return undefined
}

/**
 * Asks for the file from a byte on. The answer starts there (206) or at 0 (200, which the caller must
 * compare); undefined means that upstream has nothing from that byte on (416). Throws UpstreamChanged for
 * a part of another version than `expected`.
 */
async function ask(
  { client, url, signal }: DownloadOptions,
  from: number,
  validator: string | typeof ANY_VERSION | undefined,
  expected: FileVersion | undefined,
): Promise<Part | undefined> {
  const ranged = from > 0 && validator !== undefined
  const headers = !ranged
    ? {}
    : validator === ANY_VERSION
      ? { range: `bytes=${from}-` }
      : { range: `bytes=${from}-`, 'if-range': validator }
  const answer = await client.ask(url, { headers: headers as Record<string, string> }, signal)
  if (answer.status === 200) return { answer, start: 0 }
  if (answer.status === 206 && ranged) {
    try {
      checkPart(answer, url, from, expected, validator === ANY_VERSION)
      return { answer, start: from }
    } catch (error) {
      answer.discard()
      throw error
    }
  }
  answer.discard()
  if (answer.status === 416 && ranged) return undefined
  throw new UpstreamRefused(
    `${showUrl(url)} answers ${answer.status} to a request for all of it`,
    answer.status,
  )
}

/** @param anyTime whose time need not be the same. @throws UpstreamChanged for a part of another version. */
function checkPart(
  answer: Answer,
  url: URL,
  from: number,
  expected: FileVersion | undefined,
  anyTime: boolean,
): void {
  const sent = header(answer.headers, 'content-range')
  const range = parseContentRange(sent)
  const length = contentLength(answer.headers)
  const fits = range?.start === from && (length === undefined || length === range.end + 1 - range.start)
  if (!fits) {
    const what = sent === undefined ? 'no Content-Range' : `"${showBytes(ascii(sent))}"`
    throw new SourceError(
      `${showUrl(url)} was asked for its bytes from ${from} on and answers with ${what}`,
      {
        hint: 'The upstream, or a proxy before it, is at fault.',
      },
    )
  }
  // Not every server knows If-Range: then what it sends beside the part tells.
  const differs = (found: string | number | undefined, before: string | number | undefined): boolean =>
    found !== undefined && before !== undefined && found !== before
  const { headers } = answer
  const isAnother =
    differs(range.total, expected?.size) ||
    differs(header(headers, 'etag'), expected?.etag) ||
    (!anyTime && differs(header(headers, 'last-modified'), expected?.lastModified))
  if (isAnother) {
    throw new UpstreamChanged(`${showUrl(url)} changed while it was being downloaded`, {
      hint: 'The download has to start over.',
    })
  }
}

/** What names the file in the spool's note: with the query, without the password. */
function spoolUrl(url: URL): string {
  return withoutUser(url).href
}
