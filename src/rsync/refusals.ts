/**
 * Options that a request is refused for: those that a read-only server never carries out, and those that a
 * module's rules name. docs/rsync-protocol.md, section 10.2.
 *
 * They are looked for among the options as the parser took them, in every spelling: what is carried out and
 * what is looked at can't differ.
 */
import { RefusedError } from '../errors.ts'
import type { ByteString } from '../lib/bytes.ts'

/** Names that `refuse_options` takes, and every long option that stands for the same. */
const REFUSABLE: Readonly<Record<string, readonly string[]>> = {
  acls: [],
  append: [],
  atimes: [],
  bwlimit: [],
  checksum: [],
  'checksum-choice': [],
  'checksum-seed': [],
  compress: ['compress-choice', 'compress-level', 'new-compress', 'old-compress', 'zc', 'zl'],
  'copy-dirlinks': [],
  'copy-links': [],
  'copy-unsafe-links': [],
  crtimes: [],
  'cvs-exclude': [],
  'delete-missing-args': [],
  devices: [],
  'dry-run': [],
  'files-from': [],
  group: [],
  'hard-links': [],
  iconv: [],
  'ignore-errors': [],
  'ignore-missing-args': [],
  inplace: [],
  links: [],
  'list-only': [],
  'numeric-ids': [],
  owner: [],
  recursive: [],
  relative: [],
  specials: [],
  timeout: [],
  xattrs: [],
}
export const REFUSABLE_OPTIONS: readonly string[] = Object.keys(REFUSABLE)

/** Letters of the cluster, and the names that they stand for. */
const LETTERS: ReadonlyMap<string, readonly string[]> = new Map([
  ['A', ['acls']],
  ['U', ['atimes']],
  ['c', ['checksum']],
  ['z', ['compress']],
  ['k', ['copy-dirlinks']],
  ['L', ['copy-links']],
  ['N', ['crtimes']],
  ['C', ['cvs-exclude']],
  ['D', ['devices', 'specials']],
  ['n', ['dry-run']],
  ['g', ['group']],
  ['H', ['hard-links']],
  ['l', ['links']],
  ['o', ['owner']],
  ['r', ['recursive']],
  ['R', ['relative']],
  ['X', ['xattrs']],
])

/** The stock daemon refuses these as well, whatever its configuration says: they are for who writes, or runs it. */
const NEVER = new Set(['copy-devices', 'daemon', 'log-file', 'write-devices'])

/**
 * @param words options as `optionWords` gives them.
 * @throws RefusedError for the first that is refused. The stock daemon's own text.
 */
export function refuseOptions(words: readonly string[], refused: readonly string[]): void {
  for (const word of words) {
    if (NEVER.has(word)) throw refusal(word)
    const name = refused.find((name) => word === name || REFUSABLE[name]?.includes(word))
    if (name !== undefined) throw refusal(name)
  }
}

function refusal(name: string): RefusedError {
  const letter = [...LETTERS].find(([, names]) => names[0] === name)?.[0]
  const short = letter === undefined ? '' : ` (-${letter})`
  return new RefusedError(`ERROR: the server is configured to refuse --${name}${short}`, 4)
}

/** Long names of all options, those of the cluster's letters included. @param options of `splitArguments` */
export function optionWords(options: readonly ByteString[]): string[] {
  const words: string[] = []
  for (const option of options) {
    if (option.startsWith('--')) {
      words.push(option.slice(2).split('=', 1)[0]!)
    } else {
      for (const letter of option.slice(1)) {
        // What follows these is their value.
        if (letter === 'e' || letter === 'B' || letter === '@') break
        words.push(...(LETTERS.get(letter) ?? []))
      }
    }
  }
  return words
}
