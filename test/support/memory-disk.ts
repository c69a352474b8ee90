/**
 * A disk in memory that knows what a power cut may forget, for the tests that kill the store at every call.
 *
 * What POSIX promises, and what every journaling file system keeps beyond that:
 * - The bytes of a file survive from its fsync on. Those written since may be there, all or in part, or be
 *   garbage of the right length.
 * - A name made, removed or replaced survives from the fsync of its directory on. Of changes since, any
 *   may be there and any may not, except that those of one name come in their order.
 * - A rename is atomic, also from one directory to another: there is no moment with both names or none.
 *
 * It is stricter than real file systems (ext4 makes a name durable with its file, XFS keeps changes of
 * names in order), so what survives here survives there. memory-disk.test.ts holds it to the real one.
 */
import { hash } from 'node:crypto'
import { basename, dirname, resolve } from 'node:path'
import type { Disk, DiskEntry, DiskFile, DiskNow, DiskStats } from '../../src/lib/disk.ts'

/** What becomes, in a power cut, of what was not fsynced. */
export interface Fate {
  readonly name: string
  /** Whether a change of names survives: number `index` of `count`, the oldest first. */
  keepsChange(index: number, count: number): boolean
  /** What the file holds that held `durable` at its last fsync and `written` at the end. */
  content(durable: Buffer, written: Buffer): Buffer
}

interface Inode {
  readonly number: number
  readonly isDirectory: boolean
  /** Never changed in place: copies of the disk share it. */
  data: Buffer
  durable: Buffer
  names: Map<string, Inode>
  durableNames: Map<string, Inode>
  mtime: Date
}

/** What one system call did to names; survives whole or not at all. */
type Change = readonly { readonly directory: Inode; readonly name: string; readonly to: Inode | undefined }[]

interface OpenFile {
  readonly inode: Inode
  readonly path: string
  readonly isWritable: boolean
  at: number
}

type OpenFlags = Parameters<Disk['open']>[1] | Parameters<DiskNow['open']>[1]

const NOTHING = Buffer.alloc(0)
const BOOT_ID = '/proc/sys/kernel/random/boot_id'

export class MemoryDisk implements Disk {
  /** Counts starts of the machine. */
  readonly #boot: number
  #root: Inode
  /** Changes of names that are not durable yet, the oldest first. */
  #pending: Change[] = []
  readonly #files = new Map<number, OpenFile>()
  readonly #locks = new Map<Inode, number>()
  #lastFd = 100
  #lastInode = 0

  constructor(boot = 1) {
    this.#boot = boot
    this.#root = this.#newInode(true)
  }

  // -------------------------------------------------------------------------------------------------
  // Ends of a process.

  /** What kill -9 does: locks and open files go, nothing else, durable or not. */
  kill(): void {
    this.#files.clear()
    this.#locks.clear()
  }

  /** The disk as kill -9 leaves it, and this one as it is. */
  killed(): MemoryDisk {
    return this.#copy(this.#boot, (copy) => {
      const inode = memo((was: Inode): Inode => {
        const made = copy.#newInode(was.isDirectory)
        made.data = was.data
        made.durable = was.durable
        made.mtime = was.mtime
        return made
      })
      const whole = memo((was: Inode): Inode => {
        const made = inode(was)
        for (const [name, to] of was.names) made.names.set(name, whole(to))
        for (const [name, to] of was.durableNames) made.durableNames.set(name, whole(to))
        return made
      })
      copy.#root = whole(this.#root)
      copy.#pending = this.#pending.map((change) =>
        change.map(({ directory, name, to }) => ({ directory: whole(directory), name, to: to && whole(to) })),
      )
    })
  }

  /** The disk after a power cut; what is on it now is durable. */
  afterPowerCut(fate: Fate): MemoryDisk {
    const names = memo((directory: Inode) => new Map(directory.durableNames))
    const lost = new Set<string>()
    for (const [index, change] of this.#pending.entries()) {
      const follows = change.some(({ directory, name }) => lost.has(keyOf(directory, name)))
      if (!follows && fate.keepsChange(index, this.#pending.length)) apply(change, names)
      else for (const { directory, name } of change) lost.add(keyOf(directory, name))
    }
    return this.#copy(this.#boot + 1, (copy) => {
      const whole = memo((was: Inode): Inode => {
        const made = copy.#newInode(was.isDirectory)
        made.mtime = was.mtime
        if (was.isDirectory) {
          for (const [name, to] of names(was)) made.names.set(name, whole(to))
          made.durableNames = new Map(made.names)
        } else {
          made.data = was.data === was.durable ? was.data : fate.content(was.durable, was.data)
          made.durable = made.data
        }
        return made
      })
      copy.#root = whole(this.#root)
    })
  }

  #copy(boot: number, fill: (copy: MemoryDisk) => void): MemoryDisk {
    const copy = new MemoryDisk(boot)
    fill(copy)
    return copy
  }

  /** Turns a byte of a file, where it is durable as well, as a disk does by itself. */
  rot(path: string, at: number): void {
    const inode = this.#find(path, 'open')
    const turned = (bytes: Buffer): Buffer => {
      const copy = Buffer.from(bytes)
      copy[at]! ^= 1
      return copy
    }
    const { data, durable } = inode
    inode.data = turned(data)
    inode.durable = durable === data ? inode.data : turned(durable)
  }

  /** Everything that a process would find, as one string: equal disks have equal ones. */
  fingerprint(): string {
    const below = (inode: Inode): string =>
      inode.isDirectory
        ? `{${[...inode.names].sort().map(([name, to]) => `${name}:${below(to)}`)}}`
        : digestOf(inode.data)
    return below(this.#root)
  }

  /** Files that are open. */
  get openFiles(): readonly string[] {
    return [...this.#files.values()].map(({ path }) => path)
  }

  // -------------------------------------------------------------------------------------------------
  // Disk.

  readonly now: DiskNow = {
    open: (path, flags) => this.#open(path, flags),
    write: (fd, bytes, offset, length, position) =>
      this.#write(this.#file(fd), bytes.subarray(offset, offset + length), position),
    read: (fd, bytes, offset, length, position) =>
      this.#file(fd).inode.data.copy(bytes, offset, position, position + length),
    truncate: (fd, length) => this.#truncate(this.#file(fd), length),
    sync: (fd) => this.#sync(this.#file(fd)),
    close: (fd) => this.#close(fd),
    lock: (fd) => {
      const { inode } = this.#file(fd)
      const owner = this.#locks.get(inode)
      if (owner !== undefined && owner !== fd) return false
      this.#locks.set(inode, fd)
      return true
    },
    readFile: (path) => this.#readFile(path),
    readdir: (path) =>
      [...this.#directory(path, 'scandir').names].map(([name, { isDirectory }]) => entry(name, isDirectory)),
    stat: (path) => {
      try {
        return statsOf(this.#find(path, 'stat'))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
        throw error
      }
    },
    unlink: (path) => this.#unlink(path),
  }

  async open(path: string, flags: Parameters<Disk['open']>[1]): Promise<DiskFile> {
    const fd = this.#open(path, flags)
    const readv = (buffers: readonly Uint8Array[], position: number): number => {
      let bytesRead = 0
      for (const buffer of buffers)
        bytesRead += this.#file(fd).inode.data.copy(buffer, 0, position + bytesRead)
      return bytesRead
    }
    return {
      fd,
      stat: async () => statsOf(this.#file(fd).inode),
      read: async (buffer, offset, length, position) => {
        return { bytesRead: this.#file(fd).inode.data.copy(buffer, offset, position, position + length) }
      },
      readv: async (buffers, position) => ({ bytesRead: readv(buffers, position) }),
      readvNow: readv,
      write: async (bytes, offset, length, position) => {
        return {
          bytesWritten: this.#write(this.#file(fd), bytes.subarray(offset, offset + length), position),
        }
      },
      writeFile: async (bytes) => {
        const file = this.#file(fd)
        file.at += this.#write(file, bytes, file.at)
      },
      truncate: async (length) => this.#truncate(this.#file(fd), length),
      sync: async () => this.#sync(this.#file(fd)),
      close: async () => this.#close(fd),
    }
  }
  async readFile(path: string): Promise<Buffer> {
    return this.#readFile(path)
  }
  async readdir(path: string): Promise<string[]> {
    return [...this.#directory(path, 'scandir').names.keys()]
  }
  async stat(path: string): Promise<DiskStats> {
    return statsOf(this.#find(path, 'stat'))
  }
  async statfs(): Promise<{ bavail: number; bsize: number }> {
    return { bavail: 2 ** 28, bsize: 4096 }
  }
  async mkdir(path: string): Promise<void> {
    const { directory, name, inode } = this.#place(path, 'mkdir')
    if (inode) throw systemError('EEXIST', 'mkdir', path)
    this.#change([{ directory, name, to: this.#newInode(true) }])
  }
  async rename(from: string, to: string): Promise<void> {
    const source = this.#place(from, 'rename')
    const target = this.#place(to, 'rename')
    if (!source.inode) throw systemError('ENOENT', 'rename', from)
    if (source.inode === target.inode) return
    if (`${resolve(to)}/`.startsWith(`${resolve(from)}/`)) throw systemError('EINVAL', 'rename', to)
    // Not empty, since what is renamed lies in it.
    if (`${resolve(from)}/`.startsWith(`${resolve(to)}/`)) throw systemError('ENOTEMPTY', 'rename', to)
    if (target.inode) {
      if (source.inode.isDirectory && !target.inode.isDirectory) throw systemError('ENOTDIR', 'rename', to)
      if (!source.inode.isDirectory && target.inode.isDirectory) throw systemError('EISDIR', 'rename', to)
      if (target.inode.names.size > 0) throw systemError('ENOTEMPTY', 'rename', to)
    }
    this.#change([
      { directory: source.directory, name: source.name, to: undefined },
      { directory: target.directory, name: target.name, to: source.inode },
    ])
  }
  async unlink(path: string): Promise<void> {
    this.#unlink(path)
  }
  async rmdir(path: string): Promise<void> {
    const { directory, name, inode } = this.#place(path, 'rmdir')
    if (!inode) throw systemError('ENOENT', 'rmdir', path)
    if (!inode.isDirectory) throw systemError('ENOTDIR', 'rmdir', path)
    if (inode.names.size > 0) throw systemError('ENOTEMPTY', 'rmdir', path)
    this.#change([{ directory, name, to: undefined }])
  }
  async utimes(path: string, _accessed: Date, modified: Date): Promise<void> {
    this.#find(path, 'utime').mtime = modified
  }

  // -------------------------------------------------------------------------------------------------

  #open(path: string, flags: OpenFlags): number {
    const { directory, name, inode } = this.#place(path, 'open')
    const makes = flags !== 'r' && flags !== 'r+'
    if (!inode && !makes) throw systemError('ENOENT', 'open', path)
    if (inode && flags === 'wx') throw systemError('EEXIST', 'open', path)
    if (inode?.isDirectory && flags !== 'r') throw systemError('EISDIR', 'open', path)
    const opened = inode ?? this.#newInode(false)
    if (!inode) this.#change([{ directory, name, to: opened }])
    if (inode && flags.startsWith('w')) opened.data = NOTHING
    const fd = ++this.#lastFd
    this.#files.set(fd, {
      inode: opened,
      path,
      isWritable: flags !== 'r',
      at: flags === 'a' ? opened.data.length : 0,
    })
    return fd
  }

  #write({ inode, path, isWritable }: OpenFile, bytes: Uint8Array, position: number): number {
    if (bytes.length === 0) return 0
    if (!isWritable) throw systemError('EBADF', 'write', path)
    const data = Buffer.alloc(Math.max(inode.data.length, position + bytes.length))
    inode.data.copy(data)
    data.set(bytes, position)
    inode.data = data
    inode.mtime = new Date()
    return bytes.length
  }

  #truncate({ inode }: OpenFile, length: number): void {
    const data = Buffer.alloc(length)
    inode.data.copy(data, 0, 0, length)
    inode.data = data
  }

  #sync({ inode }: OpenFile): void {
    inode.durable = inode.data
    if (!inode.isDirectory) return
    // What the changes in this directory follow, on the same names, becomes durable with them.
    const keys = new Set<string>()
    const durable = new Set<Change>()
    for (const change of this.#pending.toReversed()) {
      const isOurs = change.some(({ directory }) => directory === inode)
      const isBefore = change.some(({ directory, name }) => keys.has(keyOf(directory, name)))
      if (!isOurs && !isBefore) continue
      durable.add(change)
      for (const { directory, name } of change) keys.add(keyOf(directory, name))
    }
    for (const change of this.#pending.filter((change) => durable.has(change)))
      apply(change, ({ durableNames }) => durableNames)
    this.#pending = this.#pending.filter((change) => !durable.has(change))
  }

  #close(fd: number): void {
    const { inode } = this.#file(fd)
    if (this.#locks.get(inode) === fd) this.#locks.delete(inode)
    this.#files.delete(fd)
  }

  #unlink(path: string): void {
    const { directory, name, inode } = this.#place(path, 'unlink')
    if (!inode) throw systemError('ENOENT', 'unlink', path)
    if (inode.isDirectory) throw systemError('EISDIR', 'unlink', path)
    this.#change([{ directory, name, to: undefined }])
  }

  #readFile(path: string): Buffer {
    if (path === BOOT_ID) return Buffer.from(`boot ${this.#boot}\n`)
    const inode = this.#find(path, 'open')
    if (inode.isDirectory) throw systemError('EISDIR', 'read', path)
    return Buffer.from(inode.data)
  }

  #change(change: Change): void {
    apply(change, ({ names }) => names)
    this.#pending.push(change)
  }

  #file(fd: number): OpenFile {
    const file = this.#files.get(fd)
    if (!file) throw systemError('EBADF', 'read', `${fd}`)
    return file
  }

  #place(path: string, syscall: string): { directory: Inode; name: string; inode: Inode | undefined } {
    const absolute = resolve(path)
    if (absolute === '/') return { directory: this.#root, name: '', inode: this.#root }
    const directory = this.#directory(dirname(absolute), syscall)
    const name = basename(absolute)
    return { directory, name, inode: directory.names.get(name) }
  }

  #directory(path: string, syscall: string): Inode {
    const inode = this.#find(path, syscall)
    if (!inode.isDirectory) throw systemError('ENOTDIR', syscall, path)
    return inode
  }

  #find(path: string, syscall: string): Inode {
    const { inode } = this.#place(path, syscall)
    if (!inode) throw systemError('ENOENT', syscall, path)
    return inode
  }

  #newInode(isDirectory: boolean): Inode {
    return {
      number: ++this.#lastInode,
      isDirectory,
      data: NOTHING,
      durable: NOTHING,
      names: new Map(),
      durableNames: new Map(),
      mtime: new Date(),
    }
  }
}

const digests = new WeakMap<Buffer, string>()

function digestOf(bytes: Buffer): string {
  const known = digests.get(bytes) ?? hash('sha256', bytes, 'base64')
  digests.set(bytes, known)
  return known
}

export function systemError(code: string, syscall: string, path: string): Error {
  return Object.assign(new Error(`${code}: as the test wants it, ${syscall} '${path}'`), {
    code,
    syscall,
    path,
  })
}

function apply(change: Change, namesOf: (directory: Inode) => Map<string, Inode>): void {
  for (const { directory, name, to } of change) {
    if (to) namesOf(directory).set(name, to)
    else namesOf(directory).delete(name)
  }
}

function keyOf(directory: Inode, name: string): string {
  return `${directory.number}/${name}`
}

function statsOf({ number, data, mtime, isDirectory }: Inode): DiskStats {
  return { ino: number, size: data.length, mtime, mtimeMs: mtime.getTime(), isDirectory: () => isDirectory }
}

function entry(name: string, isDirectory: boolean): DiskEntry {
  return { name, isDirectory: () => isDirectory }
}

function memo<From extends object, To>(make: (from: From) => To): (from: From) => To {
  const made = new Map<From, To>()
  return (from) => {
    const known = made.get(from)
    if (known !== undefined) return known
    const fresh = make(from)
    made.set(from, fresh)
    return fresh
  }
}
