/**
 * Disk: every call that the data directory is read and written with. The rest of src/store, and what
 * writes into the data directory elsewhere, reaches the file system through this and nothing else, so that
 * tests can stand in for the disk: fail any one call, or forget in a power cut whatever was not fsynced.
 *
 * Thin on purpose: names, arguments and errors are node:fs's own, narrowed to what is used. Each call is
 * one system call or a read of one file, as a crash may come between any two of them; whatever takes
 * several, such as removing a tree, is written on top (store/durable.ts).
 *
 * The promises are for the event loop. `now` is for worker threads, and for start, when nothing else runs.
 */
import {
  closeSync,
  constants,
  fsyncSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  readvSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import {
  type FileHandle,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rmdir,
  stat,
  statfs,
  unlink,
  utimes,
} from 'node:fs/promises'
import { flock } from './flock.ts'

/** Says which promise an fsync keeps. The disk ignores it; a test leaves out those of one name to see if it is kept. */
export type SyncReason = string

export interface DiskStats {
  /** Which file it is, whatever its name: within one file system, for as long as it exists. */
  readonly ino: number
  readonly size: number
  readonly mtime: Date
  readonly mtimeMs: number
  isDirectory(): boolean
}

export interface DiskEntry {
  readonly name: string
  isDirectory(): boolean
}

/** An open file, or a directory that is opened to be fsynced. As FileHandle. */
export interface DiskFile {
  /** For threads that read by themselves while it is open. */
  readonly fd: number
  stat(): Promise<DiskStats>
  read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesRead: number }>
  readv(buffers: readonly Uint8Array[], position: number): Promise<{ readonly bytesRead: number }>
  /** The same, at once: see lib/quick-reads.ts. @returns how many bytes were read. */
  readvNow(buffers: readonly Uint8Array[], position: number): number
  /** May write less than it was given. */
  write(
    bytes: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesWritten: number }>
  /** Goes on where it stands, and writes all of it. */
  writeFile(bytes: Uint8Array): Promise<void>
  truncate(length: number): Promise<void>
  /** Content (of a directory: the names in it) survives a power cut from here on. */
  sync(why: SyncReason): Promise<void>
  close(): Promise<void>
}

export interface Disk {
  open(path: string, flags: 'r' | 'r+' | 'w' | 'w+' | 'wx' | 'a', mode?: number): Promise<DiskFile>
  readFile(path: string): Promise<Buffer>
  readdir(path: string): Promise<string[]>
  stat(path: string): Promise<DiskStats>
  statfs(path: string): Promise<{ readonly bavail: number; readonly bsize: number }>
  mkdir(path: string, mode: number): Promise<void>
  rename(from: string, to: string): Promise<void>
  unlink(path: string): Promise<void>
  rmdir(path: string): Promise<void>
  utimes(path: string, accessed: Date, modified: Date): Promise<void>
  /** The same, at once. */
  readonly now: DiskNow
}

export interface DiskNow {
  /** 'rwc': for reading and writing, made when it is missing. */
  open(path: string, flags: 'wx' | 'rwc', mode: number): number
  /** May write less than it was given. */
  write(fd: number, bytes: Uint8Array, offset: number, length: number, position: number): number
  /** May read less than it was asked for; 0 at the end. */
  read(fd: number, bytes: Uint8Array, offset: number, length: number, position: number): number
  truncate(fd: number, length: number): void
  sync(fd: number, why: SyncReason): void
  close(fd: number): void
  /** Takes an exclusive lock that lasts until `close` or the end of the process; false when it is taken. */
  lock(fd: number): boolean
  readFile(path: string): Buffer
  readdir(path: string): DiskEntry[]
  /** Undefined when there is nothing of that name. */
  stat(path: string): DiskStats | undefined
  unlink(path: string): void
}

/** The disk of this machine. */
export const realDisk: Disk = {
  open: async (path, flags, mode) => withReadvNow(await open(path, flags, mode)),
  readFile: (path) => readFile(path),
  readdir: (path) => readdir(path),
  stat: (path) => stat(path),
  statfs: (path) => statfs(path),
  mkdir: (path, mode) => mkdir(path, { mode }).then(() => {}),
  rename: (from, to) => rename(from, to),
  unlink: (path) => unlink(path),
  rmdir: (path) => rmdir(path),
  utimes: (path, accessed, modified) => utimes(path, accessed, modified),
  now: {
    open: (path, flags, mode) =>
      openSync(path, flags === 'rwc' ? constants.O_RDWR | constants.O_CREAT : flags, mode),
    write: (fd, bytes, offset, length, position) => writeSync(fd, bytes, offset, length, position),
    read: (fd, bytes, offset, length, position) => readSync(fd, bytes, offset, length, position),
    truncate: (fd, length) => ftruncateSync(fd, length),
    sync: (fd, _why) => fsyncSync(fd),
    close: (fd) => closeSync(fd),
    lock: (fd) => flock(fd),
    readFile: (path) => readFileSync(path),
    readdir: (path) => readdirSync(path, { withFileTypes: true }),
    stat: (path) => statSync(path, { throwIfNoEntry: false }),
    unlink: (path) => unlinkSync(path),
  },
}

function withReadvNow(file: FileHandle): DiskFile {
  return Object.assign(file, {
    readvNow: (buffers: readonly Uint8Array[], position: number) => readvSync(file.fd, buffers, position),
  })
}
