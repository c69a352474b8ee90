/** CHANGELOG.md as other programs want it. Pure. */

/** As lintian wants it. */
const CHANGELOG_WIDTH = 78

/** What a version brings, without its heading: that of "Unreleased" where there is no such version. */
export function notesOf(changelog: string, version: string): string {
  const sections = changelog.split(/^## /m).slice(1)
  const found =
    sections.find((section) => section.startsWith(`${version} `) || section.startsWith(`${version}\n`)) ??
    sections.find((section) => section.startsWith('Unreleased'))
  if (found === undefined) throw new Error(`CHANGELOG.md has nothing of ${version}`)
  return found.slice(found.indexOf('\n') + 1).trim()
}

/** debian/changelog with this version alone. A tilde sorts a pre-release before its release. */
export function debianChangelog(changelog: string, version: string, date: Date, maintainer: string): string {
  const items = notesOf(changelog, version)
    .split(/\n(?=- |### )|\n\n/)
    .map((item) => item.trim().replaceAll(/\s+/g, ' '))
    .filter((item) => item !== '')
    .flatMap((item) => {
      const heading = /^### (.*)$/.exec(item)
      return heading ? ['', `  [ ${heading[1]} ]`] : wrapped(item.replace(/^- /, ''))
    })
  const day = date.toUTCString().replace('GMT', '+0000')
  return `upserv (${version.replace('-', '~')}) unstable; urgency=medium

${items.join('\n').trimStart().replace(/^/, '  ')}

 -- ${maintainer}  ${day}
`
}

/** An item of debian/changelog, in lines that fit. */
function wrapped(text: string): string[] {
  const lines = ['  *']
  for (const word of text.split(' ')) {
    if (lines.at(-1)!.length + 1 + word.length > CHANGELOG_WIDTH) lines.push('   ')
    lines.push(`${lines.pop()} ${word}`)
  }
  return lines
}

/** CHANGELOG.md with what is under "Unreleased" under the heading of a version, and nothing unreleased. */
export function withRelease(changelog: string, version: string, date: string): string {
  if (notesOf(changelog, 'Unreleased') === '')
    throw new Error('Nothing is under "Unreleased" in CHANGELOG.md')
  return changelog.replace('\n## Unreleased\n', `\n## Unreleased\n\n## ${version} (${date})\n`)
}
