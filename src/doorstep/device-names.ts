/** Which devices a client's certificate names: its common name, and its alternative names of DNS, mail and URI. */
import type { PeerCertificate } from 'node:tls'

/** Beyond, a certificate names nobody: a device has a name or two. */
const MAX_NAMES = 16
const MAX_NAME = 255
/** What would move a terminal or break a line of the log. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u
const KINDS = ['DNS', 'email', 'URI']

/**
 * @param names devices by the names in certificates; undefined: those names are theirs.
 * @returns each once; none for a certificate that names no device we know.
 */
export function deviceNames(
  { subject, subjectaltname }: Pick<PeerCertificate, 'subject' | 'subjectaltname'>,
  names: Readonly<Record<string, string>> | undefined,
): string[] {
  const said = [[subject?.CN ?? []].flat(), alternativeNames(subjectaltname ?? '')].flat()
  if (said.length > MAX_NAMES) return []
  const plain = said.filter((name) => name !== '' && name.length <= MAX_NAME && !UNPRINTABLE.test(name))
  const devices = names ? plain.flatMap((name) => (Object.hasOwn(names, name) ? names[name]! : [])) : plain
  return [...new Set(devices)]
}

/** Node writes "DNS:a, URI:b", and as a string of JSON what could be mistaken for the next. */
function alternativeNames(text: string): string[] {
  const names: string[] = []
  for (const [, kind, name = ''] of text.matchAll(
    /(?:^|, )([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^",]*)(?=, |$)/g,
  )) {
    if (KINDS.includes(kind!)) names.push(name.startsWith('"') ? (JSON.parse(name) as string) : name)
  }
  return names
}
