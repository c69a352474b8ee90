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
import { byteString, splitBytes } from '../lib/bytes.ts'
import { readPrivateFile, stampOf } from '../lib/private-file.ts'

/** Some twenty thousand users; a larger file is not what its name says. */
const MAX_BYTES = 1 << 20

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
      const stamp = stampOf(this.#path)
      if (stamp !== undefined && stamp === this.#stamp) return
      this.#passwords = parseSecrets(readPrivateFile(this.#path, MAX_BYTES))
      this.#stamp = stamp
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
