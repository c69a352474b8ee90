/**
 * Verifier: finds what has rotted, and has it fetched again when it is told to.
 *
 * Builds are read again from end to end when an operator asks (`upserv verify`). A single blob is when a
 * session could not read it or its client refused it: in the background, one at a time. Clients choose what
 * they refuse, so the line is short and a blob that was just found to be right is not read again soon.
 * What has rotted is never served from then on (store.ts, packs.ts); whoever asks for the build next has it
 * fetched again (resolver.ts).
 */
import { CommandError, UpservError } from '../errors.ts'
import { asBuffer, showBytes } from '../lib/bytes.ts'
import type { Logger } from '../lib/log.ts'
import { Pacer } from '../lib/pacer.ts'
import type { Manifest } from '../store/manifest.ts'
import type { Store } from '../store/store.ts'
import type { Catalog } from './catalog.ts'
import type { Fetches } from './fetch.ts'
import type { DamagedBuild, VerifyProgress, VerifyReport } from './operations.ts'

/** Blobs that wait to be read again; more are dropped, as whoever gets them wrong will say so again. */
const MAX_WAITING = 1000
/** A blob that was right is believed for so long, whatever clients say. */
const BELIEVE_MS = 10 * 60_000
/** So many of those are remembered. */
const MAX_BELIEVED = 10_000
/** How often it is told how far a verification has come. */
const TELL_EVERY_MS = 100
/** Paths of damaged files that a report names for each build. */
const MAX_PATHS = 20

export interface VerifierParts {
  store: Store
  catalog: Catalog
  fetches: Fetches
  log: Logger
  /** Milliseconds on a clock that never jumps. */
  now?: () => number
}

/** A build's blob; undefined for its own files. */
interface Suspect {
  id: string
  digest: Uint8Array | undefined
}

export class Verifier {
  readonly #parts: VerifierParts
  readonly #now: () => number
  /** Those that wait, in the order in which they came. */
  readonly #suspects = new Map<string, Suspect>()
  /** When each was found to be right. */
  readonly #believed = new Map<string, number>()
  #abort = new AbortController()
  #working: Promise<void> | undefined

  constructor(parts: VerifierParts) {
    this.#parts = parts
    this.#now = parts.now ?? (() => performance.now())
  }

  /** A blob of a build, or one of the build's own files, may not be what it was. Returns at once. */
  suspect(id: string, digest: Uint8Array | undefined): void {
    const key = digest ? asBuffer(digest).toString('hex') : `files of ${id}`
    const right = this.#believed.get(key)
    if (right !== undefined && this.#now() - right < BELIEVE_MS) return
    if (this.#suspects.size >= MAX_WAITING || this.#abort.signal.aborted) return
    this.#suspects.set(key, { id, digest: digest?.slice() })
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined
    })
  }

  /** Resolves when nothing is suspect any more. */
  async idle(): Promise<void> {
    await this.#working
  }

  /** Reads a build, or all of them, again; with `repair` has what is damaged fetched again. */
  async verify(
    id: string | undefined,
    { repair }: { repair: boolean },
    onProgress: (progress: VerifyProgress) => void,
    signal: AbortSignal,
  ): Promise<VerifyReport> {
    const { store, catalog } = this.#parts
    const stop = AbortSignal.any([signal, this.#abort.signal])
    if (id !== undefined) {
      await catalog.left(id)
      catalog.assertHeld(id)
    }
    let toldAt = Number.NEGATIVE_INFINITY
    const { blobs, bytes, rotten } = await store.verify(
      id === undefined ? undefined : [id],
      (done, totalBytes) => {
        if (done.bytes < totalBytes && this.#now() - toldAt < TELL_EVERY_MS) return
        toldAt = this.#now()
        onProgress({ type: 'checked', bytes: done.bytes, totalBytes, rottenBlobs: done.rotten })
      },
      stop,
    )
    const damaged: DamagedBuild[] = []
    for (const held of id === undefined ? catalog.ids() : [id]) {
      stop.throwIfAborted()
      const found = await this.#describe(held)
      if (found) damaged.push(repair ? await this.#repair(found, onProgress, stop) : found)
    }
    const whole = damaged.every(({ repaired }) => repaired)
    // Packs whose very index was lost: nobody needs anything of them any more.
    if (repair && whole && id === undefined) await store.packs.dropUnknown()
    return { blobs, bytes, rottenBlobs: rotten, damaged }
  }

  /** Stops what is under way. */
  async close(): Promise<void> {
    this.#suspects.clear()
    this.#abort.abort(new CommandError('the server is stopping'))
    await this.#working
  }

  /** After `close`: as if it had just been made. */
  reopen(): void {
    this.#abort = new AbortController()
  }

  async #work(): Promise<void> {
    for (const [key, { id, digest }] of this.#suspects) {
      const isRight = await this.#isRight(id, digest).catch((error: Error) => {
        if (!this.#abort.signal.aborted)
          this.#parts.log.warn(
            { build: id, reason: error.message },
            'what may have rotted could not be checked',
          )
        return false
      })
      this.#suspects.delete(key)
      if (isRight) this.#believe(key)
    }
  }

  async #isRight(id: string, digest: Uint8Array | undefined): Promise<boolean> {
    const { store } = this.#parts
    if (digest) return await store.checkBlob(digest, this.#abort.signal)
    if (store.has(id)) await store.checkFiles(id)
    return true
  }

  #believe(key: string): void {
    this.#believed.delete(key)
    this.#believed.set(key, this.#now())
    if (this.#believed.size > MAX_BELIEVED) this.#believed.delete(this.#believed.keys().next().value!)
  }

  /** Undefined when nothing of the build is damaged, or it has just left. */
  async #describe(id: string): Promise<DamagedBuild | undefined> {
    const { store } = this.#parts
    if (!store.has(id)) return undefined
    const damage = await store.damage(id)
    if (!damage) return undefined
    const files = damage.files ? [] : await lostFiles(store, await store.manifest(id))
    return { id, reason: damage.message, files, repaired: false, failure: null }
  }

  async #repair(
    build: DamagedBuild,
    onProgress: (progress: VerifyProgress) => void,
    signal: AbortSignal,
  ): Promise<DamagedBuild> {
    const { fetches, store } = this.#parts
    const say = (line: string): void => onProgress({ type: 'repairing', line })
    try {
      const lease = await fetches.repair(build.id, say, signal)
      lease.release()
      return { ...build, repaired: !(await store.damage(build.id)) }
    } catch (error) {
      if (signal.aborted || !(error instanceof UpservError)) throw error
      return { ...build, failure: error.message }
    }
  }
}

/** Some of the files whose content is lost, as people read paths. */
async function lostFiles(store: Store, manifest: Manifest): Promise<string[]> {
  const pacer = new Pacer()
  const paths: string[] = []
  for (let entry = 0; entry < manifest.count && paths.length < MAX_PATHS; entry++) {
    if (pacer.due) await pacer.rest()
    const blob = manifest.blob(entry)
    if (blob >= 0 && store.isLost(manifest.blobDigest(blob))) paths.push(showBytes(manifest.path(entry)))
  }
  return paths
}
