/**
 * Rule: which ids a source offers, which URLs an id leads to, and which id a path has. Pure.
 *
 * A template holds placeholders: `{build}` for the id, `{name}` for the pattern's named captures, `{name:map}`
 * for the word that a map of the source has for a capture, `{name:3}` for a number filled up with zeros to
 * three digits; and in templates other than the archive's own `{url}` for that, `{checksum}` for the checksum
 * file. A `*` in the archive's path is for whoever can read directories to find; in other templates it stands
 * for what was found.
 *
 * Values come from clients, so what they can do is kept small: they are percent-encoded, they stand behind the
 * host name only, and no URL in which one of its path segments reads `.` or `..` is ever made (URL parsers
 * resolve those, encoded or not).
 */
import { ConfigError, SourceError } from '../errors.ts'
import { nearest } from '../lib/nearest.ts'
import { starPattern } from './names.ts'
import type { SourceConfig } from './source.ts'
import { decodePart, schemeOf, showTemplate } from './url.ts'

export interface BuildUrls {
  /** With stars in its path, if there are any that nobody has found yet. */
  archive: URL
  /** Where the same archive is to be had as well. */
  mirrors: URL[]
  checksum: URL | undefined
  signature: URL | undefined
  contents: URL | undefined
}

/** One component of the archives' path: the name that it has, or the pattern of those that it may have. */
export type PathStep = string | RegExp

const PLACEHOLDER = /\{([^{}]*)\}/g
const HOST_PLACEHOLDER = /^[^:/?#]*:\/\/[^/?#]*[{}*]/
const DOT_SEGMENT = /^(?:\.|%2e){1,2}$/i
/** An id is checked long before it gets here; these would leave a directory if that ever failed. */
const UNSAFE_ID = /[/\\\x00-\x1f\x7f]/
/** Templates beside the archive's own, in the order in which one may use another. */
const BESIDE = ['checksum', 'signature', 'contents'] as const
/** Between a capture and a map in the name of a group. */
const OF = '__'

export class Rule {
  /** The archive's path has stars: somebody has to find out what they stand for. */
  readonly hasStars: boolean
  readonly #source: string
  readonly #pattern: RegExp
  readonly #config: SourceConfig
  readonly #maps: Maps
  readonly #idTemplate: string | undefined
  readonly #names: RegExp

  /** Throws ConfigError for a bad pattern, an unknown placeholder or a scheme not among `schemes`. */
  constructor(config: SourceConfig, schemes: readonly string[]) {
    this.#source = config.name
    this.#pattern = compilePattern(config)
    this.#config = config
    this.#maps = new Maps(config)
    this.hasStars = pathOf(config.url).includes('*')

    const names = ['build', ...captureNames(this.#pattern)]
    for (const reserved of ['build', 'url', 'checksum']) {
      if (names.includes(reserved, 1)) {
        throw new ConfigError(`source "${config.name}": builds must not name a capture "${reserved}"`)
      }
    }
    // Templates are tried with a harmless value now, so that a typing error shows at start.
    const check = new TemplateCheck(config, this.#maps, schemes)
    const sample = new Map(names.map((name) => [name, 'x']))
    check.template('url', config.url, names, sample)
    for (const mirror of config.mirrors ?? []) check.template('url', mirror, names, sample)
    sample.set('url', expand(config.url, sample, this.#maps))
    const known = [...names, 'url']
    for (const key of BESIDE) {
      const template = config[key]
      if (template === undefined) continue
      check.template(key, template, known, sample)
      if (key !== 'checksum') continue
      sample.set('checksum', expand(template, sample, this.#maps))
      known.push('checksum')
    }
    this.#idTemplate = config.id ?? (config.url.includes('{build}') ? '{build}' : undefined)
    this.#names = config.names === undefined ? this.#pattern : compile(config, 'names', config.names)
    const told = [...names.slice(1), ...captureNames(this.#names)]
    if (config.id !== undefined) check.placeholders('id', config.id, told)
  }

  offers(id: string): boolean {
    const match = this.#pattern.exec(id)
    return match !== null && this.#maps.hasWordsFor(this.#config.url, match.groups ?? {})
  }

  /**
   * The URLs that belong to an id on offer. Throws SourceError when the id cannot be put into them.
   * @param stars what the stars of the archive's path stand for, when that has been found.
   */
  urlsFor(id: string, stars?: readonly string[]): BuildUrls {
    const match = this.#pattern.exec(id)
    if (!match || !this.offers(id)) throw new SourceError(`source "${this.#source}" does not offer "${id}"`)
    if (UNSAFE_ID.test(id)) throw this.#unusable(id)
    const values = new Map([['build', id]])
    for (const [name, value] of Object.entries(match.groups ?? {})) values.set(name, value ?? '')
    const make = (template: string): URL => this.#make(template, values, stars, id)
    const archive = make(this.#config.url)
    const urls: BuildUrls = {
      archive,
      mirrors: (this.#config.mirrors ?? []).map(make),
      checksum: undefined,
      signature: undefined,
      contents: undefined,
    }
    if (this.hasStars && !stars) return urls
    values.set('url', archive.href)
    for (const key of BESIDE) {
      const template = this.#config[key]
      if (template === undefined) continue
      urls[key] = make(template)
      values.set(key, urls[key].href)
    }
    return urls
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

  /** What the stars of the archive of this id stand for if this is its URL; undefined when it is not. */
  starsOf(id: string, url: URL): string[] | undefined {
    const archive = this.tryUrlsFor(id)?.archive
    if (!archive || archive.host !== url.host) return undefined
    const wanted = archive.pathname.split('/')
    const found = url.pathname.split('/')
    if (wanted.length !== found.length) return undefined
    const stars: string[] = []
    for (const [i, segment] of wanted.entries()) {
      const match = starPattern(decodePart(segment)).exec(decodePart(found[i]!))
      if (!match) return undefined
      stars.push(...match.slice(1))
    }
    return stars
  }

  /**
   * The way to all archives that there may be, for who can list directories. What the patterns' groups take is
   * for `idOf`. Undefined when the path does not hold the id.
   */
  archiveSteps(): PathStep[] | undefined {
    if (this.#idTemplate === undefined) return undefined
    return pathOf(this.#config.url).split('/').filter(Boolean).map(toStep)
  }

  /** The id that the groups of all steps of a way tell; undefined when they tell none. Whether it is right, `starsOf` says. */
  idOf(groups: Readonly<Record<string, string>>): string | undefined {
    const values = new Map<string, string>()
    for (const [group, value] of Object.entries(groups)) {
      const [name = '', of] = group.split(OF)
      // What directories say comes first: a file's name may be cut in several ways.
      if (values.has(name)) continue
      const plain = of === undefined ? value : this.#maps.undo(of, value)
      if (plain === undefined) return undefined
      values.set(name, plain)
    }
    const template = this.#idTemplate ?? ''
    const isComplete = [...template.matchAll(PLACEHOLDER)].every(([, name]) => values.has(name!))
    return isComplete ? template.replace(PLACEHOLDER, (_, name: string) => values.get(name)!) : undefined
  }

  /** The id that a name in a list tells; undefined when it tells none. */
  idOfName(name: string): string | undefined {
    const match = this.#names.exec(name)
    if (!match) return undefined
    if (this.#config.id === undefined) return match.groups?.build ?? name
    return this.idOf(
      Object.fromEntries(Object.entries(match.groups ?? {}).map(([key, value]) => [key, value ?? ''])),
    )
  }

  #make(
    template: string,
    values: ReadonlyMap<string, string>,
    stars: readonly string[] | undefined,
    id: string,
  ): URL {
    const text = fillStars(expand(template, values, this.#maps), stars)
    if (hasDotSegment(text) || !URL.canParse(text)) throw this.#unusable(id)
    return new URL(text)
  }

  #unusable(id: string): SourceError {
    return new SourceError(`source "${this.#source}": ${JSON.stringify(id)} cannot be put into its URL`)
  }
}

/** The pattern of the ids that a source offers. @throws ConfigError */
export function compilePattern(config: SourceConfig): RegExp {
  return compile(config, 'builds', config.builds)
}

function compile({ name }: SourceConfig, key: string, pattern: string): RegExp {
  try {
    return new RegExp(pattern)
  } catch (cause) {
    throw new ConfigError(`source "${name}": ${key} is not a regular expression: ${pattern}`, {
      hint: (cause as Error).message,
      cause,
    })
  }
}

/** The names of a pattern's captures: with an empty alternative it matches anything, and lists its groups. */
function captureNames(pattern: RegExp): string[] {
  return Object.keys(new RegExp(`${pattern.source}|`).exec('')?.groups ?? {})
}

/** Words that stand for other words, by the names of the maps; and numbers with a width. */
class Maps {
  readonly #maps = new Map<string, ReadonlyMap<string, string>>()

  constructor({ name, maps = {} }: SourceConfig) {
    for (const [map, words] of Object.entries(maps)) {
      if (!/^[a-z][a-z0-9]*$/i.test(map)) {
        throw new ConfigError(`source "${name}": a map cannot be named "${map}"`, {
          hint: 'A letter, and then letters and digits.',
        })
      }
      this.#maps.set(map, new Map(Object.entries(words)))
    }
  }

  get names(): string[] {
    return [...this.#maps.keys()]
  }

  isKnown(of: string): boolean {
    return this.#maps.has(of) || /^[1-9]$/.test(of)
  }

  /** Undefined when the map has no word for it. */
  apply(of: string, value: string): string | undefined {
    return this.#maps.has(of) ? this.#maps.get(of)!.get(value) : value.padStart(Number(of), '0')
  }

  /** What becomes this word; undefined when nothing does. */
  undo(of: string, word: string): string | undefined {
    const words = this.#maps.get(of)
    if (!words) return word.replace(/^0+(?=\d)/, '')
    for (const [value, other] of words) if (other === word) return value
    return undefined
  }

  /** Whether every map that a template uses has a word for what was captured. */
  hasWordsFor(template: string, groups: Readonly<Record<string, string | undefined>>): boolean {
    return [...template.matchAll(PLACEHOLDER)].every(([, placeholder]) => {
      const [name = '', of] = placeholder!.split(':')
      return of === undefined || this.apply(of, groups[name] ?? '') !== undefined
    })
  }
}

class TemplateCheck {
  readonly #config: SourceConfig
  readonly #maps: Maps
  readonly #schemes: readonly string[]

  constructor(config: SourceConfig, maps: Maps, schemes: readonly string[]) {
    this.#config = config
    this.#maps = maps
    this.#schemes = schemes
  }

  /** @throws ConfigError */
  template(
    key: string,
    template: string,
    names: readonly string[],
    sample: ReadonlyMap<string, string>,
  ): void {
    const where = this.#where(key, template)
    this.placeholders(key, template, names)
    if (HOST_PLACEHOLDER.test(template)) {
      throw new ConfigError(`${where} has a placeholder in the host name`, {
        hint: 'Ids come from clients, so they may choose a path but not a host.',
      })
    }
    if (starsIn(template) > starsIn(this.#config.url)) {
      throw new ConfigError(`${where} has more stars than url`, {
        hint: 'Only those of url are looked for; elsewhere they stand for what was found.',
      })
    }
    const text = expand(template, sample, this.#maps)
    if (!URL.canParse(text)) throw new ConfigError(`${where} is not a URL`)
    if (hasDotSegment(text)) throw new ConfigError(`${where} has a "." or ".." in its path`)
    if (!this.#schemes.includes(schemeOf(text))) {
      throw new ConfigError(`${where} cannot be used here`, {
        hint: `This source reads ${this.#schemes.map((scheme) => `${scheme}://`).join(' and ')} only.`,
      })
    }
  }

  /** @throws ConfigError */
  placeholders(key: string, template: string, names: readonly string[]): void {
    const where = this.#where(key, template)
    for (const [placeholder, inner] of template.matchAll(PLACEHOLDER)) {
      const [name = '', of, ...more] = inner!.split(':')
      if (!names.includes(name) || more.length > 0) {
        throw new ConfigError(`${where} uses ${placeholder}, which is not known`, {
          hint: `Known here: ${names.map((known) => `{${known}}`).join(', ')}. Named captures of builds are added.`,
        })
      }
      if (of !== undefined && !this.#maps.isKnown(of)) {
        const near = nearest(of, this.#maps.names)
        throw new ConfigError(`${where} uses the map "${of}", which the source does not have`, {
          hint: near ? `Is "${near}" meant?` : 'Write it as maps.NAME, or a number of digits from 1 to 9.',
        })
      }
    }
  }

  #where(key: string, template: string): string {
    return `source "${this.#config.name}": ${key} "${showTemplate(template)}"`
  }
}

function starsIn(template: string): number {
  return pathOf(template).split('*').length - 1
}

/** Puts values into a template. `{url}` and `{checksum}` are whole URLs already; everything else is encoded. */
function expand(template: string, values: ReadonlyMap<string, string>, maps: Maps): string {
  return template.replace(PLACEHOLDER, (_, placeholder: string) => {
    const [name = '', of] = placeholder.split(':')
    const value = values.get(name) ?? ''
    if (name === 'url' || name === 'checksum') return value
    return encoded(of === undefined ? value : (maps.apply(of, value) ?? value))
  })
}

/** Also a star, which would be looked for. */
function encoded(text: string): string {
  return encodeURIComponent(text).replaceAll('*', '%2A')
}

function fillStars(url: string, stars: readonly string[] | undefined): string {
  if (!stars) return url
  const path = pathOf(url)
  const at = url.indexOf(path)
  let used = 0
  const filled = path.replace(/\*/g, () => encoded(stars[used++] ?? ''))
  return url.slice(0, at) + filled + url.slice(at + path.length)
}

/** What follows the host. */
function pathOf(url: string): string {
  return url.replace(/^[^:/?#]*:\/\/[^/?#]*/, '').replace(/[?#].*$/, '')
}

function toStep(segment: string): PathStep {
  let isFixed = true
  const seen = new Set<string>()
  const parts = segment.split(/(\{[^{}]*\}|\*)/).map((part) => {
    if (part === '*') {
      isFixed = false
      return '[^/]*'
    }
    if (!part.startsWith('{')) return decodePart(part).replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
    isFixed = false
    const group = part.slice(1, -1).replace(':', OF)
    if (seen.has(group)) return `\\k<${group}>`
    seen.add(group)
    return group === 'build' ? '(?<build>.+)' : `(?<${group}>.*)`
  })
  return isFixed ? decodePart(segment) : new RegExp(`^${parts.join('')}$`, 's')
}

function hasDotSegment(url: string): boolean {
  const path = pathOf(url)
  return path.split(/[/\\]/).some((segment) => DOT_SEGMENT.test(segment))
}
