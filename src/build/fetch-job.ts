/**
 * A fetch's long half, made to run in a thread of its own: source -> archive -> ingest, or from a parent
 * server, which has no archives, the manifest and the blobs that we lack.
 *
 * The bytes of the archive pass through once: downloaded, digested, decompressed, parsed, hashed and
 * packed. What it leaves behind is a directory of sealed packs and a sealed manifest, for the main thread
 * to publish, or nothing.
 */
import { createHash, type Hash } from 'node:crypto'
import { join } from 'node:path'
import type { ArchiveSink } from '../archive/archive.ts'
import { type Extractor, sniff } from '../archive/container.ts'
import { readArchive } from '../archive/read.ts'
import { leastUnpackedBytes, saysAtItsEnd, TAIL_BYTES } from '../archive/unpacked-size.ts'
import {
  ArchiveError,
  DigestMismatch,
  type ErrorReport,
  NoRoom,
  NotPublished,
  reportError,
  SourceError,
  UpstreamChanged,
  UpstreamUnreachable,
} from '../errors.ts'
import { type Disk, realDisk } from '../lib/disk.ts'
import { formatDuration, formatSize } from '../lib/units.ts'
import { createSource } from '../source/create.ts'
import type { HeldManifest, Offer, WantedBlob } from '../source/parent.ts'
import { Rests } from '../source/rests.ts'
import type { SignatureCheck } from '../source/signature.ts'
import type { Download, Layer, SourceConfig, SourceEvent } from '../source/source.ts'
import { Spool } from '../source/spool.ts'
import type { MostRoom } from '../store/budget.ts'
import { generateContents } from '../store/contents.ts'
import { removeTree } from '../store/durable.ts'
import { KnownBlobs, type KnownBlobsData } from '../store/known-blobs.ts'
import { Manifest, readSeal, type TreeTotals } from '../store/manifest.ts'
import { DIGEST_BYTES } from '../store/pack.ts'
import { DIRECTORY_MODE } from '../store/paths.ts'
import type { IngestRoom } from './blob-sink.ts'
import { Ingest, type IngestResult } from './ingest.ts'
import { checkManifest, earlierVersions, lackingBlobs, Replica } from './replica.ts'
import { spillTo } from './spill.ts'

/** What the thread is told. Plain data. */
export interface FetchJob {
  id: string
  /** Those whose pattern matches the id, in the order in which they are tried. */
  sources: readonly SourceConfig[]
  /** What fetches of each of them share. */
  paces: readonly SharedArrayBuffer[]
  /** How long ago each of them was first asked in this fetch: a start that is not the first has no more time for it. */
  spentMs: readonly number[]
  /** Servers that have asked to be left alone, by origin, and for how many more milliseconds. */
  rests: Readonly<Record<string, number>>
  /** Empty, and ours. */
  directory: string
  /** Where the download may be kept for a later start. */
  spool: string
  known: KnownBlobsData
  /** More than this a build cannot take, whatever goes for it. */
  most: MostRoom
  /** Manifests of held builds, those most like this one first: a parent server sends what differs. */
  held: readonly string[]
  /** What was relied on at an earlier start was not right: rely on as little as possible. */
  alone: boolean
}

/** Reads a stretch of a blob that the store has; undefined when it has gone. */
export type ReadHeld = (digest: Uint8Array, offset: number, bytes: number) => Promise<Uint8Array | undefined>

/** How far it has come. */
export type FetchProgress =
  | { type: 'locating'; source: string }
  /** A server has asked to be left alone for so long. */
  | { type: 'resting'; origin: string; ms: number }
  /** A source has failed, and the next is asked. */
  | { type: 'passed over'; source: string; error: ErrorReport }
  | {
      type: 'found'
      source: string
      url: string
      totalBytes: number | undefined
      checked: string | undefined
    }
  /** A parent server has said how much of it is to come. */
  | { type: 'lacking'; bytes: number }
  | { type: 'moved'; received: number; unpacked: number }
  | { type: 'finishing' }
  | { type: 'event'; event: SourceEvent }

export interface FetchOutcome {
  source: string
  url: string
  /** What came over the link. */
  archiveBytes: number
  /** Null where there was no archive. */
  archiveSha256: string | null
  /** URL of the file that another server had exported it to. */
  exportedTo?: string | undefined
  vouchers: readonly string[]
  /** Upstream's own contents file. */
  contents: Uint8Array | undefined
  ingest: IngestResult
  totals: TreeTotals
  /** SHA-256 digests of the blobs that the build needs, one after the other. */
  blobs: Uint8Array
}

/** An extractor may take so long unless the source says otherwise: it reads what is downloaded. */
const EXTRACT_TIMEOUT_MS = 3600_000
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
  readHeld: ReadHeld,
  disk: Disk = realDisk,
): Promise<FetchOutcome> {
  const account = new SpoolAccount(room)
  const spool = new AccountedSpool(job.spool, account, disk)
  const parts = new Map<string, Spool>()
  const spoolOf = (part: string): Spool => {
    const one = parts.get(part) ?? new AccountedSpool(job.spool, account, disk, part)
    parts.set(part, one)
    return one
  }
  let done = false
  let resumable = true
  try {
    const outcome = await takeFirst({ job, spool, spoolOf, account, tell, signal, readHeld, disk })
    done = true
    return outcome
  } catch (error) {
    // The archive is bad, or does not fit: going on from what was downloaded would end just so.
    const upstreamBroke = error instanceof SourceError && error.code === 'SOURCE_UNREACHABLE'
    resumable = upstreamBroke || signal.aborted
    throw error
  } finally {
    for (const one of [spool, ...parts.values()]) {
      if (done || !resumable) await one.discard().catch(() => undefined)
      else await one.close()
    }
  }
}

/** How long a source lets a fetch take, from when it was first asked. */
class Deadline {
  /** Also when it is over. */
  readonly signal: AbortSignal
  readonly #ms: number
  readonly #timeout: AbortSignal | undefined
  readonly #outer: AbortSignal

  constructor({ deadlineMs }: SourceConfig, spentMs: number, signal: AbortSignal) {
    this.#outer = signal
    this.#ms = deadlineMs ?? 0
    this.#timeout =
      deadlineMs === undefined
        ? undefined
        : AbortSignal.timeout(Math.max(0, Math.round(deadlineMs - spentMs)))
    this.signal = this.#timeout ? AbortSignal.any([signal, this.#timeout]) : signal
  }

  /** @throws UpstreamUnreachable when it is over. */
  async keep<T>(step: Promise<T>): Promise<T> {
    try {
      return await step
    } catch (error) {
      if (!this.#timeout?.aborted || this.#outer.aborted) throw error
      throw new UpstreamUnreachable(`it was not complete after ${formatDuration(this.#ms)}`, {
        hint: "What has arrived is kept: the next request goes on from there. The source's deadline may be too short.",
      })
    }
  }
}

/** What all steps of one fetch share. */
interface Work {
  job: FetchJob
  spool: Spool
  spoolOf: (part: string) => Spool
  account: SpoolAccount
  tell: (progress: FetchProgress) => void
  signal: AbortSignal
  readHeld: ReadHeld
  disk: Disk
}

/** Takes the build from the first source that has it. Those that can't be reached are passed over, but not forgotten. */
async function takeFirst(all: Work): Promise<FetchOutcome> {
  const { job, tell, spool } = all
  const failures: SourceError[] = []
  const rests = new Rests(job.rests, (origin, ms) => tell({ type: 'resting', origin, ms }))
  for (const [i, config] of job.sources.entries()) {
    tell({ type: 'locating', source: config.name })
    const deadline = new Deadline(config, job.spentMs[i] ?? 0, all.signal)
    const { signal } = deadline
    const work = { ...all, signal }
    const onEvent = (event: SourceEvent): void => tell({ type: 'event', event })
    const options = { signal, spool, spoolOf: work.spoolOf, onEvent }
    let take: () => Promise<FetchOutcome>
    try {
      const source = createSource(config, { pace: job.paces[i], rests })
      if (source.kind === 'parent') {
        const held = job.alone ? [] : await heldManifests(work)
        const offer = await deadline.keep(source.offer(job.id, { ...options, held }))
        take = () => takeReplica(config.name, offer, work)
      } else {
        const download = await deadline.keep(source.locate(job.id, options))
        take = () => takeArchive(config.name, download, work)
      }
    } catch (error) {
      if (!(error instanceof SourceError)) throw error
      failures.push(error)
      const isLast = i === job.sources.length - 1
      if (!isLast && !(error instanceof NotPublished))
        tell({ type: 'passed over', source: config.name, error: reportError(error) })
      continue
    }
    return await deadline.keep(take())
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

// ---------------------------------------------------------------------------------------------------
// An archive.

async function takeArchive(source: string, download: Download, work: Work): Promise<FetchOutcome> {
  const { job, account, tell, signal, disk } = work
  await using archive = download
  const { url, size: totalBytes, checksum } = archive
  tell({ type: 'found', source, url, totalBytes, checked: checksum?.algorithm })
  // A tree takes more than its archive: what does not fit even so is refused before its first byte.
  refuseBeyond(job, totalBytes ?? 0)
  expectRoom(work, totalBytes ?? 0)
  const contents = await archive.contents()
  const digests = new ArchiveDigests(archive)
  const config = job.sources.find(({ name }) => name === source)!
  const known = new KnownBlobs(job.known)
  const ingest = await Ingest.create(job.directory, known, account, undefined, disk.now, config.tree)
  try {
    const meter = new Meter(tell)
    if (archive.layers) {
      const archiveBytes = await readLayers(archive.layers, ingest, meter, work)
      tell({ type: 'finishing' })
      const result = ingest.finish()
      return {
        ...{ source, url, archiveBytes, archiveSha256: null, vouchers: archive.vouchers ?? [], contents },
        ingest: result,
        ...describe(Manifest.decode(result.manifest)),
      }
    }
    const extractor = await extractorOf(config, job, url, disk)
    const { chunks, unpackedBytes } = extractor
      ? { chunks: archive.bytes(), unpackedBytes: totalBytes ?? 0 }
      : await foreseeSize(archive, work)
    await readArchive(meter.downloads(chunks, digests), meter.unpacks(ingest), {
      signal,
      afterChunk: () => meter.show(),
      spill: (chunks) => spillTo(job.directory, inRoom(chunks, unpackedBytes, work), account, disk.now),
      extractor,
    })
    if (extractor) await removeTree(disk, extractor.directory)
    tell({ type: 'finishing' })
    digests.verify(archive)
    const vouchers = await vouchersOf(archive)
    const result = ingest.finish()
    return {
      source,
      url,
      archiveBytes: digests.bytes,
      archiveSha256: digests.sha256,
      vouchers,
      contents,
      ingest: result,
      ...describe(Manifest.decode(result.manifest)),
    }
  } catch (error) {
    ingest.abort()
    throw error instanceof ArchiveError ? namingArchive(url, error) : error
  }
}

async function extractorOf(
  { extract, extractTimeoutMs }: SourceConfig,
  { id, directory: parent, most }: FetchJob,
  url: string,
  disk: Disk,
): Promise<Extractor | undefined> {
  if (!extract) return undefined
  const directory = join(parent, 'extractor')
  await disk.mkdir(directory, DIRECTORY_MODE)
  const env = { UPSERV_BUILD: id, UPSERV_URL: url }
  const timeLimitMs = extractTimeoutMs ?? EXTRACT_TIMEOUT_MS
  return { command: extract, timeLimitMs, directory, maxFileBytes: most.bytes, env }
}

/** Each layer is an archive, checked by its digest before the next one begins. @returns bytes of all of them. */
async function readLayers(
  layers: readonly Layer[],
  ingest: Ingest,
  meter: Meter,
  work: Work,
): Promise<number> {
  const { job, account, signal, disk } = work
  let bytes = 0
  for (const layer of layers) {
    const [algorithm = '', expected = ''] = layer.digest.split(':')
    const hash = createHash(algorithm)
    const digests = {
      update: (chunk: Uint8Array): void => {
        hash.update(chunk)
        bytes += chunk.length
      },
    }
    ingest.nextLayer()
    await readArchive(meter.downloads(layer.bytes(), digests), meter.unpacks(ingest), {
      signal,
      afterChunk: () => meter.show(),
      spill: (chunks) => spillTo(job.directory, chunks, account, disk.now),
    })
    const actual = hash.digest('hex')
    if (actual !== expected) throw new DigestMismatch(layer.url, algorithm, expected, actual)
  }
  return bytes
}

/** Who vouches for an archive whose checksum is right. @throws SignatureBad */
async function vouchersOf({ checksum, checksumSigner, signature }: Download): Promise<string[]> {
  const signed = checksumSigner === undefined ? '' : `, signed by ${checksumSigner}`
  return [
    ...(checksum ? [`${checksum.algorithm} in ${checksum.url}${signed}`] : []),
    ...(signature ? [await signature.finish()] : []),
  ]
}

// ---------------------------------------------------------------------------------------------------
// What another server has.

async function takeReplica(source: string, offer: Offer, work: Work): Promise<FetchOutcome> {
  const { job, account, tell, signal, disk, readHeld, spool } = work
  const { url } = offer
  tell({ type: 'found', source, url, totalBytes: undefined, checked: 'sha256' })
  try {
    const manifest = decodeOffered(offer.manifest)
    const entries = checkManifest(manifest, offer.manifest)
    const known = new KnownBlobs(job.known)
    const lacking = lackingBlobs(manifest, known)
    const bytes = lacking.reduce((sum, blob) => sum + manifest.blobSize(blob), 0)
    tell({ type: 'lacking', bytes })
    takeRoom(work, bytes)
    const contents = await contentsOf(offer, manifest)
    const wanted = await withEarlier(offer, manifest, lacking, known, work)
    const replica = await Replica.create(job.directory, manifest, lacking, account, disk)
    try {
      const meter = new Meter(tell)
      for await (const chunk of meter.counted(offer.blobs(wanted, { spool, readBase: readHeld }))) {
        signal.throwIfAborted()
        replica.write(chunk)
      }
      tell({ type: 'finishing' })
      return {
        source,
        url,
        archiveBytes: offer.linkBytes,
        archiveSha256: offer.file?.sha256 ?? null,
        exportedTo: offer.file?.url,
        vouchers: offer.vouchers,
        contents,
        ingest: replica.finish(offer.manifest, entries),
        ...describe(manifest),
      }
    } catch (error) {
      replica.abort()
      throw error
    }
  } catch (error) {
    throw error instanceof ArchiveError ? namingArchive(url, error) : error
  }
}

// ---------------------------------------------------------------------------------------------------
// Room.

/** @param bytes that the build takes for certain, with all that it shares with others. @throws NoRoom */
function refuseBeyond({ id, most }: FetchJob, bytes: number): void {
  if (bytes <= most.bytes) return
  throw new NoRoom(`build ${id} needs at least ${formatSize(bytes)}; ${most.because}`, {
    hint: 'Raise the budget, or give it a larger disk. It was not downloaded.',
  })
}

/**
 * Reserves what will be written for certain, before any of it comes: blobs that a replica lacks, a file that an image
 * has to lie in. @throws NoRoom
 */
function takeRoom({ job, account }: Work, bytes: number): void {
  refuseBeyond(job, bytes)
  if (bytes > 0) account.reserve(bytes)
}

/** The same bytes, once there is room for so many. Who began to read them has to end it. */
async function* inRoom(
  chunks: AsyncIterable<Uint8Array>,
  bytes: number,
  work: Work,
): AsyncGenerator<Uint8Array> {
  let isThere = false
  for await (const chunk of chunks) {
    if (!isThere) takeRoom(work, bytes)
    isThere = true
    yield chunk
  }
}

/** Of a tar's size, so much is usually content that comes once. */
const USUAL_SHARE = 0.75

/**
 * Reserves what a tree usually takes, where that is to be had. It may be far less: headers are no content, and files
 * that come twice, or are stored already, are not written. So it shows only while it is unpacked whether it fits.
 */
function expectRoom({ job, account }: Work, bytes: number): void {
  const expected = Math.floor(bytes * USUAL_SHARE) - job.most.storedBytes
  if (expected > 0) account.reserveIfThere(expected)
}

/** Trees compress to no less than this, as a rule: what fits with so much more need not be asked for. */
const USUAL_RATIO = 8

/**
 * Expects what the archive itself says of its size unpacked, at its start or at its end, where it is compressed and
 * that might be too much. @returns that size, at the least, with all bytes of the archive.
 */
async function foreseeSize(
  archive: Download,
  work: Work,
): Promise<{ unpackedBytes: number; chunks: AsyncIterable<Uint8Array> }> {
  const { found: head, chunks } = await sniff(archive.bytes(), (head) => Uint8Array.from(head))
  const isClose = archive.size !== undefined && archive.size * USUAL_RATIO > work.job.most.bytes
  const tail = isClose && saysAtItsEnd(head) ? await archive.last?.(TAIL_BYTES) : undefined
  const unpackedBytes = leastUnpackedBytes(head, tail, archive.size)
  expectRoom(work, unpackedBytes)
  return { unpackedBytes, chunks }
}

function decodeOffered(bytes: Uint8Array): Manifest {
  try {
    return Manifest.decode(bytes)
  } catch (cause) {
    throw new ArchiveError((cause as Error).message, { cause })
  }
}

/** Upstream's contents file; undefined when it is the one that we make ourselves of such a tree. */
async function contentsOf(offer: Offer, manifest: Manifest): Promise<Uint8Array | undefined> {
  const digest = async (chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<string> => {
    const hash = createHash('sha256')
    for await (const chunk of chunks) hash.update(chunk)
    return hash.digest('hex')
  }
  if ((await digest(generateContents(manifest))) === offer.contentsSha256) return undefined
  const contents = await offer.contents()
  if ((await digest([contents])) === offer.contentsSha256) return contents
  throw new UpstreamChanged('the contents file is not the one that was announced')
}

async function heldManifests({ job, disk }: Work): Promise<HeldManifest[]> {
  const held: HeldManifest[] = []
  for (const path of job.held) {
    // One that is evicted meanwhile is of no help.
    const seal = await readSeal(path, disk).catch(() => undefined)
    const bytes = async (): Promise<Uint8Array | undefined> => {
      const manifest = await disk.readFile(path).catch(() => undefined)
      return manifest && manifest.subarray(-DIGEST_BYTES).toString('hex') === seal ? manifest : undefined
    }
    if (seal !== undefined) held.push({ seal, bytes })
  }
  return held
}

/** What is to be asked for, with what we have of earlier versions. */
async function withEarlier(
  offer: Offer,
  manifest: Manifest,
  lacking: readonly number[],
  known: KnownBlobs,
  work: Work,
): Promise<WantedBlob[]> {
  const held =
    offer.base === undefined ? undefined : (await heldManifests(work)).find(({ seal }) => seal === offer.base)
  const bytes = await held?.bytes()
  const base = bytes && Manifest.decode(bytes)
  const earlier = base ? earlierVersions(manifest, lacking, base, known) : new Map<number, number>()
  return lacking.map((blob) => {
    const before = earlier.get(blob)
    return {
      digest: manifest.blobDigest(blob),
      size: manifest.blobSize(blob),
      base:
        base && before !== undefined
          ? { digest: base.blobDigest(before), size: base.blobSize(before) }
          : undefined,
    }
  })
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

  async *downloads(
    chunks: AsyncIterable<Uint8Array>,
    digests: Pick<ArchiveDigests, 'update'> | { update(chunk: Uint8Array): void },
  ): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      await digests.update(chunk)
      this.#received += chunk.length
      this.show()
      yield chunk
    }
    this.show(true)
  }

  /** The same bytes, counted. */
  async *counted(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      this.#received += chunk.length
      this.#unpacked = this.#received
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
  readonly #signature: SignatureCheck | undefined
  #result: string | undefined
  bytes = 0

  constructor({ checksum, signature }: Download) {
    this.#signature = signature
    this.#published = checksum && checksum.algorithm !== 'sha256' ? createHash(checksum.algorithm) : undefined
  }

  get sha256(): string {
    this.#result ??= this.#sha256.digest('hex')
    return this.#result
  }

  async update(chunk: Uint8Array): Promise<void> {
    await this.#signature?.update(chunk)
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
  readonly #spools: Spool[] = []
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
      for (const spool of this.#spools) spool.dropNow()
      this.releaseSpool(this.#spooled)
      this.#room.claim(bytes)
    }
  }

  /** Room for so many bytes, which are claimed later. @throws NoRoom */
  reserve(bytes: number): void {
    this.claim(bytes)
    this.giveBack(bytes)
  }

  /** The same, where it costs nothing else its room. */
  reserveIfThere(bytes: number): void {
    try {
      this.#room.claim(bytes)
      this.#room.giveBack(bytes)
    } catch (error) {
      if (!(error instanceof NoRoom)) throw error
    }
  }

  add(spool: Spool): void {
    this.#spools.push(spool)
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

  releaseSpool(bytes: number): void {
    const released = Math.min(bytes, this.#spooled)
    this.#room.giveBack(released)
    this.#spooled -= released
  }
}

/** A spool whose bytes count. When there is no room for them, the download goes on without it. */
class AccountedSpool extends Spool {
  readonly #account: SpoolAccount
  #claimed = 0

  constructor(directory: string, account: SpoolAccount, disk: Disk, name?: string) {
    super(directory, disk, name)
    this.#account = account
    account.add(this)
  }

  override async open(key: Parameters<Spool['open']>[0]): Promise<number> {
    const held = await super.open(key)
    if (held > 0) this.#claim(held)
    return held
  }

  override async append(chunk: Uint8Array): Promise<void> {
    this.#claim(chunk.length)
    await super.append(chunk)
  }

  override async discard(): Promise<void> {
    await super.discard()
    this.#account.releaseSpool(this.#claimed)
    this.#claimed = 0
  }

  #claim(bytes: number): void {
    this.#account.claimSpool(bytes)
    this.#claimed += bytes
  }
}

/** What the main thread needs of the manifest: decoding it takes too long there. */
function describe(manifest: Manifest): { totals: TreeTotals; blobs: Uint8Array } {
  const blobs = new Uint8Array(manifest.blobCount * DIGEST_BYTES)
  for (let blob = 0; blob < manifest.blobCount; blob++)
    blobs.set(manifest.blobDigest(blob), blob * DIGEST_BYTES)
  return { totals: manifest.totals, blobs }
}
