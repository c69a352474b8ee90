/**
 * The whole on-disk layout. Nobody else joins a path under the data directory.
 *
 *     <data dir>/                          0750, like every directory below
 *       upserv.json                        format of this directory, when it was made, its checksum seed
 *       upserv.lock                        locked by the one process that owns the directory (lock.ts)
 *       upserv.sock                        where others talk to that process
 *       http.token                         what changes by HTTP take (http/token.ts)
 *       channels.json                      since when each channel has meant its build (build/channels.ts)
 *       builds/<id>/                       visible: everything in it is durable, and so are its blobs
 *         manifest                         the tree, sealed (manifest.ts)
 *         contents                         what clients read (contents.ts, or upstream's own)
 *         build.json                       where it came from, when, digests, sizes (build-info.ts)
 *         accessed                         when it was accessed last (access.ts)
 *         damaged                          present: it cannot be served as it is, and why
 *         sticky                           present: never evicted; made by `touch` or `upserv pin`
 *       packs/<16 hex digits>.pack         blobs of all builds (pack.ts)
 *       packs/untrusted                    which blobs in them have rotted (untrusted.ts)
 *       incoming/                          under way; nothing here is visible
 *         <id>-<8 hex digits>.ingest/      one ingest: its packs, then `build/`, which becomes builds/<id>
 *         <8 hex digits>.compact/          one pack that is being rewritten
 *         <id>-<8 hex digits>.removed/     a build on its way out
 *         <id>.spool/                      a download that a later start may resume
 *       cache/                             derived data: may be deleted at any time
 *         <number>.seg                     records found by a key (src/cache/)
 *         code/                            our own modules, compiled (lib/code-cache.ts)
 *       history/                           which device got which build (src/history/)
 *       .pipe-<8 hex digits>/              between a command and the server, while it lasts (cli/bring.ts)
 *
 * At start everything in incoming/ goes, except *.spool/. The last suffix decides, so an id may hold dots.
 */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { StoreError } from '../errors.ts'

/** Version of the layout and of every format in it; written to upserv.json. */
export const STORE_FORMAT = 1

/** The owner writes, a group of backup or monitoring programs may read, others see nothing. */
export const DIRECTORY_MODE = 0o750
export const FILE_MODE = 0o640

/** Suffix of a directory in incoming/ that survives a restart. */
export const SPOOL_SUFFIX = '.spool'
export const PACK_SUFFIX = '.pack'

/** Longest build id: with suffix and random part it must stay a file name of at most 255 bytes. */
const MAX_ID_LENGTH = 200

/** Every path in one data directory. */
export class StorePaths {
  readonly root: string
  readonly format: string
  readonly lock: string
  readonly socket: string
  readonly token: string
  readonly channels: string
  readonly builds: string
  readonly packs: string
  readonly untrusted: string
  readonly incoming: string
  readonly cache: string
  readonly code: string
  readonly history: string

  constructor(root: string) {
    this.root = root
    this.format = join(root, 'upserv.json')
    this.lock = join(root, 'upserv.lock')
    this.socket = join(root, 'upserv.sock')
    this.token = join(root, 'http.token')
    this.channels = join(root, 'channels.json')
    this.builds = join(root, 'builds')
    this.packs = join(root, 'packs')
    this.untrusted = join(this.packs, 'untrusted')
    this.incoming = join(root, 'incoming')
    this.cache = join(root, 'cache')
    this.code = join(this.cache, 'code')
    this.history = join(root, 'history')
  }

  build(id: string): BuildPaths {
    return buildPathsIn(join(this.builds, checkedId(id)))
  }

  pack(name: string): string {
    return join(this.packs, name)
  }

  /** A name that no pack has had: 64 random bits. */
  newPackName(): string {
    return newPackName()
  }

  newIngest(id: string): string {
    return join(this.incoming, `${checkedId(id)}-${randomHex(4)}.ingest`)
  }

  /** Hidden, as it is not the store's. */
  newPipe(): string {
    return join(this.root, `.pipe-${randomHex(4)}`)
  }

  newCompaction(): string {
    return join(this.incoming, `${randomHex(4)}.compact`)
  }

  newRemoved(id: string): string {
    return join(this.incoming, `${checkedId(id)}-${randomHex(4)}.removed`)
  }

  /** Where a download of this build keeps what it has, for a later resume. */
  spool(id: string): string {
    return join(this.incoming, `${checkedId(id)}${SPOOL_SUFFIX}`)
  }
}

/** The files of one build directory, in builds/ or still in incoming/. */
export interface BuildPaths {
  directory: string
  manifest: string
  contents: string
  info: string
  accessed: string
  damaged: string
  sticky: string
}

export function buildPathsIn(directory: string): BuildPaths {
  return {
    directory,
    manifest: join(directory, 'manifest'),
    contents: join(directory, 'contents'),
    info: join(directory, 'build.json'),
    accessed: join(directory, 'accessed'),
    damaged: join(directory, 'damaged'),
    sticky: join(directory, 'sticky'),
  }
}

/** The build directory that an ingest prepares. */
export function ingestBuild(ingestDirectory: string): BuildPaths {
  return buildPathsIn(join(ingestDirectory, 'build'))
}

export function newPackName(): string {
  return `${randomHex(8)}${PACK_SUFFIX}`
}

/** True for what can be the name of a directory in builds/: callers check ids by their own, narrower rules. */
export function isSafeId(id: string): boolean {
  return (
    id.length > 0 &&
    Buffer.byteLength(id) <= MAX_ID_LENGTH &&
    !id.startsWith('.') &&
    !/[/\\\x00-\x1f\x7f]/.test(id)
  )
}

function checkedId(id: string): string {
  if (!isSafeId(id)) throw new StoreError(`${JSON.stringify(id)} cannot be the name of a build's directory`)
  return id
}

function randomHex(bytes: number): string {
  return randomBytes(bytes).toString('hex')
}
