/**
 * Files that hold secrets: passwords, keys. One that others may read or change is not used, nor is one that
 * belongs to somebody else. A change shows in its stamp.
 *
 * Reading is synchronous: small local files, read once for each change.
 */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats, statSync } from 'node:fs'

/** Clocks of file systems tick so often: what was changed so recently may change again unseen. */
const UNSETTLED_MS = 2000

/** @throws Error that says what is wrong with the file. */
export function readPrivateFile(path: string, maxBytes: number): Buffer {
  return readSmallFile(path, maxBytes, ({ mode, uid }) => {
    if ((mode & 0o007) !== 0 || (mode & 0o020) !== 0) {
      throw new Error('others may read or change it; type: chmod 600 FILE')
    }
    const us = process.getuid?.() ?? uid
    if (uid !== us && uid !== 0) {
      throw new Error(`it belongs to user ${uid}, neither to root nor to the server's own user ${us}`)
    }
  })
}

/** A file that anybody may read, such as a certificate. @throws Error that says what is wrong with it. */
export function readPublicFile(path: string, maxBytes: number): Buffer {
  return readSmallFile(path, maxBytes, () => {})
}

function readSmallFile(path: string, maxBytes: number, check: (stats: Stats) => void): Buffer {
  // What is opened is what is checked; a named pipe must not make the server wait.
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const stats = fstatSync(file)
    if (!stats.isFile()) throw new Error('it is no regular file')
    check(stats)
    if (stats.size > maxBytes) throw new Error(`it has ${stats.size} bytes, more than ${maxBytes}`)
    const bytes = Buffer.alloc(maxBytes)
    return bytes.subarray(0, readSync(file, bytes, 0, maxBytes, 0))
  } finally {
    closeSync(file)
  }
}

/**
 * What a file looks like from outside: another stamp is another content. Undefined for one that changed so
 * recently that it may change again without showing it. @throws Error when it is not there.
 */
export function stampOf(path: string): string | undefined {
  const { dev, ino, mode, uid, size, mtimeNs, ctimeNs, ctimeMs } = statSync(path, { bigint: true })
  if (Date.now() - Number(ctimeMs) < UNSETTLED_MS) return undefined
  return [dev, ino, mode, uid, size, mtimeNs, ctimeNs].join(':')
}
