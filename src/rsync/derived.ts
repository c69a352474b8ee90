/**
 * What is worked out from a build's content for one client and is just as good for the next: deltas and
 * digests. Short work is done at once, long work in a pool of threads, so that the event loop never waits;
 * equal questions asked at the same time are answered by one computation.
 */

import { hash } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Piscina } from 'piscina'
import { RelayedError, StoreCorrupt } from '../errors.ts'
import { siblingModule } from '../lib/module-path.ts'
import { SingleFlight } from '../lib/single-flight.ts'
import type { BlockSums, Delta } from './delta/match.ts'
import { type Place, runTask, type Task, type TaskResult } from './delta/tasks.ts'
import type { Work, WorkResult } from './delta/worker.ts'
import type { BlockSumRule, DigestName } from './digests.ts'
import type { Kept } from './kept.ts'
import { withContent, withReader } from './parts.ts'
import { RecentDigests } from './recent-digests.ts'
import { withMemory } from './slabs.ts'
import type { Content, Tree } from './tree.ts'
import type { SumHead } from './wire/sums.ts'

/** Content up to this size is worked on in the event loop: below a millisecond even for MD4. */
const INLINE_SIZE = 64 * 1024
/** A table of so many blocks is made in a fraction of a millisecond. */
const INLINE_BLOCKS = 1024
/**
 * Pieces of a file that its blocks may cut it into, at most about: a delta takes some 25 bytes for each.
 * Block lengths that clients choose by themselves stay far below; -B1 does not.
 */
const MAX_STEPS = 2_000_000
/** What goes out where no digest was agreed on: one byte. */
const NO_DIGEST = new Uint8Array(1)
/** A thread without work ends after this time. */
const IDLE_MS = 30_000
const THREADS = Math.max(1, availableParallelism())
/** How often it is looked whether all threads have started. */
const LOOK_EVERY_MS = 5

export interface DerivedOptions {
  kept: Kept
  /** The server's own: what depends on another one, which a client brought, is not kept. */
  checksumSeed: number
}

export class Derived {
  readonly #kept: Kept
  readonly #checksumSeed: number
  readonly #deltas = new SingleFlight<string, Delta>()
  readonly #recentDigests = new RecentDigests()
  readonly #digesting = new SingleFlight<string, Uint8Array>()
  #pool: Promise<Piscina> | undefined
  /** Threads are there for good: see `settle`. */
  #settled: Promise<void> | undefined
  /** One that still has to do. */
  #former: Promise<Piscina> | undefined

  constructor({ kept, checksumSeed }: DerivedOptions) {
    this.#kept = kept
    this.#checksumSeed = checksumSeed
  }

  /**
   * How to make a file from the blocks that the client has; undefined when it is to be sent whole, since
   * the blocks are so small that describing it would take more memory than it is worth.
   * @throws StoreError when the file can't be read; the signal's reason.
   */
  async delta(
    tree: Tree,
    node: number,
    sums: BlockSums,
    rule: BlockSumRule,
    inplace: boolean,
    signal: AbortSignal,
  ): Promise<Delta | undefined> {
    const { head } = sums
    const size = tree.size(node)
    if (size / head.blockLength > MAX_STEPS) return undefined
    const task: Task = { type: 'match', sums, rule, inplace }
    // Each block that is found costs the call of a digest, and tiny ones may be found at every byte.
    const isQuick = Math.max(head.count, size / head.blockLength) <= INLINE_BLOCKS
    if (size <= INLINE_SIZE && isQuick) return runInline(task, tree, node)
    const sumsKey = `${hash('sha256', sums.strong)}:${hash('sha256', bytesOf(sums.weak))}`
    const ruleKey = `${rule.name}:${rule.seed}:${rule.seedFirst}:${inplace}`
    const headKey = `${head.count}:${head.blockLength}:${head.strongLength}:${head.remainder}`
    return this.#deltas.run(
      `${tree.contentKey(node)}:${ruleKey}:${headKey}:${sumsKey}`,
      (stop) => this.#inThread(task, tree, node, stop),
      signal,
    )
  }

  /**
   * The sums that a client with this content sends behind `head`; not kept.
   * @throws StoreError when the content can't be read; the signal's reason.
   */
  async blockSums(
    tree: Tree,
    node: number,
    head: SumHead,
    rule: BlockSumRule,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const task: Task = { type: 'sums', head, rule }
    return this.#run(task, tree, node, signal)
  }

  /**
   * The digest of a regular file: as it was computed when the build came in, or else worked out once and
   * kept, after the content was found to be what it was then.
   * @throws StoreError when it was not, or can't be read; the signal's reason.
   */
  digest(
    tree: Tree,
    node: number,
    name: DigestName,
    seed: number,
    signal: AbortSignal,
  ): Uint8Array | Promise<Uint8Array> {
    const found = this.#findDigest(tree, node, name, seed)
    if (!(found instanceof Promise)) return found ?? this.#workOutDigest(tree, node, name, seed, signal)
    return found.then((kept) => kept ?? this.#workOutDigest(tree, node, name, seed, signal))
  }

  /** The digest of a regular file, when it is in memory. */
  knownDigest(tree: Tree, node: number, name: DigestName, seed: number): Uint8Array | undefined {
    const found = this.#findDigest(tree, node, name, seed)
    return found instanceof Promise ? undefined : found
  }

  #findDigest(
    tree: Tree,
    node: number,
    name: DigestName,
    seed: number,
  ): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    const recorded = recordedDigest(tree, node, name)
    if (recorded) return recorded
    if (!this.#isForAll(name, seed)) return undefined
    const recent = this.#recentDigests.find(tree, node, name)
    if (recent) return recent
    const remember = (kept: Uint8Array | undefined): Uint8Array | undefined => {
      if (kept) this.#recentDigests.add(tree, node, name, kept)
      return kept
    }
    const record = this.#kept.get(this.#digestKey(tree, node, name))
    return record instanceof Promise ? record.then(remember) : remember(record)
  }

  /** Whether a digest is kept: not if it depends on a seed that one client brought. */
  #isForAll(name: DigestName, seed: number): boolean {
    return name !== 'md4-seeded' || seed === this.#checksumSeed
  }

  /** Where a digest is kept. */
  #digestKey(tree: Tree, node: number, name: DigestName): Uint8Array {
    const seed = name === 'md4-seeded' ? this.#checksumSeed : 0
    const text = `digest:${name}:${seed}:${tree.contentKey(node)}`
    return hash('sha256', Buffer.from(text, 'latin1'), 'buffer')
  }

  #workOutDigest(
    tree: Tree,
    node: number,
    name: DigestName,
    seed: number,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    return this.#digesting.run(
      `${name}:${seed}:${tree.contentKey(node)}`,
      async (stop) => {
        const task: Task = { type: 'digest', name, seed, from: 0, expected: tree.digest(node, 'xxh128') }
        const value = await this.#run(task, tree, node, stop)
        if (this.#isForAll(name, seed)) {
          this.#kept.put(this.#digestKey(tree, node, name), value)
          this.#recentDigests.add(tree, node, name, value)
        }
        return value
      },
      signal,
    )
  }

  /**
   * The digest of what lies behind the first `from` bytes, for --append; not kept. All of the content is read
   * and compared with what it was, since the client compares this digest with nothing but what it gets.
   * @throws as `digest`.
   */
  async tailDigest(
    tree: Tree,
    node: number,
    from: number,
    name: DigestName,
    seed: number,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const task: Task = { type: 'digest', name, seed, from, expected: tree.digest(node, 'xxh128') }
    return this.#inThread(task, tree, node, signal)
  }

  /**
   * The files of our program may change once this returns: all threads are there, and none is stopped or ends, as
   * another one would be of another version.
   */
  settle(): Promise<void> {
    this.#settled ??= (async () => {
      this.#former = this.#pool
      this.#pool = startPool(THREADS)
      const pool = await this.#pool
      while (pool.threads.length < THREADS) await sleep(LOOK_EVERY_MS)
    })()
    return this.#settled
  }

  async close(): Promise<void> {
    for (const pool of [this.#former, this.#pool]) await (await pool)?.destroy()
  }

  #run<T extends Task>(
    task: T,
    tree: Tree,
    node: number,
    signal: AbortSignal,
  ): Promise<TaskResult[T['type']]> {
    return tree.size(node) <= INLINE_SIZE
      ? runInline(task, tree, node)
      : this.#inThread(task, tree, node, signal)
  }

  async #inThread<T extends Task>(
    task: T,
    tree: Tree,
    node: number,
    signal: AbortSignal,
  ): Promise<TaskResult[T['type']]> {
    // The file stays open until the thread has ended or been told to.
    const result: WorkResult = await withContent(tree, node, async (content) => {
      this.#pool ??= startPool()
      const pool = await this.#pool
      const stop = this.#settled ? null : signal
      return pool.run({ task, place: placeOf(content) } satisfies Work, { signal: stop })
    })
    if ('value' in result) return result.value as TaskResult[T['type']]
    const { code, message, hint } = result.error
    if (code === 'PROGRAM_REPLACED') throw new RelayedError(result.error)
    throw new StoreCorrupt(message, hint === undefined ? {} : { hint })
  }
}

/** Loaded with the first work that needs threads: a server that only repeats itself never has any. */
async function startPool(minThreads = 0): Promise<Piscina> {
  const { Piscina } = await import('piscina')
  return new Piscina({
    filename: siblingModule(import.meta.url, './delta/worker'),
    minThreads,
    maxThreads: THREADS,
    idleTimeout: IDLE_MS,
  })
}

function runInline<T extends Task>(task: T, tree: Tree, node: number): Promise<TaskResult[T['type']]> {
  return withReader(tree, node, (read) =>
    withMemory(tree.size(node), async (bytes) => {
      await read([bytes], 0)
      return runTask(task, bytes)
    }),
  )
}

/** The digest as it was computed when the build came in. */
export function recordedDigest(tree: Tree, node: number, name: DigestName): Uint8Array | undefined {
  if (name === 'none') return NO_DIGEST
  return name === 'md5' || name === 'xxh128' ? tree.digest(node, name) : undefined
}

/** Where a task finds the content. */
function placeOf({ place, size }: Content): Place | Uint8Array {
  return place instanceof Uint8Array ? place : { ...place, size }
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
}
