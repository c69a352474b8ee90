/** Any disk, with somebody who is asked before each call what shall become of it. */
import type { Disk, DiskFile, DiskNow, SyncReason } from '../../src/lib/disk.ts'
import { systemError } from './memory-disk.ts'

export interface DiskCall {
  readonly name: string
  readonly path: string
  /** Of `rename`. */
  readonly to?: string
  /** Of `sync`. */
  readonly why?: SyncReason
}

/** Nothing: it is carried out as it is. */
export type Verdict =
  | undefined
  /** An error of this code; `afterwards`: what was asked for has happened all the same. */
  | { readonly fails: string; readonly afterwards?: boolean }
  /** Nothing happens, and success is reported. */
  | 'skipped'
  /** A write takes half of what it was given. */
  | 'short'

export type Judge = (call: DiskCall) => Verdict

/** Calls that change nothing on the disk. */
const LOOKS: ReadonlySet<string> = new Set([
  'look',
  'read',
  'readv',
  'readFile',
  'readdir',
  'stat',
  'statfs',
  'close',
  'lock',
])

/** Whether a crash right behind the call can leave something else than one right before it. */
export function changesDisk({ name }: DiskCall): boolean {
  return !LOOKS.has(name)
}

export class WatchedDisk implements Disk {
  readonly #disk: Disk
  readonly #judge: Judge
  readonly #files = new Set<DiskFile>()
  readonly #fds = new Map<number, string>()

  constructor(disk: Disk, judge: Judge) {
    this.#disk = disk
    this.#judge = judge
  }

  /** Closes what a process that is thought dead has left open: of a real disk, its lock too. */
  async bury(): Promise<void> {
    for (const fd of this.#fds.keys()) this.#disk.now.close(fd)
    for (const file of this.#files) await file.close()
    this.#fds.clear()
    this.#files.clear()
  }

  /** Files that were opened and not closed. */
  get openFiles(): number {
    return this.#fds.size + this.#files.size
  }

  async open(path: string, flags: Parameters<Disk['open']>[1], mode?: number): Promise<DiskFile> {
    const name = flags === 'r' || flags === 'r+' ? 'look' : 'open'
    const call = { name, path }
    const verdict = this.#judge(call)
    // Who is told that it failed has nothing to close, whatever was made.
    if (typeof verdict === 'object' && verdict.afterwards)
      await (await this.#disk.open(path, flags, mode)).close()
    const file = await carryOut(
      typeof verdict === 'object' ? { fails: verdict.fails } : verdict,
      call,
      () => this.#disk.open(path, flags, mode),
      undefined as never,
    )
    this.#files.add(file)
    const ask = <T>(call: Omit<DiskCall, 'path'>, work: () => Promise<T>, skipped: T): Promise<T> =>
      this.#ask({ path, ...call }, work, skipped)
    return {
      fd: file.fd,
      stat: () => ask({ name: 'stat' }, () => file.stat(), undefined as never),
      read: (buffer, offset, length, position) =>
        ask({ name: 'read' }, () => file.read(buffer, offset, length, position), { bytesRead: 0 }),
      readv: (buffers, position) =>
        ask({ name: 'readv' }, () => file.readv(buffers, position), { bytesRead: 0 }),
      readvNow: (buffers, position) =>
        carryOutNow(
          this.#judge({ name: 'readv', path }),
          { name: 'readv', path },
          () => file.readvNow(buffers, position),
          0,
        ),
      write: async (bytes, offset, length, position) => {
        const verdict = this.#judge({ name: 'write', path })
        const size = verdict === 'short' ? Math.ceil(length / 2) : length
        return await carryOut(
          verdict,
          { name: 'write', path },
          () => file.write(bytes, offset, size, position),
          {
            bytesWritten: length,
          },
        )
      },
      writeFile: (bytes) => ask({ name: 'write' }, () => file.writeFile(bytes), undefined),
      truncate: (length) => ask({ name: 'truncate' }, () => file.truncate(length), undefined),
      sync: (why) => ask({ name: 'sync', why }, () => file.sync(why), undefined),
      close: async () => {
        this.#files.delete(file)
        await file.close()
        // close(2) lets go of the file also when it fails.
        await ask({ name: 'close' }, async () => {}, undefined)
      },
    }
  }
  readFile(path: string): Promise<Buffer> {
    return this.#ask({ name: 'readFile', path }, () => this.#disk.readFile(path))
  }
  readdir(path: string): Promise<string[]> {
    return this.#ask({ name: 'readdir', path }, () => this.#disk.readdir(path))
  }
  stat(path: string): ReturnType<Disk['stat']> {
    return this.#ask({ name: 'stat', path }, () => this.#disk.stat(path))
  }
  statfs(path: string): ReturnType<Disk['statfs']> {
    return this.#ask({ name: 'statfs', path }, () => this.#disk.statfs(path))
  }
  mkdir(path: string, mode: number): Promise<void> {
    return this.#ask({ name: 'mkdir', path }, () => this.#disk.mkdir(path, mode))
  }
  rename(from: string, to: string): Promise<void> {
    return this.#ask({ name: 'rename', path: from, to }, () => this.#disk.rename(from, to))
  }
  unlink(path: string): Promise<void> {
    return this.#ask({ name: 'unlink', path }, () => this.#disk.unlink(path))
  }
  rmdir(path: string): Promise<void> {
    return this.#ask({ name: 'rmdir', path }, () => this.#disk.rmdir(path))
  }
  utimes(path: string, accessed: Date, modified: Date): Promise<void> {
    return this.#ask({ name: 'utimes', path }, () => this.#disk.utimes(path, accessed, modified))
  }

  readonly now: DiskNow = {
    open: (path, flags, mode) => {
      const call = { name: 'open', path }
      const verdict = this.#judge(call)
      if (typeof verdict === 'object' && verdict.afterwards)
        this.#disk.now.close(this.#disk.now.open(path, flags, mode))
      const fd = carryOutNow(
        typeof verdict === 'object' ? { fails: verdict.fails } : verdict,
        call,
        () => this.#disk.now.open(path, flags, mode),
        -1,
      )
      this.#fds.set(fd, path)
      return fd
    },
    write: (fd, bytes, offset, length, position) => {
      const call = { name: 'write', path: this.#fds.get(fd) ?? '' }
      const verdict = this.#judge(call)
      const size = verdict === 'short' ? Math.ceil(length / 2) : length
      return carryOutNow(verdict, call, () => this.#disk.now.write(fd, bytes, offset, size, position), length)
    },
    read: (fd, bytes, offset, length, position) =>
      this.#askNow({ name: 'read', path: this.#fds.get(fd) ?? '' }, () =>
        this.#disk.now.read(fd, bytes, offset, length, position),
      ),
    truncate: (fd, length) => this.#askFd(fd, 'truncate', () => this.#disk.now.truncate(fd, length)),
    sync: (fd, why) => {
      const call = { name: 'sync', path: this.#fds.get(fd) ?? '', why }
      this.#askNow(call, () => this.#disk.now.sync(fd, why))
    },
    close: (fd) => {
      const path = this.#fds.get(fd) ?? ''
      this.#fds.delete(fd)
      this.#disk.now.close(fd)
      this.#askNow({ name: 'close', path }, () => {})
    },
    lock: (fd) =>
      this.#askNow({ name: 'lock', path: this.#fds.get(fd) ?? '' }, () => this.#disk.now.lock(fd)),
    readFile: (path) => this.#askNow({ name: 'readFile', path }, () => this.#disk.now.readFile(path)),
    readdir: (path) => this.#askNow({ name: 'readdir', path }, () => this.#disk.now.readdir(path)),
    stat: (path) => this.#askNow({ name: 'stat', path }, () => this.#disk.now.stat(path)),
    unlink: (path) => this.#askNow({ name: 'unlink', path }, () => this.#disk.now.unlink(path)),
  }

  #askFd(fd: number, name: string, work: () => void): void {
    this.#askNow({ name, path: this.#fds.get(fd) ?? '' }, work)
  }

  async #ask<T>(call: DiskCall, work: () => Promise<T>, skipped?: T): Promise<T> {
    return await carryOut(this.#judge(call), call, work, skipped as T)
  }

  #askNow<T>(call: DiskCall, work: () => T): T {
    return carryOutNow(this.#judge(call), call, work, undefined as T)
  }
}

async function carryOut<T>(verdict: Verdict, call: DiskCall, work: () => Promise<T>, skipped: T): Promise<T> {
  if (typeof verdict === 'object') {
    if (verdict.afterwards) await work()
    throw systemError(verdict.fails, call.name, call.path)
  }
  return verdict === 'skipped' ? skipped : await work()
}

function carryOutNow<T>(verdict: Verdict, call: DiskCall, work: () => T, skipped: T): T {
  if (typeof verdict === 'object') {
    if (verdict.afterwards) work()
    throw systemError(verdict.fails, call.name, call.path)
  }
  return verdict === 'skipped' ? skipped : work()
}
