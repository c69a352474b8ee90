/**
 * The token that changes by HTTP take: one line in a file that only upserv's own user reads.
 *
 * Unless the configuration names a file, there is one in the data directory, made at the first start with a
 * token that nobody can guess. The file is read for each change, so another token holds from its next use on.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import {
  closeSync,
  fchownSync,
  fstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { TokenMissing } from '../errors.ts'

const TOKEN_BYTES = 32
const FILE_MODE = 0o600
/** Nobody types fewer. */
const MIN_LENGTH = 16
const MAX_LENGTH = 200

/** Makes the file if it is not there. */
export function makeTokenFile(path: string): void {
  try {
    writeFileSync(path, `${randomBytes(TOKEN_BYTES).toString('base64url')}\n`, {
      flag: 'wx',
      mode: FILE_MODE,
    })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

/** The token in the file. @throws TokenMissing that says why it can't be used. */
export function readToken(path: string): string {
  let text: string
  try {
    const file = openSync(path, 'r')
    try {
      // A token that others can read is none.
      if (fstatSync(file).mode & 0o077) throw new Error(`others may read it (chmod 600 ${path})`)
      text = readFileSync(file, 'utf8')
    } finally {
      closeSync(file)
    }
  } catch (cause) {
    throw new TokenMissing(`the token file ${path} cannot be used: ${(cause as Error).message}`, { cause })
  }
  const token = text.trim()
  if (token.length < MIN_LENGTH || token.length > MAX_LENGTH || /\s/.test(token))
    throw new TokenMissing(
      `the token file ${path} holds no token: one line of ${MIN_LENGTH} to ${MAX_LENGTH} characters`,
    )
  return token
}

/** Puts another token in place of the one in the file; whatever was begun with that ends. @returns the new one. */
export function renewToken(path: string): string {
  const token = randomBytes(TOKEN_BYTES).toString('base64url')
  const made = `${path}.new`
  rmSync(made, { force: true })
  const { uid, gid } = statSync(path, { throwIfNoEntry: false }) ?? {}
  const file = openSync(made, 'wx', FILE_MODE)
  try {
    writeFileSync(file, `${token}\n`)
    // Root may do this for the server's own user: to the file that it has made, whatever has that name by now.
    if (uid !== undefined && gid !== undefined && uid !== process.getuid?.()) fchownSync(file, uid, gid)
  } finally {
    closeSync(file)
  }
  renameSync(made, path)
  return token
}

/** The token in a header; undefined where there is none. */
export function bearerOf(header: string | undefined): string | undefined {
  return /^Bearer +(\S{1,200})$/i.exec(header ?? '')?.[1]
}

/** Takes the same time for every token that is wrong. */
export function isSameToken(given: string, token: string): boolean {
  const a = Buffer.alloc(MAX_LENGTH)
  const b = Buffer.alloc(MAX_LENGTH)
  a.write(given)
  b.write(token)
  return timingSafeEqual(a, b) && given.length === token.length
}
