/**
 * Source: a rule that says where builds whose id matches can be had, and what every kind of source does.
 *
 * A source knows neither stores nor archives nor rsync: it turns an id into a `Download`, and a download
 * into bytes. What can go wrong upstream is settled here as far as that is possible (waiting, asking
 * again, going on where a connection broke), and told as a SourceError where it is not.
 *
 * One file per kind: http.ts (http:, https:) and directory.ts (file:); create.ts chooses. A parent server
 * (parent.ts) has no archives, and is asked in its own way.
 */
import { UsageError } from '../errors.ts'
import type { Clock } from './clock.ts'
import type { SourceLimits } from './limits.ts'
import type { RateRule } from './pace.ts'
import type { Rests } from './rests.ts'
import type { SignatureCheck } from './signature.ts'
import type { Spool } from './spool.ts'
import { schemeOf, showTemplate } from './url.ts'

/** A source as the configuration writes it. Plain data: it crosses into worker threads. */
export interface SourceConfig {
  name: string
  /** Regular expression on ids. The author anchors it; its named captures can be used in the templates. */
  builds: string
  /** Template of the archive's URL: `{build}` and `{name}` for each named capture. */
  url: string
  /** Template of the checksum file, which may use `{url}`; undefined: `{url}.sha256`, `.md5` if there is one. */
  checksum: string | undefined
  /** Template of upstream's own contents file, which may use `{url}`; undefined: there is none. */
  contents: string | undefined
  /** Templates of further places where the same archives are. */
  mirrors?: readonly string[] | undefined
  /** Words for captures, by the name of the map: `{model:dir}` is what the map `dir` has for `{model}`. */
  maps?: Readonly<Record<string, Readonly<Record<string, string>>>> | undefined
  /** How captures make an id, for finding builds in directories and lists; undefined: `{build}`. */
  id?: string | undefined
  /** Where to find out which builds there are: 'directories' (of `url`), or the URL of a list. */
  list?: string | undefined
  /** Regular expression on the names in that list, with named captures for `id`; undefined: `builds`. */
  names?: string | undefined
  /** Template of a signature: of the checksum file if it uses `{checksum}`, otherwise of the archive. */
  signature?: string | undefined
  /** How http upstreams are spoken to. */
  http?: HttpOptions | undefined
  s3?: S3Options | undefined
  /** How fast it may be downloaded. */
  rates?: readonly RateRule[] | undefined
  /** A fetch that is not complete after so long is given up; what came is kept. */
  deadlineMs?: number | undefined
  /** How patient we are with the upstream: longest wait for an answer or a byte, and attempts in a row (limits.ts). */
  stallMs?: number | undefined
  attempts?: number | undefined
  /** What of the archive becomes the build, and how: for whoever reads it (build/shape.ts). */
  tree?: TreeOptions | undefined
  /** A program, and its arguments, that makes a tar stream of the archive; undefined: the format tells itself. */
  extract?: readonly string[] | undefined
  extractTimeoutMs?: number | undefined
  /** Of images for several, which is wanted, as in "linux/arm64"; undefined: this machine's. */
  platform?: string | undefined
  /** Files of public keys, any of which may have signed; none: signatures are not looked at. */
  keys?: readonly string[] | undefined
  /** Whether there must be one; undefined: where it is configured. */
  checksumRequired?: boolean | undefined
  signatureRequired?: boolean | undefined
}

export interface HttpOptions {
  /** A file that holds a token, for `Authorization: Bearer`. Read for each request: tokens expire. */
  tokenFile?: string | undefined
  /** Files in PEM: who we are. */
  clientCert?: string | undefined
  clientKey?: string | undefined
  /** A file in PEM of authorities, in place of those of the system. */
  ca?: string | undefined
}

export interface S3Options {
  /** Of servers other than Amazon's. */
  endpoint?: string | undefined
  region?: string | undefined
  credentialsFile?: string | undefined
}

/** As build/shape.ts has it, which this leaf does not know. */
export interface TreeOptions {
  pristine?: boolean | undefined
  subtree?: string | undefined
  exclude?: readonly string[] | undefined
  users?: Readonly<Record<string, number>> | undefined
  groups?: Readonly<Record<string, number>> | undefined
  contentMtimes?: boolean | undefined
}

/** A source of archives. */
export interface Source {
  readonly kind: 'archive'
  readonly name: string
  /** Whether an id looks like one of this source's. Says nothing about whether upstream has it. */
  offers(id: string): boolean
  /**
   * Finds the build upstream. Throws NotPublished when upstream does not have it, UpstreamUnreachable
   * after enough attempts, another SourceError for what a retry would not change.
   */
  locate(id: string, options: LocateOptions): Promise<Download>
  /**
   * The builds that upstream has now, as far as that can be told without asking for each. Undefined, or no
   * such function: it can't be told. Throws SourceError when upstream can't be looked at.
   */
  list?(signal: AbortSignal): Promise<SourceListing | undefined>
}

export interface SourceListing {
  readonly builds: readonly PublishedBuild[]
  /** False when there was more than one looks at. */
  readonly complete: boolean
}

/** A build that upstream has. Its id is whatever the file's name says: nobody has checked it. */
export interface PublishedBuild {
  readonly id: string
  /** Of the archive, for people. */
  readonly url: string
  /** When the archive was last changed; undefined where that is not told. */
  readonly published: Date | undefined
}

export interface LocateOptions {
  /** Ends the search and the download that comes of it; both then throw the signal's reason. */
  signal: AbortSignal
  /** Where the archive's bytes are kept for a later process to go on from. The caller discards or closes it. */
  spool?: Spool | undefined
  /** The same for one part of several. */
  spoolOf?: ((part: string) => Spool) | undefined
  onEvent(event: SourceEvent): void
}

/** An archive that was found. Holds a connection or an open file: read it to its end, or dispose of it. */
export interface Download extends AsyncDisposable {
  /** Where it comes from, for people: without user, password and query. */
  readonly url: string
  readonly size: number | undefined
  readonly checksum: Checksum | undefined
  /** Who has signed the file of checksums, which has been looked at. */
  readonly checksumSigner: string | undefined
  /** Checks the archive's own signature, where there is one: takes all of its bytes. */
  readonly signature: SignatureCheck | undefined
  /** Who vouches for it already: what names it is its digest. */
  readonly vouchers?: readonly string[]
  /** In place of `bytes`, for an image: its layers, the lowest first. */
  readonly layers?: readonly Layer[]
  /** Upstream's own contents file, byte for byte; undefined when none is configured. */
  contents(): Promise<Uint8Array | undefined>
  /**
   * The archive's bytes, once and in order. Goes on by itself after broken connections; throws
   * UpstreamChanged when the parts would not belong together, and the caller may start over. Chunks are
   * the caller's to keep.
   */
  bytes(): AsyncIterable<Uint8Array>
  /**
   * Up to so many of its last bytes, where they can be had without the rest. Nobody has checked them, or
   * whether the file is still the one that `bytes` reads.
   */
  last?(count: number): Promise<Uint8Array | undefined>
}

/** One layer of an image. */
export interface Layer {
  readonly size: number
  /** `sha256:` and hex: who reads its bytes compares them. */
  readonly digest: string
  /** For people. */
  readonly url: string
  bytes(): AsyncIterable<Uint8Array>
}

export type ChecksumAlgorithm = 'md5' | 'sha256' | 'sha512'

/** What was published beside an archive about its digest. Nothing here compares it: who hashes does. */
export interface Checksum {
  readonly algorithm: ChecksumAlgorithm
  /** Lower case. */
  readonly hex: string
  /** Where it was read, for people. */
  readonly url: string
}

/** What a person who waits, or who reads the log, may want to know. */
export type SourceEvent =
  /** Attempt `attempt` of `of` failed; the next one comes in `waitMs`. */
  | { type: 'retry'; attempt: number; of: number; waitMs: number; reason: string }
  /** The download goes on at this byte. */
  | { type: 'resumed'; at: number }
  /** A mirror failed, and the next one takes over. */
  | { type: 'mirror'; url: string; reason: string }
  /** What an earlier process had downloaded is of no use any more. */
  | { type: 'restarted'; reason: string }
  /** Something answered where a checksum was looked for, but it was none. */
  | { type: 'checksum-ignored'; url: string; reason: string }
  /** A line of the parent server, which is getting the build itself. */
  | { type: 'said'; line: string }
  /** The download goes on, but a later process will not be able to go on from it. */
  | { type: 'spool-stopped'; reason: string }

/** What a source needs from outside; all of it has defaults, and tests put in their own. */
export interface SourceDeps {
  /** What fetches of this source share (pace.ts). */
  pace?: SharedArrayBuffer | undefined
  /** Servers that are not to be asked just now (rests.ts). */
  rests?: Rests | undefined
  limits?: Partial<SourceLimits>
  clock?: Partial<Clock>
}

/** Names the source of a build that was brought by hand. No other is called so. */
export const IMPORT_SOURCE = 'import'

/** The source that a bare URL template stands for (`--source URL`): it offers any id. @throws UsageError */
export function sourceFromUrl(url: string): SourceConfig {
  if (!url.includes('{build}') && !/^upservs?:/i.test(url)) {
    throw new UsageError(`"${showTemplate(url)}" does not say where the build's id goes`, {
      hint: 'Write {build} in its place, as in http://host/os{build}.tar.gz.',
    })
  }
  const name =
    schemeOf(url) === 'file' ? 'file' : (/^[^:]*:\/\/(?:[^/?#@]*@)?([^/?#]+)/.exec(url)?.[1] ?? 'url')
  return { name, builds: '^.+$', url, checksum: undefined, contents: undefined }
}
