/**
 * Source over file:, a directory of archives: a mounted share, a USB stick, the place where a build
 * machine puts its results. Somebody may be copying into it at this very moment, so a file whose size or
 * time is not the same at the end as it was at the beginning is not trusted.
 */
import { type BigIntStats, constants, type Dirent } from 'node:fs'
import { type FileHandle, open, opendir, stat } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { ConfigError, NotPublished, SourceError, UpstreamChanged } from '../errors.ts'
import { Pacer } from '../lib/pacer.ts'
import { formatSize } from '../lib/units.ts'
import { limitsFor, SOURCE_LIMITS, type SourceLimits } from './limits.ts'
import { type ListedName, namesIn } from './names.ts'
import { type BuildUrls, Rule } from './rule.ts'
import type {
  Download,
  LocateOptions,
  PublishedBuild,
  Source,
  SourceConfig,
  SourceDeps,
  SourceListing,
} from './source.ts'
import { TrustRule } from './trust.ts'
import { besideIn } from './url.ts'
import { findArchives, findStarsIn, listingOf } from './walk.ts'

/** Large enough that a USB stick reads at full speed, small enough to be nothing among the buffers. */
const READ_BYTES = 256 << 10
/** No host, no relative path, and no encoded slash, which no path can hold. `{url}` stands for such a URL. */
const PLAIN_PATH = /^(?:file:\/\/(?:localhost)?\/|\{(?:url|checksum)\})(?!.*%2f)/i

export class DirectorySource implements Source {
  readonly kind = 'archive'
  readonly name: string
  readonly #rule: Rule
  readonly #trust: TrustRule
  readonly #list: string | undefined
  readonly #limits: SourceLimits

  constructor(config: SourceConfig, deps: SourceDeps) {
    this.name = config.name
    this.#limits = limitsFor(config, deps.limits)
    const listUrl = config.list === 'directories' ? undefined : config.list
    const { url: first, mirrors = [], checksum, signature, contents } = config
    for (const url of [first, ...mirrors, checksum, signature, contents, listUrl]) {
      if (url === undefined || PLAIN_PATH.test(url)) continue
      throw new ConfigError(`source "${config.name}": "${url}" is not a path on this machine`, {
        hint: 'Write file: and three slashes, as in file:///srv/builds/{build}.tar.gz.',
      })
    }
    this.#rule = new Rule(config, ['file'])
    this.#trust = new TrustRule(config)
    this.#list = listUrl
  }

  offers(id: string): boolean {
    return this.#rule.offers(id)
  }

  async locate(id: string, { signal, onEvent }: LocateOptions): Promise<Download> {
    signal.throwIfAborted()
    const urls = await this.#urlsFor(id, signal)
    const found = urls && (await openFirst([urls.archive, ...urls.mirrors]))
    if (!found) {
      const where = fileURLToPath((urls ?? this.#rule.urlsFor(id)).archive)
      throw new NotPublished(`build-${id} is not published by ${this.name} (${where})`)
    }
    const { archive, place } = found
    try {
      const { checksumBytes, contentsBytes } = this.#limits
      const beside = (url: URL): URL => besideIn(place, urls.archive, url) ?? url
      const read = (url: URL) => readSmall(beside(url), checksumBytes, signal)
      const trust = await this.#trust.find(urls, read, onEvent)
      return {
        url: place.href,
        size: archive.size,
        ...trust,
        contents: async () => {
          if (!urls.contents) return undefined
          const bytes = await readSmall(beside(urls.contents), contentsBytes, signal)
          if (bytes) return bytes
          throw new SourceError(`the contents file ${fileURLToPath(urls.contents)} does not exist`, {
            hint: "Remove or correct the source's contents key.",
          })
        },
        bytes: () => archive.bytes(signal),
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

  /** Undefined when nothing has a name that the stars of the path could stand for. */
  async #urlsFor(id: string, signal: AbortSignal): Promise<BuildUrls | undefined> {
    const urls = this.#rule.urlsFor(id)
    if (!this.#rule.hasStars) return urls
    const stars = await findStarsIn([urls.archive, ...urls.mirrors], readDirectory, this.#limits, signal)
    return stars && this.#rule.urlsFor(id, stars)
  }

  async list(signal: AbortSignal): Promise<SourceListing | undefined> {
    const limits = this.#limits
    if (this.#list !== undefined) return await this.#listed(new URL(this.#list), signal)
    const found = await findArchives(this.#rule, new URL('file:///'), readDirectory, limits, signal)
    if (!found) return undefined
    let { complete } = found
    const builds: PublishedBuild[] = []
    for (const { id, url } of found.archives) {
      if (builds.length >= limits.listBuilds || found.isOver()) {
        complete = false
        break
      }
      const stats = await stat(fileURLToPath(url)).catch(() => undefined)
      if (stats?.isFile()) builds.push({ id, url: url.href, published: stats.mtime })
    }
    return { builds, complete }
  }

  /** What a file says that there is. */
  async #listed(url: URL, signal: AbortSignal): Promise<SourceListing> {
    const bytes = await readSmall(url, this.#limits.indexBytes, signal)
    if (!bytes) throw new SourceError(`the list of builds ${fileURLToPath(url)} does not exist`)
    const reading = { most: this.#limits.listNames, pacer: new Pacer(signal) }
    const names = await namesIn(Buffer.from(bytes).toString('utf8'), url, reading)
    return await listingOf(this.#rule, names, this.#limits, reading.pacer)
  }
}

/** The first that is there. One that cannot be read is passed over for one that can. */
async function openFirst(places: readonly URL[]): Promise<{ archive: OpenFile; place: URL } | undefined> {
  let failure: unknown
  for (const place of places) {
    try {
      const archive = await OpenFile.open(place)
      if (archive) return { archive, place }
    } catch (error) {
      failure ??= error
    }
  }
  if (failure !== undefined) throw failure
  return undefined
}

/** The names in a directory; undefined where there is none. */
async function readDirectory(url: URL, mustExist: boolean): Promise<ListedName[] | undefined> {
  const path = fileURLToPath(url).replace(/(?<=.)\/$/, '')
  try {
    const names: ListedName[] = []
    for await (const { name } of (await opendir(path)) as AsyncIterable<Dirent>) {
      names.push({ name, changed: undefined })
      if (names.length > SOURCE_LIMITS.listNames) break
    }
    return names
  } catch (error) {
    if (isAbsent(error) && !mustExist) return undefined
    throw unreadable(path, error)
  }
}

/** A regular file, open, as it was when it was opened. */
class OpenFile implements AsyncDisposable {
  readonly #path: string
  readonly #file: FileHandle
  readonly #before: BigIntStats
  #started = false

  private constructor(path: string, file: FileHandle, before: BigIntStats) {
    this.#path = path
    this.#file = file
    this.#before = before
  }

  /** Undefined when there is no such file. SourceError when it is no file, or cannot be read. */
  static async open(url: URL): Promise<OpenFile | undefined> {
    const path = fileURLToPath(url)
    let file: FileHandle
    try {
      // O_NONBLOCK: opening a FIFO would wait for somebody to write into it.
      file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw unreadable(path, error)
    }
    try {
      const before = await file.stat({ bigint: true })
      if (before.isFile()) return new OpenFile(path, file, before)
      const kind = before.isDirectory() ? 'a directory' : 'a special file'
      throw new SourceError(`${path} is ${kind}, not an archive file`)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  get size(): number {
    return Number(this.#before.size)
  }

  async last(count: number): Promise<Uint8Array> {
    const buffer = Buffer.alloc(Math.min(count, this.size))
    try {
      const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, this.size - buffer.length)
      return buffer.subarray(0, bytesRead)
    } catch (error) {
      throw unreadable(this.#path, error)
    }
  }

  async *bytes(signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    if (this.#started) throw new Error('a download can be read only once')
    this.#started = true
    try {
      for (let left = this.size; left > 0; ) {
        signal.throwIfAborted()
        const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, left))
        const bytesRead = await this.#read(buffer)
        if (bytesRead === 0) throw this.#changed()
        left -= bytesRead
        yield buffer.subarray(0, bytesRead)
      }
      signal.throwIfAborted()
      const after = await this.#file.stat({ bigint: true })
      if (after.size !== this.#before.size || after.mtimeNs !== this.#before.mtimeNs) throw this.#changed()
    } finally {
      await this[Symbol.asyncDispose]()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }

  async #read(buffer: Buffer): Promise<number> {
    try {
      return (await this.#file.read(buffer)).bytesRead
    } catch (error) {
      throw unreadable(this.#path, error)
    }
  }

  #changed(): UpstreamChanged {
    return new UpstreamChanged(`${this.#path} changed while it was being read`, {
      hint: 'It may still be being copied: try again when that is done.',
    })
  }
}

/** A file beside the archive, whole; undefined when there is none. */
async function readSmall(url: URL, limit: number, signal: AbortSignal): Promise<Uint8Array | undefined> {
  await using file = await OpenFile.open(url)
  if (!file) return undefined
  if (file.size > limit) throw new SourceError(`${fileURLToPath(url)} is larger than ${formatSize(limit)}`)
  const chunks: Uint8Array[] = []
  for await (const chunk of file.bytes(signal)) chunks.push(chunk)
  return Buffer.concat(chunks)
}

function isAbsent(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ENOENT' || code === 'ENOTDIR'
}

function unreadable(path: string, cause: unknown): SourceError {
  const { code } = cause as NodeJS.ErrnoException
  const hint =
    code === 'EACCES' ? 'Let the user that runs upserv read it.' : 'Check the disk or share that it is on.'
  return new SourceError(`${path} cannot be read (${code})`, { hint, cause })
}
