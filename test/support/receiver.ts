/**
 * The receiving half of a transfer, which the server itself never needs: block sums of a basis, and a token
 * stream applied to it, as the document has it (docs/rsync-protocol.md, sections 8.6 and 8.7).
 */
import { hash } from 'node:crypto'
import { type BlockSums, type Delta, weakSum } from '../../src/rsync/delta/match.ts'

const md5 = (block: Uint8Array): Uint8Array => hash('md5', block, 'buffer')

/** What a client that has `basis` sends. */
export function sumsOf(
  basis: Uint8Array,
  blockLength: number,
  strongLength: number,
  strongOf: (block: Uint8Array) => Uint8Array = md5,
): BlockSums {
  const count = Math.ceil(basis.length / blockLength)
  const remainder = basis.length % blockLength
  const sums: BlockSums = {
    head: { count, blockLength, strongLength, remainder },
    weak: new Uint32Array(count),
    strong: new Uint8Array(count * strongLength),
  }
  for (let k = 0; k < count; k++) {
    const end = Math.min(basis.length, (k + 1) * blockLength)
    sums.weak[k] = weakSum(basis, k * blockLength, end)
    sums.strong.set(
      strongOf(basis.subarray(k * blockLength, end)).subarray(0, strongLength),
      k * strongLength,
    )
  }
  return sums
}

/** Bytes of block `k` of a basis. */
export function blockOf(basis: Uint8Array, k: number, blockLength: number): Uint8Array {
  return basis.subarray(k * blockLength, Math.min(basis.length, (k + 1) * blockLength))
}

/** The client's side: literal bytes from the new file, blocks from the basis. */
export function apply(delta: Delta, basis: Uint8Array, target: Uint8Array, blockLength: number): Buffer {
  const parts: Uint8Array[] = []
  let position = 0
  for (const step of delta) {
    const part =
      step > 0 ? target.subarray(position, position + step) : blockOf(basis, -step - 1, blockLength)
    parts.push(part)
    position += part.length
  }
  return Buffer.concat(parts)
}

/** As a client does with --inplace: into the very file that the blocks come from. */
export function applyInPlace(
  delta: Delta,
  basis: Uint8Array,
  target: Uint8Array,
  blockLength: number,
): Buffer {
  const file = Buffer.alloc(Math.max(basis.length, target.length))
  file.set(basis)
  let position = 0
  for (const step of delta) {
    const part =
      step > 0
        ? target.subarray(position, position + step)
        : Buffer.from(blockOf(file.subarray(0, basis.length), -step - 1, blockLength))
    file.set(part, position)
    position += part.length
  }
  return file.subarray(0, position)
}
