/**
 * How a client proves who it is: challenge and response. docs/rsync-protocol.md, section 1.6.
 *
 *     S -> C   @RSYNCD: AUTHREQD <challenge>
 *     C -> S   <user> <response>             response = base64(DIGEST(password + challenge)), unpadded
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { PeerError } from '../../errors.ts'
import { type ByteString, toBuffer } from '../../lib/bytes.ts'
import { fileDigest } from '../digests.ts'

/** Names of digests for authentication, the strongest first: a client of protocol 32 insists on seeing them. */
export const AUTH_DIGESTS = ['sha512', 'sha256', 'sha1', 'md5', 'md4'] as const

/** 'md4-legacy' has four zero bytes in front: clients before digests were told, below protocol 30. */
export type AuthDigest = (typeof AUTH_DIGESTS)[number] | 'md4-legacy'

/** Those that are as strong as `weakest`, the strongest first: what a greeting lists. */
export function authDigestsFrom(weakest: (typeof AUTH_DIGESTS)[number]): readonly AuthDigest[] {
  return AUTH_DIGESTS.slice(0, AUTH_DIGESTS.indexOf(weakest) + 1)
}

/**
 * The digest that the client uses: the first of its own list that is on ours. Stock clients list the strongest
 * first; where one does not, it is the client's own choice, among those that are strong enough for us.
 * @param listed what its greeting lists; undefined when it has no list.
 * @param ours what our greeting listed.
 * @throws PeerError when none is strong enough.
 */
export function chooseAuthDigest(
  listed: readonly string[] | undefined,
  protocol: number,
  ours: readonly AuthDigest[] = AUTH_DIGESTS,
): AuthDigest {
  if (!listed) {
    const only = protocol >= 30 ? 'md5' : 'md4'
    if (ours.includes(only)) return protocol >= 30 ? 'md5' : 'md4-legacy'
    throw new PeerError(
      'auth',
      `your client proves passwords by ${only} alone, which is too weak here: use rsync 3.2.7 or later, which has ${ours.join(' ')}`,
    )
  }
  for (const name of listed) {
    const known = ours.find((digest) => digest === name)
    if (known) return known
  }
  throw new PeerError(
    'auth',
    `your client does not support one of our daemon-auth checksums: ${ours.join(' ')}`,
  )
}

export interface AuthAnswer {
  readonly user: ByteString
  readonly response: ByteString
}

/** What stands in the line: a user whose name has no blank, and the rest. */
export function parseAuthAnswer(line: ByteString): AuthAnswer {
  const blank = line.indexOf(' ')
  if (blank < 0) return { user: line, response: '' as ByteString }
  return { user: line.slice(0, blank) as ByteString, response: line.slice(blank + 1) as ByteString }
}

/** The one response that proves the password. */
export function authResponse(digest: AuthDigest, password: Uint8Array, challenge: string): string {
  const pieces = [password, Buffer.from(challenge, 'latin1')]
  const sum =
    digest === 'md4'
      ? fileDigest('md4', 0, pieces)
      : digest === 'md4-legacy'
        ? fileDigest('md4-seeded', 0, pieces)
        : createHash(digest).update(pieces[0]!).update(pieces[1]!).digest()
  return Buffer.from(sum).toString('base64').replaceAll('=', '')
}

/** Compares in a time that does not tell how much of the response is right. */
export function isResponse(response: ByteString, expected: string): boolean {
  const sum = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()
  return timingSafeEqual(sum(toBuffer(response)), sum(Buffer.from(expected, 'latin1')))
}
