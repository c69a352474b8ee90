/**
 * The receiving half of a transfer, which the server itself never needs: applies a token stream to a basis,
 * as the document has it (docs/rsync-protocol.md, sections 8.6 and 8.7).
 */
import type { Delta } from '../../src/rsync/delta/match.ts'

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
