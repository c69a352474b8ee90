/**
 * A secrets file: `user:password` lines, `#` comments, blank lines.
 *
 * It fails closed. A file that is missing, that others may read or change, or that holds a line which we
 * don't understand has no passwords at all, and the log says why. It is read again when it was changed,
 * not for each client.
 *
 * Reading is synchronous: a small local file, read once for each change of it, and whoever asks for a
 * password can't wait in the middle of judging a client.
 */
import { type BigIntStats, closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs'
import { byteString, splitBytes } from '../lib/bytes.ts'

/** Some twenty thousand users; a larger file is not what its name says. */
const MAX_BYTES = 1 << 20
/** Clocks of file systems tick so often: what was changed so recently may change again unseen. */
const UNSETTLED_MS = 2000

export class SecretsFile {
  readonly #path: string
  readonly #onProblem: (problem: string) => void
  #passwords: ReadonlyMap<string, Buffer> = new Map()
  /** What the file looked like when it was read; undefined when it must be read in any case. */
  #stamp: string | undefined
  /** Said already: a client that tries again and again must not fill the log. */
  #told: string | undefined

  /** @param onProblem is told once why the file can't be used, until that changes. */
  constructor(path: string, onProblem: (problem: string) => void) {
    this.#path = path
    this.#onProblem = onProblem
  }

  /** The password of a user; undefined for one whom the file does not name, and for all while it can't be used. */
  passwordOf(user: string): Buffer | undefined {
    this.refresh()
    return this.#passwords.get(user)
  }

  /** Reads the file if it is not the one that was read. Never throws: the problem is told. */
  refresh(): void {
    try {
      const stats = statSync(this.#path, { bigint: true })
      const stamp = stampOf(stats)
      if (stamp === this.#stamp) return
      this.#passwords = readSecrets(this.#path)
      this.#stamp = Date.now() - Number(stats.ctimeMs) < UNSETTLED_MS ? undefined : stamp
      this.#told = undefined
    } catch (error) {
      this.#passwords = new Map()
      this.#stamp = undefined
      const problem = `the secrets file ${this.#path} is not used, so nobody can log in by it: ${(error as Error).message}`
      if (problem !== this.#told) this.#onProblem(problem)
      this.#told = problem
    }
  }
}

function stampOf({ dev, ino, mode, uid, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, mode, uid, size, mtimeNs, ctimeNs].join(':')
}

function readSecrets(path: string): Map<string, Buffer> {
  // What is opened is what is checked; a named pipe must not make the server wait.
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const stats = fstatSync(file)
    if (!stats.isFile()) throw new Error('it is no regular file')
    if ((stats.mode & 0o007) !== 0 || (stats.mode & 0o020) !== 0) {
      throw new Error('others may read or change it; type: chmod 600 FILE')
    }
    const us = process.getuid?.() ?? stats.uid
    if (stats.uid !== us && stats.uid !== 0) {
      throw new Error(`it belongs to user ${stats.uid}, neither to root nor to the server's own user ${us}`)
    }
    if (stats.size > MAX_BYTES) throw new Error(`it has ${stats.size} bytes, more than ${MAX_BYTES}`)
    const bytes = Buffer.alloc(MAX_BYTES)
    return parseSecrets(bytes.subarray(0, readSync(file, bytes, 0, MAX_BYTES, 0)))
  } finally {
    closeSync(file)
  }
}

/** @throws Error that names the line, never what stands in it. */
export function parseSecrets(data: Uint8Array): Map<string, Buffer> {
  const passwords = new Map<string, Buffer>()
  for (const [i, line] of splitBytes(byteString(data), '\n').entries()) {
    const text = line.replace(/\r$/, '')
    if (text.trim() === '' || text.startsWith('#')) continue
    const refuse = (why: string): never => {
      throw new Error(`line ${i + 1} ${why}`)
    }
    const colon = text.indexOf(':')
    if (colon < 1) refuse('is not "user:password"')
    const user = text.slice(0, colon)
    if (user.startsWith('@')) refuse('names a group, which is not supported')
    if (/\s/.test(user)) refuse('has a blank in the name of its user')
    const password = text.slice(colon + 1)
    if (password === '') refuse('has no password')
    if (passwords.has(user)) refuse('names a user for the second time')
    passwords.set(user, Buffer.from(password, 'latin1'))
  }
  return passwords
}
