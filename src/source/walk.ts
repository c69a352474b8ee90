/**
 * Goes through directories, one level after the other and within bounds: to find all archives that a rule
 * may lead to, or the one whose name is not known in all its parts. Who can read a directory hands in how.
 */
import { SourceError } from '../errors.ts'
import { Pacer } from '../lib/pacer.ts'
import type { SourceLimits } from './limits.ts'
import { type ListedName, latestMatch } from './names.ts'
import type { PathStep, Rule } from './rule.ts'
import type { PublishedBuild, SourceListing } from './source.ts'
import { decodePart, fileNameOf, showUrl } from './url.ts'

/** The names in a directory; undefined when there is no such directory, unless it must exist. Throws SourceError. */
export type ReadNames = (directory: URL, mustExist: boolean) => Promise<readonly ListedName[] | undefined>

export interface FoundArchive {
  id: string
  url: URL
  /** When it was last changed, or the directory that it lies in, where that is told. */
  changed: Date | undefined
}

/** Everything that a rule takes for an archive, of each build the latest. */
export async function findArchives(
  rule: Rule,
  base: URL,
  read: ReadNames,
  limits: SourceLimits,
  signal: AbortSignal,
): Promise<{ archives: FoundArchive[]; complete: boolean; isOver(): boolean } | undefined> {
  const steps = rule.archiveSteps()
  if (!steps) return undefined
  const walk = new Walk(read, limits, signal)
  const archives = new Map<string, FoundArchive>()
  const beside = new Set<string>()
  const pacer = new Pacer(signal)
  for (const { url, groups, changed } of await walk.find(base, steps)) {
    if (pacer.due) await pacer.rest()
    const id = rule.idOf(groups)
    const stars = id === undefined ? undefined : rule.starsOf(id, url)
    if (id === undefined || !stars) continue
    const known = archives.get(id)
    if (known && !isLater(url, known.url)) continue
    // Written as the rule writes it: there is more than one way to encode a name.
    const urls = rule.urlsFor(id, stars)
    archives.set(id, { id, url: urls.archive, changed })
    // A pattern that takes any name also takes those of the files that belong to archives.
    for (const suffix of BESIDE_SUFFIXES) beside.add(`${urls.archive.href}${suffix}`)
    for (const other of [urls.checksum, urls.signature, urls.contents]) if (other) beside.add(other.href)
  }
  return {
    archives: [...archives.values()].filter(({ url }) => !beside.has(url.href)),
    complete: walk.complete,
    isOver: () => walk.isOver(),
  }
}

/** What the stars in the path of a URL stand for; undefined when nothing is there. */
async function findStars(
  pattern: URL,
  read: ReadNames,
  limits: SourceLimits,
  signal: AbortSignal,
): Promise<string[] | undefined> {
  const found: string[] = []
  let at = '/'
  const segments = pattern.pathname.split('/').slice(1)
  for (const [i, segment] of segments.entries()) {
    if (segment.includes('*')) {
      const directory = new URL(pattern)
      directory.search = ''
      directory.pathname = at
      const names = (await read(directory, false)) ?? []
      signal.throwIfAborted()
      if (names.length > limits.listNames) {
        throw new SourceError(`${showUrl(directory)} has too many names to look through`)
      }
      const match = latestMatch(
        decodePart(segment),
        names.map(({ name }) => name),
      )
      if (!match) return undefined
      found.push(...match.stars)
      at += encodeURIComponent(match.name)
    } else {
      at += segment
    }
    if (i < segments.length - 1) at += '/'
  }
  return found
}

/**
 * The same for the first of several places of one archive that tells: of these what one lacks, or cannot say,
 * another may. @throws SourceError
 */
export async function findStarsIn(
  places: readonly URL[],
  read: ReadNames,
  limits: SourceLimits,
  signal: AbortSignal,
): Promise<string[] | undefined> {
  const count = (place: URL): number => place.pathname.split('*').length - 1
  const wanted = count(places[0]!)
  let failure: SourceError | undefined
  for (const place of places.filter((one) => count(one) === wanted)) {
    try {
      const stars = await findStars(place, read, limits, signal)
      if (stars) return stars
    } catch (error) {
      if (!(error instanceof SourceError)) throw error
      failure ??= error
    }
  }
  if (failure) throw failure
  return undefined
}

/** What is looked for beside an archive without being asked. */
export const BESIDE_SUFFIXES = ['.sha256', '.sha512', '.md5', '.minisig', '.asc', '.sig', '.gpg']

interface Place {
  /** Of a directory with a slash at its end, as long as there are steps to go. */
  url: URL
  groups: Record<string, string>
  changed: Date | undefined
}

class Walk {
  /** False once something was left out. */
  complete = true
  readonly #read: ReadNames
  readonly #limits: SourceLimits
  readonly #signal: AbortSignal
  readonly #deadline: number
  #looked = 0

  constructor(read: ReadNames, limits: SourceLimits, signal: AbortSignal) {
    this.#read = read
    this.#limits = limits
    this.#signal = signal
    this.#deadline = performance.now() + limits.listMs
  }

  /** Everything that has such a path below the root of `base`. */
  async find(base: URL, steps: readonly PathStep[]): Promise<Place[]> {
    let places: Place[] = [{ url: new URL('/', base), groups: {}, changed: undefined }]
    let isFixed = true
    for (const [i, step] of steps.entries()) {
      const suffix = i < steps.length - 1 ? '/' : ''
      if (typeof step === 'string') {
        places = places.map(({ url, ...rest }) => ({ url: below(url, step + suffix), ...rest }))
        continue
      }
      const next: Place[] = []
      for (const place of places) {
        if (this.isOver()) break
        try {
          await this.#match(place, step, suffix, isFixed, next)
        } catch (error) {
          // The directory that the source names must be there. Below it anything may be.
          if (isFixed || !(error instanceof SourceError)) throw error
          this.complete = false
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

  async #match(
    { url, groups }: Place,
    pattern: RegExp,
    suffix: string,
    mustExist: boolean,
    matches: Place[],
  ): Promise<void> {
    const names = await this.#read(url, mustExist)
    for (const { name, changed } of names ?? []) {
      if (this.isOver()) return
      this.#looked++
      const match = pattern.exec(name)
      if (!match) continue
      const all = { ...groups, ...match.groups, ...groups }
      matches.push({ url: below(url, name, suffix), groups: all, changed })
    }
  }
}

/** The builds that a list names. */
export async function listingOf(
  rule: Rule,
  names: readonly ListedName[],
  limits: SourceLimits,
  pacer: Pacer,
): Promise<SourceListing> {
  const builds = new Map<string, PublishedBuild>()
  for (const [i, { name, changed }] of names.entries()) {
    if (pacer.due) await pacer.rest()
    if (i >= limits.listNames) return { builds: [...builds.values()], complete: false }
    const id = rule.idOfName(name)
    const urls = id === undefined ? undefined : rule.tryUrlsFor(id)
    if (id === undefined || !urls) continue
    const isKnown = builds.has(id)
    if (!isKnown && builds.size >= limits.listBuilds) return { builds: [...builds.values()], complete: false }
    const published = changed ?? builds.get(id)?.published
    builds.set(id, { id, url: showUrl(urls.archive), published })
  }
  return { builds: [...builds.values()], complete: true }
}

function below(directory: URL, name: string, suffix = ''): URL {
  const url = new URL(directory)
  url.pathname += name.split('/').map(encodeURIComponent).join('/') + suffix
  return url
}

function isLater(a: URL, b: URL): boolean {
  return latestMatch('*', [fileNameOf(a), fileNameOf(b)])?.name === fileNameOf(a)
}
