/**
 * The entries of `auth_users`. Each is one user, by name, and what holds for them.
 *
 * rsyncd.conf takes one string, with commas or blanks between its entries, patterns and groups. Here a list
 * is a list: an entry that would mean more than one user there is refused, so that nobody is let in or
 * kept out by a way of reading that its author did not have in mind.
 */
import { utf8Bytes } from '../lib/bytes.ts'

export interface UserRule {
  /** As bytes, like everything that a client sends. */
  readonly user: string
  /** False for `NAME:deny`. */
  readonly admitted: boolean
}

/** What the entry says, or why it can't be used. */
export function parseUserRule(text: string): UserRule | string {
  if (text.startsWith('@')) return `"${text}": groups are not supported; name each user`
  const [user = '', access, ...more] = text.split(':')
  if (/[\s,;]/.test(text)) return `"${text}": one entry for each user, without blanks and commas`
  if (/[*?[\]]/.test(user)) return `"${text}": patterns of users are not supported; name each user`
  // `#` would begin a comment of the secrets file.
  if (!/^[^\x00-\x20\x7f#@:][^\x00-\x20\x7f:]*$/.test(user)) return `"${text}" is no name of a user`
  if (access === undefined || (access === 'ro' && more.length === 0)) {
    return { user: utf8Bytes(user), admitted: true }
  }
  if (access === 'deny' && more.length === 0) return { user: utf8Bytes(user), admitted: false }
  if (access === 'rw') return `"${text}": nobody can write to a build; leave ":rw" out`
  return `"${text}": behind the name there may be ":ro" or ":deny", nothing else`
}
