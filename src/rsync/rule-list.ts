/**
 * Filter rules in their order, of which the first that applies decides.
 *
 * Those that names must be equal to are looked up, so that a list of ten thousand costs what a short one does: people
 * make them with programs, and any text file of a build may be named as a rule file. The others have to be tried:
 * those with wildcards, those that are negated, and those of absurd depth.
 */
import type { Literal, Named, Rule } from './filter-rule.ts'

/** Between components that are looked up; no build is as deep. */
const MOST_SLASHES = 100
/** Behind all places. */
const NOWHERE = Number.POSITIVE_INFINITY

export class RuleList {
  readonly #rules: Rule[] = []
  readonly #tried: number[] = []
  readonly #literals = { name: new Subject(), path: new Subject() }

  get rules(): readonly Rule[] {
    return this.#rules
  }

  /** Places of the rules that have to be tried one after the other. */
  get tried(): readonly number[] {
    return this.#tried
  }

  /** Tables that a name is looked up in. */
  get tables(): number {
    return this.#literals.name.tables + this.#literals.path.tables
  }

  add(rule: Rule): void {
    const place = this.#rules.push(rule) - 1
    const { literal } = rule
    if (!literal || (literal.slashes ?? 0) > MOST_SLASHES) this.#tried.push(place)
    else this.#literals[literal.subject].add(place, rule.directoriesOnly, literal)
  }

  /** Place of the first rule that need not be tried and applies; infinite if there is none. */
  firstLiteral({ name, path, isDirectory }: Named): number {
    return Math.min(
      this.#literals.name.first(name, isDirectory),
      this.#literals.path.first(path, isDirectory),
    )
  }
}

/** Places of the first rule with a text, of those for all names and of those for directories. */
interface Places {
  all: number
  directories: number
}
type Texts = Map<string, Places>

/** What a name, or a path, may be equal to: all of it, or its last components by the number of slashes between them. */
class Subject {
  readonly #whole: Texts = new Map()
  readonly #tails = new Map<number, Texts>()
  #mostSlashes = -1

  get tables(): number {
    return this.#tails.size + (this.#whole.size > 0 ? 1 : 0)
  }

  /** Places come in their order. */
  add(place: number, directoriesOnly: boolean, { slashes, text }: Literal): void {
    const texts = slashes === undefined ? this.#whole : this.#tailsWith(slashes)
    const places = texts.get(text) ?? { all: NOWHERE, directories: NOWHERE }
    texts.set(text, places)
    const whom = directoriesOnly ? 'directories' : 'all'
    places[whom] = Math.min(places[whom], place)
  }

  first(text: string, isDirectory: boolean): number {
    let least = this.#whole.size > 0 ? placeIn(this.#whole, text, isDirectory) : NOWHERE
    let at = text.length
    for (let slashes = 0; slashes <= this.#mostSlashes && at >= 0; slashes++) {
      at = text.lastIndexOf('/', at - 1)
      const texts = this.#tails.get(slashes)
      if (texts) least = Math.min(least, placeIn(texts, text.slice(at + 1), isDirectory))
    }
    return least
  }

  #tailsWith(slashes: number): Texts {
    const texts = this.#tails.get(slashes) ?? new Map()
    this.#tails.set(slashes, texts)
    this.#mostSlashes = Math.max(this.#mostSlashes, slashes)
    return texts
  }
}

function placeIn(texts: Texts, text: string, isDirectory: boolean): number {
  const places = texts.get(text)
  if (!places) return NOWHERE
  return isDirectory ? Math.min(places.all, places.directories) : places.all
}
