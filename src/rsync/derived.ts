/**
 * What is worked out from a build's content for one client and is just as good for the next: deltas and
 * digests. Short work is done at once, long work in a pool of threads, so that the event loop never waits;
 * equal questions asked at the same time are answered by one computation.
 */

import { hash } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { Piscina } from 'piscina'
import { siblingModule } from '../lib/module-path.ts'
import { SingleFlight } from '../lib/single-flight.ts'
import type { BlockSums, Delta } from './delta/match.ts'
import { type Place, runTask, type Task, type TaskResult } from './delta/tasks.ts'
import type { BlockSumRule, DigestName } from './digests.ts'
import type { Content, Tree } from './tree.ts'

/** Content up to this size is worked on in the event loop: below a millisecond even for MD4. */
const INLINE_SIZE = 64 * 1024
/** A table of so many blocks is made in a fraction of a millisecond. */
const INLINE_BLOCKS = 1024
/** Digests kept, of some 100 bytes each. */
const MAX_DIGESTS = 200_000
/** A thread without work ends after this time. */
const IDLE_MS = 30_000

export class Derived {
  readonly #digests = new Map<string, Uint8Array>()
  readonly #deltas = new SingleFlight<string, Delta>()
  readonly #digesting = new SingleFlight<string, Uint8Array>()
  #pool: Piscina | undefined

  /** How to make the file from the blocks that the client has. */
  async delta(
    contentKey: string,
    content: Content,
    sums: BlockSums,
    rule: BlockSumRule,
    inplace: boolean,
  ): Promise<Delta> {
    if (content.size === 0) return []
    const task: Task = { type: 'match', place: placeOf(content), sums, rule, inplace }
    const { head } = sums
    if (content.size <= INLINE_SIZE && head.count <= INLINE_BLOCKS) return runTask(task)
    const question = `${contentKey}:${rule.name}:${rule.seed}:${rule.seedFirst}:${inplace}:${head.count}:${head.blockLength}:${head.strongLength}:${head.remainder}:${hash('sha256', sums.strong)}:${hash('sha256', bytesOf(sums.weak))}`
    return this.#deltas.run(question, () => this.#inThread(task))
  }

  /**
   * The digest of a regular file: as it was computed when the build came in, or else worked out once and
   * kept, after the content was found to be what it was then.
   */
  async digest(tree: Tree, node: number, name: DigestName, seed: number): Promise<Uint8Array> {
    const known = this.knownDigest(tree, node, name, seed)
    if (known) return known
    const key = digestKey(tree, node, name, seed)
    return this.#digesting.run(key, async () => {
      const content = await tree.open(node)
      try {
        const expected = tree.digest(node, 'xxh128')
        const task: Task = { type: 'digest', place: placeOf(content), name, seed, expected }
        const value = content.size <= INLINE_SIZE ? await runTask(task) : await this.#inThread(task)
        if (this.#digests.size >= MAX_DIGESTS) this.#digests.delete(this.#digests.keys().next().value!)
        this.#digests.set(key, value)
        return value
      } finally {
        content.close()
      }
    })
  }

  /** The digest of what lies behind the first `from` bytes, for --append; not kept. */
  async tailDigest(content: Content, from: number, name: DigestName, seed: number): Promise<Uint8Array> {
    const { fd, offset } = content.place
    const place = { fd, offset: offset + from, size: content.size - from }
    const task: Task = { type: 'digest', place, name, seed, expected: undefined }
    return place.size <= INLINE_SIZE ? runTask(task) : this.#inThread(task)
  }

  /** The digest when it can be had without reading anything. */
  knownDigest(tree: Tree, node: number, name: DigestName, seed: number): Uint8Array | undefined {
    if (name === 'md5' || name === 'xxh128') {
      const recorded = tree.digest(node, name)
      if (recorded) return recorded
    }
    return name === 'none' ? new Uint8Array(1) : this.#digests.get(digestKey(tree, node, name, seed))
  }

  async close(): Promise<void> {
    await this.#pool?.destroy()
  }

  #inThread<T extends Task>(task: T): Promise<TaskResult[T['type']]> {
    this.#pool ??= new Piscina({
      filename: siblingModule(import.meta.url, './delta/worker'),
      minThreads: 0,
      maxThreads: Math.max(1, availableParallelism()),
      idleTimeout: IDLE_MS,
    })
    return this.#pool.run(task)
  }
}

function digestKey(tree: Tree, node: number, name: string, seed: number): string {
  return `${name}:${name === 'md4-seeded' ? seed : ''}:${tree.contentKey(node)}`
}

function placeOf(content: Content): Place {
  return { ...content.place, size: content.size }
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
}
