/**
 * Filter rules in their order, of which the first that applies decides.
 *
 * Those without wildcards are looked up, so that a list of ten thousand names costs what a short one does: people
 * make them with programs, and any text file of a build may be named as a rule file.
 */
import type { Literal, Named, Rule } from './filter-rule.ts'

/** So few are tried sooner than looked up. */
const FEW = 16
/** Each number of them has a table of its own; no build is as deep. */
const MOST_SLASHES = 100

export class RuleList {
  readonly rules: readonly Rule[]
  #literals: Literals | undefined
  #tried: readonly number[] | undefined

  constructor(rules: readonly Rule[]) {
    this.rules = rules
  }

  get length(): number {
    return this.rules.length
  }

  /** Places of the rules that have to be tried one after the other. */
  get tried(): readonly number[] {
    if (!this.#tried) this.#sort()
    return this.#tried!
  }

  /** Place of the first rule that need not be tried and applies; behind the last one if there is none. */
  firstLiteral(named: Named): number {
    if (!this.#tried) this.#sort()
    return this.#literals?.first(named) ?? this.rules.length
  }

  /** Later, as most rule files lie in directories of few names. */
  #sort(): void {
    const tried: number[] = []
    const isShort = this.rules.length <= FEW
    for (const [place, rule] of this.rules.entries()) {
      if (isShort || !rule.literal || (rule.literal.slashes ?? 0) > MOST_SLASHES) {
        tried.push(place)
        continue
      }
      this.#literals ??= new Literals()
      this.#literals.add(place, rule.directoriesOnly, rule.literal)
    }
    this.#tried = tried
  }
}

/** Behind all places. */
const NOWHERE = Number.POSITIVE_INFINITY

/** Places of the first rule with a text, of those for all names and of those for directories. */
interface Places {
  all: number
  directories: number
}
type Texts = Map<string, Places>

/** What a subject may be equal to: all of it, or its last components by the number of slashes between them. */
class Subject {
  whole: Texts | undefined
  readonly tails: Texts[] = []
}

class Literals {
  readonly #subjects = { name: new Subject(), path: new Subject() }

  /** Places come in their order. */
  add(place: number, directoriesOnly: boolean, { subject, slashes, text }: Literal): void {
    const { tails } = this.#subjects[subject]
    let texts: Texts
    if (slashes === undefined) texts = this.#subjects[subject].whole ??= new Map()
    else {
      while (tails.length <= slashes) tails.push(new Map())
      texts = tails[slashes]!
    }
    const places = texts.get(text) ?? { all: NOWHERE, directories: NOWHERE }
    texts.set(text, places)
    const whom = directoriesOnly ? 'directories' : 'all'
    places[whom] = Math.min(places[whom], place)
  }

  /** The least place of those that apply. */
  first({ name, path, isDirectory }: Named): number | undefined {
    const least = Math.min(
      firstOf(this.#subjects.name, name, isDirectory),
      firstOf(this.#subjects.path, path, isDirectory),
    )
    return least === NOWHERE ? undefined : least
  }
}

function firstOf({ whole, tails }: Subject, text: string, isDirectory: boolean): number {
  let least = placeIn(whole, text, isDirectory)
  let at = text.length
  for (let slashes = 0; slashes < tails.length && at >= 0; slashes++) {
    at = text.lastIndexOf('/', at - 1)
    const texts = tails[slashes]!
    if (texts.size > 0) least = Math.min(least, placeIn(texts, text.slice(at + 1), isDirectory))
  }
  return least
}

function placeIn(texts: Texts | undefined, text: string, isDirectory: boolean): number {
  const places = texts?.get(text)
  if (!places) return NOWHERE
  return isDirectory ? Math.min(places.all, places.directories) : places.all
}
