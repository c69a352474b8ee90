/** Putting answers together, part by part. */
import { ByteWriter } from '../lib/byte-writer.ts'
import type { Content, Tree } from './tree.ts'
import type { AnswerPart } from './wire/answers.ts'

/** Collects parts; bytes that follow each other become one. */
export class Parts {
  readonly out = new ByteWriter(256)
  readonly #parts: AnswerPart[] = []

  add(part: AnswerPart): void {
    this.#flush()
    this.#parts.push(part)
  }

  finish(): AnswerPart[] {
    this.#flush()
    return this.#parts
  }

  #flush(): void {
    if (this.out.length > 0) this.#parts.push({ type: 'bytes', bytes: this.out.take() })
  }
}

/** Fills the buffers, one after the other, from that byte on; undefined: at once. */
export type Read = (targets: readonly Uint8Array[], from: number) => Promise<void> | undefined

/** Reads a file's content: by way of the memory that all readers share, if the tree has it. */
export function withReader<T>(tree: Tree, node: number, use: (read: Read) => Promise<T>): Promise<T> {
  if (tree.copy) return use((targets, from) => tree.copy!(node, from, targets))
  return withContent(tree, node, (content) => use((targets, from) => content.read(targets, from)))
}

/** Opens a file's content for as long as it is used. */
export async function withContent<T>(
  tree: Tree,
  node: number,
  use: (content: Content) => Promise<T>,
): Promise<T> {
  const content = await tree.open(node)
  try {
    return await use(content)
  } finally {
    content.close()
  }
}
