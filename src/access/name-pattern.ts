/**
 * Names of modules with wildcards, as in `[[module]]` tables: `*` stands for any text, `?` for one byte, and
 * everything else for itself.
 *
 * Clients choose the names that are matched, and may make them long, so a name costs at most its length
 * times that of the pattern: where several stars could be tried in every combination, only the last one
 * is. (A regular expression would try them all.)
 */

/** @returns whether the whole of `name` matches. */
export function matchesName(pattern: string, name: string): boolean {
  let p = 0
  let n = 0
  /** Behind the last star, and what it stands for ends here; -1 before there is one. */
  let behindStar = -1
  let starEnd = 0
  while (n < name.length) {
    const wanted = pattern[p]
    if (wanted === '*') {
      behindStar = ++p
      starEnd = n
    } else if (wanted !== undefined && (wanted === '?' || wanted === name[n])) {
      p++
      n++
    } else if (behindStar >= 0) {
      // What an earlier star stands for can stay as short as it is: this one can take whatever is between.
      p = behindStar
      n = ++starEnd
    } else {
      return false
    }
  }
  while (pattern[p] === '*') p++
  return p === pattern.length
}
