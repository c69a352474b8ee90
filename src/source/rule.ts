/**
 * Rule: which ids a source offers, and which URLs an id leads to. Pure.
 *
 * A template holds placeholders: `{build}` for the id, `{name}` for the pattern's named captures, and in
 * templates other than the archive's own `{url}` for that. Values come from clients, so what they can do
 * is kept small: they are percent-encoded, they stand behind the host name only, and no URL in which one
 * of its path segments reads `.` or `..` is ever made (URL parsers resolve those, encoded or not).
 */
import { ConfigError, SourceError } from '../errors.ts'
import type { SourceConfig } from './source.ts'
import { schemeOf } from './url.ts'

export interface BuildUrls {
  archive: URL
  checksum: URL | undefined
  contents: URL | undefined
}

/** One component of the archives' path: the name that it has, or the pattern of those that it may have. */
export type PathStep = string | RegExp

const PLACEHOLDER = /\{([^{}]*)\}/g
const HOST_PLACEHOLDER = /^[^:/?#]*:\/\/[^/?#]*[{}]/
const DOT_SEGMENT = /^(?:\.|%2e){1,2}$/i
/** An id is checked long before it gets here; these would leave a directory if that ever failed. */
const UNSAFE_ID = /[/\\\x00-\x1f\x7f]/

export class Rule {
  readonly #source: string
  readonly #pattern: RegExp
  readonly #url: string
  readonly #checksum: string | undefined
  readonly #contents: string | undefined

  /** Throws ConfigError for a bad pattern, an unknown placeholder or a scheme not among `schemes`. */
  constructor(config: SourceConfig, schemes: readonly string[]) {
    this.#source = config.name
    this.#pattern = compilePattern(config)
    this.#url = config.url
    this.#checksum = config.checksum
    this.#contents = config.contents

    const names = ['build', ...captureNames(this.#pattern)]
    for (const reserved of ['build', 'url']) {
      if (names.lastIndexOf(reserved) > 0) {
        throw new ConfigError(`source "${config.name}": builds must not name a capture "${reserved}"`)
      }
    }
    // Templates are tried with a harmless value now, so that a typing error shows at start.
    const sample = new Map(names.map((name) => [name, 'x']))
    checkTemplate(config, 'url', config.url, names, sample, schemes)
    sample.set('url', expand(config.url, sample))
    const besideNames = [...names, 'url']
    if (config.checksum !== undefined)
      checkTemplate(config, 'checksum', config.checksum, besideNames, sample, schemes)
    if (config.contents !== undefined)
      checkTemplate(config, 'contents', config.contents, besideNames, sample, schemes)
  }

  offers(id: string): boolean {
    return this.#pattern.test(id)
  }

  /** The URLs that belong to an id on offer. Throws SourceError when the id cannot be put into them. */
  urlsFor(id: string): BuildUrls {
    const match = this.#pattern.exec(id)
    if (!match) throw new SourceError(`source "${this.#source}" does not offer "${id}"`)
    if (UNSAFE_ID.test(id)) throw this.#unusable(id)
    const values = new Map([['build', id]])
    for (const [name, value] of Object.entries(match.groups ?? {})) values.set(name, value ?? '')
    const archive = this.#make(this.#url, values, id)
    values.set('url', archive.href)
    return {
      archive,
      checksum: this.#checksum === undefined ? undefined : this.#make(this.#checksum, values, id),
      contents: this.#contents === undefined ? undefined : this.#make(this.#contents, values, id),
    }
  }

  /** The same for an id that nobody has checked; undefined when it is not on offer. */
  tryUrlsFor(id: string): BuildUrls | undefined {
    try {
      return this.offers(id) ? this.urlsFor(id) : undefined
    } catch (error) {
      if (error instanceof SourceError) return undefined
      throw error
    }
  }

  /**
   * The way to all archives that there may be, for who can list directories. The patterns' group `build` is
   * the id; which archive it has is still for `urlsFor` to say. Undefined when the path does not hold the id.
   */
  archiveSteps(): PathStep[] | undefined {
    const path = pathOf(this.#url)
    if (!path.includes('{build}')) return undefined
    return path.split('/').filter(Boolean).map(toStep)
  }

  #make(template: string, values: ReadonlyMap<string, string>, id: string): URL {
    const text = expand(template, values)
    if (hasDotSegment(text) || !URL.canParse(text)) throw this.#unusable(id)
    return new URL(text)
  }

  #unusable(id: string): SourceError {
    return new SourceError(`source "${this.#source}": ${JSON.stringify(id)} cannot be put into its URL`)
  }
}

/** The pattern of the ids that a source offers. @throws ConfigError */
export function compilePattern(config: SourceConfig): RegExp {
  try {
    return new RegExp(config.builds)
  } catch (cause) {
    throw new ConfigError(`source "${config.name}": builds is not a regular expression: ${config.builds}`, {
      hint: (cause as Error).message,
      cause,
    })
  }
}

/** The names of a pattern's captures: with an empty alternative it matches anything, and lists its groups. */
function captureNames(pattern: RegExp): string[] {
  return Object.keys(new RegExp(`${pattern.source}|`).exec('')?.groups ?? {})
}

function checkTemplate(
  config: SourceConfig,
  key: string,
  template: string,
  names: readonly string[],
  sample: ReadonlyMap<string, string>,
  schemes: readonly string[],
): void {
  const where = `source "${config.name}": ${key} "${template}"`
  for (const [placeholder, name] of template.matchAll(PLACEHOLDER)) {
    if (names.includes(name!)) continue
    throw new ConfigError(`${where} uses ${placeholder}, which is not known`, {
      hint: `Known here: ${names.map((known) => `{${known}}`).join(', ')}. Named captures of builds are added.`,
    })
  }
  if (HOST_PLACEHOLDER.test(template)) {
    throw new ConfigError(`${where} has a placeholder in the host name`, {
      hint: 'Ids come from clients, so they may choose a path but not a host.',
    })
  }
  const text = expand(template, sample)
  if (!URL.canParse(text)) throw new ConfigError(`${where} is not a URL`)
  if (hasDotSegment(text)) throw new ConfigError(`${where} has a "." or ".." in its path`)
  if (!schemes.includes(schemeOf(text))) {
    throw new ConfigError(`${where} cannot be used here`, {
      hint: `This source reads ${schemes.map((scheme) => `${scheme}://`).join(' and ')} only.`,
    })
  }
}

/** Puts values into a template. `{url}` is a whole URL already; everything else is encoded. */
function expand(template: string, values: ReadonlyMap<string, string>): string {
  return template.replace(PLACEHOLDER, (_, name: string) => {
    const value = values.get(name) ?? ''
    return name === 'url' ? value : encodeURIComponent(value)
  })
}

/** What follows the host. */
function pathOf(url: string): string {
  return url.replace(/^[^:/?#]*:\/\/[^/?#]*/, '').replace(/[?#].*$/, '')
}

function toStep(segment: string): PathStep {
  let isFixed = true
  let idSeen = false
  const parts = segment.split(/(\{[^{}]*\})/).map((part) => {
    if (!part.startsWith('{')) return decoded(part).replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
    isFixed = false
    if (part !== '{build}') return '.*'
    const pattern = idSeen ? '\\k<build>' : '(?<build>.+)'
    idSeen = true
    return pattern
  })
  return isFixed ? decoded(segment) : new RegExp(`^${parts.join('')}$`, 's')
}

/** As a file system has it. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

function hasDotSegment(url: string): boolean {
  const path = pathOf(url)
  return path.split(/[/\\]/).some((segment) => DOT_SEGMENT.test(segment))
}
