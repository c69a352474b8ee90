/**
 * The whole arrangement for tests of the running program: builds on an upstream mirror (nginx), an upserv
 * that fetches from it, clients that sync. One of it for each test, so that tests can break what they like.
 */
import assert from 'node:assert/strict'
import { type Dirent, lstatSync, mkdirSync, readdirSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ArchiveSuffix, makeArchive } from './archive.ts'
import { WaitingClient } from './client.ts'
import { type Nginx, type NginxRequest, startNginx } from './nginx.ts'
import type { RunResult } from './processes.ts'
import { rsyncEnds } from './rsync.ts'
import { makeScratch, type Scratch } from './scratch.ts'
import { assertSameTree, type Snapshot, snapshot } from './snapshot.ts'
import { makeTree, randomBytes, SpecWriter, type TreeSpec } from './tree.ts'
import { startUpserv, type Upserv, type UpservOptions } from './upserv.ts'

export interface PublishOptions {
  suffix?: ArchiveSuffix
  sha256?: boolean
}

const LOOK_EVERY_MS = 20

export class Mirror implements AsyncDisposable {
  readonly #scratch: Scratch = makeScratch('mirror')
  readonly #snapshots = new Map<string, Snapshot>()
  readonly #upservs: Upserv[] = []
  readonly #clients: WaitingClient[] = []
  #nginx: Nginx | undefined
  #places = 0

  constructor() {
    for (const name of ['www', 'trees', 'clients', 'nginx']) mkdirSync(this.path(name))
  }

  /** A path in the scratch directory. */
  path(...names: string[]): string {
    return join(this.#scratch.path, ...names)
  }

  /** A fresh path for a client to sync to. */
  place(): string {
    return this.path('clients', String(++this.#places))
  }

  get data(): string {
    return this.path('data')
  }

  // -------------------------------------------------------------------------------------------------
  // Upstream

  /** Where a build's archive lies. No suffix: archives are told apart by what is in them. */
  archive(id: string): string {
    return this.path('www', id)
  }

  /** Publishes a build, in place of one with this id. */
  async publish(id: string, spec: TreeSpec, options: PublishOptions = {}): Promise<void> {
    const tree = this.path('trees', `${id}-${++this.#places}`)
    makeTree(tree, spec)
    const made = await makeArchive({
      tree,
      path: this.path(`making-${this.#places}`),
      suffix: options.suffix ?? 'tar.gz',
      sha256: options.sha256 ?? false,
    })
    if (options.sha256) renameSync(`${made}.sha256`, `${this.archive(id)}.sha256`)
    // By rename, as mirrors replace files: whoever has the old one open goes on reading it.
    renameSync(made, this.archive(id))
    this.#snapshots.set(id, snapshot(tree))
  }

  snapshotOf(id: string): Snapshot {
    return this.#snapshots.get(id)!
  }

  get nginx(): Nginx {
    assert.ok(this.#nginx, 'nginx has not been started')
    return this.#nginx
  }

  /** Starts the web server, the second time on the same port. `limitRate` as nginx takes it: '1m'. */
  async startNginx(limitRate?: string): Promise<void> {
    this.#nginx = await startNginx({
      root: this.path('www'),
      scratch: this.path('nginx'),
      ...(this.#nginx ? { port: this.#nginx.port } : {}),
      ...(limitRate === undefined ? {} : { limitRate }),
    })
  }

  /** What was asked for a build's archive, oldest first; complete once nginx has ended its answers. */
  requestsFor(id: string): NginxRequest[] {
    return this.nginx.requests().filter(({ path }) => path === `/${id}`)
  }

  // -------------------------------------------------------------------------------------------------
  // upserv and its clients

  /** Starts upserv on the data directory, with nginx as its source unless told otherwise. */
  async startUpserv(options: Partial<UpservOptions> = {}): Promise<Upserv> {
    const sources = this.#nginx ? [`${this.#nginx.url}/{build}`] : []
    const config = options.config ?? this.path('no-limits.toml')
    // Tests ask for more builds in a minute than a stranger may have fetched in an hour.
    if (options.config === undefined) writeFileSync(config, '[fetch]\nper_source = 0\n')
    const upserv = await startUpserv({ data: this.data, sources, ...options, config })
    this.#upservs.push(upserv)
    return upserv
  }

  /** Syncs a build to a fresh place, which must end with this exit code. */
  async sync(
    upserv: Upserv,
    id: string,
    code = 0,
    timeoutMs = 60_000,
  ): Promise<RunResult & { place: string }> {
    const place = this.place()
    const result = await rsyncEnds(code, ['-aH', `${upserv.url}/build-${id}/root/`, place], { timeoutMs })
    return { ...result, place }
  }

  /** A client that syncs a build to a fresh place while the test goes on. */
  client(
    upserv: Pick<Upserv, 'url'>,
    id: string,
    args: readonly string[] = [],
  ): { client: WaitingClient; place: string } {
    const place = this.place()
    const client = new WaitingClient(['-aH', ...args, `${upserv.url}/build-${id}/root/`, place])
    this.#clients.push(client)
    return { client, place }
  }

  /** Syncs a build and compares what came with what was published, exactly. */
  async assertServes(upserv: Upserv, id: string): Promise<RunResult> {
    const result = await this.sync(upserv, id)
    this.assertTree(id, result.place)
    return result
  }

  assertTree(id: string, place: string): void {
    assertSameTree(this.snapshotOf(id), snapshot(place))
  }

  /** What lies in incoming/, without empty directories of spools. */
  incoming(): string[] {
    return filesBeneath(join(this.data, 'incoming')).map(({ path }) => path)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.kill()
    for (const { process } of this.#upservs) if (process.isRunning) await process.stop('SIGKILL')
    await this.#nginx?.kill()
    this.#scratch[Symbol.dispose]()
  }
}

/** Files that do not compress, as large as asked for, of which other seeds share none. */
export function randomTree(seed: number, files: number, bytesEach: number): TreeSpec {
  const tree = new SpecWriter()
  tree.directory('')
  tree.directory('dir')
  tree.symlink('dir/link', '../file-0')
  for (let n = 0; n < files; n++) tree.file(`file-${n}`, randomBytes(seed * 10_000 + n, bytesEach))
  if (files > 0) tree.hardlink('dir/hard', 'file-0')
  return tree.spec
}

/** Ids of the builds that a data directory holds, from the disk. */
export function buildsOnDisk(data: string): string[] {
  return readdirSync(join(data, 'builds')).sort()
}

/** Bytes that a directory takes, as its files' lengths; what vanishes while we look counts for nothing. */
export function bytesOnDisk(directory: string): number {
  return filesBeneath(directory).reduce((sum, { size }) => sum + size, 0)
}

/** What `du` says: blocks, directories included. */
export function diskUsage(path: string): number {
  const stats = lstatSync(path)
  const below = stats.isDirectory()
    ? readdirSync(path).reduce((sum, name) => sum + diskUsage(join(path, name)), 0)
    : 0
  return stats.blocks * 512 + below
}

function filesBeneath(directory: string): { path: string; size: number }[] {
  let entries: Dirent[]
  try {
    entries = readdirSync(directory, { recursive: true, withFileTypes: true })
  } catch {
    return []
  }
  const files: { path: string; size: number }[] = []
  for (const entry of entries) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    const size = statSync(path, { throwIfNoEntry: false })?.size
    if (size !== undefined) files.push({ path: path.slice(directory.length + 1), size })
  }
  return files
}

/** Looks every few milliseconds how large a directory is. */
export class SizeWatch {
  readonly #directory: string
  readonly #timer: NodeJS.Timeout
  #peak = 0

  constructor(directory: string) {
    this.#directory = directory
    this.#timer = setInterval(() => this.now(), LOOK_EVERY_MS)
    this.#timer.unref()
  }

  /** The most that was seen. */
  get peak(): number {
    return this.#peak
  }

  now(): number {
    const bytes = bytesOnDisk(this.#directory)
    this.#peak = Math.max(this.#peak, bytes)
    return bytes
  }

  stop(): void {
    this.now()
    clearInterval(this.#timer)
  }
}
