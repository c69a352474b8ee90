/**
 * The border between names as archives have them and paths inside a build.
 *
 * Whatever crosses it is relative, canonical and short enough for any Linux file system. What cannot be
 * put so is refused with its name: nothing is repaired by guessing, since two readers that repair
 * differently are how files end up outside a tree.
 */
import { ArchiveError } from '../errors.ts'
import { type ByteString, joinBytes, showBytes, splitBytes } from '../lib/bytes.ts'

/** Linux's PATH_MAX is 4096 with the closing NUL. */
export const MAX_PATH_BYTES = 4095
/** Linux's NAME_MAX: no file system could hold a longer component. */
export const MAX_COMPONENT_BYTES = 255
/** A symlink holds a path, so the same limit. */
export const MAX_LINK_TARGET_BYTES = MAX_PATH_BYTES

/**
 * The canonical form of a member's name (see `ArchiveEntry.path`). The archive's root, however it is
 * spelt (`.`, `./`), is the empty string. `linkOf` is the member whose hard-link target this is.
 */
export function canonicalPath(raw: ByteString, linkOf?: ByteString): ByteString {
  const refuse = (why: string): never => {
    const link = linkOf === undefined ? 'an entry is named' : `the hard link "${showBytes(linkOf)}" points at`
    throw new ArchiveError(`${link} "${showBytes(raw)}", which ${why}`, {
      hint: 'Make the archive with relative names, for example with: tar -C ROOT -cf FILE .',
    })
  }

  let path = raw
  if (NOT_CANONICAL.test(raw)) {
    if (raw.includes('\0')) refuse('holds a NUL byte')
    if (raw.startsWith('/')) refuse('is an absolute path')
    const components = splitBytes(raw, '/').filter((c) => c !== '' && c !== '.')
    if (components.includes('..' as ByteString)) refuse('leaves the tree by ".."')
    if (raw === '') refuse('is empty')
    path = joinBytes(components, '/')
  }
  if (path.length > MAX_PATH_BYTES) refuse(`has ${path.length} bytes, more than ${MAX_PATH_BYTES}`)
  // Only a path this long can hold a component that is too long, which spares nearly all paths the split.
  if (
    path.length > MAX_COMPONENT_BYTES &&
    splitBytes(path, '/').some((c) => c.length > MAX_COMPONENT_BYTES)
  ) {
    refuse(`has a component of more than ${MAX_COMPONENT_BYTES} bytes`)
  }
  return path
}

/** A symlink's target: kept byte for byte, wherever it points, as long as a file system could hold it. */
export function checkSymlinkTarget(target: ByteString, path: ByteString): ByteString {
  const refuse = (why: string): never => {
    throw new ArchiveError(`the symlink "${showBytes(path)}" ${why}`)
  }
  if (target.length === 0) refuse('has no target')
  if (target.length > MAX_LINK_TARGET_BYTES) {
    refuse(`has a target of ${target.length} bytes, more than ${MAX_LINK_TARGET_BYTES}`)
  }
  if (target.includes('\0')) refuse('has a target with a NUL byte')
  return target
}

/** An empty, `.` or `..` component anywhere, which covers leading and trailing slashes; or a NUL. */
const NOT_CANONICAL = /(?:^|\/)\.{0,2}(?:\/|$)|\0/
