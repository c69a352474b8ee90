/**
 * What we are for servers that have us as their source (source/parent.ts is their side): we say which
 * builds there are, get the one that is asked for, and hand out its manifest and the blobs that they lack.
 *
 * A child is a client like any other: it gets what the rules of a build's module let it have, it waits as
 * devices do, and the build is leased while it reads. What a disk has let rot is not sent: blobs are hashed
 * on their way out, and one that is not what it should be ends the answer and is looked into.
 */
import { createHash, type Hash } from 'node:crypto'
import { promisify } from 'node:util'
import { zstdCompress } from 'node:zlib'
import { RefusedError, StoreCorrupt } from '../errors.ts'
import { asBuffer, type ByteString, byteString } from '../lib/bytes.ts'
import { Pacer } from '../lib/pacer.ts'
import { WaitingLine } from '../lib/waiting-line.ts'
import type { Asker } from '../rsync/modules.ts'
import {
  type BlobRequest,
  type BuildLine,
  frameParams,
  type ListAnswer,
  MAX_DICTIONARY_BYTES,
  SPAN_HEAD_BYTES,
  type Span,
  spansOf,
} from '../source/parent-wire.ts'
import type { Manifest } from '../store/manifest.ts'
import type { Store } from '../store/store.ts'
import type { Available } from './available.ts'
import { moduleOf } from './build-id.ts'
import type { Catalog } from './catalog.ts'
import type { Resolver } from './resolver.ts'
import type { Verifier } from './verifier.ts'

const compress = promisify(zstdCompress)

/**
 * Pieces of answers that are made at a time, manifests among them: each may compress on all that a core gives, and hold
 * some 20 MB, or a manifest twice. A place is taken while a piece is made and never while it is sent, which takes as
 * long as the child likes.
 */
const MAX_WORKING = 4
/** Children hear of us at least every two seconds until their manifest comes. */
const SAY_EVERY_MS = 1500

export interface ParentParts {
  store: Store
  catalog: Catalog
  resolver: Resolver
  available: Available
  verifier: Verifier
}

/** A blob of the build, and where it is in what was asked for. */
interface Asked {
  digest: Uint8Array
  size: number
  base: Uint8Array | undefined
  baseSize: number
}

export class Parent {
  readonly #parts: ParentParts
  readonly #line = new WaitingLine(MAX_WORKING)

  constructor(parts: ParentParts) {
    this.#parts = parts
  }

  /** What is held, and what could be fetched. */
  async list(asker: Asker, signal: AbortSignal): Promise<ListAnswer> {
    const { store, catalog, available } = this.#parts
    const builds = new Map<string, ListAnswer['builds'][number]>()
    for (const id of catalog.ids()) {
      const info =
        asker.mayHave(moduleOf(id)) && store.has(id) ? await store.info(id).catch(() => undefined) : undefined
      if (info) builds.set(id, { id, published: info.fetched })
    }
    const others = available.hasSources ? await available.list(signal) : { builds: [], gaps: [] }
    for (const { id, published } of others.builds) {
      if (!builds.has(id) && asker.mayHave(moduleOf(id))) builds.set(id, { id, published })
    }
    return { builds: [...builds.values()], complete: others.gaps.length === 0 }
  }

  /**
   * Gets the build, however long that takes, and describes it.
   * @param seals manifests that the child has: with one that we have too, only the difference is sent.
   * @returns the line that announces the manifest, and the manifest as it is sent.
   */
  async describe(
    id: string,
    seals: readonly string[],
    asker: Asker,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<{ line: BuildLine; body: Uint8Array }> {
    const lease = await this.#parts.resolver.lease(id, asker, say, signal)
    const saying = setInterval(() => say(`${moduleOf(id)}: its description is made ready`), SAY_EVERY_MS)
    try {
      return await this.#inTurn(signal, () => this.#description(id, seals, asker))
    } finally {
      clearInterval(saying)
      lease.release()
    }
  }

  async #description(
    id: string,
    seals: readonly string[],
    asker: Asker,
  ): Promise<{ line: BuildLine; body: Uint8Array }> {
    const { store } = this.#parts
    const info = await store.info(id)
    const bytes = await store.manifestBytes(id)
    const base = bytes.length > MAX_DICTIONARY_BYTES ? undefined : await this.#heldBy(seals, id, asker)
    const dictionary = base?.bytes
    const body = await compress(bytes, {
      params: frameParams(bytes.length, dictionary?.length ?? 0),
      ...(dictionary ? { dictionary } : {}),
    })
    const line: BuildLine = {
      bytes: bytes.length,
      sent: body.length,
      base: base ? { id: base.id, seal: base.seal } : null,
      contentsSha256: info.contentsSha256 ?? '',
      contentsBytes: await store.contentsSize(id),
      url: info.url,
      vouchers: [...(info.vouchers ?? [])],
    }
    return { line, body }
  }

  /** The file `contents`, for a child that cannot make it by itself: as it is, or as one zstd frame. */
  async contents(
    id: string,
    asker: Asker,
    { asZstd, signal }: { asZstd: boolean; signal: AbortSignal },
  ): Promise<Uint8Array> {
    const { store, resolver } = this.#parts
    const lease = await resolver.lease(id, asker, () => {}, signal)
    try {
      return await this.#inTurn(signal, async () => {
        const bytes = await store.contents(id)
        return asZstd ? compress(bytes, { params: frameParams(bytes.length, 0) }) : bytes
      })
    } finally {
      lease.release()
    }
  }

  /**
   * The blobs that were asked for, as parent-wire.ts has it.
   * @throws RefusedError before the first byte, for what the build does not need; StoreError on the way.
   */
  async *blobs(
    id: string,
    request: BlobRequest,
    asker: Asker,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const { store, catalog, resolver } = this.#parts
    const lease = await resolver.lease(id, asker, () => {}, signal)
    // A build that is no longer held here cannot help; the child asks again without it.
    const base =
      request.base === null ? undefined : asker.mayHave(moduleOf(request.base)) && catalog.lease(request.base)
    try {
      if (request.base !== null && !base) throw new RefusedError(`build ${request.base} is not held here`)
      const asked = await this.#inTurn(signal, async () =>
        this.#sizesOf(
          request,
          await store.manifest(id),
          base ? await store.manifest(base.id) : undefined,
          signal,
        ),
      )
      if (request.from > 0 && request.from >= asked[0]!.size)
        throw new RefusedError('the first blob is smaller than that')
      let hash: Hash | undefined
      for (const span of spansOf(asked, request.from)) {
        const made = await this.#inTurn(signal, () => this.#frame(id, asked, span, hash))
        hash = made.hash
        const head = Buffer.alloc(SPAN_HEAD_BYTES)
        head.writeUInt32LE(span.bytes, 0)
        head.writeUInt32LE(made.frame.length, 4)
        yield head
        yield made.frame
      }
    } finally {
      if (base) base.release()
      lease.release()
    }
  }

  /** The manifest of a held build among these, as a dictionary: the first that there is. */
  async #heldBy(seals: readonly string[], target: string, asker: Asker) {
    if (seals.length === 0) return undefined
    const { store, catalog } = this.#parts
    const bySeal = new Map<string, string>()
    for (const id of catalog.ids()) {
      if (id === target || !asker.mayHave(moduleOf(id)) || !store.has(id)) continue
      const seal = await store.manifestSeal(id).catch(() => undefined)
      if (seal !== undefined) bySeal.set(seal, id)
    }
    for (const seal of seals) {
      const id = bySeal.get(seal)
      const bytes =
        id !== undefined && store.has(id) ? await store.manifestBytes(id).catch(() => undefined) : undefined
      if (id !== undefined && bytes && bytes.length <= MAX_DICTIONARY_BYTES) return { id, seal, bytes }
    }
    return undefined
  }

  /** Who asks for blobs of a build gets those, and earlier versions out of the build that was named. */
  async #sizesOf(
    { wanted }: BlobRequest,
    manifest: Manifest,
    base: Manifest | undefined,
    signal: AbortSignal,
  ): Promise<Asked[]> {
    const sizes = await sizesIn(
      manifest,
      wanted.map(({ digest }) => digest),
      signal,
    )
    const earlier = wanted.flatMap((one) => one.base ?? [])
    const baseSizes = base ? await sizesIn(base, earlier, signal) : new Map<ByteString, number>()
    return wanted.map(({ digest, base }) => {
      const size = sizes.get(byteString(digest))
      const baseSize = base ? baseSizes.get(byteString(base)) : 0
      if (size === undefined || baseSize === undefined) {
        throw new RefusedError(
          `a blob was asked for that the build does not have: ${asBuffer(digest).toString('hex')}`,
        )
      }
      return { digest, size, base, baseSize }
    })
  }

  /** What it is made of is gone when it is there: of an answer that is taken slowly only the frame stays in memory. */
  async #frame(
    id: string,
    asked: readonly Asked[],
    span: Span,
    running: Hash | undefined,
  ): Promise<{ frame: Uint8Array; hash: Hash | undefined }> {
    const raw = await this.#read(asked, span)
    const hash = this.#check(id, asked, span, raw, running)
    const dictionary = await this.#dictionary(asked[span.first]!, span)
    const frame = await compress(raw, {
      params: frameParams(raw.length, dictionary?.length ?? 0),
      ...(dictionary ? { dictionary } : {}),
    })
    return { frame, hash }
  }

  /** Does some work when there is a place for it, in the order in which it was wanted. */
  async #inTurn<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    signal.throwIfAborted()
    const leave = await this.#line.enter(signal, () => {})
    try {
      return await work()
    } finally {
      leave()
    }
  }

  async #read(asked: readonly Asked[], { first, count, offset, bytes }: Span): Promise<Buffer> {
    const raw = Buffer.allocUnsafe(bytes)
    let at = 0
    for (let i = first; i < first + count; i++) {
      const { digest, size } = asked[i]!
      const length = count === 1 ? bytes : size
      if (length > 0) await this.#parts.store.copyBlob(digest, offset, [raw.subarray(at, at + length)])
      at += length
    }
    return raw
  }

  /** @returns the hash that goes on with the next span. @throws StoreCorrupt for a blob that has rotted. */
  #check(
    id: string,
    asked: readonly Asked[],
    span: Span,
    raw: Buffer,
    running: Hash | undefined,
  ): Hash | undefined {
    let at = 0
    for (let i = span.first; i < span.first + span.count; i++) {
      const { digest, size } = asked[i]!
      const whole = span.count > 1 || span.bytes === size
      // A blob whose beginning the child has already is checked by the child.
      const hash = whole || span.offset === 0 ? createHash('sha256') : running
      if (!hash) return undefined
      const end = whole ? at + size : at + span.bytes
      hash.update(raw.subarray(at, end))
      at = end
      if (!whole && span.offset + span.bytes < size) return hash
      if (!hash.digest().equals(digest)) {
        this.#parts.verifier.suspect(id, digest)
        throw new StoreCorrupt(`blob ${asBuffer(digest).toString('hex')} of build ${id} has rotted`)
      }
    }
    return undefined
  }

  async #dictionary({ base }: Asked, { dictionary }: Span): Promise<Buffer | undefined> {
    if (!base || !dictionary) return undefined
    const bytes = Buffer.allocUnsafe(dictionary.bytes)
    await this.#parts.store.copyBlob(base, dictionary.offset, [bytes])
    return bytes
  }
}

/** Sizes of those of the digests that a manifest has. */
async function sizesIn(
  manifest: Manifest,
  digests: readonly Uint8Array[],
  signal: AbortSignal,
): Promise<Map<ByteString, number>> {
  const asked = new Set(digests.map((digest) => byteString(digest)))
  const sizes = new Map<ByteString, number>()
  const pacer = new Pacer(signal)
  for (let b = 0; b < manifest.blobCount; b++) {
    if (pacer.due) await pacer.rest()
    const digest = byteString(manifest.blobDigest(b))
    if (asked.has(digest)) sizes.set(digest, manifest.blobSize(b))
  }
  return sizes
}
