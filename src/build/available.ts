/**
 * Which builds could be had from the sources, as far as these can tell. Asking them can take a while, so an
 * answer is good for a minute, and who asks meanwhile waits for the same one.
 */
import type { SourceError } from '../errors.ts'
import { SingleFlight, untilAborted } from '../lib/single-flight.ts'
import { type AnySource, createSource } from '../source/create.ts'
import { loadLibraries } from '../source/late-libraries.ts'
import type { SourceConfig } from '../source/source.ts'
import { compareIds, idOfModule, isBuildId } from './build-id.ts'
import type { AvailableBuilds } from './operations.ts'

/** An upstream changes a few times a day; a person who has just put a build there waits no longer than this. */
const FRESH_MS = 60_000
/** A source whose disk or share does not answer is left out. Sources give up by themselves before that. */
const SOURCE_MS = 15_000

export class Available {
  #sources: readonly AnySource[]
  readonly #now: () => number
  readonly #asking = new SingleFlight<'all', AvailableBuilds>()
  /** When it was first seen there, in ms since 1970, of what upstream has now. */
  #seen = new Map<string, number>()
  #known: { builds: AvailableBuilds; until: number } | undefined

  /**
   * @param sources in the order in which they are tried: the first that has a build is where it comes from.
   * @param now milliseconds on a clock that never jumps.
   * @throws ConfigError for a source that can't be right.
   */
  constructor(sources: readonly SourceConfig[], now: () => number = () => performance.now()) {
    this.#sources = sources.map((config) => createSource(config))
    this.#now = now
  }

  /** Asks these from now on. @throws ConfigError as the constructor does, with nothing changed. */
  useSources(sources: readonly SourceConfig[]): void {
    this.#sources = sources.map((config) => createSource(config))
    this.#known = undefined
  }

  /** Whether there is anything to ask. */
  get hasSources(): boolean {
    return this.#sources.length > 0
  }

  /** Loads what asking takes: from then on the program's files may be replaced. */
  async settle(): Promise<void> {
    if (this.hasSources) await loadLibraries()
  }

  /** Since when we know that it can be had, in ms since 1970: for those of which upstream does not tell. */
  firstSeen(id: string): number {
    return this.#seen.get(id) ?? Date.now()
  }

  /** @throws the signal's reason. */
  async list(signal: AbortSignal): Promise<AvailableBuilds> {
    if (this.#known && this.#known.until > this.#now()) return this.#known.builds
    return await this.#asking.run('all', (stop) => this.#ask(stop), signal)
  }

  async #ask(signal: AbortSignal): Promise<AvailableBuilds> {
    const sources = this.#sources
    const answers = await Promise.all(sources.map((source) => askOne(source, signal)))
    const builds = new Map<string, AvailableBuilds['builds'][number]>()
    for (const answer of answers) {
      for (const build of answer.builds) if (!builds.has(build.id)) builds.set(build.id, build)
    }
    const all = {
      builds: [...builds.values()].sort((a, b) => compareIds(a.id, b.id)),
      gaps: answers.flatMap(({ gap, source }) => (gap === undefined ? [] : [{ source, reason: gap }])),
    }
    this.#seen = new Map([...builds.keys()].map((id) => [id, this.firstSeen(id)]))
    if (sources === this.#sources) this.#known = { builds: all, until: this.#now() + FRESH_MS }
    return all
  }
}

/** Null for what is not told, and for times that no calendar has: file systems may. */
function isoOf(time: Date | undefined): string | null {
  return time === undefined || Number.isNaN(time.getTime()) ? null : time.toISOString()
}

interface Answer {
  source: string
  builds: AvailableBuilds['builds']
  /** Why there may be more builds than these. */
  gap: string | undefined
}

async function askOne(source: AnySource, signal: AbortSignal): Promise<Answer> {
  const { name } = source
  const late = AbortSignal.timeout(SOURCE_MS)
  try {
    const both = AbortSignal.any([signal, late])
    const listing = await untilAborted(
      ('list' in source ? source.list?.(both) : undefined) ?? Promise.resolve(undefined),
      both,
    )
    if (!listing) return { source: name, builds: [], gap: 'cannot be listed' }
    const builds = listing.builds
      // A file system may have times that no calendar has.
      .filter(({ id }) => isBuildId(id))
      .map(({ id, url, published }) => ({ id, source: name, url, published: isoOf(published) }))
    return { source: name, builds, gap: listing.complete ? undefined : 'has more than is listed' }
  } catch (error) {
    signal.throwIfAborted()
    const reason = late.aborted ? 'does not answer' : (error as SourceError).message
    return { source: name, builds: [], gap: reason }
  }
}

/**
 * For rules on sources: whether one could supply the build that a module is, going by its id alone, so that the
 * answer is the same whether there is such a build or not. Undefined: there is no such source.
 * @throws ConfigError for a source that can't be right.
 */
export function supplierOf(
  configs: readonly SourceConfig[],
): (source: string, module: string) => boolean | undefined {
  const sources = new Map(configs.map((config) => [config.name, createSource(config)]))
  return (name, module) => {
    const id = idOfModule(module)
    const source = sources.get(name)
    return source && id !== undefined && source.offers(id)
  }
}
