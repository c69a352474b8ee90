/**
 * Digests in memory that no tree knows by itself: those of clients before 3.0, whose digest begins with the seed,
 * and the rarer ones that are negotiated. A fleet of such clients asks for the digest of each file that it updates.
 *
 * A table for each build and digest, all rows side by side: nothing for the garbage collector to look through, and
 * found by the node's number, where a key would have to be hashed.
 */
import { DIGEST_LENGTH, type DigestName } from './digests.ts'
import { isNumbered, type Tree } from './tree.ts'

/** What all tables take, at most: builds of some hundred thousand files, or a dozen of usual ones. */
const MOST = 8 * 2 ** 20

interface Table {
  /** Digests of nodes, one behind the other. */
  readonly rows: Uint8Array
  /** For each node, whether its row is filled. */
  readonly filled: Uint8Array
  /** Since somebody last wanted its room. */
  used: boolean
}

/** Of one seed: the server's own. */
export class RecentDigests {
  /** In the order in which they go, unless they are used. */
  readonly #tables = new Map<string, Table>()
  readonly #most: number
  #bytes = 0

  /** @param most bytes that all tables take. */
  constructor(most = MOST) {
    this.#most = most
  }

  /** Bytes that are taken. */
  get bytes(): number {
    return this.#bytes
  }

  /** The digest of a regular file; it stays as it is, and holds the memory of its table. */
  find(tree: Tree, node: number, name: DigestName): Uint8Array | undefined {
    const table = this.#tables.get(keyOf(tree, name))
    if (!table?.filled[node]) return undefined
    table.used = true
    const length = DIGEST_LENGTH[name]
    return table.rows.subarray(node * length, (node + 1) * length)
  }

  add(tree: Tree, node: number, name: DigestName, digest: Uint8Array): void {
    if (!isNumbered(tree)) return
    const key = keyOf(tree, name)
    const table = this.#tables.get(key) ?? this.#open(key, tree.count, DIGEST_LENGTH[name])
    if (!table) return
    table.rows.set(digest, node * DIGEST_LENGTH[name])
    table.filled[node] = 1
  }

  /** @returns undefined when such a table would be too large. */
  #open(key: string, count: number, length: number): Table | undefined {
    const size = count * (length + 1)
    if (size > this.#most) return undefined
    for (const [oldest, table] of this.#tables) {
      if (this.#bytes + size <= this.#most) break
      this.#tables.delete(oldest)
      if (table.used) {
        // Rather some stay: where more are asked for in turn than fit, each would push out the next.
        table.used = false
        this.#tables.set(oldest, table)
        return undefined
      }
      this.#bytes -= table.rows.length + table.filled.length
    }
    const table = { rows: new Uint8Array(count * length), filled: new Uint8Array(count), used: false }
    this.#tables.set(key, table)
    this.#bytes += size
    return table
  }
}

function keyOf({ key }: Tree, name: DigestName): string {
  return `${name}\0${key}`
}
