/**
 * Source over file:, a directory of archives: a mounted share, a USB stick, the place where a build
 * machine puts its results. Somebody may be copying into it at this very moment, so a file whose size or
 * time is not the same at the end as it was at the beginning is not trusted.
 */
import { type BigIntStats, constants, type Dirent } from 'node:fs'
import { type FileHandle, open, opendir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ConfigError, NotPublished, SourceError, UpstreamChanged } from '../errors.ts'
import { Pacer } from '../lib/pacer.ts'
import { formatSize } from '../lib/units.ts'
import { DEFAULT_SUFFIXES, findChecksum } from './checksum.ts'
import { SOURCE_LIMITS, type SourceLimits } from './limits.ts'
import { type PathStep, Rule } from './rule.ts'
import type {
  Download,
  LocateOptions,
  PublishedBuild,
  Source,
  SourceConfig,
  SourceDeps,
  SourceListing,
} from './source.ts'

/** Large enough that a USB stick reads at full speed, small enough to be nothing among the buffers. */
const READ_BYTES = 256 << 10
/** No host, no relative path, and no encoded slash, which no path can hold. `{url}` stands for such a URL. */
const PLAIN_PATH = /^(?:file:\/\/(?:localhost)?\/|\{url\})(?!.*%2f)/i

export class DirectorySource implements Source {
  readonly kind = 'archive'
  readonly name: string
  readonly #rule: Rule
  readonly #limits: SourceLimits

  constructor(config: SourceConfig, deps: SourceDeps) {
    this.name = config.name
    this.#limits = { ...SOURCE_LIMITS, ...deps.limits }
    for (const url of [config.url, config.checksum, config.contents]) {
      if (url === undefined || PLAIN_PATH.test(url)) continue
      throw new ConfigError(`source "${config.name}": "${url}" is not a path on this machine`, {
        hint: 'Write file: and three slashes, as in file:///srv/builds/{build}.tar.gz.',
      })
    }
    this.#rule = new Rule(config, ['file'])
  }

  offers(id: string): boolean {
    return this.#rule.offers(id)
  }

  async locate(id: string, { signal, onEvent }: LocateOptions): Promise<Download> {
    signal.throwIfAborted()
    const urls = this.#rule.urlsFor(id)
    const archive = await OpenFile.open(urls.archive)
    if (!archive) {
      throw new NotPublished(`build-${id} is not published by ${this.name} (${fileURLToPath(urls.archive)})`)
    }
    try {
      const { checksumBytes, contentsBytes } = this.#limits
      const read = (url: URL) => readSmall(url, checksumBytes, signal)
      const checksum = await findChecksum(urls.archive, urls.checksum, read, onEvent)
      return {
        url: urls.archive.href,
        size: archive.size,
        checksum,
        contents: async () => {
          if (!urls.contents) return undefined
          const bytes = await readSmall(urls.contents, contentsBytes, signal)
          if (bytes) return bytes
          throw new SourceError(`the contents file ${fileURLToPath(urls.contents)} does not exist`, {
            hint: "Remove or correct the source's contents key.",
          })
        },
        bytes: () => archive.bytes(signal),
        [Symbol.asyncDispose]: () => archive[Symbol.asyncDispose](),
      }
    } catch (error) {
      await archive[Symbol.asyncDispose]()
      throw error
    }
  }

  async list(signal: AbortSignal): Promise<SourceListing | undefined> {
    const steps = this.#rule.archiveSteps()
    if (!steps) return undefined
    const walk = new ArchiveWalk(this.#limits, signal)
    const archives = new Map<string, { id: string; url: URL }>()
    const beside = new Set<string>()
    const pacer = new Pacer(signal)
    for (const { path, id } of await walk.find(steps)) {
      if (pacer.due) await pacer.rest()
      const urls = id === undefined ? undefined : this.#rule.tryUrlsFor(id)
      if (id === undefined || !urls || fileURLToPath(urls.archive) !== path) continue
      archives.set(path, { id, url: urls.archive })
      // A pattern that takes any name also takes those of the files that belong to archives.
      for (const suffix of DEFAULT_SUFFIXES) beside.add(`${path}${suffix}`)
      for (const url of [urls.checksum, urls.contents]) if (url) beside.add(fileURLToPath(url))
    }
    const builds: PublishedBuild[] = []
    for (const [path, { id, url }] of archives) {
      if (beside.has(path)) continue
      if (builds.length >= this.#limits.listBuilds) walk.complete = false
      if (builds.length >= this.#limits.listBuilds || walk.isOver()) break
      const found = await stat(path).catch(() => undefined)
      if (found?.isFile()) builds.push({ id, url: url.href, published: found.mtime })
    }
    return { builds, complete: walk.complete }
  }
}

/** Where a walk has got to, and the id that the names on the way tell. */
interface Place {
  path: string
  id: string | undefined
}

/** Goes through the directories that archives may be in, one level after the other, within bounds. */
class ArchiveWalk {
  /** False once something was left out. */
  complete = true
  readonly #limits: SourceLimits
  readonly #signal: AbortSignal
  readonly #deadline: number
  #looked = 0

  constructor(limits: SourceLimits, signal: AbortSignal) {
    this.#limits = limits
    this.#signal = signal
    this.#deadline = performance.now() + limits.listMs
  }

  /** Everything that has such a path. */
  async find(steps: readonly PathStep[]): Promise<Place[]> {
    let places: Place[] = [{ path: '/', id: undefined }]
    let isFixed = true
    for (const step of steps) {
      if (typeof step === 'string') {
        places = places.map(({ path, id }) => ({ path: join(path, step), id }))
        continue
      }
      const next: Place[] = []
      for (const place of places) {
        if (this.isOver()) break
        try {
          await this.#match(place, step, next)
        } catch (error) {
          // The directory that the source names must be there. Below it anything may be.
          if (isFixed) throw unreadable(place.path, error)
          if (!isAbsent(error)) this.complete = false
        }
      }
      places = next
      isFixed = false
    }
    return places
  }

  /** Whether the time is up, or enough was looked at. Throws the signal's reason. */
  isOver(): boolean {
    this.#signal.throwIfAborted()
    const isOver = this.#looked >= this.#limits.listNames || performance.now() > this.#deadline
    if (isOver) this.complete = false
    return isOver
  }

  async #match({ path, id }: Place, pattern: RegExp, matches: Place[]): Promise<void> {
    for await (const { name } of (await opendir(path)) as AsyncIterable<Dirent>) {
      if (this.isOver()) return
      this.#looked++
      const match = pattern.exec(name)
      if (match) matches.push({ path: join(path, name), id: match.groups?.build ?? id })
    }
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
