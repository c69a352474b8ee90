/** The type bits of a Unix mode, as stat(2), archives and the rsync wire all have them. */

/** Masks the type out of a mode. */
export const TYPE_MASK = 0o170000
export const SOCKET = 0o140000
export const SYMLINK = 0o120000
export const REGULAR = 0o100000
export const BLOCK_DEVICE = 0o060000
export const DIRECTORY = 0o040000
export const CHAR_DEVICE = 0o020000
export const FIFO = 0o010000

/** Masks permissions with setuid, setgid and sticky out of a mode. */
export const PERMISSION_MASK = 0o7777

export function isDirectoryMode(mode: number): boolean {
  return (mode & TYPE_MASK) === DIRECTORY
}

export function isRegularMode(mode: number): boolean {
  return (mode & TYPE_MASK) === REGULAR
}

export function isSymlinkMode(mode: number): boolean {
  return (mode & TYPE_MASK) === SYMLINK
}
