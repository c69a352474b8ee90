/**
 * Why a session went as it did, and what would make the next one better: rules over what is known of it.
 */
import type { SessionRecord } from '../history/session-record.ts'
import { formatDuration, formatSize } from '../lib/units.ts'
import type { Hint } from './operations.ts'

/** What is known beside the session itself. */
export interface Circumstances {
  /** All files of the build share this mtime, in seconds; null when they don't. */
  uniformMtime: number | null
  /** The same device's last complete session before, for another build; null when none is known. */
  previousBuild: string | null
  /** How many builds lie between that one and this, by the order of their ids. */
  buildsBetween: number
}

/** Below this a saving is not worth a word. */
const WORTH_BYTES = 256 * 1024
const LONG_WAIT_MS = 10_000
/** A basis so many builds behind shares little. */
const OLD_BASIS = 5

/** What a person should know of it, the most useful first. */
export function hintsFor(
  record: SessionRecord,
  { uniformMtime, previousBuild, buildsBetween }: Circumstances,
): Hint[] {
  const hints: Hint[] = []
  const hint = (code: Hint['code'], text: string, values: Hint['values'] = {}): void => {
    hints.push({ code, text, values })
  }
  const { files, newFiles, matchedBytes, literalBytes, newBytes } = record
  const sent = matchedBytes + literalBytes
  const asksChecksum = hasOption(record.options, 'c', '--checksum')
  const transfers = record.outcome === 'done' || record.outcome === 'lost'

  switch (record.code) {
    case 'ACCESS_DENIED':
      hint(
        'access-denied',
        'The rules of this module do not admit the client: see `hosts_allow` and `auth_users`.',
      )
      break
    case 'SERVER_BUSY':
      hint(
        'server-busy',
        'As many clients were here as may: raise `rsync.max_connections` or `rsync.waiting_line`.',
      )
      break
    case 'PEER_GONE':
      hint(
        'client-left',
        `The client left in state "${record.state}" after ${formatDuration(record.ms)}: a link that broke, a --timeout that was too short, or somebody pressed ^C. What it has is used the next time (with --partial also of the file it was at).`,
        { state: record.state, seconds: Math.round(record.ms / 1000) },
      )
      break
    case 'BUILD_UNKNOWN':
    case 'BUILD_NOT_PUBLISHED':
      hint('no-such-build', 'No source has this build: see `upserv available` and `source.builds`.')
      break
  }
  if (transfers && uniformMtime !== null && !asksChecksum) {
    hint(
      'uniform-mtime',
      'All mtimes of this build are equal, so a changed file of equal size is taken for unchanged: add -c, which costs the server nothing.',
    )
  }
  if (files > 0 && newFiles === files) {
    hint(
      'first-sync',
      'No basis: this was a first sync, or into an empty place. The next update sends differences only.',
    )
  } else if (newBytes > WORTH_BYTES && newBytes * 2 > literalBytes) {
    hint(
      'renamed-files',
      `${formatSize(newBytes)} of ${formatSize(literalBytes)} went for files that the client did not have at all: if they were renamed, --fuzzy lets it use a similar file.`,
      { newBytes, literalBytes },
    )
  }
  if (
    files > newFiles &&
    matchedBytes === 0 &&
    literalBytes > WORTH_BYTES &&
    !hasOption(record.options, 'W', '--whole-file')
  ) {
    hint(
      'nothing-shared',
      'The files that the device had share nothing with the new ones: they are compressed or encrypted, or of another build altogether.',
    )
  }
  if (hasOption(record.options, 'W', '--whole-file')) {
    hint(
      'whole-file',
      'The client asked for whole files (-W): without it only differences would have gone out.',
    )
  }
  if (previousBuild !== null && buildsBetween >= OLD_BASIS) {
    hint(
      'old-basis',
      `The basis is ${buildsBetween} builds old: the device came from build ${previousBuild}.`,
      {
        builds: buildsBetween,
        previous: previousBuild,
      },
    )
  }
  if (transfers && record.codec === 'none' && literalBytes > WORTH_BYTES) {
    hint('not-compressed', `${formatSize(literalBytes)} went out uncompressed: add -z.`, { literalBytes })
  }
  if (record.waitedMs.build > LONG_WAIT_MS) {
    hint(
      'waited-for-build',
      `It waited ${formatDuration(record.waitedMs.build)} for the build to be fetched: \`upserv fetch\` it before devices ask.`,
      { seconds: Math.round(record.waitedMs.build / 1000) },
    )
  }
  if (record.waitedMs.line > LONG_WAIT_MS) {
    hint(
      'waited-in-line',
      `It waited ${formatDuration(record.waitedMs.line)} for its turn: raise \`rsync.max_connections\` if link and machine have more to give.`,
      { seconds: Math.round(record.waitedMs.line / 1000) },
    )
  }
  if (record.outcome === 'done' && files === 0 && record.entries > 0) {
    hint('nothing-new', 'There was nothing to send: the device has this build already, by what it compares.')
  } else if (hints.length === 0 && record.outcome === 'done' && sent > 0) {
    hint(
      'fine',
      `All is well: ${Math.round((100 * matchedBytes) / sent)} % of the content was there already.`,
      {
        percent: Math.round((100 * matchedBytes) / sent),
      },
    )
  }
  return hints
}

/** Whether words such as "-logDtprze.iLsfxCIvu --checksum" hold an option, alone or in a cluster of letters. */
function hasOption(options: string, letter: string, long: string): boolean {
  return options.split(' ').some((word) => {
    if (word === long) return true
    if (!/^-[^-]/.test(word)) return false
    // Behind "e" come the client's capabilities, which are letters of another kind.
    const [letters] = word.slice(1).split('e', 1)
    return letters!.includes(letter)
  })
}
