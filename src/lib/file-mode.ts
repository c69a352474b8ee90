/** The type bits of a Unix mode, as stat(2), archives and the rsync wire all have them, and their names. */

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

export function isDeviceMode(mode: number): boolean {
  const type = mode & TYPE_MASK
  return type === CHAR_DEVICE || type === BLOCK_DEVICE
}

/** As the contents file and the API spell them. */
export type FileType = 'file' | 'directory' | 'symlink' | 'char-device' | 'block-device' | 'fifo' | 'socket'

const TYPE_BITS: Readonly<Record<FileType, number>> = {
  file: REGULAR,
  directory: DIRECTORY,
  symlink: SYMLINK,
  'char-device': CHAR_DEVICE,
  'block-device': BLOCK_DEVICE,
  fifo: FIFO,
  socket: SOCKET,
}
const TYPES = new Map(Object.entries(TYPE_BITS).map(([type, bits]) => [bits, type as FileType]))

/** By the type bits of a mode; undefined when they are none. */
export function typeOfMode(mode: number): FileType | undefined {
  return TYPES.get(mode & TYPE_MASK)
}

/** A mode without permissions. */
export function modeOfType(type: FileType): number {
  return TYPE_BITS[type]
}
