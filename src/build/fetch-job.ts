/**
 * A fetch's long half, made to run in a thread of its own: source -> archive -> ingest.
 *
 * The bytes of the archive pass through once: downloaded, digested, decompressed, parsed, hashed and
 * packed. What it leaves behind is a directory of sealed packs and a sealed manifest, for the main thread
 * to publish, or nothing.
 */
import { createHash, type Hash } from 'node:crypto'
import type { ArchiveSink } from '../archive/archive.ts'
import { readArchive } from '../archive/read.ts'
import { ArchiveError, DigestMismatch, NoRoom, NotPublished, SourceError } from '../errors.ts'
import { type Disk, realDisk } from '../lib/disk.ts'
import { createSource } from '../source/create.ts'
import type { Download, SourceConfig, SourceEvent } from '../source/source.ts'
import { Spool } from '../source/spool.ts'
import { KnownBlobs, type KnownBlobsData } from '../store/known-blobs.ts'
import { Manifest, type TreeTotals } from '../store/manifest.ts'
import { DIGEST_BYTES } from '../store/pack.ts'
import type { IngestRoom } from './blob-sink.ts'
import { Ingest, type IngestResult } from './ingest.ts'

/** What the thread is told. Plain data. */
export interface FetchJob {
  id: string
  /** Those whose pattern matches the id, in the order in which they are tried. */
  sources: readonly SourceConfig[]
  /** Empty, and ours. */
  directory: string
  /** Where the download may be kept for a later start. */
  spool: string
  known: KnownBlobsData
}

/** How far it has come. */
export type FetchProgress =
  | { type: 'locating'; source: string }
  | {
      type: 'found'
      source: string
      url: string
      totalBytes: number | undefined
      checked: string | undefined
    }
  | { type: 'moved'; received: number; unpacked: number }
  | { type: 'finishing' }
  | { type: 'event'; event: SourceEvent }

export interface FetchOutcome {
  source: string
  url: string
  archiveBytes: number
  archiveSha256: string
  /** Upstream's own contents file. */
  contents: Uint8Array | undefined
  ingest: IngestResult
  totals: TreeTotals
  /** SHA-256 digests of the blobs that the build needs, one after the other. */
  blobs: Uint8Array
}

/** At most so often is it told how many bytes came. */
const TELL_EVERY_MS = 250

/**
 * @throws SourceError, NoRoom, or the signal's reason. What was downloaded stays in the spool when a later
 *   try could go on from there, and only then.
 */
export async function runFetchJob(
  job: FetchJob,
  room: IngestRoom,
  tell: (progress: FetchProgress) => void,
  signal: AbortSignal,
  disk: Disk = realDisk,
): Promise<FetchOutcome> {
  const account = new SpoolAccount(room)
  const spool = new AccountedSpool(job.spool, account, disk)
  let done = false
  let resumable = true
  try {
    const { source, download } = await locate(job, spool, tell, signal)
    await using archive = download
    const contents = await archive.contents()
    const digests = new ArchiveDigests(archive)
    const ingest = await Ingest.create(job.directory, new KnownBlobs(job.known), account, undefined, disk.now)
    try {
      const meter = new Meter(tell)
      await readArchive(meter.downloads(archive.bytes(), digests), meter.unpacks(ingest), {
        signal,
        afterChunk: () => meter.show(),
      })
      tell({ type: 'finishing' })
      digests.verify(archive)
      const result = ingest.finish()
      done = true
      return {
        source,
        url: archive.url,
        archiveBytes: digests.bytes,
        archiveSha256: digests.sha256,
        contents,
        ingest: result,
        ...describe(result),
      }
    } catch (error) {
      ingest.abort()
      throw error instanceof ArchiveError ? namingArchive(archive.url, error) : error
    }
  } catch (error) {
    // The archive is bad, or does not fit: going on from what was downloaded would end just so.
    const upstreamBroke = error instanceof SourceError && error.code === 'SOURCE_UNREACHABLE'
    resumable = upstreamBroke || signal.aborted
    throw error
  } finally {
    if (done || !resumable) await spool.discard().catch(() => undefined)
    else await spool.close()
  }
}

/** The first source that has the build. Those that can't be reached are passed over, but not forgotten. */
async function locate(
  job: FetchJob,
  spool: Spool,
  tell: (progress: FetchProgress) => void,
  signal: AbortSignal,
): Promise<{ source: string; download: Download }> {
  const failures: SourceError[] = []
  for (const config of job.sources) {
    tell({ type: 'locating', source: config.name })
    try {
      const download = await createSource(config).locate(job.id, {
        signal,
        spool,
        onEvent: (event) => tell({ type: 'event', event }),
      })
      tell({
        type: 'found',
        source: config.name,
        url: download.url,
        totalBytes: download.size,
        checked: download.checksum?.algorithm,
      })
      return { source: config.name, download }
    } catch (error) {
      if (!(error instanceof SourceError)) throw error
      failures.push(error)
    }
  }
  throw (
    failures.find((failure) => !(failure instanceof NotPublished)) ??
    (failures.length === 1
      ? failures[0]!
      : new NotPublished(
          `build-${job.id} is not published by ${job.sources.map(({ name }) => name).join(', ')}`,
        ))
  )
}

/** Readers of archives don't know where the bytes come from; whoever reads the message has to. */
function namingArchive(url: string, { message, hint, cause }: ArchiveError): ArchiveError {
  return new ArchiveError(`${url}: ${message}`, { ...(hint === undefined ? {} : { hint }), cause })
}

/** Counts what passes, and tells so now and then. */
class Meter {
  readonly #tell: (progress: FetchProgress) => void
  #received = 0
  #unpacked = 0
  #toldAt = Number.NEGATIVE_INFINITY

  constructor(tell: (progress: FetchProgress) => void) {
    this.#tell = tell
  }

  async *downloads(chunks: AsyncIterable<Uint8Array>, digests: ArchiveDigests): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      digests.update(chunk)
      this.#received += chunk.length
      this.show()
      yield chunk
    }
    this.show(true)
  }

  /** The sink, with its content counted. */
  unpacks(sink: ArchiveSink): ArchiveSink {
    return {
      entry: (entry) => sink.entry(entry),
      data: (chunk) => {
        this.#unpacked += chunk.length
        sink.data(chunk)
      },
    }
  }

  show(now = false): void {
    if (!now && performance.now() - this.#toldAt < TELL_EVERY_MS) return
    this.#toldAt = performance.now()
    this.#tell({ type: 'moved', received: this.#received, unpacked: this.#unpacked })
  }
}

/** Digests of the archive as it was downloaded: SHA-256 for the record, and the one that was published. */
class ArchiveDigests {
  readonly #sha256 = createHash('sha256')
  readonly #published: Hash | undefined
  #result: string | undefined
  bytes = 0

  constructor({ checksum }: Download) {
    this.#published = checksum && checksum.algorithm !== 'sha256' ? createHash(checksum.algorithm) : undefined
  }

  get sha256(): string {
    this.#result ??= this.#sha256.digest('hex')
    return this.#result
  }

  update(chunk: Uint8Array): void {
    this.#sha256.update(chunk)
    this.#published?.update(chunk)
    this.bytes += chunk.length
  }

  /** @throws DigestMismatch */
  verify({ url, checksum }: Download): void {
    if (!checksum) return
    const actual = this.#published?.digest('hex') ?? this.sha256
    if (actual !== checksum.hex) throw new DigestMismatch(url, checksum.algorithm, checksum.hex, actual)
  }
}

/**
 * The room of one fetch, shared by the build and the spooled download. The build comes first: when it
 * needs the spool's room, the spool goes.
 */
class SpoolAccount {
  readonly #room: IngestRoom
  #spooled = 0
  #closed = false

  constructor(room: IngestRoom) {
    this.#room = room
  }

  claim(bytes: number): void {
    try {
      this.#room.claim(bytes)
    } catch (error) {
      if (!(error instanceof NoRoom) || this.#spooled === 0) throw error
      this.#closed = true
      this.releaseSpool()
      this.#room.claim(bytes)
    }
  }

  giveBack(bytes: number): void {
    this.#room.giveBack(bytes)
  }

  diskFull(): boolean {
    return this.#room.diskFull()
  }

  /** @throws NoRoom when the download may not be kept (any longer). */
  claimSpool(bytes: number): void {
    if (this.#closed) throw new NoRoom('the build itself needs the room')
    this.#room.claim(bytes)
    this.#spooled += bytes
  }

  releaseSpool(): void {
    this.#room.giveBack(this.#spooled)
    this.#spooled = 0
  }
}

/** A spool whose bytes count. When there is no room for them, the download goes on without it. */
class AccountedSpool extends Spool {
  readonly #account: SpoolAccount

  constructor(directory: string, account: SpoolAccount, disk: Disk) {
    super(directory, disk)
    this.#account = account
  }

  override async open(key: Parameters<Spool['open']>[0]): Promise<number> {
    const held = await super.open(key)
    if (held > 0) this.#account.claimSpool(held)
    return held
  }

  override async append(chunk: Uint8Array): Promise<void> {
    this.#account.claimSpool(chunk.length)
    await super.append(chunk)
  }

  override async discard(): Promise<void> {
    await super.discard()
    this.#account.releaseSpool()
  }
}

/** What the main thread needs of the manifest: decoding it takes too long there. */
function describe(result: IngestResult): { totals: TreeTotals; blobs: Uint8Array } {
  const manifest = Manifest.decode(result.manifest)
  const blobs = new Uint8Array(manifest.blobCount * DIGEST_BYTES)
  for (let blob = 0; blob < manifest.blobCount; blob++)
    blobs.set(manifest.blobDigest(blob), blob * DIGEST_BYTES)
  return { totals: manifest.totals, blobs }
}
