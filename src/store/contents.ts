/**
 * The `contents` file that a build gets when upstream publishes none: the tree as an mtree(5) file, which
 * `mtree -f contents -p /` verifies with a stock tool. docs/contents-format.md describes it for readers.
 *
 * One line per path in the manifest's order, the first line names the format and the last one counts the
 * entries, so that a file that was cut short is noticed. Plain ASCII: what is not a letter, a digit or one
 * of a few harmless signs is written as a backslash and three octal digits, so names hold no blanks, no
 * newlines and none of the patterns that mtree would expand.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { asBuffer, type ByteString } from '../lib/bytes.ts'
import {
  BLOCK_DEVICE,
  CHAR_DEVICE,
  DIRECTORY,
  FIFO,
  PERMISSION_MASK,
  REGULAR,
  SYMLINK,
  TYPE_MASK,
} from '../lib/file-mode.ts'
import type { Manifest } from './manifest.ts'

/** Says "#mtree" for tools that look for it, and then what this is. */
export const CONTENTS_FIRST_LINE = '#mtree v2.0 upserv-contents 1'

/** Entries between two breaths of the event loop: a few milliseconds of work. */
const BATCH = 4000

/** The lines for a tree, a few hundred kilobytes at a time. */
export async function* generateContents(manifest: Manifest): AsyncGenerator<Buffer> {
  const groupSizes = sizesOfLinkGroups(manifest)
  /** Escaped paths of directories, by entry; a parent always comes before its children. */
  const directoryPaths = new Map<number, string>([[0, '.']])
  let lines = [CONTENTS_FIRST_LINE]
  for (let i = 0; i < manifest.count; i++) {
    const path = i === 0 ? '.' : `${directoryPaths.get(manifest.parent(i))}/${escapeBytes(manifest.name(i))}`
    if (manifest.isDirectory(i)) directoryPaths.set(i, path)
    lines.push(`${path} ${describe(manifest, i, groupSizes)}`)
    if (lines.length >= BATCH) {
      yield Buffer.from(`${lines.join('\n')}\n`, 'latin1')
      lines = []
      await nextTurn()
    }
  }
  lines.push(`# end of ${manifest.count} entries`)
  yield Buffer.from(`${lines.join('\n')}\n`, 'latin1')
}

/** mtree(5)'s octal escapes. */
export function escapeBytes(bytes: ByteString): string {
  return bytes.replace(
    /[^0-9A-Za-z./_+,:@%~-]/g,
    (byte) => `\\${byte.charCodeAt(0).toString(8).padStart(3, '0')}`,
  )
}

function describe(manifest: Manifest, i: number, groupSizes: Uint32Array): string {
  const mode = manifest.mode(i)
  const permissions = (mode & PERMISSION_MASK).toString(8).padStart(4, '0')
  const time = `${manifest.mtime(i)}.${String(manifest.mtimeNsec(i)).padStart(9, '0')}`
  const common = `mode=${permissions} uid=${manifest.uid(i)} gid=${manifest.gid(i)} time=${time}`
  switch (mode & TYPE_MASK) {
    case REGULAR: {
      const digest = asBuffer(manifest.blobDigest(manifest.blob(i))).toString('hex')
      const group = manifest.linkGroup(i)
      const links = group === 0 ? 'nlink=1' : `nlink=${groupSizes[group]} tags=hardlink-${group}`
      return `type=file ${common} ${links} size=${manifest.size(i)} sha256=${digest}`
    }
    case DIRECTORY:
      return `type=dir ${common}`
    case SYMLINK:
      return `type=link ${common} link=${escapeBytes(manifest.linkTarget(i))}`
    case CHAR_DEVICE:
      return `type=char ${common} device=linux,${manifest.major(i)},${manifest.minor(i)}`
    case BLOCK_DEVICE:
      return `type=block ${common} device=linux,${manifest.major(i)},${manifest.minor(i)}`
    case FIFO:
      return `type=fifo ${common}`
    default:
      return `type=socket ${common}`
  }
}

function sizesOfLinkGroups(manifest: Manifest): Uint32Array {
  let groups = 0
  for (let i = 0; i < manifest.count; i++) groups = Math.max(groups, manifest.linkGroup(i))
  const sizes = new Uint32Array(groups + 1)
  for (let i = 0; i < manifest.count; i++) sizes[manifest.linkGroup(i)]!++
  return sizes
}
