/**
 * Who is meant: the entries of `auth_users`, of groups and of `fetch_allow`. Each names one kind of thing, and
 * what holds for it.
 *
 *     alice            a user, who proves it by a password
 *     @staff           a group of [groups]
 *     cert:xo-*        whoever shows a client certificate of this name; `*` and `?` stand for text and a byte
 *     192.0.2.0/24     an address or a network    (fetch_allow alone: for modules there is hosts_allow)
 *     *                anybody                    (fetch_allow alone)
 *
 * rsyncd.conf takes one string, with commas or blanks between its entries, and patterns. Here a list is a list:
 * an entry that would mean more than one user there is refused, so that nobody is let in or kept out by a way
 * of reading that its author did not have in mind.
 */
import { utf8Bytes } from '../lib/bytes.ts'
import { whyNoNetwork } from './hosts.ts'

/** Names are bytes, like everything that a client sends. */
export type Who =
  | { readonly user: string }
  /** Of [groups]. */
  | { readonly group: string }
  /** Pattern of a name in a client certificate. */
  | { readonly certificate: string }

/** `admitted` is false for `NAME:deny`. */
export type UserRule = Who & { readonly admitted: boolean }

/** Who may have builds fetched. */
export type FetchRule = Who | { readonly network: string } | { readonly anybody: true }

const CERTIFICATE = 'cert:'

/** What the entry says, or why it can't be used. */
export function parseUserRule(text: string): UserRule | string {
  const certificate = text.startsWith(CERTIFICATE)
  const [name = '', access, ...more] = (certificate ? text.slice(CERTIFICATE.length) : text).split(':')
  if (/[\s,;]/.test(text)) return `"${text}": one entry for each user, without blanks and commas`
  const who = certificate ? parseCertificate(text, name) : parseUserOrGroup(text, name)
  if (typeof who === 'string') return who
  if (access === undefined || (access === 'ro' && more.length === 0)) return { ...who, admitted: true }
  if (access === 'deny' && more.length === 0) return { ...who, admitted: false }
  if (access === 'rw') return `"${text}": nobody can write to a build; leave ":rw" out`
  return `"${text}": behind the name there may be ":ro" or ":deny", nothing else`
}

/** A member of a group: a user or a certificate. */
export function parseMember(text: string): Who | string {
  const rule = parseUserRule(text)
  if (typeof rule === 'string') return rule
  if ('group' in rule) return `"${text}": a group has users and certificates, no groups`
  if (text.includes(':', text.startsWith(CERTIFICATE) ? CERTIFICATE.length : 0)) {
    return `"${text}": a group only says who belongs to it; write ":deny" where the group is used`
  }
  return withoutVerdict(rule)
}

/** An entry of `fetch_allow`. */
export function parseFetchRule(text: string): FetchRule | string {
  if (text === '*') return { anybody: true }
  if (whyNoNetwork(text) === undefined) return { network: text }
  const rule = parseUserRule(text)
  if (typeof rule === 'string') return `${rule}; an address, a network or "*" may stand here as well`
  if (!rule.admitted) return `"${text}": a list of who may; leave out who may not`
  return withoutVerdict(rule)
}

function parseUserOrGroup(text: string, name: string): Who | string {
  if (/[*?[\]]/.test(name))
    return `"${text}": patterns of users are not supported; name each user, or a group`
  const isGroup = name.startsWith('@')
  const bare = isGroup ? name.slice(1) : name
  // `#` would begin a comment of the secrets file.
  if (!/^[^\x00-\x20\x7f#@:][^\x00-\x20\x7f:]*$/.test(bare)) {
    return `"${text}" is no name of a ${isGroup ? 'group' : 'user'}`
  }
  return isGroup ? { group: bare } : { user: utf8Bytes(bare) }
}

function parseCertificate(text: string, name: string): Who | string {
  if (!/^[^\x00-\x20\x7f:]{1,255}$/.test(name)) {
    return `"${text}" is no name in a certificate, such as "cert:laptop-7" or "cert:*.devices.example.org"`
  }
  return { certificate: utf8Bytes(name) }
}

function withoutVerdict(rule: UserRule): Who {
  if ('user' in rule) return { user: rule.user }
  return 'group' in rule ? { group: rule.group } : { certificate: rule.certificate }
}
