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
