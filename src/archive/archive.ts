/**
 * What every archive reader speaks: members as they come off the stream, and whoever takes them.
 *
 * A reader is fed bytes and calls its sink synchronously; it knows nothing of stores or builds. What the
 * sink throws ends the reading and reaches whoever fed the reader.
 */
import type { ByteString } from '../lib/bytes.ts'
import type { FileType } from '../lib/file-mode.ts'

export type ArchiveEntryType = FileType | 'hardlink'

/** One member, as its headers describe it. */
export interface ArchiveEntry {
  /**
   * Relative path in canonical form: no leading `/` or `./`, no trailing `/`, no empty, `.` or `..`
   * component. The archive's own root directory is the empty string. Readers refuse what cannot be put
   * so (absolute paths, `..`, NUL) with an ArchiveError that names the entry.
   */
  path: ByteString
  type: ArchiveEntryType
  /** Permission bits only, with setuid, setgid and sticky: 0 to 0o7777. */
  mode: number
  uid: number
  gid: number
  /** Owner's name as the archive has it; undefined when it has none. */
  userName: ByteString | undefined
  groupName: ByteString | undefined
  /** Bytes of content that follow for a `file` (holes of sparse files included); 0 for all other types. */
  size: number
  /** Whole seconds since 1970, rounded down, and the nanoseconds above them (0 to 999,999,999). */
  mtime: number
  mtimeNsec: number
  /** Symlink: the target, byte for byte. Hard link: the path it names, in the canonical form of `path`. Else ''. */
  linkTarget: ByteString
  /** Device numbers of char and block devices; else 0. */
  major: number
  minor: number
  /**
   * Extended attributes by full name ("user.foo", "security.capability", "system.posix_acl_access"), or
   * undefined when there are none. ACLs that the archive keeps as text are not converted. Values are the
   * sink's to keep, names and values are within what Linux takes.
   */
  xattrs: ReadonlyMap<ByteString, Uint8Array> | undefined
}

/** Takes what a reader finds. For a `file`, `data` calls of exactly `size` bytes in all follow `entry`. */
export interface ArchiveSink {
  entry(entry: ArchiveEntry): void
  /** The chunk is only lent: a sink that keeps it must copy it. */
  data(chunk: Uint8Array): void
}
